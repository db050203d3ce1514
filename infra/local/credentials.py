"""The S3 key pair of one data folder: drawn once, kept in a file that only its owner can read."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass, field
from pathlib import Path

from infra.local.errors import FolderUnusable
from infra.local.private import write_private

FILE_NAME = "credentials.json"


@dataclass(frozen=True)
class Credentials:
    """Reaches the servers through their environment only, never a command line: those are public in /proc."""

    access_key: str
    secret_key: str = field(repr=False)


def load_or_draw_credentials(data_dir: Path) -> Credentials:
    """The folder's key pair; drawn at random the first time."""
    path = data_dir / FILE_NAME
    if path.exists():
        return load_credentials(data_dir)
    # Hex and not URL-safe base64: a key that starts with "-" trips shells and command lines.
    drawn = Credentials(access_key=f"linewatch{secrets.token_hex(4)}", secret_key=secrets.token_hex(20))
    write_private(path, json.dumps(asdict(drawn)))
    return drawn


def load_credentials(data_dir: Path) -> Credentials:
    path = data_dir / FILE_NAME
    try:
        path.chmod(0o600)
        return Credentials(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise FolderUnusable(
            f"The S3 credentials in {path} cannot be read ({error}). "
            "Put the file back, or start afresh with `linewatch local reset` (this deletes the folder's data)."
        ) from error
