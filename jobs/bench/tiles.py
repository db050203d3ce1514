"""`linewatch bench tiles`: small defects on large images, by tiles and by resizing, side by side.

Mosaics of a category's good photographs, of at least 2,048 pixels a side, get made-up defects of some 20 pixels with
exact masks: photographs of that size with such defects drawn by hand are not to be had freely. Training mosaics are of
training photographs, test mosaics of good test photographs. Both ways learn from the same mosaics, with the same seed,
steps and size of network input.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.table import Table

from jobs.fitting.datasets import GOOD, SUFFIXES, DatasetError
from jobs.session.progress import Screen
from model import Engine, Fit, FitOptions, Frame, image_auroc, pixel_auroc
from model.bench.machine import describe_machine
from model.maps.resampling import upsample
from model.measures.region_metrics import aupro

DEFECT_PX = 20
GOOD_EVERY = 3
MEASURED_AT = 512
"""Side that maps and masks are measured at: 20 pixels of 2,048 are 5 there, and all pixels would take an hour."""
Report = dict[str, Any]
OnPhase = Callable[[str, int, int], None]


@dataclass(frozen=True)
class MosaicRun:
    """side: of a mosaic in pixels; train, test: how many. Every third test mosaic is good."""

    folder: Path
    side: int = 2048
    train: int = 20
    test: int = 18
    options: FitOptions = field(default_factory=FitOptions)


def mosaic(photographs: Sequence[Path], side: int, rng: np.random.Generator) -> np.ndarray:
    """uint8 [side, side, 3]: photographs in rows at their own scale, each mirrored or not, row by row."""
    canvas = np.zeros((side, side, 3), dtype=np.uint8)
    top = 0
    while top < side:
        left, height = 0, side
        while left < side:
            with Image.open(photographs[int(rng.integers(len(photographs)))]) as image:
                pixels = np.asarray(image.convert("RGB"))
            pixels = pixels[:, ::-1] if rng.random() < 0.5 else pixels
            height = min(height, pixels.shape[0])
            piece = pixels[: side - top, : side - left]
            canvas[top : top + piece.shape[0], left : left + piece.shape[1]] = piece
            left += pixels.shape[1]
        top += height
    return canvas


def with_defects(pixels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """One to three stains, pits or scratches of some 20 pixels -> the image, and their mask, bool [H, W]."""
    spoiled, mask = pixels.astype(np.float32), np.zeros(pixels.shape[:2], dtype=bool)
    y, x = np.mgrid[-DEFECT_PX : DEFECT_PX + 1, -DEFECT_PX : DEFECT_PX + 1].astype(np.float32)
    for _ in range(int(rng.integers(1, 4))):
        across = rng.uniform(0.8, 1.2) * DEFECT_PX / 2
        angle = rng.uniform(0, np.pi)
        along_angle, beside = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
        thickness = across * rng.choice([0.2, 0.6, 1.0])  # a scratch, an oblong pit, a round stain
        ragged = 1 + 0.25 * np.sin(np.arctan2(y, x) * rng.integers(3, 8) + rng.uniform(0, 6))
        inside = (along_angle / across) ** 2 + (beside / thickness) ** 2 < ragged
        top, left = (int(rng.integers(0, pixels.shape[axis] - inside.shape[0])) for axis in (0, 1))
        at = np.s_[top : top + inside.shape[0], left : left + inside.shape[1]]
        # Some of the ground shows through, and the change is as strong as that of a crack or an oil stain.
        change = rng.choice([-1, 1]) * rng.uniform(25, 60) + rng.normal(0, 6, (*inside.shape, 1))
        spoiled[at] += np.where(inside[..., None], change, 0)
        mask[at] |= inside
    return np.clip(spoiled, 0, 255).astype(np.uint8), mask


def bench_tiles(run: MosaicRun, json_file: Path | None, command: str, screen: Screen) -> Report:
    """Measure, write the report and show it. Raises DatasetError, ModelError."""
    with screen.runs("Tiles") as (on_run, on_phase):
        report: Report = {
            "command": command,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": describe_machine(),
            "side_px": run.side,
            "defect_px": DEFECT_PX,
            "train_mosaics": run.train,
            "test_mosaics": run.test,
            "options": run.options.model_dump(mode="json", exclude={"tiles", "cache_limit_bytes"}),
        }
        train, test, masks = _mosaics(run)
        for done, (way, tiled) in enumerate((("resized", False), ("tiles", True))):
            on_run(way, done, 2)
            report[way] = _measure(run, tiled, train, test, masks, on_phase)
        on_run("done", 2, 2)
    tiles, resized = report["tiles"], report["resized"]
    report["tiles_ahead"] = {name: round(tiles[name] - resized[name], 4) for name in tiles}
    if json_file:
        json_file.write_text(json.dumps(report, indent=2) + "\n")
    title = f"{run.test} mosaics of {run.side} px, defects of {DEFECT_PX} px"
    table = Table("measure", "resized", "tiles", title=title)
    for name in tiles:
        table.add_row(name, f"{resized[name]:.4f}", f"{tiles[name]:.4f}")
    screen.console.print(table)
    return report


def _mosaics(run: MosaicRun) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    """Training mosaics, test mosaics, and the masks of these."""
    train_files, test_files = (_photographs(run.folder / part / GOOD) for part in ("train", "test"))
    seed = run.options.seed
    train = [mosaic(train_files, run.side, np.random.default_rng((seed, 0, n))) for n in range(run.train)]
    test, masks = [], []
    for number in range(run.test):
        rng = np.random.default_rng((seed, 1, number))
        pixels, mask = mosaic(test_files, run.side, rng), np.zeros((run.side, run.side), dtype=bool)
        if number % GOOD_EVERY:
            pixels, mask = with_defects(pixels, rng)
        test.append(pixels)
        masks.append(mask)
    return train, test, masks


def _photographs(folder: Path) -> list[Path]:
    files = sorted(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES)
    if not files:
        raise DatasetError(f"{folder} has no photographs; give a category in the layout of MVTec AD")
    return files


def _measure(
    run: MosaicRun,
    tiled: bool,
    train: Sequence[np.ndarray],
    test: Sequence[np.ndarray],
    masks: Sequence[np.ndarray],
    on_phase: OnPhase,
) -> dict[str, float]:
    size = run.options.size

    def frame(pixels: np.ndarray) -> Frame:
        if tiled:
            return Frame(pixels, run.side, run.side)
        small = Image.fromarray(pixels).resize((size, size), Image.Resampling.BILINEAR)
        return Frame(np.asarray(small), run.side, run.side)

    options = run.options.model_copy(update={"tiles": tiled})
    held_out = max(5, run.train // 4)
    good = [frame(pixels) for pixels in train]
    fit = Fit("mosaic", good[held_out:], good[:held_out], options)
    bundle = fit.run(lambda step: on_phase(step.phase, step.step, step.steps))
    engine = Engine(lambda _: bundle)
    scores, maps = [], []
    for number, pixels in enumerate(test):
        on_phase("scoring", number, len(test))
        (result,) = engine.score([frame(pixels)], ["mosaic"])
        scores.append(result.normalised_score)
        maps.append(upsample(result.anomaly_map, MEASURED_AT, MEASURED_AT))
    small = [_reduced(mask) for mask in masks]
    return {
        "image_auroc": round(image_auroc(scores, [bool(mask.any()) for mask in masks]), 4),
        "pixel_auroc": round(pixel_auroc(maps, small), 4),
        "aupro": round(aupro(maps, small, 0.3), 4),
    }


def _reduced(mask: np.ndarray) -> np.ndarray:
    """A cell is defective where half of it is."""
    shrunk = Image.fromarray(mask.astype(np.uint8) * 255).resize((MEASURED_AT, MEASURED_AT), Image.Resampling.BOX)
    return np.asarray(shrunk) >= 128
