"""Hostile inputs without end: mutated images, headers, keys and claim checks, decided by a seed."""

import hashlib
import json
import struct
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import numpy as np

from pipeline.contracts.broker import Outgoing
from pipeline.contracts.events import CLAIM_CONTENT_TYPE
from pipeline.fakes import MemoryStore
from tests.pipeline.line import IMAGES
from tests.pipeline.tiny import PRODUCT, envelope, texture

Rng = np.random.Generator
FORMS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")
Headers = list[tuple[str, bytes | None]]


class Attacker:
    """Draws one hostile message after another. Objects that claim checks point at are put into the store."""

    def __init__(self, seed: int, store: MemoryStore) -> None:
        self._rng = np.random.default_rng(seed)
        self._store = store
        self._good = {form: texture(7, form=form) for form in FORMS}
        self._plant()
        self._ways: tuple[Callable[[], tuple[bytes | None, Headers]], ...] = (
            self._mutated, self._mutated, self._mutated, self._dimensions, self._bomb, self._noise, self._headers,
            self._names, self._claim, self._claim_json,
        )  # fmt: skip

    def messages(self, count: int) -> Iterator[Outgoing]:
        for number in range(count):
            value, headers = self._ways[number % len(self._ways)]()
            headers = [
                ("ce_id", f"hostile-{number}".encode()) if n == "ce_id" and v == b"?" else (n, v) for n, v in headers
            ]
            yield Outgoing(IMAGES, self._key(), value, tuple(headers))  # type: ignore[arg-type]

    # Images

    def _mutated(self) -> tuple[bytes | None, Headers]:
        """A good file with flipped bits, a hole, a piece twice, another file's piece, or its end missing."""
        rng = self._rng
        data = bytearray(self._good[str(rng.choice(FORMS))])
        for _ in range(int(rng.integers(1, 4))):
            at, length = int(rng.integers(len(data))), int(rng.integers(1, 200))
            match int(rng.integers(5)):
                case 0:
                    for _ in range(int(rng.integers(1, 40))):
                        data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
                case 1:
                    del data[at : at + length]
                case 2:
                    data[at:at] = data[at : at + length]
                case 3:
                    other = self._good[str(rng.choice(FORMS))]
                    data[at : at + length] = other[at : at + length]
                case _:
                    del data[max(1, at) :]
            if not data:
                data = bytearray(b"\0")
        return bytes(data), headers()

    def _dimensions(self) -> tuple[bytes | None, Headers]:
        """A header that claims absurd sizes."""
        rng = self._rng
        width, height = (int(rng.choice([0, 1, 65_535, 2**31 - 1, 2**32 - 1])) for _ in range(2))
        match int(rng.integers(3)):
            case 0:
                return png(width, height, bytes(100), depth=int(rng.choice([1, 8, 16, 77]))), headers()
            case 1:
                data = bytearray(self._good["BMP"])
                struct.pack_into("<II", data, 18, width, height)
                return bytes(data), headers()
            case _:
                data = bytearray(self._good["JPEG"])
                at = data.find(b"\xff\xc0")
                struct.pack_into(">HH", data, at + 5, height & 0xFFFF, width & 0xFFFF)
                return bytes(data), headers()

    def _bomb(self) -> tuple[bytes | None, Headers]:
        """Few bytes, many pixels: just within the limit now and then, far beyond it mostly."""
        side = int(self._rng.choice([2_000, 20_000, 50_000]))
        rows = min(side, 2_000)
        return png(side, side, zlib.compress(bytes((side + 1) * rows), 9), depth=8, kind=0), headers()

    def _noise(self) -> tuple[bytes | None, Headers]:
        magic = (b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"II*\0", b"MM\0*", b"RIFF\xff\xff\xff\xffWEBPVP8 ")
        if self._rng.random() < 0.1:
            return (None if self._rng.random() < 0.5 else b""), headers()
        start = magic[int(self._rng.integers(len(magic)))]
        return start + self._rng.bytes(int(self._rng.integers(0, 3_000))), headers()

    # Envelopes

    def _headers(self) -> tuple[bytes | None, Headers]:
        rng = self._rng
        found = headers()
        at = int(rng.integers(len(found)))
        name, value = found[at]
        match int(rng.integers(7)):
            case 0:
                del found[at]
            case 1:
                found[at] = (name, rng.bytes(int(rng.integers(1, 64))))
            case 2:
                found[at] = (name, None)
            case 3:
                found[at] = (name, b"x" * int(rng.choice([1_025, 100_000])))
            case 4:
                found += [(name, b"again"), (name.upper(), value)]
            case 5:
                found += [(f"ce_x{n}", b"y" * 500) for n in range(200)]
            case _:
                found[at] = (
                    name,
                    str(rng.choice(["9999-99-99", "\0", "0001-01-01T00:00:00+23:59", "-1", "{}"])).encode(),
                )
        return self._good["PNG"], found

    def _names(self) -> tuple[bytes | None, Headers]:
        evil = ("../models", "a/b", "/", "..", "%2e%2e", "bottle\0", "bottle\n", "b" * 500, "*", "ʙottle", "con", " ")
        name = str(self._rng.choice(evil))
        where = {"product": name} if self._rng.random() < 0.5 else {"camera": name}
        return self._good["PNG"], headers(**where)

    def _key(self) -> bytes | None:
        if self._rng.random() < 0.9:
            return b"/plant/cam1"
        return (None, b"", b"\xff\xfe\0", b"k" * 5_000)[int(self._rng.integers(4))]

    # Claim checks

    def _plant(self) -> None:
        """Objects to point at: another room's, a claim check to itself, one that is not what its claim says."""
        self._store.put("models/secret/weights", b"not an image")
        self._store.put("images/self", json.dumps(self._pointing("images/self", b"")).encode())
        self._store.put("images/good", self._good["PNG"])
        self._store.put("images/large", bytes(3 << 20))

    def _pointing(self, key: str, data: bytes, **changes: object) -> dict[str, object]:
        told = {
            "uri": f"s3://{self._store.bucket}/{key}",
            "sha256": hashlib.sha256(data).hexdigest(),
            "size": len(data),
            "content_type": "image/png",
        }
        return {**told, **changes}

    def _claim(self) -> tuple[bytes | None, Headers]:
        good = self._good["PNG"]
        uri = str(
            self._rng.choice(
                [
                    "s3://other/images/good", "http://127.0.0.1/images/good", "file:///etc/passwd", "s3://linewatch/",
                    "s3://linewatch/models/secret/weights", "s3://linewatch/images/../models/secret/weights",
                    "s3://linewatch/images//good", "s3://linewatch/images/%2e%2e/x", "s3://linewatch/images/gone",
                    "s3://linewatch/images/self", "s3://linewatch/images/" + "x" * 2_000, "S3://linewatch/images/good",
                    "s3://linewatch@evil/images/good", "s3://linewatch/images/good\0", "", "//", "s3://linewatch/images/good",
                ]
            )
        )  # fmt: skip
        changes: dict[str, object] = {"uri": uri}
        match int(self._rng.integers(6)):
            case 0:
                changes["sha256"] = "0" * 64
            case 1:
                changes["size"] = int(self._rng.choice([-1, 0, 2**40]))
            case 2:
                changes |= {"uri": "s3://linewatch/images/large", "size": 3 << 20}
            case 3:
                changes["content_type"] = CLAIM_CONTENT_TYPE
            case 4:
                changes["more"] = "x"
        value = json.dumps(self._pointing("images/good", good, **changes)).encode()
        return value, headers(content_type=CLAIM_CONTENT_TYPE)

    def _claim_json(self) -> tuple[bytes | None, Headers]:
        """Values that are no claim check, some of them meant for the parser."""
        values = (
            b"", b"null", b"[]", b"{", b"[" * 8_000, b'{"a":' * 1_000, b"9" * 8_000, b'{"size": 1e400}', b'"\\ud800"',
            b"[" * 100_000, b'{"uri": ' + b'"' + b"a" * 7_000 + b'"}', b"\xff\xfe", b"NaN", b'{"size": NaN}',
        )  # fmt: skip
        return values[int(self._rng.integers(len(values)))], headers(content_type=CLAIM_CONTENT_TYPE)


def headers(product: str = PRODUCT, camera: str = "/plant/cam1", **changes: str) -> Headers:
    """A good envelope whose id waits for its number."""
    return list(envelope("?", product, camera, time=datetime.now(UTC), **changes).headers())


def png(width: int, height: int, compressed: bytes, *, depth: int = 8, kind: int = 2) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, depth & 0xFF, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", compressed) + chunk(b"IEND", b"")
