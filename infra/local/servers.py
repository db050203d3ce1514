"""Kafka brokers and an S3 store for one data folder: started, found again, and stopped together."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from infra.local.choice import KafkaKind, S3Kind, choose_brokers, choose_kafka, choose_s3
from infra.local.credentials import Credentials, load_credentials, load_or_draw_credentials
from infra.local.errors import AlreadyRunning, FolderUnusable
from infra.local.layout import lay_out, log_of, recorded_programs
from infra.local.ports import LOOPBACK
from infra.local.process import Identity, Process
from infra.local.program import Program, Say
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
        self,
        data_dir: Path,
        brokers: Sequence[Server],
        s3: Server,
        credentials: Credentials,
        owner: Identity | None,
        owned: bool,
    ) -> None:
        self.data_dir = data_dir
        self.brokers = list(brokers)
        self.s3 = s3
        self.access_key = credentials.access_key
        self.secret_key = credentials.secret_key
        self._owner = owner
        self._owned = owned
        for server in self.members:
            server._changed = self._write_state

    @classmethod
    def start(
        cls,
        data_dir: Path,
        *,
        kafka: KafkaKind = "auto",
        s3: S3Kind = "auto",
        brokers: int | None = None,
        detach: bool = False,
        host: str = LOOPBACK,
        say: Say = silently,
    ) -> LocalServers:
        """Start all and return once they do their work; on the ports and the data of the last time, if any.

        `host` is the address that they listen on, and tell clients; another than loopback's is for a network of this
        machine's own (it is not recorded: `attach` knows loopback alone). `brokers` is 1 or 3; None: as many as the
        folder's messages are in, 1 in a new folder.

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
            count = choose_brokers(brokers, len(before.kafka) if before else None)
            chosen_kafka = choose_kafka(kafka, before.kafka[0].kind if before else None, say, count)
            [store] = lay_out(data_dir, chosen_s3, [before.s3] if before else [], credentials, say, host=host)
            cluster = lay_out(
                data_dir,
                chosen_kafka,
                before.kafka if before else [],
                credentials,
                say,
                count=count,
                s3_endpoint=store.endpoint,
                host=host,
            )
            servers = cls(
                data_dir,
                [Server(broker, log=log_of(data_dir, broker), detach=detach, say=say) for broker in cluster],
                Server(store, log=log_of(data_dir, store), detach=detach, say=say),
                credentials,
                owner=None if detach else Identity.of(os.getpid()),
                owned=not detach,
            )
            servers._bring_up(say)
        return servers

    @classmethod
    def attach(cls, data_dir: Path) -> LocalServers | None:
        """The servers that run in this data folder, whoever started them; None where they cannot do their work.

        Of three brokers two are enough.
        """
        found = cls._recorded(data_dir)
        return found if found and found.working else None

    @classmethod
    def _recorded(cls, data_dir: Path) -> LocalServers | None:
        """Those in the record, running or not."""
        data_dir = data_dir.absolute()
        state = read_state(data_dir)
        if state is None:
            return None
        credentials = load_credentials(data_dir)
        [store] = recorded_programs(data_dir, "s3", [state.s3], credentials)
        cluster = recorded_programs(data_dir, "kafka", state.kafka, credentials, store.endpoint)
        brokers = [
            _found(data_dir, program, record, state.owner) for program, record in zip(cluster, state.kafka, strict=True)
        ]
        s3 = _found(data_dir, store, state.s3, state.owner)
        return cls(data_dir, brokers, s3, credentials, owner=state.owner, owned=False)

    @property
    def kafka(self) -> Server:
        """The first broker: the only one, unless three were asked for."""
        return self.brokers[0]

    @property
    def members(self) -> list[Server]:
        """The brokers, then the store."""
        return [*self.brokers, self.s3]

    @property
    def working(self) -> bool:
        """Whether clients can work with them: the store and a majority of the brokers run."""
        return self.s3.alive and sum(broker.alive for broker in self.brokers) >= self.kafka.program.majority

    @property
    def complete(self) -> bool:
        return all(server.alive for server in self.members)

    @property
    def bootstrap_servers(self) -> str:
        """Of every broker, whether it runs or not: "127.0.0.1:PORT", with commas between several."""
        return ",".join(broker.endpoint for broker in self.brokers)

    @property
    def s3_endpoint(self) -> str:
        """Host and port, plain http: "127.0.0.1:PORT"."""
        return self.s3.endpoint

    def environment(self) -> dict[str, str]:
        """The settings that point linewatch at these servers. Holds the secret key."""
        return {
            "LINEWATCH_KAFKA__BOOTSTRAP_SERVERS": self.bootstrap_servers,
            "LINEWATCH_TOPICS__REPLICATION_FACTOR": str(len(self.brokers)),
            "LINEWATCH_TOPICS__MIN_INSYNC_REPLICAS": str(self.kafka.program.majority),
            "LINEWATCH_S3__ENDPOINT": f"http://{self.s3_endpoint}",
            "LINEWATCH_S3__ACCESS_KEY": self.access_key,
            "LINEWATCH_S3__SECRET_KEY": self.secret_key,
        }

    def describe(self) -> str:
        """One line: which servers, why these, and where."""
        return " · ".join(
            f"{label}: {server.program.title} {server.program.version} ({server.why}) at {address}"
            for label, server, address in (
                ("Kafka", self.kafka, self.bootstrap_servers),
                ("S3", self.s3, self.s3_endpoint),
            )
        )

    def stop(self) -> None:
        """Kafka first: Tansu keeps its messages in the S3 store. Safe to call twice."""
        if not self.data_dir.is_dir():
            # Deleted under the running servers: nothing is left to lock, but they must end all the same.
            self._take_down()
            return
        with locked(self.data_dir, wait_s=STOP_WAITS_S):
            self._take_down()

    def start_missing(self, say: Say = silently) -> None:
        """Start those that ended while the others ran on, and go on running."""
        with locked(self.data_dir):
            for server in self.members:
                if not server.alive:
                    say(f"Starting {server.program.title} at {server.endpoint} again")
                    server.start()

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
                # It needs no S3, and takes the longest: all start side by side.
                self._launch_kafka(say)
                self.s3.wait_ready()
            else:
                self.s3.wait_ready()
                self._launch_kafka(say)
            for broker in self.brokers:
                broker.wait_ready(self.brokers)
            # Not before all are up: a start that is killed half way leaves nothing behind.
            for server in self.members:
                server.let_go()
        except BaseException:
            self._take_down()
            raise

    def _launch_kafka(self, say: Say) -> None:
        several = f", {len(self.brokers)} brokers" if len(self.brokers) > 1 else ""
        say(f"Starting {self.kafka.program.title}{several} ({self.kafka.why})")
        for broker in self.brokers:
            broker.launch()

    def _take_down(self) -> None:
        with contextlib.ExitStack() as stack:
            # Whatever interrupts one stop, a second Ctrl-C say, the others are stopped all the same; the last is S3.
            for server in (self.s3, *self.brokers):
                stack.callback(server.stop)
            for broker in self.brokers:
                broker.ask_to_end()

    def _write_state(self) -> None:
        if self.data_dir.is_dir():
            brokers = [broker.record() for broker in self.brokers]
            write_state(self.data_dir, State(brokers, self.s3.record(), self._owner))


