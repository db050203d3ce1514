"""The one way from bytes to a scored image: the stream, REST and offline scoring all come through here."""

from collections.abc import Callable, Sequence

from model import Engine, Findings, Frame, ImageRejected, ModelBundle, Scored, cut
from pipeline.errors import ImageBroken
from pipeline.settings import Settings
from pipeline.storage.champions import Champions
from pipeline.storage.registry import Registry
from pipeline.storage.store import ObjectStore


class Inspector:
    """Engine, champions and limits together. Thread-safe: replicas share one between stream and REST."""

    def __init__(self, settings: Settings, store: ObjectStore) -> None:
        self.settings = settings
        self.store = store
        self._limits = settings.limits.images
        registry = Registry(store)
        self.engine = make_engine(settings, registry)
        self.champions = Champions(registry, self.engine.warm, self.engine.forget, settings.stream.release_poll_s)

    def read(self, data: bytes, key: str) -> Frame:
        """Bytes to the frame that the model under ``key`` takes.

        Raises:
            ImageBroken: not a readable image within the limits, or of another size than the model's ignored area.
        """
        try:
            return self.engine.manifest(key).read(data, self._limits)
        except ImageRejected as error:
            raise ImageBroken(type(error).__name__, str(error)) from None

    def score(self, frames: Sequence[Frame], keys: Sequence[str]) -> list[Scored]:
        return self.engine.score(frames, keys)

    def cut(self, scored: Scored) -> Findings:
        return cut(scored, self.settings.stream.min_area_px)


def make_engine(settings: Settings, registry: Registry, *, float32: bool = False) -> Engine:
    """The engine as the settings want it, over the registry's models: the same for serving, evaluating and judging.

    float32: score int8 versions as they were before they were quantised.
    """
    load = bundle_loader(registry)
    return Engine(
        (lambda key: load(key).in_float32()) if float32 else load,
        device=settings.engine.device,
        backend=settings.engine.backend,
        memory_limit_bytes=settings.engine.memory_bytes,
        batch_size=settings.stream.batch_images,
        threads=settings.engine.threads,
    )


def bundle_loader(registry: Registry) -> Callable[[str], ModelBundle]:
    """For the engine: ``product/version`` to the bundle in the registry."""

    def load(key: str) -> ModelBundle:
        product, _, version = key.partition("/")
        return registry.bundle(product, version)

    return load
