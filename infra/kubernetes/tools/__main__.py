"""`python -m infra.kubernetes.tools`: build what the cache lacks, and say what is there."""

from __future__ import annotations

import sys

import click

from infra.kubernetes.tools.build import build_all
from infra.kubernetes.tools.programs import missing, notes, tools_dir
from infra.local.errors import LocalServersError


def main() -> int:
    lacking = missing()
    if lacking:
        click.echo(f"Building {', '.join(lacking)} into {tools_dir()}")
        click.echo(
            "Some 11 minutes on two idle cores, and 12 GB of Go's caches. What is done stays done if it is cut off."
        )
    try:
        build_all(lambda line: click.echo(f"  {line}"))
    except LocalServersError as error:
        click.echo(f"Error: {error}", err=True)
        return 1
    for name, note in notes().items():
        click.echo(f"  {name:24} {note['version']:44} {note.get('sha256', '')[:12]}")
    return 0


sys.exit(main())
