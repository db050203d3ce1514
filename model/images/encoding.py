"""What bytes are, in words: for whoever has to be told why they can't be judged.

Headers are read by hand here, since a decoder that gives up says "truncated" to everything.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from PIL.TiffImagePlugin import ImageFileDirectory_v2

_MAGIC = (
    (b"GIF8", "a GIF image"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 image"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 codestream"),
    (b"\xff\x0a", "a JPEG XL image"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL image"),
    (b"II\xbc\x01", "a JPEG XR image"),
    (b"qoif", "a QOI image"),
    (b"8BPS", "a Photoshop file"),
    (b"v/1\x01", "an OpenEXR image"),
    (b"SIMPLE  =", "a FITS image"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"%PDF", "a PDF"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip stream"),
    (b"\0\0\x01\0", "an icon"),
)
_BASE64 = ((b"/9j/", "JPEG"), (b"iVBORw0KGgo", "PNG"), (b"SUkq", "TIFF"), (b"TU0AK", "TIFF"), (b"UklGR", "WebP"))
_JPEG_KINDS = {
    0xC3: "a lossless JPEG",
    0xC5: "a hierarchical JPEG",
    0xC6: "a hierarchical JPEG",
    0xC7: "a hierarchical lossless JPEG",
    0xC9: "a JPEG with arithmetic coding",
    0xCA: "a progressive JPEG with arithmetic coding",
    0xCB: "a lossless JPEG with arithmetic coding",
    0xF7: "a JPEG-LS image",
}
_SCALABLE_JPEGS = (0xC0, 0xC1, 0xC2)
_TIFF_COMPRESSIONS = {
    2: "CCITT", 3: "CCITT", 4: "CCITT", 5: "LZW", 6: "old JPEG", 7: "JPEG", 8: "Deflate", 9: "JBIG", 10: "JBIG",
    22610: "JPEG XR", 32773: "PackBits", 32946: "Deflate", 33003: "JPEG 2000", 33005: "JPEG 2000", 34661: "JBIG",
    34712: "JPEG 2000", 34887: "LERC", 34892: "JPEG", 34925: "LZMA", 50000: "Zstandard", 50001: "WebP",
    50002: "JPEG XL", 52546: "JPEG XL",
}  # fmt: skip
_TIFF_SEEN_EVERYWHERE = (1, 5, 7, 8, 32773, 32946)
_TIFF_FORMATS = {2: " (signed)", 3: " (float)", 5: " (complex)", 6: " (complex float)"}
_TIFF_PHOTOMETRIC = {
    0: "white-is-zero",
    5: "CMYK",
    6: "YCbCr",
    8: "CIELab",
    9: "ICCLab",
    10: "ITULab",
    32803: "colour filter array",
}


@dataclass(frozen=True)
class JpegHeader:
    """marker: of the start of frame, which names the process. bits: of a sample. begins: offset of the coded data."""

    marker: int
    bits: int
    components: int
    begins: int

    @property
    def scalable(self) -> bool:
        """Whether a decoder can leave high frequencies out: of DCT images alone."""
        return self.marker in _SCALABLE_JPEGS

    @property
    def name(self) -> str:
        kind = _JPEG_KINDS.get(self.marker, "a JPEG")
        return kind if self.bits == 8 else f"{kind} of {self.bits} bits a sample"


def jpeg_header(data: bytes) -> JpegHeader | None:
    """The header of a JPEG; None where the bytes have none, or it is cut off."""
    frame: tuple[int, int, int] | None = None
    at = 2
    while data[:2] == b"\xff\xd8" and at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF or 0xD0 <= marker <= 0xD7 or marker == 0x01:  # fill bytes, and markers without a length
            at += 1 if marker == 0xFF else 2
            continue
        length = struct.unpack(">H", data[at + 2 : at + 4])[0]
        if (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)) or marker == 0xF7:
            if at + 10 > len(data):
                return None
            frame = (marker, data[at + 4], data[at + 9])
        if marker == 0xDA:
            return JpegHeader(*frame, begins=at + 2 + length) if frame else None
        at += 2 + length
    return JpegHeader(*frame, begins=len(data)) if frame else None


def second_jpeg(data: bytes) -> bool:
    """Whether another JPEG follows the first one's end. Padding is no picture."""
    header = jpeg_header(data)
    end = data.find(b"\xff\xd9", header.begins) if header else -1
    return end >= 0 and data[end + 2 :].lstrip(b"\0\xff")[:1] == b"\xd8" and b"\xff\xd8\xff" in data[end + 2 :]


