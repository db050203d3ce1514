"""Anomalib under the same clock. Runs in anomalib's own virtual environment and imports nothing of linewatch.

One request a line on stdin, one answer a line on stdout, both JSON; `{"error": ...}` is an answer too. The requests are
the methods of `Driver`, by the key "do". Seconds are measured here, so that the pipe is not on the clock.

Anomalib is taken as its users take it: the model called as its TorchInferencer calls it (but under inference_mode,
which is to its advantage), and its OpenVINO exports through its own OpenVINOInferencer.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

MODES = {
    "torch": "anomalib's model in torch, as its TorchInferencer calls it, under inference_mode",
    "openvino_default": "anomalib's OpenVINO export as shipped: OpenVINO computes in bfloat16 where the processor can",
    "openvino_fp32": "the same export with INFERENCE_PRECISION_HINT f32",
    "openvino_int8": "anomalib's OpenVINO export with INT8_PTQ, as shipped",
}
PACKAGES = ("anomalib", "torch", "openvino", "nncf", "timm", "lightning")
CALIBRATION_IMAGES = 64
# What a fit on 209 images of 256 pixels leaves in PatchCore's memory: a tenth of their 32 x 32 patches.
PATCHCORE_BANK = 209 * 32 * 32 // 10
PATCHCORE_BACKBONES = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")


class Driver:
    """Its public methods are the requests."""

    def load(
        self,
        backbone: str,
        size: int,
        threads: int,
        frames: str,
        weights: str | None,
        folder: str,
        device: str = "cpu",
    ) -> dict[str, Any]:
        """Build the model. frames: an .npy file, uint8 [N, size, size, 3]; weights: the encoder's, safetensors."""
        import numpy as np
        import torch

        torch.set_num_threads(threads)
        torch.manual_seed(0)
        self.size, self.threads, self.folder, self.device = size, threads, Path(folder), device
        self.frames_NHWC = np.load(frames)
        self.compiled: dict[str, Any] = {}
        if backbone in PATCHCORE_BACKBONES:
            self.module = self._patchcore(backbone)
        else:
            self.module = self._reverse_distillation(backbone, weights)
        self._limits()
        return {
            "model": type(self.module).__name__,
            "versions": {name: found for name in PACKAGES if (found := _version(name))},
            "device": device,
            "threads": torch.get_num_threads(),
        }

    def export(self, mode: str) -> dict[str, Any]:
        """Make one of the OpenVINO modes ready, by anomalib's own export."""
        from anomalib.deploy import CompressionType, OpenVINOInferencer

        int8 = mode == "openvino_int8"
        path = self.folder / ("int8" if int8 else "fp32") / "weights" / "openvino" / "model.xml"
        if not path.exists():
            self.module.to_openvino(
                self.folder / ("int8" if int8 else "fp32"),
                input_size=(self.size, self.size),
                compression_type=CompressionType.INT8_PTQ if int8 else None,
                datamodule=self._datamodule() if int8 else None,
            )
        config: dict[str, Any] = {"INFERENCE_NUM_THREADS": self.threads}
        if mode == "openvino_fp32":
            config["INFERENCE_PRECISION_HINT"] = "f32"
        self.compiled[mode] = OpenVINOInferencer(path, device="CPU", config=config)
        properties = self.compiled[mode].model
        return {
            "precision": properties.get_property("INFERENCE_PRECISION_HINT").to_string(),
            "threads": properties.get_property("INFERENCE_NUM_THREADS"),
        }

    def score(self, mode: str, batch: int, batches: int) -> dict[str, Any]:
        """Seconds for so many batches, from decoded uint8 images to anomaly maps and scores."""
        once = self._torch if mode == "torch" else self.compiled[mode].predict
        count = len(self.frames_NHWC)
        chunks = [
            self.frames_NHWC[[(number * batch + row) % count for row in range(batch)]]
            for number in range(min(batches, count))
        ]
        begun = time.perf_counter()
        for number in range(batches):
            result = once(chunks[number % len(chunks)])
        result.anomaly_map[:1].sum().item()  # a GPU may still be computing
        seconds = time.perf_counter() - begun
        return {"seconds": seconds, "map": list(result.anomaly_map.shape)}

    def begin_training(self) -> dict[str, Any]:
        """The state before the first step: anomalib's own optimiser."""
        self.module.train()
        self.optimiser = self.module.configure_optimizers()
        return {"parameters": sum(p.numel() for group in self.optimiser.param_groups for p in group["params"])}

    def steps(self, rows: list[list[int]]) -> dict[str, Any]:
        """Training steps on these images of the frames, as Lightning drives them but without its loop."""
        seconds, losses = [], []
        for indexes in rows:
            begun = time.perf_counter()
            batch_B3SS = self.module.pre_processor(self._floats(self.frames_NHWC[indexes]))
            loss = self.module.loss(*self.module.model(batch_B3SS))
            self.optimiser.zero_grad()
            loss.backward()
            self.optimiser.step()
            losses.append(loss.item())
            seconds.append(time.perf_counter() - begun)
        return {"seconds": seconds, "losses": losses}

    def _torch(self, batch_BHWC: Any) -> Any:
        import torch

        with torch.inference_mode():
            return self.module(self._floats(batch_BHWC))

    def _floats(self, batch_BHWC: Any) -> Any:
        """uint8 [B, S, S, 3] -> float32 [B, 3, S, S] in 0..1, as TorchInferencer makes them."""
        import torch
        from torchvision.transforms.v2.functional import to_dtype

        images_B3SS = torch.from_numpy(batch_BHWC).permute(0, 3, 1, 2).contiguous()
        return to_dtype(images_B3SS.to(self.device), torch.float32, scale=True)

    def _reverse_distillation(self, backbone: str, weights: str | None) -> Any:
        from anomalib.models import ReverseDistillation
        from safetensors.torch import load_file

        module = ReverseDistillation(
            backbone=backbone,
            pre_trained=False,
            pre_processor=ReverseDistillation.configure_pre_processor((self.size, self.size)),
            evaluator=False,
            visualizer=False,
        )
        if weights:
            # timm and torchvision name a ResNet's tensors alike; layer 4 is on neither side.
            missing = module.model.encoder.feature_extractor.load_state_dict(load_file(weights), strict=False)
            lost = [name for name in missing.missing_keys if not name.endswith("num_batches_tracked")]
            if lost or missing.unexpected_keys:
                raise ValueError(f"the encoder's weights do not fit: {lost[:3]} {missing.unexpected_keys[:3]}")
        return module.eval().to(self.device)

    def _patchcore(self, backbone: str) -> Any:
        """PatchCore with a memory of the usual size: random rows of real embeddings, for only their number costs time.

        Its own greedy selection would take hours here and give the same number of rows.
        """
        import torch
        from anomalib.models import Patchcore

        module = Patchcore(
            backbone=f"tf_{backbone}",
            layers=("blocks.2", "blocks.4"),
            pre_trained=False,
            pre_processor=Patchcore.configure_pre_processor((self.size, self.size)),
            evaluator=False,
            visualizer=False,
        )
        module.to(self.device).model.train()
        with torch.inference_mode():
            rows = [
                module.model(module.pre_processor(self._floats(self.frames_NHWC[start : start + 16])))
                for start in range(0, len(self.frames_NHWC), 16)
            ]
        module.model.embedding_store.clear()
        embeddings = torch.cat(rows).clone()
        chosen = torch.randint(len(embeddings), (PATCHCORE_BANK,))
        noise = 0.01 * embeddings.std() * torch.randn(PATCHCORE_BANK, embeddings.shape[1]).to(self.device)
        module.model.memory_bank = embeddings[chosen] + noise
        return module.eval()

    def _limits(self) -> None:
        """What a fit would have left in the post-processor: without it the export carries NaN and won't quantise."""
        import torch

        batch = self.frames_NHWC[:4]
        post, self.module.post_processor = self.module.post_processor, None
        raw = self._torch(batch)
        self.module.post_processor = post
        for name, values in (("image", raw.pred_score), ("pixel", raw.anomaly_map)):
            getattr(post, f"{name}_min").copy_(values.min())
            getattr(post, f"{name}_max").copy_(values.max() * 1.1)
            getattr(post, f"_{name}_threshold").copy_(torch.quantile(values.flatten()[:100_000], 0.99))

    def _datamodule(self) -> Any:
        """The images as files, for INT8_PTQ takes a data module."""
        from anomalib.data import Folder
        from PIL import Image

        good = self.folder / "images" / "good"
        good.mkdir(parents=True, exist_ok=True)
        for number, pixels in enumerate(self.frames_NHWC[:CALIBRATION_IMAGES]):
            Image.fromarray(pixels).save(good / f"{number:03d}.png")
        return Folder(
            name="bench",
            root=self.folder / "images",
            normal_dir="good",
            eval_batch_size=1,
            num_workers=0,
            test_split_ratio=0.5,
            val_split_mode="same_as_test",
        )


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:  # what exports need is missing where nothing is exported
        return None


def main() -> None:
    """Answer requests until stdin ends. What libraries print goes to stderr, which the caller keeps as a log."""
    # OpenVINO and NNCF report their use to a statistics service, unless what reports can't be imported.
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    driver = Driver()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = getattr(driver, request.pop("do"))(**request)
        except Exception as error:  # told to the caller, which decides; the log has the traceback
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[-300:]}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
