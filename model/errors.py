"""What can go wrong in the detector.

    ModelError
    ├── ImageRejected              one image cannot be scored; others are unaffected
    │   ├── EmptyImage             no bytes at all
    │   ├── UnsupportedFormat      not JPEG, PNG, BMP, TIFF or WebP
    │   ├── UnsupportedEncoding    one of these, and within it an encoding that can't be read, or not be judged rightly
    │   ├── DepthMismatch          bits of a sample, or values, that are not the product's, or that nobody has stated
    │   ├── SeveralPictures        pages, frames or views, of which nobody has said which one is meant
    │   ├── ImageTooLarge          more bytes or more pixels than the limits
    │   ├── UnreadableImage        the right format, but truncated or corrupt
    │   └── SizeDiffers            another size than the one that the product's ignored area was drawn for
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


class UnsupportedEncoding(ImageRejected):
    """The format is accepted; what is inside can't be read, or has lost the gray values that a verdict needs."""


class DepthMismatch(ImageRejected):
    """How bright the samples are meant is not known, or is not what the product's images are."""


class SeveralPictures(ImageRejected):
    """The file holds more than one picture, or not the one that the product asks for."""


class ImageTooLarge(ImageRejected):
    """The image exceeds a limit; it was refused before its pixels were decoded."""


class UnreadableImage(ImageRejected):
    """The content starts like an accepted format but cannot be decoded to its end."""


class SizeDiffers(ImageRejected):
    """The image has another size than the one that its product's ignored area was drawn for."""


class WeightsError(ModelError):
    """A teacher's pretrained weights cannot be used."""


class BundleError(ModelError):
    """A model bundle is broken or has been tampered with."""


class FitError(ModelError):
    """A product's model cannot be fitted from what was given."""
