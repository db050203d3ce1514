"""The docs keep up with the code: whatever a user can set, call, read or meet is named in them."""

import json
import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from jobs.cli import main
from model import ImageRejected
from pipeline.contracts.cloudevents import REQUIRED
from pipeline.contracts.deadletters import MARKER
from pipeline.contracts.events import (
    CLAIM_CONTENT_TYPE,
    ClaimCheck,
    Contract,
    Feedback,
    InspectionEvent,
    Release,
    event_id,
)
from pipeline.errors import DeadLetter, ImageBroken
from pipeline.settings import SECRETS, Product, Settings, Topics
from pipeline.telemetry import metrics

ROOT = Path(__file__).parent.parent
CONFIGURATION, TOPICS, OBSERVABILITY = (
    ROOT / "docs" / f"{name}.md" for name in ("configuration", "topics", "observability")
)
ROOMS = (".ci", "docs", "infra", "jobs", "model", "pipeline", "tests")
BINARY = {".png", ".jpg", ".pyc", ".safetensors", ".pth"}
# Written in pieces, or this file would break its own rules.
MACHINE_PATHS = re.compile("|".join(("/wo" "rk/", "/ro" "ot/", "/ho" "me/[a-z]+/", "/Us" "ers/")))  # fmt: skip
# Of PyTorch's host the index of packages; torchvision publishes its weights beside it.
REGISTRY_HOSTS = re.compile(
    "|".join((r"pypi\." "org", r"python" r"hosted\.", r"npm" r"js\.", r"download\.pytorch\.org/" "whl",
              r"proxy\." "golang")),
    re.IGNORECASE,
)  # fmt: skip
ADVERTISING = re.compile(
    r"\b(blazing(ly)?|seamless(ly)?|effortless(ly)?|cutting-edge|state-of-the-art|world-class|best-in-class|"
    r"revolutionary|game-chang\w+|next-generation|unparalleled|supercharge\w*)\b",
    re.IGNORECASE,
)
LEFT_OVER = re.compile(r"\b(TODO|FIXME|XXX|TBD|lorem ipsum)\b")


def _pages() -> list[Path]:
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def _texts() -> Iterator[Path]:
    for path in sorted(ROOT.iterdir()):
        if path.is_file():
            yield path
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*")):
            if path.is_file() and path.suffix not in BINARY and "__pycache__" not in path.parts:
                yield path


def _settings() -> Iterator[tuple[str, str, FieldInfo]]:
    """Each setting: dotted name, environment variable, field."""
    for section, field in Settings.model_fields.items():
        model, path = (Product, f"{section}.<name>") if section == "products" else (field.annotation, section)
        assert isinstance(model, type)
        assert issubclass(model, BaseModel)
        for name, inner in model.model_fields.items():
            dotted = f"{path}.{name}"
            yield dotted, f"LINEWATCH_{dotted.replace('.', '__').upper()}", inner


def _rows(page: Path, name: str) -> list[list[str]]:
    """The cells of the table rows that begin with a name in backticks."""
    lines = [line for line in page.read_text().splitlines() if line.startswith(f"| `{name}`")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def _blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def _commands(command: click.Command, path: str) -> Iterator[str]:
    if isinstance(command, click.Group):
        for name, one in command.commands.items():
            yield from _commands(one, f"{path} {name}")
    else:
        yield path


def _leaves(kind: type) -> Iterator[type]:
    below = kind.__subclasses__()
    for one in below:
        yield from _leaves(one)
    if not below:
        yield kind


@pytest.mark.parametrize(("dotted", "variable", "field"), [pytest.param(*one, id=one[0]) for one in _settings()])
def test_every_setting_is_described_with_its_variable_and_its_default(
    dotted: str, variable: str, field: FieldInfo
) -> None:
    default = field.get_default(call_default_factory=True)
    rows = _rows(CONFIGURATION, dotted)
    assert len(rows) == 1, f"docs/configuration.md has {len(rows)} rows for {dotted}"
    _, shown, named, meaning = rows[0]
    in_yaml = {None: "none", True: "true", False: "false"}
    assert shown.strip("`") == (in_yaml[default] if default is None or isinstance(default, bool) else str(default))
    assert named.strip("`") == variable
    assert meaning


def test_no_setting_is_described_that_does_not_exist() -> None:
    described = re.findall(r"^\| `([a-z0-9_]+\.[a-z0-9_.<>]+)`", CONFIGURATION.read_text(), re.MULTILINE)
    assert set(described) == {dotted for dotted, _, _ in _settings()}


def test_secrets_are_marked() -> None:
    marked = re.findall(r"^\| `([a-z0-9_.]+)` \(secret\)", CONFIGURATION.read_text(), re.MULTILINE)
    assert set(marked) == {f"{section}.{key}" for section, key in SECRETS}


def test_the_example_settings_are_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("LINEWATCH_")]:
        monkeypatch.delenv(name)
    (example,) = _blocks(CONFIGURATION, "yaml")
    settings = Settings.from_values(yaml.safe_load(example), where="docs/configuration.md")
    assert settings.products
    for product in settings.products:
        assert settings.fit_options(product).steps > 0


