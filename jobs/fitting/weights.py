"""Teachers' weights: which are here, and how the others get here.

Whatever comes in goes the same way: into a hidden file beside its place, its sha256 checked, a teacher built from it,
and only then under its name, by one rename.
"""

import hashlib
import http.client
import os
import re
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from model import WeightsError
from model.teachers import TEACHERS, registered_teacher
from model.teachers.weights import (
    SUFFIXES,
    FoundWeights,
    find_weights,
    how_to_get,
    read_weights,
    vouched_for,
    weights_folders,
)
from pipeline.settings import Settings
from pipeline.storage.store import S3Store

LIMIT_BYTES = 512 << 20  # several times the largest teacher's file
_CHUNK_BYTES = 1 << 18
_SILENCE_S = 30.0

Progress = Callable[[int, int | None], None]


@dataclass(frozen=True)
class Survey:
    """What is known about one backbone's weights. problem: why they can't be used, and what to do about it."""

    backbone: str
    found: FoundWeights | None
    problem: str = ""


def survey() -> list[Survey]:
    """Look for every teacher's weights, and check the sha256 of those that are here."""
    return [_survey(backbone) for backbone in TEACHERS]


def _survey(backbone: str) -> Survey:
    source = TEACHERS[backbone].weights
    found = None
    try:
        found = find_weights(backbone, source)
        if found is None:
            return Survey(backbone, None, how_to_get(backbone, source))
        read_weights(found.path, found.sha256)
    except WeightsError as error:
        return Survey(backbone, found, str(error))
    return Survey(backbone, found)


def fetch(backbone: str, on_progress: Progress = lambda _done, _of: None) -> Path:
    """Download a backbone's published weights, where they are not here already; returns their file.

    on_progress: bytes so far, and of how many, where the publisher says so.

    Raises:
        WeightsError: an unknown backbone, no address, no answer, a broken download, or not what was published.
    """
    source = registered_teacher(backbone).weights
    found = find_weights(backbone, source)
    if found and _intact(found):
        return found.path
    if source.url is None:
        raise WeightsError(f"{backbone}: its weights are not fetched: {how_to_get(backbone, source)}")
    with _incoming(backbone, Path(source.file_name).suffix) as file:
        try:
            with urllib.request.urlopen(source.url, timeout=_SILENCE_S) as answer:
                length = answer.headers.get("Content-Length")
                digest = _copy(answer, file, source.url, int(length) if length else None, on_progress)
        except (OSError, http.client.HTTPException) as error:
            raise WeightsError(
                f"{source.url} could not be downloaded ({getattr(error, 'reason', None) or error}). Without a network, "
                f"bring the file {source.file_name} from elsewhere: 'linewatch weights import FILE --as {backbone}'"
            ) from error
        if digest != source.sha256:
            raise WeightsError(
                f"what {source.url} sent has sha256 {digest}, not {source.sha256}: it was damaged or replaced on its "
                "way, and was thrown away; try again"
            )
        return _settle(file, backbone, digest, source.file_name)


def bring_in(backbone: str, origin: str, sha256: str | None, settings: Callable[[], Settings]) -> Path:
    """Take weights from a file or from s3://BUCKET/KEY; returns the file that they are in now.

    sha256: what the file must have. With it, weights other than the published ones are taken as well.
    settings: asked for the S3 endpoint and credentials, where they are needed.

    Raises:
        WeightsError: an unknown backbone, no such file, another sha256, another architecture.
        StoreError: the object is missing, too large, or the store does not answer.
    """
    source = registered_teacher(backbone).weights
    sha256 = sha256.lower() if sha256 is not None else None
    if sha256 is not None and not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise WeightsError(f"--sha256 {sha256}: a sha256 has 64 digits, 0 to 9 and a to f")
    suffix = Path(origin).suffix
    if suffix not in SUFFIXES:
        raise WeightsError(f"{origin}: weights are read from {' and '.join(SUFFIXES)} files")
    with _incoming(backbone, suffix) as file:
        digest = _from_s3(origin, file, settings()) if origin.startswith("s3://") else _from_file(Path(origin), file)
        if sha256 and digest != sha256:
            raise WeightsError(f"{origin} has sha256 {digest}, not the {sha256} that was asked for")
        if not sha256 and digest != source.sha256:
            raise WeightsError(
                f"{origin} has sha256 {digest}, not {source.sha256} as the published {source.file_name}: it is "
                "damaged or another file; weights of your own are taken when you give their --sha256"
            )
        name = source.file_name if digest == source.sha256 else f"{backbone}-{digest}{suffix}"
        return _settle(file, backbone, digest, name)


def _from_file(origin: Path, file: IO[bytes]) -> str:
    try:
        with origin.open("rb") as data:
            return _copy(data, file, str(origin), origin.stat().st_size)
    except OSError as error:
        raise WeightsError(f"{origin} could not be copied: {error.strerror}") from error


def _from_s3(origin: str, file: IO[bytes], settings: Settings) -> str:
    bucket, _, key = origin.removeprefix("s3://").partition("/")
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]", bucket) or not key:
        raise WeightsError(f"{origin}: an object is named s3://BUCKET/KEY")
    data = S3Store(settings.s3.model_copy(update={"bucket": bucket})).get(key, LIMIT_BYTES)
    file.write(data)
    return hashlib.sha256(data).hexdigest()


def _copy(
    data: IO[bytes], file: IO[bytes], origin: str, length: int | None, on_progress: Progress = lambda _done, _of: None
) -> str:
    """Copy within the limit; returns the sha256."""
    if length is not None and length > LIMIT_BYTES:
        raise WeightsError(f"{origin} has {length} bytes, more than the {LIMIT_BYTES} that weights may have")
    sha256, done = hashlib.sha256(), 0
    while chunk := data.read(_CHUNK_BYTES):
        done += len(chunk)
        if done > LIMIT_BYTES:
            raise WeightsError(f"{origin} has more than the {LIMIT_BYTES} bytes that weights may have")
        sha256.update(chunk)
        file.write(chunk)
        on_progress(done, length)
    if length is not None and done != length:
        raise WeightsError(f"{origin} broke off after {done} of {length} bytes; try again")
    return sha256.hexdigest()


@contextmanager
def _incoming(backbone: str, suffix: str) -> Iterator[IO[bytes]]:
    """A hidden file in the folder where it will be renamed; gone at the end if it was not."""
    folder = weights_folders()[0]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = tempfile.NamedTemporaryFile(dir=folder, prefix=f".{backbone}-", suffix=suffix, delete=False)  # noqa: SIM115
    except OSError as error:
        raise WeightsError(f"weights cannot be written to {folder}: {error.strerror}") from error
    try:
        with file:
            yield file
    finally:
        Path(file.name).unlink(missing_ok=True)


def _settle(file: IO[bytes], backbone: str, digest: str, name: str) -> Path:
    """Build the teacher from what came in, then let it have its name."""
    file.flush()
    os.fsync(file.fileno())
    incoming = Path(file.name)
    registered_teacher(backbone).build(read_weights(incoming, digest))
    place = incoming.parent / name
    others = [found.path.name for found in vouched_for(backbone, place.parent) if found.path != place]
    if others:
        raise WeightsError(
            f"{place.parent} holds {others[0]} already, which goes before: models were perhaps fitted to it; "
            "take it out of the folder first"
        )
    incoming.chmod(0o644)  # temporary files are their owner's alone; replicas may run as another user
    incoming.replace(place)
    return place


def _intact(found: FoundWeights) -> bool:
    try:
        read_weights(found.path, found.sha256)
    except WeightsError:
        return False
    return True
