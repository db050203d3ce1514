"""What stands in the way on the broker, looked up beside the line: topics that are gone, rights that are missing.

A client that publishes to a topic that is gone waits for it without a word, and longer than anybody should be left
without one; a client that reads one is told nothing at all.
"""

import logging
import time
from collections.abc import Mapping
from threading import Event, Thread
from typing import Any

from kafka import KafkaAdminClient, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, OffsetSpec

from pipeline.errors import BrokerUnavailable
from pipeline.kafka.clients import CLIENT_ERRORS, HEADROOM_BYTES, admin_client
from pipeline.settings import Settings, Topics

log = logging.getLogger(__name__)
LOOK_S = 4.0
BATCH_BYTES = 16_384
"""The client's own: messages of one partition go together up to so many bytes."""
NO_MORE_FOR_S = 60.0
"""Tansu hangs up on whoever asks for a topic's limit."""
GONE, REFUSED = 3, 29
"""Kafka's codes of UNKNOWN_TOPIC_OR_PARTITION and TOPIC_AUTHORIZATION_FAILED."""
MAX_BYTES = "max.message.bytes"


def needs(topics: Topics) -> dict[str, str]:
    """What a replica does with each topic, in the words of Kafka's ACLs."""
    return {topics.images: "READ", topics.events: "WRITE", topics.masks: "WRITE", topics.deadletters: "WRITE"}


class Lookout:
    """Looks every few seconds, in a thread of its own. What it found is read from any thread."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._closed, self._asked = False, Event()
        self.trouble: str | None = None
        self.topic_id = ""
        """Of the images, where the broker gives topics ids; of the last time that they were there."""
        self.ends: dict[int, int] = {}
        """Behind the last message of each partition of the images, as of the last look."""
        self._unheld: dict[int, float] = {}  # partition to since when no member has it
        self._limits: dict[str, int] = {}
        self._more_at = 0.0  # what only Kafka itself tells is not to be asked for before
        self._thread = Thread(target=self._run, name="lookout", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._closed = True
        self._asked.set()

    def soon(self) -> None:
        """Look now: something was refused, or failed for no reason that anybody knows."""
        self._asked.set()

    def largest(self, topic: str) -> int:
        """Bytes of the largest message that a topic takes and a producer of linewatch sends."""
        most = self._settings.topics.max_message_bytes + HEADROOM_BYTES
        return min(most, self._limits.get(topic, most))

    @property
    def batch_bytes(self) -> int:
        """Bytes of a batch that each topic takes."""
        return min(BATCH_BYTES, *(self.largest(topic) for topic in needs(self._settings.topics)))

    def refused(self, topic: str, size: int) -> None:
        """A message of so many bytes was too large for the topic: whatever was looked up before, it takes less."""
        self.look_once()
        if self.largest(topic) >= size:
            self._limits[topic] = size - 1

    def look_once(self) -> None:
        try:
            with admin_client(self._settings) as admin:
                self._look(admin)
        except (*CLIENT_ERRORS, BrokerUnavailable) as error:
            log.info("nothing was looked up: %s: %s", type(error).__name__, error)

    def _run(self) -> None:
        while not self._closed:
            try:
                with admin_client(self._settings) as admin:
                    while not self._closed:
                        self._look(admin)
                        self._asked.wait(LOOK_S)
                        self._asked.clear()
            except (*CLIENT_ERRORS, BrokerUnavailable) as error:
                log.info("nothing was looked up: %s: %s", type(error).__name__, error)
                self._asked.wait(LOOK_S)

    def _look(self, admin: KafkaAdminClient) -> None:
        wanted = needs(self._settings.topics)
        found = {one["name"]: one for one in admin.describe_topics(list(wanted))}
        troubles = [told for topic, need in wanted.items() if (told := topic_trouble(topic, need, found.get(topic)))]
        self.trouble = "; ".join(troubles) or None
        images = found.get(self._settings.topics.images, {})
        self.topic_id = str(images.get("topic_id") or self.topic_id)
        if not troubles and time.monotonic() >= self._more_at:
            try:
                self._limits |= topic_limits(admin, list(wanted))
                self._look_at_partitions(admin, len(images["partitions"]))
            except CLIENT_ERRORS:
                self._more_at = time.monotonic() + NO_MORE_FOR_S
                raise

    def _look_at_partitions(self, admin: KafkaAdminClient, partitions: int) -> None:
        topic, group = self._settings.topics.images, self._settings.kafka.group
        latest = {TopicPartition(topic, number): OffsetSpec.LATEST for number in range(partitions)}
        self.ends = {tp.partition: found.offset for tp, found in admin.list_partition_offsets(latest).items()}
        described = admin.describe_groups([group])[group]
        held = held_partitions(described, topic)
        unheld = set() if held is None else set(self.ends) - held
        now = time.monotonic()
        self._unheld = {number: self._unheld.get(number, now) for number in unheld}

    def unheld(self, longer_than_s: float) -> list[int]:
        """Partitions that no member of the group has, though it is settled."""
        since = dict(self._unheld)
        return [number for number, at in since.items() if time.monotonic() - at > longer_than_s]


def topic_trouble(topic: str, need: str, described: Mapping[str, Any] | None) -> str | None:
    """Why a topic, as the broker describes it, can't be used so."""
    code = described["error_code"] if described else GONE
    if code == GONE:
        return f"topic {topic} is gone: 'linewatch setup' makes it again, empty"
    rights = (described or {}).get("authorized_operations")  # none from brokers that don't say
    if code == REFUSED or (rights and need not in rights and "ALL" not in rights):
        return f"the account may not {need} topic {topic} (the broker's ACLs): give it the right"
    return None


def held_partitions(group: Mapping[str, Any], topic: str) -> set[int] | None:
    """Those that its members have; None of a group that is being shared out anew, or that can't be looked at."""
    if group["group_state"] != "Stable":
        return None
    return {
        number
        for member in group["members"]
        for one in (member["member_assignment"] or {"assigned_partitions": []})["assigned_partitions"]
        if one["topic"] == topic
        for number in one["partitions"]
    }


def topic_limits(admin: KafkaAdminClient, topics: list[str]) -> dict[str, int]:
    """Bytes of the largest message of each topic, as far as the broker says."""
    resources = [ConfigResource(ConfigResourceType.TOPIC, topic, {MAX_BYTES: None}) for topic in topics]
    described = admin.describe_configs(resources, config_filter="all").get("topic", {})
    values = {topic: config.get(MAX_BYTES, {}).get("value") for topic, config in described.items()}
    return {topic: int(value) for topic, value in values.items() if value and str(value).isdigit()}
