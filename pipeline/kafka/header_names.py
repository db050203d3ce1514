"""Headers whose names are not UTF-8: read, so that their message becomes a dead letter, and written back byte for byte.

kafka-python 3.0.12 takes the whole batch for corrupt, and its partition can't be read past it. Such bytes are kept in a
name as lone surrogates, as Python keeps those of file names.
"""

from typing import Any, SupportsIndex

from kafka.record import memory_records
from kafka.record.default_records import DefaultRecordBatch


class HeaderName(str):
    """Text, or bytes that are none; the client encodes it when it sends it on."""

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:  # noqa: ARG002
        return super().encode(encoding, "surrogateescape")


class _Buffer(bytearray):
    """Of a batch. Nothing but names is decoded in it."""

    def __getitem__(self, key: SupportsIndex | slice) -> Any:
        found = super().__getitem__(key)
        return _Buffer(found) if isinstance(found, bytearray) else found

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:  # noqa: ARG002
        return HeaderName(super().decode(encoding, "surrogateescape"))


class Batch(DefaultRecordBatch):
    """Reads its records as the client does, and by another buffer from the first name on that the client can't read."""

    _buffer: Any

    def _read_msg(self, *args: Any) -> Any:
        try:
            return super()._read_msg(*args)
        except UnicodeDecodeError:
            self._buffer = _Buffer(self._buffer)
            return super()._read_msg(*args)


def read_any_name() -> None:
    """All consumers of this process."""
    memory_records.DefaultRecordBatch = Batch
