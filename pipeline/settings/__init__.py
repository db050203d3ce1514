"""Every setting: defaults < YAML file < ``LINEWATCH_*`` environment. Secrets come from the environment alone."""

from pipeline.settings.secret import SecretFile
from pipeline.settings.sections import (
    S3,
    Engine,
    Gate,
    Kafka,
    Limits,
    Product,
    Serving,
    Stream,
    Topics,
    Training,
)
from pipeline.settings.settings import SECRETS, Settings

__all__ = [
    "S3",
    "SECRETS",
    "Engine",
    "Gate",
    "Kafka",
    "Limits",
    "Product",
    "SecretFile",
    "Serving",
    "Settings",
    "Stream",
    "Topics",
    "Training",
]
