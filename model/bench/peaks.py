"""What cards can reach at most in half precision, as their makers publish it."""

from __future__ import annotations

import torch

# Dense bfloat16 (float16 is as fast) on tensor cores, TFLOP/s: without sparsity, at the boost clock of the form factor.
# Sources: NVIDIA's data sheets of H100 and H200 (SXM, PCIe, NVL), A100, L40S, L4, A10, T4 (float16 alone).
# In this order: the first whose words are all in the card's name.
_PUBLISHED: tuple[tuple[tuple[str, ...], float], ...] = (
    (("H200", "NVL"), 835.5),
    (("H200",), 989.4),
    (("H100", "PCIe"), 756.0),
    (("H100", "NVL"), 835.5),
    (("H100",), 989.4),
    (("A100",), 312.0),
    (("L40S",), 362.0),
    (("L4",), 121.0),
    (("A10",), 125.0),
    (("T4",), 65.0),
)


def published_peak_tflop_per_s(card: str) -> float | None:
    """By the card's name, as torch tells it; none where this table doesn't know it."""
    words = card.replace("-", " ").split()
    return next((peak for needed, peak in _PUBLISHED if all(word in words for word in needed)), None)


def peak_of(device: str) -> dict[str, object]:
    """The card and its published peak, or why there is none."""
    if not device.startswith("cuda"):
        return {"card": None, "told": "no peak is published for a CPU; share_of_peak goes by a measured product"}
    card = torch.cuda.get_device_name(torch.device(device))
    peak = published_peak_tflop_per_s(card)
    if peak is None:
        return {"card": card, "told": f"the card {card!r} is not in model/bench/peaks.py: add it with its data sheet"}
    return {"card": card, "tflop_per_s": peak, "told": "bfloat16, dense, NVIDIA's data sheet"}
