"""Rules that promtool takes and tries; every alert has a test that sees it fire and a line that says what to do."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "infra" / "observability"
RULES = sorted((FOLDER / "rules").glob("*.yaml"))
TRIES = sorted((FOLDER / "rules_tests").glob("*.yaml"))
Program = Callable[[str], str]


def rules() -> list[dict[str, Any]]:
    return [rule for path in RULES for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]]


ALERTS = [rule["alert"] for rule in rules() if "alert" in rule]


@pytest.mark.prometheus
def test_promtool_takes_the_rules_and_their_tests_pass(program: Program) -> None:
    promtool = program("promtool")
    for command in (
        ["check", "rules", "--lint=all", "--lint-fatal", *map(str, RULES)],
        ["test", "rules", *map(str, TRIES)],
    ):
        done = subprocess.run([promtool, *command], capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.prometheus
def test_a_rule_that_never_fires_is_noticed(program: Program, tmp_path: Path) -> None:
    (tmp_path / "rules").mkdir()
    (tmp_path / "tests").mkdir()
    for path in RULES:
        text = path.read_text().replace("max by (job, partition) (linewatch_stalled) > 0", "linewatch_stalled > 1")
        (tmp_path / "rules" / path.name).write_text(text)
    (tmp_path / "tests" / "alerts.yaml").write_text(TRIES[0].read_text())
    command = [program("promtool"), "test", "rules", "tests/alerts.yaml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode != 0
    assert "LinewatchStalled" in done.stdout + done.stderr


@pytest.mark.prometheus
def test_promtool_takes_the_configuration(program: Program) -> None:
    command = [program("promtool"), "check", "config", str(FOLDER / "prometheus.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 rule files found" in done.stdout


def test_every_alert_is_seen_firing_and_none_is_tried_that_does_not_exist() -> None:
    seen = set()
    for path in TRIES:
        for one in yaml.safe_load(path.read_text())["tests"]:
            for check in one["promql_expr_test"]:
                seen |= set(re.findall(r'alertname="(\w+)", alertstate="firing"', str(check["exp_samples"])))
    assert seen == set(ALERTS)


@pytest.mark.parametrize("alert", ALERTS)
def test_docs_say_what_to_do_on_each_alert(alert: str) -> None:
    page = (ROOT / "docs" / "observability.md").read_text()
    (row,) = [line for line in page.splitlines() if line.startswith(f"| `{alert}` |")]
    _, severity, means, do = (cell.strip() for cell in row.strip("|").split("|"))
    assert severity == next(rule["labels"]["severity"] for rule in rules() if rule.get("alert") == alert)
    assert means
    assert do


def test_docs_name_no_alert_that_does_not_exist() -> None:
    named = re.findall(r"^\| `(Linewatch\w+)`", (ROOT / "docs" / "observability.md").read_text(), re.MULTILINE)
    assert named == ALERTS


def test_rules_use_only_metrics_that_exist() -> None:
    from prometheus_client import REGISTRY

    from pipeline.telemetry import metrics  # noqa: F401  # it registers them

    known = {name for family in REGISTRY.collect() for name in (family.name, f"{family.name}_total")}
    for rule in rules():
        used = re.findall(r"\blinewatch_\w+", rule["expr"])
        for name in used:
            assert re.sub(r"_(bucket|count|sum)$", "", name) in known, f"{name} in {rule['expr']}"
