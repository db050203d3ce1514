"""What the cameras see: small drawn images, and a model of them in the registry."""

from collections.abc import Callable
from pathlib import Path

from jobs.drawing.dataset import draw_dataset
from jobs.fitting.datasets import GOOD, discover
from model import Fit, FitOptions, read_frame
from pipeline.storage.registry import Registry
from pipeline.storage.store import ObjectStore

PRODUCT = "flange"
DRAWN_PX = 128
MODEL_PX = 96
STEPS = 60


def draw_images(folder: Path, seed: int) -> tuple[list[bytes], list[Path]]:
    """Good images to fit on; and files to send, of which every fourth shows a defect."""
    draw_dataset(folder, PRODUCT, train=48, good=24, defective=8, seed=seed, size=DRAWN_PX)
    found = discover(folder / PRODUCT)
    good = [one.path.read_bytes() for one in found if not one.labelled]
    files = [one.path for one in found if one.labelled]
    sent = folder / "sent"
    sent.mkdir()
    for number, path in enumerate(files):
        kind = "good" if path.parent.name == GOOD else "defective"
        (sent / f"{number:03d}-{kind}{path.suffix}").write_bytes(path.read_bytes())
    return good, sorted(sent.iterdir())


def publish_model(good: list[bytes], store: ObjectStore, say: Callable[[str], None]) -> str:
    """Fit the default detector to the good images, small, and make it the champion; returns the version."""
    frames = [read_frame(data, MODEL_PX) for data in good]
    options = FitOptions(size=MODEL_PX, steps=STEPS)
    bundle = Fit(PRODUCT, frames[12:], frames[:12], options).run(lambda report: say(f"fitting ({report.phase})"))
    version = f"20260101T000000Z-{bundle.manifest.weights_sha256[:8]}"
    registry = Registry(store)
    registry.publish(
        bundle.stamped(version=version, parent=None, dataset_digest="", code_version="chaos", heldout_sha256=[])
    )
    registry.promote(PRODUCT, version, None)
    return version
