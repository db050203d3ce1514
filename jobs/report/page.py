"""The report as one HTML file: no network, no neighbours, nothing to install."""

import base64
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from jobs.report import colours
from jobs.report.chart import LABELS, WIDTH, Chart, score_chart
from jobs.report.choice import for_page
from jobs.report.pictures import Pictures, data_uri, hatched_layer, heat_layer, mask_layer, read_mask, read_pictures
from jobs.report.rows import InspectedImage, ProductSummary, Report
from model.measures.proportions import percent_interval, share_interval

PER_PRODUCT = 150
_TEMPLATES = Path(__file__).parent / "templates"
_LARGE, _SMALL, _HEAT = 480, 288, 160  # longest sides; an OK image that nobody need look at is embedded small
FILTERS = ("all", "NotOK", "NotDecidable", "OK", "false rejects", "escapes")


@dataclass(frozen=True)
class Card:
    """One image in the gallery, ready for the template."""

    row: InspectedImage
    size: tuple[int, int]
    photo: str
    heat: str | None
    mask: str | None
    truth: str | None
    ignored: int | None  # which of the page's ignored areas
    trouble: tuple[str, ...]
    tags: tuple[str, ...]  # the filters that show it

    @property
    def place(self) -> float:
        return colours.place(self.row.normalised_score)


@dataclass(frozen=True)
class Product:
    """One product's table row, chart and the sentence on what the gallery leaves out."""

    name: str
    summary: ProductSummary | None
    chart: Chart | None
    shown: int
    total: int
    left_out: str


def write_page(
    path: Path,
    report: Report,
    on_image: Callable[[int, int], None] | None = None,
    *,
    per_product: int = PER_PRODUCT,
) -> None:
    """Write the page. ``on_image(done, total)`` is called after each embedded image."""
    environment = Environment(loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined)
    environment.filters.update(share=_share, figure=_figure, interval=_interval)
    products, chosen = [], []
    for name in _names(report):
        rows = [image for image in report.images if image.product == name]
        picked = for_page(rows, per_product)
        chosen += picked
        products.append(_product(name, report, rows, picked))
    chosen.sort(key=lambda image: (-image.normalised_score, image.image_id))
    # Each area's hatching is embedded once, in the style sheet: the images of a product share it.
    areas = list(dict.fromkeys(image.ignored_png for image in chosen if image.ignored_png))
    html = environment.get_template("report.html").render(
        report=report,
        products=products,
        cards=_cards(chosen, areas, on_image),
        ignoring=bool(areas),
        counts={name: sum(name in _tags(image) for image in chosen) for name in FILTERS},
        ticks=[(tick, colours.place(tick)) for tick in colours.LEGEND_TICKS],
        stops=colours.gradient_stops(),
        chart_width=WIDTH,
        chart_labels=LABELS,
        images=sum(summary.images for summary in report.summaries),
        events=sum(summary.events for summary in report.summaries),
        **_style_and_script(environment, [_hatching(png) for png in areas]),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(html, encoding="utf-8", newline="\n")


def _style_and_script(environment: Environment, hatchings: list[str]) -> dict[str, str]:
    """The page's only style sheet and script with their hashes: the policy lets no other style or script run."""
    sources = {
        "style": environment.get_template("report.css").render(
            mask_colour="rgb({} {} {})".format(*colours.MASK),
            truth_colour="rgb({} {} {})".format(*colours.TRUTH),
            hatchings=hatchings,
        ),
        "script": environment.get_template("report.js").render(),
    }
    hashes = {f"{name}_hash": _sha256(source) for name, source in sources.items()}
    return sources | hashes


def _hatching(ignored_png: bytes) -> str:
    return data_uri(hatched_layer(read_mask(ignored_png, _LARGE)), "PNG", optimize=True)


def _sha256(source: str) -> str:
    return base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()


def _names(report: Report) -> list[str]:
    """Every product that has a summary or an image, in order of appearance."""
    names = [summary.product for summary in report.summaries] + [image.product for image in report.images]
    return list(dict.fromkeys(names))


def _product(name: str, report: Report, rows: list[InspectedImage], picked: list[InspectedImage]) -> Product:
    summary = next((summary for summary in report.summaries if summary.product == name), None)
    kept = {id(image) for image in picked}
    missing = [image for image in rows if id(image) not in kept]
    parts = [
        (verdict, sum(image.verdict == verdict for image in missing)) for verdict in ("NotOK", "NotDecidable", "OK")
    ]
    left_out = ", ".join(f"{count} {verdict}" for verdict, count in parts if count)
    return Product(name, summary, score_chart(rows) if rows else None, len(picked), len(rows), left_out)


def _cards(
    rows: list[InspectedImage], areas: list[bytes], on_image: Callable[[int, int], None] | None
) -> Iterator[Card]:
    for number, row in enumerate(rows):
        plain = row.verdict == "OK" and row.outcome in ("right", "unknown")
        ignored = areas.index(row.ignored_png) if row.ignored_png else None
        yield _card(row, read_pictures(row, _SMALL if plain else _LARGE), ignored)
        if on_image is not None:
            on_image(number + 1, len(rows))


def _card(row: InspectedImage, pictures: Pictures, ignored: int | None) -> Card:
    heat = None
    if pictures.heat is not None:
        layer = heat_layer(pictures.heat)
        layer.thumbnail((_HEAT, _HEAT))
        heat = data_uri(layer, "WEBP", quality=70, method=2)
    masks = [
        data_uri(mask_layer(mask, colour), "PNG", optimize=True) if mask is not None and mask.any() else None
        for mask, colour in ((pictures.mask, colours.MASK), (pictures.truth, colours.TRUTH))
    ]
    photo = data_uri(pictures.photo, "JPEG", quality=74)
    return Card(row, pictures.size, photo, heat, masks[0], masks[1], ignored, pictures.trouble, _tags(row))


def _tags(row: InspectedImage) -> tuple[str, ...]:
    mistake = {"false reject": ("false rejects",), "escape": ("escapes",)}.get(row.outcome, ())
    return ("all", row.verdict, *mistake)


def _share(part: int, whole: int) -> str:
    """``3.3 %``, or a dash where there is nothing to divide by."""
    return f"{100 * part / whole:.1f} %" if whole else "–"


def _interval(part: int, whole: int) -> str:
    """The share's 95% interval, ``0.6 % to 16 %``, or nothing where there is nothing to divide by."""
    interval = share_interval(part, whole)
    return percent_interval(interval).replace("%", " %") if interval else ""


def _figure(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"
