"""A line that stands still is told: where, since when and why; and one that has nothing to do is not."""

import logging
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipeline.errors import BrokerRefused
from pipeline.fakes import MemoryBroker, MemoryStore
from pipeline.stream.stall import StallWatch
from pipeline.telemetry import board, metrics
from pipeline.telemetry.board import Stall
from tests.pipeline.line import IMAGES, LETTERS, MASKS, Line, running, settings
from tests.pipeline.tiny import texture


class Waiting:
    reason = ""


@pytest.fixture
def waiting() -> Waiting:
    return Waiting()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    now = [1000.0]
    monkeypatch.setattr("pipeline.stream.stall.time.monotonic", lambda: now[0])

    def forward(seconds: float) -> None:
        now[0] += seconds

    return forward


@pytest.fixture
def watch(clock: Callable[[float], None], waiting: Waiting) -> Iterator[StallWatch]:
    clock(0)
    watch = StallWatch(30.0, lambda: waiting.reason)
    watch.opened(MemoryBroker().session("linewatch.images"))
    yield watch
    watch.closed()


def gauge(where: str) -> float:
    return metrics.stalled.labels(where)._value.get()


def test_nothing_committed_while_messages_wait_is_a_stall_whatever_the_cause(
    watch: StallWatch, clock: Callable[[float], None], caplog: pytest.LogCaptureFixture
) -> None:
    watch.owed({0: 5, 1: 0})
    clock(29)
    watch.owed({0: 9, 1: 0})
    assert watch.stalls() == []
    clock(2)
    (stall,) = watch.stalls()
    assert (stall.partition, gauge("0")) == (0, 1.0)
    assert stall.reason.startswith("nothing is committed for more than 30 s while messages wait")
    assert 30 <= (datetime.now(UTC) - stall.since).total_seconds() <= 32
    clock(3600)
    assert [one.partition for one in watch.stalls()] == [0], "it is told as long as it lasts"
    watch.committed({0})
    assert (watch.stalls(), gauge("0")) == ([], 0.0)
    told = [one.getMessage() for one in caplog.records if one.name == "pipeline.stream.stall"]
    assert told == [f"partition 0 is stalled: {stall.reason}", "partition 0 goes on"], "each once"


def test_a_partition_without_messages_is_not_stalled_however_long(
    watch: StallWatch, clock: Callable[[float], None]
) -> None:
    watch.owed({0: 5})
    watch.owed({0: 0})
    clock(3600)
    watch.owed({0: 1})
    assert watch.stalls() == []


def test_a_partition_that_moves_does_not_hide_one_that_does_not(
    watch: StallWatch, clock: Callable[[float], None]
) -> None:
    for _ in range(4):
        watch.owed({0: 5, 1: 5})
        clock(10)
        watch.committed({1})
    clock(1)
    assert [one.partition for one in watch.stalls()] == [0]


def test_what_the_worker_waits_for_is_the_reason(
    watch: StallWatch, clock: Callable[[float], None], waiting: Waiting
) -> None:
    watch.owed({0: 5, 1: 5})
    waiting.reason = "S3 at http://s3 refused to write"
    clock(31)
    (stall,) = watch.stalls()
    assert (stall.partition, stall.reason.endswith("wait: S3 at http://s3 refused to write")) == (None, True)


def test_why_the_last_commit_was_lost_is_the_reason(watch: StallWatch, clock: Callable[[float], None]) -> None:
    watch.owed({0: 5})
    watch.lost("NotEnoughReplicasError: of 3")
    clock(31)
    assert watch.stalls()[0].reason.endswith("NotEnoughReplicasError: of 3")


def test_a_refusal_is_told_at_once_and_until_a_commit(watch: StallWatch, clock: Callable[[float], None]) -> None:
    watch.refused("no right")
    (stall,) = watch.stalls()
    assert (stall.reason, stall.partition, gauge("all")) == ("no right", None, 1.0)
    clock(5)
    watch.refused("no right")
    assert watch.stalls()[0].since <= datetime.now(UTC)
    clock(14)
    assert len(watch.stalls()) == 1
    clock(2)
    assert watch.stalls() == [], "nothing was refused for a while: it has been mended, and there is nothing to do"
    watch.refused("no right")
    watch.committed({0})
    assert (watch.stalls(), gauge("all")) == ([], 0.0)


def test_without_a_session_it_stands_still_too(
    watch: StallWatch, clock: Callable[[float], None], waiting: Waiting
) -> None:
    watch.closed()
    clock(29)
    assert watch.stalls() == []
    waiting.reason = "Kafka at k:9092 does not answer"
    clock(2)
    assert [(one.reason, one.partition) for one in watch.stalls()] == [("Kafka at k:9092 does not answer", None)]
    watch.refused("Kafka at k:9092 refuses: no right")
    clock(3600)
    assert watch.stalls()[0].reason == "Kafka at k:9092 refuses: no right"


