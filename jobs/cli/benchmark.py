"""`linewatch benchmark` and `ablate`: the protocol on folders of labelled images."""

import json
from pathlib import Path
from typing import Any

import click

from jobs.cli.outputs import OutputFile, OutputFolder

METHODS = (
    "fusion", "plain", "wide", "semantics_only", "mean_weights", "scalar_weights", "reversed", "residual",
    "fused_targets", "straight", "no_dropout", "student", "largest_z", "sum_of_z", "with_student", "on_residual", "knn",
    "mahalanobis", "positional_2", "positional_3", "fine", "deep",
)  # fmt: skip
"""jobs.benchmark.runs.METHODS, which would load torch for --help; a test compares them."""
UNTRAINED = {"knn", "mahalanobis", "positional_2", "positional_3", "fine", "deep"}
PLAIN = UNTRAINED | {"largest_z", "sum_of_z", "with_student", "on_residual"}
"""Those that see whole images, resized, in their own light and place."""


def tolerance(text: str | None) -> dict[str, str]:
    """light=30%,shift_px=6 -> its parts; what each may be is for model.Tolerance to say."""
    if not text:
        return {}
    parts = [part.partition("=") for part in text.split(",")]
    if not all(name.strip() and value.strip() for name, _, value in parts):
        raise click.BadParameter(f"{text!r}: give it as light=30%,shift_px=6")
    return {name.strip(): value.strip() for name, _, value in parts}


