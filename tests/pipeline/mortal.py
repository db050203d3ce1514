"""Members of a group that die, each a process of its own: `python -m tests.pipeline.mortal HOW SETTINGS OBJECTS`.

sent    joins, sends an event in a transaction, says "open", and waits to be killed with the transaction open
open    the same, and its offsets too
worker  a stream worker to whose decoder POISON is deadly; objects are the files of a folder
"""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

from pipeline.contracts.broker import offsets_after
from pipeline.fakes import MemoryStore
from pipeline.kafka.session import KafkaSession
from pipeline.settings import Settings
from pipeline.stream.inspector import Inspector
from pipeline.stream.worker import StreamWorker

POISON = b"\x00this image ends the process of its decoder\x00"


def leave_open(settings: Settings, *, with_offsets: bool) -> None:
    from kafka import TopicPartition
    from kafka.structs import OffsetAndMetadata

    session = KafkaSession(settings, rank=lambda: 0, exactly_once=True)
    records = []
    while not records:
        records = session.poll(0.2)
    session._publisher.producer.begin_transaction()
    session._publisher.producer.send(settings.topics.events, b"never committed", b"k").get(timeout=10)
    if with_offsets:
        offsets = {TopicPartition(t, p): OffsetAndMetadata(o, "", -1) for (t, p), o in offsets_after(records).items()}
        session._publisher.producer.send_offsets_to_transaction(offsets, session._consumer.group_metadata())
    sys.stdout.write("open\n")
    sys.stdout.flush()
    while True:
        session.poll(0.2)


def work(settings: Settings, objects: Path) -> None:
    files = (path for path in objects.rglob("*") if path.is_file())
    inspector = Inspector(settings, MemoryStore(objects={str(f.relative_to(objects)): f.read_bytes() for f in files}))
    read = inspector.read

    def deadly(data: bytes, key: str) -> object:
        if POISON in data:
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(10)
        return read(data, key)

    inspector.read = deadly  # type: ignore[method-assign, assignment]
    inspector.champions.preload()
    worker = StreamWorker(inspector, lambda: KafkaSession(settings, rank=lambda: 0, exactly_once=True))
    done = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: done.set())
    worker.start()
    done.wait()
    worker.stop()


if __name__ == "__main__":
    how, values = sys.argv[1], Settings.received(json.loads(sys.argv[2]))
    if how in ("sent", "open"):
        leave_open(values, with_offsets=how == "open")
    else:
        work(values, Path(sys.argv[3]))
