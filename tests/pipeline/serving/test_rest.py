"""REST answers with what the stream would say of the same image, and refuses in words."""

import asyncio
import base64
import io
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from PIL import Image
from prometheus_client import generate_latest

from model import ModelBundle, decode_heat_png, drawn_area
from pipeline.contracts.events import InspectionEvent
from pipeline.fakes import MemoryBroker, MemoryStore
from pipeline.serving.rest import build_app
from pipeline.settings import Settings
from pipeline.stream.inspector import Inspector
from pipeline.stream.worker import StreamWorker
from pipeline.telemetry import board
from pipeline.telemetry.board import Stall
from tests.pipeline.tiny import SIDE, message, publish, texture

URL = "/v1/products/bottle/score"
trouble: list[str] = []
waiting: list[str] = []


@pytest.fixture(scope="module")
def inspector(tiny_bundle: ModelBundle) -> Inspector:
    store = MemoryStore()
    publish(store, tiny_bundle)
    values = {"engine": {"device": "cpu", "threads": 1}, "limits": {"image_bytes": 100_000}}
    return Inspector(Settings.from_values({**values, "stream": {"release_poll_s": 0.001}}), store)


class Client:
    """Asks the app in this process, without a socket."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app

    def get(self, url: str) -> httpx.Response:
        return asyncio.run(self._ask("GET", url))

    def post(self, url: str, **request: Any) -> httpx.Response:
        return asyncio.run(self._ask("POST", url, **request))

    async def _ask(self, method: str, url: str, **request: Any) -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(self._app), base_url="http://test") as client:
            return await client.request(method, url, **request)


@pytest.fixture
def client(inspector: Inspector) -> Client:
    trouble.clear()
    waiting.clear()
    return Client(build_app(lambda: inspector, lambda: trouble[0] if trouble else None, lambda: "".join(waiting)))


def refusal(response: Any, status: int) -> str:
    assert response.status_code == status, response.text
    body = response.json()
    assert set(body) == {"error", "message"}
    assert "\n" not in body["message"]
    return str(body["error"])


def test_a_good_image_is_ok_and_a_spot_is_found(client: Client) -> None:
    good = client.post(URL, content=texture(101)).json()
    assert (good["verdict"], good["regions"]) == ("OK", [])
    spotted = client.post(URL, content=texture(101, spot=True)).json()
    assert spotted["verdict"] != "OK"
    assert spotted["normalised_score"] == pytest.approx(spotted["score"] / spotted["threshold"])
    region = spotted["regions"][0]
    assert 30 <= region["x"] + region["width"] / 2 <= 60
    assert (spotted["width"], spotted["height"]) == (SIDE, SIDE)


def test_rest_and_stream_give_the_same_score(client: Client, inspector: Inspector, eventually) -> None:
    broker = MemoryBroker()
    worker = StreamWorker(inspector, lambda: broker.session("linewatch.images"))
    images = {f"img-{number}": texture(300 + number, spot=number % 2 == 0) for number in range(6)}
    for name, data in images.items():
        broker.produce(message(name, data))
    worker.start()
    try:
        eventually(lambda: len(broker.read("linewatch.events")) == len(images))
    finally:
        worker.stop()
    for record in broker.read("linewatch.events"):
        event = InspectionEvent.model_validate_json(record.value or b"")
        answer = client.post(URL, content=images[event.image_id]).json()
        assert answer["normalised_score"] == pytest.approx(event.normalised_score, abs=1e-4)
        assert (answer["verdict"], answer["model_version"]) == (event.verdict, event.model_version)


def test_the_mask_is_given_by_accept_and_by_answer(client: Client) -> None:
    data = texture(101, spot=True)
    by_accept = client.post(URL, content=data, headers={"accept": "image/png"})
    by_answer = client.post(URL, params={"answer": "mask"}, content=data)
    assert by_accept.content == by_answer.content
    assert by_accept.headers["content-type"] == "image/png"
    assert by_accept.headers["linewatch-verdict"] != "OK"
    assert float(by_accept.headers["linewatch-normalised-score"]) > 0
    mask = np.asarray(Image.open(io.BytesIO(by_accept.content)))
    assert mask.shape == (SIDE, SIDE)
    assert mask[30:60, 30:60].any()


def test_the_heat_map_is_given_where_asked_for(client: Client) -> None:
    answer = client.post(URL, params={"answer": "heat"}, content=texture(101, spot=True))
    heat = decode_heat_png(answer.content)
    assert heat.shape == (SIDE, SIDE)
    assert heat.max() == pytest.approx(float(answer.headers["linewatch-normalised-score"]), abs=0.05)


@pytest.mark.parametrize(
    ("data", "error"),
    [(b"", "EmptyImage"), (b"no image at all", "UnsupportedFormat"), (texture(1)[:2000], "UnreadableImage")],
)
def test_what_is_no_image_is_422_with_the_class_of_its_dead_letter(client: Client, data: bytes, error: str) -> None:
    assert refusal(client.post(URL, content=data), 422) == error


def test_an_image_wrapped_in_text_is_told_what_to_send(client: Client) -> None:
    form = client.post(URL, files={"image": ("part.png", texture(1), "image/png")})
    text = client.post(URL, content=base64.b64encode(texture(1)))
    url = client.post(URL, content=b"data:image/png;base64," + base64.b64encode(texture(1)))
    for answer, words in ((form, "a multipart form"), (text, "base64 text"), (url, "a data: URL")):
        assert refusal(answer, 422) == "UnsupportedFormat"
        assert words in answer.json()["message"]
        assert "send the" in answer.json()["message"]


def test_an_ignored_area_holds_and_an_image_of_another_size_is_422(
    client: Client, inspector: Inspector, tiny_bundle: ModelBundle
) -> None:
    area = drawn_area([((0, 0), (SIDE, 0), (0, SIDE))], SIDE, SIDE)
    version = publish(inspector.store, tiny_bundle, "plate", ignore=area.model_dump())
    url = "/v1/products/plate/score"
    key = f"plate/{version}"
    for data in (texture(101), texture(101, spot=True)):
        (offline,) = inspector.score([inspector.read(data, key)], [key])
        assert client.post(url, content=data).json()["score"] == pytest.approx(offline.score, rel=1e-4)
        mask = np.asarray(Image.open(io.BytesIO(client.post(url, params={"answer": "mask"}, content=data).content)))
        assert not mask[area.mask_HW].any()
    buffer = io.BytesIO()
    Image.open(io.BytesIO(texture(101))).resize((SIDE // 2, SIDE // 2)).save(buffer, "PNG")
    answer = client.post(url, content=buffer.getvalue())
    assert refusal(answer, 422) == "SizeDiffers"
    assert f"{SIDE // 2} x {SIDE // 2}" in answer.json()["message"]


def test_an_unknown_product_is_404_and_an_impossible_one_400(client: Client) -> None:
    assert refusal(client.post("/v1/products/newcomer/score", content=texture(1)), 404) == "ProductUnknown"
    for name in ("bottle%0A", "..%5Cx", "b" * 65):
        assert refusal(client.post(f"/v1/products/{name}/score", content=texture(1)), 400) == "NameRefused"
    assert refusal(client.post(URL, params={"answer": "poem"}, content=texture(1)), 400) == "NameRefused"


def test_a_body_over_the_limit_is_413_and_read_no_further(client: Client) -> None:
    read = 0

    async def long() -> AsyncIterator[bytes]:
        nonlocal read
        for _ in range(50):
            read += 1
            yield b"\0" * 50_000

    assert refusal(client.post(URL, content=b"\0" * 100_001), 413) == "BodyTooLarge"
    assert refusal(client.post(URL, content=long()), 413) == "BodyTooLarge"
    assert read == 3


def test_a_silent_store_is_503(client: Client, inspector: Inspector, tiny_bundle: ModelBundle) -> None:
    store = inspector.store
    assert isinstance(store, MemoryStore)
    publish(store, tiny_bundle, "lid")
    store.outages = 1
    assert refusal(client.post("/v1/products/lid/score", content=texture(1)), 503) == "StoreUnavailable"
    assert client.post("/v1/products/lid/score", content=texture(1)).status_code == 200


def test_a_model_that_cannot_be_loaded_is_500_with_its_reason(client: Client, inspector, tiny_bundle) -> None:
    publish(inspector.store, tiny_bundle, "cap")
    inspector.store.objects["models/cap/aliases/champion.json"] = b"{}"
    assert refusal(client.post("/v1/products/cap/score", content=texture(1)), 500) == "ModelBroken"


def test_health_follows_the_worker(client: Client) -> None:
    well = {"healthy": True, "reason": None, "waiting": None, "stalled": None, "stalls": []}
    assert client.get("/healthz").json() == well
    waiting.append("S3 refused to write 'x': AccessDenied")
    answer = client.get("/healthz")
    assert (answer.status_code, answer.json()["waiting"]) == (200, "S3 refused to write 'x': AccessDenied")
    trouble.append("no heartbeat of the worker for 99 s")
    answer = client.get("/healthz")
    assert (answer.status_code, answer.json()["reason"]) == (503, "no heartbeat of the worker for 99 s")


def test_metrics_have_names_with_units(client: Client) -> None:
    client.post(URL, content=texture(1))
    text = generate_latest().decode()
    for name in (
        "linewatch_images_total",
        "linewatch_deadletters_total",
        "linewatch_stage_seconds_bucket",
        "linewatch_rest_seconds_count",
        "linewatch_capture_to_commit_seconds",
        "linewatch_buffered_bytes",
        "linewatch_commits_lost_total",
        "linewatch_paused",
        "linewatch_sessions_total",
        "linewatch_waits_total",
        "linewatch_batch_images",
    ):
        assert name in text
    assert 'linewatch_rest_seconds_count{status="200"}' in text


def test_prometheus_is_told_where_metrics_are(inspector: Inspector) -> None:
    found = ["10.0.0.7:9464", "10.0.0.8:9464"]
    asked = Client(build_app(lambda: inspector, lambda: None, targets=lambda: found))
    assert asked.get("/metrics/targets").json() == [{"targets": found, "labels": {"__scheme__": "http"}}]
    assert asked.get("/metrics").status_code == 404, "one way to do a thing"


def test_a_line_that_stands_still_is_told_and_is_no_ill_health(client: Client) -> None:
    first, second = (Stall(f"no right {hour}", datetime(2026, 1, 31, hour, tzinfo=UTC), None) for hour in (1, 2))
    board.put_up([second, first])
    try:
        answer = client.get("/healthz")
    finally:
        board.put_up([])
    assert answer.status_code == 200
    told = answer.json()
    assert told["healthy"]
    assert told["stalled"] == {"reason": "no right 1", "since": "2026-01-31T01:00:00Z", "partition": None}
    assert [one["reason"] for one in told["stalls"]] == ["no right 1", "no right 2"]
    assert client.get("/healthz").json()["stalled"] is None
