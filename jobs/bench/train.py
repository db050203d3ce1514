"""`linewatch bench train`: seconds and losses of a fit, and anomalib's beside them."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from jobs.bench.beside import beside_anomalib, write_report
from jobs.session.progress import Screen
from model.bench.peer import PeerError
from model.bench.random_teacher import SHAPES
from model.bench.runs import Report, TrainRun, run_train

FIGURES = (
    "seconds_total",
    "seconds_features",
    "seconds_per_step",
    "seconds_of_a_step_alone",
    "loss_mean_of_last_steps",
)


def bench_train(run: TrainRun, peer: str | None, json_file: Path | None, command: str, screen: Screen) -> Report:
    """Measure, write the report and show it. Raises PeerError, ModelError."""
    if peer and run.fit.backbone not in SHAPES:
        raise PeerError(
            f"anomalib's ReverseDistillation has no decoder for {run.fit.backbone}; take one of "
            f"{', '.join(SHAPES)}, or leave --peer out"
        )
    with beside_anomalib(peer, "Measuring the training", run.device, screen) as (other, on_progress):
        report = {"command": command, **run_train(run, other, on_progress)}
    write_report(report, json_file, screen)
    _show(report, screen)
    return report


def _show(report: Report, screen: Screen) -> None:
    sides = [name for name in ("ours", "peer") if name in report]
    table = Table(title=f"{report['backbone']}, {report['steps']} steps of {report['batch']}", title_justify="left")
    for column in ("", *sides):
        table.add_column(column, justify="right" if column else "left")
    for figure in FIGURES:
        table.add_row(figure, *(f"{report[side][figure]:.4f}" for side in sides))
    screen.console.print(table)
    if "ratio_to_peer" in report:
        screen.say(f"ratio_to_peer: {report['ratio_to_peer']:.2f}")
