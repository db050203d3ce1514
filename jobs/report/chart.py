"""The score chart of a product: small histograms of good, defective and unknown images over one logarithmic axis."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, log2

from jobs.report.rows import GOOD, InspectedImage

WIDTH, ROW, LABELS = 640, 52, 96  # chart units: whole width, height of one row, room for its label
_BINS = 56
_RIGHT = 12
_SMALLEST, _LARGEST = 1 / 64, 4096  # scores beyond these share the outermost bins


@dataclass(frozen=True)
class Bar:
    x: float
    y: float
    width: float
    height: float
    wrong: bool  # on the other side of the threshold than the truth says
    title: str


@dataclass(frozen=True)
class Row:
    name: str
    style: str
    count: int
    baseline: float
    bars: list[Bar]


@dataclass(frozen=True)
class Tick:
    x: float
    label: str


@dataclass(frozen=True)
class Chart:
    height: int
    threshold_x: float
    rows: list[Row]
    ticks: list[Tick]
    summary: str  # for those who cannot see it


def score_chart(images: Sequence[InspectedImage]) -> Chart:
    """Lay out the chart. Bars of all rows share one scale."""
    groups = [
        ("good", "good", [image for image in images if image.truth == GOOD]),
        ("defective", "bad", [image for image in images if image.truth not in (GOOD, None)]),
        ("unknown", "unknown", [image for image in images if image.truth is None]),
    ]
    groups = [group for group in groups if group[2]]
    positions = [_octave(image.normalised_score) for image in images]
    low, high = min([*positions, -1.0]) - 0.1, max([*positions, 1.0]) + 0.1
    # The threshold falls on an edge between bins, or a bar would straddle it.
    step = (high - low) / _BINS
    low = -step * (floor(-low / step) + 1)
    high = low + step * (_BINS + 1)

    def x_of(octave: float) -> float:
        return LABELS + (WIDTH - LABELS - _RIGHT) * (octave - low) / (high - low)

    counts = [_count(group[2], low, step) for group in groups]
    tallest = max((max(row) for row in counts if row), default=1)
    rows = []
    for number, ((name, style, members), row) in enumerate(zip(groups, counts, strict=True)):
        baseline = 14.0 + ROW * (number + 1)
        bars = [
            _bar(
                x_of(low + at * step),
                x_of(low + (at + 1) * step),
                baseline,
                amount / tallest,
                amount,
                low + at * step,
                style,
            )
            for at, amount in enumerate(row)
            if amount
        ]
        rows.append(Row(name, style, len(members), baseline, bars))
    ticks = [
        Tick(x_of(octave), _multiple(octave))
        for octave in range(-6, 13, 1 if high - low < 9 else 2)
        if low <= octave <= high
    ]
    summary = "; ".join(
        f"{name}: {_beyond(members)} of {len(members)} above the threshold" for name, _, members in groups
    )
    return Chart(int(14 + ROW * len(rows) + 26), x_of(0.0), rows, ticks, summary)


def _octave(score: float) -> float:
    return log2(min(max(score, _SMALLEST), _LARGEST))


def _count(images: Sequence[InspectedImage], low: float, step: float) -> list[int]:
    row = [0] * (_BINS + 1)
    zero_bin = round(-low / step)  # the first bin above the threshold
    for image in images:
        at = floor((_octave(image.normalised_score) - low) / step + 1e-9)
        # Rounding must not carry a score over the threshold's line.
        at = max(at, zero_bin) if image.normalised_score >= 1 else min(at, zero_bin - 1)
        row[min(max(at, 0), _BINS)] += 1
    return row


def _bar(left: float, right: float, baseline: float, share: float, amount: int, octave: float, style: str) -> Bar:
    height = max(2.5, share * (ROW - 16))
    above = octave > -1e-9
    wrong = (style == "good" and above) or (style == "bad" and not above)
    title = f"{amount} at about {2**octave:.2f} × threshold"
    return Bar(left + 0.75, baseline - height, max(1.0, right - left - 1.5), height, wrong, title)


def _beyond(images: Sequence[InspectedImage]) -> int:
    return sum(image.normalised_score >= 1 for image in images)


def _multiple(octave: int) -> str:
    return f"{2**octave}" if octave >= 0 else f"1/{2**-octave}"
