"""What a replica counts, in Prometheus's terms. One registry a process; several processes of a node add up.

With `PROMETHEUS_MULTIPROC_DIR` the counts lie in files, which a process that is killed leaves behind as they are.
"""

import os
from pathlib import Path

if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):  # read when prometheus_client is imported; each node makes its own
    os.makedirs(os.environ["PROMETHEUS_MULTIPROC_DIR"], mode=0o700, exist_ok=True)

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess

FIT_SECONDS = (1, 5, 10, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400)
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

images = Counter("linewatch_images_total", "Images that became an event", ["product", "verdict"])
deadletters = Counter("linewatch_deadletters_total", "Messages that became a dead letter", ["error_class"])
deleted_unread = Counter(
    "linewatch_deleted_unread_images_total", "Messages that the broker deleted before anybody had read them"
)
stalled = Gauge(
    "linewatch_stalled",
    "1 while a partition stands still; the partition 'all' is the whole line",
    ["partition"],
    multiprocess_mode="livemax",
)
commits_lost = Counter("linewatch_commits_lost_total", "Batches whose transaction failed; their images were read again")
sessions = Counter("linewatch_sessions_total", "Times that a worker joined the consumer group")
waits = Counter("linewatch_waits_total", "Times that a worker had to wait for a server", ["server"])
batch_images = Histogram("linewatch_batch_images", "Images in a batch", buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256))
transaction_images = Histogram(
    "linewatch_transaction_images", "Images in a transaction", buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256)
)
lag = Gauge(
    "linewatch_lag_messages",
    "Messages behind the committed offset of each partition",
    ["partition"],
    multiprocess_mode="livesum",
)
rebalances = Counter("linewatch_rebalances_total", "Times that partitions came or went", ["change"])
aborts = Counter("linewatch_transactions_aborted_total", "Transactions that were begun and aborted")
pauses = Counter("linewatch_pauses_total", "Times that a worker paused its partitions because its buffer was full")
stage_seconds = Histogram("linewatch_stage_seconds", "Time of a batch in each stage", ["stage"], buckets=SECONDS)
latency_seconds = Histogram(
    "linewatch_capture_to_commit_seconds",
    "From an image's capture to its committed event",
    ["product"],
    buckets=SECONDS,
)
buffered_bytes = Gauge("linewatch_buffered_bytes", "Fetched and waiting to be scored", multiprocess_mode="livesum")
paused = Gauge("linewatch_paused", "1 while partitions are paused", multiprocess_mode="livesum")
rest_seconds = Histogram("linewatch_rest_seconds", "Time of a REST request", ["status"], buckets=SECONDS)
replicas = Gauge("linewatch_replicas", "Replicas that live on this node", multiprocess_mode="livesum")
replicas_wanted = Gauge(
    "linewatch_replicas_wanted", "serving.replicas: the fewest that the line should have", multiprocess_mode="livemax"
)
healthy_at = Gauge(
    "linewatch_replica_healthy_timestamp_seconds",
    "When the replica of this node whose last good health check is oldest had it",
    multiprocess_mode="livemin",
)
fits = Counter("linewatch_fits_total", "Scheduled fits that ended", ["product", "outcome"])
fit_seconds = Histogram(
    "linewatch_fit_seconds", "Time of a scheduled fit, from ingest to gate", ["product"], buckets=FIT_SECONDS
)
fit_due_at = Gauge(
    "linewatch_fit_due_timestamp_seconds",
    "When the product's fit is due next; it stays in the past while it is running or waits",
    ["product"],
    multiprocess_mode="livemax",
)


def exposition(folder: Path) -> bytes:
    """What the processes that keep their counts in ``folder`` have counted, those that are gone among them."""
    _forget_dead(folder)
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry, str(folder))
    return generate_latest(registry)


def _forget_dead(folder: Path) -> None:
    """Gauges of replicas that are gone no longer count; what they counted still does."""
    for path in folder.glob("gauge_live*_*.db"):
        pid = path.stem.rpartition("_")[2]
        if pid.isdigit() and not Path("/proc", pid).exists():
            path.unlink(missing_ok=True)
