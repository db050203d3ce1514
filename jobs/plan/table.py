"""A plan as a person reads it: what is needed and why, how the line behaves, what breaks first."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

from rich.table import Table

from jobs.plan.assumptions import Assumptions
from jobs.plan.breaks import Limit
from jobs.plan.check import Compared
from jobs.plan.needs import DAY_S, Needs
from jobs.plan.scenarios import Seen
from jobs.session.progress import Screen

SHOWN_LIMITS = 4


def show(
    plan: Needs, double: Needs, seen: Sequence[Seen], found: Sequence[Limit], assumed: Assumptions, screen: Screen
) -> None:
    demand, times = plan.demand, plan.times
    screen.say(
        f"{demand.cameras:,} cameras, {demand.fps:g} images/s each, {in_bytes(demand.image_bytes)} an image: "
        f"{figure(plan.images_per_s)} images/s, {figure(plan.image_mb_s)} MB/s"
    )
    screen.say(f"service times: {times.where}, {times.backbone}, {times.threads} thread(s) of the engine")
    if times.assumed:
        screen.say(f"ASSUMED: {times.assumed}")
    table = Table(title="what is needed", title_justify="left")
    for column, justify in (("", "left"), ("now", "right"), ("twice the cameras", "right"), ("why", "left")):
        table.add_column(column, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for row in zip(_rows(plan, assumed), _rows(double, assumed), strict=True):
        (what, now, why), (_, later, _) = row
        table.add_row(what, now, later, why)
    screen.console.print(table)
    _show_seen(seen, assumed, screen)
    screen.say("What breaks first as cameras are added, and all else stays:")
    for number, limit in enumerate(found[:SHOWN_LIMITS], 1):
        screen.say(f"  {number}. at {limit.bears:.2f} times the cameras: {limit.what}; then {limit.then}")
    screen.say("Assumed, not measured (--assume NAME=VALUE; docs/planning.md says what each means):")
    screen.say("  " + ", ".join(f"{name}={value}" for name, value in assumed.model_dump().items()))


def _rows(plan: Needs, assumed: Assumptions) -> list[tuple[str, str, str]]:
    crowd = f"; {plan.replicas_if_even:,} were cameras spread evenly" if plan.replicas_if_even < plan.replicas else ""
    rows = [
        (
            "replicas",
            f"{plan.replicas:,}",
            f"one does {plan.capacity_per_s:.4g} images/s, ended by {plan.busiest}; "
            f"the busiest is {plan.hottest:.0%} busy{crowd}",
        ),
        ("groups", f"{plan.groups:,}", "lines with topics of their own: one has 1,024 partitions at most"),
        ("partitions", f"{plan.partitions:,}", f"of each group's topics: {assumed.partitions_per_replica} a replica"),
        (
            "processor cores",
            f"{plan.cores:,}",
            f"{1000 * plan.cpu_s_per_image:.3g} ms of a core an image, at {assumed.utilisation:.0%}",
        ),
    ]
    if plan.gpus is not None:
        replicas = plan.replicas / plan.gpus
        rows.append(("GPUs", f"{plan.gpus:,}", f"{plan.gpu_use:.1%} busy each; {figure(replicas)} replicas on one"))
    rows += [
        ("brokers", f"{plan.brokers:,}", f"by {plan.brokers_because}"),
        (
            "into a broker",
            f"{figure(plan.broker_in_mb_s)} MB/s",
            f"images, masks and events, {assumed.replication} copies",
        ),
        ("out of a broker", f"{figure(plan.broker_out_mb_s)} MB/s", "to the other copies, replicas and readers"),
        ("disk of a broker", f"{figure(plan.broker_disk_tb)} TB", f"{assumed.retention_days:g} days of all that"),
        (
            "S3 growth",
            f"{figure(plan.s3_gb_day)} GB/day",
            (
                f"images by claim check, {figure(plan.s3_requests_s)} requests/s; "
                if plan.s3_requests_s
                else "versions alone; "
            )
            + f"{figure(plan.s3_tb_kept)} TB of images are kept",
        ),
    ]
    if plan.fit_s is not None and plan.fit_hours_week is not None:
        use = plan.fit_hours_week * 3600 / (7 * DAY_S)
        rows.append(
            (
                "fits",
                f"{figure(plan.fit_hours_week)} h a week",
                f"{plan.fit_s:,.0f} s each, {assumed.fits_per_week:g} a week for {plan.demand.products} product(s): "
                f"{use:.1%} of one machine",
            )
        )
    return rows


def _show_seen(seen: Sequence[Seen], assumed: Assumptions, screen: Screen) -> None:
    words = {
        "calm": "calm",
        "burst": f"{assumed.burst:g} times the rate for {assumed.burst_s:g} s",
        "death": f"a replica dies, its successor is there after {assumed.successor_s:g} s",
        "roll": "replicas replaced, one at a time",
    }
    table = Table(title="how the line behaves, simulated", title_justify="left")
    for column in ("", "p50", "p99", "longest gap of a camera's partition", "images behind", "done again"):
        table.add_column(column, justify="right" if column else "left", overflow="fold")
    for one in seen:
        drained = "–" if one.drained_s is None else f"{one.drained_s:.1f} s after"
        if one.unfinished:
            drained = f"never: {one.unfinished:,} left"
        table.add_row(
            words[one.scenario], f"{1000 * one.p50_s:,.0f} ms", f"{1000 * one.p99_s:,.0f} ms",
            f"{one.longest_gap_s:.1f} s", f"{one.most_behind:,}", drained,
        )  # fmt: skip
    screen.console.print(table)


def show_check(found: Sequence[Compared], screen: Screen) -> None:
    """Errors of a plan made ahead, by times measured before; and of the simulation alone, by those of the run."""
    table = Table(title="simulated beside measured, medians of the rounds", title_justify="left")
    told = ("planned ahead", "error", "in each round", "simulation alone", "error", "in each round")
    for column in ("run", "figure", "measured", *told):
        table.add_column(column, justify="left" if column in ("run", "figure") else "right")
    for one in found:
        cells = [one.run, one.figure, f"{median(one.measured):.3g}"]
        for simulated, error in ((one.ahead, one.error_ahead), (one.alone, one.error_alone)):
            each = " ".join(f"{each:+.0%}" for each in one.errors(simulated))
            cells += [f"{median(simulated):.3g}", f"{error:.0%}", each]
        table.add_row(*cells)
    screen.console.print(table)


def as_json(plan: Needs) -> dict[str, Any]:
    """Needs in plain figures; of the service times where they come from."""
    told = {name: value for name, value in vars(plan).items() if name not in ("demand", "times")}
    rounded = {name: round(value, 5) if isinstance(value, float) else value for name, value in told.items()}
    return {**plan.demand.model_dump(), **rounded}


def figure(value: float) -> str:
    """Three digits, and no powers of ten."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def in_bytes(size: int) -> str:
    for unit, factor in (("MB", 1_000_000), ("KB", 1_000)):
        if size >= factor:
            return f"{size / factor:.4g} {unit}"
    return f"{size} bytes"