@pytest.mark.parametrize("command", list(_commands(main, "linewatch")))
def test_every_command_is_in_the_readme(command: str) -> None:
    assert f"`{command}`" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("name", [name for name, value in vars(Topics).items() if isinstance(value, property)])
def test_every_topic_is_described(name: str) -> None:
    assert f"| `{getattr(Topics(), name)}` |" in TOPICS.read_text()


@pytest.mark.parametrize("header", [*REQUIRED, "ce_subject", "ce_time", "ce_imageid", "traceparent", MARKER])
def test_every_header_is_described(header: str) -> None:
    assert f"`{header}`" in TOPICS.read_text()


@pytest.mark.parametrize("metric", [m for m in vars(metrics).values() if isinstance(m, MetricWrapperBase)])
def test_every_metric_is_described(metric: MetricWrapperBase) -> None:
    (family,) = metric.describe()
    name = f"{family.name}_total" if family.type == "counter" else family.name
    assert f"| `{name}` | {family.type} |" in OBSERVABILITY.read_text()


@pytest.mark.parametrize(
    "error_class",
    sorted(
        # ImageBroken carries the decoder's own class; InspectionFailed is the worker's.
        {kind.__name__ for kind in (*_leaves(DeadLetter), *_leaves(ImageRejected))} - {ImageBroken.__name__}
    ),
)
def test_every_class_of_dead_letter_has_a_cause_and_a_fix(error_class: str) -> None:
    ((_, cause, fix),) = _rows(TOPICS, error_class)
    assert cause
    assert fix


def test_the_examples_of_messages_are_valid() -> None:
    contracts: dict[type[Contract], Any] = {}
    for block in _blocks(TOPICS, "json"):
        values = json.loads(block)
        (kind,) = [
            one for one in (InspectionEvent, ClaimCheck, Release, Feedback) if set(one.model_fields) == set(values)
        ]
        contracts[kind] = kind.model_validate(values)
    assert set(contracts) == {InspectionEvent, ClaimCheck, Release, Feedback}
    event = contracts[InspectionEvent]
    assert event.event_id == event.mask.event_id == event_id(event.image_id, event.model_version)
    assert event.normalised_score == pytest.approx(event.score / event.threshold)
    assert f"`{CLAIM_CONTENT_TYPE}`" in TOPICS.read_text()


def test_every_file_that_is_named_as_a_place_exists() -> None:
    named = re.findall(
        r"`((?:model|pipeline|jobs|infra|tests)/[\w/]+\.py)`", (ROOT / "docs/architecture.md").read_text()
    )
    assert named
    assert not [name for name in named if not (ROOT / name).is_file()]


@pytest.mark.parametrize("house", ["model", "pipeline", "jobs"])
def test_the_picture_of_the_rooms_has_the_floors_that_are_checked(house: str) -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = [one["layers"] for one in contracts if one.get("containers") == [house]]
    drawn = re.findall(
        rf'<rect class="{house}" x="[\d.]+" y="(\d+)".*?/>\s*<text class="r".*?>(\w+)</text>',
        (ROOT / "docs/rooms.svg").read_text(),
    )
    floors: dict[int, set[str]] = {}
    for height, room in drawn:
        floors.setdefault(int(height), set()).add(room)
    assert [floors[height] for height in sorted(floors)] == [set(layer.split(" | ")) for layer in layers]


def test_every_room_says_what_it_decides() -> None:
    rooms = [path for house in ("model", "pipeline", "jobs") for path in (ROOT / house).glob("*/__init__.py")]
    silent = [path.parent.name for path in rooms if not path.read_text().startswith('"""')]
    assert len(rooms) > 20
    assert not silent


@pytest.mark.parametrize("page", _pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_within_the_project_resolve(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        target, _, anchor = link.partition("#")
        path = (page.parent / target).resolve() if target else page
        if not path.exists() or (anchor and anchor not in _anchors(path)):
            broken.append(link)
    assert not broken


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("rule", [MACHINE_PATHS, REGISTRY_HOSTS], ids=["paths of a machine", "hosts of registries"])
def test_no_file_names(rule: re.Pattern[str]) -> None:
    found = []
    for path in _texts():
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            if rule.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}")
    assert not found


@pytest.mark.parametrize("page", _pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_are_plain_and_finished(page: Path) -> None:
    text = page.read_text()
    assert not [match[0] for rule in (ADVERTISING, LEFT_OVER) for match in rule.finditer(text)]
