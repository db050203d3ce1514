"""What the four servers have in common: how one is found on this machine, and what it takes to run it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from infra.local.credentials import Credentials
from infra.local.ports import LOOPBACK

Say = Callable[[str], None]
Ports = dict[str, int]
Role = Literal["kafka", "s3"]


@dataclass(frozen=True)
class Found:
    """A server that can run here. `why` reads after its name: "Apache Kafka 4.3.1 (java 17 and mvn found)"."""

    binary: str
    version: str
    why: str


@dataclass(frozen=True)
class Missing:
    """A server that cannot run here: what is missing, and how to get it."""

    why: str
    how_to_get: str


@dataclass(frozen=True)
class Program(ABC):
    """One server with one data folder and fixed ports: everything that must be known to run it.

    `cluster` has the ports of each server that works together with this one as one cluster, its own included, and
    `number` says which of them it is, from 1. Each has a port for each of `port_names`; clients use "main".
    `host` is the address that it listens on.
    """

    binary: str
    version: str
    why: str
    folder: Path
    cluster: tuple[Ports, ...]
    credentials: Credentials
    s3_endpoint: str = ""
    number: int = 1
    host: str = LOOPBACK

    kind: ClassVar[str]
    role: ClassVar[Role]
    title: ClassVar[str]
    package: ClassVar[str]
    port_names: ClassVar[tuple[str, ...]] = ("main",)
    twin_offset: ClassVar[int] = 0
    ready_within_s: ClassVar[float] = 60.0
    grace_s: ClassVar[float] = 10.0

    @property
    def name(self) -> str:
        return f"{self.package} {self.version}"

    @property
    def ports(self) -> Ports:
        return self.cluster[self.number - 1]

    @property
    def majority(self) -> int:
        """The least that must run for the cluster to work, and that must hold a message before it counts as there."""
        return len(self.cluster) // 2 + 1

    @property
    def endpoint(self) -> str:
        return f"{self.host}:{self.ports['main']}"

    def prepare(self, say: Say) -> None:
        """Before each start: write the configuration, lay out the folder."""
        del say

    @abstractmethod
    def command(self) -> list[str]:
        """Runs with the server's data folder as its working folder. Holds no secret."""

    @abstractmethod
    def environment(self) -> dict[str, str]: ...

    @abstractmethod
    def probe(self) -> None:
        """Return once the server does its work, by using it; raise anything while it does not."""

    def tidy(self) -> None:
        """After the process has ended: remove what it may have left outside its folder."""
        return
