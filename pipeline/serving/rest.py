"""REST on the same engine as the stream: score one image, health, where metrics are."""

import asyncio
import json
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field, ValidationError

from model import ModelError, Region, encode_heat_png, encode_mask_png
from pipeline.contracts.events import Feedback, Verdict, event_id, in_words
from pipeline.contracts.names import camera_source, product_name
from pipeline.errors import (
    BrokerRefused,
    BrokerUnavailable,
    FeedbackRefused,
    ImageBroken,
    LinewatchError,
    ModelBroken,
    NameRefused,
    ProductUnknown,
    ServingError,
    StoreUnavailable,
)
from pipeline.kafka.answers import publish_answer
from pipeline.serving.bearer import Door
from pipeline.serving.door import tokens_of
from pipeline.stream.inspector import Inspector
from pipeline.telemetry import board, metrics

STATUS = {
    NameRefused: 400,
    ImageBroken: 422,
    ProductUnknown: 404,
    ModelBroken: 500,
    StoreUnavailable: 503,
    ServingError: 503,
    FeedbackRefused: 422,
    BrokerUnavailable: 503,
    BrokerRefused: 503,
}
FEEDBACK_BYTES = 65_536


class ScoreResponse(BaseModel):
    """What the event of this image would say."""

    product: str
    model_version: str
    score: float
    normalised_score: float = Field(description="score / threshold: 1.0 is the threshold")
    threshold: float
    verdict: Verdict
    regions: list[Region]
    width: int
    height: int


class BodyTooLarge(LinewatchError):
    pass


def build_app(
    inspector: Callable[[], Inspector],
    trouble: Callable[[], str | None],
    wait_reason: Callable[[], str] = str,
    targets: Callable[[], list[str]] = list,
) -> FastAPI:
    """The REST app. Its arguments are asked at each request, so the app can be built before what they ask.

    Args:
        trouble: why the replica is not healthy, or None.
        wait_reason: why its worker waits for a server, or nothing.
        targets: address and port of what serves the metrics of each node.
    """
    app = FastAPI(title="linewatch", docs_url="/docs", redoc_url=None)
    app.add_middleware(Door, tokens=lambda: tokens_of(inspector().settings.serving))

    @app.post("/v1/products/{product}/score", response_model=ScoreResponse)
    async def score(product: str, request: Request, answer: str | None = None) -> Response:
        """Score one encoded image (the request's body).

        The answer is JSON; with ``Accept: image/png`` or ``?answer=mask`` the 8-bit mask at the image's own size,
        with ``?answer=heat`` the 16-bit heat map (8192 = the threshold).
        """
        begun = time.perf_counter()
        wanted = answer or ("mask" if "image/png" in request.headers.get("accept", "") else "json")
        try:
            if wanted not in ("json", "mask", "heat"):
                raise NameRefused(f"answer={wanted[:40]!r}: it is json, mask or heat")
            data = await _body(request, inspector().settings.limits.image_bytes)
            response = await asyncio.to_thread(_score, inspector(), product, data, wanted)
        except (LinewatchError, ModelError) as error:
            response = _refusal(error)
        metrics.rest_seconds.labels(str(response.status_code)).observe(time.perf_counter() - begun)
        return response

    @app.post("/v1/events/{event}/feedback", response_model=Feedback, status_code=201)
    async def feedback(event: str, request: Request) -> Response:
        """Say whether the event's verdict was right. The body is a feedback message, with `image_id`, `camera`,
        `product` and `model_version` of the event; `feedback_id` and `given_at` are filled in where they are missing.

        Sent again with the same `feedback_id` it is the same answer.
        """
        try:
            said = _feedback(event, await _body(request, FEEDBACK_BYTES))
            await asyncio.to_thread(publish_answer, inspector().settings, said)
            return JSONResponse(said.model_dump(mode="json"), 201)
        except LinewatchError as error:
            return _refusal(error)

    @app.get("/healthz")
    def healthz() -> Response:
        """200 while the stream worker is alive, 503 with the reason where it is not.

        Waiting for a server is healthy; ``waiting`` says for which one, and why. So is a line that stands still, which
        no new replica would mend; ``stalled`` says why, since when and in which partition, for any replica of the node.
        """
        return _health(trouble, wait_reason)

    @app.get("/metrics/targets")
    def metrics_targets() -> Response:
        """Where each node's metrics are, as Prometheus's ``http_sd_configs`` reads it."""
        scheme = "https" if inspector().settings.serving.tls_cert_file else "http"
        return JSONResponse([{"targets": targets(), "labels": {"__scheme__": scheme}}])

    return app


def _health(trouble: Callable[[], str | None], wait_reason: Callable[[], str]) -> Response:
    reason, waiting = None, ""
    try:
        reason, waiting = trouble(), wait_reason()
    except ServingError as error:
        reason = str(error)
    stalls = [one.told() for one in board.stalls()]
    told = {
        "healthy": reason is None,
        "reason": reason,
        "waiting": waiting or None,
        "stalled": stalls[0] if stalls else None,
        "stalls": stalls,
    }
    return JSONResponse(told, 200 if reason is None else 503)


def _feedback(event: str, body: bytes) -> Feedback:
    try:
        values = json.loads(body)
        filled = {"feedback_id": uuid.uuid4().hex, "given_at": datetime.now(UTC), **values, "event_id": event}
        said = Feedback.model_validate(filled)
    except ValidationError as error:
        raise FeedbackRefused(in_words(error)) from None
    except (ValueError, TypeError):
        raise FeedbackRefused("the body is no JSON object: it is a feedback message (docs/topics.md)") from None
    product_name(said.product)
    if camera_source(said.camera) != said.camera or event_id(said.image_id, said.model_version) != event:
        raise FeedbackRefused(
            f"{event[:40]!r} is not the event of image {said.image_id[:80]!r} by version {said.model_version}: send "
            "event_id, image_id, camera, product and model_version as the event has them"
        )
    return said


def _score(inspector: Inspector, product: str, data: bytes, wanted: str) -> Response:
    version = inspector.champions.version(product_name(product))
    key = f"{product}/{version}"
    frame = inspector.read(data, key)
    scored = inspector.score([frame], [key])[0]
    findings = inspector.cut(scored)
    headers = {
        "linewatch-verdict": scored.verdict,
        "linewatch-normalised-score": f"{scored.normalised_score:.6f}",
        "linewatch-model-version": version,
    }
    if wanted == "mask":
        return Response(encode_mask_png(findings.mask), media_type="image/png", headers=headers)
    if wanted == "heat":
        return Response(encode_heat_png(scored), media_type="image/png", headers=headers)
    body = ScoreResponse(
        product=product,
        model_version=version,
        score=scored.score,
        normalised_score=scored.normalised_score,
        threshold=scored.threshold,
        verdict=scored.verdict,
        regions=list(findings.regions),
        width=scored.width,
        height=scored.height,
    )
    return JSONResponse(body.model_dump(mode="json"), headers=headers)


async def _body(request: Request, limit: int) -> bytes:
    """The request's body, read no further than ``limit`` bytes."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise BodyTooLarge(f"the image is larger than the limit of {limit} bytes")
        parts.append(part)
    return b"".join(parts)


def _refusal(error: Exception) -> JSONResponse:
    status = 413 if isinstance(error, BodyTooLarge) else STATUS.get(type(error), 500)
    kind = error.error_class if isinstance(error, ImageBroken) else type(error).__name__
    return JSONResponse({"error": kind, "message": str(error)}, status)
