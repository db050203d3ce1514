"""The embedded servers: a Kafka broker and an S3 store for development, the demo and the tests.

Start reading in `servers.py`. Each server is described in a file of its own (`apache_kafka.py`, `tansu.py`,
`minio_server.py`, `seaweedfs.py`); `choice.py` decides which of them run here.
"""

from infra.local.errors import LocalServersError
from infra.local.server import Server
from infra.local.servers import LocalServers

__all__ = ["LocalServers", "LocalServersError", "Server"]
