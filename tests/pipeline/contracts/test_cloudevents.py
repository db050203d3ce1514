"""Headers in, an envelope out, or a refusal that says which header."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.contracts.cloudevents import MAX_HEADER_BYTES, Envelope, Headers, envelope, new_traceparent, rfc3339
from pipeline.errors import HeadersRefused
from tests.pipeline.tiny import envelope as sample

ARRIVED = datetime(2026, 1, 31, 12, tzinfo=UTC)
HEADERS = sample("img-1", time=ARRIVED).headers()


def with_header(name: str, value: bytes | None) -> Headers:
    return (*((n, v) for n, v in HEADERS if n != name), (name, value))  # type: ignore[return-value]


def test_an_envelope_survives_the_round_trip() -> None:
    sent = sample("img-1", extensions={"imageid": "x"}, time=datetime(2026, 1, 31, 23, 59, 59, 123456, tzinfo=UTC))
    assert envelope(sent.headers(), ARRIVED) == sent


text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=60)


@given(text, text, text, text, st.datetimes(timezones=st.just(UTC)), st.none() | text)
def test_any_envelope_survives_the_round_trip(
    id: str, source: str, kind: str, subject: str, time: datetime, trace: str | None
) -> None:
    sent = Envelope(id, source, kind, subject, time, "image/png", trace)
    assert envelope(sent.headers(), ARRIVED) == sent


@pytest.mark.parametrize("name", ["ce_specversion", "ce_id", "ce_source", "ce_type", "ce_subject"])
@pytest.mark.parametrize("value", [None, b""])
def test_a_required_attribute_that_is_missing_is_named(name: str, value: bytes | None) -> None:
    with pytest.raises(HeadersRefused, match=name):
        envelope([(n, v) for n, v in HEADERS if n != name], ARRIVED)
    with pytest.raises(HeadersRefused, match=name):
        envelope(with_header(name, value), ARRIVED)


@pytest.mark.parametrize("name", [name for name, _ in HEADERS])
@pytest.mark.parametrize("spelled", [str.lower, str.upper])
def test_an_oversized_attribute_is_refused_however_it_is_spelled(name: str, spelled) -> None:
    headers = [(n, v) for n, v in HEADERS if n != name]
    with pytest.raises(HeadersRefused, match="longer than"):
        envelope([*headers, (spelled(name), b"x" * (MAX_HEADER_BYTES + 1))], ARRIVED)


@pytest.mark.parametrize("name", [name for name, _ in HEADERS if name.startswith("ce_")])
def test_an_attribute_that_is_not_utf8_is_refused(name: str) -> None:
    with pytest.raises(HeadersRefused, match="UTF-8"):
        envelope(with_header(name, b"\xff\xfe"), ARRIVED)


def test_other_peoples_headers_are_none_of_ours() -> None:
    noise = [("x-noise", b"\xff" * 5000), ("x-none", None), ("traceparent", b"\xff")]
    read = envelope([*(h for h in HEADERS if h[0] != "traceparent"), *noise], ARRIVED)
    assert read.id == "img-1"
    assert read.traceparent is None


@pytest.mark.parametrize("time", ["2026-01-31T12:00:00", "yesterday", "", "2026-13-01T00:00:00Z", "1769860800"])
def test_a_time_that_is_no_moment_is_refused(time: str) -> None:
    with pytest.raises(HeadersRefused, match="ce_time"):
        envelope(with_header("ce_time", time.encode()), ARRIVED)


def test_a_time_with_any_zone_is_a_moment() -> None:
    read = envelope(with_header("ce_time", b"2026-01-31T13:30:00+01:30"), ARRIVED)
    assert read.time == ARRIVED


def test_the_arrival_stands_in_for_a_missing_time() -> None:
    headers = [h for h in HEADERS if h[0] != "ce_time"]
    assert envelope(headers, ARRIVED).time == ARRIVED


def test_header_names_are_read_in_any_case() -> None:
    assert envelope([(name.upper(), value) for name, value in HEADERS], ARRIVED) == envelope(HEADERS, ARRIVED)


def test_another_version_of_cloudevents_is_refused() -> None:
    with pytest.raises(HeadersRefused, match=r"0\.3"):
        envelope(with_header("ce_specversion", b"0.3"), ARRIVED)


def test_parameters_of_a_content_type_do_not_matter() -> None:
    assert envelope(with_header("content-type", b"Image/PNG; q=1"), ARRIVED).content_type == "image/png"


names = st.sampled_from([*(name for name, _ in HEADERS), "ce_", "CE_ID", "ce_x", ""]) | st.text(max_size=10)
values = st.none() | st.binary(max_size=40) | st.sampled_from([v for _, v in HEADERS]) | st.just(b"x" * 2000)


@given(st.lists(st.tuples(names, values), max_size=12), st.booleans())
def test_hostile_headers_give_an_envelope_or_a_refusal_and_nothing_else(noise: list, complete: bool) -> None:
    try:
        read = envelope([*(HEADERS if complete else ()), *noise], ARRIVED)
    except HeadersRefused:
        return
    assert read.time.tzinfo
    assert all((read.id, read.source, read.type, read.subject))


def test_times_are_written_in_utc_with_microseconds() -> None:
    assert rfc3339(datetime(2026, 1, 31, 14, tzinfo=timezone(timedelta(hours=2)))) == "2026-01-31T12:00:00.000000Z"


def test_a_trace_context_has_the_w3c_form_and_is_new_each_time() -> None:
    assert new_traceparent() != new_traceparent()
    version, trace, span, flags = new_traceparent().split("-")
    assert (version, len(trace), len(span), flags) == ("00", 32, 16, "01")
