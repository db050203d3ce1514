"""The cameras of a chaos run, a process of their own: `python -m jobs.chaos.camera SETTINGS FOLDER IMAGES RATE BURST`.

They outlive every broker: images that were not acknowledged are sent again by a new client. Each line of its output is
how many were acknowledged.
"""

import json
import sys
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kafka import KafkaProducer

from jobs.chaos.products import PRODUCT
from pipeline.contracts.cloudevents import Envelope, new_traceparent
from pipeline.contracts.events import IMAGE_CAPTURED
from pipeline.errors import BrokerUnavailable
from pipeline.kafka.clients import CLIENT_ERRORS, make_producer
from pipeline.settings import Settings
from pipeline.stream.patience import backoff

CAMERAS = 16
HANDFUL = 64
TROUBLE = (*CLIENT_ERRORS, BrokerUnavailable)


def send_all(
    settings: Settings, files: list[Path], images: int, per_s: float, burst: float, say: Callable[[int], None]
) -> int:
    """Send ``images`` images, evenly over the cameras, the middle half of them ``burst`` times as fast.

    Returns how many, once all are acknowledged.
    """
    values = [path.read_bytes() for path in files]
    run = uuid.uuid4().hex[:8]
    acknowledged = 0
    begun, delays = time.monotonic(), backoff()
    while acknowledged < images:
        producer: KafkaProducer | None = None
        try:
            producer = make_producer(settings, linger_ms=5)
            while acknowledged < images:
                # All of a handful or none of it: those of a handful that is sent again may be there already, and are
                # images of their own, which get events of their own.
                handful = range(acknowledged, min(images, acknowledged + HANDFUL))
                time.sleep(max(0.0, begun + due_s(handful.start, images, per_s, burst) - time.monotonic()))
                sent = [_send(producer, settings, f"chaos-{run}-{number:07d}", number, values) for number in handful]
                producer.flush(timeout=30)
                for future in sent:
                    future.get(timeout=1)
                acknowledged, delays = handful.stop, backoff()
                say(acknowledged)
        except TROUBLE:
            time.sleep(next(delays))
        finally:
            if producer is not None:
                with suppress(*TROUBLE):
                    producer.close(timeout=2)
    return acknowledged


def due_s(number: int, images: int, per_s: float, burst: float) -> float:
    """When that image is captured, in seconds after the first."""
    in_burst = min(max(0.0, number - images / 4), images / 2)
    return (number - in_burst) / per_s + in_burst / (per_s * burst)


def _send(producer: KafkaProducer, settings: Settings, name: str, number: int, values: list[bytes]) -> Any:
    camera = f"/chaos/line{number % 4}/cam{number % CAMERAS}"
    captured = Envelope(name, camera, IMAGE_CAPTURED, PRODUCT, datetime.now(UTC), "image/jpeg", new_traceparent())
    return producer.send(
        settings.topics.images, values[number % len(values)], camera.encode(), list(captured.headers())
    )


if __name__ == "__main__":

    def tell(acknowledged: int) -> None:
        sys.stdout.write(f"{acknowledged}\n")
        sys.stdout.flush()

    received = Settings.received(json.loads(sys.argv[1]))
    files, rate, factor = sorted(Path(sys.argv[2]).iterdir()), float(sys.argv[4]), float(sys.argv[5])
    tell(send_all(received, files, int(sys.argv[3]), rate, factor, tell))
