"""A broker with ACLs, cameras that never rest, and a line that they are sent to."""

import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import ClassVar

from kafka.admin import (
    ACL,
    ACLFilter,
    ACLOperation,
    ACLPermissionType,
    ConfigResource,
    ConfigResourceType,
    ResourcePattern,
    ResourceType,
)

from infra.local.apache_kafka import ApacheKafka
from infra.local.program import Say
from pipeline.errors import BrokerUnavailable
from pipeline.kafka.clients import CLIENT_ERRORS, admin_client, make_producer
from pipeline.settings import Settings
from pipeline.telemetry.board import Stall
from tests.pipeline.real_line import RealLine
from tests.pipeline.tiny import message, texture

EVERYONE = "User:ANONYMOUS"
CAMERAS = 8


class GuardedKafka(ApacheKafka):
    """Whoever has no ACL against him may do all."""

    LINES: ClassVar[dict[str, str]] = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "allow.everyone.if.no.acl.found": "true",
    }

    def prepare(self, say: Say) -> None:
        super().prepare(say)
        with (self.folder / "server.properties").open("a", encoding="ascii") as file:
            file.writelines(f"{key}={value}\n" for key, value in self.LINES.items())


@contextmanager
def forbidden(settings: Settings, operation: ACLOperation, kind: ResourceType, name: str) -> Iterator[None]:
    """Nobody may do this with that meanwhile; all else is allowed."""
    resource = ResourcePattern(kind, name)
    rest = (EVERYONE, "*", ACLOperation.ALL, ACLPermissionType.ALLOW, resource)
    what = (EVERYONE, "*", operation, ACLPermissionType.DENY, resource)
    with admin_client(settings) as admin:
        admin.create_acls([ACL(*rest)])
        admin.create_acls([ACL(*what)])
    try:
        yield
    finally:
        with admin_client(settings) as admin:
            admin.delete_acls([ACLFilter(*what)])


def set_limit(settings: Settings, topic: str, size: int) -> None:
    with admin_client(settings) as admin:
        admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {"max.message.bytes": str(size)})])


class Cameras:
    """Eight of them send an image each, one after another, and again: each until it is acknowledged."""

    def __init__(self, settings: Settings, rest_s: float = 0.05) -> None:
        self._settings, self._rest_s = settings, rest_s
        self.sent: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cameras", daemon=True)

    def __enter__(self) -> "Cameras":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        self._stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with closing(make_producer(self._settings, linger_ms=0)) as producer:
                    while not self._stop.is_set():
                        number = len(self.sent)
                        image = message(f"img-{number:05d}", texture(number % 7), camera=camera(number % CAMERAS))
                        sent = producer.send(
                            self._settings.topics.images,
                            image.value,
                            image.key,
                            list(image.headers),
                            partition=number % CAMERAS,
                        )
                        sent.get(timeout=15)
                        self.sent.append(f"img-{number:05d}")
                        self._stop.wait(self._rest_s)
            except (*CLIENT_ERRORS, BrokerUnavailable):
                self._stop.wait(0.2)


def camera(number: int) -> str:
    return f"/plant/cam{number}"


def stalled(line: RealLine, words: str, partition: int | None = None) -> Callable[[], Stall | None]:
    """The stall that says these words, once there is one."""

    def found() -> Stall | None:
        return next((one for one in line.worker.stalls() if words in one.reason and one.partition == partition), None)

    return found


def well(line: RealLine) -> Callable[[], bool]:
    return lambda: not line.worker.stalls()
