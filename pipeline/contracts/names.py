"""Names become keys, topics and paths, so they are checked before they do.

With ``fullmatch``: for ``match``, ``$`` is also the place before a newline at the end.
"""

import re
from typing import Annotated

from pydantic import StringConstraints

from pipeline.errors import NameRefused

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"
VERSION_PATTERN = r"^[0-9]{8}T[0-9]{6}Z-[0-9a-f]{8}$"
SOURCE_PATTERN = r"^(/[A-Za-z0-9][A-Za-z0-9._-]{0,63}){1,8}$"

ProductName = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
VersionName = Annotated[str, StringConstraints(pattern=VERSION_PATTERN)]


def product_name(text: str) -> str:
    """``text`` itself, where it can name a product.

    Raises:
        NameRefused: anything but 1 to 64 letters, digits, ``_`` and ``-``, starting with a letter or digit.
    """
    if not re.fullmatch(NAME_PATTERN, text):
        raise NameRefused(
            f"{text[:80]!r} can't name a product: use 1 to 64 letters, digits, '_' or '-', first a letter or digit"
        )
    return text


def version_name(text: str) -> str:
    """``text`` itself, where it has the form of a model version, such as ``20260131T120000Z-0f1e2d3c``."""
    if not re.fullmatch(VERSION_PATTERN, text):
        raise NameRefused(f"{text[:80]!r} is no model version: they look like 20260131T120000Z-0f1e2d3c")
    return text


def camera_source(camera: str) -> str:
    """The ISA-95 path of a camera: ``/site/area/line/camera`` with levels skipped at will.

    A bare name such as ``cam1`` becomes ``/cam1``.
    """
    source = camera if camera.startswith("/") else f"/{camera}"
    if not re.fullmatch(SOURCE_PATTERN, source):
        raise NameRefused(f"{camera[:120]!r} can't name a camera: use a path such as /plant1/hall2/line3/cam1")
    return source