def png_header(data: bytes) -> tuple[int, int]:
    """Bits of a sample, and the colour type."""
    return data[24], data[25]


def png_significant_bits(data: bytes) -> int | None:
    """The most significant bits that sBIT states of a colour channel; None where there is no such chunk."""
    for name, body in _png_chunks(data):
        if name == b"sBIT" and body:
            colours = {0: 1, 2: 3, 3: 3, 4: 1, 6: 3}.get(png_header(data)[1], 1)
            return max(body[:colours])
        if name == b"IDAT":
            break
    return None


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 8
    while at + 8 <= len(data):
        length = struct.unpack(">I", data[at : at + 4])[0]
        yield data[at + 4 : at + 8], data[at + 8 : at + 8 + min(length, 64)]
        at += 12 + length


def name_of(data: bytes) -> str | None:
    """The name of an encoding that can't be read here, with its article; None where the bytes have no such name.

    Of JPEG and TIFF files it is what is unusual in them, so ask only once they could not be read.
    """
    if data[:2] == b"\xff\xd8":
        header = jpeg_header(data)
        return header.name if header and header.name != "a JPEG" else None
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return _tiff_name(data)
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return None
    for magic, name in _MAGIC:
        if data.startswith(magic):
            return name
    if data[4:8] == b"ftyp":
        brand = data[8:12].decode("ascii", "replace")
        return "an AVIF image" if brand in ("avif", "avis") else f"a file of kind {brand!r} (HEIF, or a film)"
    if re.match(rb"P[1-7]\s", data):
        return "a Netpbm image (PBM, PGM or PPM)"
    return _text_name(data)


def _text_name(data: bytes) -> str | None:
    """What clients send who wrap an image in text."""
    begin = data[:200].lstrip()
    if begin.startswith(b"--") and b"content-disposition" in data[:2000].lower():
        return "a multipart form with the image inside (send the image's bytes alone, as the body)"
    if begin.startswith(b"data:image/"):
        return "a data: URL (decode its base64, and send the bytes)"
    for prefix, kind in _BASE64:
        if begin.startswith(prefix):
            return f"a {kind} image as base64 text (decode it, and send the bytes)"
    if begin[:1] in (b"{", b"["):
        return "JSON text (send the image's bytes alone)"
    if begin[:1] == b"<":
        return "XML or HTML text"
    return None


def _tiff_name(data: bytes) -> str | None:
    """A TIFF's first page: its samples, and its compression where it is not one that every reader has."""
    try:
        directory = ImageFileDirectory_v2(data[: 16 if b"+" in data[2:4] else 8])  # BigTIFF's header is longer
        stream = io.BytesIO(data)
        stream.seek(directory.next)
        directory.load(stream)
        bits = directory.get(258, (1,))
        bits = tuple(bits) if isinstance(bits, tuple | list) else (int(bits),)
        kind = directory.get(339, (1,))
        kind = kind[0] if isinstance(kind, tuple | list) else kind
        samples = int(directory.get(277, len(bits)))
        compression = int(directory.get(259, 1))
        photometric = _TIFF_PHOTOMETRIC.get(int(directory.get(262, 1)), "")
    except Exception:  # hostile bytes; whoever asks has a message of its own
        return None
    sizes = " and ".join(map(str, sorted(set(bits))))
    name = f"a {photometric}{' ' if photometric else ''}TIFF of {samples} x {sizes} bits{_TIFF_FORMATS.get(kind, '')}"
    if directory.get(284, 1) == 2:
        name += ", in planes"
    if compression not in _TIFF_SEEN_EVERYWHERE:
        name += f", with {_TIFF_COMPRESSIONS.get(compression, f'an unknown ({compression})')} compression"
    return name
