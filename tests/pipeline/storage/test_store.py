"""The same promises from a store in memory and from real ones: SeaweedFS and MinIO."""

import hashlib
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from infra.local.minio_server import MinioServer, find_minio
from infra.local.program import Program
from infra.local.seaweedfs import SeaweedFS, find_seaweedfs
from infra.local.server import Server
from pipeline.contracts.events import ClaimCheck
from pipeline.errors import (
    ClaimMissing,
    ClaimRefused,
    ObjectConflict,
    ObjectMissing,
    SettingsError,
    StoreError,
    StoreUnavailable,
)
from pipeline.fakes import MemoryStore
from pipeline.settings import S3, Limits
from pipeline.storage.claims import redeem
from pipeline.storage.store import ObjectStore, S3Store
from tests.pipeline.alone import ACCESS, SECRET, alone
from tests.threads import together

KINDS: dict[str, tuple[type[Program], Any]] = {
    "seaweedfs": (SeaweedFS, find_seaweedfs),
    "minio": (MinioServer, find_minio),
}


WITHIN_S = 25.0
"""A store that is away is told before its timeout."""


def s3(endpoint: str, **changes: Any) -> S3:
    facts = {"endpoint": f"http://{endpoint}", "bucket": "tests", "access_key": ACCESS, "secret_key": SECRET}
    return S3(**{**facts, "timeout_s": 30.0, **changes})  # a busy machine's store is slow, and not away


