"""All of it at once, by the command line: Ray with TLS and a token, certificates, secrets by file, REST by https with
tokens. Who lacks one of them is refused, in one line.
"""

import json
import os
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from infra.local.ports import free_port
from infra.local.server import Server
from jobs.line.watch import watch
from model import ModelBundle
from pipeline.kafka.topics import ensure_topics
from pipeline.storage.store import S3Store
from tests.pipeline.real_line import RealLine
from tests.pipeline.tiny import message, publish, texture
from tests.ray_head import HEAD, head_ports, ray_head
from tests.security.conftest import Doors, s3
from tests.threads import together

pytestmark = [
    pytest.mark.servers,
    pytest.mark.apache,
    pytest.mark.ray,
    pytest.mark.timeout(1200),
    pytest.mark.filterwarnings("ignore"),
]
TOKEN, RAY_TOKEN = "rest-token-" + "0123456789", "ray-token-" + "0123456789"
ROOT = Path(__file__).parents[2]
LINEWATCH = [sys.executable, "-c", "from jobs.cli import main; main()"]


class Line:
    """The environment of the plant's processes, its ports and its secrets."""

    def __init__(self, doors: Doors, store: Server, folder: Path) -> None:
        self.ports = head_ports() | {"rest": free_port(), "metrics": free_port()}
        self.settings = doors.through("mtls", doors.settings(s3=s3(store, doors.authority).model_dump()))
        self.settings = self.settings.model_copy(update={"s3": s3(store, doors.authority)})
        self.authority, self.folder = doors.authority, folder
        cert, key = doors.authority.issue("ray")
        kafka, keys = self.settings.kafka, self.settings.s3
        secrets = {"S3__ACCESS_KEY": keys.access_key, "S3__SECRET_KEY": keys.secret_key}
        for name, value in {**secrets, "SERVING__TOKENS": None}.items():
            (folder / name).write_text(f"{value.get_secret_value() if value else TOKEN}\n")
        plain = {
            "KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
            "KAFKA__SECURITY_PROTOCOL": "SSL",
            "KAFKA__CA_FILE": kafka.ca_file,
            "KAFKA__CERT_FILE": kafka.cert_file,
            "KAFKA__KEY_FILE": kafka.key_file,
            "KAFKA__GROUP": kafka.group,
            "KAFKA__DELIVERY": "exactly_once",
            "TOPICS__PREFIX": self.settings.topics.prefix,
            "TOPICS__PARTITIONS": str(self.settings.topics.partitions),
            "S3__ENDPOINT": keys.endpoint,
            "S3__CA_FILE": keys.ca_file,
            "S3__BUCKET": keys.bucket,
            "ENGINE__DEVICE": "cpu",
            "ENGINE__BACKEND": "torch",
            "SERVING__RAY_ADDRESS": f"{HEAD}:{self.ports['gcs']}",
            "SERVING__HOST": "0.0.0.0",
            "SERVING__PORT": str(self.ports["rest"]),
            "SERVING__METRICS_PORT": str(self.ports["metrics"]),
            "SERVING__TLS_CERT_FILE": str(cert),
            "SERVING__TLS_KEY_FILE": str(key),
        }
        by_file = {f"LINEWATCH_{name}_FILE": str(folder / name) for name in (*secrets, "SERVING__TOKENS")}
        self.secrets = [TOKEN, RAY_TOKEN, *(value.get_secret_value() for value in secrets.values() if value)]
        self.environment = {
            **{name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ},
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": RAY_TOKEN,
            "RAY_USE_TLS": "1",
            "RAY_TLS_SERVER_CERT": str(cert),
            "RAY_TLS_SERVER_KEY": str(key),
            "RAY_TLS_CA_CERT": str(doors.authority.cert),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_worker_niceness": "0",
            **{f"LINEWATCH_{name}": str(value) for name, value in plain.items()},
            **by_file,
        }

    def linewatch(self, *words: str, without: tuple[str, ...] = (), **changes: str) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in {**self.environment, **changes}.items() if name not in without}
        done = subprocess.run(
            [*LINEWATCH, *words], cwd=self.folder, env=environment, capture_output=True, text=True,
            timeout=300, check=False,
        )  # fmt: skip
        assert not [one for one in self.secrets if one in done.stdout + done.stderr]
        return done


