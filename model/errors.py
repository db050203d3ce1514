"""What can go wrong in the detector.

    ModelError
    ├── ImageRejected              one image cannot be scored; others are unaffected
    │   ├── EmptyImage             no bytes at all
    │   ├── UnsupportedFormat      not JPEG, PNG, BMP, TIFF or WebP
    │   ├── ImageTooLarge          more bytes or more pixels than the limits
    │   └── UnreadableImage        the right format, but truncated or corrupt
    ├── WeightsError               a teacher's weights: missing, wrong hash, wrong architecture
    ├── BundleError                a product's model: digest mismatch, bad manifest, wrong tensors
    └── FitError                   a model cannot be fitted: too few images, a foreign checkpoint

Programming errors (a wrong argument) are plain ValueErrors.
"""


class ModelError(Exception):
    """Base of everything this package raises on purpose."""


class ImageRejected(ModelError):
    """The image cannot be scored and never will be: do not retry, dead-letter it."""


class EmptyImage(ImageRejected):
    """There are no bytes to decode."""


class UnsupportedFormat(ImageRejected):
    """The content is not one of the accepted image formats."""


class ImageTooLarge(ImageRejected):
    """The image exceeds a limit; it was refused before its pixels were decoded."""


class UnreadableImage(ImageRejected):
    """The content starts like an accepted format but cannot be decoded to its end."""


class WeightsError(ModelError):
    """A teacher's pretrained weights cannot be used."""


class BundleError(ModelError):
    """A model bundle is broken or has been tampered with."""


class FitError(ModelError):
    """A product's model cannot be fitted from what was given."""
