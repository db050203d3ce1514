"""Needs over the number of cameras, as a picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jobs.plan.assumptions import Assumptions, Demand
from jobs.plan.breaks import limits
from jobs.plan.needs import needs
from jobs.plan.scenarios import calm
from jobs.plan.times import ServiceTimes
from pipeline.settings import Settings

CAMERAS = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)
OnProgress = Callable[[int, int], None]


def grown(
    demand: Demand, measured: ServiceTimes, settings: Settings, assumed: Assumptions, on_progress: OnProgress
) -> list[dict[str, Any]]:
    """The plan at each of `CAMERAS`. Raises SettingsError."""
    rows = []
    for number, cameras in enumerate(CAMERAS):
        plan = needs(demand.model_copy(update={"cameras": cameras}), measured, settings, assumed)
        seen = calm(plan, settings, assumed)
        rows.append(
            {
                "cameras": cameras,
                "images_per_s": round(plan.images_per_s, 2),
                "groups": plan.groups,
                "replicas": plan.replicas,
                "replicas_if_even": plan.replicas_if_even,
                "cores": plan.cores,
                "gpus": plan.gpus,
                "brokers": plan.brokers,
                "p50_s": round(seen.p50_s, 4),
                "p99_s": round(seen.p99_s, 4),
                "breaks_first": limits(plan, assumed)[0].what,
            }
        )
        on_progress(number + 1, len(CAMERAS))
    return rows


def draw(rows: Sequence[dict[str, Any]], picture: Path, title: str) -> None:
    """Replicas, GPUs or cores, brokers, and latency, each over cameras."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    figure = Figure(figsize=(11, 8), layout="constrained")
    panels = figure.subplots(2, 2, sharex=True).ravel()
    cameras = [row["cameras"] for row in rows]

    def line(panel: Any, name: str, label: str, style: str = "o-") -> None:
        panel.plot(cameras, [row[name] for row in rows], style, markersize=4, label=label)

    by_hash, computing, brokers, latency = panels
    line(by_hash, "replicas", "replicas, cameras by the hash of their key")
    line(by_hash, "replicas_if_even", "replicas, were cameras spread evenly", "--")
    line(by_hash, "groups", "groups with topics of their own", ":")
    by_hash.set_title("replicas")
    if rows[0]["gpus"] is not None:
        line(computing, "gpus", "GPUs")
    line(computing, "cores", "processor cores of the replicas")
    computing.set_title("GPUs and cores" if rows[0]["gpus"] is not None else "processor cores (no GPU)")
    line(brokers, "brokers", "brokers")
    brokers.set_title("brokers")
    line(latency, "p99_s", "p99")
    line(latency, "p50_s", "p50")
    latency.set_title("seconds to the committed event (simulated, calm)")
    for panel in panels:
        panel.set_xscale("log")
        panel.grid(alpha=0.25, which="both")
        panel.legend(fontsize="small")
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    for panel in (by_hash, computing, brokers):
        panel.set_yscale("log")
        panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    latency.set_ylim(0, 1.15 * max(row["p99_s"] for row in rows))
    for panel in panels[2:]:
        panel.set_xlabel("cameras")
    figure.suptitle(title, fontsize="medium")
    figure.savefig(picture, dpi=100)
