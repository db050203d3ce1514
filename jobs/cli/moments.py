"""Options that take a moment: a time, or how long ago."""

from datetime import UTC, datetime

import click


def moment_of(_: click.Context, __: click.Parameter, text: str | None) -> datetime | None:
    """A callback of click's, for what `jobs.past.since` reads."""
    from jobs.past.since import moment

    try:
        return None if text is None else moment(text, datetime.now(UTC))
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
