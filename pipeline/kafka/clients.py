"""kafka-python clients as linewatch needs them: sizes for images, timeouts for factories."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.errors import InvalidReplicationFactorError, KafkaConnectionError, KafkaError

from pipeline.contracts.broker import Outgoing
from pipeline.errors import BrokerRefused, BrokerUnavailable, LinewatchError, SettingsError
from pipeline.kafka.diagnosis import why_unreachable
from pipeline.kafka.header_names import read_any_name
from pipeline.kafka.reading import OnUnreadable, read_batch_by_batch
from pipeline.kafka.refusals import refusal
from pipeline.kafka.security import security
from pipeline.kafka.tokens import token_source
from pipeline.kafka.transports import hear_last_words
from pipeline.settings import Kafka, Settings

# A dead letter is the original message with headers added: it must fit where the original did.
HEADROOM_BYTES = 65_536
# kafka-python raises AssertionError and RuntimeError too, from a client in a state that forbids the call.
CLIENT_ERRORS = (KafkaError, AssertionError, RuntimeError, OSError)
PUBLISH_S = 15
UNREACHABLE_S = 0.05
"""Between two tries to reach a broker."""


def connection(kafka: Kafka) -> dict[str, Any]:
    """What every client shares: addresses and security.

    Raises:
        SettingsError: something that security needs is missing, or can't be read.
        BrokerUnavailable: no token is to be had.
    """
    hear_last_words()
    return {
        "bootstrap_servers": [server.strip() for server in kafka.bootstrap_servers.split(",")],
        "reconnect_backoff_max_ms": 2000,
        "bootstrap_timeout_ms": 8000,
        **security(kafka),
    }


def make_consumer(settings: Settings, on_unreadable: OnUnreadable | None = None, **options: Any) -> KafkaConsumer:
    """A consumer that reads what is committed and takes images.

    on_unreadable: told of each batch that can't be read, instead of having the poll raise `Unreadable`.
    """
    size = settings.topics.max_message_bytes
    read_any_name()
    consumer = KafkaConsumer(
        **{
            **connection(settings.kafka),
            "isolation_level": "read_committed",
            "enable_auto_commit": False,
            "auto_offset_reset": "earliest",
            "allow_auto_create_topics": False,
            "max_partition_fetch_bytes": size,
            "fetch_max_bytes": max(size, 52_428_800),
            "fetch_max_wait_ms": 100,
            "request_timeout_ms": 10_000,
            # A topic that was made anew is noticed by this.
            "metadata_max_age_ms": 10_000,
            **options,
        }
    )
    read_batch_by_batch(consumer, *([on_unreadable] if on_unreadable else []))
    return consumer


def make_producer(settings: Settings, **options: Any) -> KafkaProducer:
    """A producer that waits for every in-sync replica and fails within seconds, not minutes."""
    producer = KafkaProducer(
        **{
            **connection(settings.kafka),
            "acks": "all",
            "max_request_size": settings.topics.max_message_bytes + HEADROOM_BYTES,
            "request_timeout_ms": 5_000,
            "delivery_timeout_ms": 15_000,
            "max_block_ms": 15_000,
            # After a commit the client waits out CONCURRENT_TRANSACTIONS: at the default of 100 ms that is most
            # of a transaction's time.
            "retry_backoff_ms": 5,
            "allow_auto_create_topics": False,
            **options,
        }
    )
    _keep_requests(producer)
    return producer


def publish_one(settings: Settings, message: Outgoing) -> None:
    """One message by a producer of its own; the broker has it when this returns.

    Raises:
        BrokerUnavailable: no answer; it may be there, or not.
    """
    with broker_answers(settings):
        producer = make_producer(settings)
        try:
            sent = producer.send(message.topic, message.value, message.key, headers=list(message.headers))
            sent.get(timeout=PUBLISH_S)
        finally:
            with suppress(KafkaError):  # what counts is whether the broker has it
                producer.close(timeout=5)


def _keep_requests(producer: KafkaProducer) -> None:
    """Let a transaction outlive its coordinator.

    The sender of kafka-python 3.0.12 drops a transaction's request when the coordinator can't be reached: whoever
    waits for it waits for ever, and holds its group up. It does so because its client raises what it expects as an
    answer. With the answer it looks for the coordinator and tries again.
    """
    client = producer._sender._client
    raising = client.await_ready

    def answering(node_id: object, timeout_ms: int) -> bool:
        try:
            return bool(raising(node_id, timeout_ms=timeout_ms))
        except KafkaConnectionError:
            time.sleep(UNREACHABLE_S)
            return False

    client.await_ready = answering


@contextmanager
def admin_client(settings: Settings) -> Iterator[KafkaAdminClient]:
    with broker_answers(settings):
        admin = KafkaAdminClient(**connection(settings.kafka), request_timeout_ms=15_000)
        try:
            yield admin
        finally:
            admin.close()


@contextmanager
def broker_answers(settings: Settings) -> Iterator[None]:
    """Turns kafka-python's errors into one line that names the broker."""
    try:
        yield
    except InvalidReplicationFactorError as error:
        raise BrokerUnavailable(
            f"Kafka at {settings.kafka.bootstrap_servers} has fewer brokers up than topics.replication_factor asks for "
            f"({settings.topics.replication_factor}): start the others, or lower it"
        ) from error
    except SettingsError as error:  # a file that was there when the settings were read
        raise BrokerRefused(str(error)) from error
    except (KafkaError, OSError) as error:
        raise _told(settings.kafka, error) from error


def _told(kafka: Kafka, error: Exception) -> BrokerUnavailable:
    where = kafka.bootstrap_servers
    told = refusal(error)
    if not told and kafka.security_protocol != "PLAINTEXT":
        try:
            found = why_unreachable(connection(kafka))
        except LinewatchError as no_way:
            found = no_way
        if isinstance(found, LinewatchError):
            return found if isinstance(found, BrokerUnavailable) else BrokerRefused(str(found))
        error = found or error
        told = refusal(error)
    if told:
        if kafka.sasl_mechanism == "OAUTHBEARER":
            token_source(kafka).forget()  # the next one may be another
        return BrokerRefused(f"Kafka at {where} refuses: {told}")
    reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
    return BrokerUnavailable(f"Kafka at {where} does not answer: is it running? ({reason})")
