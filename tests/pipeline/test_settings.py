"""Defaults < YAML < environment; every mistake is one clear line; no secret leaves."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model import FitOptions
from pipeline.errors import SettingsError
from pipeline.settings import SECRETS, Settings


def written(text: str) -> Path:
    path = Path("settings.yaml")
    path.write_text(text)
    return path


def refusal(text: str) -> str:
    with pytest.raises(SettingsError) as caught:
        Settings.load(written(text))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_defaults_hold_where_nothing_is_said() -> None:
    settings = Settings.load()
    assert settings.topics.images == "linewatch.images"
    assert settings.kafka.delivery == "auto"
    assert settings.fit == FitOptions()


def test_yaml_outranks_defaults_and_the_environment_outranks_yaml(monkeypatch: pytest.MonkeyPatch) -> None:
    file = written("kafka: {group: from-yaml, session_timeout_ms: 7000}\ntopics: {prefix: plant}\n")
    monkeypatch.setenv("LINEWATCH_KAFKA__GROUP", "from-environment")
    settings = Settings.load(file)
    assert settings.kafka.group == "from-environment"
    assert settings.kafka.session_timeout_ms == 7000, "the section's other values stay"
    assert settings.topics.deadletters == "plant.deadletters"
    assert settings.kafka.transaction_timeout_ms == 20_000


def test_the_file_is_the_given_one_else_the_named_one_else_linewatch_yaml(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("linewatch.yaml").write_text("kafka: {group: found}")
    assert Settings.load().kafka.group == "found"
    Path("named.yaml").write_text("kafka: {group: named}")
    monkeypatch.setenv("LINEWATCH_CONFIG", "named.yaml")
    assert Settings.load().kafka.group == "named"
    assert Settings.load(written("kafka: {group: given}")).kafka.group == "given"


def test_an_empty_file_is_no_settings() -> None:
    assert Settings.load(written("# nothing yet\n")) == Settings.load()


@pytest.mark.parametrize(("section", "key"), SECRETS)
def test_a_secret_in_the_file_is_refused_and_its_variable_named(section: str, key: str) -> None:
    told = refusal(f"{section}: {{{key}: very-secret}}")
    assert f"LINEWATCH_{section.upper()}__{key.upper()}" in told
    assert "very-secret" not in told


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kafak: {group: a}", "unknown setting 'kafak'"),
        ("kafka: {groop: a}", "kafka.groop"),
        ("kafka: 5", "kafka"),
        ("kafka: {session_timeout_ms: soon}", "kafka.session_timeout_ms"),
        ("limits: {image_bytes: 0}", "limits.image_bytes"),
        ("topics: {prefix: 'a.b'}", "topics.prefix"),
        ("topics: {min_insync_replicas: 2}", "min_insync_replicas 2 is more than replication_factor 1"),
        ("topics: {replication_factor: 3, min_insync_replicas: 4}", "min_insync_replicas 4 is more than"),
        ("s3: {endpoint: 'ftp://x'}", "s3.endpoint"),
        ("s3: {bucket: 'Not A Bucket'}", "s3.bucket"),
        ("products: {'../x': {}}", "products"),
        ("fit: {size: 100}", "fit.size"),
        ("- a\n- b", "expected a mapping"),
        ("kafka: {group: [", "is not YAML"),
        ("1: 2\ntrue: 3\nnope: 4", "unknown setting"),
    ],
)
def test_a_wrong_setting_gives_one_line_that_names_it(text: str, said: str) -> None:
    assert said in refusal(text)


def test_a_file_that_cannot_be_read_gives_one_line() -> None:
    with pytest.raises(SettingsError, match=r"can't read the settings file gone\.yaml"):
        Settings.load(Path("gone.yaml"))
    Path("latin.yaml").write_bytes(b"kafka: {group: caf\xe9}")
    with pytest.raises(SettingsError, match="is not UTF-8"):
        Settings.load(Path("latin.yaml"))


def test_malformed_json_in_the_environment_gives_one_line_without_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINEWATCH_S3", '{"secret_key": "very-secret"')
    with pytest.raises(SettingsError) as caught:
        Settings.load()
    assert "s3" in str(caught.value)
    assert "very-secret" not in str(caught.value)


def test_an_unknown_variable_of_a_section_is_refused_and_other_programs_variables_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LINEWATCH_LOCAL__KAFKA", "tansu")
    Settings.load()
    monkeypatch.setenv("LINEWATCH_KAFKA__GROOP", "a")
    with pytest.raises(SettingsError, match=r"kafka\.groop"):
        Settings.load()


def test_nested_names_reach_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINEWATCH_PRODUCTS__bottle__FIT__STEPS", "40")
    monkeypatch.setenv("LINEWATCH_STREAM__HEAT_MAPS", "always")
    settings = Settings.load(written("products: {cap: {cron: '0 3 * * *'}}"))
    assert settings.stream.heat_maps == "always"
    assert settings.products["cap"].cron == "0 3 * * *"
    assert settings.fit_options("bottle").steps == 40


def test_a_product_has_its_own_fit_options_on_top_of_the_common_ones() -> None:
    settings = Settings.from_values({"fit": {"steps": 99, "seed": 3}, "products": {"cap": {"fit": {"steps": 7}}}})
    assert settings.fit_options("cap") == FitOptions(steps=7, seed=3)
    assert settings.fit_options("other") == FitOptions(steps=99, seed=3)


@pytest.mark.parametrize("own", [{"size": 100}, {"stepps": 4}])
def test_wrong_fit_options_of_a_product_name_it(own: dict[str, int]) -> None:
    settings = Settings.from_values({"products": {"cap": {"fit": own}}})
    with pytest.raises(SettingsError, match=rf"products\.cap\.fit\.{next(iter(own))}"):
        settings.fit_options("cap")


def test_an_ignored_area_comes_from_file_environment_or_product_and_reaches_the_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    triangle = (((0.0, 0.0), (9.0, 0.0), (0.0, 9.5)),)
    file = written("fit: {ignore: [[[0, 0], [9, 0], [0, 9.5]]]}\nproducts: {cap: {fit: {ignore: cap.png}}}")
    settings = Settings.received(json.loads(json.dumps(Settings.load(file).public())))
    assert settings.fit_options("bottle").ignore == triangle
    assert settings.fit_options("cap").ignore == "cap.png"
    assert settings.with_fit({"ignore": "all.png"}).fit_options("cap").ignore == "all.png"
    monkeypatch.setenv("LINEWATCH_FIT__IGNORE", "[[[0, 0], [9, 0], [0, 9.5]]]")
    assert Settings.load().fit.ignore == triangle
    monkeypatch.setenv("LINEWATCH_FIT__IGNORE", "masks/belt.png")
    assert Settings.load().fit.ignore == "masks/belt.png"
    monkeypatch.setenv("LINEWATCH_PRODUCTS__bottle__FIT__IGNORE", "[[[0, 0], [9, 0], [0, 9.5]]]")
    assert Settings.load().fit_options("bottle").ignore == triangle


@pytest.mark.parametrize(
    "ignore", ["[[[0, 0], [9, 0]]]", "[[0, 0], [9, 0], [9, 9]]", "{mask: belt.png}", "''", "'[[0, '"]
)
def test_an_ignored_area_that_cannot_be_meant_is_refused_in_words(ignore: str) -> None:
    with pytest.raises(SettingsError, match=r"fit\.ignore.*(at least 3 corners|list of polygons)"):
        Settings.load(written(f"fit: {{ignore: {ignore}}}"))
    with pytest.raises(SettingsError, match=r"products\.cap\.fit\.ignore.*(at least 3 corners|list of polygons)"):
        Settings.load(written(f"products: {{cap: {{fit: {{ignore: {ignore}}}}}}}"))


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("S3__TIMEOUT_S", "soon", "s3.timeout_s must be a number, not 'soon'"),
        ("S3__TIMEOUT_S", "0", "s3.timeout_s must be more than 0, not '0'"),
        ("S3__TIMEOUT_S", "inf", "s3.timeout_s must be a finite number, not 'inf'"),
        ("S3__TIMEOUT_S", "1e300", "s3.timeout_s must be at most 86400, not '1e300'"),
        ("S3__BUCKET", "My.Bucket", "s3.bucket must be 3 to 63 lower-case letters, digits and '-', with no '-' at"),
        ("S3__ENDPOINT", "127.0.0.1:9000", "s3.endpoint must be http:// or https:// and a host"),
        ("S3__ENDPOINT", "http://127.0.0.1:99999", "s3.endpoint must be http:// or https:// and a host"),
        ("KAFKA__DELIVERY", "maybe", "kafka.delivery must be 'auto', 'exactly_once' or 'at_least_once', not 'maybe'"),
        ("KAFKA__BOOTSTRAP_SERVERS", "broker", "kafka.bootstrap_servers must be host:port, or several"),
        ("KAFKA__BOOTSTRAP_SERVERS", "broker:x", "kafka.bootstrap_servers must be host:port, or several"),
        ("KAFKA__BOOTSTRAP_SERVERS", "a:9092,b:65536", "kafka.bootstrap_servers must be host:port, or several"),
        ("KAFKA__GROUP", "", "kafka.group must not be empty, not ''"),
        ("KAFKA__GROUPP", "a", "kafka.groupp is no setting"),
        ("KAFKA__SESSION_TIMEOUT_MS", "99999999999", "kafka.session_timeout_ms must be at most 1073741823"),
        ("kafka__static_membership", "perhaps", "kafka.static_membership must be true or false, not 'perhaps'"),
        ("TOPICS__PREFIX", "A B", "topics.prefix must be 1 to 41 lower-case letters, digits and '-'"),
        ("STREAM__BATCH_IMAGES", "1.5", "stream.batch_images must be a whole number, not '1.5'"),
        ("ENGINE__DEVICE", "tpu", "engine.device must be auto, cpu, cuda, or cuda:N"),
        ("SERVING__MAX_REPLICAS", "100", "serving.max_replicas is 100: it lies between"),
        ("LIMITS__INLINE_BYTES", "16777216", "limits.inline_bytes must stay 65536 bytes under"),
        ("TOPICS__MIN_INSYNC_REPLICAS", "2", "topics.min_insync_replicas 2 is more than"),
        ("FIT__SIZE", "100", "fit.size must be a multiple of 32, not '100'"),
        ("FIT__BACKBONE", "vgg", "fit.backbone must be one of efficientnet_lite0, "),
        ("KAFKA", "abc", "kafka must be a mapping as JSON"),
        ("PRODUCTS", '{"bottle": {"cron": 5}}', "products.bottle.cron must be text, not 5"),
        ("PRODUCTS", '{"bo/ttle": {}}', "products.bo/ttle can't name a product"),
        ("PRODUCTS__BOTTLE", "abc", "products.bottle must be a mapping of settings"),
        ("PRODUCTS__BOTTLE__FIT", "abc", "products.bottle.fit must be a mapping as JSON"),
        ("PRODUCTS__BOTTLE__FIT__STEPS", "many", "products.bottle.fit.steps must be a whole number, not 'many'"),
        ("PRODUCTS__BOTTLE__FIT__BACKBONE", "vgg", "products.bottle.fit.backbone must be one of"),
    ],
)
def test_a_wrong_variable_is_named_with_its_rule_in_words(
    variable: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"LINEWATCH_{variable}", value)
    file = written("stream: {transaction_images: 32}")
    with pytest.raises(SettingsError) as caught:
        Settings.load(file)
    told = str(caught.value)
    assert told.startswith(f"LINEWATCH_{variable}: {said}"), told
    assert "\n" not in told
    assert not {"Input", "pattern", "Value error"} & set(told.replace(",", " ").split())


def test_addresses_may_be_several_have_blanks_and_be_ipv6() -> None:
    servers = "a.example.com:9092, [::1]:9093 ,10.0.0.1:65535"
    assert Settings.from_values({"kafka": {"bootstrap_servers": servers}}).kafka.bootstrap_servers == servers
    for endpoint in ("http://[::1]:9000", "https://s3.example.com", "https://s3.example.com:443/"):
        assert Settings.from_values({"s3": {"endpoint": endpoint}}).s3.endpoint == endpoint


def test_what_the_file_sets_wrongly_is_the_files() -> None:
    assert refusal("s3: {timeout_s: soon}").startswith("settings.yaml: s3.timeout_s must be a number, not 'soon'")
    own = "products: {cap: {fit: {steps: many}}}"
    assert refusal(own).startswith("settings.yaml: products.cap.fit.steps must be a whole number")
    assert "(line 2, column 1)" in refusal("kafka: {group: [\n")


def test_a_secret_that_is_wrong_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINEWATCH_S3", '{"secret_key": ["very-secret"]}')
    with pytest.raises(SettingsError) as caught:
        Settings.load()
    assert str(caught.value).startswith("LINEWATCH_S3: s3.secret_key must be text")
    assert "very-secret" not in str(caught.value)


@given(st.text(alphabet="abcdefghijklmnop0123456789/+", min_size=12, max_size=40))
def test_no_secret_in_what_is_written_shown_or_logged(secret: str) -> None:
    settings = Settings(
        s3={"access_key": f"AK{secret}", "secret_key": secret},
        kafka={"username": f"u{secret}", "password": secret, "sasl_mechanism": "PLAIN"},
    )
    assert settings.s3.secret_key
    assert settings.s3.secret_key.get_secret_value() == secret
    for shown in (repr(settings), str(settings), json.dumps(settings.public()), json.dumps(settings.masked())):
        assert secret not in shown
    assert not {"access_key", "secret_key"} & set(settings.public()["s3"])
    assert settings.masked()["s3"]["secret_key"] == "**********"
    assert settings.masked()["kafka"]["password"] == "**********"


def test_masked_tells_a_secret_that_is_set_from_one_that_is_not() -> None:
    assert Settings.from_values({}).masked()["s3"]["secret_key"] is None


def test_public_values_rebuild_the_same_settings_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINEWATCH_S3__ACCESS_KEY", "key")
    monkeypatch.setenv("LINEWATCH_S3__SECRET_KEY", "very-secret")
    here = Settings.load(written("serving: {replicas: 3}\nproducts: {cap: {fit: {steps: 7}}}"))
    there = Settings.from_values(json.loads(json.dumps(here.public())))
    assert there == here, "the secrets come from the environment there"
