"""What the dashboards show: each panel's title, unit, queries and legends. `draw.py` makes Grafana's JSON of it."""

from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["timeseries", "stat"]


@dataclass(frozen=True)
class Query:
    """expr: PromQL; `$job` is the dashboard's choice of lines, `$__rate_interval` Grafana's."""

    expr: str
    legend: str


@dataclass(frozen=True)
class Panel:
    """unit: Grafana's name of it. about: what a person should make of it."""

    title: str
    queries: tuple[Query, ...]
    unit: str = "short"
    about: str = ""
    kind: Kind = "timeseries"


@dataclass(frozen=True)
class Board:
    uid: str
    title: str
    panels: tuple[Panel, ...] = field(default_factory=tuple)


def _one(title: str, expr: str, legend: str, unit: str = "short", about: str = "", kind: Kind = "timeseries") -> Panel:
    return Panel(title, (Query(expr, legend),), unit, about, kind)


def _quantiles(title: str, metric: str, by: str, about: str = "") -> Panel:
    buckets = f'sum by ({by}, le) (rate({metric}_bucket{{job=~"$job"}}[$__rate_interval]))'
    return Panel(
        title,
        tuple(
            Query(f"histogram_quantile({share}, {buckets})", f"{{{{{by}}}}} p{share * 100:.0f}")
            for share in (0.5, 0.99)
        ),
        "s",
        about,
    )


LINE = Board(
    "linewatch-line",
    "linewatch: the line",
    (
        _one("Stands still", 'max by (partition) (linewatch_stalled{job=~"$job"}) or vector(0)', "{{partition}}",
             about="1: images wait there and are not judged.", kind="stat"),
        _one("Replicas", 'sum(linewatch_replicas{job=~"$job"}) or vector(0)', "live", kind="stat"),
        _one("Images that wait", 'sum(linewatch_lag_messages{job=~"$job"})', "lag", kind="stat"),
        _one("Judged", 'sum(linewatch_images_total{job=~"$job"})', "images", about="Of all nodes, since they started.",
             kind="stat"),
        _one("Images per second", 'sum by (product, verdict) (linewatch:images:rate5m{job=~"$job"})',
             "{{product}} {{verdict}}", "cps"),
        _one("Share that is not OK", 'linewatch:flagged:ratio_1h{job=~"$job"}', "{{product}}", "percentunit",
             "Of the last hour. The first sign of a change in the process, the light or the camera."),
        _one("Images that wait, by partition", 'sum by (partition) (linewatch_lag_messages{job=~"$job"})',
             "{{partition}}"),
        Panel("From image to event", (
            Query('linewatch:capture_to_commit_seconds:p50_5m{job=~"$job"}', "{{product}} p50"),
            Query('linewatch:capture_to_commit_seconds:p99_5m{job=~"$job"}', "{{product}} p99"),
        ), "s", "From the camera's clock to the committed event."),
        _one("Dead letters", 'sum by (error_class) (linewatch_deadletters_total{job=~"$job"})', "{{error_class}}",
             about="Since nodes started: linewatch deadletters list shows them."),
        _one("Deleted unread", 'sum(linewatch_deleted_unread_images_total{job=~"$job"})', "images",
             about="The broker deleted them before they were read: they are lost."),
        _one("Alerts", 'sum by (alertname, severity) (ALERTS{alertname=~"Linewatch.*", alertstate="firing"})',
             "{{alertname}} ({{severity}})"),
    ),
)  # fmt: skip

