"""An image's way as spans, received over OTLP; what it becomes carries the trace on; off, there is nothing of it."""

import http.server
import itertools
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from pipeline.telemetry import traces
from tests.pipeline.line import EVENTS, MASKS, Line, running
from tests.pipeline.tiny import TRACE, texture

CAMERA_TRACE, CAMERA_SPAN = TRACE.split("-")[1:3]
STEPS = ["fetch", "decode", "score", "cut", "publish"]


class Receiver:
    """A collector's HTTP door: OTLP in protobuf, at /v1/traces."""

    def __init__(self) -> None:
        spans: list[Span] = []
        services: set[str] = set()

        class Answer(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.path == "/v1/traces"
                body = self.rfile.read(int(self.headers["content-length"]))
                for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                    services.update(
                        a.value.string_value for a in resource.resource.attributes if a.key == "service.name"
                    )
                    spans.extend(span for scope in resource.scope_spans for span in scope.spans)
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.spans, self.services = spans, services
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


@contextmanager
def traced(monkeypatch: pytest.MonkeyPatch, receiver: Receiver, **variables: str) -> Iterator[None]:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.address)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    traces.set_up_traces()
    try:
        yield
    finally:
        traces.close_traces()  # sends what is left


def test_an_image_is_traced_from_its_camera_to_its_event(line: Line, eventually, monkeypatch, receiver) -> None:
    with traced(monkeypatch, receiver, OTEL_TRACES_SAMPLER="always_on", OTEL_SERVICE_NAME="plant-7"):
        line.send(texture(3, spot=True), b"no image")
        with running(line):
            eventually(line.finished)
    (event,) = line.events()
    assert receiver.services == {"plant-7"}
    roots = [span for span in receiver.spans if span.name == "inspect"]
    assert len(roots) == 2
    whole = next(span for span in roots if not span.status.code)
    broken = next(span for span in roots if span.status.code)
    for root in roots:
        assert root.trace_id.hex() == CAMERA_TRACE, "the camera's trace goes on"
        assert root.parent_span_id.hex() == CAMERA_SPAN
    steps = sorted(
        (span for span in receiver.spans if span.parent_span_id == whole.span_id),
        key=lambda span: span.start_time_unix_nano,
    )
    assert [span.name for span in steps] == STEPS
    for before, after in itertools.pairwise(steps):
        assert before.start_time_unix_nano <= before.end_time_unix_nano <= after.start_time_unix_nano
    assert whole.start_time_unix_nano == steps[0].start_time_unix_nano
    assert whole.end_time_unix_nano >= steps[-1].end_time_unix_nano
    told = {one.key: one.value.string_value for one in whole.attributes}
    assert told["linewatch.event"] == event.event_id
    assert told["linewatch.verdict"] == event.verdict
    assert told["linewatch.camera"] == "/plant/cam0"
    assert "UnsupportedFormat" in broken.status.message
    # Events and masks carry the span on, so that who reads them is its child.
    goes_on = f"00-{CAMERA_TRACE}-{whole.span_id.hex()}-01"
    for topic in (EVENTS, MASKS):
        (headers,) = [dict(record.headers) for record in line.broker.read(topic)]
        assert headers["traceparent"].decode() == goes_on


def test_of_many_images_a_sample_is_traced(monkeypatch, receiver) -> None:
    with traced(monkeypatch, receiver):
        begun = [traces.begin(None, 1) for _ in range(5_000)]
        picked = [one for one in begun if one]
        for one in picked:
            one.end({})
    assert 10 < len(picked) < 120, "one in a hundred"
    assert len(receiver.spans) == len(picked)


def test_the_variables_of_opentelemetry_decide(monkeypatch, receiver) -> None:
    with traced(monkeypatch, receiver, OTEL_TRACES_SAMPLER="traceidratio", OTEL_TRACES_SAMPLER_ARG="0"):
        assert traces.begin(TRACE, 1) is None
    with traced(monkeypatch, receiver, OTEL_SDK_DISABLED="true"):
        assert traces.begin(TRACE, 1) is None


def test_off_it_costs_nothing() -> None:
    """By default: nothing is imported, and asking takes less than a microsecond or two."""
    code = (
        "import json, sys, timeit; from pipeline.telemetry import traces; traces.set_up_traces();"
        "took = min(timeit.repeat(lambda: traces.begin(None, 1), number=20000, repeat=5)) / 20000;"
        "print(json.dumps([any(name.startswith('opentelemetry') for name in sys.modules), took]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    imported, took_s = json.loads(done.stdout)
    assert not imported
    assert took_s < 20e-6, "tracing that is off is to cost an image nothing that is seen"


@pytest.mark.parametrize(
    ("given", "found"), [(TRACE, CAMERA_TRACE), (None, ""), ("", ""), ("nonsense", ""), ("a-b-c-d", "")]
)
def test_the_trace_of_a_traceparent(given: str | None, found: str) -> None:
    assert traces.trace_id(given) == found
