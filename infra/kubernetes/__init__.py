"""linewatch on Kubernetes: the Helm chart, the tools that try it, and a cluster of its own to try it on."""
