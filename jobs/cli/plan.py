"""`linewatch plan`: what a line needs, from measured service times."""

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jobs.cli.outputs import OutputFile

if TYPE_CHECKING:
    from jobs.plan.assumptions import Assumptions

UNITS = {"": 1, "B": 1, "KB": 1_000, "MB": 1_000_000, "KIB": 1 << 10, "MIB": 1 << 20}


class ByteSize(click.ParamType):
    """A number of bytes, with or without a unit."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", str(value))
        factor = UNITS.get(found[2].upper()) if found else None
        if not found or factor is None or round(float(found[1]) * factor) < 1:
            self.fail(f"{value!r} is no size: write bytes, or a number with KB or MB, such as 500KB", param, ctx)
        return round(float(found[1]) * factor)


@click.group(invoke_without_command=True)
@click.option(
    "--products", default=1, show_default=True, type=click.IntRange(min=1), help="Kinds of parts: a fit each."
)
@click.option("--cameras", default=10, show_default=True, type=click.IntRange(1, 1_000_000), help="How many.")
@click.option(
    "--fps",
    default=1.0,
    show_default=True,
    type=click.FloatRange(0, 1000, min_open=True),
    help="Images a second of each camera.",
)
@click.option(
    "--size", default="60KB", show_default=True, type=ByteSize(), help="Of an encoded image, such as 500KB or 2MB."
)
@click.option("--gpu", default="cpu", show_default=True, type=click.Choice(["cpu", "h100", "l4"]), help="What scores.")
@click.option(
    "--measured",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Service times, from `linewatch plan measure`.  [default: the shipped ones]",
)
@click.option("--assume-peak", is_flag=True, help="Where a GPU was not measured: go by its published peak. A guess.")
@click.option(
    "--assume",
    multiple=True,
    metavar="NAME=VALUE",
    help="Replace an assumption, such as retention_days=2. May be repeated.",
)
@click.option(
    "--plot", "picture", type=OutputFile(), metavar="FILE.png", help="Draw the plan from 10 to 10,000 cameras."
)
@click.option("--json", "json_file", type=OutputFile(), help="Write all here.")
@click.pass_context
def plan(
    ctx: click.Context,
    products: int,
    cameras: int,
    fps: float,
    size: int,
    gpu: str,
    measured: Path | None,
    assume_peak: bool,
    assume: tuple[str, ...],
    picture: Path | None,
    json_file: Path | None,
) -> None:
    """Say how many replicas, GPUs, brokers and disks a line needs, why, and what breaks first.

    From the measured times of a replica's stages, and a simulation of bursts, failures and rolling upgrades. Batches
    and transactions are those of the settings. What is assumed is told, and --assume replaces it.

    \b
    Example:  linewatch plan --products 20 --cameras 100 --fps 2 --size 500KB
              linewatch plan --cameras 100 --fps 2 --size 500KB --assume replication=2 --plot plan.png
    """
    if ctx.invoked_subcommand:
        return
    from jobs.plan.assumptions import Demand
    from jobs.plan.gpus import times_for
    from jobs.plan.run import plan_line
    from jobs.plan.times import read_times
    from jobs.session.connect import load_settings
    from jobs.session.progress import Screen

    assumed = _assumptions(assume)
    if picture and picture.suffix.lower() != ".png":
        raise click.BadParameter(f"{picture}: the picture is a PNG: give a name that ends in .png", param_hint="--plot")
    settings = load_settings(ctx.obj)
    times = times_for(gpu, read_times(measured) if measured else None, assumed, assume_peak=assume_peak)
    demand = Demand(products=products, cameras=cameras, fps=fps, image_bytes=size)
    plan_line(demand, times, settings, assumed, Screen(), json_file=json_file, picture=picture)


def _run_options(command: Any) -> Any:
    for option in reversed((
        click.option("--backbone", default="efficientnet_lite0", show_default=True, help="The teacher."),
        click.option("--threads", default=1, show_default=True, type=click.IntRange(min=1), help="Of the engine."),
        click.option("--rounds", default=3, show_default=True, type=click.IntRange(min=1), help="Of all, in turn."),
    )):  # fmt: skip
        command = option(command)
    return command


@plan.command("measure")
@_run_options
@click.option("--device", default="cpu", show_default=True, type=click.Choice(["cpu", "cuda"]), help="What scores.")
@click.option(
    "--seconds", default=5.0, show_default=True, type=click.FloatRange(min=1), help="Of a batch size in a round."
)
@click.option("--json", "json_file", type=OutputFile(), required=True, help="The file of service times.")
def measure_command(backbone: str, threads: int, rounds: int, device: str, seconds: float, json_file: Path) -> None:
    """Measure the service times of a replica on this machine.

    Starts a broker and a store of its own, fits a product, and times the stages of the real worker with batches of 1,
    4, 16 and 32 images: some minutes. Close other programs first, or measure beside what will run beside.

    \b
    Example:  linewatch plan measure --json mine.json
              linewatch plan --measured mine.json --cameras 100
    """
    from jobs.plan.measure import MeasureRun
    from jobs.plan.run import measure
    from jobs.session.progress import Screen

    measure(MeasureRun(backbone, threads, rounds, seconds, _command_line(), device), json_file, Screen())


@plan.command("check")
@_run_options
@click.option("--json", "json_file", type=OutputFile(), help="Write all here.")
def check_command(backbone: str, threads: int, rounds: int, json_file: Path | None) -> None:
    """Hold the simulation against real runs on this machine, and tell its errors.

    Each round measures service times, then runs a backlog, a steady load, a burst and a death, and simulates the same
    images: some two and a half minutes a round.

    \b
    Example:  linewatch plan check --json check.json
    """
    from jobs.plan.measure import MeasureRun
    from jobs.plan.run import check_plan
    from jobs.session.progress import Screen

    check_plan(MeasureRun(backbone, threads, rounds, command=_command_line()), json_file, Screen())


def _assumptions(told: Sequence[str]) -> "Assumptions":
    from pydantic import ValidationError

    from jobs.plan.assumptions import Assumptions

    values = {}
    for one in told:
        name, equals, value = one.partition("=")
        if not equals or name not in Assumptions.model_fields:
            known = ", ".join(Assumptions.model_fields)
            raise click.BadParameter(f"{one!r}: write NAME=VALUE with one of {known}", param_hint="--assume")
        values[name] = value
    try:
        return Assumptions.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise click.BadParameter(f"{first['loc'][0]}={first['input']}: {first['msg']}", param_hint="--assume") from None


def _command_line() -> str:
    return " ".join(["linewatch", *sys.argv[1:]])
