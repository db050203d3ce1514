"""Reports of the engine and of fits, in a few lines for a person."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def show(file: Path) -> Iterator[str]:
    """Of one report that `python -m model.bench` wrote, line by line."""
    report = json.loads(file.read_text(encoding="utf-8"))
    machine = report["machine"]
    yield f"{file.stem}: {report['backbone']} at {report['size']} px on {machine['gpu'] or machine['processor']}"
    yield from _engine(report) if "batches" in report else _fit(report)


def _engine(report: dict[str, Any]) -> Iterator[str]:
    for batch, found in report["batches"].items():
        rates = ", ".join(f"{name} {rate['median']:,.1f}" for name, rate in found["images_per_s"].items())
        yield f"  batch {batch}, images/s: {rates}"
    if "queued" in report:
        yield from _queue(report)
    if report["share_of_peak"]:
        yield f"  of a large matrix product here, {report['peak_tflop_per_s']} TFLOP/s: {report['share_of_peak']:.1%}"
    stages = report["stages"]
    each = ", ".join(f"{name} {ms}" for name, ms in stages["ms_per_image"].items())
    yield f"  ms an image, batch {stages['batch']}, by {stages['by']}: {each}; limited by {stages['limited_by']}"
    masks = report["bytes_to_mask"]
    yield f"  from JPEG bytes to masks: {masks['images_per_s']['bytes_to_mask']['median']:,.1f} images/s"
    for count, rate in report.get("replicas", {}).get("images_per_s_of_replicas", {}).items():
        yield f"  ... by {count} replicas side by side: {rate if isinstance(rate, str) else f'{rate:,.1f} images/s'}"
    agreement = report["agreement"]
    shifts = ", ".join(f"{name} {shift:.2%}" for name, shift in agreement["largest_shift_of_a_score"].items())
    yield f"  scores differ from float32 on the CPU by at most: {shifts} (bound {agreement['bound']:.0%})"
    for name, told in agreement["described"].items():
        yield f"  {name}: {', '.join(f'{key} {value}' for key, value in told.items())}"
    hundred = report["hundred_products"]
    yield f"  a hundred products to one: {hundred.get('ratio_hundred_products') or hundred['skipped']}"
    yield from (f"  {name}: {value}" for name, value in report.items() if name.startswith("ratio_to_peer"))


def _queue(report: dict[str, Any]) -> Iterator[str]:
    queue, peak, share, nvjpeg = (
        report[name] for name in ("queued", "published_peak", "share_of_published_peak", "nvjpeg")
    )
    rate = queue["queued"]["median"]
    yield f"  queued, batch {queue['batch']}: {rate:,.1f} images/s, {queue['tflop_per_s']} TFLOP/s"
    told = f"{share:.1%} of {peak['tflop_per_s']:g} TFLOP/s ({peak['card']})" if share else peak["told"]
    yield f"  share of the published peak: {told}"
    yield f"  nvJPEG: {nvjpeg.get('skipped') or nvjpeg['images_per_s']}"


def _fit(report: dict[str, Any]) -> Iterator[str]:
    ours = report["ours"]
    yield f"  a fit of {report['steps']} steps of {report['batch']}: {ours['seconds_total']} s"
    step_ms = 1000 * ours["seconds_of_a_step_alone"]
    yield f"  the teacher's pass over {report['images']} images: {ours['seconds_features']} s; a step: {step_ms:.1f} ms"
