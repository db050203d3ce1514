import json
import logging
import sys

import pytest

from pipeline.telemetry.logs import JsonFormatter, set_up_logging
from tests.pipeline.line import Line, running
from tests.pipeline.tiny import TRACE, texture


def test_a_line_is_one_json_object_with_what_it_is_about() -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        record = logging.LogRecord(
            "pipeline.stream.worker", logging.WARNING, __file__, 1, "gone: %s", ("x",), sys.exc_info()
        )
    record.camera = "/plant/cam1"
    text = JsonFormatter().format(record)
    assert "\n" not in text
    told = json.loads(text)
    assert told["message"] == "gone: x"
    assert told["level"] == "WARNING"
    assert told["camera"] == "/plant/cam1"
    assert "ValueError: two" in told["exception"]
    assert set(told) == {"time", "level", "logger", "message", "camera", "exception"}


def test_images_are_told_with_camera_product_event_and_trace(line: Line, eventually, caplog) -> None:
    caplog.set_level(logging.INFO, logger="pipeline.stream.worker")
    image, broken = line.send(texture(3, spot=True), b"no image")
    with running(line):
        eventually(line.finished)
    told = {record.image: record for record in caplog.records if hasattr(record, "image")}
    (event,) = line.events()
    assert told[image].event == event.event_id
    assert told[image].verdict == event.verdict
    assert told[image].camera == "/plant/cam0"
    assert told[image].product == event.product
    assert told[image].traceparent == TRACE
    assert told[image].trace == told[broken].trace == TRACE.split("-")[1]
    assert told[broken].offset == 0
    assert "dead letter" in told[broken].getMessage()


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_replica_logs_as_it_is_told(form, capsys) -> None:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        set_up_logging(form)
        logging.getLogger("pipeline").info("hello")
        logging.getLogger("kafka.net.manager").error("Connection failed")
        logging.getLogger("kafka.coordinator.consumer").error("Unknown error: [Error 88] UnstableOffsetCommitError")
        text = capsys.readouterr().err.strip()
    finally:
        root.handlers[:] = before
        root.setLevel(level)
    assert "hello" in text
    assert text.startswith("{") == (form == "json")
    assert len(text.splitlines()) == 1, "what the client says a hundred times is said once by whoever waits"
