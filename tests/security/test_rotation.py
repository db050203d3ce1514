"""Both credentials of a running worker are rotated and the old ones refused: the stream goes on, without a loss."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from kafka.admin import ACLOperation

from infra.local.server import Server
from model import ModelBundle
from pipeline.errors import BrokerRefused, StoreUnavailable
from pipeline.kafka.clients import admin_client
from pipeline.kafka.topics import ensure_topics
from pipeline.settings import SecretFile, Settings
from pipeline.storage.store import S3Store
from tests.pipeline.guarded import CAMERAS, Cameras
from tests.pipeline.line import running
from tests.pipeline.real_line import SMALL, RealLine
from tests.pipeline.tiny import publish
from tests.security.conftest import ALL, Doors, allow, s3
from tests.security.secured_kafka import REAUTH_MS, set_password
from tests.security.secured_seaweedfs import EVERYTHING, revoked, set_accounts

pytestmark = [pytest.mark.servers, pytest.mark.apache]
OLD_KEY, NEW_KEY = ("old-key", "old-secret-of-the-line", EVERYTHING), ("new-key", "new-secret-of-the-line", EVERYTHING)


@pytest.fixture
def settings(doors: Doors, store: Server, tmp_path: Path, eventually: Callable[..., None]) -> Settings:
    """Whose secrets lie in files: password, access_key, secret_key."""
    own = doors.settings({"session_timeout_ms": 6000})
    set_password(own, "rotating", "old-password")
    allow(own, "rotating", *((kind, "*", ACLOperation.ALL) for kind in ALL))
    set_accounts(store, line=OLD_KEY)
    for name, value in (("password", "old-password"), ("access_key", OLD_KEY[0]), ("secret_key", OLD_KEY[1])):
        (tmp_path / name).write_text(f"{value}\n")
    password = SecretFile("kafka.password_file", str(tmp_path / "password"))
    keys = {name: SecretFile(f"s3.{name}_file", str(tmp_path / name)) for name in ("access_key", "secret_key")}
    through = doors.through("scram-512", own, username="rotating", password=password)
    admin = S3Store(found := s3(store, doors.authority))
    admin.ensure_bucket()
    sections = {**SMALL, "kafka": through.kafka, "s3": s3(store, doors.authority, bucket=found.bucket, **keys)}
    topics = {"prefix": own.topics.prefix, "partitions": CAMERAS}
    # Each mask and heat map goes through S3.
    stream = {"batch_images": 4, "heat_maps": "always"}
    made = Settings(**sections | {"topics": topics, "limits": {"inline_bytes": 0}, "stream": stream})  # type: ignore[arg-type]
    eventually(lambda: _may_write(made), what="the store knows the first key")
    ensure_topics(made)
    return made


def _may_write(settings: Settings) -> bool:
    try:
        S3Store(settings.s3).put("masks/first", b"x")
    except StoreUnavailable:
        return False
    return True


def test_a_worker_goes_on_while_its_credentials_are_rotated(
    settings: Settings, doors: Doors, store: Server, tiny_bundle: ModelBundle, tmp_path: Path,
    eventually: Callable[..., None], caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    publish(S3Store(settings.s3), tiny_bundle)

    def goes_on(what: str) -> None:
        before = line.committed()
        eventually(lambda: line.committed() > before + 30, within_s=120, what=what)

    with running(RealLine(settings, S3Store(settings.s3))) as line, Cameras(settings) as cameras:
        goes_on("before")

        set_password(doors.settings(), "rotating", "new-password")
        time.sleep(REAUTH_MS / 1000)  # the worst case: it is asked for a password that is no longer right
        (tmp_path / "password").write_text("new-password\n")
        with pytest.raises(BrokerRefused, match="user or password is wrong"):
            _list_topics(doors.through("scram-512", settings, username="rotating", password="old-password"))
        goes_on("with the new password")

        set_accounts(store, line=OLD_KEY, next=NEW_KEY)
        (tmp_path / "access_key").write_text(NEW_KEY[0])
        (tmp_path / "secret_key").write_text(NEW_KEY[1])
        set_accounts(store, line=revoked(OLD_KEY), next=NEW_KEY)
        old = settings.s3.model_copy(update={"access_key": _plain(OLD_KEY[0]), "secret_key": _plain(OLD_KEY[1])})
        eventually(lambda: not _may_write(settings.model_copy(update={"s3": old})), what="the old key is refused")
        goes_on("with the new key")

        cameras.end()
        eventually(lambda: line.pending() == 0, within_s=120, what="an outcome for each image")
        assert line.worker.trouble() is None
        audit = line.audit()
        assert len(cameras.sent) <= audit.total("images")
        assert (audit.total("lost"), audit.total("doubled"), audit.total("pending")) == (0, 0, 0), audit.troubles
        assert audit.deadletters == {}
    for secret in ("old-password", "new-password", OLD_KEY[1], NEW_KEY[1]):
        assert secret not in caplog.text


def _plain(value: str) -> object:
    from pydantic import SecretStr

    return SecretStr(value)


def _list_topics(settings: Settings) -> None:
    with admin_client(settings) as admin:
        admin.list_topics()
