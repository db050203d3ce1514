"""A camera: images of a folder, produced to the image topic at a steady rate."""

import itertools
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from kafka import KafkaProducer
from kafka.errors import KafkaError

from jobs.fitting.datasets import DatasetError
from jobs.fitting.datasets.folders import image_type
from pipeline.contracts.cloudevents import Envelope, new_traceparent
from pipeline.contracts.events import CLAIM_CONTENT_TYPE, IMAGE_CAPTURED
from pipeline.contracts.names import camera_source, product_name
from pipeline.errors import BrokerUnavailable
from pipeline.kafka.clients import broker_answers, make_producer
from pipeline.settings import Settings
from pipeline.storage import claims
from pipeline.storage.store import ObjectStore

CONTENT_TYPES = {
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".jpe": "image/jpeg",
    ".jfif": "image/jpeg",
    ".png": "image/png",
    ".bmp": "image/bmp",
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
    ".webp": "image/webp",
}


@dataclass(frozen=True)
class Shot:
    """One image as it was sent: the name that its event will carry, and the file that it came from."""

    image_id: str
    path: Path
    captured: datetime


class Camera:
    """Sends files as captured images of one product, in order, as one camera."""

    def __init__(self, settings: Settings, store: ObjectStore, *, product: str, camera: str) -> None:
        self._settings, self._store = settings, store
        self._product, self._source = product_name(product), camera_source(camera)
        self._run = uuid.uuid4().hex[:12]
        self._numbers = itertools.count()
        with broker_answers(settings):
            self._producer: KafkaProducer = make_producer(settings, linger_ms=0)

    def send(self, path: Path) -> Shot:
        """Capture one image now. Larger ones than ``limits.inline_bytes`` travel as a claim check.

        Raises:
            BrokerUnavailable: the broker didn't take it.
        """
        data = path.read_bytes()
        content_type = CONTENT_TYPES.get(path.suffix.lower()) or image_type(data[:16]) or "application/octet-stream"
        shot = Shot(
            f"{self._source[1:].replace('/', '-')}-{self._run}-{next(self._numbers):06d}", path, datetime.now(UTC)
        )
        if len(data) > self._settings.limits.inline_bytes and content_type in CONTENT_TYPES.values():
            data = claims.leave(self._store, data, content_type).model_dump_json().encode()
            content_type = CLAIM_CONTENT_TYPE
        envelope = Envelope(
            id=shot.image_id,
            source=self._source,
            type=IMAGE_CAPTURED,
            subject=self._product,
            time=shot.captured,
            content_type=content_type,
            traceparent=new_traceparent(),
        )
        with broker_answers(self._settings):
            self._producer.send(
                self._settings.topics.images, key=self._source.encode(), value=data, headers=list(envelope.headers())
            ).add_errback(self._failed)
        if self._failure:
            raise BrokerUnavailable(f"an image was not taken by the broker: {self._failure}")
        return shot

    _failure: BaseException | None = None

    def _failed(self, error: BaseException) -> None:
        self._failure = error

    def close(self) -> None:
        """Wait until the broker has every image.

        Raises:
            BrokerUnavailable: it has not.
        """
        with broker_answers(self._settings):
            try:
                self._producer.flush(timeout=30)
                if self._failure:
                    raise BrokerUnavailable(f"an image was not taken by the broker: {self._failure}")
            finally:
                self._producer.close(timeout=5)


def replay(
    settings: Settings,
    store: ObjectStore,
    files: Sequence[Path],
    *,
    product: str,
    camera: str,
    fps: float,
    loop: bool = False,
    stop: threading.Event | None = None,
    on_shot: Callable[[Shot], None] | None = None,
) -> list[Shot]:
    """Send ``files`` at ``fps`` images a second, over and over with ``loop``, until ``stop``; returns what was sent.

    Raises:
        DatasetError: no files.
        BrokerUnavailable: the broker doesn't take them.
    """
    if not files:
        raise DatasetError("no images to replay")
    eye = Camera(settings, store, product=product, camera=camera)
    shots: list[Shot] = []
    try:
        begun = time.monotonic()
        for number, path in enumerate(_files(files, loop)):
            pause = begun + number / fps - time.monotonic()
            if stop.wait(max(0.0, pause)) if stop else _sleep(pause):
                break
            shot = eye.send(path)
            if not loop:
                shots.append(shot)
            if on_shot:
                on_shot(shot)
    finally:
        try:
            eye.close()
        except KafkaError as error:
            raise BrokerUnavailable(f"the last images may be missing: {error}") from error
    return shots


def _files(files: Sequence[Path], loop: bool) -> Iterator[Path]:
    return itertools.cycle(files) if loop else iter(files)


def _sleep(seconds: float) -> bool:
    time.sleep(max(0.0, seconds))
    return False