@pytest.fixture
def line(doors: Doors, store: Server, tmp_path: Path, tiny_bundle: ModelBundle) -> Line:
    made = Line(doors, store, tmp_path)
    objects = S3Store(made.settings.s3)
    objects.ensure_bucket()
    publish(objects, tiny_bundle)
    ensure_topics(made.settings)
    return made


def ask(
    line: Line,
    path: str,
    token: str | None,
    *,
    scheme: str = "https",
    body: bytes | None = None,
    at: str = "",
) -> tuple[int, bytes]:
    context = ssl.create_default_context(cafile=str(line.authority.cert))
    context.check_hostname = not at  # the certificate names the address of REST
    headers = {"authorization": f"Bearer {token}"} if token else {}
    at = at or f"127.0.0.1:{line.ports['rest']}"
    request = urllib.request.Request(f"{scheme}://{at}{path}", data=body, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=60, context=context if scheme == "https" else None) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def ask_metrics(line: Line, token: str | None) -> tuple[int, bytes]:
    return ask(line, "/metrics", token, at=f"{HEAD}:{line.ports['metrics']}")


def test_a_line_behind_every_door(line: Line, tmp_path: Path) -> None:
    # Paths of sockets are short.
    log = tmp_path / "ray.log"
    with (
        TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder,
        ray_head(line.environment, line.ports, log, folder),
    ):
        served = line.linewatch("serve")
        assert served.returncode == 0, served.stdout + served.stderr + (tmp_path / "ray.log").read_text()
        assert "REST at https://" in served.stdout + served.stderr

        score = "/v1/products/bottle/score"
        status, body = ask(line, score, TOKEN, body=texture(1))
        assert (status, json.loads(body)["product"]) == (200, "bottle")
        assert ask(line, score, None, body=texture(1))[0] == 401
        assert ask(line, score, "wrong-token-0123456789", body=texture(1))[0] == 401
        assert ask(line, "/metrics/targets", None)[0] == 401
        (told,) = json.loads(ask(line, "/metrics/targets", TOKEN)[1])
        assert told == {"targets": [f"{HEAD}:{line.ports['metrics']}"], "labels": {"__scheme__": "https"}}
        assert ask_metrics(line, None)[0] == 401
        status, text = ask_metrics(line, TOKEN)
        assert (status, b"linewatch_replicas 1.0" in text) == (200, True)
        assert ask(line, "/healthz", None)[0] == 200
        with pytest.raises(OSError, match=r"(?i)reset|closed|abort|remote|empty"):
            ask(line, "/healthz", None, scheme="http")
        nothing_is_said_to_a_terminal(line)
        # Side by side: Ray takes half a minute to give up a cluster that does not answer.
        together(
            lambda: six_images_become_events(line),
            lambda: ray_refuses(line.linewatch("serve", RAY_AUTH_TOKEN="another-token-0123456789")),
            lambda: ray_refuses(line.linewatch("serve", without=("RAY_USE_TLS",))),
            lambda: the_door_refuses(line.linewatch("serve", without=("LINEWATCH_SERVING__TOKENS_FILE",))),
        )
        down = line.linewatch("serve", "--down")
        assert down.returncode == 0, down.stderr
    assert not [one for one in line.secrets if one in (tmp_path / "ray.log").read_text()]


def six_images_become_events(line: Line) -> None:
    stream = RealLine(line.settings, S3Store(line.settings.s3))
    stream.send([message(f"img-{number}", texture(number)) for number in range(6)])
    begun = time.monotonic()
    while stream.committed() < 6:
        assert time.monotonic() - begun < 300, "six images"
        time.sleep(0.2)
    assert len(stream.events()) == 6


def ray_refuses(told: subprocess.CompletedProcess[str]) -> None:
    assert told.returncode == 1
    # Before it may be what Ray's own code writes there.
    assert told.stderr.strip().splitlines()[-1].startswith("Error: no Ray cluster at"), told.stderr


def the_door_refuses(told: subprocess.CompletedProcess[str]) -> None:
    assert told.returncode == 1
    assert "is reached from other machines: set LINEWATCH_SERVING__TOKENS" in told.stderr


def nothing_is_said_to_a_terminal(line: Line) -> None:
    """By what a terminal asks, with the certificate itself."""
    stop, said = threading.Event(), []
    threading.Timer(5.0, stop.set).start()
    watch(
        f"https://127.0.0.1:{line.ports['rest']}", said.append, stop,
        line.environment["LINEWATCH_SERVING__TLS_CERT_FILE"],
    )  # fmt: skip
    assert said == []
