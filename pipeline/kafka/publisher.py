"""The producer of a member: messages and offsets in one transaction, and a new producer after each that failed."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kafka import KafkaProducer, TopicPartition
from kafka.errors import KafkaError, KafkaTimeoutError, MessageSizeTooLargeError, RecordListTooLargeError
from kafka.structs import ConsumerGroupMetadata, OffsetAndMetadata

from pipeline.contracts.broker import Outgoing
from pipeline.kafka.clients import CLIENT_ERRORS, make_producer
from pipeline.kafka.lookout import Lookout
from pipeline.kafka.refusals import refusal
from pipeline.settings import Settings

log = logging.getLogger(__name__)
FLUSH_TIMEOUT_S = 15
TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError)


class Publisher:
    """Used from one thread at a time."""

    def __init__(self, settings: Settings, *, name: Callable[[], str], exactly_once: bool, lookout: Lookout) -> None:
        """name: the transactional id, now."""
        self._settings, self._name, self._exactly_once, self._lookout = settings, name, exactly_once, lookout
        self.transactional_id = ""
        self._batch_bytes = 0
        self.producer = self._open()

    def transact(
        self,
        outgoing: Sequence[Outgoing],
        offsets: Mapping[TopicPartition, OffsetAndMetadata],
        generation: ConsumerGroupMetadata,
    ) -> None:
        self._fit()
        self.producer.begin_transaction()
        if outgoing:
            self.send(outgoing)
        transaction = self.producer._transaction_manager
        if offsets:
            self._ended(transaction.send_offsets_to_transaction(offsets, generation))
        self._ended(transaction.begin_commit())

    def send(self, outgoing: Sequence[Outgoing]) -> None:
        """Returns once all are acknowledged; of several errors, raises the one that says most."""
        if not self._exactly_once:
            self._fit()
        failed: list[tuple[Outgoing, BaseException]] = []
        futures = []
        for message in outgoing:
            headers = list(message.headers)
            try:
                futures.append(
                    (message, self.producer.send(message.topic, value=message.value, key=message.key, headers=headers))
                )
            except TOO_LARGE as error:  # for this client already
                failed.append((message, error))
                break
        self.producer.flush(timeout=FLUSH_TIMEOUT_S)
        for message, future in futures:
            try:
                future.get(timeout=FLUSH_TIMEOUT_S)
            except CLIENT_ERRORS as error:
                failed.append((message, error))
        if not failed:
            return
        refused, why = next((one for one in failed if refusal(one[1])), failed[0])
        if isinstance(why, TOO_LARGE):
            log.warning("%s takes no message of %d bytes: looking its limit up again", refused.topic, refused.size)
            self._lookout.refused(refused.topic, refused.size)
        raise why

    def _ended(self, request: Any) -> None:
        """Wait for a transaction's request, and not for ever: kafka-python 3.0.12 does while the broker is away, and
        nobody is told. What became of a commit without an answer is told by the group's committed offsets.
        """
        self.producer._sender.wakeup()
        if not request.wait(timeout_ms=FLUSH_TIMEOUT_S * 1000):
            raise KafkaTimeoutError(f"the transaction has no answer after {FLUSH_TIMEOUT_S} s")

    def _fit(self) -> None:
        """Let no batch be larger than a topic takes: kafka-python 3.0.12 splits one that the broker refuses, and then
        does not wait for all of its parts.
        """
        if self._lookout.batch_bytes < self._batch_bytes:
            self.renew()

    def renew(self) -> None:
        """Leave no open transaction: a new producer fences the old one, and thereby aborts what that left open.

        Never by `abort_transaction`: kafka-python 3.0.12 keeps offsets that the broker refused, and sends them again
        with the next transaction, under a generation that is valid by then. So they would set back what another
        member has committed meanwhile, and its images would be inspected twice.
        """
        try:
            self.close()
        except CLIENT_ERRORS as error:
            log.info("closing the producer: %s", type(error).__name__)
        self.producer = self._open()

    def close(self) -> None:
        try:
            self.producer.close(timeout=2)
        except KafkaError:
            # close() flushes first and gives up when the broker is away, leaving its sender thread trying for ever.
            self.producer._sender.force_close()
            raise

    def _open(self) -> KafkaProducer:
        self._batch_bytes = self._lookout.batch_bytes
        if not self._exactly_once:
            return make_producer(self._settings, batch_size=self._batch_bytes)
        self.transactional_id = self._name()
        producer = make_producer(
            self._settings,
            transactional_id=self.transactional_id,
            transaction_timeout_ms=self._settings.kafka.transaction_timeout_ms,
            batch_size=self._batch_bytes,
        )
        producer.init_transactions()
        return producer
