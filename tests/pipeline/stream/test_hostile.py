"""Whatever comes in, the worker lives, memory is bounded, and each input has one event or one dead letter.

HOSTILE_INPUTS=10000 makes it as many; the default is short.
"""

import os
from collections import Counter

import psutil

from pipeline.fakes import MemoryStore
from tests.pipeline.hostile import Attacker
from tests.pipeline.line import LETTERS, Line, running, settings
from tests.pipeline.tiny import publish, texture

COUNT = int(os.environ.get("HOSTILE_INPUTS", "600"))
GROWTH_BYTES = 400 << 20
"""Two images just within the limits, side by side, and the allocator's leavings; far below what a bomb takes."""


def test_hostile_inputs_have_one_outcome_each(tiny_bundle, eventually) -> None:
    store = MemoryStore()
    publish(store, tiny_bundle)
    chosen = settings(batch_images=16)
    limits = chosen.limits.model_copy(update={"image_bytes": 2 << 20, "image_pixels": 5_000_000})
    line = Line(store, chosen.model_copy(update={"limits": limits}))
    line.send(texture(1))
    with running(line):
        eventually(line.finished)
        process = psutil.Process()
        before, most = process.memory_info().rss, 0
        sent, kept, attacker = 1, 0, Attacker(0, store)  # kept: by the broker in memory, which is the test's
        batch = 100
        messages = attacker.messages(COUNT)
        while sent <= COUNT:
            for _, message in zip(range(min(batch, COUNT + 1 - sent)), messages, strict=False):
                record = line.broker.produce(message)
                kept += record.size + sum(len(value or b"") + 200 for _, value in record.headers)
                sent += 1
            eventually(line.finished, within_s=120, what=f"an outcome for each of {sent} inputs")
            most = max(most, process.memory_info().rss)
            assert line.worker.trouble() is None
            assert line.worker._faults == 0
        (last,) = line.send(texture(2))
        eventually(line.finished)
    outcomes = Counter((event.source.partition, event.source.offset) for event in line.events())
    for record in line.broker.read(LETTERS):
        facts = {name: value for name, value in record.headers if name.startswith("dlq.")}
        outcomes[int(facts["dlq.error.partition"]), int(facts["dlq.error.offset"])] += 1
    assert len(outcomes) == COUNT + 2
    assert set(outcomes.values()) == {1}
    assert line.seen()[last] == 1, "the line goes on"
    classes = Counter(error_class for _, error_class in line.letters())
    assert classes["InspectionFailed"] == 0, "nothing unforeseen"
    for expected in ("UnreadableImage", "UnsupportedFormat", "ImageTooLarge", "EmptyImage", "HeadersRefused",
                     "ClaimRefused", "ClaimMissing"):  # fmt: skip
        assert classes[expected] > 0
    grown = most - before - kept
    assert grown < GROWTH_BYTES, f"{grown / 2**20:.0f} MiB more, besides {kept / 2**20:.0f} MiB of messages"
