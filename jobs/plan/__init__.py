"""What a factory needs: from measured service times to replicas, brokers and disks, with a simulation of the line."""
