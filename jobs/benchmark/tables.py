"""The figures of a benchmark as JSON and as a Markdown table."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from jobs.benchmark.runs import MEASURES, Method, Plan, Result
from jobs.benchmark.shifts import SHIFTS
from model.measures.metrics import spearman

LEAST_METHODS = 4
"""Of fewer, ranks say nothing."""
SHOWN = ("image_auroc", "pixel_auroc", "aupro", "aupro_05", "mask_iou", "false_reject_rate", "escape_rate")
MVTEC_AD = frozenset(
    ("bottle", "cable", "capsule", "carpet", "grid", "hazelnut", "leather", "metal_nut", "pill", "screw", "tile",
     "toothbrush", "transistor", "wood", "zipper")
)  # fmt: skip
PUBLISHED = {
    "asymptotic fusion, 2026 (published)": (0.990, 0.979, 0.948),
    "RD4AD, 2022 (published)": (0.985, 0.978, 0.939),
}
"""Mean over MVTec AD's 15 categories: image AUROC, pixel AUROC, AUPRO."""


def figures(plan: Plan, results: dict[Method, dict[str, list[Result]]]) -> dict[str, Any]:
    """The first method's categories and mean at the top, every method's under "methods"."""
    by_method = {method: _of_method(categories) for method, categories in results.items()}
    first = by_method[plan.methods[0]]
    config = {**plan.config(), "methods": list(plan.methods), "seeds": list(plan.seeds)}
    return {"config": config, **first, "methods": by_method, "probe": rank_correlations(plan, results)}


def markdown(plan: Plan, results: dict[Method, dict[str, list[Result]]]) -> str:
    """One table per category and one of the means, a row per method: mean of the seeds ± their deviation."""
    lines = [
        f"{plan.options.backbone}, {plan.options.size} px, {plan.options.steps} steps, {len(plan.seeds)} seeds; "
        "last step, nothing chosen on test images. Mean over seeds ± deviation; shares of 1.",
        "",
    ]
    for category in plan.categories:
        rows = [[method, *(_cell(results[method][category.name], name) for name in SHOWN)] for method in plan.methods]
        lines += [f"### {category.name}", "", *table(["method", *SHOWN], rows), ""]
    rows = []
    for method in plan.methods:
        mean = _of_method(results[method])["mean"]
        rows.append([method, *(_figure(mean[name]) for name in SHOWN)])
    if {category.name for category in plan.categories} == MVTEC_AD:
        rows += [[name, *map(_figure, values), *[""] * (len(SHOWN) - 3)] for name, values in PUBLISHED.items()]
    return "\n".join(
        [*lines, "### Mean over categories", "", *table(["method", *SHOWN], rows), *_of_probe(plan, results)]
    )


def _of_probe(plan: Plan, results: dict[Method, dict[str, list[Result]]]) -> list[str]:
    """How the probe of made-up defects ranks the methods beside image AUROC, by category; nothing of a few methods."""
    told = rank_correlations(plan, results)
    if not told:
        return [""]
    rows = [[name, f"{value:.2f}"] for name, value in told.items()]
    return [
        "",
        "### The probe: Spearman's rank correlation of sensitivity and image AUROC over the methods",
        "",
        *table(["category", "correlation"], rows),
        "",
    ]


def rank_correlations(plan: Plan, results: dict[Method, dict[str, list[Result]]]) -> dict[str, float]:
    """Of each category, over methods (means of the seeds) that were probed, where there are enough of them."""
    found = {}
    for category in plan.categories:
        means = [means_of(results[method][category.name]) for method in plan.methods]
        pairs = [(m["sensitivity"], m["image_auroc"]) for m in means]
        told = [(a, b) for a, b in pairs if a is not None and b is not None]
        if len(told) >= LEAST_METHODS:
            found[category.name] = spearman([a for a, _ in told], [b for _, b in told])
    return found


def shifted_table(plan: Plan, results: dict[Method, dict[str, list[Result]]]) -> str:
    """Of each category and method under each shift: false rejects / escapes / image AUROC, means of the seeds."""
    lines = ["### Under shifts: false rejects / escapes / image AUROC, each at its own threshold", ""]
    for category in plan.categories:
        rows = []
        for method in plan.methods:
            seeds = [result.shifted for result in results[method][category.name] if result.shifted]
            cells = [
                " / ".join(_figure(_mean([of[name][key] for of in seeds])) for key in _OF_A_SHIFT) for name in SHIFTS
            ]
            tints = [result.discoloured for result in results[method][category.name] if result.discoloured]
            cells += [_figure(_mean([of[name] for of in tints])) for name in _TINTS]
            rows.append([method, *cells])
        lines += [f"#### {category.name}", "", *table(["method", *SHIFTS, *_TINTS.values()], rows), ""]
    return "\n".join(lines)


_TINTS = {"all": "found: discoloured", "a ninth": "found: a ninth discoloured"}
_OF_A_SHIFT = ("false_reject_rate", "escape_rate", "image_auroc")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table, line by line; the first column is text, the others are figures."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    names = [name.replace("_", " ") for name in head]
    return ["| " + " | ".join(row) + " |" for row in (names, rule, *rows)]


def _of_method(categories: dict[str, list[Result]]) -> dict[str, Any]:
    found: dict[str, Any] = {
        name: {"seeds": [_plain(result) for result in seeds], "mean": means_of(seeds)}
        for name, seeds in categories.items()
    }
    return {"categories": found, "mean": _means([category["mean"] for category in found.values()])}


def means_of(seeds: Sequence[Result]) -> dict[str, float | None]:
    """Mean over seeds of each measure; None where no seed has it."""
    return _means([asdict(result) for result in seeds])


def _plain(result: Result) -> dict[str, Any]:
    """Without the pictures of its worst cases, which are on the page."""
    return {name: value for name, value in asdict(result).items() if name != "worst"}


def _means(rows: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    """Of each measure over the rows that have it; None where none has."""
    return {name: _mean([row[name] for row in rows]) for name in MEASURES}


def _mean(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None and not math.isnan(value)]
    return sum(there) / len(there) if there else None


def _cell(seeds: Sequence[Result], name: str) -> str:
    values = [getattr(result, name) for result in seeds]
    mean = _mean(values)
    if mean is None or len(values) < 2:
        return _figure(mean)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))
    return f"{mean:.3f} ± {deviation:.3f}"


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
