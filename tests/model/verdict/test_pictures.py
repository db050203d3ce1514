from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from model import Scored, UnreadableImage, decode_heat_png, encode_heat_png, encode_mask_png
from model.maps.resampling import upsample
from model.verdict.pictures import HEAT_SCALE


def image_of(anomaly: np.ndarray) -> Scored:
    score = float(anomaly.max())
    return Scored(score, score, 1.0, "NotOK", anomaly.astype(np.float32), 90, 70, 0.9, 1.1, 0.5)


def test_a_heat_map_comes_back_to_half_a_step() -> None:
    image = image_of(np.random.default_rng(0).random((16, 16)) * 3)
    heat = decode_heat_png(encode_heat_png(image))
    assert heat.shape == (70, 90)
    assert heat.dtype == np.float32
    assert np.abs(heat - upsample(image.anomaly_map, 70, 90)).max() <= 0.5 / HEAT_SCALE + 1e-6


def test_the_threshold_is_8192_and_the_top_is_clipped() -> None:
    values = np.asarray(Image.open(io.BytesIO(encode_heat_png(image_of(np.full((8, 8), 1.0))))))
    assert values.dtype == np.uint16
    assert set(np.unique(values)) == {8192}
    assert decode_heat_png(encode_heat_png(image_of(np.full((8, 8), 50.0)))).max() == pytest.approx(65535 / 8192)


def test_a_mask_is_an_eight_bit_png() -> None:
    mask = np.zeros((20, 30), dtype=np.uint8)
    mask[5:9, 4:8] = 255
    image = Image.open(io.BytesIO(encode_mask_png(mask)))
    assert (image.format, image.mode, image.size) == ("PNG", "L", (30, 20))
    assert np.array_equal(np.asarray(image), mask)


def test_what_is_no_heat_map_is_refused() -> None:
    with pytest.raises(UnreadableImage, match="cannot be decoded"):
        decode_heat_png(b"nothing")
    with pytest.raises(UnreadableImage, match="16-bit"):
        decode_heat_png(encode_mask_png(np.zeros((4, 4), dtype=np.uint8)))
    data = encode_heat_png(image_of(np.random.default_rng(0).random((16, 16))))
    with pytest.raises(UnreadableImage):
        decode_heat_png(data[: len(data) // 2])
