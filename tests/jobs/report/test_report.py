"""The report: one file that needs nothing else, escapes what it is told, and says what it leaves out."""

import base64
import hashlib
import io
import re
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jobs.report import InspectedImage, ProductSummary, RegionBox, Report, write_contact_sheet, write_page
from jobs.report.chart import score_chart
from jobs.report.choice import for_page, for_sheet
from jobs.report.colours import heat_colours, place, ramp
from jobs.report.pictures import read_pictures
from jobs.report.sheet import WIDTH, sheet_height
from model import Reading

WIDE, HIGH = 96, 64


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def inspected(
    number: int, score: float, truth: str | None = "good", product: str = "flange", **changes
) -> InspectedImage:
    mask = np.zeros((HIGH, WIDE), np.uint8)
    mask[10:30, 20:50] = 255 if score >= 1 else 0
    heat = np.full((HIGH, WIDE), 2000, np.uint16)
    heat[10:30, 20:50] = min(65535, int(8192 * score))
    row = InspectedImage(
        product=product,
        image_id=f"img-{number:04d}",
        camera="plant/hall/line-1/cam-2",
        image=png(np.full((HIGH, WIDE, 3), 90 + number % 100, np.uint8)),
        truth=truth,
        verdict="NotOK" if score >= 1 else "OK",
        normalised_score=score,
        model_version="v-20260101",
        regions=[RegionBox(20, 10, 30, 20, 600, score)] if score >= 1 else [],
        mask_png=png(mask),
        heat_png=png(heat),
        truth_mask_png=png(mask) if truth not in ("good", None) else None,
        latency_ms=12.5,
    )
    return replace(row, **changes)


def report_of(images: list[InspectedImage], **changes) -> Report:
    summary = ProductSummary(
        "flange",
        "v-20260101",
        1234,
        1233,
        17,
        19,
        23,
        801,
        402,
        0.9871,
        None,
        187.3,
        21.7,
        93.4,
        "threshold 2.3 from 54 images",
    )
    report = Report(
        "Night shift",
        datetime(2026, 1, 2, 3, 4, tzinfo=UTC),
        "embedded broker",
        [summary],
        images,
        31,
        37,
        41,
        ["A note."],
    )
    return replace(report, **changes)


def page_of(tmp_path: Path, report: Report, **options) -> str:
    path = tmp_path / "new" / "index.html"
    write_page(path, report, **options)
    return path.read_text(encoding="utf-8")


