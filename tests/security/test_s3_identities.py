"""TLS by a plant's own authority, temporary keys, roles and keys that rotate, on a real store."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from minio.credentials import AssumeRoleProvider, Credentials

from infra.local.server import Server
from pipeline.errors import SettingsError, StoreUnavailable
from pipeline.settings import S3, SecretFile
from pipeline.storage.store import S3Store
from tests.pipeline.alone import ACCESS, SECRET
from tests.security.conftest import https, s3
from tests.security.metadata_server import BEFORE_ITS_END_S, MetadataServer
from tests.security.pki import Authority
from tests.security.secured_seaweedfs import EVERYTHING, ROLE_ARN, revoked, set_accounts
from tests.security.token_server import TokenServer

pytestmark = pytest.mark.servers


@pytest.fixture
def plain(store: Server, authority: Authority) -> S3:
    """With a bucket that is there."""
    settings = s3(store, authority)
    S3Store(settings).ensure_bucket()
    return settings


def changed(settings: S3, **changes: Any) -> S3:
    facts = settings.model_dump(exclude={"access_key", "secret_key", "session_token"})
    secrets = {"access_key": settings.access_key, "secret_key": settings.secret_key}
    return S3(**{**facts, **secrets, **changes})


def use(store: S3Store) -> None:
    """Everything that replicas and jobs do, the presigned PUT among it."""
    store.put("images/a", b"one")
    store.put_if("models/a", b"two", None)
    assert store.get("images/a") == b"one"
    etag = store.get_with_etag("models/a")[1]
    store.put_if("models/a", b"three", etag)
    assert sorted(store.keys("")) == ["images/a", "models/a"]


def refused(settings: S3) -> str:
    with pytest.raises(StoreUnavailable) as caught:
        S3Store(settings).require_bucket()
    told = str(caught.value)
    assert "\n" not in told
    return told


def test_the_named_authority_is_trusted_and_no_other(plain: S3, tmp_path: Path) -> None:
    use(S3Store(plain))
    stranger = Authority(tmp_path / "stranger", "somebody else")
    for ca_file in (None, str(stranger.cert)):
        told = refused(changed(plain, ca_file=ca_file))
        assert "has a certificate that is not to be trusted" in told
        assert "s3.ca_file" in told


def test_a_store_under_another_name_is_not_trusted(plain: S3) -> None:
    told = refused(changed(plain, endpoint=plain.endpoint.replace("127.0.0.1", "127.1")))
    assert "s3.endpoint a name that it is for" in told


def test_authorities_that_cannot_be_read_are_a_wrong_setting(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("no certificate\n")
    for name, said in (("gone.pem", "can't be read: No such file"), ("empty.pem", "is not a PEM file")):
        with pytest.raises(SettingsError, match=rf"s3\.ca_file .*{name} {said}"):
            S3Store(S3(ca_file=str(tmp_path / name), access_key="a", secret_key="b"))  # type: ignore[arg-type]


def temporary(store: Server) -> Credentials:
    """Keys and a token, of the store's own STS."""
    url = f"http://{store.endpoint}"
    found: Credentials = AssumeRoleProvider(
        sts_endpoint=url, access_key=ACCESS, secret_key=SECRET, role_session_name="tests"
    ).retrieve()
    return found


def test_temporary_keys_work_with_their_token_and_not_without(plain: S3, store: Server) -> None:
    keys = temporary(store)
    with_token = {"access_key": keys.access_key, "secret_key": keys.secret_key, "session_token": keys.session_token}
    use(S3Store(changed(plain, **with_token)))
    assert "are LINEWATCH_S3__ACCESS_KEY" in refused(changed(plain, **{**with_token, "session_token": None}))
    told = refused(changed(plain, **{**with_token, "session_token": "wrong"}))
    assert "LINEWATCH_S3__SESSION_TOKEN still good?" in told
    assert str(keys.session_token) not in told


@pytest.fixture
def metadata(store: Server) -> Iterator[MetadataServer]:
    with MetadataServer(lambda: temporary(store)).running() as running:
        yield running


def test_a_machines_role_has_keys_that_are_had_anew_before_they_end(plain: S3, metadata: MetadataServer) -> None:
    settings = changed(plain, credentials="role", role_endpoint=metadata.url, access_key=None, secret_key=None)
    use(S3Store(settings))
    assert metadata.given == 1, "kept while they last"
    metadata.lasts_s = BEFORE_ITS_END_S
    ending = S3Store(settings)
    ending.put("images/b", b"x")
    ending.put("images/c", b"x")
    assert metadata.given == 3, "had anew for each request once they are about to end"


def test_a_machine_without_a_role_is_told(plain: S3, metadata: MetadataServer) -> None:
    settings = changed(plain, credentials="role", role_endpoint=metadata.url, access_key=None, secret_key=None)
    metadata.role = ""
    assert "no S3 keys for the role" in refused(settings)
    assert "does this machine have a role" in refused(changed(settings, role_endpoint="http://127.0.0.1:9"))


@pytest.fixture
def web_identity(tokens: TokenServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that Kubernetes mounts into a pod, and writes anew."""
    file = tmp_path / "token"
    file.write_text(tokens.token("plant"))
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(file))
    monkeypatch.setenv("AWS_ROLE_ARN", ROLE_ARN)
    monkeypatch.setenv("AWS_ROLE_SESSION_NAME", "tests")
    return file


def test_a_pods_web_identity_has_keys(plain: S3, store: Server, web_identity: Path) -> None:
    settings = changed(plain, credentials="role", role_endpoint=https(store), access_key=None, secret_key=None)
    use(S3Store(settings))
    web_identity.write_text(web_identity.read_text()[:-8] + "AAAAAAAA")
    told = refused(settings)
    assert "no S3 keys for the role" in told
    assert web_identity.read_text()[:20] not in told, "the token is no part of what is told"


def test_keys_in_files_are_rotated_under_a_store_that_is_in_use(
    plain: S3, store: Server, tmp_path: Path, eventually: Any
) -> None:
    def keep(access: str, secret: str) -> None:
        (tmp_path / "access").write_text(access)
        (tmp_path / "secret").write_text(f"{secret}\n")

    old, new = ("first-key", "first-secret-of-the-line", EVERYTHING), ("second-key", "second-secret-of-it", EVERYTHING)
    set_accounts(store, line=old)
    keep(*old[:2])
    files = {name: SecretFile(f"s3.{name}_file", str(tmp_path / name[:6])) for name in ("access_key", "secret_key")}
    used = S3Store(changed(plain, **files))

    def works() -> bool:
        return _works(used)

    eventually(works, what="the first keys")
    set_accounts(store, line=old, next=new)
    keep(*new[:2])
    eventually(works, what="the second keys")
    set_accounts(store, line=revoked(old), next=new)
    eventually(
        lambda: not _works(S3Store(changed(plain, access_key=old[0], secret_key=old[1]))), what="the first are gone"
    )
    assert works()
    (tmp_path / "secret").unlink()
    with pytest.raises(StoreUnavailable, match=r"s3\.secret_key_file: .*secret can't be read: No such file"):
        used.get("images/a")
    keep(*new[:2])
    assert works()


def _works(store: S3Store) -> bool:
    try:
        store.put("images/b", b"x")
    except StoreUnavailable:
        return False
    return True
