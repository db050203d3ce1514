"""How unlikely an image's features are, place by place, and the image score that follows from it."""
