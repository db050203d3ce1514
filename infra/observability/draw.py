"""Grafana's JSON of `panels.py`, by Grafana's classes: `python -m infra.observability.draw` writes `dashboards/`."""

import json
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.common import BigValueGraphMode, LegendDisplayMode
from grafana_foundation_sdk.models.dashboard import Dashboard, DataSourceRef, VariableRefresh

from infra.observability.panels import BOARDS, Board, Panel

FOLDER = Path(__file__).parent / "dashboards"
WIDTH, HEIGHT, STAT_WIDTH, STAT_HEIGHT = 12, 8, 6, 5
register_default_plugins()  # or panels' options and queries are decoded as whatever they are
_SOURCE = DataSourceRef(type_val="prometheus", uid="$datasource")


def file_of(board: Board) -> Path:
    return FOLDER / f"{board.uid}.json"


def drawn(board: Board) -> str:
    """The file's text."""
    return json.dumps(_dashboard(board), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


def decoded(text: str) -> Dashboard:
    """What Grafana's classes make of it.

    Raises:
        ValueError: the text holds something that they don't know, or know otherwise.
    """
    given = json.loads(text)
    read = Dashboard.from_json(given)
    again = json.loads(json.dumps(read, cls=JSONEncoder))
    if again != given:
        raise ValueError(f"unknown to Grafana: {_difference(given, again)}")
    return read


def _dashboard(board: Board) -> Any:
    made = (
        dashboard.Dashboard(board.title)
        .uid(board.uid)
        .tags(["linewatch"])
        .refresh("15s")
        .time("now-1h", "now")
        .with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
        .with_variable(
            dashboard.QueryVariable("job")
            .label("Line")
            .datasource(_SOURCE)
            .query('label_values({__name__=~"linewatch_.*"}, job)')
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
            .multi(True)
            .include_all(True)
            .all_value(".+")
        )
    )
    for panel in board.panels:
        made = made.with_panel(_panel(panel))
    return made.build()


def _panel(panel: Panel) -> Any:
    made: Any
    if panel.kind == "stat":
        made = stat.Panel().span(STAT_WIDTH).height(STAT_HEIGHT).graph_mode(BigValueGraphMode.AREA)
    else:
        legend = common.VizLegendOptions().show_legend(True).display_mode(LegendDisplayMode.LIST)
        made = timeseries.Panel().span(WIDTH).height(HEIGHT).legend(legend).line_width(1)
    made = made.title(panel.title).unit(panel.unit).datasource(_SOURCE)
    if panel.about:
        made = made.description(panel.about)
    for number, query in enumerate(panel.queries):
        target = prometheus.Dataquery().expr(query.expr).legend_format(query.legend).ref_id(chr(ord("A") + number))
        made = made.with_target(target.instant() if panel.kind == "stat" else target.range())
    return made


def _difference(given: Any, again: Any, where: str = "") -> str:
    if isinstance(given, dict) and isinstance(again, dict):
        for key in given.keys() | again.keys():
            if given.get(key) != again.get(key):
                return _difference(given.get(key), again.get(key), f"{where}.{key}")
    if isinstance(given, list) and isinstance(again, list) and len(given) == len(again):
        for number, (one, other) in enumerate(zip(given, again, strict=True)):
            if one != other:
                return _difference(one, other, f"{where}[{number}]")
    return f"{where.removeprefix('.')}: {given!r:.80} becomes {again!r:.80}"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for one in BOARDS:
        file_of(one).write_text(drawn(one))
        decoded(drawn(one))
