"""Figures of another benchmark, of another version of linewatch say, set beside this one's: before and after."""

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from jobs.benchmark.runs import Method, Plan, Result
from jobs.fitting.datasets import DatasetError

Results = dict[Method, dict[str, list[Result]]]
_NAMES = {field.name for field in fields(Result)}


def with_those_of(file: Path, plan: Plan, results: Results) -> tuple[Plan, Results]:
    """Plan and results with the methods of figures that `linewatch benchmark --json` wrote, "before: " before their
    names. Measures that it did not have yet are None. Raises DatasetError where categories or seeds are missing there.
    """
    try:
        methods: dict[str, Any] = json.loads(file.read_text())["methods"]
        found = {f"before: {method}": _of_method(of["categories"], plan, file) for method, of in methods.items()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(
            f"{file} is not the JSON that `linewatch benchmark --json` writes ({type(error).__name__}: {error})"
        ) from error
    return replace(plan, methods=(*plan.methods, *found)), results | found


def _of_method(categories: dict[str, Any], plan: Plan, file: Path) -> dict[str, list[Result]]:
    found = {}
    for category in plan.categories:
        seeds = {one["seed"]: one for one in categories.get(category.name, {"seeds": []})["seeds"]}
        if missing := set(plan.seeds) - set(seeds):
            raise DatasetError(f"{file} has no seed {sorted(missing)} of {category.name}: run both with the same")
        found[category.name] = [_result(seeds[seed]) for seed in plan.seeds]
    return found


def _result(values: dict[str, Any]) -> Result:
    absent = dict.fromkeys(_NAMES)
    return Result(**{**absent, **{name: value for name, value in values.items() if name in _NAMES}, "worst": ()})
