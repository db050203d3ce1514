"""Membership of the consumer group: joining whenever it asks for it, and what kafka-python gets wrong about that."""

import logging
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, Protocol

from kafka import ConsumerRebalanceListener, KafkaConsumer, TopicPartition
from kafka.admin import MemberToRemove
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.errors import CommitFailedError, KafkaError
from kafka.structs import ConsumerGroupMetadata

from pipeline.errors import BrokerRefused
from pipeline.kafka.clients import admin_client, make_consumer
from pipeline.kafka.reading import UnreadableBatch
from pipeline.settings import Settings

log = logging.getLogger(__name__)
JOIN_SLICE_MS = 1000
JOIN_LOOK_S = 0.1
REJOIN_WITHIN_MS = 30_000
"""So long a group waits in a rebalance for a member that does not join; the client's default is five minutes."""


class Holder(Protocol):
    """Who is told what partitions it has, in the client's own thread. With cooperative rebalancing these are the ones
    that move; the others stay.
    """

    def assigned(self, partitions: Sequence[TopicPartition]) -> None: ...

    def revoked(self, partitions: Sequence[TopicPartition]) -> None: ...

    def unreadable(self, tp: TopicPartition, batch: UnreadableBatch) -> None:
        """In the poll that met it: the partition's position stays there."""

    def expelled(self) -> None:
        """Joining again after the group went on without this member: its offsets may be far behind the group's.

        The client does not always say so: what it gets back of what it had, it may count as kept.
        """


def lives(settings: Settings, process: str) -> bool:
    """Whether a process of this client id is a member of the group. Where nobody can tell, it has died."""
    with admin_client(settings) as admin:
        try:
            group = admin.describe_groups([settings.kafka.group])[settings.kafka.group]
        except KafkaError as error:
            log.info("the group's members can't be listed: %s: %s", type(error).__name__, error)
            return False
    return any(one["client_id"] == process for one in group["members"])


