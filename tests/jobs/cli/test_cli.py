"""Every command explains itself, and every mistake is one line that starts with "Error:"."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml
from click.testing import CliRunner, Result

from jobs.cli import ORDER, main
from model import ModelBundle
from pipeline.contracts.events import CONTRACTS
from pipeline.fakes import MemoryStore
from pipeline.kafka.capabilities import Capabilities
from pipeline.storage.registry import Registry
from tests.pipeline.tiny import publish, texture


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in group.commands.items():
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


ALL = dict(commands(main))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def refused(*arguments: str) -> str:
    """The one line that a failing command tells."""
    result = run(*arguments)
    assert result.exit_code != 0, result.output
    assert "Traceback" not in result.output
    last = result.output.strip().splitlines()[-1]
    assert last.startswith("Error: "), result.output
    return last


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_command_says_what_it_does(path: tuple[str, ...]) -> None:
    for option in ("--help", "-h"):
        result = run(*path, option)
        assert result.exit_code == 0
        assert result.output.startswith("Usage: main " + " ".join(path))
    command = ALL[path]
    assert command.help
    assert len(command.get_short_help_str(200)) > 10
    for parameter in command.params:
        assert not isinstance(parameter, click.Option) or parameter.help, f"{path}: {parameter.name} has no help"


def test_every_command_has_its_place_in_the_list_of_commands() -> None:
    told = run("--help").output
    assert {name for _, names in ORDER for name in names} == set(main.commands)
    for title, names in ORDER:
        assert title in told
        assert all(f"  {name} " in told for name in names)


def test_help_comes_at_once_and_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom jobs.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'ray', 'kafka', 'minio', 'fastapi', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    best = 1e9
    for _ in range(2):  # the first may have to compile
        before = os.times()
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=Path(__file__).parents[3])
        now = os.times()
        # What it computes, not how long it took: others use the machine too.
        best = min(best, sum(now[2:4]) - sum(before[2:4]))
    assert best < 2


def test_no_servers_say_so_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.kafka import clients as kafka_clients

    assert "no S3 credentials" in refused("models", "list")
    monkeypatch.setenv("LINEWATCH_S3__ACCESS_KEY", "key")
    monkeypatch.setenv("LINEWATCH_S3__SECRET_KEY", "very-secret")
    monkeypatch.setenv("LINEWATCH_S3__ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("LINEWATCH_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:9")
    Path("photos").mkdir()
    Path("photos/a.png").write_bytes(texture(1))
    for arguments in (
        ["ingest", "photos", "-p", "bottle"],
        ["models", "list"],
        ["score", "a.png", "-p", "bottle"],
        ["setup"],
    ):
        told = refused(*arguments)
        assert "S3 at http://127.0.0.1:9 does not answer" in told
        assert "very-secret" not in told
    honest = kafka_clients.connection
    monkeypatch.setattr(kafka_clients, "connection", lambda kafka: {**honest(kafka), "bootstrap_timeout_ms": 300})
    for arguments in (["events", "--no-follow"], ["deadletters", "list"], ["deadletters", "replay", "--yes"]):
        assert "Kafka at 127.0.0.1:9 does not answer" in refused(*arguments)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kafak: {}", "unknown setting 'kafak'"),
        ("s3: {secret_key: very-secret}", "LINEWATCH_S3__SECRET_KEY"),
        ("[", "YAML"),
    ],
)
def test_a_bad_setting_is_one_line(text: str, said: str) -> None:
    Path("bad.yaml").write_text(text)
    told = refused("--config", "bad.yaml", "config", "show")
    assert said in told
    assert "very-secret" not in told
    assert "can't read the settings file" in refused("-c", "gone.yaml", "config", "show")


def test_config_show_prints_every_setting_as_yaml_with_secrets_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINEWATCH_S3__SECRET_KEY", "very-secret")
    monkeypatch.setenv("LINEWATCH_S3__ACCESS_KEY", "also-secret")
    result = run("config", "show")
    assert "very-secret" not in result.output
    assert "also-secret" not in result.output
    shown = yaml.safe_load(result.output)
    assert shown["s3"]["secret_key"] == "**********"
    assert shown["topics"]["prefix"] == "linewatch"


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["ingest"],
        ["ingest", "x"],
        ["replay", "x", "-p", "b", "--fps", "0"],
        ["fit"],
        ["fit", "b", "--steps", "0"],
        ["events", "--verdict", "Maybe"],
    ],
)
def test_wrong_usage_says_what_is_wrong(arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Error: " in result.output
    assert "Traceback" not in result.output


def test_schemas_are_exported() -> None:
    assert run("schemas", "out").exit_code == 0
    assert sorted(path.name for path in Path("out").iterdir()) == sorted(f"{name}.schema.json" for name in CONTRACTS)


def test_a_mistyped_bucket_is_told_and_never_made_but_by_what_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.errors import StoreUnavailable

    made: list[str] = []

    class NoBucket(MemoryStore):
        def require_bucket(self) -> None:
            raise StoreUnavailable("S3 has no bucket 'linewatsh'")

        def ensure_bucket(self) -> bool:
            made.append("linewatsh")
            return True

    for where in ("jobs.session.connect.S3Store", "jobs.audit.run.S3Store"):
        monkeypatch.setattr(where, lambda _: NoBucket())
    monkeypatch.setattr("jobs.audit.run.delivery", lambda _: Capabilities(aborts_hidden=True, end_offsets_exact=True))
    Path("photos").mkdir()
    Path("photos/a.png").write_bytes(texture(1))
    version = "20260131T120000Z-0f1e2d3c"
    for arguments in (
        ["models", "list"],
        ["models", "show", "bottle"],
        ["models", "promote", "bottle", version],
        ["models", "rollback", "bottle"],
        ["score", "photos/a.png", "-p", "bottle"],
        ["evaluate", "-p", "bottle"],
        ["fit", "bottle"],
        ["replay", "photos", "-p", "bottle"],
        ["replay", "--event", "5b48d642c7f2abcbd25666e8bfb6af7e"],
        ["rescore", "-p", "bottle", "-v", version, "--since", "1h", "--to", "x.y"],
        ["schedule"],
        ["serve"],
        ["audit"],
    ):
        assert "S3 has no bucket 'linewatsh'" in refused(*arguments)
    assert not made
    assert "made the bucket 'linewatch', which was not there" in run("ingest", "photos", "-p", "bottle").output
    assert made == ["linewatsh"]


def test_no_proxy_of_the_environment_leads_to_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's clients ask the environment's proxy, or a loopback address's own server."""
    from requests.utils import get_environ_proxies

    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://proxy.example.com:3128")
    monkeypatch.setenv("no_proxy", "plant.example.com")
    monkeypatch.setenv("NO_PROXY", "")
    assert get_environ_proxies("http://127.0.0.1:8265/api")
    assert run("config", "show").exit_code == 0
    for host in ("127.0.0.1:8265", "127.0.0.2:8265", "localhost:8800", "plant.example.com"):
        assert not get_environ_proxies(f"http://{host}/api")
    assert get_environ_proxies("http://other.example.com/api")