def test_one_partition_that_can_t_be_read_is_told_while_the_other_goes_on(
    line: Line, eventually: Callable[..., None]
) -> None:
    line.broker.unreadable[1] = "partition 1: offsets 0 to 3 can't be read"
    line.send(*(texture(number) for number in range(8)))
    with running(line):
        eventually(lambda: line.broker.committed.get((IMAGES, 0)) == 4)
        assert [(one.reason, one.partition) for one in line.worker.stalls()] == [(line.broker.unreadable[1], 1)]
        eventually(lambda: [one.partition for one in board.stalls()] == [1], what="other replicas see it too")
        assert line.worker.trouble() is None, "a new replica would mend nothing"
        line.broker.unreadable.clear()
        eventually(line.finished)
        assert line.worker.stalls() == []
    assert len(line.seen()) == 8


def test_what_the_broker_refuses_to_take_is_told_and_tried_again(line: Line, eventually: Callable[..., None]) -> None:
    line.broker.refusal = "Kafka refuses: the account may not use topic linewatch.masks"
    line.send(*(texture(number) for number in range(6)))
    with running(line):
        eventually(lambda: [one.reason for one in line.worker.stalls()] == [line.broker.refusal])
        assert line.events() == []
        line.broker.refusal = ""
        eventually(line.finished)
        assert line.worker.stalls() == []
        assert line.worker.trouble() is None
    assert set(line.seen().values()) == {1}


def test_a_session_that_is_refused_is_told(objects: dict[str, bytes], eventually: Callable[..., None]) -> None:
    line = Line(MemoryStore(objects=dict(objects)), settings())
    refused = [True]

    def opening():
        if refused[0]:
            raise BrokerRefused("Kafka refuses: the account may not use topic linewatch.images")
        return line.broker.session(IMAGES)

    line.worker._open_session = opening
    with running(line):
        eventually(lambda: "may not use" in (line.worker.stalls() or [Stall("", datetime.now(UTC), None)])[0].reason)
        refused[0] = False
        line.send(texture(1))
        eventually(line.finished)
        assert line.worker.stalls() == []


def test_an_output_that_its_topic_never_takes_is_a_dead_letter_and_others_go_on(
    line: Line, eventually: Callable[..., None]
) -> None:
    line.broker.limits[MASKS] = 400
    line.send(texture(1), texture(2))
    with running(line):
        eventually(line.finished)
    assert [kind for _, kind in line.letters()] == ["OutputTooLarge"] * 2
    (reason, _) = [dict(one.headers)["dlq.error.message"].decode() for one in line.broker.read(LETTERS)]
    assert reason.endswith("for linewatch.masks, which takes 400: raise its max.message.bytes, then replay this letter")


def test_what_was_deleted_unread_is_one_dead_letter_that_says_how_much(
    line: Line, eventually: Callable[..., None]
) -> None:
    before = metrics.deleted_unread._value.get()
    line.send(*(texture(number) for number in range(10)))
    line.broker.delete_records(1, before=3)
    with running(line):
        eventually(lambda: line.broker.committed == {(IMAGES, 0): 5, (IMAGES, 1): 5})
    assert len(line.seen()) == 7
    (letter,) = line.broker.read(LETTERS)
    headers = {name: value.decode() for name, value in letter.headers}
    assert headers["dlq.error.class"] == "DeletedUnread"
    assert (headers["dlq.error.partition"], headers["dlq.error.offset"]) == ("1", "0")
    assert headers["dlq.deleted.messages"] == "3"
    assert metrics.deleted_unread._value.get() - before == 3


def test_the_board_has_the_stalls_of_all_replicas_of_a_node_that_live(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    early, late = (Stall("gone", datetime(2026, 1, 31, hour, tzinfo=UTC), 3) for hour in (1, 2))
    board.put_up([late])
    (mine,) = tmp_path.glob("stalled_*.json")
    for pid in (1, 4_000_000):  # one that always lives, and one that never does
        (tmp_path / f"stalled_{pid}.json").write_text(f'[["gone", "{early.since.isoformat()}", 3]]')
    assert board.stalls() == [early, late]
    assert early.told() == {"reason": "gone", "since": "2026-01-31T01:00:00Z", "partition": 3}
    assert not (tmp_path / "stalled_4000000.json").exists()
    (tmp_path / "stalled_1.json").write_text("half a")
    assert board.stalls() == [late]
    board.put_up([])
    assert not mine.exists()
    (tmp_path / "stalled_1.json").unlink()
    assert board.stalls() == []


def test_a_watch_that_is_closed_leaves_nothing_on_the_board(
    monkeypatch: pytest.MonkeyPatch, eventually: Callable[..., None]
) -> None:
    monkeypatch.setattr("pipeline.stream.stall.LOOK_S", 0.01)
    watch = StallWatch(30.0, lambda: "")
    watch.refused("no right")
    watch.start()
    eventually(board.stalls)
    watch.close()
    assert board.stalls() == []
    board.put_up([Stall("of another", datetime(2026, 1, 31, tzinfo=UTC), None)])
    time.sleep(0.05)
    assert len(board.stalls()) == 1
    board.put_up([])


def test_the_log_has_a_stall_at_the_level_of_an_error(watch: StallWatch, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        watch.refused("no right")
        watch.stalls()
    assert [(one.levelname, one.getMessage()) for one in caplog.records] == [("ERROR", "the line is stalled: no right")]
