"""The Lites against an implementation that is not ours: the package `efficientnet-lite-pytorch`, run unfolded.

Two photographs that come with scikit-learn: a pavilion and a dahlia, for which ImageNet's nearest class is the daisy.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image
from sklearn.datasets import load_sample_images

from model import Frame
from model.images.frames import IMAGENET_MEAN, IMAGENET_STD, normalised
from model.teachers import TEACHERS, load_teacher, teacher_spec
from model.teachers.efficientnet_lite import LITE0_SHAPE, LITE1_SHAPE, LITE2_SHAPE, LiteShape
from model.teachers.weights import load_weights

SIZE = 256
PALACE, DAISY = 698, 985
SHAPES = {"efficientnet_lite0": LITE0_SHAPE, "efficientnet_lite1": LITE1_SHAPE, "efficientnet_lite2": LITE2_SHAPE}


@cache
def photographs() -> list[Frame]:
    frames = []
    for pixels in load_sample_images().images:
        height, width, _ = pixels.shape
        left = (width - height) // 2
        square = Image.fromarray(pixels).crop((left, 0, left + height, height)).resize((SIZE, SIZE))
        frames.append(Frame(np.asarray(square), height, height))
    return frames


@cache
def reference(name: str) -> EfficientNet:
    network = EfficientNet.from_name(name.replace("_", "-"), image_size=SIZE)
    network.load_state_dict(load_weights(name, TEACHERS[name].weights).tensors)
    return network.eval()


def images(name: str) -> torch.Tensor:
    """As the product prepares them."""
    spec = teacher_spec(name)
    return normalised(photographs(), spec.mean, spec.std, torch.device("cpu"))


@pytest.mark.parametrize(("name", "shape"), SHAPES.items())
@torch.no_grad()
def test_features_are_those_of_an_independent_implementation(name: str, shape: LiteShape) -> None:
    network, teacher, images_BCHW = reference(name), load_teacher(name), images(name)
    x_BCHW, outputs = network._swish(network._bn0(network._conv_stem(images_BCHW))), []
    for block in network._blocks:
        x_BCHW = block(x_BCHW)
        outputs.append(x_BCHW)
    expected = [outputs[tap] for tap in (*shape.taps, shape.between)]
    for ours, theirs in zip(teacher(images_BCHW), expected, strict=True):
        assert float((ours - theirs).abs().max() / theirs.abs().max()) < 1e-4
        assert float((ours - theirs).norm() / theirs.norm()) < 1e-4


@pytest.mark.parametrize("name", ["efficientnet_lite0", "efficientnet_lite1"])
@torch.no_grad()
def test_the_class_is_that_of_an_independent_implementation_and_right(name: str) -> None:
    """Our deepest level goes on through the layers that we don't build."""
    network, images_BCHW = reference(name), images(name)
    x_BCHW = load_teacher(name)(images_BCHW)[2]
    for block in network._blocks[SHAPES[name].taps[-1] + 1 :]:
        x_BCHW = block(x_BCHW)
    ours = network._fc(network._swish(network._bn1(network._conv_head(x_BCHW))).mean(dim=(2, 3)))
    assert ours.argmax(dim=1).tolist() == network(images_BCHW).argmax(dim=1).tolist() == [PALACE, DAISY]
    assert torch.allclose(ours, network(images_BCHW), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", SHAPES)
@torch.no_grad()
def test_pixels_are_prepared_as_the_weights_were_trained(name: str) -> None:
    """As published, (x - 127) / 128; and the weights themselves remember it, in the first BatchNorm's variances.

    Naming the right class is not enough: prepared by ImageNet's mean and deviation, photographs still are.
    """
    pixels_BCHW = torch.from_numpy(np.stack([frame.pixels for frame in photographs()])).permute(0, 3, 1, 2)
    assert torch.allclose(images(name), (pixels_BCHW - 127.0) / 128, atol=1e-6)

    network = reference(name)

    def times_as_trained(images_BCHW: torch.Tensor) -> float:
        variance_C = network._conv_stem(images_BCHW).var(dim=(0, 2, 3))
        return float((variance_C / network._bn0.running_var).log().median().exp())

    by_imagenet = normalised(photographs(), IMAGENET_MEAN, IMAGENET_STD)
    assert 1 / 2 < times_as_trained(images(name)) < 2
    assert times_as_trained(by_imagenet) > 3
