"""This node's place among the others: imported before anything that counts, for it says where counts are kept.

Nodes may share a file system, as those of one machine do. Each keeps the counts of its replicas in a folder of its own.
"""

import os

import ray

FOLDER = "LINEWATCH_METRICS_FOLDER"
"""Of all nodes; set for replicas by `pipeline.serving.deployment.serve_config`."""


def address() -> str:
    """Of this node, by which the others reach it."""
    found: str = ray.util.get_node_ip_address()
    return found


if os.environ.get(FOLDER) and ray.is_initialized():
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = f"{os.environ[FOLDER]}/{address()}"
