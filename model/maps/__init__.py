"""The anomaly map's geometry: from errors of features to a smoothed map, resized, spread and cut into components."""
