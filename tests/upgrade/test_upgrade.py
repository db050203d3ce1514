"""A line of the release before, upgraded and rolled back as docs/operations.md says, under images that never stop.

Not part of `make test`: `make upgrade-test`. Real Kafka, S3 and Ray; the old code is that of a commit.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import yaml

from infra.local import LocalServers
from infra.local.apache_kafka import find_apache
from infra.local.program import Missing
from jobs.line.letters import pending_letters
from pipeline.storage.registry import Registry
from pipeline.storage.store import S3Store
from tests.pipeline.tiny import PRODUCT, texture
from tests.ray_head import ray_head
from tests.upgrade.line import ROOT, Line, Stream, has, replicas_since, unpack

pytestmark = [
    pytest.mark.servers,
    pytest.mark.apache,
    pytest.mark.ray,
    pytest.mark.upgrade,
    pytest.mark.timeout(3600),
    pytest.mark.filterwarnings("ignore"),
]
# No release was tagged yet: main as it was before fleets of fits, planning and the plant's security came.
BEFORE = os.environ.get("LINEWATCH_UPGRADE_FROM", "091dd60")
# Main as it was before versions had evidence: the last whose manifests lack what those of now have.
BEFORE_EVIDENCE = "6625b00"
REPLICAS = 2
IMAGES = 20
SETTINGS = {
    "kafka": {"session_timeout_ms": 6000},
    "topics": {"partitions": 4},
    "stream": {"batch_images": 4, "release_poll_s": 0.5},
    "engine": {"device": "cpu", "threads": 1},
    "serving": {"port": 0, "replicas": REPLICAS},
    "fit": {"size": 64, "steps": 30, "batch": 8},
}
Eventually = Callable[..., None]


@contextmanager
def old_line(commit: str, folder: Path) -> Iterator[tuple[Line, Path, "subprocess.Popen[bytes]"]]:
    """Servers, and Ray with that commit's code; nothing is served yet."""
    if not has(commit):
        pytest.skip(f"the history of this checkout does not reach back to {commit}: 'git fetch --unshallow' brings it")
    if isinstance(found := find_apache(), Missing):
        pytest.skip(f"Apache Kafka: {found.why}. {found.how_to_get}")
    old = unpack(commit, folder / "old")
    with LocalServers.start(folder / "servers", kafka="apache", s3="seaweedfs") as servers:
        line = Line(servers, folder, SETTINGS)
        line.install(old)
        # Paths of sockets are short.
        with (
            TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as short,
            ray_head(line.environment, line.ports, folder / "ray.log", short) as head,
        ):
            yield line, old, head


def fit(line: Line, *words: str) -> str:
    """A new version of the product, which serves."""
    line.linewatch("fit", PRODUCT, "--force", *words)
    say(f"fitted {champion(line)}")
    return champion(line)


def say(what: str) -> None:
    sys.stderr.write(f"{datetime.now(UTC):%H:%M:%S} {what}\n")


def champion(line: Line) -> str:
    return Registry(S3Store(line.settings.s3)).champion(PRODUCT).champion.version


def begun(line: Line, head: "subprocess.Popen[bytes]", folder: Path) -> str:
    """What the people of the old release did: topics, images, a version, replicas. Returns the version."""
    images = folder / "images"
    images.mkdir()
    for seed in range(24):
        (images / f"{seed:02}.png").write_bytes(texture(seed))
    line.linewatch("setup")
    line.linewatch("ingest", str(images), "--product", PRODUCT)
    version = fit(line)
    line.linewatch("serve")
    assert replicas_since(head, 0.0)[0] == REPLICAS
    return version


def rolled(line: Line, head: "subprocess.Popen[bytes]", code: Path, eventually: Eventually) -> None:
    """As docs/operations.md says: the code on every node, then the replicas, one at a time."""
    installed = line.install(code)
    line.linewatch("config", "show")
    line.linewatch("setup")
    line.linewatch("serve", "--roll")
    eventually(
        lambda: replicas_since(head, installed) == (REPLICAS, REPLICAS), within_s=300, what="replicas of that code"
    )
    say(f"{REPLICAS} replicas of the code in {code.name}")


