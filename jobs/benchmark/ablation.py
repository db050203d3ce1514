"""The ablation: what each part of the method is worth, what it costs, and what the level weights have learned."""

import math
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from PIL import Image, ImageDraw, ImageFont
from torch.utils.flop_counter import FlopCounterMode

from jobs.benchmark.runs import STUDENTS, Method, Plan, Result
from jobs.benchmark.tables import table
from model.engine.serving_form import serving_form
from model.network.student import Method as StudentMethod
from model.network.student import Student
from model.teachers import teacher_spec

COMPARED = ("image_auroc", "pixel_auroc", "aupro", "aupro_05", "escape_rate")
# Two-sided 95% quantiles of Student's t for 1 to 30 degrees of freedom; beyond, the normal's is close enough.
_T95 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
    2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
_REPEATS = 7
_BATCH = 16

Results = dict[Method, dict[str, list[Result]]]


@dataclass(frozen=True)
class Difference:
    """Default minus other, over pairs of the same category and seed. half_width: of the 95% interval."""

    mean: float
    half_width: float | None
    pairs: int

    def text(self) -> str:
        spread = "" if self.half_width is None else f" ± {100 * self.half_width:.2f}"
        return f"{100 * self.mean:+.2f}{spread}"


@dataclass(frozen=True)
class Cost:
    """Of a student alone; the teacher is the same for all. ms: for one image of a batch of 16, torch, median."""

    parameters: int
    gflop: float
    ms: float


def difference(results: Results, default: Method, other: Method, measure: str) -> Difference | None:
    """Paired by category and seed; None where no pair has the measure.

    The interval is Student's t over all pairs. Seeds of one category share its test images, so it says how sure the
    order is on these categories, not on any others.
    """
    pairs = [
        (getattr(a, measure), getattr(b, measure))
        for category in results[default]
        for a, b in zip(results[default][category], results[other][category], strict=True)
    ]
    gains = [a - b for a, b in pairs if a is not None and b is not None]
    if not gains:
        return None
    if len(gains) == 1:
        return Difference(gains[0], None, 1)
    quantile = _T95[len(gains) - 2] if len(gains) - 2 < len(_T95) else 1.96
    return Difference(statistics.fmean(gains), quantile * statistics.stdev(gains) / math.sqrt(len(gains)), len(gains))


def cost(plan: Plan, method: Method) -> Cost | None:
    """None for what is no student."""
    if method not in STUDENTS:
        return None
    spec, size = teacher_spec(plan.options.backbone), plan.options.size
    student = Student(spec, cast(StudentMethod, method), size)
    served = serving_form(student)
    levels = [torch.randn(_BATCH, w, size // s, size // s) for w, s in zip(spec.widths, spec.strides, strict=True)]
    with torch.inference_mode():
        with FlopCounterMode(display=False) as counter:
            served.anomaly_maps(levels)
        times = []
        for _ in range(_REPEATS):
            begun = time.perf_counter()
            served.anomaly_maps(levels)
            times.append(time.perf_counter() - begun)
    return Cost(
        parameters=sum(parameter.numel() for parameter in student.parameters()),
        gflop=counter.get_total_flops() / _BATCH / 1e9,
        ms=1000 * statistics.median(times) / _BATCH,
    )


def ablation_table(plan: Plan, results: Results) -> str:
    """Markdown: the default's lead over each row in points, the explained variance per level, and the cost."""
    default = plan.methods[0]
    rows = []
    for method in plan.methods:
        leads = [
            "" if method == default else _lead(difference(results, default, method, measure)) for measure in COMPARED
        ]
        price = cost(plan, method)
        prices = [f"{price.parameters:,}", f"{price.gflop:.2f}", f"{price.ms:.1f}"] if price else ["–"] * 3
        rows.append([method, *leads, _explained(results[method]), *prices])
    head = ["row", *(f"{default} ahead, {measure}" for measure in COMPARED), "explained variance, levels 1 / 2 / 3"]
    return "\n".join(
        [
            f"{plan.options.backbone}, {plan.options.size} px, {plan.options.steps} steps, {len(plan.seeds)} seeds, "
            f"{len(plan.categories)} categories. Leads in points (hundredths), paired by category and seed, ± the 95% "
            "interval of Student's t over the pairs. Explained variance: mean over categories on held-out good images. "
            "Cost: the student alone, an image of a batch of 16.",
            "",
            *table([*head, "parameters", "GFLOP", "ms"], rows),
            "",
        ]
    )


def leads_table(results: Results, methods: Sequence[Method]) -> str:
    """Markdown: the first method's lead over each other in points; empty where there is no other."""
    if len(methods) < 2:
        return ""
    rows = [
        [other, *(_lead(difference(results, methods[0], other, name)) for name in COMPARED)] for other in methods[1:]
    ]
    head = [f"{methods[0]} ahead of", *COMPARED]
    title = "### Leads in points, paired by category and seed, ± the 95% interval of Student's t over the pairs"
    return "\n".join([title, "", *table(head, rows), ""])


def _lead(found: Difference | None) -> str:
    return "–" if found is None else found.text()


def _explained(categories: dict[str, list[Result]]) -> str:
    rows = [result.explained_variance for seeds in categories.values() for result in seeds if result.explained_variance]
    return " / ".join(f"{statistics.fmean(level):.2f}" for level in zip(*rows, strict=True)) if rows else "–"


def draw_level_weights(path: Path, results: dict[str, list[Result]]) -> None:
    """PNG: for each category and fusion a bar of the mean weights of its source levels, shallow (dark) to deep."""
    bars = list(_bars(results))
    font = ImageFont.load_default(15)
    row, left, width = 26, 300, 420
    picture = Image.new("RGB", (left + width + 20, 46 + row * len(bars)), "white")
    draw = ImageDraw.Draw(picture)
    draw.text((10, 10), "Mean weight of levels 1, 2, 3 in each fusion, held-out good images", fill="black", font=font)
    for place, (name, weights) in enumerate(bars):
        top, x = 40 + place * row, float(left)
        draw.text((10, top + 2), name, fill="black", font=font)
        for level, weight in enumerate(weights):
            colour, ink = _LEVEL_COLOURS[level]
            draw.rectangle((x, top, x + weight * width - 1, top + row - 6), fill=colour)
            draw.text((x + 4, top + 2), f"{weight:.2f}", fill=ink, font=font)
            x += weight * width
    picture.save(path)


_LEVEL_COLOURS = (("#26418f", "white"), ("#5a8fd6", "black"), ("#c9def5", "black"))


def _bars(results: dict[str, list[Result]]) -> Iterator[tuple[str, list[float]]]:
    """(label, mean weights over seeds)."""
    for category, seeds in results.items():
        found = [result.level_weights for result in seeds if result.level_weights]
        for name in found[0] if found else ():
            weights = [statistics.fmean(values) for values in zip(*(one[name] for one in found), strict=True)]
            yield f"{category}  {name}", weights


def leads(results: Results, methods: Sequence[Method]) -> dict[str, dict[str, dict[str, float | int | None] | None]]:
    """The differences for the JSON: method -> measure -> mean, half_width, pairs."""
    return {
        method: {
            measure: vars(found) if (found := difference(results, methods[0], method, measure)) else None
            for measure in COMPARED
        }
        for method in methods[1:]
    }
