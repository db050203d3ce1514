"""How replicas run on Ray Serve: the deployment, how many of them, and REST."""
