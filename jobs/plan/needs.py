"""How many replicas, GPUs, brokers and bytes a line needs, by arithmetic on measured service times. No simulation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from jobs.plan.arrivals import camera_names, key_hash
from jobs.plan.assumptions import Assumptions, Demand
from jobs.plan.times import ServiceTimes
from pipeline.errors import SettingsError
from pipeline.settings import Settings

MOST_PARTITIONS = 1024
"""`topics.partitions` takes no more."""
CLAIM_BYTES = 400
DAY_S = 86_400
WEEK_S = 7 * DAY_S


@dataclass(frozen=True)
class Needs:
    """Rates are a second, of all groups together. busiest: the stage that ends a replica's rate; hottest: share of its
    time that the replica with the most cameras is busy there.

    groups: lines with topics and a consumer group of their own, where one can't have partitions enough.
    """

    demand: Demand
    times: ServiceTimes
    images_per_s: float
    message_bytes: int
    busiest: str
    capacity_per_s: float
    groups: int
    replicas: int
    replicas_if_even: int
    partitions: int
    hottest: float
    cpu_s_per_image: float
    cores: int
    gpus: int | None
    gpu_use: float | None
    brokers: int
    brokers_because: str
    broker_in_mb_s: float
    broker_out_mb_s: float
    broker_disk_tb: float
    image_mb_s: float
    kafka_disk_tb: float
    s3_gb_day: float
    s3_tb_kept: float
    s3_requests_s: float
    fit_s: float | None
    fit_hours_week: float | None

    @property
    def replicas_in_a_group(self) -> int:
        return self.replicas // self.groups

    @property
    def cameras_in_a_group(self) -> int:
        return math.ceil(self.demand.cameras / self.groups)


def needs(demand: Demand, measured: ServiceTimes, settings: Settings, assumed: Assumptions) -> Needs:
    """Raises SettingsError: one camera alone is more than a replica bears."""
    claimed = demand.image_bytes > settings.limits.inline_bytes
    message_bytes = CLAIM_BYTES if claimed else demand.image_bytes
    times = of_size(measured, demand.image_bytes, assumed.s3_get_s / settings.stream.decode_threads if claimed else 0.0)
    rate = demand.cameras * demand.fps
    batch = settings.stream.batch_images
    busy = times.busy_s(batch, batch)
    busiest = max(busy, key=lambda name: busy[name])
    capacity = 1 / busy[busiest]
    if demand.fps > assumed.hottest * capacity:
        raise SettingsError(
            f"a camera of {demand.fps:g} images a second is more than one replica bears "
            f"({assumed.hottest * capacity:.3g}, by {busiest}), and a camera's images go to one: use a faster device"
        )
    cpu_s = max(0.0, times.cpu_s_per_image + measured.more_cpu_s(demand.image_bytes))
    groups, each, hottest = _replicas(demand, capacity, assumed)
    replicas = groups * each
    even = max(1, math.ceil(rate / (capacity * assumed.utilisation)))
    gpus = gpu_use = None
    if times.kind != "cpu":
        score_s = rate * busy["score"]
        gpus = max(math.ceil(score_s / assumed.gpu_utilisation), math.ceil(replicas / assumed.replicas_per_gpu))
        gpu_use = score_s / gpus
    mask_bytes = times.mask_bytes * (demand.image_bytes / times.image_bytes)
    out_bytes = mask_bytes + times.event_bytes
    image_mb_s = rate * demand.image_bytes / 1e6
    kafka_in = rate * (message_bytes + out_bytes) / 1e6
    brokers, because, network_in, network_out, disk_tb, kept_tb = _brokers(
        rate, message_bytes, kafka_in, replicas, assumed
    )
    claims_bytes_s = rate * demand.image_bytes if claimed else 0.0
    versions_bytes_day = demand.products * assumed.fits_per_week / 7 * assumed.version_mb * 1e6
    good_bytes = demand.products * assumed.good_images * demand.image_bytes
    fit_s = _fit_s(times, assumed)
    return Needs(
        demand=demand,
        times=times,
        images_per_s=rate,
        message_bytes=message_bytes,
        busiest=busiest,
        capacity_per_s=capacity,
        groups=groups,
        replicas=replicas,
        replicas_if_even=even,
        partitions=each * assumed.partitions_per_replica,
        hottest=hottest,
        cpu_s_per_image=cpu_s,
        cores=math.ceil(rate * cpu_s / assumed.utilisation),
        gpus=gpus,
        gpu_use=gpu_use,
        brokers=brokers,
        brokers_because=because,
        broker_in_mb_s=network_in,
        broker_out_mb_s=network_out,
        broker_disk_tb=disk_tb,
        image_mb_s=image_mb_s,
        kafka_disk_tb=kept_tb,
        s3_gb_day=(claims_bytes_s * DAY_S + versions_bytes_day) / 1e9,
        s3_tb_kept=(claims_bytes_s * DAY_S * assumed.s3_days + good_bytes) / 1e12,
        s3_requests_s=2 * rate if claimed else 0.0,
        fit_s=fit_s,
        fit_hours_week=None if fit_s is None else fit_s * demand.products * assumed.fits_per_week / 3600,
    )


def of_size(measured: ServiceTimes, image_bytes: int, s3_s: float) -> ServiceTimes:
    """Times for images of another size: decoding and cutting by what was measured of sizes, polling by the byte.

    s3_s: more for each image that is fetched by its claim check.
    """
    read, cut = measured.size_factors(image_bytes)
    message_bytes = CLAIM_BYTES if s3_s else image_bytes
    fetch_s = measured.byte_s * max(0, message_bytes - measured.image_bytes)
    return measured.scaled({"prepare": read, "cut": cut}, {"prepare": s3_s, "poll": fetch_s})


def loads(cameras: int, partitions: int, placement: str) -> np.ndarray:
    """Cameras of each partition. Partitions are dealt out to replicas in turn."""
    if placement == "even":
        return np.bincount(np.arange(cameras) % partitions, minlength=partitions)
    return np.bincount(_hashes(cameras) % partitions, minlength=partitions)


def of_replicas(on_partitions: np.ndarray, replicas: int) -> np.ndarray:
    return np.bincount(np.arange(len(on_partitions)) % replicas, weights=on_partitions, minlength=replicas)


@lru_cache(maxsize=4)
def _hashes(cameras: int) -> np.ndarray:
    return np.array([key_hash(name) for name in camera_names(cameras)], dtype=np.int64)


def _replicas(demand: Demand, capacity: float, assumed: Assumptions) -> tuple[int, int, float]:
    """Groups, replicas in each, and the hottest one's use: the fewest with which no replica has too many cameras."""
    most = MOST_PARTITIONS // assumed.partitions_per_replica
    groups = max(1, math.ceil(demand.cameras * demand.fps / (capacity * assumed.utilisation * most)))
    while True:
        cameras = math.ceil(demand.cameras / groups)
        each = max(1, math.ceil(cameras * demand.fps / (capacity * assumed.utilisation)))
        while each <= most:
            partitions = each * assumed.partitions_per_replica
            worst = of_replicas(loads(cameras, partitions, assumed.placement), each).max()
            hottest = float(worst) * demand.fps / capacity
            if hottest <= assumed.hottest:
                return groups, each, hottest
            each += max(1, each // 25)
        groups += max(1, groups // 10)


def _brokers(
    rate: float, message_bytes: int, kafka_in_mb_s: float, replicas: int, assumed: Assumptions
) -> tuple[int, str, float, float, float, float]:
    """How many, why, and of each of them: MB/s in and out, TB on its disk; and TB on all disks."""
    copies = assumed.replication
    network_in = kafka_in_mb_s * copies
    # To followers, of images to the replicas, and of events and masks to readers.
    network_out = (
        kafka_in_mb_s * (copies - 1)
        + rate * message_bytes / 1e6
        + assumed.readers * (kafka_in_mb_s - rate * message_bytes / 1e6)
    )
    kept_tb = kafka_in_mb_s * copies * assumed.retention_days * DAY_S / 1e6
    partitions = 3 * replicas * assumed.partitions_per_replica * copies
    wanted = {
        "copies": copies,
        "network in": network_in / (assumed.broker_network_mb_s * assumed.broker_use),
        "network out": network_out / (assumed.broker_network_mb_s * assumed.broker_use),
        "disk writes": network_in / (assumed.broker_disk_mb_s * assumed.broker_use),
        "disk space": kept_tb / (assumed.broker_disk_tb * assumed.broker_disk_use),
        "partitions": partitions / assumed.broker_partitions,
    }
    because = max(wanted, key=lambda name: wanted[name])
    brokers = math.ceil(wanted[because])
    return brokers, because, network_in / brokers, network_out / brokers, kept_tb / brokers, kept_tb


def _fit_s(times: ServiceTimes, assumed: Assumptions) -> float | None:
    if times.fit is None:
        return None
    return assumed.good_images * times.fit.image_s + assumed.fit_steps * times.fit.step_s
