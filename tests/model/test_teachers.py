from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F

from model import WeightsError
from model.teachers import load_teacher, teacher_spec
from model.teachers.efficientnet_lite import LITE0_WEIGHTS, EfficientNetLite0
from model.teachers.resnet import RESNET18, RESNET18_SHAPE, WIDE_RESNET50, WIDE_RESNET50_SHAPE, ResNet, ResNetShape
from model.teachers.weights import WEIGHTS_DIR_VARIABLE, LoadedWeights, WeightsSource, load_weights


def test_lite0_levels_have_the_declared_widths_and_strides() -> None:
    teacher = load_teacher("efficientnet_lite0")
    levels = teacher(torch.zeros(2, 3, 128, 128))
    spec = teacher_spec("efficientnet_lite0")
    assert [tuple(x.shape) for x in levels] == [
        (2, width, 128 // stride, 128 // stride) for width, stride in zip(spec.widths, spec.strides, strict=True)
    ]
    assert teacher.weights_sha256.startswith(LITE0_WEIGHTS.sha256_prefix)


def test_lite0_features_equal_an_unfolded_network() -> None:
    """The published tensors run by their names, BatchNorm apart, TensorFlow padding written out."""
    tensors = load_weights(LITE0_WEIGHTS).tensors
    images = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 3, 64, 64)).astype(np.float32))

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        mean, var, gamma, beta = (tensors[f"{name}.{p}"] for p in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, mean, var, gamma, beta, eps=1e-3)

    def conv(x: torch.Tensor, name: str, stride: int = 1, groups: int = 1) -> torch.Tensor:
        weight = tensors[f"{name}.weight"]
        total = max(0, (-(-x.shape[-1] // stride) - 1) * stride + weight.shape[-1] - x.shape[-1])
        x = F.pad(x, (total // 2, total - total // 2) * 2)
        return F.conv2d(x, weight, stride=stride, groups=groups)

    x = F.relu6(norm(conv(images, "_conv_stem", 2), "_bn0"))
    strides = {1: 2, 3: 2, 5: 2, 11: 2}
    expected = []
    for index in range(15):
        name, shortcut = f"_blocks.{index}", x
        if index > 0:
            x = F.relu6(norm(conv(x, f"{name}._expand_conv"), f"{name}._bn0"))
        x = F.relu6(norm(conv(x, f"{name}._depthwise_conv", strides.get(index, 1), x.shape[1]), f"{name}._bn1"))
        x = norm(conv(x, f"{name}._project_conv"), f"{name}._bn2")
        if x.shape == shortcut.shape:
            x = x + shortcut
        if index in (4, 10, 14):
            expected.append(x)
    for level, reference in zip(load_teacher("efficientnet_lite0")(images), expected, strict=True):
        assert torch.allclose(level, reference, rtol=1e-3, atol=1e-3 * float(reference.abs().max()))


def test_a_file_that_is_not_what_its_name_says_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / LITE0_WEIGHTS.file_name).write_bytes(b"something else")
    monkeypatch.setenv(WEIGHTS_DIR_VARIABLE, str(tmp_path))
    with pytest.raises(WeightsError, match="does not begin with 57934424"):
        load_teacher("efficientnet_lite0")


def test_missing_resnet_weights_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WEIGHTS_DIR_VARIABLE, str(tmp_path))
    with pytest.raises(WeightsError, match=r"resnet18-f37072fd.pth was not found.*LINEWATCH_WEIGHTS_DIR"):
        load_teacher("resnet18")


def test_unknown_teacher_lists_the_known_ones() -> None:
    with pytest.raises(WeightsError, match="efficientnet_lite0"):
        load_teacher("vgg16")


def test_pickled_code_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return eval, ("__import__('pathlib').Path('ran').touch()",)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(WEIGHTS_DIR_VARIABLE, str(tmp_path))
    torch.save({"conv1.weight": Hostile()}, tmp_path / "hostile.pth")
    digest = hashlib.sha256((tmp_path / "hostile.pth").read_bytes()).hexdigest()
    with pytest.raises(WeightsError, match="plain tensors"):
        load_weights(WeightsSource("hostile.pth", digest[:8]))
    assert not (tmp_path / "ran").exists()


def test_weights_of_another_architecture_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WEIGHTS_DIR_VARIABLE, str(tmp_path))
    data = safetensors.torch.save({"_conv_stem.weight": torch.zeros(8, 3, 3, 3)})
    (tmp_path / "small.safetensors").write_bytes(data)
    loaded = load_weights(WeightsSource("small.safetensors", hashlib.sha256(data).hexdigest()[:8]))
    with pytest.raises(WeightsError, match=r"\(8, 3, 3, 3\) where \(32, 3, 3, 3\)"):
        EfficientNetLite0(loaded)


def random_resnet(shape: ResNetShape) -> LoadedWeights:
    """Random tensors under torchvision's names."""
    generator = torch.Generator().manual_seed(0)
    tensors: dict[str, torch.Tensor] = {}

    def layer(conv: str, norm: str, out: int, width: int, kernel: int) -> None:
        scale = (2 / (width * kernel**2)) ** 0.5
        tensors[f"{conv}.weight"] = torch.randn(out, width, kernel, kernel, generator=generator) * scale
        for part, value in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
            tensors[f"{norm}.{part}"] = torch.full((out,), value)

    layer("conv1", "bn1", 64, 3, 7)
    width = 64
    for level, count in enumerate(shape.blocks):
        inner, out = shape.inner_width << level, (64 << level) * shape.expansion
        for index in range(count):
            name = f"layer{level + 1}.{index}"
            if shape.bottleneck:
                layer(f"{name}.conv1", f"{name}.bn1", inner, width, 1)
                layer(f"{name}.conv2", f"{name}.bn2", inner, inner, 3)
                layer(f"{name}.conv3", f"{name}.bn3", out, inner, 1)
            else:
                layer(f"{name}.conv1", f"{name}.bn1", inner, width, 3)
                layer(f"{name}.conv2", f"{name}.bn2", inner, inner, 3)
            if index == 0 and (level > 0 or width != out):
                layer(f"{name}.downsample.0", f"{name}.downsample.1", out, width, 1)
            width = out
    return LoadedWeights(tensors, "0" * 64)


@pytest.mark.parametrize(("spec", "shape"), [(RESNET18, RESNET18_SHAPE), (WIDE_RESNET50, WIDE_RESNET50_SHAPE)])
def test_resnet_levels_have_the_declared_widths_and_strides(spec: object, shape: ResNetShape) -> None:
    assert spec in (RESNET18, WIDE_RESNET50)
    declared = RESNET18 if spec is RESNET18 else WIDE_RESNET50
    levels = ResNet(declared, shape, random_resnet(shape))(torch.randn(1, 3, 64, 64))
    assert [tuple(x.shape[1:]) for x in levels] == [
        (width, 64 // stride, 64 // stride) for width, stride in zip(declared.widths, declared.strides, strict=True)
    ]
    assert all(bool(x.isfinite().all()) for x in levels)
