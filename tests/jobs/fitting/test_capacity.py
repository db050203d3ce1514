"""How many fits at once: by GPUs where there are any, else by CPUs, and by memory."""

import pytest

from jobs.fitting.capacity import FIT_BYTES, capacity
from pipeline.settings import Training

ROOMY = 64 * FIT_BYTES


@pytest.mark.parametrize(
    ("nodes", "training", "slots", "gpu"),
    [
        ([{"CPU": 2.0, "memory": ROOMY}], {}, 2, False),
        ([{"CPU": 16.0, "memory": ROOMY}] * 3, {"cpus": 4}, 12, False),
        ([{"CPU": 16.0, "memory": 5.5 * FIT_BYTES}], {}, 5, False),
        ([{"CPU": 2.0, "memory": FIT_BYTES / 2}], {}, 1, False),  # better one than none
        ([{"CPU": 16.0, "GPU": 2.0, "memory": ROOMY}, {"CPU": 64.0, "memory": ROOMY}], {}, 2, True),
        ([{"CPU": 16.0, "GPU": 2.0, "memory": ROOMY}], {"gpus": 0.25}, 8, True),
        ([{"memory": ROOMY}, {"CPU": 1.0, "memory": ROOMY}], {}, 1, False),  # a head without processors
        ([{"CPU": 2.0, "memory": ROOMY}], {"cpus": 4}, 0, False),
    ],
)
def test_slots(nodes: list[dict[str, float]], training: dict[str, float], slots: int, *, gpu: bool) -> None:
    found = capacity(nodes, Training.model_validate(training))
    assert (found.slots, found.gpu) == (slots, gpu)


@pytest.mark.parametrize(
    ("lanes", "cpus", "threads"), [(1, None, 15), (2, None, 15), (4, None, 7), (30, None, 1), (64, None, 1), (4, 3, 3)]
)
def test_threads_are_what_a_node_has_for_each(lanes: int, cpus: int | None, threads: int) -> None:
    training = Training(cpus=cpus)
    room = capacity([{"CPU": 16.0, "memory": ROOMY}] * 2, training)
    assert room.threads(training, lanes) == threads


def test_two_cores_fit_one_product_on_one_and_two_on_both() -> None:
    room = capacity([{"CPU": 2.0, "memory": ROOMY}], Training())
    assert (room.slots, room.threads(Training(), 1), room.threads(Training(), 2)) == (2, 1, 1)
