"""Dashboards are what their source says, in words that Grafana's own classes know, about metrics that exist."""

import json
import re

import pytest

from infra.observability.answers import of_dashboards, of_rules, reasons
from infra.observability.draw import FOLDER, decoded, drawn, file_of
from infra.observability.panels import BOARDS, Board


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_a_dashboard_is_decoded_strictly_and_is_up_to_date(board: Board) -> None:
    text = file_of(board).read_text()
    assert text == drawn(board), "python -m infra.observability.draw"
    assert decoded(text).uid == board.uid


def test_no_dashboard_is_left_over() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {file_of(board).name for board in BOARDS}


@pytest.mark.parametrize("place", [(), ("panels", 0), ("panels", 0, "targets", 0), ("templating",)])
def test_a_word_that_grafana_does_not_know_is_refused(place: tuple[str | int, ...]) -> None:
    found = json.loads(drawn(BOARDS[0]))
    inner = found
    for step in place:
        inner = inner[step]
    inner["colour"] = "red"
    with pytest.raises(ValueError, match="colour"):
        decoded(json.dumps(found))


def test_dashboards_ask_for_metrics_that_exist() -> None:
    from prometheus_client import REGISTRY

    from pipeline.telemetry import metrics  # noqa: F401  # it registers them

    known = {name for family in REGISTRY.collect() for name in (family.name, f"{family.name}_total")}
    recorded = {asked.where for asked in of_rules() if ":" in asked.where}
    for asked in of_dashboards():
        for name in re.findall(r"\blinewatch[_:][\w:]+", asked.query):
            assert name in recorded or re.sub(r"_(bucket|count|sum)$", "", name) in known, f"{name} in {asked.where}"


def test_reasons_are_of_what_exists() -> None:
    assert reasons().keys() <= {asked.where for asked in (*of_dashboards(), *of_rules())}
