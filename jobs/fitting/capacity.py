"""How many fits a cluster has room for at once, and how many threads each gets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.settings import Training

FIT_BYTES = 3 << 30
"""Of memory that a fit may take: a teacher, a student and its optimiser, and what is cached before it goes to disk."""


@dataclass(frozen=True)
class Capacity:
    """slots: fits at once. nodes: how many have one. gpu: each takes (a part of) a GPU. cores: the least node's."""

    slots: int
    nodes: int
    gpu: bool
    cores: int

    def threads(self, training: Training, lanes: int) -> int:
        """CPU threads of each of so many fits at once.

        One core of a node is left: OpenMP's threads wait for the slowest of them after every operation, so one that
        shares its core with a replica or a broker holds up all. A fit of one thread waits for none, and may have it.
        """
        if training.cpus:
            return training.cpus
        beside_one_another = -(-lanes // max(1, self.nodes))
        return max(1, (self.cores - 1) // max(1, beside_one_another))


def capacity(nodes: Sequence[Mapping[str, float]], training: Training) -> Capacity:
    """nodes: the resources of each live one, as Ray names them. GPUs alone count where there are any."""
    gpu = any(node.get("GPU", 0) >= training.gpus for node in nodes)
    rooms = [(_room(node, training, gpu=gpu), node) for node in nodes]
    used = [(room, node) for room, node in rooms if room]
    return Capacity(
        slots=sum(room for room, _ in used),
        nodes=len(used),
        gpu=gpu,
        cores=min((int(node.get("CPU", 1)) for _, node in used), default=1),
    )


def _room(node: Mapping[str, float], training: Training, *, gpu: bool) -> int:
    device = node.get("GPU", 0) / training.gpus if gpu else node.get("CPU", 0) / (training.cpus or 1)
    if device < 1:
        return 0
    in_memory = node["memory"] / FIT_BYTES if "memory" in node else device
    return max(1, int(min(device, in_memory)))
