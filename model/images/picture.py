"""Which picture of a file is meant: pages, frames and views; thumbnails and masks are none."""

from __future__ import annotations

import io
import struct
import zlib

from PIL import Image, UnidentifiedImageError

from model.errors import ImageTooLarge, SeveralPictures, UnreadableImage, UnsupportedEncoding, UnsupportedFormat
from model.images.encoding import name_of, second_jpeg

FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")
MOST_PAGES = 100
SEND_PLAIN = "send 8 or 16 bits a sample, gray or RGB, as PNG, TIFF or JPEG"
# What Pillow's decoders raise on hostile bytes, besides its own errors.
DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    IndexError,
    KeyError,
    EOFError,
    MemoryError,
    AttributeError,
    ArithmeticError,
    struct.error,
    zlib.error,
)
_SUBFILE, _OLD_SUBFILE = 254, 255
_REDUCED_OR_MASK = 0b101
_OLD_REDUCED = 2
_MP_ENTRIES = 0xB002


def open_picture(data: bytes, page: int | None) -> Image.Image:
    """The picture that is meant, its header read and no more.

    page: which of several, 1 is the first; none: there must be one alone.

    Raises:
        UnsupportedFormat, UnsupportedEncoding, UnreadableImage, ImageTooLarge, SeveralPictures.
    """
    image = _opened(data)
    try:
        pictures = _pictures(image)
    except DECODER_ERRORS as error:
        raise UnreadableImage(f"the pages of the {image.format} file cannot be counted: {error}") from error
    views = "views" if image.format == "MPO" else "pages" if image.format == "TIFF" else "frames"
    if image.format == "JPEG" and second_jpeg(data):
        raise SeveralPictures("another JPEG follows the end of the first one: send one picture as one image")
    if page is None and len(pictures) > 1:
        raise SeveralPictures(
            f"the {image.format} file holds {len(pictures)} pictures ({views}): send one picture as one image, or set "
            "fit.page to the one that is meant (1 is the first) and fit the product again"
        )
    if (page or 1) > len(pictures):
        raise SeveralPictures(
            f"the product asks for picture {page} of each file (fit.page), and this {image.format} file holds "
            f"{len(pictures)}"
        )
    chosen = pictures[(page or 1) - 1]
    try:
        if image.tell() != chosen:
            image.seek(chosen)
    except DECODER_ERRORS as error:
        raise _unreadable_page(data, chosen, error) from error
    return image


def _opened(data: bytes) -> Image.Image:
    """Read the header alone."""
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as error:
        name = name_of(data)
        if name and data[:2] in (b"\xff\xd8", b"II", b"MM"):
            raise UnsupportedEncoding(f"this is {name}, which can't be read here; {SEND_PLAIN}") from error
        what = f"this is {name}" if name else f"the first bytes {data[:8]!r} are those of no image that is known here"
        raise UnsupportedFormat(f"{what}; send one of these formats: {', '.join(FORMATS)}") from error
    except Image.DecompressionBombError as error:
        raise ImageTooLarge(f"the header claims too many pixels: {error}") from error
    except DECODER_ERRORS as error:
        raise UnreadableImage(f"the image header cannot be read: {error}; the file is corrupt") from error


def _pictures(image: Image.Image) -> list[int]:
    """Numbers of the pages that are pictures of their own."""
    if image.format == "TIFF":
        return _tiff_pages(image)
    count = int(getattr(image, "n_frames", 1))
    if image.format == "MPO":
        entries = getattr(image, "mpinfo", {}).get(_MP_ENTRIES, [])
        kinds = [str(entry["Attribute"]["MPType"]) for entry in entries]
        return [at for at in range(count) if at >= len(kinds) or not kinds[at].startswith("Large Thumbnail")] or [0]
    return list(range(count))


def _tiff_pages(image: Image.Image) -> list[int]:
    pages = []
    for number in range(MOST_PAGES):
        try:
            if number:
                image.seek(number)
        except EOFError:
            break
        except DECODER_ERRORS:  # a page in an encoding that can't be read; it may be a mask, which is none
            pass
        tags = image.tag_v2  # type: ignore[attr-defined]
        if not int(tags.get(_SUBFILE, 0)) & _REDUCED_OR_MASK and int(tags.get(_OLD_SUBFILE, 0)) != _OLD_REDUCED:
            pages.append(number)
        if not tags.next:
            break
    return pages or [0]


def _unreadable_page(data: bytes, page: int, error: Exception) -> UnreadableImage:
    return UnreadableImage(f"picture {page + 1} of the file can't be read: {error}; {name_of(data) or 'corrupt'}")
