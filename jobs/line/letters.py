"""Dead letters as a person handles them: list what is pending, send it again after a fix."""

from collections.abc import Sequence

from kafka.errors import KafkaError

from jobs.line.follow import Follower
from pipeline.contracts.deadletters import Letter, pending
from pipeline.errors import BrokerError
from pipeline.kafka.clients import broker_answers, make_producer
from pipeline.settings import Settings


def pending_letters(settings: Settings, error_class: str | None = None) -> list[Letter]:
    """Letters not sent again yet, oldest first; with ``error_class``, only those."""
    with Follower(settings, settings.topics.deadletters, from_beginning=True) as follower:
        letters = pending(follower.rest())
    return [letter for letter in letters if error_class in (None, letter.error_class)]


def replay_letters(settings: Settings, letters: Sequence[Letter], *, exactly_once: bool) -> int:
    """Send each original again and mark it as sent, in one transaction where the broker has them.

    Raises:
        BrokerUnavailable: no broker answers; nothing was sent twice.
    """
    if not letters:
        return 0
    options = {"transactional_id": f"{settings.kafka.group}-deadletters"} if exactly_once else {}
    with broker_answers(settings):
        producer = make_producer(settings, **options)
        try:
            if exactly_once:
                producer.init_transactions()
            for letter in letters:
                if exactly_once:
                    producer.begin_transaction()
                for message in (letter.original(), letter.marker()):
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
