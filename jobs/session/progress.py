"""What a long job shows in a terminal, and in a log file where there is none."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from jobs.report import ProductSummary, Report
from jobs.session.terminal import printable
from model.measures.proportions import percent, percent_interval, share_interval

DONE, FAILED = "fitted", "failed"
"""The phases of a fit's last beat."""


@dataclass(frozen=True)
class Beat:
    """How far a fit has come."""

    product: str
    phase: str
    step: int
    steps: int
    loss: float


class Step:
    """One step in progress."""

    def __init__(self, progress: Progress, title: str) -> None:
        self._progress, self._title = progress, title
        self._task = progress.add_task(title, total=None)

    def advance(self, done: int, of: int) -> None:
        self._progress.update(self._task, completed=done, total=of)

    def say(self, text: str) -> None:
        self._progress.update(self._task, description=f"{self._title}: {text}")


class Screen:
    """Steps with a bar while they last and one line when they are done."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console()
        if not self.console.is_terminal:  # in a log file, tables need not fit 80 columns
            self.console = Console(width=150, stderr=self.console.stderr)

    def say(self, text: str) -> None:
        """One line, whatever file names are in it."""
        self.console.print(f"  {printable(text)}", markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def step(self, title: str, *, time_left: bool = False) -> Iterator[Step]:
        begun, title = time.monotonic(), printable(title)
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(24),
            MofNCompleteColumn(),
            *([TimeRemainingColumn()] if time_left else []),
        )
        with Progress(*columns, console=self.console, transient=True) as progress:
            yield Step(progress, title)
        self._done(title, begun)

    @contextmanager
    def fitting(self, title: str, products: list[str]) -> Iterator[Callable[[Beat], None]]:
        """A bar for each product in work, with its phase, its loss and the time left; and one for all of several."""
        begun = time.monotonic()
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}", markup=False),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.console, transient=True) as progress:
            tasks: dict[str, TaskID] = {}
            whole = progress.add_task(title, total=len(products), state="", visible=len(products) > 1)
            if len(products) == 1:
                tasks[products[0]] = progress.add_task(f"{title}: {products[0]}", total=None, state="")

            def on_beat(beat: Beat) -> None:
                if beat.phase in (DONE, FAILED):
                    if beat.product in tasks:
                        progress.remove_task(tasks.pop(beat.product))
                    progress.advance(whole)
                    if len(products) > 1:
                        self.say(f"{beat.product}: {beat.phase} after {time.monotonic() - begun:.0f} s")
                    return
                if beat.product not in tasks:
                    tasks[beat.product] = progress.add_task(f"{title}: {beat.product}", total=None, state="")
                state = f"loss {beat.loss:.4f}" if beat.phase == "training" else beat.phase
                progress.update(tasks[beat.product], completed=beat.step, total=beat.steps, state=state)

            yield on_beat
        self._done(title, begun)

    @contextmanager
    def runs(self, title: str) -> Iterator[tuple[Callable[[str, int, int], None], Callable[[str, int, int], None]]]:
        """A bar for a row of long runs with the time left, and one for the phase that the present run is in."""
        begun = time.monotonic()
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(24),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.console, transient=True, speed_estimate_period=86_400) as progress:
            row, phase = progress.add_task(title, total=None), progress.add_task("", total=None)

            def on_run(name: str, done: int, of: int) -> None:
                progress.update(row, description=f"{title}: {name}", completed=done, total=of)

            def on_phase(name: str, done: int, of: int) -> None:
                progress.update(phase, description=f"  {name}", completed=done, total=of)

            yield on_run, on_phase
        self._done(title, begun)

    def summary(self, report: Report, figures: dict[str, Any]) -> None:
        """The table that the demo ends with."""
        table = Table(title=report.title, title_justify="left")
        for name in ("product", "images", "events", "false rejects", "escapes", "review", "image AUROC", "pixel AUROC",
                     "images/s", "p50 ms", "p99 ms"):  # fmt: skip
            table.add_column(name, justify="left" if name == "product" else "right")
        for summary in report.summaries:
            table.add_row(*_cells(summary))
        self.console.print(table)
        for summary in report.summaries:
            self.say(f"{summary.product}: {_intervals(summary)}")
            if summary.calibration:
                self.say(f"{summary.product}, as calibrated: {summary.calibration}")
        lost = "green" if not figures["lost"] and not figures["doubled"] else "red"
        self.console.print(
            f"images {figures['images']}   events {figures['events']}   [{lost}]lost {figures['lost']}   "
            f"doubled {figures['doubled']}[/]   dead letters {figures['deadletters']}   "
            f"without mask {figures['without_mask']}",
            highlight=False,
        )
        for page in figures["pages"]:
            self.say(page)

    def _done(self, title: str, begun: float) -> None:
        self.console.print(f"[green]✓[/] {escape(title)} [dim]{time.monotonic() - begun:.1f} s[/]", highlight=False)


def _intervals(summary: ProductSummary) -> str:
    """The two error rates with their 95% intervals."""

    def rate(name: str, count: int, of: int) -> str:
        interval = share_interval(count, of)
        text = f"{percent(count / of)}, 95% interval {percent_interval(interval)}" if interval else "no images"
        return f"{name} {count} of {of} ({text})"

    rejects = rate("false rejects", summary.false_rejects, summary.good)
    return f"{rejects}, {rate('escapes', summary.escapes, summary.defective)}"


def _cells(summary: ProductSummary) -> list[str]:
    def figure(value: float | None, digits: int) -> str:
        return "–" if value is None else f"{value:.{digits}f}"

    return [
        summary.product,
        str(summary.images),
        str(summary.events),
        f"{summary.false_rejects} of {summary.good}",
        f"{summary.escapes} of {summary.defective}",
        str(summary.reviews),
        figure(summary.image_auroc, 4),
        figure(summary.pixel_auroc, 4),
        figure(summary.images_per_s, 1),
        figure(summary.p50_ms, 0),
        figure(summary.p99_ms, 0),
    ]