@pytest.fixture
def store(tiny_bundle: ModelBundle, monkeypatch: pytest.MonkeyPatch) -> MemoryStore:
    """Commands find this store instead of S3."""
    store = MemoryStore()
    publish(store, tiny_bundle)
    for opens in ("open_store", "make_store"):
        monkeypatch.setattr(f"jobs.session.connect.{opens}", lambda *_: store)
    monkeypatch.setattr("jobs.fitting.release.announce", lambda *_: None)
    monkeypatch.setenv("LINEWATCH_ENGINE__THREADS", "1")
    monkeypatch.setenv("LINEWATCH_ENGINE__DEVICE", "cpu")
    return store


@pytest.mark.usefixtures("store")
def test_a_wrong_product_name_is_refused() -> None:
    Path("photos").mkdir()
    for arguments in (
        ["ingest", "photos", "-p", "../x"],
        ["models", "list", "a/b"],
        ["models", "show", "a b"],
        ["models", "rollback", ".."],
        ["score", "x.png", "-p", "a\n"],
        ["evaluate", "-p", ""],
        ["fit", "no/pe"],
    ):
        assert "can't name a product" in refused(*arguments)


@pytest.mark.usefixtures("store")
def test_a_folder_that_cannot_be_read_is_refused() -> None:
    assert "nowhere is not a folder" in refused("ingest", "nowhere", "-p", "bottle")
    assert "nowhere is not a folder" in refused("replay", "nowhere", "-p", "bottle")
    Path("empty").mkdir()
    assert "holds no image" in refused("ingest", "empty", "-p", "bottle")


