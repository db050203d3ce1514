"""Every setting: defaults < YAML file < ``LINEWATCH_*`` environment. Secrets come from the environment alone."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from model import FitOptions, ImageLimits
from model.fitting.options import MOST_SCORE_SHIFT
from model.teachers import TEACHERS
from pipeline.contracts.names import ProductName
from pipeline.errors import SettingsError
from pipeline.telemetry.logs import LogFormat
from pipeline.wrong_settings import (
    ADDRESSES,
    BUCKET,
    DEVICE,
    ENDPOINT,
    SEE,
    TOPIC_PREFIX,
    in_words,
    not_json,
    variable_of,
)

SECRETS = (("s3", "access_key"), ("s3", "secret_key"), ("kafka", "username"), ("kafka", "password"))
OTHER_VARIABLES = ("config", "local", "weights_dir")  # read elsewhere, not settings
HEADERS_BYTES = 65_536
DAY_S = 86_400
INT32_MOST = 2_147_483_647
"""What the protocol of Kafka has room for."""
DEFAULT_FILE = Path("linewatch.yaml")


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Kafka(Section):
    bootstrap_servers: str = Field(
        "127.0.0.1:9092", pattern=ADDRESSES.pattern, description="Brokers to ask first, comma-separated host:port"
    )
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="How clients connect"
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = Field(
        None, description="With a SASL protocol: the mechanism"
    )
    ca_file: str | None = Field(None, description="With an SSL protocol: PEM file of the authority to trust")
    username: SecretStr | None = Field(None, description="With SASL; environment only")
    password: SecretStr | None = Field(None, description="With SASL; environment only")
    group: str = Field(
        "linewatch",
        min_length=1,
        max_length=200,
        description="Consumer group of the replicas; also begins their transactional ids",
    )
    static_membership: bool = Field(
        False, description="Members keep their partitions through a restart that is shorter than the session timeout"
    )
    session_timeout_ms: int = Field(
        6000, ge=1000, le=INT32_MOST // 2, description="A silent replica loses its partitions after this long"
    )
    transaction_timeout_ms: int = Field(
        20000, ge=1000, le=INT32_MOST, description="The broker aborts an open transaction after this"
    )
    delivery: Literal["auto", "exactly_once", "at_least_once"] = Field(
        "auto", description="auto probes once whether the broker hides aborted transactions"
    )


class Topics(Section):
    prefix: str = Field("linewatch", pattern=TOPIC_PREFIX.pattern, description="First word of each topic")
    partitions: int = Field(
        8, ge=1, le=1024, description="Partitions of images, events and masks: >= 2 x most replicas"
    )
    replication_factor: int = Field(
        1, ge=1, le=32_767, description="Copies of each partition: 3 on a cluster of three brokers"
    )
    min_insync_replicas: int | None = Field(
        None,
        ge=1,
        description="Copies that must hold a message before it is acknowledged: 2 of 3; none: the broker's own",
    )
    max_message_bytes: int = Field(
        16_777_216, ge=65_536, le=INT32_MOST - HEADERS_BYTES, description="Largest message the topics take"
    )

    @model_validator(mode="after")
    def _enough_copies(self) -> "Topics":
        if self.min_insync_replicas is not None and self.min_insync_replicas > self.replication_factor:
            raise ValueError(
                f"topics.min_insync_replicas {self.min_insync_replicas} is more than replication_factor "
                f"{self.replication_factor}: a message cannot be on more copies than there are"
            )
        return self

    @property
    def images(self) -> str:
        return f"{self.prefix}.images"

    @property
    def events(self) -> str:
        return f"{self.prefix}.events"

    @property
    def masks(self) -> str:
        return f"{self.prefix}.masks"

    @property
    def feedback(self) -> str:
        return f"{self.prefix}.feedback"

    @property
    def releases(self) -> str:
        return f"{self.prefix}.releases"

    @property
    def deadletters(self) -> str:
        return f"{self.prefix}.deadletters"


class S3(Section):
    endpoint: str = Field(
        "http://127.0.0.1:9000", pattern=ENDPOINT.pattern, description="URL of the S3-compatible store"
    )
    bucket: str = Field("linewatch", pattern=BUCKET.pattern, description="Bucket of images, models and masks")
    region: str = Field("us-east-1", min_length=1, description="Region that requests are signed for")
    access_key: SecretStr | None = Field(None, description="Environment only")
    secret_key: SecretStr | None = Field(None, description="Environment only")
    timeout_s: float = Field(
        10.0, gt=0, le=DAY_S, description="Longest wait for an answer before a call is tried again"
    )


class Limits(Section):
    inline_bytes: int = Field(1_048_576, ge=0, description="Larger images travel as a claim check through S3")
    image_bytes: int = Field(67_108_864, ge=1, description="Largest encoded image that is decoded")
    image_pixels: int = Field(64_000_000, ge=1, description="Largest image, in pixels of its header, that is decoded")

    @property
    def images(self) -> ImageLimits:
        """What a decoder keeps to."""
        return ImageLimits(max_bytes=self.image_bytes, max_pixels=self.image_pixels)


class Stream(Section):
    batch_images: int = Field(16, ge=1, le=512, description="Most images that are scored at once")
    transaction_images: int = Field(
        64, ge=1, le=4096, description="So many finished images are published and committed in one transaction"
    )
    transaction_ms: int = Field(
        50, ge=0, le=10_000, description="A finished image waits no longer for others of its transaction"
    )
    decode_threads: int = Field(2, ge=1, description="Threads that decode images")
    buffer_bytes: int = Field(
        67_108_864, ge=1_048_576, description="Bytes fetched and in flight before partitions pause"
    )
    heat_maps: Literal["never", "flagged", "always"] = Field(
        "never", description="Publish the 16-bit heat map beside the mask: for no image, for flagged ones, for all"
    )
    min_area_px: int | None = Field(None, ge=1, description="Smallest region kept, in px of the original image")
    release_poll_s: float = Field(2.0, gt=0, le=DAY_S, description="How often champion aliases are looked up")
    poison_attempts: int = Field(
        2, ge=1, le=100, description="How often a suspect of ending its process is tried alone before it is set aside"
    )
    stall_s: float = Field(
        30.0, gt=0, le=DAY_S, description="Nothing committed for so long while messages wait is a stall"
    )
    heartbeat_timeout_s: float = Field(
        60.0, gt=0, le=DAY_S, description="A worker silent for longer fails its health check"
    )

    @property
    def transaction_s(self) -> float:
        return self.transaction_ms / 1000


class Engine(Section):
    device: str = Field("auto", pattern=DEVICE.pattern, description="auto, cpu or cuda")
    backend: Literal["auto", "torch", "openvino"] = Field(
        "auto", description="What computes scores; auto: OpenVINO on a CPU, PyTorch on a GPU"
    )
    memory_bytes: int = Field(1 << 30, ge=1 << 20, description="Most bytes of product models in memory (LRU)")
    threads: int | None = Field(
        None, ge=1, description="CPU threads of one replica; default: the node's cores shared out among the replicas"
    )


class Serving(Section):
    host: str = Field("127.0.0.1", description="Address of the REST endpoint")
    port: int = Field(8800, ge=0, le=65535, description="Port of the REST endpoint; 0 picks a free one")
    replicas: int = Field(1, ge=1, description="Members of the consumer group; with max_replicas the fewest of them")
    max_replicas: int | None = Field(
        None, ge=1, description="Scale on consumer lag up to this many, and to the number of partitions; none: don't"
    )
    drain_s: float = Field(30.0, gt=0, le=DAY_S, description="Scaling: a lag shall be worked off within this time")
    upscale_delay_s: float = Field(3.0, ge=0, le=DAY_S, description="Scaling: more replicas must be wanted for so long")
    downscale_delay_s: float = Field(
        60.0, ge=0, le=DAY_S, description="Scaling: fewer replicas must be wanted for so long"
    )
    max_replicas_per_node: int | None = Field(
        None, ge=1, le=100, description="Spread replicas: no node gets more than this many"
    )
    log_format: LogFormat = Field("text", description="Replicas' log lines: text, or JSON with camera, product, event")
    cpus_per_replica: float = Field(1.0, ge=0, description="CPUs that Ray reserves for a replica")
    gpus_per_replica: float = Field(0.0, ge=0, description="GPUs, fractions allowed, that Ray reserves for a replica")
    ray_address: str | None = Field(None, description="A running Ray cluster; default: a private one on this machine")


class Training(Section):
    cpus: int | None = Field(
        None, ge=1, description="CPU threads of a fit; default: what fits side by side leave each other of a node"
    )
    gpus: float = Field(1.0, gt=0, le=1, description="Share of a GPU that a fit takes, where there are any")
    fits: int | None = Field(
        None, ge=1, description="Most fits at once; default: as many as nodes have GPUs, or else CPUs, and memory for"
    )
    attempts: int = Field(3, ge=0, description="How often a fit whose worker died goes on from its last checkpoint")


class Gate(Section):
    max_flagged_share: float = Field(
        0.2, ge=0, le=1, description="Refuse when the champion flags more of the new images"
    )
    max_false_reject_rate: float = Field(
        0.05, ge=0, le=1, description="Most held-out good images a challenger may reject"
    )
    min_sensitivity: float = Field(
        0.55, ge=0, le=1, description="Least AUROC of a first version on faint made-up defects; 0.5 is blind"
    )
    sensitivity_margin: float = Field(
        0.01, ge=0, description="How much of the champion's AUROC on made-up defects may be lost, beyond chance"
    )
    rate_margin: float = Field(
        0.02, ge=0, description="How far a challenger's false-reject rate may lie above the champion's"
    )
    auroc_margin: float = Field(
        0.02, ge=0, description="How far a challenger's AUROC on labelled images may lie below the champion's"
    )
    int8_auroc_margin: float = Field(
        0.003, ge=0, description="How far an int8 version's AUROC may lie below that of the same version in float32"
    )
    int8_score_shift: float = Field(
        MOST_SCORE_SHIFT,
        ge=0,
        description="How far int8 may move held-out scores by the median, in deviations of these",
    )


class Product(Section):
    source: str | None = Field(None, description="Folder of good images that scheduled runs ingest from")
    cron: str | None = Field(
        None, description="When to retrain: five cron fields, such as '0 3 * * *', or seconds and those five"
    )
    fit: dict[str, Any] = Field(default_factory=dict, description="Fit options that differ for this product")


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
        settings = cls.from_values(_read_yaml(path) if path else {}, where)
        _check_teacher(settings.fit.backbone, "fit", where)
        for product in settings.products:
            _check_teacher(settings.fit_options(product, where).backbone, f"products.{product}.fit", where)
        return settings

    @classmethod
    def from_values(cls, values: dict[str, Any], where: str = "the given values") -> "Settings":
        """Settings from plain values (those of a YAML file, or of :meth:`public`) under the environment's."""
        for section, key in SECRETS:
            if isinstance(values.get(section), dict) and values[section].get(key) is not None:
                variable = f"LINEWATCH_{section}__{key}".upper()
                raise SettingsError(f"{where}: {section}.{key} is a secret: take it out and set {variable} instead")
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
        values = self.model_dump(mode="json")
        for section, key in SECRETS:
            values[section].pop(key)
        return values

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


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"can't read the settings file {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{path} is not YAML: it is not UTF-8 text") from None
    except yaml.YAMLError as error:
        raise SettingsError(f"{path} is not YAML: {_yaml_trouble(error)}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise SettingsError(f"{path}: expected a mapping of sections such as 'kafka:' and 's3:'")
    return values


def _yaml_trouble(error: yaml.YAMLError) -> str:
    problem, mark = getattr(error, "problem", None), getattr(error, "problem_mark", None)
    first = problem or str(error).splitlines()[0]
    return f"{first} (line {mark.line + 1}, column {mark.column + 1})" if mark else first
