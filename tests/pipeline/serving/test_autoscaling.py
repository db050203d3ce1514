"""Replicas on consumer lag, in simulation; on a real Ray in tests/end_to_end."""

from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from pipeline.errors import SettingsError
from pipeline.serving.autoscaling import LagPolicy, Load, Memory, latest, wanted_replicas
from pipeline.settings import Settings

BUSY_PER_S = 10.0
"""Images per second of one simulated replica."""


@dataclass
class Line:
    """A second at a time: images arrive, replicas work them off, the policy is asked."""

    replicas: int = 1
    lag: float = 0.0
    memory: Memory | None = None
    now_s: float = 0.0
    history: list[int] = field(default_factory=list)

    def run(self, seconds: int, arriving: float, *, most: int = 8, drain_s: float = 30.0) -> None:
        for _ in range(seconds):
            self.now_s += 1
            done = min(self.lag + arriving, BUSY_PER_S * self.replicas)
            self.lag += arriving - done
            loads = [Load(self.lag / self.replicas, done / self.replicas) for _ in range(self.replicas)]
            wanted, self.memory = wanted_replicas(loads, self.memory, self.now_s, self.replicas, drain_s)
            self.replicas = min(most, wanted)
            self.history.append(self.replicas)


def test_a_steady_load_that_is_kept_up_with_changes_nothing() -> None:
    line = Line(replicas=2)
    line.run(120, arriving=17.0)
    assert set(line.history) == {2}


def test_a_burst_brings_replicas_and_its_end_takes_them_off_again() -> None:
    line = Line()
    line.run(60, arriving=5.0)
    assert line.replicas == 1
    line.run(60, arriving=50.0)
    assert max(line.history) >= 6, "50 a second need five, and the lag some more"
    line.run(90, arriving=50.0)
    assert line.lag < 50, "the lag is worked off"
    assert line.replicas in (5, 6, 7)
    line.run(120, arriving=5.0)
    assert line.replicas == 1
    assert line.lag == 0


def test_a_steady_load_does_not_flap() -> None:
    line = Line(replicas=5)
    line.run(30, arriving=60.0)
    line.run(60, arriving=36.0)
    settled = line.history[-30:]
    assert len(set(settled)) == 1
    assert 10 * settled[0] >= 36


def test_a_lag_of_unknown_replicas_asks_for_one_more() -> None:
    wanted, memory = wanted_replicas([Load(500, 0)], None, 1.0, 1, 30.0)
    assert wanted == 2
    assert memory.capacity == 0
    assert wanted_replicas([], memory, 2.0, 3, 30.0)[0] == 3, "no metrics, no decision"


def test_a_burst_too_short_to_tell_what_a_replica_can_do_does_not_leave_its_replicas_behind() -> None:
    """Serve asks for metrics every few seconds: a short lag may be seen once, behind a replica that is fast."""
    wanted, memory = wanted_replicas([Load(20, 80)], None, 1.0, 1, 30.0)
    assert (wanted, memory.capacity) == (2, 0)
    loads = [Load(0, 25), Load(0, 25)]
    for second in range(2, 60):
        wanted, memory = wanted_replicas(loads, memory, float(second), 2, 30.0)
    assert wanted == 1, "one has done 80, and 50 arrive"
    for second in range(60, 90):
        wanted, memory = wanted_replicas([Load(0, 38), Load(0, 38)], memory, float(second), 2, 30.0)
    assert wanted == 2, "76 arrive: one may not be enough"
    assert wanted_replicas([Load(0, 0)] * 3, None, 1.0, 3, 30.0)[0] == 1, "nothing arrives"


def test_never_more_replicas_than_partitions() -> None:
    policy = LagPolicy(drain_s=10, partitions=4)
    series = [SimpleNamespace(value=1.0), SimpleNamespace(value=100_000.0)]
    rates = [SimpleNamespace(value=10.0)]
    context = SimpleNamespace(
        raw_metrics={"lag": {"a": series}, "images_per_s": {"a": rates}}, current_time=5.0, target_num_replicas=1
    )
    assert policy(context) == (4, {})
    assert latest([]) == 0
    empty = SimpleNamespace(raw_metrics=None, current_time=6.0, target_num_replicas=2)
    assert policy(empty) == (2, {})


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_scaling_is_configured_where_there_is_a_most() -> None:
    from pipeline.serving.deployment import serve_config  # not before the filter: Ray's own import warns

    def deployment(**serving: object) -> dict:
        settings = Settings.from_values({"serving": serving})
        config = serve_config(settings, exactly_once=True, metrics_folder="m")
        return config["applications"][0]["deployments"][0]

    fixed = deployment(replicas=3)
    assert fixed["num_replicas"] == 3
    assert "autoscaling_config" not in fixed
    scaled = deployment(replicas=2, max_replicas=4, max_replicas_per_node=1)
    assert scaled["num_replicas"] == "auto"
    assert scaled["autoscaling_config"]["min_replicas"] == 2
    assert scaled["autoscaling_config"]["max_replicas"] == 4
    assert scaled["max_replicas_per_node"] == 1


def test_the_most_replicas_fit_the_partitions() -> None:
    for serving in ({"replicas": 3, "max_replicas": 2}, {"max_replicas": 9}):
        with pytest.raises(SettingsError, match=r"max_replicas is \d: it lies between"):
            Settings.from_values({"serving": serving, "topics": {"partitions": 8}})
    with pytest.raises(
        SettingsError, match=r"--max-replicas: serving\.max_replicas is 9: it lies between serving\.replicas"
    ):
        Settings.from_values({}).with_serving({"max_replicas": 9})
    assert Settings.from_values({}).with_serving({"max_replicas": 8}).serving.max_replicas == 8


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_another_generation_differs_in_what_replicas_are_built_from() -> None:
    from pipeline.serving.deployment import serve_config

    settings = Settings.from_values({})
    first, second = (
        serve_config(settings, exactly_once=True, metrics_folder="m", generation=one)["applications"][0]["args"]
        for one in ("", "20260131T120000Z")
    )
    assert first != second
