"""Retraining on a schedule: ingest what is new, fit, judge, promote or say why not."""

import logging
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger

from jobs.fitting.datasets import Datasets, Snapshot
from jobs.fitting.datasets.folders import SERVICE
from jobs.fitting.datasets.ingest import UNIFORM
from jobs.fitting.fit import fit_products
from jobs.fitting.release import Releases
from jobs.fitting.task import Task
from jobs.session.progress import Beat
from pipeline.errors import LinewatchError, SettingsError
from pipeline.settings import Settings
from pipeline.storage.store import ObjectStore
from pipeline.telemetry import metrics

OUTCOMES = ("promoted", "refused", "nothing new", "failed")
WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat") * 2  # twice: a range may run over the week's end
CRON_FIELDS = ("minute", "hour", "day", "month", "day_of_week")
log = logging.getLogger(__name__)


@dataclass
class Outcome:
    """What one due run did."""

    product: str
    status: str  # one of OUTCOMES
    version: str | None = None
    new_images: int = 0
    refused_files: int = 0
    left_out: int = 0
    reasons: list[str] = field(default_factory=list)

    def line(self) -> str:
        text = f"{self.product}: {self.status}"
        if self.version:
            text += f" {self.version}"
        text += f" ({self.new_images} new images"
        text += f", {self.refused_files} unreadable" if self.refused_files else ""
        text += f", {self.left_out} left out" if self.left_out else ""
        return text + ")" + (": " + "; ".join(self.reasons) if self.reasons else "")


def retrain(
    settings: Settings, store: ObjectStore, product: str, on_beat: Callable[[Beat], None] | None = None
) -> Outcome:
    """One due run for one product.

    The champion's snapshot is the yardstick for what is new. A refused run leaves its images in the dataset's latest
    snapshot out: the pointer goes back, so that spoiled images don't wait for the next run.
    """
    datasets, releases = Datasets(store), Releases(settings, store)
    before = datasets.latest_or_empty(product)
    outcome = Outcome(product, "nothing new")
    blank = 0
    source = settings.products[product].source if product in settings.products else None
    if source:
        limits = settings.limits.images
        reading = settings.fit_options(product).reading
        report = datasets.ingest(Path(source), product, limits=limits, reading=reading)
        outcome.refused_files = len(report.refused)
        blank = sum(reason == UNIFORM for _, reason in report.refused)
        outcome.left_out = sum(len(paths) for reason, paths in report.left_out.items() if reason != SERVICE)
    snapshot = datasets.latest(product)
    alias = releases.registry.champion_or_none(product)
    fitted = releases.registry.manifest(product, alias.champion.version).dataset_digest if alias else None
    outcome.new_images = len(snapshot.good) - len(before.good)
    if snapshot.digest == fitted:
        return outcome
    outcome.reasons = datasets.refusal(product, snapshot.digest) or releases.screen(product, snapshot, blank)
    if outcome.reasons:
        return _refused(outcome, datasets, snapshot, before, remember=not blank)
    task = Task(product, snapshot.digest, alias.champion.version if alias else None)
    outcome.version = fit_products(settings, [task], on_beat)[product]
    verdict = releases.consider(product, outcome.version)
    outcome.status, outcome.reasons = "promoted", verdict.reasons
    return outcome if verdict.accepted else _refused(outcome, datasets, snapshot, before)


def _refused(
    outcome: Outcome, datasets: Datasets, snapshot: Snapshot, before: Snapshot, *, remember: bool = True
) -> Outcome:
    """Leave the images out, and remember why, so that the same ones are not fitted again at each due time.

    What blank images beside them had a part in is not remembered: the snapshot does not list those, and without them
    it may be judged otherwise.
    """
    outcome.status = "refused"
    if remember:
        datasets.refuse(snapshot, outcome.reasons)
    datasets.restore(before, instead_of=snapshot)
    return outcome


