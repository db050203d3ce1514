"""Which good images are held out for calibration.

An image's place depends on nothing but its content, so an image that was held out for one version is never trained on
for any later one: the threshold of every version, and the comparison between versions, rest on images that neither saw.
"""

from __future__ import annotations

from collections.abc import Sequence

HELD_OUT_FRACTION = 0.2
"""Of good images; see docs/method.md for how many a target false-reject rate needs."""
_HASH_DIGITS = 16


def is_held_out(sha256: str, fraction: float = HELD_OUT_FRACTION) -> bool:
    """Whether the image with this content digest (hex) is held out; true for about `fraction` of all images."""
    return _position(sha256) < fraction


def split(shas: Sequence[str], fraction: float = HELD_OUT_FRACTION, minimum: int = 8) -> tuple[list[int], list[int]]:
    """Indexes into `shas` of the images to train on and of those held out.

    Where fewer than `minimum` fall under `fraction`, the images of lowest digest fill it up: those stay held out when
    the collection grows, except the ones that the growth itself makes unnecessary. At most half of the images are held
    out. Copies of one image share a digest and so fall on the same side.
    """
    ranked = sorted({sha.lower() for sha in shas}, key=lambda sha: (_position(sha), sha))
    wanted = min(max(minimum, sum(_position(sha) < fraction for sha in ranked)), len(ranked) // 2)
    chosen = set(ranked[:wanted])
    train = [index for index, sha in enumerate(shas) if sha.lower() not in chosen]
    held_out = [index for index, sha in enumerate(shas) if sha.lower() in chosen]
    return train, held_out


def _position(sha256: str) -> float:
    """The digest as a number in [0, 1)."""
    try:
        return float(int(sha256[:_HASH_DIGITS], 16) / (1 << 4 * len(sha256[:_HASH_DIGITS])))
    except ValueError:
        raise ValueError(f"{sha256!r} is not a hex digest; give the sha256 of the image's bytes") from None
