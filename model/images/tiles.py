"""Tiles: a large image at full resolution, in overlapping squares that a student of small images can score.

Resizing a camera image of 2,000 pixels to 256 makes a defect of 20 pixels one of 2.5. A product fitted with tiles sees
every pixel instead: squares of the model's size, a quarter of it or more shared by neighbours, evenly spread so that
the last one ends where the image ends. Their maps are blended into one, in which a pixel's own tile counts most where
it lies in the middle. What a student learns and what it scores are tiles alike, so nothing else has to know.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from model.images.frames import MAP_STRIDE, Frame
from model.images.ignored import Cover

OVERLAP = 0.25
"""Least part of its side that a tile shares with the next one."""
MOST_TRAINING_TILES = 480
"""What a fit learns from, spread over all training images: its time must not grow with their pixels."""


def tile_starts(length: int, side: int) -> list[int]:
    """Where tiles begin along one axis of `length` pixels, in steps of the map's cells, first to last.

    length: at least side, a multiple of the map's stride (see `padded`).
    """
    count = 1 + math.ceil((length - side) / (side * (1 - OVERLAP)))
    last = (length - side) // MAP_STRIDE
    return [MAP_STRIDE * round(last * index / max(1, count - 1)) for index in range(count)]


def padded(pixels: np.ndarray, side: int) -> np.ndarray:
    """[H, W, 3] -> the same with its lower and right edge repeated to at least a tile and whole cells of the map."""
    missing = [max(side, MAP_STRIDE * math.ceil(n / MAP_STRIDE)) - n for n in pixels.shape[:2]]
    return np.pad(pixels, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge") if any(missing) else pixels


def tiles(frame: Frame, side: int) -> list[Frame]:
    """An image at full resolution -> frames of side x side, row by row; they share its memory."""
    pixels = padded(frame.pixels, side)
    return [
        Frame(pixels[top : top + side, left : left + side], side, side)
        for top in tile_starts(pixels.shape[0], side)
        for left in tile_starts(pixels.shape[1], side)
    ]


def blended(maps: Sequence[np.ndarray], height: int, width: int, side: int) -> np.ndarray:
    """The maps [..., side / 4, side / 4] of an image's tiles -> its map, float32 [..., ceil(H / 4), ceil(W / 4)].

    height, width: of the image. A tile's weight falls linearly from its middle towards its edges, never to zero; the
    weights at a cell sum to 1.
    """
    rows, columns = (max(side, MAP_STRIDE * math.ceil(n / MAP_STRIDE)) for n in (height, width))
    cells = side // MAP_STRIDE
    slope = 1 - np.abs((np.arange(cells) + 0.5) / cells * 2 - 1)
    weight_CC = np.outer(slope, slope).astype(np.float32)
    weights = np.zeros((rows // MAP_STRIDE, columns // MAP_STRIDE), dtype=np.float32)
    total = np.zeros((*maps[0].shape[:-2], *weights.shape), dtype=np.float32)
    places = [(top, left) for top in tile_starts(rows, side) for left in tile_starts(columns, side)]
    for (top, left), map_CC in zip(places, maps, strict=True):
        at = np.s_[top // MAP_STRIDE : top // MAP_STRIDE + cells, left // MAP_STRIDE : left // MAP_STRIDE + cells]
        total[..., *at] += weight_CC * map_CC
        weights[at] += weight_CC
    image: np.ndarray = (total / weights)[..., : math.ceil(height / MAP_STRIDE), : math.ceil(width / MAP_STRIDE)]
    return image


def training_tiles(
    frames: Sequence[Frame], side: int, seed: int, cover: Cover | None = None, *, of: int = 1
) -> list[Frame]:
    """Tiles to learn from: as many of each image, without replacement, MOST_TRAINING_TILES or a few more in all.

    cover: of the ignored area; none of the tiles lies wholly in it. of: how many such shares of the images there are.
    """
    each = math.ceil(MOST_TRAINING_TILES / max(1, len(frames) * of))
    chosen = []
    for index, frame in enumerate(frames):
        of_image = parts(frame, side, True, cover)
        if cover:
            of_image = [
                tile for tile, hidden in zip(of_image, hidden_parts(cover, side), strict=True) if not hidden.all()
            ]
        order = np.random.default_rng((seed, index)).permutation(len(of_image))[:each]
        # Copied, so that the large image can be let go.
        chosen += [Frame(np.ascontiguousarray(of_image[place].pixels), side, side) for place in sorted(order)]
    return chosen


def hidden_parts(cover: Cover, side: int) -> list[np.ndarray]:
    """Which pixels of each tile are painted over, bool [side, side], in the order of `tiles`."""
    height, width = cover.hidden.shape
    return [tile.pixels[..., 0] for tile in tiles(Frame(cover.hidden[..., None], width, height), side)]


def counted_parts(cover: Cover, side: int, tiled: bool) -> list[np.ndarray]:
    """Which cells of the map of each part count, bool [side / 4, side / 4], in the order of `parts`."""
    if not tiled:
        return [cover.counted]
    step = MAP_STRIDE
    return [~hidden[step // 2 :: step, step // 2 :: step] for hidden in hidden_parts(cover, side)]


def parts(frame: Frame, side: int, tiled: bool, cover: Cover | None = None) -> list[Frame]:
    """What the network sees of an image: its tiles, or itself; what is ignored is painted over."""
    seen = cover.painted(frame) if cover else frame
    return tiles(seen, side) if tiled else [seen]


def whole(maps: Sequence[np.ndarray], frame: Frame, side: int, tiled: bool, cover: Cover | None = None) -> np.ndarray:
    """The image's map from those of its parts; what is ignored is 0."""
    map_HW = blended(maps, frame.pixels.shape[0], frame.pixels.shape[1], side) if tiled else maps[0]
    return cover.cut_out(map_HW) if cover else map_HW


def whole_maps(
    maps: Sequence[np.ndarray], frames: Sequence[Frame], side: int, tiled: bool, cover: Cover | None = None
) -> Iterator[np.ndarray]:
    """The images' maps, in order, from those of all their parts, in order."""
    begin = 0
    for frame in frames:
        count = len(parts(frame, side, tiled))
        yield whole(maps[begin : begin + count], frame, side, tiled, cover)
        begin += count
