"""A Kafka broker and an S3 store for one data folder: started, found again, and stopped together."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from types import TracebackType

from infra.local.choice import Chosen, KafkaKind, S3Kind, choose_kafka, choose_s3, program_of
from infra.local.credentials import Credentials, load_credentials, load_or_draw_credentials
from infra.local.errors import AlreadyRunning, FolderUnusable
from infra.local.ports import all_free, draw_ports
from infra.local.process import Identity, Process
from infra.local.program import Program, Role, Say
from infra.local.server import Server
from infra.local.state import OURS, RECORD, Record, State, locked, prepare_data_dir, read_state, write_state

# A start that goes on in another process may take this long before the stop gets its turn.
STOP_WAITS_S = 15.0


def silently(_: str) -> None:
    """The `say` of those who don't want to know."""


class LocalServers:
    """Made by `start` or `attach`. As a context manager it stops, on leaving, the servers that it started.

    Without `detach` the servers end with this Python process, however it ends. Detached ones, and ones that were
    found by `attach`, run on until somebody calls `stop()`.
    """

    def __init__(
        self, data_dir: Path, kafka: Server, s3: Server, credentials: Credentials, owner: Identity | None, owned: bool
    ) -> None:
        self.data_dir = data_dir
        self.kafka = kafka
        self.s3 = s3
        self.access_key = credentials.access_key
        self.secret_key = credentials.secret_key
        self._owner = owner
        self._owned = owned
        kafka._changed = s3._changed = self._write_state

    @classmethod
    def start(
        cls,
        data_dir: Path,
        *,
        kafka: KafkaKind = "auto",
        s3: S3Kind = "auto",
        detach: bool = False,
        say: Say = silently,
    ) -> LocalServers:
        """Start both and return once they do their work; on the ports and the data of the last time, if any.

        Raises AlreadyRunning where they run already, CannotRun for a server that this machine can't run, NotReady
        with the end of its log for one that doesn't come up (nothing is left running then).
        """
        data_dir = data_dir.absolute()
        prepare_data_dir(data_dir)
        with locked(data_dir):
            before = read_state(data_dir)
            if before is not None:
                _refuse_if_running(data_dir, before)
                _end_leftovers(data_dir, before, say)
            credentials = load_or_draw_credentials(data_dir)
            chosen_s3 = choose_s3(s3, before.s3.kind if before else None, say)
            chosen_kafka = choose_kafka(kafka, before.kafka.kind if before else None, say)
            s3_program = _program(data_dir, chosen_s3, before.s3 if before else None, credentials, "", say)
            kafka_program = _program(
                data_dir, chosen_kafka, before.kafka if before else None, credentials, s3_program.endpoint, say
            )
            servers = cls(
                data_dir,
                Server(kafka_program, log=_log(data_dir, kafka_program), detach=detach, say=say),
                Server(s3_program, log=_log(data_dir, s3_program), detach=detach, say=say),
                credentials,
                owner=None if detach else Identity.of(os.getpid()),
                owned=not detach,
            )
            servers._bring_up(say)
        return servers

    @classmethod
    def attach(cls, data_dir: Path) -> LocalServers | None:
        """The servers that run in this data folder, whoever started them; None unless both of them run."""
        found = cls._recorded(data_dir)
        return found if found and found.kafka.alive and found.s3.alive else None

    @classmethod
    def _recorded(cls, data_dir: Path) -> LocalServers | None:
        """Those in the record, running or not."""
        data_dir = data_dir.absolute()
        state = read_state(data_dir)
        if state is None:
            return None
        credentials = load_credentials(data_dir)
        s3 = _server_of(data_dir, "s3", state.s3, credentials, "", state.owner)
        kafka = _server_of(data_dir, "kafka", state.kafka, credentials, s3.endpoint, state.owner)
        return cls(data_dir, kafka, s3, credentials, owner=state.owner, owned=False)

    @property
    def bootstrap_servers(self) -> str:
        return self.kafka.endpoint

    @property
    def s3_endpoint(self) -> str:
        """Host and port, plain http: "127.0.0.1:PORT"."""
        return self.s3.endpoint

    def environment(self) -> dict[str, str]:
        """The settings that point linewatch at these servers. Holds the secret key."""
        return {
            "LINEWATCH_KAFKA__BOOTSTRAP_SERVERS": self.bootstrap_servers,
            "LINEWATCH_S3__ENDPOINT": f"http://{self.s3_endpoint}",
            "LINEWATCH_S3__ACCESS_KEY": self.access_key,
            "LINEWATCH_S3__SECRET_KEY": self.secret_key,
        }

    def describe(self) -> str:
        """One line: which servers, why these, and where."""
        return " · ".join(
            f"{label}: {server.program.title} {server.program.version} ({server.why}) at {server.endpoint}"
            for label, server in (("Kafka", self.kafka), ("S3", self.s3))
        )

    def stop(self) -> None:
        """Kafka first: Tansu keeps its messages in the S3 store. Safe to call twice."""
        if not self.data_dir.is_dir():
            # Deleted under the running servers: nothing is left to lock, but they must end all the same.
            self._take_down()
            return
        with locked(self.data_dir, wait_s=STOP_WAITS_S):
            self._take_down()

    def __enter__(self) -> LocalServers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._owned:
            self.stop()

    def _bring_up(self, say: Say) -> None:
        try:
            say(f"Starting {self.s3.program.title} ({self.s3.why})")
            self.s3.launch()
            if self.kafka.program.kind == "apache":
                # It needs no S3, and takes the longest: both start side by side.
                self._launch_kafka(say)
                self.s3.wait_ready()
            else:
                self.s3.wait_ready()
                self._launch_kafka(say)
            self.kafka.wait_ready()
            # Not before both are up: a start that is killed half way leaves nothing behind.
            self.s3.let_go()
            self.kafka.let_go()
        except BaseException:
            self._take_down()
            raise

    def _launch_kafka(self, say: Say) -> None:
        say(f"Starting {self.kafka.program.title} ({self.kafka.why})")
        self.kafka.launch()

    def _take_down(self) -> None:
        # Whatever interrupts the first stop, a second Ctrl-C say, the second server is stopped all the same.
        try:
            self.kafka.stop()
        finally:
            self.s3.stop()

    def _write_state(self) -> None:
        if self.data_dir.is_dir():
            write_state(self.data_dir, State(self.kafka.record(), self.s3.record(), self._owner))


