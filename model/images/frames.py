"""From the bytes of an image to pixels, in one way only.

Training, offline scoring, REST and the stream all call `read_frame`, so that one image gives one score wherever it is
scored, and the same picture gives the same pixels however it is encoded: which picture of a file is meant decides
model/images/picture.py, what its samples mean model/images/samples.py.

Resizing happens here, on uint8, by Pillow's antialiased filter. A large JPEG is decoded at a half, a quarter or an
eighth, but never at less than four times the size that is asked for: nearer, what the decoder leaves out is missing
after resizing too, and good parts of fine texture are no longer what they are as PNG. A camera image of 20 megapixels
becomes 196 kB before anything else holds on to it.

Orientation tags are ignored in every format, on purpose: masks and regions are given in stored pixel coordinates, and a
camera that is bolted to a line has no orientation worth guessing.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import torch
from PIL import Image

from model.errors import EmptyImage, ImageTooLarge, UnreadableImage, UnsupportedEncoding
from model.images.encoding import jpeg_header, name_of
from model.images.picture import DECODER_ERRORS, SEND_PLAIN, open_picture
from model.images.reading import AS_THE_FILE_SAYS, Reading
from model.images.samples import check_depth, layout_of, to_rgb

Resize = Literal["jpeg-scaled-4x-pillow-bilinear", "jpeg-scaled-pillow-bilinear"]
RESIZE: Final[Resize] = "jpeg-scaled-4x-pillow-bilinear"
_BEFORE: Final[Resize] = "jpeg-scaled-pillow-bilinear"
"""Of versions that were calibrated on JPEGs decoded nearer, and on 16 bits without their low byte: they go on so."""
_DECODED_AT_LEAST = 4
"""Times the size that is asked for."""
MAP_STRIDE: Final = 4
"""Pixels of a frame to a cell of its anomaly map, along each side."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# What Pillow has done to a TIFF with an orientation tag, undone.
_AS_STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@dataclass(frozen=True)
class ImageLimits:
    """Bounds that an image must keep, checked before its pixels are decoded."""

    max_bytes: int = 64 << 20
    max_pixels: int = 64_000_000


@dataclass(frozen=True, eq=False)
class Frame:
    """An image as the detector sees it.

    pixels: uint8 [S, S, 3], RGB, resized, or [H, W, 3] as it is where the product has tiles
    (model/images/tiles.py); width, height: the original size in pixels.
    """

    pixels: np.ndarray
    width: int
    height: int

    @property
    def size(self) -> int:
        """Side length S in pixels."""
        return int(self.pixels.shape[0])


def read_frame(
    data: bytes,
    size: int,
    limits: ImageLimits = ImageLimits(),
    *,
    tiled: bool = False,
    reading: Reading = AS_THE_FILE_SAYS,
    resize: Resize = RESIZE,
) -> Frame:
    """Decode an image and resize it to size x size; keep its size where it is for a product with tiles.

    Raises a subclass of ImageRejected, and nothing else, whatever the bytes are.
    """
    if not data:
        raise EmptyImage("the image has no bytes; the producer sent an empty value")
    if len(data) > limits.max_bytes:
        raise ImageTooLarge(
            f"the image has {len(data):,} bytes, the limit is {limits.max_bytes:,}; compress it or raise max_bytes"
        )
    with warnings.catch_warnings():
        # Pillow warns about odd metadata and about bombs; the first is harmless, the second is our limit's work.
        warnings.simplefilter("ignore")
        image = open_picture(data, reading.page)
        width, height = image.size
        if width * height > limits.max_pixels:
            raise ImageTooLarge(
                f"the {image.format} header claims {width} x {height} pixels, the limit is {limits.max_pixels:,}; "
                "crop or bin the image at the camera, or raise max_pixels"
            )
        if width == 0 or height == 0:
            raise UnreadableImage(f"the {image.format} header claims {width} x {height} pixels; the file is corrupt")
        try:
            layout = layout_of(image, data)
            check_depth(layout, reading, data)
            orientation = _tiff_orientation(image)
            nearest = size if resize == _BEFORE else size * _DECODED_AT_LEAST
            # The box is the image within what is decoded, in blocks of 8.
            scaled = None if tiled or not _scalable(image, data) else _draft(image, nearest)
            image.load()
            whole = to_rgb(image, data, layout, reading, _reopened(data, reading), cut=resize == _BEFORE)
            rgb = _stored(whole, orientation)
            width, height = rgb.size if orientation != 1 else (width, height)
            box = scaled or (0, 0, *rgb.size)
            as_is = tiled or box == (0, 0, size, size)
            resized = rgb if as_is else rgb.resize((size, size), Image.Resampling.BILINEAR, box=box)
            pixels = np.asarray(resized, dtype=np.uint8)
        except DECODER_ERRORS as error:
            raise _not_decoded(image, data, width, height, error) from error
    return Frame(pixels=pixels, width=width, height=height)


