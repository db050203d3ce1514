"""What both measurements share: the peer if one is asked for, the bar, and the report's file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from jobs.bench.peer_environment import make_peer
from jobs.session.progress import Screen
from model.bench.peer import AnomalibPeer
from model.bench.runs import OnProgress, Peer, Report


@contextmanager
def beside_anomalib(
    peer: str | None, title: str, device: str, screen: Screen
) -> Iterator[tuple[Peer | None, OnProgress]]:
    """The peer, ready to be loaded, or none; and where progress is shown. Raises PeerError."""
    with ExitStack() as stack:
        other = stack.enter_context(AnomalibPeer(make_peer(screen.say), device)) if peer else None
        step = stack.enter_context(screen.step(title))

        def on_progress(what: str, done: int, of: int) -> None:
            step.say(what)
            step.advance(done, of)

        yield other, on_progress


def write_report(report: Report, json_file: Path | None, screen: Screen) -> None:
    if json_file:
        json_file.write_text(json.dumps(report, indent=2) + "\n")
        screen.say(f"the whole report is in {json_file}")
