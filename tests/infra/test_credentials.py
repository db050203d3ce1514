from __future__ import annotations

from pathlib import Path

import pytest

from infra.local.credentials import load_credentials, load_or_draw_credentials
from infra.local.errors import FolderUnusable
from infra.local.private import write_private


def test_drawn_once_per_folder_and_different_between_folders(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    first = load_or_draw_credentials(tmp_path)
    assert load_or_draw_credentials(tmp_path) == first
    assert load_or_draw_credentials(tmp_path / "other") != first


def test_only_their_owner_can_read_them(tmp_path: Path) -> None:
    load_or_draw_credentials(tmp_path)
    assert (tmp_path / "credentials.json").stat().st_mode & 0o777 == 0o600


def test_replacing_an_open_file_closes_it_to_others(tmp_path: Path) -> None:
    path = tmp_path / "servers.json"
    path.write_text("old")
    path.chmod(0o644)
    write_private(path, "new")
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["servers.json"]


def test_the_secret_is_not_in_their_printed_form(tmp_path: Path) -> None:
    drawn = load_or_draw_credentials(tmp_path)
    assert drawn.secret_key not in repr(drawn)


def test_a_broken_file_is_told_with_its_path_and_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "credentials.json").write_text("{}")
    with pytest.raises(FolderUnusable, match=r"credentials\.json.*linewatch local reset"):
        load_credentials(tmp_path)
