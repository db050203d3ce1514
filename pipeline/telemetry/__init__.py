"""What a replica tells of itself: metrics and log lines."""
