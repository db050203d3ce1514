"""The transformer computes what torch's own layers compute, and serves like any other teacher."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from model import Engine, Fit, FitOptions, Frame, WeightsError
from model.bench.random_teacher import random_teacher, random_transformer_tensors
from model.teachers import TEACHERS
from model.teachers.vision_transformer import DINOV2_S_SHAPE
from model.teachers.weights import LoadedWeights

NAME = "dinov2_vits14"
TENSORS = random_transformer_tensors(DINOV2_S_SHAPE)


def teacher() -> nn.Module:
    built = TEACHERS[NAME].build(LoadedWeights(TENSORS, "0" * 64))
    assert isinstance(built, nn.Module)
    return built


def of_torch(index: int) -> nn.TransformerEncoderLayer:
    """torch's layer, which has no scales of its own: they go into the weights that they follow."""
    width = DINOV2_S_SHAPE.width
    layer = nn.TransformerEncoderLayer(
        width, DINOV2_S_SHAPE.heads, 4 * width, 0.0, F.gelu, 1e-6, batch_first=True, norm_first=True
    )
    block = {name.removeprefix(f"blocks.{index}."): tensor for name, tensor in TENSORS.items()}
    names = {
        "self_attn.in_proj_weight": "attn.qkv.weight", "self_attn.in_proj_bias": "attn.qkv.bias",
        "self_attn.out_proj.weight": "attn.proj.weight", "self_attn.out_proj.bias": "attn.proj.bias",
        "linear1.weight": "mlp.fc1.weight", "linear1.bias": "mlp.fc1.bias",
        "linear2.weight": "mlp.fc2.weight", "linear2.bias": "mlp.fc2.bias",
        "norm1.weight": "norm1.weight", "norm1.bias": "norm1.bias",
        "norm2.weight": "norm2.weight", "norm2.bias": "norm2.bias",
    }  # fmt: skip
    state = {own: block[published] for own, published in names.items()}
    for part, scale in (("self_attn.out_proj", block["ls1.gamma"]), ("linear2", block["ls2.gamma"])):
        state[f"{part}.weight"] = state[f"{part}.weight"] * scale[:, None]
        state[f"{part}.bias"] = state[f"{part}.bias"] * scale
    layer.load_state_dict(state)
    return layer.eval()


def positions(side: int) -> torch.Tensor:
    """Cubic interpolation (Keys, a = -0.75) of the learned 37 x 37 positions, written out along each axis."""
    trained = DINOV2_S_SHAPE.side

    def kernel(x: np.ndarray) -> np.ndarray:
        x, a = np.abs(x), -0.75
        near = (a + 2) * x**3 - (a + 3) * x**2 + 1
        far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
        return np.where(x <= 1, near, np.where(x < 2, far, 0.0))

    weights = np.zeros((side, trained))
    for place in range(side):
        at = (place + 0.5) * trained / (side + 0.1) - 0.5
        for tap in range(math.floor(at) - 1, math.floor(at) + 3):
            weights[place, min(max(tap, 0), trained - 1)] += kernel(np.array(at - tap))
    grid = TENSORS["pos_embed"][0, 1:].reshape(trained, trained, -1).double().numpy()
    return torch.from_numpy(np.einsum("ia,jb,abc->ijc", weights, weights, grid)).float().reshape(1, side * side, -1)


@pytest.mark.parametrize("size", [64, 256])
@torch.inference_mode()
def test_it_computes_what_torchs_own_layers_do(size: int) -> None:
    images, side = torch.randn(2, 3, size, size), size // 16
    x = F.interpolate(images, size=(14 * side, 14 * side), mode="bilinear")
    patches = F.unfold(x, 14, stride=14).transpose(1, 2) @ TENSORS["patch_embed.proj.weight"].flatten(1).T
    patches = patches + TENSORS["patch_embed.proj.bias"] + positions(side)
    token = (TENSORS["cls_token"] + TENSORS["pos_embed"][:, :1]).expand(2, -1, -1)
    tokens, levels = torch.cat([token, patches], dim=1), []
    for index in range(DINOV2_S_SHAPE.blocks):
        tokens = of_torch(index)(tokens)
        if index + 1 in DINOV2_S_SHAPE.read:
            normed = F.layer_norm(tokens, (384,), TENSORS["norm.weight"], TENSORS["norm.bias"], 1e-6)
            levels.append(normed[:, 1:].reshape(2, side, side, -1).permute(0, 3, 1, 2))
    expected = [F.interpolate(levels[0], scale_factor=2, mode="bilinear"), levels[1], F.avg_pool2d(levels[2], 2)]
    found = teacher()(images)
    assert [tuple(level.shape) for level in found] == [(2, 384, size // s, size // s) for s in (8, 16, 32)]
    for ours, theirs in zip(found, expected, strict=True):
        assert float((ours - theirs).abs().max()) < 1e-3 * float(theirs.abs().max())


def test_another_transformers_weights_are_refused() -> None:
    wider = {name: torch.cat([tensor, tensor], dim=-1) for name, tensor in TENSORS.items()}
    with pytest.raises(WeightsError, match="belong to another architecture"):
        TEACHERS[NAME].build(LoadedWeights(wider, "0" * 64))
    fewer = {name: tensor for name, tensor in TENSORS.items() if not name.startswith("blocks.11.")}
    with pytest.raises(WeightsError, match=r"no tensor 'blocks\.11"):
        TEACHERS[NAME].build(LoadedWeights(fewer, "0" * 64))


def test_a_product_is_fitted_on_it_and_both_backends_agree(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    ground = rng.integers(60, 200, (64, 64, 3))
    frames = [
        Frame(np.clip(ground + rng.normal(0, 6, ground.shape), 0, 255).astype(np.uint8), 64, 64) for _ in range(16)
    ]
    odd = Frame(frames[0].pixels.copy(), 64, 64)
    odd.pixels[20:44, 20:44] = 255
    options = FitOptions(backbone=NAME, size=64, steps=10, corruptions=1)
    with random_teacher(NAME, tmp_path):
        bundle = Fit("part", frames[:10], frames[10:], options).run()
        on_torch = Engine(lambda _: bundle, device="cpu", backend="torch").score([*frames, odd], ["part"] * 17)
        on_openvino = Engine(lambda _: bundle, device="cpu", backend="openvino").score([*frames, odd], ["part"] * 17)
    reference, served = ([one.score for one in found] for found in (on_torch, on_openvino))
    assert served == pytest.approx(reference, rel=1e-2)
    assert reference[-1] > 2 * max(reference[:-1])
