"""What a report is made from: one row per inspected image, one summary per product."""

from dataclasses import dataclass, field
from datetime import datetime

from model.images.reading import AS_THE_FILE_SAYS, Reading

GOOD = "good"


@dataclass(frozen=True)
class RegionBox:
    """One region of the mask, in pixels of the original image; ``peak`` is its highest normalised score."""

    x: int
    y: int
    width: int
    height: int
    area_px: int
    peak: float


@dataclass(frozen=True)
class InspectedImage:
    product: str
    image_id: str
    camera: str
    image: bytes  # encoded, as it was captured; its meaning where it doesn't say is in `reading`
    truth: str | None  # "good", a defect kind, or None where nobody knows
    verdict: str  # OK | NotOK | NotDecidable
    normalised_score: float  # 1.0 = the threshold
    model_version: str
    regions: list[RegionBox] = field(default_factory=list)
    mask_png: bytes = b""  # 8-bit PNG at the original size, white = defect
    heat_png: bytes | None = None  # 16-bit grayscale PNG at the original size, 8192 = the threshold
    truth_mask_png: bytes | None = None
    ignored_png: bytes | None = None  # 8-bit PNG at the original size, white = doesn't count; None: all of it counts
    reading: Reading = AS_THE_FILE_SAYS
    out_of_sight: bool = False  # its defect lies wholly where the image is ignored
    latency_ms: float | None = None

    @property
    def outcome(self) -> str:
        """The verdict against the truth: ``false reject``, ``escape``, ``review``, ``right`` or ``unknown``."""
        if self.verdict == "NotDecidable":
            return "review"
        if self.truth is None or self.out_of_sight:
            return "unknown"
        if (self.truth == GOOD) == (self.verdict == "OK"):
            return "right"
        return "false reject" if self.truth == GOOD else "escape"


@dataclass(frozen=True)
class ProductSummary:
    """good, defective: images in the figures; those with a defect in the ignored area alone are in none of them.

    calibration: what the model's manifest states of its threshold and false-reject rate, in words. ignored_share: of
    each image, that doesn't count; None where all of it does.
    """

    product: str
    model_version: str
    images: int
    events: int
    false_rejects: int
    escapes: int
    reviews: int  # NotDecidable
    good: int
    defective: int
    image_auroc: float | None = None
    pixel_auroc: float | None = None
    images_per_s: float | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None
    calibration: str = ""
    ignored_share: float | None = None


@dataclass(frozen=True)
class Report:
    title: str
    created: datetime
    servers: str
    summaries: list[ProductSummary]
    images: list[InspectedImage]
    lost: int = 0
    doubled: int = 0
    deadletters: int = 0
    notes: list[str] = field(default_factory=list)
