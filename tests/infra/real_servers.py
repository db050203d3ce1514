"""What the tests do with real servers: put something in, get it back, look at their processes from outside."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterable
from pathlib import Path

import psutil
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient, NewTopic

from infra.local import LocalServers
from infra.local.readiness import ensure_bucket, s3_client
from infra.local.servers import Credentials

TOPIC = "linewatch.test"
LISTENING = "0A"
LOOPBACK = re.compile("^(0100007F|0{24}0100007F|0000000000000000FFFF00000100007F|0{24}01000000)$")


def produce(servers: LocalServers, count: int) -> None:
    """Returns once all are acknowledged."""
    admin = KafkaAdminClient(bootstrap_servers=servers.bootstrap_servers)
    try:
        admin.create_topics([NewTopic(TOPIC, 2, 1)])
    finally:
        admin.close()
    producer = KafkaProducer(bootstrap_servers=servers.bootstrap_servers, acks="all", enable_idempotence=False)
    try:
        for sent in [producer.send(TOPIC, value=b"%d" % number, partition=number % 2) for number in range(count)]:
            sent.get(timeout=20)
    finally:
        producer.close()


def consume(servers: LocalServers, count: int) -> list[int]:
    consumer = KafkaConsumer(bootstrap_servers=servers.bootstrap_servers, group_id=None, enable_auto_commit=False)
    values: list[int] = []
    try:
        partitions = [TopicPartition(TOPIC, number) for number in range(2)]
        consumer.assign(partitions)
        consumer.seek_to_beginning(*partitions)
        for _ in range(40):
            if len(values) >= count:
                break
            for records in consumer.poll(timeout_ms=500).values():
                values += [int(record.value) for record in records]
    finally:
        consumer.close()
    return sorted(values)


def put(servers: LocalServers, key: str, value: bytes) -> None:
    client = s3_client(servers.s3_endpoint, Credentials(servers.access_key, servers.secret_key))
    ensure_bucket(client, "test")
    client.put_object(bucket_name="test", object_name=key, data=io.BytesIO(value), length=len(value))


def get(servers: LocalServers, key: str) -> bytes:
    client = s3_client(servers.s3_endpoint, Credentials(servers.access_key, servers.secret_key))
    response = client.get_object(bucket_name="test", object_name=key)
    try:
        return bytes(response.read())
    finally:
        response.close()
        response.release_conn()


def gone(pids: Iterable[int]) -> bool:
    return all(not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE for pid in pids)


def listening_addresses(pids: Iterable[int]) -> set[tuple[str, int]]:
    """(hex address, port) of every TCP socket on which these processes and their children listen, and UDP ones."""
    inodes = set()
    for pid in pids:
        for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
            for descriptor in Path(f"/proc/{process.pid}/fd").iterdir():
                try:
                    target = os.readlink(descriptor)
                except FileNotFoundError:
                    continue
                if target.startswith("socket:["):
                    inodes.add(target[len("socket:[") : -1])
    found = set()
    for table in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[9] in inodes and (fields[3] == LISTENING or table.startswith("udp")):
                address, _, port = fields[1].partition(":")
                found.add((address, int(port, 16)))
    return found


def is_loopback(address: str) -> bool:
    return bool(LOOPBACK.match(address))
