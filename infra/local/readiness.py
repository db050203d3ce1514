"""A server is ready when it does its work: an object comes back as it was put, a message as it was produced."""

from __future__ import annotations

import contextlib
import io
import secrets
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.local.credentials import Credentials
from infra.local.errors import NotReady
from infra.local.logs import last_lines

# The clients are imported where they are used: they take half a second, which `linewatch --help` should not cost.
if TYPE_CHECKING:
    from minio import Minio

READY_TOPIC = "linewatch.ready"
READY_BUCKET = "linewatch-ready"
ATTEMPT_S = 10.0


def wait_until(
    probe: Callable[[], None], *, name: str, ended: Callable[[], Path | None], within_s: float, log: Path
) -> None:
    """Probe until it passes; say what the log says when the server takes too long, or one that it needs ends.

    Args:
        ended: the log of one that has ended, this server or another of its cluster; None while all run.
    """
    deadline = time.monotonic() + within_s
    while True:
        last_log = ended()
        try:
            if last_log is None:
                return probe()
        except Exception as error:  # whatever it is, it means "not yet"; the last one is told below
            reason = f"{type(error).__name__}: {error}"
        if last_log is not None:
            raise NotReady(f"{name} ended while starting. Its log, {last_log}, ends with:\n{last_lines(last_log)}")
        if time.monotonic() > deadline:
            raise NotReady(
                f"{name} did not answer within {within_s:.0f} s (last try: {reason}). "
                f"Its log, {log}, ends with:\n{last_lines(log)}"
            )
        time.sleep(0.05)


def s3_client(endpoint: str, credentials: Credentials) -> Minio:
    """Impatient: a store that is still starting is asked again from outside."""
    from minio import Minio
    from urllib3 import PoolManager, Retry, Timeout

    pool = PoolManager(timeout=Timeout(connect=1.0, read=ATTEMPT_S), retries=Retry(total=0))
    # With the region given, the client doesn't ask the server for it before each first request.
    return Minio(
        endpoint=endpoint,
        access_key=credentials.access_key,
        secret_key=credentials.secret_key,
        secure=False,
        region="us-east-1",
        http_client=pool,
    )


def ensure_bucket(client: Minio, bucket: str) -> None:
    if not client.bucket_exists(bucket_name=bucket):
        client.make_bucket(bucket_name=bucket)


def probe_s3(endpoint: str, credentials: Credentials) -> None:
    """A signed PUT and GET of a fresh value; leaves nothing behind but an empty bucket."""
    _connect(endpoint)
    client = s3_client(endpoint, credentials)
    ensure_bucket(client, READY_BUCKET)
    key, value = secrets.token_hex(8), secrets.token_bytes(16)
    client.put_object(bucket_name=READY_BUCKET, object_name=key, data=io.BytesIO(value), length=len(value))
    response = client.get_object(bucket_name=READY_BUCKET, object_name=key)
    try:
        read = response.read()
    finally:
        response.close()
        response.release_conn()
    client.remove_object(bucket_name=READY_BUCKET, object_name=key)
    if read != value:
        raise ValueError("an object came back other than it was put")


def probe_kafka(endpoint: str, *, node: int = 1, brokers: int = 1) -> None:
    """A fresh message produced to a topic of one partition and consumed from there; the topic stays, and tiny.

    Besides, the broker (`node` of `brokers`) must be in sync with every partition that it has a copy of: as long as one
    is behind, another broker's end could stop it.
    """
    from kafka import KafkaConsumer, KafkaProducer, TopicPartition
    from kafka.admin import KafkaAdminClient, NewTopic
    from kafka.errors import TopicAlreadyExistsError

    _connect(endpoint)
    common: dict[str, Any] = {"bootstrap_servers": endpoint, "request_timeout_ms": int(ATTEMPT_S * 1000)}
    admin = KafkaAdminClient(**common)
    try:
        topic = NewTopic(READY_TOPIC, 1, brokers, topic_configs={"retention.ms": "3600000"})
        with contextlib.suppress(TopicAlreadyExistsError):
            admin.create_topics([topic], timeout_ms=int(ATTEMPT_S * 1000))
        behind = [
            f"{topic['name']}-{partition['partition_index']}"
            for topic in admin.describe_topics()
            for partition in topic["partitions"]
            if node in partition["replica_nodes"] and node not in partition["isr_nodes"]
        ]
    finally:
        admin.close()
    if behind:
        raise ValueError(f"broker {node} still copies {len(behind)} partitions, {behind[0]} for one")
    value = secrets.token_bytes(16)
    producer = KafkaProducer(**common, enable_idempotence=False, acks="all", max_block_ms=int(ATTEMPT_S * 1000))
    try:
        written = producer.send(READY_TOPIC, value=value).get(timeout=ATTEMPT_S)
    finally:
        producer.close(timeout=1)
    consumer = KafkaConsumer(bootstrap_servers=endpoint, group_id=None, enable_auto_commit=False)
    try:
        partition = TopicPartition(READY_TOPIC, written.partition)
        consumer.assign([partition])
        consumer.seek(partition, written.offset)
        polled = consumer.poll(timeout_ms=int(ATTEMPT_S * 1000), max_records=1).get(partition, [])
        if not polled or polled[0].value != value:
            raise ValueError("a produced message did not come back")
    finally:
        consumer.close()


def _connect(endpoint: str) -> None:
    """Fails fast and quietly while nobody listens; the clients would log each failed attempt."""
    host, _, port = endpoint.rpartition(":")
    socket.create_connection((host, int(port)), timeout=1.0).close()
