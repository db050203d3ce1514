"""The topics: created once, with the partitions and sizes that settings ask for."""

from collections.abc import Container

from kafka.admin import NewTopic
from kafka.errors import TopicAlreadyExistsError

from pipeline.kafka.clients import HEADROOM_BYTES, admin_client
from pipeline.settings import Settings

WEEK_MS = 7 * 24 * 3600 * 1000
# The brokers' clocks count, and no camera's: one a week slow would have its images deleted before they are read, one
# more than an hour fast would be refused, and windows of time would be wrong for its neighbours on the partition too.
CLOCK = {"message.timestamp.type": "LogAppendTime"}


def topic_specs(settings: Settings) -> list[NewTopic]:
    """What each topic is created as. Key = camera id, so one camera stays in order (of releases: the product)."""
    topics = settings.topics
    size = str(topics.max_message_bytes)
    kept = {"max.message.bytes": size, "retention.ms": str(WEEK_MS)}
    letters = {"max.message.bytes": str(topics.max_message_bytes + HEADROOM_BYTES), "retention.ms": "-1"}
    configs: dict[str, tuple[int, dict[str, str]]] = {
        topics.images: (topics.partitions, kept),
        topics.events: (topics.partitions, kept),
        topics.masks: (topics.partitions, kept),
        topics.feedback: (1, {"retention.ms": "-1"}),
        topics.releases: (1, {"cleanup.policy": "compact"}),
        topics.deadletters: (1, letters),
    }
    least = topics.min_insync_replicas
    copies = {} if least is None else {"min.insync.replicas": str(least)}
    return [
        NewTopic(name, partitions, topics.replication_factor, topic_configs={**CLOCK, **config, **copies})
        for name, (partitions, config) in configs.items()
    ]


def ensure_topics(settings: Settings, only: Container[str] | None = None) -> list[str]:
    """Create the topics (or ``only`` some of them) that are missing; returns their names. Others are left as they are.

    Raises:
        BrokerUnavailable: no broker answers.
    """
    with admin_client(settings) as admin:
        existing = set(admin.list_topics())
        wanted = [spec for spec in topic_specs(settings) if only is None or spec.name in only]
        missing = [spec for spec in wanted if spec.name not in existing]
        if missing:
            try:
                admin.create_topics(missing)
            except TopicAlreadyExistsError:
                pass  # another process made them just now
        return [spec.name for spec in missing]
