"""Claim checks fetch the image that was left, and nothing else of the store."""

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ClaimMissing, ClaimRefused, DeadLetter, StoreUnavailable
from pipeline.fakes import MemoryStore
from pipeline.settings import Limits
from pipeline.storage.claims import leave, redeem

IMAGE = b"\x89PNG pretend" * 20
LIMITS = Limits()


def claim(**changes: object) -> bytes:
    sha256 = hashlib.sha256(IMAGE).hexdigest()
    facts = {"uri": f"s3://linewatch/images/{sha256[:2]}/{sha256}", "sha256": sha256, "size": len(IMAGE)}
    return json.dumps({**facts, "content_type": "image/png", **changes}).encode()


def store() -> MemoryStore:
    filled = MemoryStore(objects={"models/bottle/secret": IMAGE, "images/secret": IMAGE})
    leave(filled, IMAGE, "image/png")
    return filled


def test_what_was_left_is_redeemed() -> None:
    there = MemoryStore()
    check = leave(there, IMAGE, "image/png")
    assert redeem(check.model_dump_json().encode(), there, LIMITS) == IMAGE
    assert redeem(claim(), there, LIMITS) == IMAGE


def test_the_same_image_left_twice_lies_there_once() -> None:
    there = MemoryStore()
    assert leave(there, IMAGE, "image/png") == leave(there, IMAGE, "image/png")
    assert len(there.objects) == 1


@pytest.mark.parametrize(
    "uri",
    [
        "s3://other/images/secret",
        "s3://linewatch-2/images/secret",
        "s3://linewatch/models/bottle/secret",
        "s3://linewatch/images/../models/bottle/secret",
        "s3://linewatch/images/./secret",
        "s3://linewatch/images//secret",
        "s3://linewatch/images/",
        "s3://linewatch/images",
        "s3://linewatch/",
        "s3://",
        "s3:///images/secret",
        "file:///etc/passwd",
        "http://127.0.0.1/latest/meta-data",
        "S3://linewatch/images/secret",
        "",
        "s3://linewatch/images/" + "a" * 2000,
    ],
)
def test_a_claim_to_another_place_is_refused(uri: str) -> None:
    with pytest.raises(ClaimRefused):
        redeem(claim(uri=uri), store(), LIMITS)


@pytest.mark.parametrize(
    "changes",
    [
        {"sha256": "0" * 64},
        {"sha256": "0" * 63},
        {"sha256": hashlib.sha256(IMAGE).hexdigest() + "\n"},
        {"size": len(IMAGE) + 1},
        {"size": len(IMAGE) - 1},
        {"size": 0},
        {"size": -1},
        {"size": 1e30},
        {"content_type": "text/html"},
        {"uri": None},
    ],
)
def test_a_claim_that_does_not_match_its_object_is_refused(changes: dict) -> None:
    with pytest.raises(ClaimRefused):
        redeem(claim(**changes), store(), LIMITS)


def test_an_object_that_was_replaced_is_refused() -> None:
    there = store()
    for key in there.objects:
        there.objects[key] = IMAGE[::-1]
    with pytest.raises(ClaimRefused, match="sha256"):
        redeem(claim(), there, LIMITS)


def test_more_than_the_limit_is_neither_believed_nor_fetched() -> None:
    small = Limits(image_bytes=100)
    with pytest.raises(ClaimRefused, match="limit is 100"):
        redeem(claim(), store(), small)
    with pytest.raises(ClaimRefused, match="limit of 100"):
        redeem(claim(size=50), store(), small)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b"\xff\xfe",
        b'"s3://linewatch/images/x"',
        b"{" * 8000,
        b"[" * 8192,
        b'{"a":' * 1600,
        json.dumps({"uri": "\ud800"}).encode(),
        b"9" * 8192,
        b"1e" + b"9" * 5000,
    ],
)
def test_malformed_json_is_refused_in_one_short_line(value: bytes) -> None:
    with pytest.raises(ClaimRefused) as caught:
        redeem(value, store(), LIMITS)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_claim_check_too_large_to_be_one_is_not_parsed() -> None:
    with pytest.raises(ClaimRefused, match="limit is 8192"):
        redeem(claim(padding="x" * 9000), store(), LIMITS)


def test_a_missing_object_is_said_to_be_missing() -> None:
    with pytest.raises(ClaimMissing, match="no such object"):
        redeem(claim(), MemoryStore(), LIMITS)


def test_a_silent_store_is_nobodys_dead_letter() -> None:
    there = store()
    there.outages = 1
    with pytest.raises(StoreUnavailable):
        redeem(claim(), there, LIMITS)
    assert redeem(claim(), there, LIMITS) == IMAGE


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


hostile_claims = st.fixed_dictionaries(
    {
        "uri": st.text(max_size=60).map("s3://linewatch/images/".__add__) | json_values,
        "size": st.just(len(IMAGE)) | json_values,
        "sha256": st.just(hashlib.sha256(IMAGE).hexdigest()) | json_values,
        "content_type": st.just("image/png") | json_values,
    }
).map(lambda claim: json.dumps(claim).encode())


@given(st.binary(max_size=300) | hostile_claims)
def test_hostile_values_give_a_dead_letter_or_the_very_image(value: bytes) -> None:
    refused = None
    try:
        data = redeem(value, store(), LIMITS)
    except DeadLetter as error:
        refused = str(error)
    assert "\n" not in refused if refused else data == IMAGE
