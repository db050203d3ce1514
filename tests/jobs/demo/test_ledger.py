"""The demo's books are closed once every event has its pictures."""

import io
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jobs.demo import ledger as books
from jobs.demo.ledger import Ledger
from jobs.fitting.datasets import LocalImage
from jobs.fitting.datasets.masks import encoded as stored
from jobs.line.replay import Shot
from model import ModelBundle, masked_area
from pipeline.contracts.broker import Record
from tests.jobs.fabricated import NOON, Stream
from tests.jobs.fitting.datasets.test_masks import encoded
from tests.pipeline.tiny import publish

LATE_S = 2.0


def test_pictures_that_come_after_their_events_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without transactions a replica may die between the two; its heir publishes both again."""
    stream = Stream()
    image = stream.image()
    event, mask = stream.event(image), stream.mask(image)

    class Follower:
        def __init__(self, *_: object, **__: object) -> None:
            pass

        def follow(self, stop: threading.Event) -> Iterator[Record]:
            yield event
            stop.wait(LATE_S)
            if not stop.is_set():
                yield mask

        def close(self) -> None:
            pass

    monkeypatch.setattr(books, "Follower", Follower)
    with closing(Ledger(stream.settings, stream.store)) as ledger:
        while not ledger.seen:
            time.sleep(0.01)
        ledger.settle(quiet_s=10)
    assert ledger.without_mask() == 0


def test_the_ignored_area_is_in_the_rows_and_defects_in_it_alone_in_no_figure(
    monkeypatch: pytest.MonkeyPatch, tiny_bundle: ModelBundle
) -> None:
    stream = Stream()
    half = np.zeros((4, 4), np.uint8)
    half[:, :2] = 255
    area = masked_area(encoded(half), 4, 4)
    version = publish(stream.store, tiny_bundle, ignore=area.model_dump())
    sources = {"left": half, "right": 255 - half, "good": None}
    records = []
    for name, truth in sources.items():
        image = stream.image(name=name)
        records += [stream.event(image, version), stream.mask(image, version)]
        heat = np.full((4, 4), 400, np.uint16)
        heat[:, 3] = 16000 if name == "right" else 400
        records.append(stream.mask(image, version, kind="heat", mask=encoded(heat)))
        Path(f"{name}.png").write_bytes(encoded(half))
        if truth is not None:
            Path(f"{name}_mask.png").write_bytes(encoded(truth))

    class Follower:
        def __init__(self, *_: object, **__: object) -> None:
            pass

        def follow(self, _: threading.Event) -> Iterator[Record]:
            yield from records

        def close(self) -> None:
            pass

    monkeypatch.setattr(books, "Follower", Follower)
    with closing(Ledger(stream.settings, stream.store)) as ledger:
        for name, truth in sources.items():
            masks = () if truth is None else (Path(f"{name}_mask.png"),)
            source = LocalImage(Path(f"{name}.png"), "spot" if masks else "good", True, masks)
            ledger.send(Shot(name, source.path, NOON), source, "bottle")
        ledger.settle(quiet_s=10)
    rows = {row.image_id: row for row in ledger.rows("bottle", list(sources))}
    assert {name for name, row in rows.items() if row.out_of_sight} == {"left"}
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(rows["good"].ignored_png or b""))), half)
    summary = ledger.summary("bottle", list(sources))
    assert (summary.images, summary.good, summary.defective, summary.escapes) == (3, 1, 1, 1)
    assert summary.ignored_share == 0.5
    # Of the defect's eight pixels that count, half are as hot as nothing else.
    assert summary.pixel_auroc == 0.75


def test_a_truth_is_drawn_from_all_its_parts_or_not_at_all() -> None:
    marked = np.zeros((40, 60), bool)
    marked[5:9, 10:20] = True
    for name, mask in {"a.png": marked, "b.png": marked[::-1], "small.png": marked[:20]}.items():
        Path(name).write_bytes(stored(mask))
    paths = (Path("a.png"), Path("b.png"))
    drawn = books._truth(LocalImage(Path("image.png"), "scratch", True, paths), 40, 60)
    assert drawn is not None
    assert drawn.tolist() == (marked | marked[::-1]).tolist()
    assert books._truth(LocalImage(Path("image.png"), "scratch", True, (Path("small.png"),)), 40, 60) is None
    assert books._truth(LocalImage(Path("image.png"), "scratch", True), 40, 60) is None
    good = books._truth(LocalImage(Path("image.png"), "good", True), 40, 60)
    assert good is not None
    assert not good.any()