class Schedule:
    """Runs :func:`retrain` when each product's cron says so, one run at a time."""

    def __init__(
        self,
        settings: Settings,
        store: ObjectStore,
        *,
        on_outcome: Callable[[Outcome], None],
        on_beat: Callable[[Beat], None] | None = None,
    ) -> None:
        self._settings, self._store = settings, store
        self._on_outcome, self._on_beat = on_outcome, on_beat
        # One thread: fits share the machine's devices, and a run that is still going is not begun twice.
        self._scheduler = BackgroundScheduler(
            executors={"default": {"type": "threadpool", "max_workers": 1}},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": 3600},
        )
        for product in self.products():
            for outcome in OUTCOMES:  # a counter that begins with its first event hides it
                metrics.fits.labels(product, outcome)
            self._scheduler.add_job(self._due, _trigger(product, settings), args=[product], id=product, name=product)

    def products(self) -> Sequence[str]:
        """Products that settings give a cron.

        Raises:
            SettingsError: none has one.
        """
        named = [name for name, product in self._settings.products.items() if product.cron]
        if not named:
            raise SettingsError(
                "nothing is scheduled: give a product a cron, as in products: {bottle: {cron: '0 3 * * *'}}"
            )
        return named

    def start(self) -> None:
        self._scheduler.start()
        for product in self.products():
            self._tell_due(product)

    def next_runs(self) -> dict[str, datetime]:
        return {job.id: job.next_run_time for job in self._scheduler.get_jobs()}

    def close(self) -> None:
        """Wait for a run in progress, begin no other."""
        self._scheduler.shutdown(wait=True)

    def _tell_due(self, product: str) -> None:
        if due := self.next_runs().get(product):
            metrics.fit_due_at.labels(product).set(due.timestamp())

    def _due(self, product: str) -> None:
        begun = time.monotonic()
        try:
            outcome = retrain(self._settings, self._store, product, self._on_beat)
        except LinewatchError as error:
            outcome = Outcome(product, "failed", reasons=[str(error)])
        except Exception as error:  # the next due run must come, whatever this one met
            log.exception("the scheduled run of %s failed", product)
            outcome = Outcome(product, "failed", reasons=[f"{type(error).__name__}: {error}"])
        metrics.fits.labels(product, outcome.status).inc()
        metrics.fit_seconds.labels(product).observe(time.monotonic() - begun)
        self._tell_due(product)
        self._on_outcome(outcome)


def _named_weekdays(cron: str) -> str:
    """Cron counts weekdays from Sunday = 0, APScheduler from Monday = 0; a list of names means the same to both."""
    *others, weekdays = cron.split() or [""]
    if weekdays != "*":
        days: list[str] = []
        for part in weekdays.lower().split(","):
            match = re.fullmatch(r"(\*|[0-7]|[a-z]{3})(?:-([0-7]|[a-z]{3}))?(?:/([1-9]))?", part)
            if not match:
                raise ValueError(f"weekday {part!r}")
            first, last, step = match.groups()
            begin, end = (0, 6) if first == "*" else (_weekday(first), _weekday(last or first))
            days += WEEKDAYS[begin : (end if end >= begin else end + 7) + 1 : int(step or 1)]
        weekdays = ",".join(dict.fromkeys(days))
    return " ".join([*others, weekdays])


def _weekday(text: str) -> int:
    if text.isdigit():
        return int(text)
    if text not in WEEKDAYS:
        raise ValueError(f"weekday {text!r}")
    return WEEKDAYS.index(text)


def _trigger(product: str, settings: Settings) -> CronTrigger:
    cron = settings.products[product].cron or ""
    try:
        fields = _named_weekdays(cron).split()
        if len(fields) not in (5, 6):
            raise ValueError(f"{len(fields)} fields")
        second = fields.pop(0) if len(fields) == 6 else "0"
        return CronTrigger(second=second, **dict(zip(CRON_FIELDS, fields, strict=True)))
    except ValueError as error:
        raise SettingsError(
            f"products.{product}.cron {cron!r}: {error}; five fields, such as '0 3 * * *', or seconds before them"
        ) from None
