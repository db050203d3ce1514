"""A past event again: the same where nothing has changed, told apart where something has, named where it is gone."""

import io
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from kafka import TopicPartition
from PIL import Image

from jobs.cli import main
from jobs.past.reproduce import Gone, Reproduction, fetch_image, reproduce
from model import encode_mask_png
from pipeline.contracts.broker import Outgoing
from pipeline.contracts.events import SourceOffset
from pipeline.kafka.clients import admin_client, make_producer
from pipeline.kafka.topics import ensure_topics
from pipeline.settings import Settings
from tests.jobs.inspected_line import InspectedLine
from tests.jobs.line.test_stream_jobs import as_environment
from tests.pipeline.tiny import message, texture

apache_only = pytest.mark.parametrize("line", [pytest.param("apache", marks=pytest.mark.apache)], indirect=True)
both = pytest.mark.parametrize("line", [pytest.param("apache", marks=pytest.mark.apache), "tansu"], indirect=True)
MADE_UP = "0" * 31 + "1"


def refused(*arguments: str) -> str:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code != 0, result.output
    assert "Traceback" not in result.output
    return result.output


def test_a_folder_and_an_event_exclude_each_other() -> None:
    assert "exclude each other" in refused("replay", "photos", "--event", MADE_UP)
    assert "--product, --fps can't go with --event" in refused("replay", "--event", MADE_UP, "-p", "b", "--fps", "2")
    assert "give a FOLDER" in refused("replay")
    assert "'--product'" in refused("replay", "photos")
    assert "--out is for --event" in refused("replay", "photos", "-p", "b", "--out", "x")
    assert "can't be an event id" in refused("replay", "--event", "../x")


@pytest.mark.servers
@both
def test_an_event_is_the_same_again(line: InspectedLine, monkeypatch: pytest.MonkeyPatch) -> None:
    as_environment(line.settings, line.plant, monkeypatch)
    monkeypatch.setenv("LINEWATCH_ENGINE__THREADS", "1")
    monkeypatch.setenv("LINEWATCH_ENGINE__DEVICE", "cpu")
    event = line.live()["img-00"]
    again = CliRunner().invoke(main, ["replay", "--event", event.event_id, "--out", "evidence"])
    assert again.exit_code == 0, again.output
    for text in ("the same", "identical", "img-00", event.model_version, f"@{event.source.offset}"):
        assert text in again.output
    assert Path(f"evidence/{event.event_id}-image.png").read_bytes() == texture(100, spot=True)
    assert np.asarray(Image.open(f"evidence/{event.event_id}-mask.png")).any()
    assert np.asarray(Image.open(f"evidence/{event.event_id}-heat.png")).shape == (event.height, event.width)
    assert "no event" in refused("replay", "--event", MADE_UP)


@pytest.fixture
def changed(line: InspectedLine) -> Callable[..., Reproduction]:
    """Reproduces an event that says something else than the real one of img-00, on topics of its own."""
    settings = line.plant.settings(engine={"device": "cpu", "threads": 1})
    ensure_topics(settings)
    event = line.live()["img-00"]

    def run(mask: bytes | None = None, **changes: object) -> Reproduction:
        where = {"topic": settings.topics.masks, "event_id": MADE_UP, **({"sha256": "0" * 64} if mask else {})}
        told = event.model_copy(update={"event_id": MADE_UP, "mask": event.mask.model_copy(update=where), **changes})
        out = [Outgoing(settings.topics.events, b"k", told.model_dump_json().encode(), (("ce_id", MADE_UP.encode()),))]
        if mask:
            headers = (("ce_id", f"{MADE_UP}-mask".encode()), ("content-type", b"image/png"))
            out.insert(0, Outgoing(settings.topics.masks, b"k", mask, headers))
        send(settings, out)
        return reproduce(settings, line.store, MADE_UP, exact=line.broker.exact)

    return run


@pytest.mark.servers
@apache_only
def test_another_score_or_verdict_is_not_the_same(line: InspectedLine, changed: Callable[..., Reproduction]) -> None:
    found = changed(score=line.live()["img-00"].score * 1.001)
    assert (found.score_same, found.mask_same, found.same) == (False, True, False)


@pytest.mark.servers
@apache_only
def test_another_mask_is_told_by_its_pixels(changed: Callable[..., Reproduction]) -> None:
    mask = np.zeros((96, 96), np.uint8)
    mask[0, :7] = 255
    found = changed(mask=encode_mask_png(mask))
    now = np.asarray(Image.open(io.BytesIO(found.mask)))
    assert found.pixels_differing == np.sum(now != mask) > 7
    assert (found.score_same, found.mask_same, found.same) == (True, False, False)
    assert f"{found.pixels_differing} of 9216 pixels differ" in found.mask_in_words()
    assert Path("x", f"{MADE_UP}-mask-before.png") in found.write(Path("x"))


@pytest.mark.servers
@apache_only
def test_a_version_that_was_deleted_is_named(changed: Callable[..., Reproduction]) -> None:
    with pytest.raises(Gone, match=r"the version 20200101T000000Z-00000000 of bottle .* was deleted"):
        changed(model_version="20200101T000000Z-00000000")


@pytest.mark.servers
@apache_only
def test_an_image_that_is_gone_or_is_another_one_is_named(line: InspectedLine) -> None:
    settings = line.plant.settings()
    ensure_topics(settings)
    topic = settings.topics.images
    images = [Outgoing(topic, b"k", b"x", message(f"img-{n}", b"x").headers) for n in range(4)]
    send(settings, images[:3])
    partitions = [TopicPartition(topic, number) for number in (0, 1)]
    with admin_client(settings) as admin:
        low = admin.delete_records(dict.fromkeys(partitions, -1))  # all there is, as retention does it
    (held,) = [tp.partition for tp in partitions if low[tp]["low_watermark"]]
    send(settings, images[3:])

    def event(offset: int) -> tuple[str, str, SourceOffset]:
        return "an-event", "img-00", SourceOffset(topic=topic, partition=held, offset=offset)

    with pytest.raises(Gone, match="retention has deleted it"):
        fetch_image(settings, line.store, *event(1))
    with pytest.raises(Gone, match="holds image 'img-3', and not 'img-00'"):
        fetch_image(settings, line.store, *event(3))


def send(settings: Settings, messages: list[Outgoing]) -> None:
    with closing(make_producer(settings)) as producer:
        for one in messages:
            producer.send(one.topic, one.value, one.key, list(one.headers)).get(timeout=15)
