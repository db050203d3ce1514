"""What a running line needs: deploying replicas, replaying cameras, following topics, dead letters, the doctor."""
