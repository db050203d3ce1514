"""`linewatch bench engine`: our rates, and anomalib's beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.table import Table

from jobs.bench.beside import beside_anomalib, write_report
from jobs.session.progress import Screen
from model.bench.runs import EngineRun, Report, run_engine


def bench_engine(run: EngineRun, peer: str | None, json_file: Path | None, command: str, screen: Screen) -> Report:
    """Measure, write the report and show it. Raises PeerError, ModelError."""
    with beside_anomalib(peer, "Measuring the engine", run.options.torch_device, screen) as (other, on_progress):
        report = {"command": command, **run_engine(run, other, on_progress)}
    write_report(report, json_file, screen)
    _show(report, screen)
    return report


def _show(report: dict[str, Any], screen: Screen) -> None:
    table = Table(title=f"{report['backbone']}, {report['size']} px, {report['threads']} threads, images/s")
    batches = list(report["batches"])
    for column in ("mode", *(f"batch {batch}" for batch in batches)):
        table.add_column(column, justify="left" if column == "mode" else "right")
    for mode in report["batches"][batches[0]]["images_per_s"]:
        rates = [report["batches"][batch]["images_per_s"][mode]["median"] for batch in batches]
        table.add_row(mode, *(f"{rate:.1f}" for rate in rates))
    screen.console.print(table)
    for name, value in report.items():
        if name.startswith("ratio_") and value is not None:
            screen.say(f"{name}: {value:.2f}")
    for mode, told in report.get("peer", {}).items():
        if isinstance(told, dict) and "failed" in told:
            screen.say(f"peer_{mode} is missing: {told['failed']}")
