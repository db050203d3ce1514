"""All of the settings, and what wins: defaults < YAML file < environment."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from model import FitOptions
from model.teachers import TEACHERS
from pipeline.contracts.names import ProductName
from pipeline.errors import SettingsError
from pipeline.settings.secret import FILE
from pipeline.settings.sections import (
    HEADERS_BYTES,
    S3,
    Engine,
    Gate,
    History,
    Kafka,
    Limits,
    Product,
    Review,
    Serving,
    Stream,
    Topics,
    Training,
)
from pipeline.settings.yaml_file import read_yaml
from pipeline.wrong_settings import SEE, in_words, not_json, variable_of

SECRETS = tuple(
    (section.__name__.lower(), name) for section in (S3, Kafka, Serving, History) for name in section.secrets()
)
OTHER_VARIABLES = ("config", "local", "weights_dir")  # read elsewhere, not settings
DEFAULT_FILE = Path("linewatch.yaml")


class Settings(BaseSettings):
    """All of linewatch's settings. Nested names are joined with two underscores in the environment."""

    model_config = SettingsConfigDict(
        env_prefix="LINEWATCH_", env_nested_delimiter="__", extra="ignore", frozen=True, validate_default=True
    )

    kafka: Kafka = Field(default_factory=Kafka)
    topics: Topics = Field(default_factory=Topics)
    s3: S3 = Field(default_factory=S3)
    limits: Limits = Field(default_factory=Limits)
    stream: Stream = Field(default_factory=Stream)
    engine: Engine = Field(default_factory=Engine)
    serving: Serving = Field(default_factory=Serving)
    fit: FitOptions = Field(default_factory=FitOptions, description="How every product is fitted")
    training: Training = Field(default_factory=Training)
    gate: Gate = Field(default_factory=Gate)
    review: Review = Field(default_factory=Review)
    history: History = Field(default_factory=History)
    products: dict[ProductName, Product] = Field(default_factory=dict, description="Per-product settings")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # What `load` passes in comes from the YAML file, so the environment outranks it.
        return (env_settings, init_settings)

    @model_validator(mode="after")
    def _fits(self) -> "Settings":
        # A mask just under the inline limit must still be a message that the broker takes.
        if self.limits.inline_bytes > self.topics.max_message_bytes - HEADERS_BYTES:
            raise ValueError(
                f"limits.inline_bytes must stay {HEADERS_BYTES} bytes under topics.max_message_bytes: "
                "larger pictures travel through S3"
            )
        most = self.serving.max_replicas
        if most is not None and not self.serving.replicas <= most <= self.topics.partitions:
            raise ValueError(
                f"serving.max_replicas is {most}: it lies between serving.replicas ({self.serving.replicas}) and "
                f"topics.partitions ({self.topics.partitions}), for a replica without a partition is idle"
            )
        return self

    @classmethod
    def load(cls, file: Path | None = None) -> "Settings":
        """Settings from ``file``, else ``LINEWATCH_CONFIG``, else ``./linewatch.yaml`` where there is one.

        Raises:
            SettingsError: an unreadable file, an unknown or malformed setting, a secret in the file.
        """
        named = file or (Path(os.environ["LINEWATCH_CONFIG"]) if os.environ.get("LINEWATCH_CONFIG") else None)
        path = named or (DEFAULT_FILE if DEFAULT_FILE.is_file() else None)
        _check_environment(cls.model_fields)
        where = str(path or "the environment")
        settings = cls.from_values(read_yaml(path) if path else {}, where)
        _check_teacher(settings.fit.backbone, "fit", where)
        for product in settings.products:
            _check_teacher(settings.fit_options(product, where).backbone, f"products.{product}.fit", where)
        return settings

    @classmethod
    def from_values(cls, values: dict[str, Any], where: str = "the given values") -> "Settings":
        """Settings from plain values (those of a YAML file, or of :meth:`public`) under the environment's."""
        for section, key in SECRETS:
            given = values.get(section)
            for name in (key, key + FILE):
                if isinstance(given, dict) and given.get(name) is not None:
                    variable = f"LINEWATCH_{section}__{key}".upper()
                    raise SettingsError(
                        f"{where}: {section}.{key} is a secret: take {name} out and set {variable}, or "
                        f"{variable}_FILE to the file that holds it, instead"
                    )
        unknown = sorted(str(name) for name in set(values) - set(cls.model_fields))
        if unknown:
            raise SettingsError(f"{where}: unknown setting {unknown[0]!r}: known are {', '.join(cls.model_fields)}")
        try:
            return cls(**values)
        except ValidationError as error:
            raise SettingsError(in_words(error, where, SECRETS)) from None
        except ValueError as error:  # pydantic-settings: an environment variable that is no JSON
            raise SettingsError(not_json() or f"{where}: {error}") from None

    @classmethod
    def received(cls, values: dict[str, Any]) -> "Settings":
        """Settings as another process made them (:meth:`public`): only secrets come from this environment."""
        return _Received(**values)

    def public(self) -> dict[str, Any]:
        """Plain values without the secrets: safe to hand to another process or to write down."""
        secret: dict[str, set[str]] = {}
        for section, key in SECRETS:
            secret.setdefault(section, set()).add(key)
        return self.model_dump(mode="json", exclude=dict(secret))

    def __reduce__(self) -> tuple[Callable[[dict[str, Any]], "Settings"], tuple[dict[str, Any]]]:
        """A pickle is no place for a secret: who reads it has those of its own environment."""
        return Settings.received, (self.public(),)

    def masked(self) -> dict[str, Any]:
        """Plain values with every secret that is set shown as asterisks."""
        return self.model_dump(mode="json")

    def with_fit(self, chosen: dict[str, Any]) -> "Settings":
        """A copy in which ``chosen`` fit options hold for every product, whatever its own settings say."""
        products = {
            name: product.model_copy(update={"fit": {k: v for k, v in product.fit.items() if k not in chosen}})
            for name, product in self.products.items()
        }
        return self.model_copy(update={"fit": self.fit.model_copy(update=chosen), "products": products})

    def with_serving(self, chosen: dict[str, Any]) -> "Settings":
        """A copy in which ``chosen`` serving options hold, whatever file and environment say.

        Raises:
            SettingsError: they don't fit the other settings.
        """
        values = self.public()
        values["serving"] |= chosen
        try:
            return Settings.received(values)
        except ValidationError as error:
            options = ", ".join(f"--{name.replace('_', '-')}" for name in chosen)
            raise SettingsError(in_words(error, options, SECRETS)) from None

    def fit_options(self, product: str, where: str = "the settings") -> FitOptions:
        """The fit options of one product: the common ones with its own on top.

        Raises:
            SettingsError: the product's own options are malformed.
        """
        own = self.products[product].fit if product in self.products else {}
        try:
            return FitOptions.model_validate({**self.fit.model_dump(), **own})
        except ValidationError as error:
            raise SettingsError(in_words(error, where, SECRETS, ("products", product, "fit"))) from None


class _Received(Settings):
    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings, env_settings)


def _check_environment(known: Iterable[str]) -> None:
    """A misspelt variable would be ignored without a word."""
    names = {*known, *OTHER_VARIABLES}
    for variable in sorted(os.environ):
        first = variable.removeprefix("LINEWATCH_").split("__")[0].lower()
        if variable.startswith("LINEWATCH_") and first not in names:
            raise SettingsError(
                f"{variable}: linewatch has no settings {first!r}: known are {', '.join(sorted(names))}"
            )


def _check_teacher(backbone: str, section: str, where: str) -> None:
    """The method itself knows no other either, but would say so only after minutes, within a fit."""
    if backbone not in TEACHERS:
        setting = f"{section}.backbone"
        place = variable_of(setting.split(".")) or where
        raise SettingsError(f"{place}: {setting} must be one of {', '.join(TEACHERS)}, not {backbone!r} {SEE}")