def _shared(command: Any) -> Any:
    options = (
        click.argument("folder", type=click.Path(path_type=Path)),
        click.option("--backbone", "-b", default="efficientnet_lite0", show_default=True, help="The teacher."),
        click.option("--category", "-c", "only", multiple=True, metavar="C", help="Only this one. May be repeated."),
        click.option("--seeds", default=3, show_default=True, type=click.IntRange(min=1), help="How many."),
        click.option("--steps", type=click.IntRange(min=1), help="Training steps.  [default: the method's own]"),
        click.option("--size", default=256, show_default=True, type=click.IntRange(min=64), help="Side in pixels."),
        click.option("--json", "json_file", type=OutputFile(), help="Figures."),
        click.option(
            "--out", default=Path("benchmark-results"), show_default=True, type=OutputFolder(),
            help="Folder for the runs, the table and the page. Runs that lie there are not run again.",
        ),
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


@click.command()
@_shared
@click.option(
    "--method", "-m", "methods", multiple=True, type=click.Choice(METHODS), default=("fusion",), show_default=True,
    help="May be repeated.",
)  # fmt: skip
@click.option(
    "--precision", type=click.Choice(["fp32", "int8"]), default="fp32", show_default=True,
    help="int8: fits are quantised for the CPU before they are measured.",
)  # fmt: skip
@click.option("--tiles", is_flag=True, help="Score tiles at full resolution instead of resized images.")
@click.option(
    "--shifted", is_flag=True,
    help="Measure under other light, place and sharpness, too: what is rejected then, what escapes.",
)  # fmt: skip
@click.option(
    "--tolerate", metavar="RANGES", callback=lambda _ctx, _param, value: tolerance(value),
    help="What fits are to bear, as fit.tolerate: light=30%,shift_px=6.  [default: small ranges]",
)  # fmt: skip
@click.option(
    "--exposure", type=click.Choice(["auto", "off", "image", "border"]), default="auto", show_default=True,
    help="Bring images' light to that of the good ones, as fit.exposure.",
)  # fmt: skip
@click.option("--align", is_flag=True, help="Bring parts to one place first where it helps, as fit.align.")
@click.option(
    "--workers", default=1, show_default=True, type=click.IntRange(1, 64),
    help="Processes that share each fit, as fit.workers.",
)  # fmt: skip
@click.option(
    "--images", type=click.IntRange(min=10), help="Good images that fits get, other ones for each seed.  [default: all]"
)
@click.option(
    "--against", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="JSON",
    help="Figures of another run (--json) of the same categories and seeds, by another version say, to set beside.",
)  # fmt: skip
def benchmark(
    folder: Path,
    backbone: str,
    only: tuple[str, ...],
    seeds: int,
    steps: int | None,
    size: int,
    json_file: Path | None,
    out: Path,
    methods: tuple[str, ...],
    precision: str,
    tiles: bool,
    shifted: bool,
    tolerate: dict[str, Any],
    exposure: str,
    align: bool,
    workers: int,
    images: int | None,
    against: Path | None,
) -> None:
    """Measure methods on every category in FOLDER, by one protocol.

    A fit sees a category's good training images alone and runs a fixed number of steps; its last step is measured.
    Nothing is chosen on test images. Layouts of MVTec AD, MVTec AD 2 and VisA are recognised. A run that was stopped
    goes on where it was. The folder of --out gets table.md, figures.json and worst.html: the highest-scored good and
    the lowest-scored defective images, with their maps.

    \b
    Example:  linewatch benchmark mvtec_ad --backbone wide_resnet50_2 --json figures.json
              linewatch benchmark mvtec_ad -c bottle -m fusion -m plain -m knn
              linewatch benchmark mvtec_ad --against figures-before.json
    """
    from jobs.benchmark.ablation import leads, leads_table
    from jobs.benchmark.against import with_those_of
    from jobs.benchmark.page import write_worst
    from jobs.benchmark.tables import figures, markdown, shifted_table

    changes = {
        "--tiles": tiles,
        "--exposure": exposure in ("image", "border"),
        "--align": align,
        "--workers": workers > 1,
    }
    if (changed := [name for name, given in changes.items() if given]) and (plain := PLAIN & {*methods}):
        names = ", ".join(sorted(plain))
        raise click.UsageError(f"{names}: sees whole images as they are: leave out {' and '.join(changed)}, or it")
    options = {"precision": precision, "tiles": tiles, "exposure": exposure, "align": align, "workers": workers}
    options |= {"tolerate": tolerate} if tolerate else {}
    plan, results = _run(
        folder, backbone, only, seeds, steps, size, out, methods, shifted=shifted, images=images, **options
    )
    if against:
        plan, results = with_those_of(against, plan, results)
    parts = [markdown(plan, results), leads_table(results, plan.methods)]
    text = "\n".join([*parts, shifted_table(plan, results)] if shifted else parts)
    (out / "table.md").write_text(text, encoding="utf-8")
    page = out / "worst.html"
    write_worst(page, plan, results)
    found = {**figures(plan, results), "leads": leads(results, plan.methods)}
    (json_file or out / "figures.json").write_text(json.dumps(found, indent=2) + "\n")
    click.echo(text)
    click.echo(f"Worst cases: {page}")


@click.command()
@_shared
def ablate(
    folder: Path,
    backbone: str,
    only: tuple[str, ...],
    seeds: int,
    steps: int | None,
    size: int,
    json_file: Path | None,
    out: Path,
) -> None:
    """Measure what each part of the method is worth, on every category in FOLDER.

    Runs the default, its rows without one part or with another in its place, and two methods that train nothing, by the
    protocol of `linewatch benchmark`, whose finished runs it takes over. Differences are paired by category and seed.

    \b
    Example:  linewatch ablate mvtec_ad --out benchmark-results
    """
    from jobs.benchmark.ablation import ablation_table, draw_level_weights, leads
    from jobs.benchmark.tables import figures, markdown

    plan, results = _run(folder, backbone, only, seeds, steps, size, out, METHODS)
    text = ablation_table(plan, results)
    (out / "ablation.md").write_text(text + "\n" + markdown(plan, results), encoding="utf-8")
    draw_level_weights(out / "level-weights.png", results[plan.methods[0]])
    found = {**figures(plan, results), "leads": leads(results, plan.methods)}
    (json_file or out / "ablation.json").write_text(json.dumps(found, indent=2) + "\n")
    click.echo(text)
    click.echo(f"Level weights: {out / 'level-weights.png'}")


def _run(
    folder: Path,
    backbone: str,
    only: tuple[str, ...],
    seeds: int,
    steps: int | None,
    size: int,
    out: Path,
    methods: tuple[str, ...],
    *,
    shifted: bool = False,
    images: int | None = None,
    **options: Any,
) -> Any:
    from jobs.benchmark import Plan, categories, run_plan
    from jobs.fitting.datasets import DatasetError
    from jobs.session.progress import Screen
    from model import FitOptions

    found = categories(folder)
    missing = set(only) - {category.name for category in found}
    if missing:
        raise DatasetError(f"{folder} has no category {', '.join(sorted(missing))}: {', '.join(c.name for c in found)}")
    chosen = options | ({"steps": steps} if steps else {})
    plan = Plan(
        categories=tuple(category for category in found if not only or category.name in only),
        methods=tuple(dict.fromkeys(methods)),
        seeds=tuple(range(seeds)),
        options=FitOptions.model_validate({"backbone": backbone, "size": size, **chosen}),
        shifted=shifted,
        images=images,
    )
    with Screen().runs("Benchmark") as (on_run, on_phase):
        return plan, run_plan(plan, out / "runs", on_run, on_phase)