class Seen(HTMLParser):
    """Collects start tags with their attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


def test_the_page_loads_nothing(tmp_path: Path):
    html = page_of(tmp_path, report_of([inspected(1, 3.0, "dent"), inspected(2, 0.4)]))
    assert "http:" not in html
    assert "https:" not in html
    assert "url(" not in html.replace("url(#ramp)", "")
    assert "@import" not in html
    for tag, attributes in Seen(html).tags:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form")
        assert tag != "script" or "src" not in attributes
        assert tag != "img" or (attributes["src"] or "").startswith("data:image/")
        assert (attributes.get("href") or "#").startswith("#")


def test_the_policy_lets_only_the_pages_own_style_and_script_run(tmp_path: Path):
    html = page_of(tmp_path, report_of([inspected(1, 3.0, "dent")]))
    policy = next(tag["content"] for name, tag in Seen(html).tags if tag.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in policy
    for element in ("style", "script"):
        bodies = re.findall(f"<{element}>(.*?)</{element}>", html, re.DOTALL)
        assert len(bodies) == 1
        digest = base64.b64encode(hashlib.sha256(bodies[0].encode()).digest()).decode()
        assert f"{element}-src 'sha256-{digest}'" in policy
    assert not any("style" in attributes for _, attributes in Seen(html).tags), "the policy would refuse it"


def test_everything_told_is_escaped(tmp_path: Path):
    hostile = "<script>alert('x')</script>\"'><img src=x onerror=alert(1)>"
    row = inspected(
        1, 2.0, hostile, product=hostile, camera=hostile, image_id=hostile, model_version=hostile, verdict=hostile
    )
    summary = ProductSummary(hostile, hostile, 1, 1, 0, 0, 0, 1, 0)
    html = page_of(tmp_path, report_of([row], title=hostile, servers=hostile, notes=[hostile], summaries=[summary]))
    assert "<script>alert" not in html
    assert "<img src=x" not in html
    assert not any("onerror" in attributes for _, attributes in Seen(html).tags)
    assert sum(tag == "script" for tag, _ in Seen(html).tags) == 1
    assert "&lt;script&gt;alert" in html


def test_every_figure_is_on_the_page(tmp_path: Path):
    html = page_of(tmp_path, report_of([inspected(1, 2.345, "dent")]))
    tiles = dict(re.findall(r"<dt>([\w ]+)</dt><dd>([\d,]+)</dd>", html))
    assert tiles == {"Images": "1,234", "Events": "1,233", "Lost": "31", "Doubled": "37", "Dead letters": "41"}
    for figure in (
        "<b>17</b>",
        "of 801 good · 2.1 %",
        "(1.24 % to 3.38 %)",
        "<b>19</b>",
        "of 402 defective · 4.7 %",
        "<b>23</b>",
        "0.9871",
        "–",
    ):
        assert figure in html
    for figure in ("187.3", "21.7", "93.4", "2.35", "12.5 ms", "v-20260101", "dent", "plant/hall/line-1/cam-2"):
        assert figure in html
    for text in (
        "flange, as calibrated: threshold 2.3 from 54 images.",
        "Night shift",
        "embedded broker",
        "A note.",
        "2026-01-02 03:04:00 UTC",
    ):
        assert text in html


def test_the_gallery_is_sorted_by_score_and_counts_mistakes(tmp_path: Path):
    rows = [
        inspected(n, score, truth) for n, (score, truth) in enumerate([(0.5, "good"), (3.0, "dent"), (1.2, "good")])
    ]
    rows += [inspected(8, 0.7, "dent"), inspected(9, 0.95, None, verdict="NotDecidable")]
    done: list[tuple[int, int]] = []
    html = page_of(tmp_path, report_of(rows), on_image=lambda *at: done.append(at))
    scores = [float(score) for score in re.findall(r'class="score">([\d.]+)', html)]
    assert scores == [3.0, 1.2, 0.95, 0.7, 0.5]
    counts = re.findall(r'data-tag-filter="([^"]+)".*?class="count">(\d+)<', html)
    assert dict(counts) == {
        "all": "5", "NotOK": "2", "NotDecidable": "1", "OK": "2", "false rejects": "1", "escapes": "1"
    }  # fmt: skip
    assert done == [(number, 5) for number in range(1, 6)]


def test_the_page_says_how_many_images_it_leaves_out(tmp_path: Path):
    rows = [inspected(n, 0.2 + n / 100) for n in range(30)] + [inspected(n, 2.0, "dent") for n in range(30, 34)]
    html = page_of(tmp_path, report_of(rows), per_product=10)
    assert "flange: 10 of 34 images are on this page" in html
    assert "Left out to keep it small: 24 OK." in html
    assert html.count('<article class="card"') == 10


def test_what_a_person_must_see_comes_before_what_is_in_order():
    fine = [inspected(n, 0.1 + n / 1000) for n in range(50)]
    caught = [inspected(n, 2.0, "dent") for n in range(50, 60)]
    wrong = [inspected(60, 0.3, "dent"), inspected(61, 1.1, "good"), inspected(62, 0.9, verdict="NotDecidable")]
    chosen = for_page([*fine, *caught, *wrong], 20)
    assert len(chosen) == 20
    assert {row.image_id for row in wrong + caught} <= {row.image_id for row in chosen}
    spread = [row.normalised_score for row in chosen if row.outcome == "right" and row.verdict == "OK"]
    assert max(spread) == max(row.normalised_score for row in fine)
    assert min(spread) == min(row.normalised_score for row in fine)


def test_outcomes_use_the_words_of_the_field():
    cases = [(2.0, "good", "false reject"), (0.5, "dent", "escape"), (0.5, "good", "right"), (2.0, None, "unknown")]
    assert [inspected(0, score, truth).outcome for score, truth, _ in cases] == [outcome for _, _, outcome in cases]
    assert inspected(0, 0.9, "dent", verdict="NotDecidable").outcome == "review"


@pytest.mark.parametrize("broken", [b"not a picture", b"\x89PNG\r\n\x1a\nbroken", png(np.zeros((4, 4), np.uint8))])
def test_a_broken_heat_map_is_named_and_the_page_still_comes_out(tmp_path: Path, broken: bytes):
    report = report_of([inspected(1, 2.0, "dent", heat_png=broken), inspected(2, 0.5, heat_png=None)])
    html = page_of(tmp_path, report)
    assert html.count("heat map unreadable") == 1
    assert html.count('class="layer heat"') == 0
    write_contact_sheet(tmp_path / "sheet.png", report)


def test_broken_images_and_masks_are_named(tmp_path: Path):
    html = page_of(tmp_path, report_of([inspected(1, 2.0, "dent", image=b"", mask_png=b"x", truth_mask_png=b"x")]))
    assert "image missing, mask unreadable, truth mask unreadable" in html


def test_a_picture_of_12_bits_is_shown_as_it_was_judged():
    gray = np.linspace(0, 4095, HIGH * WIDE).reshape(HIGH, WIDE).astype(np.uint16)
    row = inspected(1, 0.5, image=png(gray), reading=Reading(bit_depth=12))
    shown = np.asarray(read_pictures(row, WIDE).photo)
    assert np.abs(shown[..., 0] - gray / 4095 * 255).max() < 1
    assert read_pictures(replace(row, reading=Reading()), WIDE).trouble == ("image unreadable",)


def test_a_report_without_images_is_a_page(tmp_path: Path):
    empty = report_of([], summaries=[], notes=[])
    assert "Night shift" in page_of(tmp_path, empty)
    write_contact_sheet(tmp_path / "sheet.png", empty)


def test_the_chart_keeps_the_threshold_between_bars_and_marks_the_wrong_side():
    rows = [inspected(n, score, truth) for n, (score, truth) in enumerate([
        (0.999, "good"), (1.0, "good"), (0.0, "good"), (1.001, "dent"), (0.999, "dent"), (300.0, "dent"), (0.5, None)
    ])]  # fmt: skip
    chart = score_chart(rows)
    good, bad, unknown = chart.rows
    assert (good.count, bad.count, unknown.count) == (3, 3, 1)
    for row in (good, bad):
        for bar in row.bars:
            above = bar.x >= chart.threshold_x
            assert above or bar.x + bar.width <= chart.threshold_x
            assert bar.wrong == (above if row is good else not above)
    assert "good: 1 of 3 above the threshold" in chart.summary


def test_the_colour_scale_rises_evenly_and_puts_the_threshold_in_the_middle():
    linear = (ramp() / 255.0) ** 2.2
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(luminance) > -1e-3).all(), "the order must survive in greyscale"
    assert place(1.0) == 0.5
    assert place(float("inf")) == 1.0
    alpha = heat_colours(np.array([[0.1, 0.4, 1.0, 9.0]], np.float32))[0, :, 3]
    assert alpha[0] == alpha[1] == 0
    assert alpha[3] >= alpha[2] > 150


def test_the_contact_sheet_has_the_promised_size_and_shows_worst_borderline_and_good(tmp_path: Path):
    rows = [inspected(n, 0.2 + n / 20, "good" if n < 16 else "dent") for n in range(60)]
    rows += [inspected(n, 0.4, product="twill") for n in range(2)]
    path = tmp_path / "new" / "sheet.png"
    write_contact_sheet(path, report_of(rows), per_product=12)
    with Image.open(path) as sheet:
        assert sheet.format == "PNG"
        assert sheet.size == (WIDTH, sheet_height([12, 2]))
    chosen = [row.normalised_score for row in for_sheet(rows[:60], 12)]
    assert chosen == sorted(chosen, reverse=True)
    assert len(chosen) == 12
    assert max(chosen) == rows[59].normalised_score
    assert min(chosen) == rows[0].normalised_score
    assert sum(abs(score - 1) < 0.2 for score in chosen) >= 4


def ignored() -> bytes:
    area = np.zeros((HIGH, WIDE), np.uint8)
    area[40:] = 255
    return png(area)


def test_an_ignored_area_is_hatched_on_page_and_sheet_and_its_share_is_told(tmp_path: Path) -> None:
    rows = [inspected(number, 0.4, ignored_png=ignored()) for number in range(3)]
    plain = report_of([replace(row, ignored_png=None) for row in rows])
    told = replace(report_of(rows), summaries=[replace(plain.summaries[0], ignored_share=0.375)])
    pages = [tmp_path / "plain.html", tmp_path / "told.html"]
    sheets = [tmp_path / "plain.png", tmp_path / "told.png"]
    for report, page, sheet in zip((plain, told), pages, sheets, strict=True):
        write_page(page, report)
        write_contact_sheet(sheet, report)
    without, with_area = (page.read_text() for page in pages)
    assert "37.5 % of each image is ignored" in with_area
    assert with_area.count('class="layer ignored ignored-0"') == 3
    assert with_area.count('data-layer="ignored"') == 2
    (uri,) = re.findall(r"\.ignored-0 \{ background-image: url\(data:image/png;base64,([^)]+)\)", with_area)
    layer = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri))).convert("RGBA"))
    assert not layer[:40, :, 3].any()
    assert layer[40:, :, 3].all()
    assert not re.search(r'class="layer ignored|data-layer="ignored"|is ignored', without)
    one, other = (np.asarray(Image.open(sheet).convert("RGB")).astype(int) for sheet in sheets)
    changed = np.abs(one - other).any(axis=2)
    assert one.shape == other.shape
    assert changed.any(axis=1).sum() >= 24  # the lower rows of the panels, and the heading


def test_a_defect_in_the_ignored_area_alone_is_no_escape() -> None:
    row = inspected(1, 0.4, "scratch")
    assert row.outcome == "escape"
    assert replace(row, out_of_sight=True).outcome == "unknown"
