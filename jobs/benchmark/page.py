"""The page of worst cases: where a method is wrong, or nearly, for a person to look at."""

import base64
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from jobs.benchmark.runs import Method, Plan, Result, WorstCase
from jobs.benchmark.tables import SHOWN, means_of
from jobs.fitting.datasets import GOOD
from jobs.report.colours import MASK, TRUTH
from jobs.report.pictures import data_uri, heat_layer, mask_layer, read_pictures
from jobs.report.rows import InspectedImage

_TEMPLATES = Path(__file__).parent.parent / "report" / "templates"
_SIDE = 256


def write_worst(path: Path, plan: Plan, results: dict[Method, dict[str, list[Result]]]) -> None:
    """One self-contained HTML file: the first method, its first seed, category by category."""
    method = plan.methods[0]
    categories = [
        {
            "name": category.name,
            "figures": [(name.replace("_", " "), means_of(results[method][category.name])[name]) for name in SHOWN],
            "cases": [_case(case, category.name) for case in results[method][category.name][0].worst],
        }
        for category in plan.categories
    ]
    environment = Environment(loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined)
    html = environment.get_template("worst.html").render(
        method=method, seed=plan.seeds[0], options=plan.options, categories=categories, mask=MASK, truth=TRUTH
    )
    path.write_text(html, encoding="utf-8")


def _case(case: WorstCase, category: str) -> dict[str, Any]:
    """A case's pictures: the photograph, and the same under heat map, mask and drawn truth."""
    row = InspectedImage(
        product=category,
        image_id=Path(case.path).name,
        camera="",
        image=Path(case.path).read_bytes(),
        truth=case.kind,
        verdict=case.verdict,
        normalised_score=case.normalised_score,
        model_version="",
        mask_png=base64.b64decode(case.mask),
        heat_png=base64.b64decode(case.heat),
        truth_mask_png=base64.b64decode(case.truth) if case.truth else None,
    )
    pictures = read_pictures(row, _SIDE)
    layers = [
        mask_layer(mask, colour)
        for mask, colour in ((pictures.mask, MASK), (pictures.truth, TRUTH))
        if mask is not None
    ]
    return {
        "name": f"{case.kind}/{row.image_id}",
        "good": case.kind == GOOD,
        "outcome": row.outcome,
        "score": case.normalised_score,
        "photo": data_uri(pictures.photo, "JPEG", quality=80),
        "heat": data_uri(heat_layer(pictures.heat).resize(pictures.photo.size), "WEBP", quality=80)
        if pictures.heat is not None
        else None,
        "layers": [data_uri(layer, "PNG", transparency=layer.info["transparency"]) for layer in layers],
    }
