"""The detector: reverse distillation with asymptotic fusion, from the bytes of an image to a verdict, mask and regions.

Imports torch, numpy, pillow, pydantic and safetensors, and nothing of the rest of linewatch. See docs/method.md.
"""

from model.calibration import calibrate
from model.engine import Engine
from model.errors import (
    BundleError,
    EmptyImage,
    FitError,
    ImageRejected,
    ImageTooLarge,
    ModelError,
    UnreadableImage,
    UnsupportedFormat,
    WeightsError,
)
from model.frames import Frame, ImageLimits, read_frame
from model.manifest import Calibration, Manifest, ModelBundle
from model.masks import Findings, Region, cut
from model.metrics import average_precision, f1_max, image_auroc, pixel_auroc
from model.options import FitOptions
from model.pictures import decode_heat_png, encode_heat_png, encode_mask_png
from model.region_metrics import aupimo, aupro
from model.scored import Scored, Verdict
from model.splits import is_held_out, split
from model.synthetic import spoil
from model.training import Fit, StepReport

__all__ = [
    "BundleError",
    "Calibration",
    "EmptyImage",
    "Engine",
    "Findings",
    "Fit",
    "FitError",
    "FitOptions",
    "Frame",
    "ImageLimits",
    "ImageRejected",
    "ImageTooLarge",
    "Manifest",
    "ModelBundle",
    "ModelError",
    "Region",
    "Scored",
    "StepReport",
    "UnreadableImage",
    "UnsupportedFormat",
    "Verdict",
    "WeightsError",
    "aupimo",
    "aupro",
    "average_precision",
    "calibrate",
    "cut",
    "decode_heat_png",
    "encode_heat_png",
    "encode_mask_png",
    "f1_max",
    "image_auroc",
    "is_held_out",
    "pixel_auroc",
    "read_frame",
    "split",
    "spoil",
]
