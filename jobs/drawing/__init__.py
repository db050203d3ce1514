"""Drawn products for the demo: what a camera over a conveyor sees, with defects and honest masks."""

from jobs.drawing.dataset import draw_dataset
from jobs.drawing.products import KINDS, PRODUCTS, Drawn, background, draw

__all__ = ["KINDS", "PRODUCTS", "Drawn", "background", "draw", "draw_dataset"]
