"""Claim checks: images too large for the broker lie in S3, and the message says where and what they must be."""

import hashlib
import re

from pydantic import ValidationError

from pipeline.contracts.events import ClaimCheck
from pipeline.errors import ClaimMissing, ClaimRefused, ObjectMissing, ObjectTooLarge
from pipeline.settings import Limits
from pipeline.storage.store import ObjectStore

CLAIM_LIMIT_BYTES = 8192
PREFIX = "images/"
LETTERS = "letters/"
LETTER_KEY = re.compile(rf"{LETTERS}[0-9a-f]{{2}}/[0-9a-f]{{64}}")
# Some stores refuse other keys with an error, for which a worker would wait for ever.
KEY_PART = re.compile(r"[A-Za-z0-9_.=@+-]{1,200}")
KEY_LENGTH = 1000


def leave(store: ObjectStore, data: bytes, content_type: str, key: str | None = None) -> ClaimCheck:
    """Put an image into the store, by default under its own hash, for a message to point at."""
    sha256 = hashlib.sha256(data).hexdigest()
    key = key or f"{PREFIX}{sha256[:2]}/{sha256}"
    store.put(key, data, content_type)
    return ClaimCheck.model_validate(
        {"uri": f"s3://{store.bucket}/{key}", "sha256": sha256, "size": len(data), "content_type": content_type}
    )


def leave_letter(store: ObjectStore, value: bytes) -> str:
    """Put a dead letter's value into the store, whatever it is, under its own hash; returns the key."""
    sha256 = hashlib.sha256(value).hexdigest()
    key = f"{LETTERS}{sha256[:2]}/{sha256}"
    store.put(key, value)
    return key


def letter_value(key: str, store: ObjectStore) -> bytes:
    """What :func:`leave_letter` left.

    Raises:
        ClaimRefused: no such key is ever made, or what lies there now is something else.
        ClaimMissing: nothing there.
        StoreUnavailable: wait and try again.
    """
    if not LETTER_KEY.fullmatch(key):
        raise ClaimRefused(f"a dead letter's value at {key[:200]!r}: only objects under {LETTERS} are fetched")
    try:
        value = store.get(key)
    except ObjectMissing:
        raise ClaimMissing(f"a dead letter's value at {key!r}: no such object") from None
    if not key.endswith(hashlib.sha256(value).hexdigest()):
        raise ClaimRefused(f"a dead letter's value at {key!r}: the object is not the one that was left there (sha256)")
    return value


def redeem(value: bytes, store: ObjectStore, limits: Limits, prefix: str = PREFIX) -> bytes:
    """The image that a claim check stands for.

    Only objects of the settings' own bucket under ``prefix`` are fetched: a message must not make a replica read
    models, other buckets or other hosts.

    Raises:
        ClaimRefused: malformed, pointing elsewhere, too large, or of another size or sha256 than it says.
        ClaimMissing: nothing there.
        StoreUnavailable: wait and try again.
    """
    if len(value) > CLAIM_LIMIT_BYTES:
        raise ClaimRefused(f"a claim check of {len(value)} bytes: the limit is {CLAIM_LIMIT_BYTES}")
    try:
        claim = ClaimCheck.model_validate_json(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "value"
        raise ClaimRefused(f"malformed claim check: {where}: {first['msg']}") from None
    place = f"s3://{store.bucket}/{prefix}"
    key = claim.uri.removeprefix(f"s3://{store.bucket}/")
    if not claim.uri.startswith(place) or not plain(key):
        raise ClaimRefused(f"claim check to {claim.uri[:200]!r}: only objects under {place} are fetched")
    if claim.size > limits.image_bytes:
        raise ClaimRefused(f"claim check for {claim.size} bytes: the limit is {limits.image_bytes}")
    try:
        data = store.get(key, max_bytes=limits.image_bytes)
    except ObjectMissing:
        raise ClaimMissing(f"claim check to {claim.uri!r}: no such object") from None
    except ObjectTooLarge as error:
        raise ClaimRefused(f"claim check to {claim.uri!r}: {error}") from None
    if len(data) != claim.size or hashlib.sha256(data).hexdigest() != claim.sha256:
        raise ClaimRefused(f"claim check to {claim.uri!r}: the object is not the one that was left there (sha256)")
    return data


def plain(key: str) -> bool:
    """Whether every store takes this key."""
    parts = key.split("/")
    return len(key) <= KEY_LENGTH and all(KEY_PART.fullmatch(part) and part.strip(".") for part in parts)
