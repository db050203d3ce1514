"""What decoding on the GPU would give: torchvision's nvJPEG and a resize there, beside Pillow on the host.

Measured and not served: its pixels are not Pillow's, and one picture has one verdict wherever it is scored.
"""

from __future__ import annotations

import importlib.util
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from model.bench.engine import EngineOptions
from model.bench.subject import Subject
from model.images.frames import read_frame


def measure_nvjpeg(subject: Subject, batch: int, options: EngineOptions) -> dict[str, object]:
    """Images/s of both from JPEG bytes to pixels of the model's size, and how far these differ; or why not."""
    if not options.device.startswith("cuda"):
        return {"skipped": "nvJPEG decodes on CUDA devices"}
    if importlib.util.find_spec("torchvision") is None:
        return {"skipped": "torchvision is not installed"}
    from torchvision.io import ImageReadMode, decode_jpeg
    from torchvision.transforms.v2.functional import resize

    size = subject.frames[0].size
    files = [subject.jpegs[row % len(subject.jpegs)] for row in range(batch)]
    given = [torch.frombuffer(bytearray(data), dtype=torch.uint8) for data in files]

    def on_device() -> torch.Tensor:
        decoded = decode_jpeg(given, mode=ImageReadMode.RGB, device=options.device)
        return torch.stack([resize(one_3HW, [size, size], antialias=True) for one_3HW in decoded])

    def on_host() -> list[np.ndarray]:
        return [frame.pixels for frame in pool.map(lambda data: read_frame(data, size), files)]

    with ThreadPoolExecutor(options.threads) as pool:
        try:
            there = on_device().permute(0, 2, 3, 1).cpu().numpy().astype(np.int16)
        except RuntimeError as error:
            return {"skipped": f"torchvision can't decode here: {str(error).splitlines()[0]}"}
        here = np.stack(on_host()).astype(np.int16)
        rates = {}
        for name, decode in (("nvjpeg", on_device), ("pillow", on_host)):
            begun = time.perf_counter()
            for _ in range(options.repeats):
                decode()
            torch.cuda.synchronize()
            rates[name] = round(options.repeats * batch / (time.perf_counter() - begun), 1)
    difference = np.abs(there - here)
    return {
        "batch": batch,
        "threads_of_pillow": options.threads,
        "images_per_s": rates,
        "gray_levels_apart_mean": round(float(difference.mean()), 3),
        "gray_levels_apart_most": int(difference.max()),
    }
