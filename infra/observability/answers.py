"""Every query of every dashboard and rule, asked of a Prometheus: `python -m infra.observability.answers URL`."""

import json
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent
MAY_BE_EMPTY = FOLDER / "may_be_empty.yaml"
STEP_S = 5
# What Grafana puts in their place.
CHOICES = {"$job": ".+", "$__rate_interval": "1m"}


@dataclass(frozen=True)
class Asked:
    """where: of a dashboard's panel, or a rule."""

    where: str
    query: str


@dataclass(frozen=True)
class Answer:
    """samples: within the time that was asked for. reason: why there may be none."""

    asked: Asked
    series: int
    samples: int
    reason: str

    @property
    def right(self) -> bool:
        return self.samples > 0 or bool(self.reason)


def of_dashboards() -> Iterator[Asked]:
    for path in sorted((FOLDER / "dashboards").glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel["targets"]:
                yield Asked(f"{path.stem}: {panel['title']}", target["expr"])


def of_rules() -> Iterator[Asked]:
    for path in sorted((FOLDER / "rules").glob("*.yaml")):
        for group in yaml.safe_load(path.read_text())["groups"]:
            for rule in group["rules"]:
                yield Asked(rule.get("alert") or rule["record"], rule["expr"])


def reasons() -> dict[str, str]:
    """Of panels and rules, by `Asked.where`, that are empty on a line that is well."""
    found: dict[str, str] = yaml.safe_load(MAY_BE_EMPTY.read_text())
    return found


def answers(address: str, last_s: float) -> list[Answer]:
    """Over the last so many seconds.

    Raises:
        OSError: that Prometheus does not answer, or refuses a query.
    """
    known = reasons()
    found = []
    for asked in (*of_dashboards(), *of_rules()):
        series = _range(address, asked.query, last_s)
        samples = sum(len(one["values"]) for one in series)
        found.append(Answer(asked, len(series), samples, known.get(asked.where, "")))
    return found


def table(found: list[Answer]) -> str:
    lines = [f"{'samples':>7} {'series':>6}  where and query"]
    for one in found:
        lines.append(f"{one.samples:7} {one.series:6}  {one.asked.where}")
        lines.append(f"{'':16}{' '.join(one.asked.query.split())}")
        if not one.samples:
            lines.append(f"{'':16}empty: {one.reason or 'NO REASON IS KNOWN'}")
    empty = sum(not one.samples for one in found)
    wrong = sum(not one.right for one in found)
    return "\n".join([*lines, f"{len(found)} queries, {empty} empty, {wrong} of these without a reason"])


def _range(address: str, query: str, last_s: float) -> list[dict[str, Any]]:
    for name, value in CHOICES.items():
        query = query.replace(name, value)
    now = time.time()
    words = urllib.parse.urlencode({"query": query, "start": now - last_s, "end": now, "step": STEP_S})
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(f"{address}/api/v1/query_range?{words}", timeout=60) as answer:
        found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
    return found


if __name__ == "__main__":
    told = answers(sys.argv[1].rstrip("/"), float(sys.argv[2]) if len(sys.argv) > 2 else 3600.0)
    sys.stdout.write(table(told) + "\n")
    sys.exit(not all(one.right for one in told))