class Membership:
    """Used from one thread, and joins in another, so that commits go on meanwhile.

    And because kafka-python 3.0.12 forgets a join that ends between two polls: it begins another, which makes all
    members join again, and so on. In that thread somebody is always there when it ends.
    """

    def __init__(self, settings: Settings, process: str, instance: str | None, holder: Holder) -> None:
        """process: the client id. instance: of a static member.

        Raises:
            BrokerRefused: there is no topic of images.
            KafkaError: no broker answers.
        """
        self._settings, self._instance = settings, instance
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="join")
        self._joining: Future[None] | None = None
        self._closed = False
        self.consumer = self._open(process, holder)

    @property
    def lasts(self) -> bool:
        """Whether it is in the group as far as it knows: it learns by heartbeats that it was expelled."""
        return bool(self.consumer.group_metadata().generation_id >= 0)

    @property
    def must_join(self) -> bool:
        """The group waits for it, or it is in none."""
        return bool(self.consumer._coordinator.need_rejoin())

    def generation(self) -> ConsumerGroupMetadata:
        """By which the broker refuses what an expelled member commits.

        Raises:
            CommitFailedError: it has none now. The broker would not check: from a transaction that names no generation
                it takes offsets as they come.
        """
        found = self.consumer.group_metadata()
        if found.generation_id < 0:
            raise CommitFailedError("not a member of the group at this moment")
        return found

    def joined(self, timeout_s: float) -> bool:
        """Whether it is in the group now."""
        self._begin()
        if self._joining is None:
            return True
        wait([self._joining], timeout_s)
        if not self._joining.done():
            return False
        ended, self._joining = self._joining, None
        ended.result()
        return True

    def wait_for(self, doing: Future[None]) -> None:
        """Wait for what may wait for a broker, and join the group meanwhile: it waits for every member."""
        while not doing.done():
            wait([doing], JOIN_LOOK_S)
            self._begin()
        doing.result()

    def ends(self) -> list[tuple[str, Callable[[], None]]]:
        """It joins no more. What is left to do to be out of the group, by name: each may fail by itself."""
        self._closed = True
        self._thread.shutdown(wait=False)
        return [("consumer", self._close_consumer), *([("membership", self._leave)] if self._instance else [])]

    def _begin(self) -> None:
        images = self._settings.topics.images
        if self._assignor.behind(self.consumer._client.cluster.partitions_for_topic(images)):
            log.warning("%s has other partitions than were shared out: joining again", images)
            self._assignor.shared_out = None
            self.consumer._coordinator.request_rejoin()
        if self._joining is None and self.must_join:
            self._joining = self._thread.submit(self._join)

    def _join(self) -> None:
        while not self._closed and self.must_join:
            self.consumer._coordinator.ensure_active_group(timeout_ms=JOIN_SLICE_MS)

    def _open(self, process: str, holder: Holder) -> KafkaConsumer:
        session_ms = self._settings.kafka.session_timeout_ms
        self._assignor = _Assignor(self, holder, self._settings.topics.images)
        consumer = make_consumer(
            self._settings,
            holder.unreadable,
            group_id=self._settings.kafka.group,
            client_id=process,
            session_timeout_ms=session_ms,
            # Members learn of a rebalance by their heartbeats: it takes as long as the slowest of them.
            heartbeat_interval_ms=max(300, session_ms // 6),
            max_poll_interval_ms=max(REJOIN_WITHIN_MS, 2 * session_ms),
            max_poll_records=self._settings.stream.batch_images * 2,
            group_instance_id=self._instance,
            partition_assignment_strategy=[self._assignor],
        )
        images = self._settings.topics.images
        consumer.subscribe([images], listener=_Listener(holder))
        # A member that leads the group before it knows the topic's partitions shares out none, and kafka-python may
        # not notice when it learns of them.
        if not consumer.partitions_for_topic(images):
            consumer.close(autocommit=False)
            raise BrokerRefused(f"topic {images} is not there: 'linewatch setup' makes it")
        return consumer

    def _close_consumer(self) -> None:
        self.consumer.close(autocommit=False, timeout_ms=3000)

    def _leave(self) -> None:
        """A static member's partitions would stay unread until its session ends; one that is stopped hands them on."""
        with admin_client(self._settings) as admin:
            admin.remove_group_members(
                self._settings.kafka.group, [MemberToRemove(group_instance_id=self._instance, reason="stopped")]
            )


class _Assignor(CooperativeStickyAssignor):
    """Claims the partitions that its member has, and none when that joins after the group has expelled it.

    kafka-python 3.0.12 claims what such a member had before. The leader then gives these partitions to nobody until
    their claimant has given them back, which it never does, for it does not have them: they stay unread.
    """

    def __init__(self, membership: Membership, holder: Holder, topic: str) -> None:
        super().__init__()
        self._membership, self._holder, self._topic = membership, holder, topic
        self.shared_out: frozenset[int] | None = None
        """The partitions that its member knew of when it shared them out; None where it does not lead the group."""

    def behind(self, known: Collection[int] | None) -> bool:
        """Whether there are other partitions now: those of a topic that was gone, and is there again.

        kafka-python 3.0.12 may take them for those that it shared out. Then nobody has them.
        """
        return self.shared_out is not None and bool(known) and self.shared_out != set(known or ())

    def assign(self, cluster: Any, members: Any) -> Any:
        self.shared_out = frozenset(cluster.partitions_for_topic(self._topic) or ())
        return super().assign(cluster, members)

    def metadata(self, topics: Collection[str]) -> Any:
        self.shared_out = None
        if not self._membership.lasts:
            self.member_assignment = None
            self._holder.expelled()
        return super().metadata(topics)


class _Listener(ConsumerRebalanceListener):
    def __init__(self, holder: Holder) -> None:
        self._holder = holder

    def on_partitions_assigned(self, assigned: Sequence[TopicPartition]) -> None:
        self._holder.assigned(list(assigned))

    def on_partitions_revoked(self, revoked: Sequence[TopicPartition]) -> None:
        self._holder.revoked(list(revoked))

    def on_partitions_lost(self, lost: Sequence[TopicPartition]) -> None:
        self._holder.revoked(list(lost))
