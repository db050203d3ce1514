"""The detector: reverse distillation with asymptotic fusion, from the bytes of an image to a verdict, mask and regions.

Imports torch, numpy, pillow, pydantic and safetensors, and nothing of the rest of linewatch. See docs/method.md.
"""

from model.engine.engine import Engine
from model.errors import (
    BundleError,
    DepthMismatch,
    EmptyImage,
    FitError,
    ImageRejected,
    ImageTooLarge,
    ModelError,
    SeveralPictures,
    SizeDiffers,
    UnreadableImage,
    UnsupportedEncoding,
    UnsupportedFormat,
    WeightsError,
)
from model.fitting.options import FitOptions
from model.fitting.training import Fit, StepReport
from model.images.frames import Frame, ImageLimits, read_frame
from model.images.ignored import IgnoredArea, drawn_area, masked_area
from model.images.reading import Reading
from model.manifest import Calibration, Manifest, ModelBundle
from model.measures.metrics import average_precision, f1_max, image_auroc, pixel_auroc
from model.measures.region_metrics import aupimo, aupro
from model.measures.splits import is_held_out, split
from model.verdict.calibration import calibrate
from model.verdict.masks import Findings, Region, cut
from model.verdict.pictures import decode_heat_png, encode_heat_png, encode_mask_png
from model.verdict.scored import Scored, Verdict

__all__ = [
    "BundleError",
    "Calibration",
    "DepthMismatch",
    "EmptyImage",
    "Engine",
    "Findings",
    "Fit",
    "FitError",
    "FitOptions",
    "Frame",
    "IgnoredArea",
    "ImageLimits",
    "ImageRejected",
    "ImageTooLarge",
    "Manifest",
    "ModelBundle",
    "ModelError",
    "Reading",
    "Region",
    "Scored",
    "SeveralPictures",
    "SizeDiffers",
    "StepReport",
    "UnreadableImage",
    "UnsupportedEncoding",
    "UnsupportedFormat",
    "Verdict",
    "WeightsError",
    "aupimo",
    "aupro",
    "average_precision",
    "calibrate",
    "cut",
    "decode_heat_png",
    "drawn_area",
    "encode_heat_png",
    "encode_mask_png",
    "f1_max",
    "image_auroc",
    "is_held_out",
    "masked_area",
    "pixel_auroc",
    "read_frame",
    "split",
]
