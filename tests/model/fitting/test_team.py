"""Several processes that share one fit end with one version, which is the one of a single process to noise."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing

from model import Fit, FitError, FitOptions, Frame, Manifest, ModelBundle
from model.team import Team
from tests.model.conftest import _drawn_frame

SIZE = 2
OPTIONS = {"size": 64, "steps": 12, "batch": 8}  # with the tolerated ranges of everybody
TRAIN, HELD_OUT = range(24), range(24, 40)


def frames(team: Team, seeds: range) -> list[Frame]:
    return [_drawn_frame(seed) for seed in team.share(seeds)]


def _process(rank: int, folder: Path) -> None:
    """One of them: fits, fits again, and once more after a stop at the seventh step."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=SIZE)
    team = Team.of_processes()
    states: list[bytes] = []

    def fit() -> Fit:
        options = FitOptions.model_validate(OPTIONS)
        return Fit("disc", frames(team, TRAIN), frames(team, HELD_OUT), options, team=team)

    first = fit()
    told = first.run(lambda report: states.append(first.state()) if report.step == 7 else None)
    # What a worker group goes on from is the leader's state, for all.
    state = team.first(lambda: next(iter(states)))
    restored = fit()
    restored.restore(state)
    bundles = [told, fit().run(), restored.run()]
    for index, bundle in enumerate(bundles):
        (folder / f"{rank}-{index}.safetensors").write_bytes(bundle.weights)
        facts = bundle.manifest.model_dump(mode="json", exclude={"created": True, "training": {"seconds"}})
        (folder / f"{rank}-{index}.json").write_text(json.dumps(facts))
    (folder / f"{rank}-0.manifest").write_text(told.manifest.model_dump_json())
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("team")
    multiprocessing.spawn(_process, args=(folder,), nprocs=SIZE)
    return folder


@pytest.mark.parametrize("suffix", ["safetensors", "json"])
def test_both_end_with_the_same_bits_each_time_and_after_a_stop(folder: Path, suffix: str) -> None:
    made = {(folder / f"{rank}-{index}.{suffix}").read_bytes() for rank in range(SIZE) for index in range(3)}
    assert len(made) == 1


def test_it_is_the_version_of_a_single_process_to_noise(folder: Path) -> None:
    options = FitOptions.model_validate(OPTIONS)
    alone = Fit("disc", frames(Team(), TRAIN), frames(Team(), HELD_OUT), options).run()
    manifest = Manifest.model_validate_json((folder / "0-0.manifest").read_bytes())
    shared = ModelBundle(manifest, (folder / "0-0.safetensors").read_bytes())
    one, two = alone.manifest, shared.manifest
    assert two.training.images == one.training.images == len(TRAIN)
    assert len(two.heldout_scores) == len(one.heldout_scores) == len(HELD_OUT)
    # Means and covariances are of the same images, and their sums are rounded otherwise.
    ours, theirs = shared.student(), alone.student()
    assert ours.statistics is not None
    assert theirs.statistics is not None
    for name, buffer in theirs.targets.named_buffers():
        torch.testing.assert_close(ours.targets.get_buffer(name), buffer, rtol=1e-4, atol=1e-5)
    for mine, its in zip(ours.statistics.gaussians, theirs.statistics.gaussians, strict=True):
        torch.testing.assert_close(mine.get_buffer("scale"), its.get_buffer("scale"), rtol=0.02, atol=0.0)
    # Held-out scores come rank after rank.
    in_order = [score for rank in range(SIZE) for score in Team(rank, SIZE).share(one.heldout_scores)]
    assert np.corrcoef(np.log(in_order), np.log(two.heldout_scores))[0, 1] > 0.9
    assert two.calibration.threshold == pytest.approx(one.calibration.threshold, rel=0.2)
    assert two.training.final_loss == pytest.approx(one.training.final_loss, rel=0.2)


@pytest.mark.parametrize(
    ("changes", "size", "words"),
    [({"batch": 9}, 2, "can't be shared out among 2"), ({"batch": 4}, 4, "two images or more to each")],
)
def test_a_batch_that_cannot_be_shared_out_is_refused(
    changes: dict[str, int], size: int, words: str, small_options: Callable[..., FitOptions], good_frames: list[Frame]
) -> None:
    with pytest.raises(FitError, match=words):
        Fit("disc", good_frames[:16], good_frames[16:], small_options(**changes), team=Team(0, size))


def test_int8_is_fitted_by_one(small_options: Callable[..., FitOptions], good_frames: list[Frame]) -> None:
    pytest.importorskip("openvino", reason="the package openvino is not installed")
    pytest.importorskip("nncf", reason="the package nncf is not installed")
    with pytest.raises(FitError, match="int8 is fitted by one worker"):
        Fit("disc", good_frames[:16], good_frames[16:], small_options(precision="int8"), team=Team(0, 2))


def test_shares_are_every_item_once() -> None:
    shares = [Team(rank, 3).share(range(10)) for rank in range(3)]
    assert sorted(item for share in shares for item in share) == list(range(10))
    assert [[Team(rank, 3).place(index) for index in range(len(share))] for rank, share in enumerate(shares)] == shares
