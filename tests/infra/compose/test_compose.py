"""infra/compose on a real Docker engine: a whole line comes up, counts right, and leaves nothing behind."""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.infra.compose.engine import Engine
from tests.infra.compose.line import Line, copy_of, draw_photographs

LINES = {
    "one-broker": (("compose.yaml",), False, 1000),
    "three-brokers-tls": (
        ("compose.yaml", "compose.three-brokers.yaml", "compose.tls.yaml", "compose.three-brokers.tls.yaml"), True, 200,
    ),
}  # fmt: skip
OURS = {"ray-head", "ray-worker", "schedule"}
pytestmark = [pytest.mark.alone, pytest.mark.timeout(2400)]


@pytest.fixture(params=LINES)
def line(request: pytest.FixtureRequest, tmp_path: Path, docker: Engine) -> Iterator[tuple[Line, int, bool]]:
    files, tls, images = LINES[request.param]
    own = copy_of(tmp_path, docker, files, tls=tls)
    draw_photographs(own.folder / "data", good=24, stream=images)
    try:
        yield own, images, tls
    finally:
        own.compose("down", "--volumes", "--timeout", "20", check=False)


def test_line_counts_every_image_and_leaves_nothing(line: tuple[Line, int, bool]) -> None:
    own, images, tls = line
    begun = time.monotonic()
    own.up()
    up_s = time.monotonic() - begun
    own.linewatch("ingest", "/data/good", "--product", "flange")
    own.linewatch("fit", "flange", "--steps", "20", "--force")
    begun = time.monotonic()
    own.linewatch("replay", "/data/stream", "--product", "flange", "--fps", "60")
    figures = audited(own, images)
    stream_s = time.monotonic() - begun
    assert (figures["images"], figures["events"], figures["lost"], figures["doubled"]) == (images, images, 0, 0), (
        figures
    )

    look_at_containers(own)
    ask_rest(own, tls)
    hold_secrets_back(own)
    begun = time.monotonic()
    own.compose("down", "--volumes", "--timeout", "20")
    assert own.left() == {"containers": "", "networks": "", "volumes": ""}
    counted = f"lost {figures['lost']}, doubled {figures['doubled']}, dead letters {figures['deadletters']}"
    down_s = time.monotonic() - begun
    sys.stdout.write(
        f"up in {up_s:.0f} s; {images} images in {stream_s:.0f} s: {counted}; down in {down_s:.0f} s, nothing left\n"
    )


def audited(line: Line, images: int) -> dict[str, int]:
    """The count once all are through; `audit` itself says what is lost or doubled."""
    deadline = time.monotonic() + 900
    while True:
        told = line.compose(
            "exec", "-T", "schedule", "sh", "-c",
            "linewatch audit --json /tmp/audit.json > /tmp/audit.txt 2>&1; cat /tmp/audit.json || cat /tmp/audit.txt",
            check=False,
        )  # fmt: skip
        figures: dict[str, int] = json.loads(told) if told.startswith("{") else {}
        if figures.get("images") == images and not figures.get("pending"):
            return figures
        assert time.monotonic() < deadline, told[-2000:]
        time.sleep(3)


def look_at_containers(line: Line) -> None:
    """Ports on loopback alone, a read-only root, no capability, and a user that is nobody."""
    containers = line.containers()
    assert {one["Config"]["Labels"]["com.docker.compose.service"] for one in containers} >= OURS | {"kafka-1", "s3"}
    for one in containers:
        name, host = one["Name"], one["HostConfig"]
        assert (host["ReadonlyRootfs"], host["CapDrop"]) == (True, ["ALL"]), name
        assert (one["State"]["Health"]["Status"], one["RestartCount"]) == ("healthy", 0), name
        for bindings in (one["NetworkSettings"]["Ports"] or {}).values():
            assert all(binding["HostIp"] == "127.0.0.1" for binding in bindings or []), (name, bindings)
        if one["Config"]["Labels"]["com.docker.compose.service"] in OURS:
            assert one["Config"]["User"] == "10001:10001", name


def ask_rest(line: Line, tls: bool) -> None:
    """From the host: health is for everybody, a score for whoever has the token."""
    url = f"{'https' if tls else 'http'}://127.0.0.1:8800"
    ca = ["--cacert", str(line.folder / "secrets" / "ca.pem")] if tls else []
    curl = ["curl", "--silent", "--show-error", "--noproxy", "*", "--max-time", "60", *ca]
    assert json.loads(line.engine.on_host(*curl, f"{url}/healthz"))["healthy"]
    image = line.folder / "data" / "stream" / "00001.jpg"
    score = [*curl, "--data-binary", f"@{image}", f"{url}/v1/products/flange/score"]
    assert json.loads(line.engine.on_host(*score))["error"] == "TokenRefused"
    token = f"Authorization: Bearer {line.secret('rest_tokens')}"
    assert json.loads(line.engine.on_host(*score, "--header", token))["verdict"] in ("OK", "NotOK", "NotDecidable")
    if tls:
        told = line.engine.on_host("curl", "--silent", "--noproxy", "*", f"{url}/healthz", check=False)
        assert "healthy" not in told  # by an authority that nobody knows


def hold_secrets_back(line: Line) -> None:
    """None of them is in what the engine tells of the containers, nor in a log."""
    told = json.dumps(line.containers()) + line.compose("logs", "--no-color")
    for path in (line.folder / "secrets").iterdir():
        if path.name == "s3_access_key":
            continue  # the name of the key pair, which SeaweedFS writes into its log
        value = path.read_text().strip()
        lines = value.splitlines()
        assert (lines[1] if value.startswith("-----") and len(lines) > 1 else value) not in told, path.name
