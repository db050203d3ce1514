"""Which images a product has: what folders mean, what is taken and left out, snapshots and how they are mended."""

from jobs.fitting.datasets.folders import SUFFIXES
from jobs.fitting.datasets.ingest import Datasets, IngestReport
from jobs.fitting.datasets.layout import LocalImage, discover
from jobs.fitting.datasets.snapshots import GOOD, DatasetError, Item, Snapshot

__all__ = [
    "GOOD",
    "SUFFIXES",
    "DatasetError",
    "Datasets",
    "IngestReport",
    "Item",
    "LocalImage",
    "Snapshot",
    "discover",
]