REAL = [pytest.param(kind, marks=pytest.mark.servers) for kind in KINDS]
every_store = pytest.mark.parametrize("server", ["memory", *REAL], indirect=True, scope="module")
real_stores = pytest.mark.parametrize("server", REAL, indirect=True, scope="module")


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server | None]:
    """One real store, without a broker beside it; none for the store in memory."""
    if request.param == "memory":
        yield None
        return
    program, find = KINDS[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    with alone(program, find, folder, folder / "log") as server:
        yield server


@pytest.fixture
def real(server: Server) -> S3Store:
    if not server.alive:
        server.start()
    store = S3Store(s3(server.endpoint))
    store.ensure_bucket()
    return store


@pytest.fixture
def store(request: pytest.FixtureRequest, server: Server | None) -> ObjectStore:
    """The fake keeps the promises of the real ones: the same tests run on it."""
    return request.getfixturevalue("real") if server else MemoryStore()


@pytest.fixture
def key(request: pytest.FixtureRequest) -> str:
    return f"folder/{hashlib.sha256(request.node.name.encode()).hexdigest()[:16]}"


@every_store
def test_what_was_put_comes_back(store: ObjectStore, key: str) -> None:
    assert not store.exists(key)
    store.put(key, b"one", "text/plain")
    assert store.exists(key)
    assert store.get(key) == b"one"
    store.put(key, b"")
    assert store.get(key) == b""


@every_store
def test_a_missing_object_is_told_from_every_other_trouble(store: ObjectStore, key: str) -> None:
    for ask in (store.get, store.get_with_etag):
        with pytest.raises(ObjectMissing, match=key):
            ask(key)
    assert not store.exists(key)
    assert list(store.keys(key)) == []


@every_store
def test_keys_are_listed_with_the_time_of_their_last_write(store: ObjectStore, key: str) -> None:
    before = datetime.now(UTC).replace(microsecond=0)  # stores keep whole seconds
    store.put(f"{key}/a", b"one")
    store.put_if(f"{key}/b", b"two", None)
    written = dict(store.written(key))
    assert written.keys() == {f"{key}/a", f"{key}/b"}
    assert all(before <= time <= datetime.now(UTC) + timedelta(seconds=1) for time in written.values())


@every_store
def test_a_first_write_wins_once(store: ObjectStore, key: str) -> None:
    store.put_if(key, b"first", None)
    with pytest.raises(ObjectConflict):
        store.put_if(key, b"second", None)
    assert store.get(key) == b"first"


@every_store
def test_a_write_under_the_right_etag_passes_and_under_an_old_one_does_not(store: ObjectStore, key: str) -> None:
    store.put(key, b"one")
    _, etag = store.get_with_etag(key)
    store.put_if(key, b"two", etag)
    with pytest.raises(ObjectConflict):
        store.put_if(key, b"three", etag)
    data, newer = store.get_with_etag(key)
    assert data == b"two"
    assert newer != etag


@every_store
def test_a_write_under_the_etag_of_an_object_that_is_gone_is_a_conflict(store: ObjectStore, key: str) -> None:
    with pytest.raises(ObjectConflict):
        store.put_if(key, b"one", hashlib.md5(b"never").hexdigest())
    assert not store.exists(key)


@real_stores
def test_a_counter_that_racers_share_is_exact(real: S3Store, key: str) -> None:
    real.put(key, b"0")

    def count() -> None:
        for _ in range(5):
            while True:
                data, etag = real.get_with_etag(key)
                try:
                    real.put_if(key, b"%d" % (int(data) + 1), etag)
                except ObjectConflict:
                    continue
                break

    together(*[count] * 4)
    assert real.get(key) == b"20"


@every_store
def test_keys_are_listed_below_a_prefix(store: ObjectStore, key: str) -> None:
    for name in ("b/2", "a/1", "c"):
        store.put(f"{key}/{name}", b"x")
    assert sorted(store.keys(f"{key}/")) == [f"{key}/a/1", f"{key}/b/2", f"{key}/c"]
    assert list(store.keys(f"{key}/a")) == [f"{key}/a/1"]


@every_store
def test_an_object_over_the_limit_is_refused(store: ObjectStore, key: str) -> None:
    store.put(key, b"x" * 100)
    assert len(store.get(key, max_bytes=100)) == 100
    with pytest.raises(StoreError, match="more than the limit of 99"):
        store.get(key, max_bytes=99)


HOSTILE_KEYS = [
    "images/a\0b",
    "images/a\nb",
    "images/\x01",
    "images/" + "x" * 300,
    "images/" + "x/" * 200 + "x",
    "images/é\u202e",
    "images/a?b=c",
    "images/%2e%2e/models",
    "images/a\\..\\b",
    "images/a b",
    "images/*",
    "images/ ",
    "images/a#b",
    "images/\U0001f600",
    "images/" + "é" * 500,
    "images/.well",
    "images/:",
    "images/a;b",
    "images/__XLDIR__",
    "images/" + "/".join(["x" * 190] * 6),
    "images/" + "/".join(["x" * 190] * 5),
    "images/.minio.sys/x",
    "images/.uploads/x",
]


@pytest.mark.parametrize("hostile", HOSTILE_KEYS)
@every_store
def test_a_hostile_claim_is_a_dead_letter_and_never_something_to_wait_for(store: ObjectStore, hostile: str) -> None:
    """A claim that looked like an outage would stall its partition for ever."""
    uri = f"s3://{store.bucket}/{hostile}"
    claim = ClaimCheck(uri=uri, sha256="0" * 64, size=10, content_type="image/png")
    with pytest.raises((ClaimMissing, ClaimRefused)):
        redeem(claim.model_dump_json().encode(), store, Limits())


@real_stores
def test_a_large_object_survives_its_multipart_upload(real: S3Store, key: str) -> None:
    data = bytes(range(256)) * 4 * 6144  # 6 MiB
    real.put(key, data)
    assert real.get(key) == data


@real_stores
def test_the_bucket_is_made_once_and_found_again(server: Server, real: S3Store) -> None:
    for _ in range(2):
        real.ensure_bucket()
    made: list[bool] = []
    together(*[lambda: made.append(S3Store(s3(server.endpoint, bucket="race")).ensure_bucket())] * 3)
    assert sum(made) >= 1
    assert list(S3Store(s3(server.endpoint, bucket="race")).keys("")) == []


@real_stores
def test_a_missing_bucket_says_how_to_make_it(server: Server, real: S3Store) -> None:
    assert real
    nowhere = S3Store(s3(server.endpoint, bucket="nowhere"))
    for ask in (lambda: nowhere.get("x"), nowhere.require_bucket):
        with pytest.raises(StoreError, match="linewatch setup") as caught:
            ask()
        plain(caught.value)
    assert not isinstance(caught.value, ObjectMissing)


@real_stores
def test_wrong_credentials_are_refused_in_one_line_that_holds_none_of_them(server: Server, real: S3Store) -> None:
    assert real
    for changes in ({"secret_key": "wrong-but-also-secret"}, {"access_key": "stranger-with-key"}):
        for ask in every_call(S3Store(s3(server.endpoint, **changes))):
            with pytest.raises(StoreError) as caught:
                ask()
            assert not isinstance(caught.value, ObjectMissing | ObjectConflict)
            assert str(caught.value).startswith("S3 at http://127.0.0.1")
            plain(caught.value)


@real_stores
def test_a_clock_that_is_an_hour_off_is_told_as_such(
    server: Server, real: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert real
    monkeypatch.setattr("minio.api.time.utcnow", lambda: datetime.now(UTC) - timedelta(hours=1))
    for ask in every_call(S3Store(s3(server.endpoint)))[:3]:
        with pytest.raises(StoreUnavailable, match="RequestTimeTooSkewed"):
            ask()


@real_stores
def test_a_killed_server_is_unavailable_within_seconds_and_back_when_it_is_back(server: Server, real: S3Store) -> None:
    real.put("kept", b"acknowledged")
    server.kill()
    try:
        for ask in every_call(real):
            begun = time.monotonic()
            with pytest.raises(StoreUnavailable, match="does not answer") as caught:
                ask()
            assert time.monotonic() - begun < WITHIN_S
            plain(caught.value)
    finally:
        server.start()
    assert real.get("kept") == b"acknowledged"


def test_a_silent_address_is_unavailable_within_the_timeout() -> None:
    store = S3Store(s3("127.0.0.1:9"))
    begun = time.monotonic()
    with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1:9"):
        store.get("x")
    assert time.monotonic() - begun < WITHIN_S


def test_no_credentials_say_which_variables_to_set() -> None:
    with pytest.raises(SettingsError, match="LINEWATCH_S3__ACCESS_KEY"):
        S3Store(S3())


def every_call(store: S3Store) -> list[Any]:
    return [
        lambda: store.get("x"),
        lambda: store.get_with_etag("x"),
        lambda: store.put("x", b"data"),
        lambda: store.put_if("x", b"data", None),
        lambda: store.exists("x"),
        lambda: list(store.keys("x")),
    ]


def plain(error: BaseException) -> None:
    """One line, and no secret in it or in what it was raised from."""
    text = str(error)
    assert "\n" not in text
    for secret in (SECRET, ACCESS, "wrong-but-also-secret", "X-Amz-Signature", "X-Amz-Credential"):
        assert secret not in text
        assert secret not in repr(error)
