"""The least rights of SECURITY.md, on a real broker with ACLs and a real store with policies: enough, and no more."""

import re
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient, TopicPartition
from kafka.admin import (
    ACL,
    ACLFilter,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    ConfigResource,
    ConfigResourceType,
    NewTopic,
    ResourcePattern,
    ResourcePatternFilter,
    ResourceType,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from kafka.errors import AuthorizationError, KafkaError

from infra.local.server import Server
from model import ModelBundle
from pipeline.contracts.broker import Outgoing
from pipeline.contracts.events import CLAIM_CONTENT_TYPE, ClaimCheck
from pipeline.errors import LinewatchError, StoreUnavailable
from pipeline.history import Following, History, answers
from pipeline.kafka.clients import admin_client, make_consumer, make_producer
from pipeline.kafka.refusals import refusal
from pipeline.kafka.topics import ensure_topics
from pipeline.settings import S3, Settings
from pipeline.storage.claims import leave
from pipeline.storage.registry import Registry
from pipeline.storage.store import S3Store
from tests.pipeline.line import running
from tests.pipeline.real_line import SMALL, RealLine
from tests.pipeline.tiny import PRODUCT, message, publish, stamped, texture
from tests.security.conftest import Doors, allow, s3
from tests.security.secured_kafka import set_password
from tests.security.secured_seaweedfs import Account, set_accounts

pytestmark = [pytest.mark.servers, pytest.mark.apache]
PAGE = Path(__file__).parents[2] / "SECURITY.md"
ACCOUNTS = ("camera", "replica", "fitter", "reader", "reviewer")
PREFIXES = ("images/", "models/", "masks/", "heats/", "letters/", "datasets/", "train/")


def rows(heading: str) -> list[list[str]]:
    """Of the table under a heading of the page, without backticks."""
    section = PAGE.read_text().split(f"### {heading}\n")[1].split("\n### ")[0]
    lines = [line for line in section.splitlines() if re.match(rf"\| ({'|'.join(ACCOUNTS)}) \|", line)]
    return [[cell.strip().replace("`", "") for cell in line.strip("|").split("|")] for line in lines]


def kafka_rights(account: str, settings: Settings) -> list[tuple[ResourceType, str, ACLOperation]]:
    found = []
    for who, kind, name, operations in rows("Kafka"):
        ours = settings.topics.prefix if kind == "topic" else settings.kafka.group
        for operation in operations.split(", "):
            if who == account:
                found.append((ResourceType[kind.upper()], name.replace("linewatch", ours), ACLOperation[operation]))
    return found


def s3_account(account: str, bucket: str) -> Account:
    """In SeaweedFS's words."""
    ((_, reads, writes, lists),) = [row for row in rows("S3") if row[0] == account]
    actions = [
        f"{act}:{bucket}/{one}*" for act, which in (("Read", reads), ("Write", writes)) for one in prefixes(which)
    ]
    return f"key-of-{account}", f"secret-of-the-{account}", actions + ([f"List:{bucket}"] if lists == "yes" else [])


def prefixes(cell: str) -> list[str]:
    return [one for one in cell.split(", ") if one]


class Staff:
    """The plant's accounts, on topics and a bucket of their own."""

    def __init__(self, doors: Doors, store: Server, s3_settings: S3) -> None:
        self.owner = doors.settings(topics={"prefix": "rights", "partitions": 2}, **SMALL).model_copy(
            update={"s3": s3_settings}
        )
        self._doors = doors
        ensure_topics(self.owner)
        S3Store(self.owner.s3).ensure_bucket()
        self._accounts = {name: s3_account(name, s3_settings.bucket) for name in ACCOUNTS}
        set_accounts(store, **self._accounts)
        for name in ACCOUNTS:
            doors.authority.issue(name)
            set_password(self.owner, name, "its-own-password")
            allow(self.owner, name, *kafka_rights(name, self.owner))

    def settings(self, account: str, **sections: Any) -> Settings:
        """A camera shows a certificate, the others a password."""
        if account == "camera":
            cert, key = (str(self._doors.folder / f"camera.{ending}") for ending in ("pem", "key"))
            found = self._doors.through("mtls", self.owner, cert_file=cert, key_file=key)
        else:
            found = self._doors.through("scram-512", self.owner, username=account, password="its-own-password")
        access, secret, _ = self._accounts[account]
        ours = self.owner.s3.model_dump(exclude={"access_key", "secret_key", "session_token"})
        return found.model_copy(update={"s3": S3(**ours, access_key=access, secret_key=secret), **sections})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def staff(doors: Doors, store: Server, tiny_bundle: ModelBundle) -> Staff:
    found = Staff(doors, store, s3(store, doors.authority, bucket="rights"))
    publish(S3Store(found.owner.s3), tiny_bundle)
    return found


def send(settings: Settings, topic: str, images: list[Outgoing]) -> None:
    with closing(make_producer(settings)) as producer:
        for one in images:
            producer.send(topic, one.value, one.key, list(one.headers)).get(timeout=60)


def reads(settings: Settings, topic: str, within_s: float) -> bool:
    """Whether anything of its first partition comes."""
    until = time.monotonic() + within_s
    try:
        with closing(make_consumer(settings)) as consumer:
            consumer.assign([TopicPartition(topic, 0)])
            while time.monotonic() < until:
                if any(consumer.poll(timeout_ms=500).values()):
                    return True
    except AuthorizationError:
        pass
    return False


def test_a_line_runs_on_least_rights(staff: Staff, tiny_bundle: ModelBundle, eventually: Callable[..., None]) -> None:
    camera, topics = staff.settings("camera"), staff.owner.topics
    large = texture(3, spot=True)
    claim = leave_by_put(camera, large)
    images = [message(f"img-{number}", texture(number % 7)) for number in range(20)]
    images.append(message("img-large", claim.model_dump_json().encode(), content_type=CLAIM_CONTENT_TYPE))
    images.append(message("img-broken", b"no image"))
    send(camera, topics.images, images)
    stream = staff.owner.stream.model_copy(update={"heat_maps": "always", "stall_s": 5.0})
    limits = staff.owner.limits.model_copy(update={"inline_bytes": 0})  # each mask and heat map through S3
    replica = staff.settings("replica", stream=stream, limits=limits)
    with running(RealLine(replica, S3Store(replica.s3))) as line:
        overseer = RealLine(staff.owner, S3Store(staff.owner.s3))
        eventually(lambda: overseer.committed() >= 22, within_s=120, what="an outcome for each")
        assert line.worker.stalls() == []
        assert line.worker.trouble() is None
        assert len(line.sessions) == 1, "nothing was refused"
        audit = overseer.audit()
    assert (audit.total("events"), audit.total("lost"), audit.total("doubled")) == (21, 0, 0), audit.troubles
    assert audit.deadletters == {"UnsupportedFormat": 1}
    reader = staff.settings("reader")
    assert S3Store(reader.s3).get(next(iter(S3Store(reader.s3).keys("masks/"))))
    fitter = staff.settings("fitter")
    assert publish(S3Store(fitter.s3), tiny_bundle) in Registry(S3Store(staff.owner.s3)).versions(PRODUCT)
    send(fitter, topics.releases, [Outgoing(topics.releases, b"bottle", b"{}", ())])


def test_readers_keep_the_history_and_reviewers_answer(staff: Staff, tmp_path: Path) -> None:
    from jobs.loop.feedback import About, give

    about = About("e" * 32, "image", "/cam", PRODUCT, "20260131T120000Z-0f1e2d3c", 10, 10)
    given = give(staff.settings("reviewer"), about, "good", "anna")
    assert refused(lambda: give(staff.settings("reader"), about, "good", "anna"))
    reader = staff.settings("reader", history=staff.owner.history.model_copy(update={"url": f"sqlite:///{tmp_path}/h"}))
    with History(reader) as history:
        Following(reader, history).run(threading.Event(), once=True)
        assert given.feedback_id in {row["feedback_id"] for row in answers(history)}


def leave_by_put(camera: Settings, image: bytes) -> ClaimCheck:
    """As a gateway does that may not look what is there."""
    from pipeline.fakes import MemoryStore

    memory = MemoryStore(bucket=camera.s3.bucket)
    claim = leave(memory, image, "image/png")
    ((key, value),) = [(key, found) for key, found in ((key, memory.get(key)) for key in memory.keys(""))]
    S3Store(camera.s3).put(key, value)
    return claim


def test_only_fitters_write_models(staff: Staff, tiny_bundle: ModelBundle) -> None:
    registry = Registry(S3Store(staff.owner.s3))
    before = registry.champion_or_none(PRODUCT)
    for account in ("camera", "replica", "reader", "reviewer"):
        own = Registry(S3Store(staff.settings(account).s3))
        planted = stamped(tiny_bundle)
        with pytest.raises(StoreUnavailable, match="AccessDenied"):
            own.publish(planted)
        with pytest.raises(StoreUnavailable, match="AccessDenied"):
            S3Store(staff.settings(account).s3).put(f"models/{PRODUCT}/aliases/champion.json", b"{}")
    assert registry.champion_or_none(PRODUCT) == before


@pytest.mark.parametrize("account", ACCOUNTS)
def test_the_store_lets_nobody_do_more(account: str, staff: Staff) -> None:
    owner, own = S3Store(staff.owner.s3), S3Store(staff.settings(account).s3)
    ((_, reads, writes, lists),) = [row for row in rows("S3") if row[0] == account]
    for prefix in PREFIXES:
        owner.put(f"{prefix}there", b"before")
        for may, act in (
            (prefix in prefixes(writes), lambda at: own.put(f"{at}there", b"after")),
            (prefix in prefixes(writes), lambda at: own.put_if(f"{at}new-of-{account}", b"after", None)),
            (prefix in prefixes(reads), lambda at: own.get(f"{at}there")),
        ):
            assert allowed(act, prefix) == may, (account, prefix)
    assert allowed(lambda at: list(own.keys(at)), "models/") == (lists == "yes")


def allowed(act: Callable[[str], object], prefix: str) -> bool:
    try:
        act(prefix)
    except StoreUnavailable as error:
        if "AccessDenied" not in str(error):
            raise
        return False
    return True


def refused(act: Callable[[], object]) -> bool:
    """Whether the broker's ACLs are why it can't be done."""
    try:
        act()
    except (KafkaError, LinewatchError) as error:
        told = str(error) if isinstance(error, LinewatchError) else refusal(error)
        return "the broker's ACLs" in (told or "")
    return False


def sends(settings: Settings, topic: str, messages: list[Outgoing]) -> bool:
    try:
        send(settings, topic, messages)
    except (KafkaError, LinewatchError):
        return False
    return True


@pytest.mark.parametrize("account", ACCOUNTS)
def test_the_broker_lets_nobody_write_or_read_more(account: str, staff: Staff) -> None:
    settings, topics = staff.settings(account), staff.owner.topics
    rights = {(name, operation.name) for _, name, operation in kafka_rights(account, staff.owner)}
    for topic in (topics.images, topics.events, topics.masks, topics.deadletters, topics.releases, topics.feedback):
        with closing(make_producer(staff.owner)) as producer:  # something to read
            producer.send(topic, b"by its owner", b"k", [("ce_id", b"x")], partition=0).get(timeout=60)
        one = [Outgoing(topic, b"k", b"by " + account.encode(), (("ce_id", b"x"),))]
        may_write, may_read = ((topic, operation) in rights for operation in ("WRITE", "READ"))
        assert sends(settings, topic, one) == may_write, topic
        assert reads(settings, topic, within_s=60 if may_read else 3) == may_read, topic


@pytest.mark.parametrize("account", ACCOUNTS)
def test_nobody_changes_topics_rights_or_accounts(account: str, staff: Staff) -> None:
    settings, images = staff.settings(account), TopicPartition(staff.owner.topics.images, 0)
    everything = ACL("User:*", "*", ACLOperation.ALL, ACLPermissionType.ALLOW, ResourcePattern(ResourceType.TOPIC, "*"))
    limit = ConfigResource(ConfigResourceType.TOPIC, images.topic, {"retention.ms": "1"})
    password = UserScramCredentialUpsertion("fitter", ScramMechanism.SCRAM_SHA_512, "mine-now")
    acts: list[Callable[[KafkaAdminClient], object]] = [
        lambda admin: admin.create_topics([NewTopic("rights.more", 1, 1)]),
        lambda admin: admin.delete_topics([images.topic]),
        lambda admin: admin.delete_records({images: 1}),
        lambda admin: admin.alter_configs([limit], raise_on_unknown=False),
        lambda admin: admin.create_acls([everything]),
        lambda admin: admin.alter_user_scram_credentials([password]),
    ]
    with closing(make_producer(staff.owner)) as producer:
        producer.send(images.topic, b"x", b"k", partition=0).get(timeout=60)
    before = state(staff)
    for act in acts:
        with suppress(KafkaError, LinewatchError), admin_client(settings) as admin:
            act(admin)
    assert state(staff) == before
    with admin_client(staff.settings("fitter")) as admin:
        admin.list_topics()  # with the password that it had


def state(staff: Staff) -> tuple[object, ...]:
    """Of the broker, as its owner sees it."""
    images = staff.owner.topics.images
    any_right = ACLFilter(
        None,
        "*",
        ACLOperation.ANY,
        ACLPermissionType.ANY,
        ResourcePatternFilter(ResourceType.ANY, None, ACLResourcePatternType.ANY),
    )
    with admin_client(staff.owner) as admin, closing(make_consumer(staff.owner)) as consumer:
        first = consumer.beginning_offsets([TopicPartition(images, 0)])
        config = admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, images)])["topic"][images]
        return sorted(admin.list_topics()), str(first), str(config), len(str(admin.describe_acls(any_right)))


