"""Service times that do not vary, for tests that know the answer."""

from jobs.plan.times import POINTS, STAGES, ServiceTimes, Timed

NOTHING_S = 1e-6


def constant(**seconds: float) -> ServiceTimes:
    """Seconds of an image in each stage named, whatever the size of the batch; next to none in the others."""
    stages = {}
    for stage in STAGES:
        image_s = seconds.get(stage, NOTHING_S)
        stages[stage] = tuple(
            Timed(images=images, samples=1, quantiles=(images * image_s,) * len(POINTS)) for images in (1, 2)
        )
    return ServiceTimes(
        kind="cpu", date="2026-01-01", command="", machine={"processor": "a processor", "cores": 2}, versions={},
        backbone="efficientnet_lite0", threads=1, image_bytes=60_000, mask_bytes=1_000, event_bytes=800,
        cpu_s_per_image=0.02, gflop_per_image=1.3, fetch_s=(0.0,) * len(POINTS), stages=stages,
    )  # fmt: skip
