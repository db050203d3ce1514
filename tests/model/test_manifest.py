from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load as load_tensors

from model import BundleError, ModelBundle
from model.manifest import BRIGHTNESS_CORRELATION


def test_a_bundle_survives_storage(bundle: ModelBundle) -> None:
    stored = ModelBundle.open(bundle.manifest_json(), bundle.weights)
    assert stored == bundle
    restored, original = stored.student().state_dict(), bundle.student().state_dict()
    assert all(torch.equal(restored[name], tensor) for name, tensor in original.items())


def test_directions_are_stored_in_half_the_bytes(bundle: ModelBundle) -> None:
    stored = {name: tensor.dtype for name, tensor in load_tensors(bundle.weights).items()}
    halved = {name for name, dtype in stored.items() if dtype == torch.float16}
    assert halved == {name for name in stored if name.endswith(".directions")} != set()


def test_tampered_weights_are_noticed(bundle: ModelBundle) -> None:
    tampered = bytearray(bundle.weights)
    tampered[-1] ^= 1
    with pytest.raises(BundleError, match="damaged or replaced"):
        ModelBundle.open(bundle.manifest_json(), bytes(tampered))


@pytest.mark.parametrize(
    "change",
    [
        {"product": ""},
        {"calibration": {}},
        {"method": "magic"},
    ],
)
def test_a_bad_manifest_is_refused(bundle: ModelBundle, change: dict[str, object]) -> None:
    manifest = {**json.loads(bundle.manifest_json()), **change}
    with pytest.raises(BundleError, match="manifest is not valid"):
        ModelBundle.open(json.dumps(manifest).encode(), bundle.weights)


@pytest.mark.parametrize(
    ("change", "named"),
    [({"surprise": 1}, "surprise"), ({"schema_version": 2, "newer": {}}, "schema_version, newer")],
)
def test_a_manifest_of_a_later_release_is_told_as_one(
    bundle: ModelBundle, change: dict[str, object], named: str
) -> None:
    later = json.dumps({**json.loads(bundle.manifest_json()), **change}).encode()
    with pytest.raises(BundleError, match=rf"of a later linewatch \(unknown here: {named}\): upgrade"):
        ModelBundle.open(later, bundle.weights)


@pytest.mark.parametrize("junk", [b"", b"{", b"\xff\xfe", b"[]", b"null"])
def test_something_that_is_no_manifest_is_refused(bundle: ModelBundle, junk: bytes) -> None:
    with pytest.raises(BundleError):
        ModelBundle.open(junk, bundle.weights)


def test_limits_out_of_order_are_refused(bundle: ModelBundle) -> None:
    manifest = json.loads(bundle.manifest_json())
    manifest["calibration"]["review_high"] = manifest["calibration"]["threshold"] / 2
    with pytest.raises(BundleError, match="review_high"):
        ModelBundle.open(json.dumps(manifest).encode(), bundle.weights)


def test_weights_of_another_method_are_refused(bundle: ModelBundle) -> None:
    manifest = bundle.manifest.model_copy(update={"method": "plain"})
    with pytest.raises(BundleError, match="do not fit a plain student"):
        ModelBundle(manifest, bundle.weights).student()


def test_weights_that_are_no_safetensors_are_refused(bundle: ModelBundle) -> None:
    with pytest.raises(BundleError, match="fit the product again"):
        ModelBundle(bundle.manifest, b"not tensors").student()


def test_a_stamp_says_where_a_bundle_comes_from(bundle: ModelBundle) -> None:
    stamped = bundle.stamped(
        version="3",
        parent="2",
        dataset_digest="abc",
        code_version="0.1.0",
        heldout_sha256=["f" * 64],
        metrics={"image_auroc": 0.9},
    )
    assert bundle.manifest.version == ""
    assert (stamped.manifest.version, stamped.manifest.parent) == ("3", "2")
    assert stamped.manifest.metrics["image_auroc"] == 0.9
    assert ModelBundle.open(stamped.manifest_json(), stamped.weights) == stamped


def test_a_version_says_when_its_scores_follow_the_light(bundle: ModelBundle) -> None:
    manifest = bundle.manifest
    assert -1 <= manifest.metrics[BRIGHTNESS_CORRELATION] <= 1
    images = len(manifest.heldout_scores)
    for correlation, told in ((0.99, True), (-0.99, True), (0.3 / images**0.5, False)):
        other = manifest.model_copy(update={"metrics": {BRIGHTNESS_CORRELATION: correlation}})
        assert any("follow their brightness" in line for line in other.describe()) == told
    assert manifest.describe()[0] == manifest.calibration.describe()
