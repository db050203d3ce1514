"""When images come, and on which partition: cameras by their key's hash, as Kafka's producers place them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from kafka.partitioner import murmur2

ARRIVALS = Sequence[np.ndarray]
"""For each partition the seconds at which its images are captured, ascending."""


def camera_names(cameras: int) -> list[str]:
    """Keys as a plant's cameras have them; which partition a camera meets depends on its name alone."""
    return [f"/plant/line-{number // 10}/camera-{number % 10}" for number in range(cameras)]


def key_hash(camera: str) -> int:
    """Modulo the number of partitions it is the one that Kafka's producers choose for a key."""
    return int(murmur2(camera.encode()) & 0x7FFFFFFF)


def even_cameras(partitions: int, each: int) -> list[int]:
    """Numbers of cameras of which each partition has so many, in turn."""
    found: list[list[int]] = [[] for _ in range(partitions)]
    for number, name in enumerate(camera_names(100 * partitions * each)):
        mine = found[key_hash(name) % partitions]
        if len(mine) < each:
            mine.append(number)
    return [numbers[place] for place in range(each) for numbers in found]


def steady(on: Sequence[int] | np.ndarray, fps: float, seconds: float, rng: np.random.Generator) -> list[np.ndarray]:
    """Each camera sends an image every 1/fps s, from a moment of its own on. on: cameras of each partition."""
    each = max(1, round(seconds * fps))
    found = []
    for cameras in on:
        begins = rng.uniform(0, 1 / fps, int(cameras))
        found.append(np.sort((begins[:, None] + np.arange(each)[None, :] / fps).ravel()))
    return found


def with_burst(
    on: Sequence[int] | np.ndarray,
    fps: float,
    seconds: float,
    burst: tuple[float, float, float],
    rng: np.random.Generator,
) -> list[np.ndarray]:
    """The same, with so many times the rate for a while. burst: when it begins, how long it lasts, how many times."""
    begin_s, lasts_s, times = burst
    calm = steady(on, fps, seconds, rng)
    more = steady(on, fps * (times - 1), lasts_s, rng) if times > 1 else [np.empty(0) for _ in on]
    return [np.sort(np.concatenate([a, begin_s + b])) for a, b in zip(calm, more, strict=True)]
