"""Whether the topics can take what settings ask of them, before anything is sent to them."""

import logging
from collections.abc import Mapping

from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType

from pipeline.errors import TopicsUnfit
from pipeline.kafka.clients import CLIENT_ERRORS, HEADROOM_BYTES, admin_client
from pipeline.kafka.lookout import MAX_BYTES, needs, topic_trouble
from pipeline.settings import Settings

log = logging.getLogger(__name__)
LEAST_EVENT_BYTES = 4096
"""An event without regions and its headers, with long names."""
MOST_EVENT_BYTES = 32_768
"""One with a hundred regions."""
LEAST_PICTURE_BYTES = 512
"""A claim check and its headers, with short names."""
POLICY = "cleanup.policy"


def fitting(settings: Settings) -> list[str]:
    """What an operator should know of the topics; nothing where all is well.

    Raises:
        TopicsUnfit: the line can't work with them.
        BrokerUnavailable: no broker answers.
    """
    wanted = needs(settings.topics)
    with admin_client(settings) as admin:
        described = {one["name"]: one for one in admin.describe_topics(list(wanted))}
        troubles = [told for name, need in wanted.items() if (told := topic_trouble(name, need, described.get(name)))]
        if troubles:
            raise TopicsUnfit("; ".join(troubles))
        configs = _configs(admin, list(wanted))
    partitions = {name: len(one["partitions"]) for name, one in described.items()}
    return judged(settings, configs, partitions)


def _configs(admin: KafkaAdminClient, topics: list[str]) -> dict[str, dict[str, str]]:
    """Nothing of a broker that hangs up on the question, as Tansu does, or of an account that may not ask."""
    resources = [ConfigResource(ConfigResourceType.TOPIC, name, {MAX_BYTES: None, POLICY: None}) for name in topics]
    try:
        found = admin.describe_configs(resources, config_filter="all").get("topic", {})
    except CLIENT_ERRORS as error:
        log.info("settings of topics were not told: %s: %s", type(error).__name__, error)
        return {}
    return {name: {key: str(one.get("value") or "") for key, one in config.items()} for name, config in found.items()}


def judged(settings: Settings, configs: Mapping[str, Mapping[str, str]], partitions: Mapping[str, int]) -> list[str]:
    """Of what the broker says of the topics; what it does not say is not judged.

    Raises:
        TopicsUnfit: the line can't work with them.
    """
    topics = settings.topics
    for topic, config in configs.items():
        if "compact" in config.get(POLICY, ""):
            raise TopicsUnfit(
                f"{topic} has {POLICY}={config[POLICY]}: the broker would delete all but the last message of each "
                "camera. Set it to delete"
            )
    limits = {name: int(config[MAX_BYTES]) for name, config in configs.items() if config.get(MAX_BYTES, "").isdigit()}
    for topic, least in ((topics.events, LEAST_EVENT_BYTES), (topics.masks, LEAST_PICTURE_BYTES)):
        if limits.get(topic, least) < least:
            raise TopicsUnfit(
                f"{topic} takes messages of {limits[topic]} bytes, and no image's fits: raise its {MAX_BYTES} to at "
                f"least {least}, better to {topics.max_message_bytes}"
            )
    return [*_of_sizes(settings, limits), *_of_partitions(settings, partitions)]


def _of_sizes(settings: Settings, limits: Mapping[str, int]) -> list[str]:
    topics, inline = settings.topics, settings.limits.inline_bytes + HEADROOM_BYTES
    images = limits.get(topics.images, inline)
    wants = (
        (topics.images, inline, "cameras that send images up to limits.inline_bytes are refused"),
        (topics.events, MOST_EVENT_BYTES, "an image with many regions becomes a dead letter, OutputTooLarge"),
        (topics.masks, inline, "larger masks and heat maps go through S3, though limits.inline_bytes allows them"),
        (topics.deadletters, images + HEADROOM_BYTES, "letters of larger images have their value in S3"),
    )
    return [
        f"{topic} takes messages of {limits[topic]} bytes, fewer than {want}: {otherwise}. Its {MAX_BYTES} says so"
        for topic, want, otherwise in wants
        if limits.get(topic, want) < want
    ]


def _of_partitions(settings: Settings, partitions: Mapping[str, int]) -> list[str]:
    images, most = settings.topics.images, settings.serving.max_replicas or settings.serving.replicas
    if 0 < partitions.get(images, most) < most:
        return [f"{images} has {partitions[images]} partitions for up to {most} replicas: some have nothing to do"]
    return []