def served_by(stream: Stream, version: str, eventually: Eventually) -> None:
    since = datetime.now(UTC)
    eventually(lambda: stream.by(version, since) >= IMAGES, within_s=600, what=f"{IMAGES} events by {version}")
    say(f"{IMAGES} events by {version}, {len(stream.events)} of {stream.sent} images in all")


def told(line: Line, stream: Stream, folder: Path, eventually: Eventually) -> dict[str, object]:
    """All images sent and done; then the audit's figures, by the code of now."""
    sent = stream.end()
    line.install(ROOT)
    figures = folder / "audit.json"

    def drained() -> bool:
        line.asked("audit", "--json", str(figures))
        return json.loads(figures.read_text())["pending"] == 0

    eventually(drained, within_s=300, what="no image that waits")
    audit = json.loads(figures.read_text())
    audit["sent"] = sent
    figures_told = ", ".join(f"{name} {audit[name]}" for name in ("images", "events", "lost", "doubled", "deadletters"))
    say(f"{figures_told}, longest gap of a camera {max(audit['longest_gap_s'].values())} s")
    return audit


@pytest.mark.parametrize("commit", [BEFORE, BEFORE_EVIDENCE])
def test_an_upgrade_and_a_rollback_lose_nothing(commit: str, tmp_path: Path, eventually: Eventually) -> None:
    with old_line(commit, tmp_path) as (line, old, head):
        first = begun(line, head, tmp_path)
        with Stream(line.settings, PRODUCT).running() as stream:
            served_by(stream, first, eventually)

            rolled(line, head, ROOT, eventually)
            served_by(stream, first, eventually)
            second = fit(line, "--seed", "1")
            served_by(stream, second, eventually)

            line.linewatch("models", "rollback", PRODUCT)
            served_by(stream, first, eventually)
            rolled(line, head, old, eventually)
            served_by(stream, first, eventually)
            if commit == BEFORE_EVIDENCE:
                refused_in_words(line, second, tmp_path)
                served_by(stream, first, eventually)

            audit = told(line, stream, tmp_path, eventually)
    assert (audit["right"], audit["lost"], audit["doubled"]) == (True, 0, 0)
    assert audit["images"] == audit["events"] == audit["sent"]
    assert audit["deadletters"] == {}


def refused_in_words(line: Line, version: str, folder: Path) -> None:
    """The old code is asked to serve the new version, and to read settings of the new release."""
    before = champion(line)
    refused = line.asked("models", "promote", PRODUCT, version)
    assert refused.returncode == 1
    assert refused.stderr.startswith("Error: ")
    assert "manifest" in refused.stderr
    assert champion(line) == before
    newer = folder / "newer.yaml"
    newer.write_text(yaml.safe_dump({**SETTINGS, "training": {"fits": 2}}))
    refused = line.asked("config", "show", LINEWATCH_CONFIG=str(newer))
    assert refused.returncode == 1
    assert refused.stderr.startswith("Error: ")
    assert "training" in refused.stderr


def test_a_rollback_that_forgot_the_versions_waits_for_them(tmp_path: Path, eventually: Eventually) -> None:
    """Code first, pointer later: images become dead letters, not verdicts, and events once the pointer is back."""
    with old_line(BEFORE_EVIDENCE, tmp_path) as (line, old, head):
        first = begun(line, head, tmp_path)
        with Stream(line.settings, PRODUCT).running() as stream:
            rolled(line, head, ROOT, eventually)
            second = fit(line, "--seed", "1")
            served_by(stream, second, eventually)

            rolled(line, head, old, eventually)
            # Not by its own command, which waits for a silence that does not come while letters do.
            eventually(lambda: pending_letters(line.settings, "ModelBroken"), within_s=600, what="dead letters")
            line.linewatch("models", "rollback", PRODUCT)
            served_by(stream, first, eventually)
            sent = stream.end()
            line.linewatch("deadletters", "replay", "--class", "ModelBroken", "--yes")
            eventually(
                lambda: len({one.image_id for one in stream.events}) == sent, within_s=600, what="an event per image"
            )
            audit = told(line, stream, tmp_path, eventually)
    assert (audit["lost"], audit["doubled"]) == (0, 0)
