"""An audit in a terminal."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from jobs.audit.report import TROUBLES, Audit

MOST_PARTITIONS = 32
MOST_CAMERAS = 5
FIGURES = ("images", "events", "deadletters", "pending", "lost", "doubled")


def show(audit: Audit, console: Console) -> None:
    """The count by partition, each kind of trouble with examples, and one line that says whether it is right."""
    window = f"{audit.since or 'the beginning'} to {audit.until or 'now'}"
    console.print(f"\n{audit.topic}, group {audit.group}, {window}", markup=False, highlight=False, soft_wrap=True)
    console.print(_partitions(audit))
    console.print(_facts(audit))
    console.print(_troubles(audit))
    if audit.examples:
        console.print(_examples(audit))
    for note in audit.notes:
        console.print(f"! {note}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    style, verdict = ("green", "✓ right") if audit.right else ("red", "✗ off")
    console.print(f"{verdict}: {_verdict(audit)}", style=style, markup=False, highlight=False, soft_wrap=True)


def _partitions(audit: Audit) -> Table:
    table = Table(show_footer=True)
    table.add_column("partition", "all", justify="right")
    table.add_column("offsets", justify="right")
    for name in FIGURES:
        header = "dead letters" if name == "deadletters" else name
        table.add_column(header, str(audit.total(name)), justify="right")
    lines = audit.partitions
    if len(lines) > MOST_PARTITIONS:
        lines = [line for line in lines if line.lost or line.doubled][:MOST_PARTITIONS]
        table.caption = f"{len(audit.partitions)} partitions; listed are those where something is lost or doubled"
    for line in lines:
        offsets = f"{line.first} to {line.end}" if line.end > line.first else "–"
        figures = [(name, getattr(line, name)) for name in FIGURES]
        cells = [Text(str(n), "red" if n and name in ("lost", "doubled") else "") for name, n in figures]
        table.add_row(str(line.partition), offsets, *cells)
    return table


def _facts(audit: Audit) -> Table:
    gaps = sorted(audit.longest_gap_s.items(), key=lambda item: -item[1])[:MOST_CAMERAS]
    grid = Table.grid(padding=(0, 3))
    for name, counts in (
        ("verdicts", audit.verdicts),
        ("dead letters", audit.deadletters),
        ("pictures", {"masks": audit.masks, "heat maps": audit.heat_maps}),
        ("longest time between two events", {camera: f"{gap:.2f} s" for camera, gap in gaps}),
    ):
        grid.add_row(name, Text("   ".join(f"{_plain(key)} {value}" for key, value in counts.items()) or "none"))
    return grid


def _troubles(audit: Audit) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(justify="left")
    table.add_column(justify="right")
    table.add_column()
    for kind, meaning in TROUBLES.items():
        number = audit.troubles[kind]
        style = "red" if kind in audit.off else "yellow" if number else "dim"
        table.add_row(kind, str(number), meaning, style=style)
    return table


def _examples(audit: Audit) -> Table:
    table = Table("for example", "where")
    for name in ("image", "camera"):
        table.add_column(name, overflow="fold")  # whole, to be copied
    for kind, examples in audit.examples.items():
        for one in examples:
            where = f"{one.topic} {one.partition}:{one.offset}"
            table.add_row(kind, where, *(Text(_plain(text) or "–") for text in (one.image_id, one.camera)))
    return table


def _verdict(audit: Audit) -> str:
    if not audit.right:
        return ", ".join(f"{audit.troubles[kind]} {kind}" for kind in audit.off)
    beside = [f"; {audit.troubles[kind]} {kind}" for kind in TROUBLES if audit.troubles[kind]]
    beside += [f"; {audit.total('pending')} pending"] if audit.total("pending") else []
    return f"each of {audit.total('images')} images has its outcome, each event its mask{''.join(beside)}"


def _plain(text: str) -> str:
    """Names come from outside: nothing in them may move the terminal's cursor."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
