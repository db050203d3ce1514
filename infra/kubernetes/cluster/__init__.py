"""A real Kubernetes of one or two nodes in namespaces of its own, from the programs that `make kube-tools` builds.

It needs root, containerd, runc and the CNI plugins. Nothing of it is left when it ends, and nothing outside sees it.
"""
