"""Growing columns: a million images as a few arrays, where objects of their own would take gigabytes."""

from array import array
from typing import Any

import numpy as np

DIGEST_BYTES = 16


class Digests:
    """16 bytes a row, such as the first half of a sha256."""

    def __init__(self) -> None:
        self._data = bytearray()

    def append(self, digest: bytes) -> None:
        assert len(digest) == DIGEST_BYTES
        self._data += digest

    def values(self) -> np.ndarray:
        """(rows,) of 16 bytes each. numpy pads with zeros, so that all are compared whole."""
        return np.frombuffer(bytes(self._data), dtype=f"S{DIGEST_BYTES}")


class Texts:
    """A text a row, end to end in UTF-8."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._ends = array("q")

    def append(self, text: str) -> None:
        self._data += text.encode(errors="replace")
        self._ends.append(len(self._data))

    def __getitem__(self, row: int) -> str:
        begin = self._ends[row - 1] if row else 0
        return self._data[begin : self._ends[row]].decode()

    def __len__(self) -> int:
        return len(self._ends)


class Names:
    """Few different texts, each with a number."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._numbers: dict[str, int] = {}

    def number(self, text: str) -> int:
        known = self._numbers.setdefault(text, len(self.texts))
        if known == len(self.texts):
            self.texts.append(text)
        return known


def numbers(column: "array[Any]") -> np.ndarray:
    """(rows,) of int64."""
    return np.array(column, dtype=np.int64)
