"""One of the servers, as its user sees it: start, stop, kill, restart, on the same port and data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from infra.local.errors import LocalServersError
from infra.local.logs import rotate_if_large
from infra.local.process import Identity, Process
from infra.local.program import Program, Say
from infra.local.readiness import wait_until
from infra.local.state import Record


class Server:
    """Not for use from several threads at once."""

    def __init__(
        self,
        program: Program,
        *,
        log: Path,
        detach: bool,
        say: Say,
        changed: Callable[[], None] = lambda: None,
        process: Process | None = None,
        borrowed: bool = False,
    ) -> None:
        self.program = program
        self.log = log
        self._detach = detach
        self._say = say
        # Called whenever another process is the server: the record in the data folder must say so.
        self._changed = changed
        self._process = process
        # It ends with another Python process, so this one must not put another in its place.
        self._borrowed = borrowed

    @property
    def name(self) -> str:
        """For example "apache-kafka 4.3.1"."""
        return self.program.name

    @property
    def why(self) -> str:
        """Why this one and not another: "java 17 and mvn found"."""
        return self.program.why

    @property
    def endpoint(self) -> str:
        return self.program.endpoint

    @property
    def pid(self) -> int | None:
        return self._process.identity.pid if self._process and self._process.alive else None

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.alive

    def start(self) -> None:
        """Start it and return once it does its work."""
        self.launch()
        self.wait_ready()
        self.let_go()

    def launch(self) -> None:
        """Start the process, without waiting for it; `wait_ready()` and `let_go()` must follow."""
        if self.alive:
            raise LocalServersError(f"{self.name} runs already (process {self.pid}): stop it first, or restart it.")
        if self._borrowed:
            raise LocalServersError(f"{self.name} belongs to another process, which alone can start it again.")
        # One that ended by itself, now or in a run before this one, may have left things behind.
        self.stop()
        self.program.tidy()
        folder = self.program.folder
        folder.mkdir(parents=True, exist_ok=True)
        rotate_if_large(self.log)
        self.program.prepare(self._say)
        self._process = Process.spawn(
            self.program.command(),
            environment=self.program.environment(),
            folder=folder,
            log=self.log,
            grace_s=self.program.grace_s,
            detach=self._detach,
        )
        self._changed()

    def wait_ready(self, beside: Sequence[Server] = ()) -> None:
        """Return once it does its work; `beside` are others of its cluster, without which it never would."""
        cluster = (self, *beside)
        try:
            wait_until(
                self.program.probe,
                name=f"{self.program.title} {self.program.version}",
                ended=lambda: next((server.log for server in cluster if not server.alive), None),
                within_s=self.program.ready_within_s,
                log=self.log,
            )
        except BaseException:
            self.stop()
            raise

    def let_go(self) -> None:
        """A detached server may outlive its starter from here on; until here a crash takes it along."""
        if self._detach and self._process is not None:
            self._process.release()

    def ask_to_end(self) -> None:
        """Several that are asked first and stopped then end side by side."""
        if self._process is not None:
            self._process.ask_to_end()

    def stop(self) -> None:
        """Politely, then with force; does nothing where it doesn't run."""
        if self._process is not None:
            self._process.stop()
            self._ended()

    def kill(self) -> None:
        """SIGKILL, for fault tests: what it had acknowledged must be there after `start()`."""
        if self._process is not None:
            self._process.kill()
            self._ended()

    def restart(self) -> None:
        self.stop()
        self.start()

    def record(self) -> Record:
        program = self.program
        identity: Identity | None = self._process.identity if self._process and self._process.alive else None
        return Record(program.kind, program.binary, program.version, program.why, program.ports, identity)

    def _ended(self) -> None:
        self.program.tidy()
        self._process = None
        self._changed()
