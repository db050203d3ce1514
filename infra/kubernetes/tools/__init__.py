"""Programs of a Kubernetes cluster, built once from their published sources into the per-user cache.

`python -m infra.kubernetes.tools` builds what is missing; `programs.py` says what there is and in which version.
"""
