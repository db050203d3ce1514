"""From the bytes of an image to pixels: what a picture means, and how a large one is cut into tiles."""
