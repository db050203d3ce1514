"""Who fits what: each product is one lane's at a time, and ends done or failed, whatever lanes do."""

from dataclasses import asdict

from jobs.fitting.board import Board
from jobs.fitting.task import Task


def board(*tasks: Task, attempts: int = 3) -> Board:
    return Board([asdict(task) for task in tasks], attempts)


def task(product: str, work: float = 1.0, workers: int = 1) -> Task:
    return Task(product, "digest", None, work=work, workers=workers)


def taken(board: Board, lane: str) -> str | None:
    fields = board.take(lane)
    return Task(**fields).product if fields else None


def test_the_longest_come_first_and_each_is_taken_once() -> None:
    desk = board(task("short", 1), task("long", 9), task("middle", 5))
    assert [taken(desk, lane) for lane in ("1", "2", "3", "4")] == ["long", "middle", "short", None]
    assert taken(desk, "1") == "long", "what a lane holds is its own until it says how it ended"
    desk.done("1", "v1")
    assert taken(desk, "1") is None
    assert desk.standing().done == {"long": "v1"}
    assert not desk.standing().over


def test_what_a_dead_lane_held_is_next_and_the_lane_publishes_nothing_more() -> None:
    desk = board(task("long", 9), task("short", 1), attempts=1)
    assert taken(desk, "1") == "long"
    desk.failed("1", "its node died", final=False)
    assert not desk.holds("1", "long")
    assert desk.standing().told == ["long: its node died; it goes on from its last checkpoint elsewhere"]
    assert desk.standing().told == [], "each is told once"
    assert taken(desk, "2") == "long"
    desk.done("1", "from the dead")
    assert desk.standing().done == {}
    desk.failed("2", "its node died, too", final=False)
    assert desk.standing().failed == {"long": "its node died, too"}, "one attempt more, and no other"


def test_what_would_end_the_same_is_not_tried_again() -> None:
    desk = board(task("a"), task("b"))
    taken(desk, "1")
    desk.failed("1", "all images are one picture", final=True)
    assert (taken(desk, "1"), desk.standing().failed) == ("b", {"a": "all images are one picture"})


def test_an_unforeseen_error_is_tried_once_more_elsewhere() -> None:
    desk = board(task("a"))
    taken(desk, "1")
    desk.stumbled("1", "ZeroDivisionError: a bug")
    assert taken(desk, "2") == "a"
    desk.stumbled("2", "ZeroDivisionError: a bug")
    assert desk.standing().failed == {"a": "ZeroDivisionError: a bug"}
    assert desk.standing().over
    last = board(task("a"), attempts=0)
    taken(last, "1")
    last.stumbled("1", "a bug")
    assert last.standing().failed == {"a": "a bug"}


def test_one_of_several_workers_is_reserved_and_those_behind_it_wait() -> None:
    desk = board(task("alone", 9), task("shared", 5, workers=2), task("last", 1))
    assert taken(desk, "1") == "alone"
    assert taken(desk, "2") is None, "the places are the shared one's, which is next"
    desk.reserve("team", "shared")
    assert taken(desk, "team") == taken(desk, "team") == "shared", "each of the team's workers asks"
    assert taken(desk, "2") == "last"
    desk.done("team", "v2")
    assert desk.standing().held == {"1": "alone", "2": "last"}


def test_what_there_is_no_room_for_is_refused() -> None:
    desk = board(task("shared", workers=8))
    desk.refuse("shared", "there is room for 4")
    assert desk.standing().failed == {"shared": "there is room for 4"}
    assert desk.standing().over


def test_beats_are_of_what_is_being_fitted() -> None:
    desk = board(task("a"), task("b"))
    taken(desk, "1")
    desk.write("1", "training", 5, 300, 0.5)
    desk.write("2", "training", 7, 300, 0.5)  # a lane that holds nothing
    assert desk.standing().beats == [("a", "training", 5, 300, 0.5)]
    desk.done("1", "v1")
    assert desk.standing().beats == []
