"""A real model fitted in seconds to drawn textures, the images that go with it, and messages that carry them."""

import io
import itertools
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch
from PIL import Image

from model import Fit, FitOptions, IgnoredArea, Manifest, ModelBundle, read_frame
from pipeline.contracts.broker import Outgoing
from pipeline.contracts.cloudevents import Envelope
from pipeline.contracts.events import IMAGE_CAPTURED
from pipeline.storage.registry import Registry
from pipeline.storage.store import ObjectStore

SIZE = 64
SIDE = 96
PRODUCT = "bottle"
TRACE = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"
_seconds = itertools.count()


def texture(seed: int, *, spot: bool = False, form: str = "PNG") -> bytes:
    """A gray cobbled texture, encoded; with ``spot``, a white square with a black hole."""
    rng = np.random.default_rng(seed)
    cobbles = np.kron(rng.integers(90, 130, (12, 12, 1)), np.ones((8, 8, 1)))
    pixels = np.repeat(cobbles, 3, 2) + rng.normal(0, 4, (SIDE, SIDE, 3))
    if spot:
        pixels[30:60, 30:60] = 255
        pixels[36:54, 36:54] = 0
    buffer = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(buffer, form)
    return buffer.getvalue()


def fitted(ignore: IgnoredArea | None = None) -> ModelBundle:
    torch.set_num_threads(1)  # threads that fight over busy cores take twenty times as long
    frames = [read_frame(texture(seed), SIZE) for seed in range(24)]
    # From ten held-out images the default target is far beyond the largest score: the spots would be for a person.
    polygons = ignore.polygons if ignore else None
    options = FitOptions(size=SIZE, steps=12, batch=8, target_false_reject_rate=0.01, ignore=polygons)
    return Fit(PRODUCT, frames[:14], frames[14:], options, ignore=ignore).run()


def stamped(bundle: ModelBundle, product: str = PRODUCT, **facts: Any) -> ModelBundle:
    """The same model under another name, a second younger than the one before it."""
    version = f"20260131T12{next(_seconds):04d}Z-{bundle.manifest.weights_sha256[:8]}"
    manifest = Manifest.model_validate({**bundle.manifest.model_dump(), "product": product, **facts})
    return ModelBundle(manifest, bundle.weights).stamped(
        version=version,
        parent=None,
        dataset_digest=facts.get("dataset_digest", ""),
        code_version="test",
        heldout_sha256=facts.get("heldout_sha256", []),
    )


def publish(
    store: ObjectStore, bundle: ModelBundle, product: str = PRODUCT, *, serve: bool = True, **facts: Any
) -> str:
    """Put a version into the registry, and make it the champion; returns its name."""
    registry = Registry(store)
    named = stamped(bundle, product, **facts)
    registry.publish(named)
    if serve:
        registry.promote(product, named.manifest.version, registry.champion_or_none(product))
    return named.manifest.version


def envelope(image_id: str, product: str = PRODUCT, camera: str = "/plant/cam1", **changes: Any) -> Envelope:
    facts: dict[str, Any] = {
        "id": image_id,
        "source": camera,
        "type": IMAGE_CAPTURED,
        "subject": product,
        "time": datetime.now(UTC),
        "content_type": "image/png",
        "traceparent": TRACE,
    }
    return Envelope(**{**facts, **changes})


def message(
    image_id: str, value: bytes | None, product: str = PRODUCT, camera: str = "/plant/cam1", **changes: Any
) -> Outgoing:
    """What a camera sends."""
    headers = envelope(image_id, product, camera, **changes).headers()
    return Outgoing("linewatch.images", camera.encode(), value, headers)