def recorded(data_dir: Path) -> LocalServers | None:
    """The servers in the folder's record whether or not they run, each with `alive`; None without a record."""
    return LocalServers._recorded(data_dir)


def stop_recorded(data_dir: Path) -> bool:
    """End whichever servers of the folder still run; False where none did."""
    if not (data_dir / RECORD).exists():
        return False
    with locked(data_dir, wait_s=STOP_WAITS_S):
        found = LocalServers._recorded(data_dir)
        if found is None or not (found.kafka.alive or found.s3.alive):
            return False
        found._take_down()
    return True


def delete_data(data_dir: Path) -> None:
    """End the servers, then delete what they ever wrote: only that, whatever else lies in the folder."""
    if not (data_dir / RECORD).exists():
        raise FolderUnusable(f"{data_dir} is not a data folder of embedded servers: it has no {RECORD}.")
    # A record or credentials that can't be read are a reason to reset, not to refuse it.
    with contextlib.suppress(FolderUnusable):
        stop_recorded(data_dir)
    with locked(data_dir):
        for name in OURS:
            path = data_dir / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    if not any(data_dir.iterdir()):
        data_dir.rmdir()


def _refuse_if_running(data_dir: Path, state: State) -> None:
    both = state.kafka.alive and state.s3.alive
    owned_elsewhere = state.owner is not None and state.owner.alive and (state.kafka.alive or state.s3.alive)
    if both or owned_elsewhere:
        who = f"by process {state.owner.pid}" if state.owner else "in the background"
        raise AlreadyRunning(
            f"The servers in {data_dir} run already, started {who}: use them (LocalServers.attach, "
            "`linewatch local env`), end them (`linewatch local down`), or give another data folder."
        )


def _end_leftovers(data_dir: Path, state: State, say: Say) -> None:
    """One of two detached servers died: end the other, so that both start together."""
    if state.kafka.alive or state.s3.alive:
        survivor = state.kafka if state.kafka.alive else state.s3
        say(f"Of the servers in {data_dir} only {survivor.kind} still runs: starting both again")
        for record in (state.kafka, state.s3):
            if record.process is not None:
                Process(record.process, grace_s=10.0).stop()


def _program(
    data_dir: Path, chosen: Chosen, before: Record | None, credentials: Credentials, s3_endpoint: str, say: Say
) -> Program:
    kind = chosen.program
    ports = before.ports if before and before.kind == kind.kind and set(before.ports) == set(kind.port_names) else {}
    if ports and not all_free(ports.values(), kind.twin_offset):
        say(f"A port of {kind.title}'s last run is taken by another process now: drawing new ones")
        ports = {}
    found = chosen.found
    return kind(
        binary=found.binary,
        version=found.version,
        why=found.why,
        folder=data_dir / kind.role / kind.kind,
        ports=ports or draw_ports(kind.port_names, twin_offset=kind.twin_offset),
        credentials=credentials,
        s3_endpoint=s3_endpoint,
    )


def _server_of(
    data_dir: Path, role: Role, record: Record, credentials: Credentials, s3_endpoint: str, owner: Identity | None
) -> Server:
    kind = program_of(role, record.kind)
    if kind is None or not set(kind.port_names) <= set(record.ports):
        raise FolderUnusable(
            f"{data_dir / RECORD} names a {role} server that this version doesn't know ({record.kind!r}): "
            "`linewatch local reset` starts afresh (this deletes the folder's data)."
        )
    program = kind(
        binary=record.binary,
        version=record.version,
        why=record.why,
        folder=data_dir / role / record.kind,
        ports=record.ports,
        credentials=credentials,
        s3_endpoint=s3_endpoint,
    )
    process = Process(record.process, program.grace_s) if record.process and record.process.alive else None
    return Server(
        program,
        log=_log(data_dir, program),
        detach=True,
        say=silently,
        process=process,
        borrowed=owner is not None,
    )


def _log(data_dir: Path, program: Program) -> Path:
    return data_dir / "logs" / f"{program.package}.log"
