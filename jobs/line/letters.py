"""Dead letters as a person handles them: list what is pending, send it again after a fix."""

from collections.abc import Sequence

from kafka.errors import KafkaError

from jobs.line.follow import Follower
from pipeline.contracts.deadletters import Letter, pending
from pipeline.errors import BrokerError
from pipeline.kafka.clients import broker_answers, make_producer
from pipeline.settings import Settings
from pipeline.storage.claims import letter_value
from pipeline.storage.store import ObjectStore


def pending_letters(settings: Settings, error_class: str | None = None) -> list[Letter]:
    """Letters not sent again yet, oldest first; with ``error_class``, only those."""
    with Follower(settings, settings.topics.deadletters, from_beginning=True) as follower:
        letters = pending(follower.rest())
    return [letter for letter in letters if error_class in (None, letter.error_class)]


def replay_letters(settings: Settings, letters: Sequence[Letter], store: ObjectStore, *, exactly_once: bool) -> int:
    """Send each original again and mark it as sent, in one transaction where the broker has them. Returns how many.

    What was deleted unread can't be sent again: those letters stay.

    Raises:
        BrokerUnavailable: no broker answers; nothing was sent twice.
        ClaimMissing, ClaimRefused, StoreUnavailable: a letter whose value is in S3 can't be had; those before are sent.
    """
    letters = [letter for letter in letters if not letter.deleted]
    if not letters:
        return 0
    options = {"transactional_id": f"{settings.kafka.group}-deadletters"} if exactly_once else {}
    with broker_answers(settings):
        producer = make_producer(settings, **options)
        try:
            if exactly_once:
                producer.init_transactions()
            for letter in letters:
                value = letter_value(letter.value_at, store) if letter.value_at else None
                if exactly_once:
                    producer.begin_transaction()
                for message in (letter.original(value), letter.marker()):
                    producer.send(
                        message.topic, key=message.key, value=message.value, headers=list(message.headers)
                    ).get(timeout=15)
                if exactly_once:
                    producer.commit_transaction()
        finally:
            try:
                producer.close(timeout=5)
            except KafkaError as error:
                raise BrokerError(f"the last dead letter may not have been sent: {error}") from error
    return len(letters)
