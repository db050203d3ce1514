"""Which version scores each product: looked up on first use, watched, warmed before it takes over."""

import logging
import threading
import time
from collections.abc import Callable

from model import ModelError
from pipeline.errors import (
    DeadLetter,
    LinewatchError,
    ModelBroken,
    ProductUnknown,
    RegistryError,
    StoreUnavailable,
    UnknownProduct,
)
from pipeline.storage.registry import Registry

log = logging.getLogger(__name__)
PRELOADED = 32
MOST_REFUSALS = 1000


class Champions:
    """The champions as this process serves them.

    A new champion is loaded and warmed beside the old one; then one reference changes. A batch that began with the
    old version ends with it, and every event names the version that scored it.
    """

    def __init__(
        self, registry: Registry, warm: Callable[[str], object], forget: Callable[[str], None], poll_s: float
    ) -> None:
        self._registry, self._warm, self._forget, self._poll_s = registry, warm, forget, poll_s
        self._serving: dict[str, str] = {}
        self._refusals: dict[str, tuple[float, DeadLetter]] = {}
        self._refused: set[str] = set()
        self._loading = threading.Lock()
        self._stop = threading.Event()
        self._watcher: threading.Thread | None = None

    def version(self, product: str) -> str:
        """The version that serves ``product`` now, loading it on first use.

        Raises:
            ProductUnknown: no champion.
            ModelBroken: its first champion can't be loaded. Either answer stands until the next poll interval.
            StoreUnavailable: wait and try again.
        """
        if product in self._serving:
            return self._serving[product]
        with self._loading:
            if product in self._serving:
                return self._serving[product]
            until, refusal = self._refusals.get(product, (0.0, None))
            if refusal and until > time.monotonic():
                raise refusal
            try:
                version = self._registry.champion(product).champion.version
                self._warm(f"{product}/{version}")
            except UnknownProduct as error:
                raise self._remember(product, ProductUnknown(str(error))) from None
            except (ModelError, RegistryError) as error:
                reason = f"the champion of {product} can't be loaded: {error}"
                raise self._remember(product, ModelBroken(reason)) from error
            self._serving[product] = version
            log.info("serving %s %s", product, version)
            return version

    def _remember(self, product: str, refusal: DeadLetter) -> DeadLetter:
        """Give the same answer until the next poll, and forget all of them before hostile names fill the memory."""
        if len(self._refusals) >= MOST_REFUSALS:
            self._refusals.clear()
        self._refusals[product] = (time.monotonic() + self._poll_s, refusal)
        return refusal

    def preload(self) -> None:
        """Load what is known to be needed before the first image asks for it.

        Only as many products as a replica usually serves; the others are loaded on first use. What can't be loaded
        now is tried again then.
        """
        try:
            for product in self._registry.products()[:PRELOADED]:
                try:
                    self.version(product)
                except DeadLetter as error:
                    log.warning("%s is not preloaded: %s", product, error)
        except StoreUnavailable as error:
            log.warning("nothing preloaded: %s", error)

    def refresh(self) -> None:
        """Look every served product's alias up once, and swap those that changed.

        A version that can't be loaded is refused once and the old one goes on serving.
        """
        for product, old in list(self._serving.items()):
            try:
                new = self._registry.champion(product).champion.version
            except RegistryError as error:  # of this product alone: the others' swaps must not wait for it
                log.warning("%s stays at %s: %s", product, old, error)
                continue
            key = f"{product}/{new}"
            if new == old or key in self._refused:
                continue
            try:
                self._warm(key)
            except (ModelError, RegistryError) as error:
                self._refused.add(key)
                log.error("%s stays at %s: %s can't be loaded: %s", product, old, new, error)
                continue
            self._serving[product] = new
            self._forget(f"{product}/{old}")
            log.info("swapped %s from %s to %s", product, old, new)

    def serving(self) -> dict[str, str]:
        return dict(self._serving)

    def watch(self) -> None:
        """Refresh in a background thread until :meth:`close`."""
        self._watcher = threading.Thread(target=self._watch, name="champions", daemon=True)
        self._watcher.start()

    def close(self) -> None:
        self._stop.set()
        if self._watcher:
            self._watcher.join(timeout=10)

    def _watch(self) -> None:
        while not self._stop.wait(self._poll_s):
            try:
                self.refresh()
            except LinewatchError as error:
                log.warning("champions not refreshed: %s", error)