def _scalable(image: Image.Image, data: bytes) -> bool:
    """Whether the decoder can leave frequencies out: of JPEGs by cosine transform, and of a file's first picture."""
    if image.format not in ("JPEG", "MPO") or image.tell() != 0:
        return False
    header = jpeg_header(data)
    return header is not None and header.scalable


def _draft(image: Image.Image, least: int) -> tuple[float, float, float, float] | None:
    drafted = image.draft(None, (least, least))
    return drafted[1] if drafted else None


def _tiff_orientation(image: Image.Image) -> int:
    return int(image.getexif().get(0x0112, 1)) if image.format == "TIFF" else 1


def _stored(image: Image.Image, orientation: int) -> Image.Image:
    turn = _AS_STORED.get(orientation)
    return image if turn is None else image.transpose(turn)


def _reopened(data: bytes, reading: Reading) -> Callable[[], Image.Image]:
    return lambda: open_picture(data, reading.page)


def _not_decoded(
    image: Image.Image, data: bytes, width: int, height: int, error: Exception
) -> UnreadableImage | UnsupportedEncoding:
    """Why a decoder gave up, by what the file is."""
    what = f"the {image.format} image of {width} x {height} pixels and {len(data):,} bytes"
    name = name_of(data)
    if name and (image.format == "JPEG" or "compression" in name):
        return UnsupportedEncoding(f"{what} is {name}, which can't be read here ({error}); {SEND_PLAIN}")
    header = jpeg_header(data) if image.format == "JPEG" else None
    if header and b"\xff\xd9" not in data[header.begins :]:
        return UnreadableImage(f"{what} has no end marker (FF D9): it is truncated; look at the camera and its link")
    return UnreadableImage(
        f"{what} cannot be decoded: {error}; it is truncated or corrupt{f' ({name})' if name else ''}"
    )


def normalised(
    frames: Sequence[Frame], mean: Sequence[float], std: Sequence[float], device: torch.device | str = "cpu"
) -> torch.Tensor:
    """Frames of one size -> float32 [B, 3, S, S], channels_last, on the device, (x / 255 - mean) / std."""
    side = frames[0].size
    # Pinned memory is what a GPU can read by itself, while the next operations are being launched.
    staged_BHWC = torch.empty(
        (len(frames), side, side, 3), dtype=torch.uint8, pin_memory=torch.device(device).type == "cuda"
    )
    np.stack([frame.pixels for frame in frames], out=staged_BHWC.numpy())
    batch_BHWC = staged_BHWC.to(device, non_blocking=True)
    scale_C, shift_C = (x_C.to(device) for x_C in pixel_affine(mean, std))
    # Permuting NHWC memory gives a channels_last tensor without a copy.
    return (batch_BHWC.float() * scale_C + shift_C).permute(0, 3, 1, 2)


def pixel_affine(mean: Sequence[float], std: Sequence[float]) -> tuple[torch.Tensor, torch.Tensor]:
    """(x / 255 - mean) / std as a factor and a summand of x, float32 [3] each."""
    scale_C = torch.tensor([1 / (255 * s) for s in std], dtype=torch.float32)
    shift_C = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], dtype=torch.float32)
    return scale_C, shift_C
