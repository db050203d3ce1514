"""Container images without a registry: archives of one layer, as `ctr images import` takes them."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path

# A pod that borrows the machine's /usr as a mount needs no more than the way there.
_LINKS = {"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64"}
_FOLDERS = ("usr", "tmp", "proc", "sys", "dev", "etc", "var", "run", "opt")


def write_program_image(archive: Path, tag: str, program: Path) -> None:
    """An image of one statically linked program, at `/<its name>`, which it starts."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        entry = tarfile.TarInfo(program.name)
        entry.size, entry.mode = program.stat().st_size, 0o755
        with program.open("rb") as opened:
            tar.addfile(entry, opened)
    _write(archive, tag, layer.getvalue(), [f"/{program.name}"], ())


def write_borrowing_image(archive: Path, tag: str, environment: Iterable[str]) -> None:
    """An image for pods that mount the machine's /usr and bring their programs along as mounts, too."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for name in _FOLDERS:
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            tar.addfile(entry)
        for name, target in _LINKS.items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            tar.addfile(entry)
        for name, text in (
            ("etc/passwd", "root:x:0:0::/root:/bin/bash\nlinewatch:x:10001:10001::/tmp:/bin/bash\n"),
            ("etc/group", "root:x:0:\nlinewatch:x:10001:\n"),
        ):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(text), 0o644
            tar.addfile(entry, io.BytesIO(text.encode()))
    _write(archive, tag, layer.getvalue(), [], environment)


def _write(archive: Path, tag: str, layer: bytes, entrypoint: list[str], environment: Iterable[str]) -> None:
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Entrypoint": entrypoint, "Env": list(environment), "User": "10001"},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        }
    ).encode()
    name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = json.dumps([{"Config": name, "RepoTags": [tag], "Layers": ["layer.tar"]}]).encode()
    with tarfile.open(archive, "w") as tar:
        for path, content in ((name, config), ("layer.tar", layer), ("manifest.json", manifest)):
            entry = tarfile.TarInfo(path)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
