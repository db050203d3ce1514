"""From good images to a version that may serve: datasets, fits, the gate, releases, the schedule."""