REPLICAS = Board(
    "linewatch-replicas",
    "linewatch: replicas and latency",
    (
        Panel("Replicas", (
            Query('linewatch:replicas{job=~"$job"}', "live"),
            Query('linewatch:replicas_wanted{job=~"$job"}', "wanted"),
        )),
        _one("Replicas by node", 'sum by (instance) (linewatch_replicas{job=~"$job"})', "{{instance}}"),
        _one("Since the last good health check",
             'time() - min by (instance) (linewatch_replica_healthy_timestamp_seconds{job=~"$job"})', "{{instance}}",
             "s", "Serve asks every 5 s."),
        _quantiles("Stages of a batch", "linewatch_stage_seconds", "stage",
                   "capture, decode, score, cut, commit. The slowest sets the pace."),
        _one("How busy each stage is",
             'sum by (stage) (rate(linewatch_stage_seconds_sum{job=~"$job"}[$__rate_interval])) '
             '/ scalar(sum(linewatch_replicas{job=~"$job"}))', "{{stage}}", "percentunit",
             "Share of the time, of one replica."),
        _one("Images in a batch",
             'sum(rate(linewatch_batch_images_sum{job=~"$job"}[$__rate_interval])) '
             '/ sum(rate(linewatch_batch_images_count{job=~"$job"}[$__rate_interval]))', "mean",
             about="Always full: the replicas are behind."),
        _one("Images in a transaction",
             'sum(rate(linewatch_transaction_images_sum{job=~"$job"}[$__rate_interval])) '
             '/ sum(rate(linewatch_transaction_images_count{job=~"$job"}[$__rate_interval]))', "mean"),
        _one("Buffered", 'sum by (instance) (linewatch_buffered_bytes{job=~"$job"})', "{{instance}}", "bytes"),
        Panel("Paused", (
            Query('sum(linewatch_paused{job=~"$job"})', "replicas"),
            Query('sum(increase(linewatch_pauses_total{job=~"$job"}[$__rate_interval]))', "times"),
        )),
        _quantiles("REST", "linewatch_rest_seconds", "status"),
    ),
)  # fmt: skip

FITS = Board(
    "linewatch-fits",
    "linewatch: fits",
    (
        _one("Runs", 'sum by (product, outcome) (linewatch_fits_total{job=~"$job"})', "{{product}} {{outcome}}",
             about="Of linewatch schedule, since it started."),
        _one("Due", 'max by (product) (linewatch_fit_due_timestamp_seconds{job=~"$job"}) - time()', "{{product}}", "s",
             "Below 0 while a run is going on or waits for another."),
        _one("Time of a run", 'sum by (product) (linewatch_fit_seconds_sum{job=~"$job"}) '
             '/ sum by (product) (linewatch_fit_seconds_count{job=~"$job"})', "{{product}}", "s",
             "From ingest to gate, the mean since linewatch schedule started."),
    ),
)  # fmt: skip

SERVERS = Board(
    "linewatch-servers",
    "linewatch: Kafka and S3",
    (
        _one("Waits", 'sum by (server) (rate(linewatch_waits_total{job=~"$job"}[$__rate_interval]))', "{{server}}",
             "cps", "Above 0 while Kafka or S3 does not answer or refuses: each try counts."),
        _quantiles("Commits", "linewatch_stage_seconds", "stage",
                   "The stage commit is Kafka's; capture asks S3 for claims."),
        _one("Transactions per second", 'sum(rate(linewatch_transaction_images_count{job=~"$job"}[$__rate_interval]))',
             "committed", "cps"),
        Panel("Lost and aborted", (
            Query('sum(increase(linewatch_commits_lost_total{job=~"$job"}[$__rate_interval]))', "commits lost"),
            Query('sum(increase(linewatch_transactions_aborted_total{job=~"$job"}[$__rate_interval]))', "aborted"),
        ), about="A few at each rebalance are normal."),
        _one("Sessions begun", 'sum(increase(linewatch_sessions_total{job=~"$job"}[$__rate_interval]))', "sessions",
             about="Rises at each trouble with the brokers."),
        _one("Rebalances", 'sum by (change) (increase(linewatch_rebalances_total{job=~"$job"}[$__rate_interval]))',
             "{{change}}"),
        _one("Nodes that answer", 'sum by (job) (up{job=~"$job"})', "{{job}}"),
    ),
)  # fmt: skip

BOARDS = (LINE, REPLICAS, FITS, SERVERS)
