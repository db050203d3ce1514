"""From an anomaly map to a verdict: calibration, threshold, mask, regions, and the pictures of them."""
