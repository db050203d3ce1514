"""Where each server has its place in a data folder: its ports, its folder, its log."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from infra.local.choice import Chosen, program_of
from infra.local.credentials import Credentials
from infra.local.errors import FolderUnusable
from infra.local.ports import LOOPBACK, all_free, draw_ports
from infra.local.program import Found, Ports, Program, Role, Say
from infra.local.state import RECORD, Record


def lay_out(
    data_dir: Path,
    chosen: Chosen,
    before: Sequence[Record],
    credentials: Credentials,
    say: Say,
    *,
    count: int = 1,
    s3_endpoint: str = "",
    host: str = LOOPBACK,
) -> list[Program]:
    """`count` servers of one kind; on the ports of the last run, `before`, where those are to be had."""
    kind = chosen.program
    cluster = tuple(record.ports for record in before if _is_of(record, kind))
    if cluster and len(cluster) != count:
        say(f"`--brokers {count}` has its data apart from that of `--brokers {len(cluster)}`, which ran here last")
        cluster = ()
    if not all(all_free(ports.values(), kind.twin_offset) for ports in cluster):
        say(f"A port of {kind.title}'s last run is taken by another process now: drawing new ones")
        cluster = ()
    return _programs(data_dir, kind, chosen.found, cluster or _drawn(kind, count), credentials, s3_endpoint, host)


def recorded_programs(
    data_dir: Path, role: Role, records: Sequence[Record], credentials: Credentials, s3_endpoint: str = ""
) -> list[Program]:
    first = records[0]
    kind = program_of(role, first.kind)
    if kind is None or not all(_is_of(record, kind) for record in records):
        raise FolderUnusable(
            f"{data_dir / RECORD} names a {role} server that this version doesn't know ({first.kind!r}): "
            "`linewatch local reset` starts afresh (this deletes the folder's data)."
        )
    found = Found(first.binary, first.version, first.why)
    return _programs(data_dir, kind, found, tuple(record.ports for record in records), credentials, s3_endpoint)


def log_of(data_dir: Path, program: Program) -> Path:
    suffix = f"-{program.number}" if len(program.cluster) > 1 else ""
    return data_dir / "logs" / f"{program.package}{suffix}.log"


def _is_of(record: Record, kind: type[Program]) -> bool:
    return record.kind == kind.kind and set(kind.port_names) <= set(record.ports)


def _drawn(kind: type[Program], count: int) -> tuple[Ports, ...]:
    cluster: list[Ports] = []
    for _ in range(count):
        taken = [port for ports in cluster for port in ports.values()]
        cluster.append(draw_ports(kind.port_names, twin_offset=kind.twin_offset, taken=taken))
    return tuple(cluster)


def _programs(
    data_dir: Path,
    kind: type[Program],
    found: Found,
    cluster: tuple[Ports, ...],
    credentials: Credentials,
    s3_endpoint: str,
    host: str = LOOPBACK,
) -> list[Program]:
    folder = data_dir / kind.role / kind.kind
    return [
        kind(
            binary=found.binary,
            version=found.version,
            why=found.why,
            # A cluster's data lies beside that of a single server: neither can go on with the other's.
            folder=folder if len(cluster) == 1 else folder.with_name(f"{kind.kind}-cluster") / str(number),
            cluster=cluster,
            credentials=credentials,
            s3_endpoint=s3_endpoint,
            number=number,
            host=host,
        )
        for number in range(1, len(cluster) + 1)
    ]
