"""A disk of some megabytes that can be filled up: a tmpfs, for which it takes the right to mount."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


class SmallDisk:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"

    def fill(self) -> None:
        """Up to the last page, with zeros."""
        with self._filler.open("wb", buffering=0) as filler:
            for chunk in (bytes(1 << 20), bytes(4096)):
                try:
                    while filler.write(chunk) == len(chunk):
                        pass
                except OSError:
                    continue

    def make_room(self) -> None:
        self._filler.unlink()


@contextmanager
def small_disk(folder: Path, mib: int) -> Iterator[SmallDisk]:
    """Mounted at ``folder``, which is made and removed. What runs on it must have ended before."""
    folder.mkdir(parents=True)
    try:
        _run("mount", "-t", "tmpfs", "-o", f"size={mib}m,mode=700", "linewatch-test", str(folder))
    except (OSError, subprocess.CalledProcessError) as error:
        folder.rmdir()
        told = getattr(error, "stderr", "") or str(error)
        pytest.skip(f"a disk that can be filled up takes root and the right to mount: {told.strip()}")
    try:
        yield SmallDisk(folder)
    finally:
        try:
            _run("umount", str(folder))
        except subprocess.CalledProcessError:
            _run("umount", "--lazy", str(folder))  # a process still writes there: the mount goes with it
            raise
        finally:
            folder.rmdir()


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=20)
