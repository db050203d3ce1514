"""`linewatch datasets`, and what `ingest` tells in a terminal."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from jobs.cli import main
from jobs.fitting.datasets import Datasets
from model import ImageLimits
from pipeline.fakes import MemoryStore
from tests.pipeline.tiny import texture


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> MemoryStore:
    """Commands find this store instead of S3."""
    store = MemoryStore()
    for opens in ("open_store", "make_store"):
        monkeypatch.setattr(f"jobs.session.connect.{opens}", lambda *_: store)
    return store


def bring(store: MemoryStore, product: str, count: int) -> None:
    folder = Path(f"photos-{product}")
    folder.mkdir()
    for seed in range(count):
        (folder / f"{seed:03d}.png").write_bytes(texture(seed))
    Datasets(store).ingest(folder, product, limits=ImageLimits())


def test_nothing_ingested_says_how_to_begin(store: MemoryStore) -> None:
    assert "linewatch ingest FOLDER" in run("datasets", "list").output
    result = run("datasets", "show", "bottle")
    assert result.exit_code == 1
    assert "no images of 'bottle' yet" in result.output
    assert store.objects == {}


def test_products_are_listed_with_their_counts_and_the_damaged_one_with_its_mending(store: MemoryStore) -> None:
    for product, count in {"bottle": 12, "cap": 3, "lid": 4}.items():
        bring(store, product, count)
    store.put("datasets/lid/latest.json", b"{}")
    lines = {line.split()[0]: " ".join(line.split()) for line in run("datasets", "list").output.splitlines()[1:]}
    assert lines["bottle"].startswith("bottle 12 0 0 0 ")
    assert lines["bottle"].endswith("enough for a fit")
    assert "at least 10 are needed" in lines["cap"]
    assert "'linewatch datasets repair lid'" in lines["lid"]


def test_a_product_is_shown_by_kind_and_with_its_snapshots(store: MemoryStore) -> None:
    bring(store, "bottle", 12)
    told = [" ".join(line.split()) for line in run("datasets", "show", "bottle").output.splitlines()]
    assert "good fitted on 6 0" in told
    assert "good held out 6 0" in told
    assert any(line.startswith(Datasets(store).latest("bottle").digest[:12]) and "latest" in line for line in told)
    assert sum(".png" in line for line in run("datasets", "show", "bottle", "--images").output.splitlines()) == 12


def test_a_repair_says_what_was_found_what_is_lost_and_what_there_is(store: MemoryStore) -> None:
    bring(store, "bottle", 12)
    assert "nothing to repair" in run("datasets", "repair", "bottle").output
    item = Datasets(store).latest("bottle").good[0]
    del store.objects[f"datasets/bottle/images/{item.sha256}"]
    told = run("datasets", "repair", "bottle")
    assert told.exit_code == 0
    assert f"lost: {item.name} (good)" in told.output
    assert "repaired; the latest snapshot is" in told.output
    assert "11 good" in told.output


@pytest.mark.usefixtures("store")
def test_ingest_tells_a_line_for_each_thing_whatever_names_are_in_it() -> None:
    Path("photos").mkdir()
    Path("photos/good\n[red]1.png").write_bytes(texture(1))
    Path(os.fsdecode(b"photos/pr\xfcf\nung.png")).write_bytes(b"no image")
    Path("photos/b\t.gif").write_bytes(b"GIF89a")
    result = run("ingest", "photos", "-p", "bottle")
    assert result.exit_code == 0, result.output
    told = [line.strip() for line in result.output.splitlines()]
    assert any(line.startswith(r"refused photos/pr\xfcf\nung.png: the first bytes") for line in told)
    assert any(line.startswith(r"left out 1: b\t.gif (.gif") for line in told)
    assert any("1 new, 0 known" in line for line in told)


def test_a_terminal_that_is_not_utf_8_shows_what_it_can() -> None:
    Path("測試").mkdir()
    Path("測試/1.png").write_bytes(texture(1))
    Path("測試/Prüfung.gif").write_bytes(b"GIF89a")
    code = (
        "from jobs.session import connect; from pipeline.fakes import MemoryStore; from jobs.cli import main\n"
        "store = MemoryStore(); connect.make_store = lambda *_: store; main(['ingest', '測試', '-p', 'bottle'])"
    )
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": str(Path(__file__).parents[3])}
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, check=False)
    assert told.returncode == 0, told.stderr.decode()
    assert rb"Pr\u00fcfung.gif" in told.stdout
    assert b"1 new" in told.stdout


def test_the_odd_image_is_shown_and_left_out_by_a_persons_word(store: MemoryStore, tmp_path: Path) -> None:
    bring(store, "bottle", 20)
    Path("odd").mkdir()
    Path("odd/finger.png").write_bytes(texture(99, spot=True))
    Datasets(store).ingest(Path("odd"), "bottle", limits=ImageLimits())
    result = run("datasets", "odd", "bottle", "--page", str(tmp_path / "page.html"), "--most", "5")
    assert result.exit_code == 0, result.output
    named = [line.split()[0] for line in result.output.splitlines() if ".png" in line]
    assert named[0] == "finger.png"
    page = (tmp_path / "page.html").read_text()
    assert page.index("finger.png") < page.index(".png")  # the oddest comes first
    assert page.count("<figure>") == 5
    assert "http" not in page.replace("http-equiv", "")
    before = Datasets(store).latest("bottle")
    result = run("datasets", "leave-out", "bottle", "finger.png")
    assert result.exit_code == 0, result.output
    after = Datasets(store).latest("bottle")
    assert {item.name for item in before.good} - {item.name for item in after.good} == {"finger.png"}
    assert f"20 good images are left, in snapshot {after.digest[:12]}" in result.output
    assert Datasets(store).snapshot("bottle", before.digest) == before
    assert "finger.png" not in run("datasets", "odd", "bottle").output


def test_what_can_not_be_left_out_is_said(store: MemoryStore) -> None:
    bring(store, "bottle", 12)
    before = Datasets(store).latest("bottle")
    result = run("datasets", "leave-out", "bottle", "000.png", "nothing.png")
    assert result.exit_code == 1
    assert (
        "no good image is called 'nothing.png': 'linewatch datasets show bottle --images' lists them" in result.output
    )
    assert Datasets(store).latest("bottle") == before
    assert run("datasets", "leave-out", "bottle", before.good[0].sha256[:8]).exit_code == 0
    bring(store, "cap", 3)
    assert "what is odd among fewer than 10 nobody can tell" in run("datasets", "odd", "cap").output
