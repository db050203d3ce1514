"""Secrets by variable or by file, read anew from files, and in nothing that is shown, sent, pickled or raised."""

import copy
import pickle
from pathlib import Path

import pytest

from pipeline.errors import SettingsError
from pipeline.settings import SECRETS, SecretFile, Settings

VALUES = {name: f"very-secret-{number}-of-{name[1]}" for number, name in enumerate(SECRETS)}


def variable(section: str, key: str) -> str:
    return f"LINEWATCH_{section}__{key}".upper()


def value_of(settings: Settings, section: str, key: str) -> str:
    found: str = getattr(getattr(settings, section), key).get_secret_value()
    return found


@pytest.fixture(params=["variable", "file"])
def every_secret(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for (section, key), value in VALUES.items():
        name = variable(section, key)
        if request.param == "file":
            Path(f"{section}-{key}").write_text(f"{value}\n")
            name, value = f"{name}_FILE", f"{section}-{key}"
        monkeypatch.setenv(name, value)
    return Settings.load()


@pytest.mark.parametrize(("section", "key"), SECRETS)
def test_a_secret_comes_from_its_variable_or_its_file(section: str, key: str, every_secret: Settings) -> None:
    assert value_of(every_secret, section, key) == VALUES[section, key]
    assert every_secret.masked()[section][key] == "**********"


def test_no_secret_is_shown_sent_or_pickled(every_secret: Settings) -> None:
    sections = [every_secret.kafka, every_secret.s3, every_secret.serving]
    shown = [repr(every_secret), str(every_secret), str(every_secret.public()), str(every_secret.masked())]
    shown += [repr(section) for section in sections]
    pickles = [pickle.dumps(one) for one in (every_secret, *sections)]
    for value in VALUES.values():
        assert not [text for text in shown if value in text]
        assert not [data for data in pickles if value.encode() in data]


def test_a_pickle_is_read_with_the_secrets_of_the_reader(
    every_secret: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = pickle.loads(pickle.dumps(every_secret))
    assert {name: value_of(read, *name) for name in SECRETS} == VALUES
    assert read.public() == every_secret.public()
    data = pickle.dumps(every_secret)
    for section, key in SECRETS:
        monkeypatch.delenv(variable(section, key), raising=False)
        monkeypatch.delenv(f"{variable(section, key)}_FILE", raising=False)
    assert pickle.loads(data).s3.secret_key is None
    assert value_of(copy.deepcopy(every_secret), "s3", "secret_key") == VALUES["s3", "secret_key"]


def test_another_process_is_told_no_file_of_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("here").write_text("of-here")
    Path("there").write_text("of-there")
    monkeypatch.setenv("LINEWATCH_S3__SECRET_KEY_FILE", "here")
    sent = Settings.load().public()
    assert "here" not in str(sent)
    monkeypatch.setenv("LINEWATCH_S3__SECRET_KEY_FILE", "there")
    assert value_of(Settings.received(sent), "s3", "secret_key") == "of-there"


def test_a_file_is_read_anew_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    file = Path("password")
    file.write_text("old\r\n")
    monkeypatch.setenv("LINEWATCH_KAFKA__PASSWORD_FILE", "password")
    kafka = Settings.load().kafka
    assert isinstance(kafka.password, SecretFile)
    assert kafka.password.get_secret_value() == "old"
    file.write_text(" new one \n")
    assert kafka.password.get_secret_value() == " new one ", "only the newline at its end is none of it"
    file.unlink()
    with pytest.raises(SettingsError, match=r"kafka\.password_file: password can't be read: No such file"):
        kafka.password.get_secret_value()
    assert kafka.password, "it is set, whatever became of its file"
    assert repr(kafka.password) == "SecretFile('**********')", "to be shown it need not be there"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "can't be read: No such file or directory"),
        ("", "is empty"),
        ("\n", "is empty"),
        (b"\xff\xfe", "not UTF-8"),
    ],
)
def test_a_file_that_holds_no_secret_gives_one_line(
    content: str | bytes | None, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if content is not None:
        Path("key").write_bytes(content if isinstance(content, bytes) else content.encode())
    monkeypatch.setenv("LINEWATCH_S3__SECRET_KEY_FILE", "key")
    with pytest.raises(SettingsError) as caught:
        Settings.load()
    told = str(caught.value)
    assert told.startswith("LINEWATCH_S3__SECRET_KEY_FILE: s3.secret_key_file: key ")
    assert said in told
    assert "\n" not in told


def test_a_variable_and_a_file_of_one_secret_are_one_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("key").write_text("from-the-file")
    monkeypatch.setenv("LINEWATCH_S3__SECRET_KEY_FILE", "key")
    monkeypatch.setenv("LINEWATCH_S3__SECRET_KEY", "from-the-variable")
    with pytest.raises(SettingsError) as caught:
        Settings.load()
    told = str(caught.value)
    assert told.startswith("LINEWATCH_S3__SECRET_KEY and LINEWATCH_S3__SECRET_KEY_FILE: ")
    assert "are both set: take one of them out" in told
    assert "from-the" not in told


@pytest.mark.parametrize(("section", "key"), SECRETS)
def test_the_settings_file_names_no_file_of_a_secret(section: str, key: str) -> None:
    Path("settings.yaml").write_text(f"{section}: {{{key}_file: somewhere}}")
    with pytest.raises(SettingsError, match=f"take {key}_file out and set {variable(section, key)}, or .*_FILE to"):
        Settings.load(Path("settings.yaml"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kafka: {key_file: k}", "kafka.key_file is the key of a certificate: set kafka.cert_file too"),
        ("kafka: {cert_file: c}", "kafka.cert_file needs kafka.security_protocol SSL or SASL_SSL, not PLAINTEXT"),
        ("kafka: {oauth_token_url: 'http://idp.example.com/token'}", "kafka.oauth_token_url must be https"),
        ("kafka: {oauth_token_url: 'idp.example.com'}", "kafka.oauth_token_url must be http:// or https://"),
        (
            "kafka: {oauth_token_url: 'https://u:p@idp.example.com/'}",
            "kafka.oauth_token_url must be http:// or https://",
        ),
        ("serving: {tls_cert_file: c}", "serving.tls_cert_file and serving.tls_key_file belong together"),
        ("s3: {credentials: none}", "s3.credentials must be 'settings' or 'role'"),
    ],
)
def test_what_does_not_belong_together_is_one_line(text: str, said: str) -> None:
    Path("settings.yaml").write_text(text)
    with pytest.raises(SettingsError) as caught:
        Settings.load(Path("settings.yaml"))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/t", "http://[::1]:8080/t", "http://localhost/t", "https://a.b/t"])
def test_a_token_url_may_be_plain_on_loopback_alone(url: str) -> None:
    assert Settings.from_values({"kafka": {"oauth_token_url": url}}).kafka.oauth_token_url == url
