"""Where a command writes its results: looked at before it begins, for the work of hours would be lost at its end."""

import os
import tempfile
from pathlib import Path
from typing import Any

import click


class CannotWrite(click.ClickException):
    """An option that is wrong, in one line. Not status 1, by which some commands say what they have found."""

    exit_code = 2


class OutputFile(click.Path):
    """A file in a folder that is there and can be written to; it may be there itself, and is written anew then."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        if path.is_dir():
            raise CannotWrite(f"{_name(param)} {path}: it is a folder, not a file: name a file in it")
        if not path.parent.is_dir():
            raise CannotWrite(f"{_name(param)} {path}: there is no folder {path.parent}: make it first")
        if path.exists() and not os.access(path, os.W_OK):
            raise CannotWrite(f"{_name(param)} {path}: it is there and can't be written: Permission denied")
        _try(path.parent, f"{_name(param)} {path}")
        return path


class OutputFolder(click.Path):
    """A folder, or one that can be made, parents and all."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        there = next(one for one in (path, *path.absolute().parents) if one.exists())
        if not there.is_dir():
            raise CannotWrite(f"{_name(param)} {path}: {there} is a file, not a folder")
        _try(there, f"{_name(param)} {path}")
        return path


def _try(folder: Path, what: str) -> None:
    """Permissions do not say all: a file system may be read-only, full, or no place for files."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise CannotWrite(f"{what}: {folder} can't be written to: {error.strerror}") from None


def _name(param: click.Parameter | None) -> str:
    return param.opts[0] if isinstance(param, click.Option) else param.human_readable_name if param else "output"
