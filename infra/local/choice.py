"""Which servers run here, and why: the real ones where the machine can run them, else the ones from PyPI."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from infra.local.apache_kafka import ApacheKafka, find_apache
from infra.local.errors import CannotRun, FetchFailed
from infra.local.kafka_jars import ensure_jars
from infra.local.minio_server import MinioServer, find_minio
from infra.local.program import Found, Missing, Program, Role, Say
from infra.local.seaweedfs import SeaweedFS, find_seaweedfs
from infra.local.tansu import Tansu, find_tansu

KafkaKind = Literal["auto", "apache", "tansu"]
S3Kind = Literal["auto", "minio", "seaweedfs"]


@dataclass(frozen=True)
class Chosen:
    program: type[Program]
    found: Found


@dataclass(frozen=True)
class Candidate:
    program: type[Program]
    find: Callable[[Say], Found | Missing]


def choose_kafka(wanted: KafkaKind, kept: str | None, say: Say, brokers: int = 1) -> Chosen:
    """`kept` is the kind that this data folder's messages are in, if any."""
    candidates = [Candidate(ApacheKafka, _apache_with_jars), Candidate(Tansu, lambda _: find_tansu(brokers))]
    return _choose("kafka", candidates, wanted, kept, say)


def choose_brokers(wanted: int | None, kept: int | None) -> int:
    """`kept` is the number of brokers that this data folder's messages are in, if any."""
    if wanted not in (None, 1, 3):
        raise CannotRun(f"{wanted} brokers cannot be started: choose 1, or 3 for a cluster that outlives one of them.")
    return wanted or kept or 1


def choose_s3(wanted: S3Kind, kept: str | None, say: Say) -> Chosen:
    """`kept` is the kind that this data folder's objects are in, if any."""
    candidates = [
        Candidate(MinioServer, lambda _: find_minio()),
        Candidate(SeaweedFS, lambda _: find_seaweedfs()),
    ]
    return _choose("s3", candidates, wanted, kept, say)


def program_of(role: Role, kind: str) -> type[Program] | None:
    programs: tuple[type[Program], ...] = (ApacheKafka, Tansu, MinioServer, SeaweedFS)
    return next((program for program in programs if (program.role, program.kind) == (role, kind)), None)


def _apache_with_jars(say: Say) -> Found | Missing:
    """Found only when its jars are here: a machine off the network should fall back now, not fail later."""
    found = find_apache()
    if isinstance(found, Found):
        try:
            ensure_jars(say)
        except FetchFailed as error:
            first, _, rest = str(error).partition("\n")
            return Missing(first, rest)
    return found


def _choose(role: Role, candidates: Sequence[Candidate], wanted: str, kept: str | None, say: Say) -> Chosen:
    by_kind = {candidate.program.kind: candidate for candidate in candidates}
    if wanted != "auto":
        return _forced(role, by_kind, wanted, kept, say)
    preferred = candidates[0]
    if kept in by_kind and by_kind[kept] is not preferred:
        # A better server may have become possible since, but the data of this folder is in the one it was made with.
        found = by_kind[kept].find(say)
        if isinstance(found, Found):
            return Chosen(by_kind[kept].program, replace(found, why="this folder's data is in it"))
    reasons: list[str] = []
    help_texts: list[str] = []
    for candidate in candidates:
        found = candidate.find(say)
        if isinstance(found, Found):
            # A fallback's reason is what kept the better one from running.
            chosen = Chosen(candidate.program, replace(found, why="; ".join(reasons)) if reasons else found)
            _warn_of_other_data(chosen, by_kind, kept, say)
            return chosen
        reasons.append(found.why)
        help_texts.append(found.how_to_get)
    raise CannotRun(f"No {role} server can run on this machine: {'; '.join(reasons)}. {' Or: '.join(help_texts)}")


def _forced(role: Role, by_kind: dict[str, Candidate], wanted: str, kept: str | None, say: Say) -> Chosen:
    if wanted not in by_kind:
        raise CannotRun(f"There is no {role} server called {wanted!r}: choose one of auto, {', '.join(by_kind)}.")
    candidate = by_kind[wanted]
    found = candidate.find(say)
    if isinstance(found, Missing):
        raise CannotRun(f"{candidate.program.title} cannot run here: {found.why}. {found.how_to_get}")
    chosen = Chosen(candidate.program, replace(found, why="as asked for"))
    _warn_of_other_data(chosen, by_kind, kept, say)
    return chosen


def _warn_of_other_data(chosen: Chosen, by_kind: dict[str, Candidate], kept: str | None, say: Say) -> None:
    if kept in by_kind and kept != chosen.program.kind:
        other = by_kind[kept].program.title
        say(f"This folder's data so far is in {other}; {chosen.program.title} starts without it ({other}'s is kept)")
