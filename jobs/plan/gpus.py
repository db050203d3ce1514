"""Service times of a GPU that nobody has measured: never taken silently, and told as assumed wherever they are used."""

from __future__ import annotations

from jobs.plan.assumptions import Assumptions
from jobs.plan.times import POINTS, ServiceTimes, Timed, shipped_times
from pipeline.errors import SettingsError

PEAK_TFLOP_S = {"h100": 989.0, "l4": 121.0}
"""Float16 without sparsity, as NVIDIA's data sheets publish them (H100 SXM, L4)."""
KINDS = ("cpu", *PEAK_TFLOP_S)
_BATCHES = (1, 32)


def times_for(kind: str, measured: ServiceTimes | None, assumed: Assumptions, *, assume_peak: bool) -> ServiceTimes:
    """What was given, else what linewatch ships of that kind, else, where asked for, an assumption.

    Raises SettingsError: nobody has measured that kind, or what was given is of another.
    """
    if measured:
        if (kind == "cpu") != (measured.kind == "cpu"):
            raise SettingsError(
                f"the given service times are of {measured.kind}, and the plan is for {kind}: `linewatch plan measure` "
                "takes --device cuda on a machine with a GPU"
            )
        return measured.model_copy(update={"kind": kind})
    if shipped := shipped_times(kind):
        return shipped
    processor = shipped_times("cpu")
    if not assume_peak or processor is None:
        raise SettingsError(
            f"linewatch ships no service times of {kind}, for none were measured: give --measured FILE, made by "
            "`linewatch plan measure --device cuda` on such a machine, or --assume-peak to go by its published peak"
        )
    return by_peak(kind, processor, assumed)


def by_peak(kind: str, processor: ServiceTimes, assumed: Assumptions) -> ServiceTimes:
    """The processor's stages as measured, and scoring at a share of the published peak."""
    assert processor.gflop_per_image
    image_s = processor.gflop_per_image / (1000 * PEAK_TFLOP_S[kind] * assumed.gpu_peak_share)
    score = tuple(
        Timed(images=batch, samples=1, quantiles=(round(batch * image_s, 9),) * len(POINTS)) for batch in _BATCHES
    )
    elsewhere = processor.busy_s(_BATCHES[-1], _BATCHES[-1])
    cpu_s = sum(seconds for stage, seconds in elsewhere.items() if stage != "score")
    return processor.model_copy(
        update={
            "kind": kind,
            "cpu_s_per_image": min(processor.cpu_s_per_image, cpu_s),
            "stages": {**processor.stages, "score": score},
            "assumed": f"no {kind} was measured: scoring at {100 * assumed.gpu_peak_share:g}% of its published "
            f"{PEAK_TFLOP_S[kind]:g} TFLOP/s, all other stages and the fit as measured on {processor.where}",
        }
    )