def test_a_camera_joins_no_group_and_ends_nobodys_transaction(staff: Staff) -> None:
    camera, group = staff.settings("camera"), staff.owner.kafka.group

    def join() -> None:
        with closing(make_consumer(camera, group_id=group)) as consumer:
            consumer.subscribe([camera.topics.images])
            consumer.poll(timeout_ms=5000)

    def fence() -> None:
        with closing(make_producer(camera, transactional_id=f"{group}-0")) as producer:
            producer.init_transactions()

    assert refused(join)
    assert refused(fence)


def test_an_account_that_is_shut_sends_no_more_by_an_open_connection(
    doors: Doors, staff: Staff, eventually: Callable[..., None]
) -> None:
    cert, key = doors.authority.issue("stolen")
    settings = doors.through("mtls", staff.owner, cert_file=str(cert), key_file=str(key))
    allow(staff.owner, "stolen", *kafka_rights("camera", staff.owner))
    images = staff.owner.topics.images
    with closing(make_producer(settings)) as producer:
        producer.send(images, b"x", b"k").get(timeout=60)
        with admin_client(staff.owner) as admin:
            anything = ResourcePattern(ResourceType.TOPIC, images)
            admin.delete_acls([ACLFilter("User:stolen", "*", ACLOperation.WRITE, ACLPermissionType.ALLOW, anything)])
        eventually(lambda: refused(lambda: producer.send(images, b"x", b"k").get(timeout=60)), what="the right is gone")
