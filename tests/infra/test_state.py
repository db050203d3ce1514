from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from infra.local.errors import Busy, FolderUnusable
from infra.local.process import Identity
from infra.local.servers import delete_data
from infra.local.state import Record, State, locked, prepare_data_dir, read_state, write_state


def some_state() -> State:
    identity = Identity.of(os.getpid())
    kafka = Record("tansu", "/bin/tansu", "0.6", "no java found", {"main": 12_000}, None)
    s3 = Record("minio", "/bin/minio", "2026-02-12", "binary in cache", {"main": 12_001, "console": 12_002}, identity)
    return State([kafka], s3, owner=identity)


def test_a_state_is_read_as_it_was_written_and_private(tmp_path: Path) -> None:
    prepare_data_dir(tmp_path / "data")
    write_state(tmp_path / "data", some_state())
    assert read_state(tmp_path / "data") == some_state()
    assert (tmp_path / "data" / "servers.json").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "data" / ".gitignore").read_text() == "*\n"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"kafka": {"kind": 1}, "s3": {}, "owner": null}'])
def test_a_broken_record_is_told_and_can_be_reset(tmp_path: Path, text: str) -> None:
    prepare_data_dir(tmp_path / "data")
    (tmp_path / "data" / "servers.json").write_text(text)
    with pytest.raises(FolderUnusable, match=r"servers\.json cannot be read"):
        read_state(tmp_path / "data")
    delete_data(tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "thesis.tex").write_text("years of work")
    mode = tmp_path.stat().st_mode
    with pytest.raises(FolderUnusable, match=r"other things \(thesis\.tex\)"):
        prepare_data_dir(tmp_path)
    with pytest.raises(FolderUnusable, match="not a data folder"):
        delete_data(tmp_path)
    assert tmp_path.stat().st_mode == mode
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["logs", "thesis.tex"]


def test_deleting_spares_what_others_put_there_later(tmp_path: Path) -> None:
    prepare_data_dir(tmp_path / "data")
    write_state(tmp_path / "data", some_state())
    (tmp_path / "data" / "notes.txt").write_text("mine")
    state = some_state()
    state.s3.process = None  # it is this very test
    write_state(tmp_path / "data", state)
    delete_data(tmp_path / "data")
    assert [entry.name for entry in (tmp_path / "data").iterdir()] == ["notes.txt"]


def test_the_second_in_a_folder_is_told_so(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(Busy, match="Another process is starting or stopping"), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


def test_who_can_wait_gets_the_folder_next(tmp_path: Path) -> None:
    order: list[str] = []

    def hold() -> None:
        with locked(tmp_path):
            held.set()
            time.sleep(0.3)
            order.append("first")

    held = threading.Event()
    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    with locked(tmp_path, wait_s=10):
        order.append("second")
    thread.join()
    assert order == ["first", "second"]
