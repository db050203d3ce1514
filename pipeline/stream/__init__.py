"""What happens to an image between fetch and commit, in which order, and what waits for whom."""