def recorded(data_dir: Path) -> LocalServers | None:
    """The servers in the folder's record whether or not they run, each with `alive`; None without a record."""
    return LocalServers._recorded(data_dir)


def stop_recorded(data_dir: Path) -> bool:
    """End whichever servers of the folder still run; False where none did."""
    if not (data_dir / RECORD).exists():
        return False
    with locked(data_dir, wait_s=STOP_WAITS_S):
        found = LocalServers._recorded(data_dir)
        if found is None or not any(server.alive for server in found.members):
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
    running = [record for record in state.servers if record.alive]
    owned_elsewhere = state.owner is not None and state.owner.alive and running
    if running == state.servers or owned_elsewhere:
        who = f"by process {state.owner.pid}" if state.owner else "in the background"
        raise AlreadyRunning(
            f"The servers in {data_dir} run already, started {who}: use them (LocalServers.attach, "
            "`linewatch local env`), end them (`linewatch local down`), or give another data folder."
        )


def _end_leftovers(data_dir: Path, state: State, say: Say) -> None:
    """One of the detached servers died: end the others, so that all start together."""
    survivors = [Process(record.process, grace_s=10.0) for record in state.servers if record.process and record.alive]
    if survivors:
        kinds = ", ".join(record.kind for record in state.servers if record.alive)
        say(f"Of the {len(state.servers)} servers in {data_dir} these still run: {kinds}. Starting all again")
        for survivor in survivors:
            survivor.ask_to_end()
        for survivor in survivors:
            survivor.stop()


def _found(data_dir: Path, program: Program, record: Record, owner: Identity | None) -> Server:
    process = Process(record.process, program.grace_s) if record.process and record.process.alive else None
    return Server(
        program,
        log=log_of(data_dir, program),
        detach=True,
        say=silently,
        process=process,
        borrowed=owner is not None,
    )
