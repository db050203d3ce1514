"""What a process counted outlives it, and what it showed of its state does not."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from pipeline.telemetry import metrics

COUNTING = """
import sys, time
from pipeline.telemetry import metrics
metrics.images.labels("bottle", "OK").inc(int(sys.argv[1]))
metrics.latency_seconds.labels("bottle").observe(0.2)
metrics.lag.labels(0).set(7)
metrics.replicas.set(1)
metrics.replicas_wanted.set(2)
metrics.healthy_at.set(float(sys.argv[1]))
print("counted", flush=True)
time.sleep(600)
"""


def counting(folder: Path, count: int) -> "subprocess.Popen[str]":
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder)}
    process = subprocess.Popen(
        [sys.executable, "-c", COUNTING, str(count)], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert process.stdout.readline() == "counted\n"
    return process


def lines(folder: Path) -> set[str]:
    return {line for line in metrics.exposition(folder).decode().splitlines() if not line.startswith("#")}


def test_counts_of_a_killed_process_stay_and_its_gauges_go(tmp_path: Path) -> None:
    with counting(tmp_path, 5) as first, counting(tmp_path, 11) as second:
        try:
            both = lines(tmp_path)
            assert 'linewatch_images_total{product="bottle",verdict="OK"} 16.0' in both
            assert "linewatch_replicas 2.0" in both
            assert "linewatch_replicas_wanted 2.0" in both
            assert "linewatch_replica_healthy_timestamp_seconds 5.0" in both, "the oldest"
            first.send_signal(signal.SIGKILL)
            first.wait()
            after = lines(tmp_path)
            assert 'linewatch_images_total{product="bottle",verdict="OK"} 16.0' in after
            assert 'linewatch_capture_to_commit_seconds_bucket{le="0.25",product="bottle"} 2.0' in after
            assert 'linewatch_capture_to_commit_seconds_bucket{le="0.1",product="bottle"} 0.0' in after
            assert "linewatch_replicas 1.0" in after
            assert 'linewatch_lag_messages{partition="0"} 7.0' in after
            assert "linewatch_replica_healthy_timestamp_seconds 11.0" in after
        finally:
            first.kill()
            second.kill()
    alone = lines(tmp_path)
    assert 'linewatch_images_total{product="bottle",verdict="OK"} 16.0' in alone
    assert not [line for line in alone if line.startswith("linewatch_replicas")], "absent() sees that none lives"