@pytest.mark.usefixtures("store")
def test_an_unknown_version_is_refused() -> None:
    unknown = "20200101T000000Z-00000000"
    for arguments in (["models", "show", "bottle", unknown], ["models", "promote", "bottle", unknown]):
        assert "has no version" in refused(*arguments)
    assert "is no model version" in refused("models", "show", "bottle", "newest")
    assert "has no champion" in refused("models", "show", "cap")
    assert "no images of 'cap' yet" in refused("fit", "cap")


def test_versions_are_listed_shown_promoted_and_rolled_back(store: MemoryStore, tiny_bundle: ModelBundle) -> None:
    registry = Registry(store)
    first, second = registry.champion("bottle").champion.version, publish(store, tiny_bundle, serve=False)
    listed = run("models", "list").output
    assert f"{first}  champion" in " ".join(listed.split(" ")).replace("   ", "  ")
    assert second in listed
    shown = run("models", "show", "bottle", second)
    assert json.loads(shown.stdout)["version"] == second
    assert "aimed at" in shown.stderr
    assert f"{second} serves" in run("models", "promote", "bottle", second).output
    assert registry.champion("bottle").champion.version == second
    assert f"{first} serves again" in run("models", "rollback", "bottle").output
    assert "no earlier champion" in refused("models", "rollback", "bottle")


def test_a_version_of_a_later_release_is_listed_with_the_reason_and_refused(
    store: MemoryStore, tiny_bundle: ModelBundle
) -> None:
    first, second = Registry(store).champion("bottle").champion.version, publish(store, tiny_bundle, serve=False)
    key = f"models/bottle/{second}/manifest.json"
    store.objects[key] = json.dumps({**json.loads(store.objects[key]), "wisdom": 1}).encode()
    listed = run("models", "list")
    assert first in listed.stdout
    assert second in listed.stdout
    assert f"! bottle {second}: the manifest is of a later linewatch" in listed.stderr
    assert "(unknown here: wisdom): upgrade" in refused("models", "promote", "bottle", second)
    assert Registry(store).champion("bottle").champion.version == first


@pytest.mark.usefixtures("store")
def test_score_tells_verdicts_writes_masks_and_names_what_it_could_not_score() -> None:
    Path("good.png").write_bytes(texture(101))
    Path("bad.png").write_bytes(texture(101, spot=True))
    result = run("score", "good.png", "bad.png", "-p", "bottle", "--json", "--mask", "masks")
    facts = [json.loads(line) for line in result.output.splitlines()]
    assert [one["verdict"] for one in facts] == ["OK", "NotOK"]
    assert {path.name for path in Path("masks").iterdir()} == {"good_mask.png", "bad_mask.png"}
    Path("text.png").write_text("no image")
    result = run("score", "good.png", "text.png", "gone.png", "-p", "bottle")
    assert result.exit_code == 1
    assert "good.png: OK" in result.output
    assert "2 of 3 files could not be scored" in result.output


def test_a_damaged_model_is_one_line(store: MemoryStore) -> None:
    version = Registry(store).champion("bottle").champion.version
    Path("a.png").write_bytes(texture(1))
    store.objects[f"models/bottle/{version}/weights.safetensors"] = b"damaged"
    assert "sha256" in refused("score", "a.png", "-p", "bottle")
    store.objects[f"models/bottle/{version}/manifest.json"] = b"{}"
    assert "damaged" in refused("models", "show", "bottle")


@pytest.mark.usefixtures("store")
def test_debug_shows_the_traceback() -> None:
    result = run("--debug", "models", "show", "cap")
    assert type(result.exception).__name__ == "UnknownProduct"
