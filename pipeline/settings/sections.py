"""The sections of the settings: each setting with its default, its range and what it is for."""

from ipaddress import ip_address
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, model_validator

from model import ImageLimits
from model.fitting.options import MOST_SCORE_SHIFT
from pipeline.settings.secret import Section
from pipeline.telemetry.logs import LogFormat
from pipeline.wrong_settings import ADDRESSES, BUCKET, DATABASE, DEVICE, ENDPOINT, TOPIC_PREFIX, URL

HEADERS_BYTES = 65_536
DAY_S = 86_400
INT32_MOST = 2_147_483_647
"""What the protocol of Kafka has room for."""


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def no_secret_in_the_clear(setting: str, url: str) -> None:
    """Raises ValueError for plain http to another machine."""
    parts = urlsplit(url)
    if parts.scheme != "https" and not is_loopback(parts.hostname or ""):
        raise ValueError(f"{setting} must be https: a secret is sent there (plain http is for loopback alone)")


class Kafka(Section):
    bootstrap_servers: str = Field(
        "127.0.0.1:9092", pattern=ADDRESSES.pattern, description="Brokers to ask first, comma-separated host:port"
    )
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="How clients connect"
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] | None = Field(
        None, description="With a SASL protocol: the mechanism"
    )
    ca_file: str | None = Field(None, description="With an SSL protocol: PEM file of the authority to trust")
    cert_file: str | None = Field(None, description="With an SSL protocol: PEM file of the client's certificate (mTLS)")
    key_file: str | None = Field(None, description="PEM file of the certificate's key; none: it is in cert_file")
    key_password: SecretStr | None = Field(None, description="Of a key that is encrypted; environment only")
    username: SecretStr | None = Field(None, description="With PLAIN and SCRAM; environment only")
    password: SecretStr | None = Field(None, description="With PLAIN and SCRAM; environment only")
    oauth_token_url: str | None = Field(
        None, pattern=URL.pattern, description="With OAUTHBEARER: where tokens are had for client credentials"
    )
    oauth_client_id: str | None = Field(None, min_length=1, description="With OAUTHBEARER: who asks for a token")
    oauth_client_secret: SecretStr | None = Field(None, description="With OAUTHBEARER; environment only")
    oauth_scope: str | None = Field(None, min_length=1, description="With OAUTHBEARER: what the token is asked for")
    oauth_ca_file: str | None = Field(None, description="PEM file of the authority of the token server")
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

    @model_validator(mode="after")
    def _belongs_together(self) -> "Kafka":
        if self.key_file and not self.cert_file:
            raise ValueError("kafka.key_file is the key of a certificate: set kafka.cert_file too")
        if self.cert_file and "SSL" not in self.security_protocol:
            raise ValueError(
                f"kafka.cert_file needs kafka.security_protocol SSL or SASL_SSL, not {self.security_protocol}"
            )
        if self.oauth_token_url:
            no_secret_in_the_clear("kafka.oauth_token_url", self.oauth_token_url)
        return self


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
    ca_file: str | None = Field(None, description="PEM file of the authority to trust; none: those of certifi")
    credentials: Literal["settings", "role"] = Field(
        "settings", description="settings: the key pair below; role: what the machine's, task's or pod's role gives"
    )
    role_endpoint: str | None = Field(
        None, pattern=URL.pattern, description="With role: where its credentials are had; none: AWS's own addresses"
    )
    access_key: SecretStr | None = Field(None, description="Environment only")
    secret_key: SecretStr | None = Field(None, description="Environment only")
    session_token: SecretStr | None = Field(None, description="Of temporary keys; environment only")
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
    metrics_port: int = Field(
        9464, ge=0, le=65535, description="Port of the metrics of each node that replicas run on; 0 picks a free one"
    )
    tls_cert_file: str | None = Field(None, description="PEM file of REST's certificate: https instead of http")
    tls_key_file: str | None = Field(None, description="PEM file of its key, not encrypted")
    tokens: SecretStr | None = Field(
        None, description="Bearer tokens that REST takes, with blanks or newlines between; environment only"
    )
    allow_anonymous: bool = Field(False, description="Answer without a token on other addresses than loopback's")
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

    @property
    def tls(self) -> dict[str, str]:
        """uvicorn's words for the certificate and its key; empty where there are none."""
        if not (self.tls_cert_file and self.tls_key_file):
            return {}
        return {"ssl_certfile": self.tls_cert_file, "ssl_keyfile": self.tls_key_file}

    @model_validator(mode="after")
    def _both_files(self) -> "Serving":
        if bool(self.tls_cert_file) != bool(self.tls_key_file):
            raise ValueError("serving.tls_cert_file and serving.tls_key_file belong together: set both or neither")
        return self


class Training(Section):
    cpus: int | None = Field(
        None, ge=1, description="CPU threads of a fit; default: what fits side by side leave each other of a node"
    )
    gpus: float = Field(1.0, gt=0, le=1, description="Share of a GPU that a fit takes, where there are any")
    fits: int | None = Field(
        None, ge=1, description="Most fits at once; default: as many as nodes have GPUs, or else CPUs, and memory for"
    )
    metrics_host: str = Field("127.0.0.1", description="Address of the metrics of `linewatch schedule`")
    metrics_port: int | None = Field(
        None, ge=1, le=65535, description="Port of the metrics of `linewatch schedule`; none: it serves none"
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


class Review(Section):
    blind_rate: float = Field(
        0.01, ge=0, le=1, description="Share of parts taken as OK that people are asked about, drawn at random"
    )
    flagged_rate: float = Field(
        1.0, ge=0, le=1, description="Share of NotOK parts that people are asked about, drawn at random"
    )


class History(Section):
    url: str = Field(
        "sqlite:///linewatch-history.db",
        pattern=DATABASE.pattern,
        description="Database of what was inspected: sqlite:///FILE, or postgresql://USER@HOST/NAME",
    )
    password: SecretStr | None = Field(None, description="Of the PostgreSQL account; environment only")
    keep_days: int | None = Field(
        400, ge=1, le=36_500, description="Events and dead letters are deleted after so many days; none: kept for ever"
    )

    @model_validator(mode="after")
    def _no_password(self) -> "History":
        if urlsplit(self.url).password:
            raise ValueError(
                "history.url has a password in it: take it out and set LINEWATCH_HISTORY__PASSWORD, or "
                "LINEWATCH_HISTORY__PASSWORD_FILE to the file that holds it, instead"
            )
        return self


class Product(Section):
    source: str | None = Field(None, description="Folder of good images that scheduled runs ingest from")
    cron: str | None = Field(
        None, description="When to retrain: five cron fields, such as '0 3 * * *', or seconds and those five"
    )
    fit: dict[str, Any] = Field(default_factory=dict, description="Fit options that differ for this product")
