"""The contact sheet: one PNG on which each product's worst, borderline and good images stand side by side."""

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from jobs.report import colours
from jobs.report.choice import for_sheet
from jobs.report.pictures import Colour, Pictures, blend_heat, hatch, outline, read_pictures
from jobs.report.rows import InspectedImage, ProductSummary, Report

PANEL, GAP, COLUMNS = 172, 4, 3  # a cell is three panels; pixels
MARGIN, GUTTER, HEAD, PRODUCT_HEAD, CAPTION = 28, 22, 92, 58, 46
CELL = 3 * PANEL + 2 * GAP
WIDTH = 2 * MARGIN + COLUMNS * CELL + (COLUMNS - 1) * GUTTER

_GROUND, _INK, _SOFT, _TROUGH, _EMPTY = (247, 248, 250), (22, 32, 43), (88, 101, 116), (214, 220, 227), (226, 231, 236)
_VERDICTS: dict[str, Colour] = {"OK": (15, 111, 92), "NotOK": (164, 38, 44), "NotDecidable": (143, 88, 0)}
_OVER, _UNDER = (209, 96, 61), (47, 143, 123)
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def write_contact_sheet(path: Path, report: Report, per_product: int = 24) -> None:
    """Write the sheet: image, heat map and outlined regions of up to ``per_product`` images for each product."""
    names = list(dict.fromkeys([row.product for row in report.summaries] + [row.product for row in report.images]))
    groups = [(name, for_sheet([row for row in report.images if row.product == name], per_product)) for name in names]
    sheet = Image.new("RGB", (WIDTH, sheet_height([len(rows) for _, rows in groups])), _GROUND)
    pen = ImageDraw.Draw(sheet)
    _heading(sheet, pen, report)
    top = HEAD + MARGIN
    for name, rows in groups:
        summary = next((summary for summary in report.summaries if summary.product == name), None)
        total = sum(row.product == name for row in report.images)
        _product_heading(pen, top, name, summary, f"{len(rows)} of {total} images shown")
        top += PRODUCT_HEAD
        for number, row in enumerate(rows):
            left = MARGIN + (number % COLUMNS) * (CELL + GUTTER)
            _cell(sheet, pen, left, top + (number // COLUMNS) * (PANEL + CAPTION), row)
        top += _lines(len(rows)) * (PANEL + CAPTION)
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, optimize=True)


def sheet_height(counts: list[int]) -> int:
    """Height in pixels of a sheet with so many images for each product."""
    return HEAD + 2 * MARGIN + sum(PRODUCT_HEAD + _lines(count) * (PANEL + CAPTION) for count in counts)


def _lines(count: int) -> int:
    return -(-count // COLUMNS)


def _font(size: int) -> Font:
    return ImageFont.load_default(size=size)


def _fitted(pen: ImageDraw.ImageDraw, text: str, font: Font, width: float) -> str:
    """The text, cut with three dots (Pillow's font has no ellipsis) where it is wider than ``width``."""
    if pen.textlength(text, font=font) <= width:
        return text
    while text and pen.textlength(text + "...", font=font) > width:
        text = text[:-1]
    return text + "..."


def _heading(sheet: Image.Image, pen: ImageDraw.ImageDraw, report: Report) -> None:
    room = WIDTH - 2 * MARGIN - 460
    pen.text((MARGIN, MARGIN - 6), _fitted(pen, report.title, _font(30), room), fill=_INK, font=_font(30))
    events = sum(summary.events for summary in report.summaries)
    images = sum(summary.images for summary in report.summaries)
    line = f"{report.created:%Y-%m-%d %H:%M}   {images:,} images   {events:,} events"
    line += f"   {report.lost} lost   {report.doubled} doubled   {report.deadletters} dead letters"
    pen.text((MARGIN, MARGIN + 36), _fitted(pen, line, _font(17), room), fill=_SOFT, font=_font(17))
    _legend(sheet, pen, WIDTH - MARGIN - 420, MARGIN)


def _legend(sheet: Image.Image, pen: ImageDraw.ImageDraw, left: int, top: int) -> None:
    """The heat scale with its ticks, and what the outlines mean."""
    width = 420
    strip = Image.fromarray(colours.ramp()[None, :, :]).resize((width, 14))
    sheet.paste(strip, (left, top))
    for tick in colours.LEGEND_TICKS:
        x = left + round(width * colours.place(tick))
        at_threshold = tick == 1
        pen.line((x, top - 4 if at_threshold else top + 14, x, top + 19), fill=_INK if at_threshold else _SOFT, width=2)
        label = "1 = threshold" if at_threshold else f"{tick:g}"
        pen.text((x, top + 21), label, fill=_INK if at_threshold else _SOFT, font=_font(14), anchor="ma")
    for at, colour, name in ((0, colours.MASK, "mask, in its box"), (190, colours.TRUTH, "truth, on the heat map")):
        pen.rectangle((left + at, top + 46, left + at + 12, top + 58), fill=colour, outline=_INK)
        pen.text((left + at + 18, top + 44), name, fill=_SOFT, font=_font(14))


def _product_heading(pen: ImageDraw.ImageDraw, top: int, name: str, summary: ProductSummary | None, shown: str) -> None:
    pen.line((MARGIN, top + 4, WIDTH - MARGIN, top + 4), fill=_TROUGH, width=2)
    title = _fitted(pen, name, _font(24), 500)
    pen.text((MARGIN, top + 14), title, fill=_INK, font=_font(24))
    text = shown
    if summary is not None:
        text += f"   model {summary.model_version}   {summary.false_rejects} of {summary.good} good falsely rejected"
        text += f"   {summary.escapes} of {summary.defective} defects escaped   {summary.reviews} to review"
        if summary.image_auroc is not None:
            text += f"   image AUROC {summary.image_auroc:.4f}"
        if summary.ignored_share is not None:
            text += f"   {summary.ignored_share:.1%} ignored (hatched)"
    left = MARGIN + pen.textlength(title, font=_font(24)) + 22
    pen.text((left, top + 20), _fitted(pen, text, _font(16), WIDTH - MARGIN - left), fill=_SOFT, font=_font(16))


def _cell(sheet: Image.Image, pen: ImageDraw.ImageDraw, left: int, top: int, row: InspectedImage) -> None:
    """Image, heat map, regions, and below them the score against the threshold, the verdict and the truth."""
    pictures = read_pictures(row, PANEL)
    for number, panel in enumerate((pictures.photo, _heat_panel(pictures), _region_panel(pictures, row))):
        x = left + number * (PANEL + GAP)
        pen.rectangle((x, top, x + PANEL - 1, top + PANEL - 1), fill=_EMPTY)
        if panel is None:
            pen.text((x + PANEL / 2, top + PANEL / 2), "no heat map", fill=_SOFT, font=_font(14), anchor="mm")
        else:
            sheet.paste(panel, (x + (PANEL - panel.width) // 2, top + (PANEL - panel.height) // 2))
    baseline = top + PANEL + 5
    pen.rectangle((left, baseline, left + CELL - 1, baseline + 3), fill=_TROUGH)
    over = row.normalised_score >= 1
    reach = round((CELL - 1) * colours.place(row.normalised_score))
    pen.rectangle((left, baseline, left + reach, baseline + 3), fill=_OVER if over else _UNDER)
    pen.rectangle((left + CELL // 2 - 1, baseline - 2, left + CELL // 2, baseline + 5), fill=_INK)
    pen.text((left, baseline + 10), f"{row.normalised_score:.2f} x", fill=_INK, font=_font(17))
    pen.text((left + 78, baseline + 10), row.verdict, fill=_VERDICTS.get(row.verdict, _INK), font=_font(17))
    truth = f"truth: {row.truth if row.truth is not None else 'unknown'}"
    if row.outcome in ("escape", "false reject"):
        truth = f"{row.outcome.upper()}   {truth}"
    truth = _fitted(pen, "   ".join([*pictures.trouble, truth]), _font(16), CELL - 200)
    pen.text((left + CELL - 1, baseline + 10), truth, fill=_SOFT, font=_font(16), anchor="ra")


def _heat_panel(pictures: Pictures) -> Image.Image | None:
    if pictures.heat is None:
        return None
    panel = hatch(blend_heat(pictures.photo, pictures.heat), pictures.ignored)
    if pictures.truth is not None:
        panel.paste(colours.TRUTH, mask=Image.fromarray(outline(pictures.truth, 1)))
    return panel


def _region_panel(pictures: Pictures, row: InspectedImage) -> Image.Image:
    panel = hatch(pictures.photo.copy(), pictures.ignored)
    if pictures.mask is not None:
        panel.paste(colours.MASK, mask=Image.fromarray(outline(pictures.mask, 1)))
    pen = ImageDraw.Draw(panel)
    across, down = panel.width / pictures.size[0], panel.height / pictures.size[1]
    for region in row.regions:
        box = (region.x * across - 2, region.y * down - 2)
        end = ((region.x + region.width) * across + 1, (region.y + region.height) * down + 1)
        pen.rectangle((box[0] - 1, box[1] - 1, end[0] + 1, end[1] + 1), outline=(10, 14, 20))
        pen.rectangle((*box, *end), outline=(255, 255, 255))
    return panel
