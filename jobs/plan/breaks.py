"""What breaks first when cameras are added: for each thing that is there, how many times the cameras it bears."""

from __future__ import annotations

from dataclasses import dataclass

from jobs.plan.assumptions import Assumptions
from jobs.plan.needs import MOST_PARTITIONS, Needs


@dataclass(frozen=True)
class Limit:
    """bears: so many times the cameras of the plan until ``what`` is used up. then: what to do about it."""

    what: str
    bears: float
    then: str


def limits(plan: Needs, assumed: Assumptions) -> list[Limit]:
    """The nearest one first."""
    network = max(plan.broker_in_mb_s, plan.broker_out_mb_s) / assumed.broker_network_mb_s
    crowd = ", where cameras crowd" if plan.replicas_if_even < plan.replicas else ""
    found = [
        Limit(
            f"the {plan.busiest} stage of the busiest replica{crowd}",
            1 / plan.hottest,
            "more replicas, up to one for each partition"
            if plan.busiest != "score"
            else "more replicas, or a faster device",
        ),
        Limit(
            f"partitions: {plan.partitions} a topic, at one for each replica",
            assumed.partitions_per_replica / plan.hottest,
            "topics made anew with more partitions: their number is chosen before",
        ),
        Limit(
            f"what topics.partitions allows: {MOST_PARTITIONS}",
            MOST_PARTITIONS / plan.partitions,
            "another group with topics of its own (topics.prefix, kafka.group)",
        ),
        Limit("a broker's network", 1 / network, "more brokers"),
        Limit(
            "a broker's disk writes", assumed.broker_disk_mb_s / plan.broker_in_mb_s, "more brokers, or faster disks"
        ),
        Limit(
            "a broker's disk space", assumed.broker_disk_tb / plan.broker_disk_tb, "more brokers, or shorter retention"
        ),
    ]
    if plan.gpu_use:
        found.append(Limit("a GPU's time", 1 / plan.gpu_use, "more GPUs"))
    return sorted(found, key=lambda limit: limit.bears)
