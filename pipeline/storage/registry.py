"""The model registry in S3: immutable versions, and a champion alias changed only by compare-and-swap.

models/<product>/<version>/weights.safetensors
models/<product>/<version>/manifest.json        written last: a version exists once its manifest does
models/<product>/aliases/champion.json
"""

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict, ValidationError

from model import BundleError, Manifest, ModelBundle
from pipeline.contracts.names import VERSION_PATTERN, ProductName, VersionName, product_name, version_name
from pipeline.errors import ObjectConflict, ObjectMissing, RegistryError, UnknownProduct, UnknownVersion
from pipeline.storage.store import ObjectStore

HISTORY = 100


class Champion(BaseModel):
    """The alias object: the version that serves, and those that served before, newest last."""

    model_config = ConfigDict(frozen=True)

    product: ProductName
    version: VersionName
    promoted_at: datetime
    reason: str = ""
    history: tuple[VersionName, ...] = ()


@dataclass(frozen=True)
class Alias:
    champion: Champion
    etag: str


class Registry:
    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def publish(self, bundle: ModelBundle) -> None:
        """Write a version once.

        Raises:
            RegistryError: the version exists already.
        """
        manifest = bundle.manifest
        folder = _folder(manifest.product, manifest.version)
        there = RegistryError(f"{manifest.product} {manifest.version} is in the registry already")
        if self._store.exists(f"{folder}/manifest.json"):
            raise there  # before its weights are overwritten
        self._store.put(f"{folder}/weights.safetensors", bundle.weights)
        try:
            self._store.put_if(f"{folder}/manifest.json", bundle.manifest_json(), None)
        except ObjectConflict:
            raise there from None

    def bundle(self, product: str, version: str) -> ModelBundle:
        """A version with its weights, checked against the manifest's sha256.

        Raises:
            UnknownVersion: it isn't there.
            model.BundleError: its weights or manifest are damaged.
        """
        folder = _folder(product, version)
        try:
            manifest = self._store.get(f"{folder}/manifest.json")
            weights = self._store.get(f"{folder}/weights.safetensors")
        except ObjectMissing:
            raise UnknownVersion(product, version) from None
        return ModelBundle.open(manifest, weights)

    def manifest(self, product: str, version: str) -> Manifest:
        """What a version says of itself.

        Raises:
            UnknownVersion: it isn't there.
            RegistryError: its manifest is damaged, or of a later release.
        """
        try:
            return Manifest.parse(self._store.get(f"{_folder(product, version)}/manifest.json"))
        except ObjectMissing:
            raise UnknownVersion(product, version) from None
        except BundleError as error:
            raise RegistryError(f"{product} {version}: {error}") from None

    def products(self) -> list[str]:
        """Products that have a version, sorted."""
        return sorted({key.split("/")[1] for key in self._store.keys("models/") if key.endswith("/manifest.json")})

    def versions(self, product: str) -> list[str]:
        """Versions of a product, oldest first."""
        parts = [key.split("/") for key in self._store.keys(f"models/{product_name(product)}/")]
        names = {part[2] for part in parts if part[-1] == "manifest.json"}
        return sorted(name for name in names if re.fullmatch(VERSION_PATTERN, name))

    def champion(self, product: str) -> Alias:
        """The alias with the etag that a later change must present.

        Raises:
            UnknownProduct: nothing was promoted for it yet.
        """
        try:
            data, etag = self._store.get_with_etag(_alias(product))
        except ObjectMissing:
            raise UnknownProduct(product) from None
        try:
            return Alias(Champion.model_validate_json(data), etag)
        except ValidationError as error:
            raise RegistryError(f"the champion alias of {product} is damaged: {error.errors()[0]['msg']}") from None

    def champion_or_none(self, product: str) -> Alias | None:
        try:
            return self.champion(product)
        except UnknownProduct:
            return None

    def promote(self, product: str, version: str, expected: Alias | None, reason: str = "") -> Champion:
        """Make ``version`` the champion if the alias is still the one the caller saw.

        Raises:
            UnknownVersion: the version isn't in the registry.
            ObjectConflict: someone else changed the champion in the meantime.
        """
        self.manifest(product, version)
        history = (*expected.champion.history, expected.champion.version)[-HISTORY:] if expected else ()
        return self._swap(product, version, history, expected, reason)

    def rollback(self, product: str, reason: str = "rollback") -> Champion:
        """Back to the champion before this one.

        Raises:
            RegistryError: there is none.
        """
        alias = self.champion(product)
        if not alias.champion.history:
            raise RegistryError(f"{product} has no earlier champion to go back to")
        *history, previous = alias.champion.history
        self.manifest(product, previous)
        return self._swap(product, previous, tuple(history), alias, reason)

    def _swap(
        self, product: str, version: str, history: tuple[str, ...], expected: Alias | None, reason: str
    ) -> Champion:
        champion = Champion(
            product=product, version=version, promoted_at=datetime.now(UTC), reason=reason, history=history
        )
        data = json.dumps(champion.model_dump(mode="json"), indent=1).encode()
        self._store.put_if(_alias(product), data, expected.etag if expected else None)
        return champion


def new_version(now: datetime, weights_sha256: str) -> str:
    """A version name that sorts by time: ``20260131T120000Z-0f1e2d3c``."""
    return f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}-{weights_sha256[:8]}"


def _folder(product: str, version: str) -> str:
    return f"models/{product_name(product)}/{version_name(version)}"


def _alias(product: str) -> str:
    return f"models/{product_name(product)}/aliases/champion.json"
