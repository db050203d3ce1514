"""`linewatch plan` and its two commands that measure."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from jobs.plan.assumptions import Assumptions, Demand
from jobs.plan.breaks import limits
from jobs.plan.check import check
from jobs.plan.measure import Found, MeasureRun, measure_round, service_times, with_what_is_measured_alone
from jobs.plan.needs import needs
from jobs.plan.picture import draw, grown
from jobs.plan.plant import plant
from jobs.plan.scenarios import all_of_them
from jobs.plan.table import as_json, in_bytes, show, show_check
from jobs.plan.times import ServiceTimes
from jobs.session.progress import Screen
from model.bench.machine import describe_machine, versions
from pipeline.errors import SettingsError
from pipeline.settings import Settings


def plan_line(
    demand: Demand,
    measured: ServiceTimes,
    settings: Settings,
    assumed: Assumptions,
    screen: Screen,
    *,
    json_file: Path | None = None,
    picture: Path | None = None,
) -> dict[str, Any]:
    """What the line needs, how it behaves and what breaks first. Raises SettingsError."""
    plan = needs(demand, measured, settings, assumed)
    double = needs(demand.model_copy(update={"cameras": 2 * demand.cameras}), measured, settings, assumed)
    with screen.step("Simulating the line") as step:

        def on_progress(what: str, done: int, of: int) -> None:
            step.say(what)
            step.advance(done, of)

        seen = all_of_them(plan, settings, assumed, on_progress)
    found = limits(plan, assumed)
    report: dict[str, Any] = {
        "needs": as_json(plan),
        "with_twice_the_cameras": as_json(double),
        "simulated": [one.as_json() for one in seen],
        "breaks": [vars(limit) for limit in found],
        "service_times": {
            "kind": plan.times.kind,
            "machine": plan.times.machine,
            "date": plan.times.date,
            "assumed": plan.times.assumed or None,
        },
        "assumptions": {
            name: {"value": value, "means": Assumptions.model_fields[name].description}
            for name, value in assumed.model_dump().items()
        },
    }
    show(plan, double, seen, found, assumed, screen)
    if picture:
        with screen.step("Drawing the plan up to 10,000 cameras") as step:
            report["grown"] = grown(demand, measured, settings, assumed, step.advance)
        draw(report["grown"], picture, _title(demand, plan.times))
        screen.say(f"the plan from 10 to 10,000 cameras is drawn in {picture}")
    _write(report, json_file, screen)
    return report


def measure(run: MeasureRun, json_file: Path, screen: Screen) -> ServiceTimes:
    """Service times of this machine, into a file. Raises LocalServersError, ServingError, SettingsError."""
    if run.device == "cuda" and not torch.cuda.is_available():
        raise SettingsError("--device cuda: torch finds no GPU here: measure on a machine with one, or --device cpu")
    with (
        screen.step("Measuring service times") as step,
        plant(run.backbone, run.threads, step.say, run.device) as one,
    ):
        found = Found.nothing()
        with one.replica() as replica:
            for number in range(run.rounds):
                step.say(f"round {number + 1}")
                step.advance(number, run.rounds)
                measure_round(one, replica, run, found)
        step.say("images of other sizes, and a fit")
        times = with_what_is_measured_alone(service_times(one, run, found), one)
    json_file.write_text(times.model_dump_json(indent=1) + "\n")
    batch = 16
    busy = times.busy_s(batch, batch)
    busiest = max(busy, key=lambda name: busy[name])
    for name, seconds in busy.items():
        screen.say(f"{name}: {1000 * seconds:.2f} ms an image, in batches of {batch}")
    screen.say(f"a replica does {1 / busy[busiest]:.1f} images/s, ended by {busiest}")
    screen.say(f"the service times are in {json_file}: linewatch plan --measured {json_file} --cameras 100")
    return times


def check_plan(run: MeasureRun, json_file: Path | None, screen: Screen) -> dict[str, Any]:
    """The simulation beside real runs. Raises LocalServersError, ServingError."""
    machine = describe_machine()
    with screen.step("Simulating beside real runs") as step, plant(run.backbone, run.threads, step.say) as one:
        found, times = check(one, run, step.say)
    report = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine,
        "versions": versions(),
        "command": run.command,
        "rounds": run.rounds,
        "compared": [one.as_json() for one in found],
        "service_times": times.model_dump(mode="json"),
    }
    show_check(found, screen)
    _write(report, json_file, screen)
    return report


def _title(demand: Demand, times: ServiceTimes) -> str:
    source = f"ASSUMED: {times.assumed}" if times.assumed else f"measured on {times.where}"
    lines = f"{demand.fps:g} images/s a camera, {in_bytes(demand.image_bytes)} an image, {times.kind}"
    return f"{lines}\n{source}"


def _write(report: dict[str, Any], json_file: Path | None, screen: Screen) -> None:
    if json_file:
        json_file.write_text(json.dumps(report, indent=2) + "\n")
        screen.say(f"the whole report is in {json_file}")
