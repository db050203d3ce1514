"""Traces: an image's way through a replica as OpenTelemetry spans, of a sample of the images.

Off, unless `OTEL_EXPORTER_OTLP_ENDPOINT` (or `_TRACES_ENDPOINT`) names a receiver: nothing of OpenTelemetry is imported
until then. The variables are OpenTelemetry's own; linewatch only defaults the sampler to one trace in a hundred.

    inspect             child of the camera's span where the image has a traceparent
      fetch             from its batch's beginning to its bytes, from S3 where it is a claim check
      decode
      score             of the whole batch
      cut               mask, regions, messages
      publish           from its messages to the commit of the transaction that holds them
"""

import os
import time
from typing import Any

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
ONE_IN = 100
_tracer: Any = None


def set_up_traces() -> None:
    """Once in a process, before its first image."""
    global _tracer
    off = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if off or not any(os.environ.get(name) for name in _ENDPOINTS):
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import TraceIdRatioBased

    # By the trace's id alone: whoever sees it decides alike, and a camera that marks all its images does not decide.
    sampler = None if os.environ.get("OTEL_TRACES_SAMPLER") else TraceIdRatioBased(1 / ONE_IN)
    name = os.environ.get("OTEL_SERVICE_NAME", "linewatch")
    provider = TracerProvider(sampler=sampler, resource=Resource.create({"service.name": name}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    _tracer = provider.get_tracer("linewatch")
    _tracer.provider = provider


def close_traces() -> None:
    """Send what is still held."""
    global _tracer
    tracer, _tracer = _tracer, None
    if tracer:
        tracer.provider.shutdown()


class ImageTrace:
    """The spans of one image that was picked. Steps follow each other; each ends where the next begins or is told."""

    def __init__(self, span: Any, context: Any, began_ns: int) -> None:
        self._span, self._context, self._mark_ns = span, context, began_ns

    @property
    def traceparent(self) -> str:
        """What the image's event and mask carry: whoever reads them goes on from here."""
        found = self._span.get_span_context()
        return f"00-{found.trace_id:032x}-{found.span_id:016x}-{found.trace_flags:02x}"

    def starts(self) -> None:
        """Of a step that did not begin where the one before ended: it waited meanwhile."""
        self._mark_ns = time.time_ns()

    def done(self, step: str) -> None:
        """A step that has just ended."""
        now_ns = time.time_ns()
        span = _tracer.start_span(step, context=self._context, start_time=self._mark_ns) if _tracer else None
        if span:
            span.end(now_ns)
        self._mark_ns = now_ns

    def end(self, told: dict[str, object], error: str = "") -> None:
        """told: what the log says of the image too."""
        for name, value in told.items():
            self._span.set_attribute(f"linewatch.{name}", str(value))
        if error:
            from opentelemetry.trace import Status, StatusCode

            self._span.set_status(Status(StatusCode.ERROR, error))
        self._span.end()


def begin(traceparent: str | None, began_ns: int) -> ImageTrace | None:
    """None: traces are off, or this image is not picked."""
    if _tracer is None:
        return None
    from opentelemetry.trace import set_span_in_context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier = {"traceparent": traceparent} if traceparent else {}
    span = _tracer.start_span("inspect", context=TraceContextTextMapPropagator().extract(carrier), start_time=began_ns)
    if not span.is_recording():
        return None
    return ImageTrace(span, set_span_in_context(span), began_ns)


def trace_id(traceparent: str | None) -> str:
    """The 32 digits by which a trace is found; empty where there are none."""
    parts = (traceparent or "").split("-")
    return parts[1] if len(parts) >= 4 and len(parts[1]) == 32 else ""
