from __future__ import annotations

from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from model.engine.serving_form import serving_form
from model.maps.anomaly_map import anomaly_maps, image_scores, level_maps
from model.maps.spread import level_importance, place_shares
from model.network.fusion import AsymptoticFusion, FusionShape, LevelFusion, LevelWeights, reduced_widths
from model.network.losses import distillation_loss, error_maps
from model.network.student import Method, Student
from model.network.targets import Targets
from model.teachers.efficientnet_lite import LITE0
from model.teachers.resnet import RESNET18, WIDE_RESNET50


def levels(batch: int = 2, size: int = 128, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(batch, width, size // stride, size // stride, generator=generator)
        for width, stride in zip(LITE0.widths, LITE0.strides, strict=True)
    ]


def test_every_fusion_starts_with_equal_weights() -> None:
    means = AsymptoticFusion(LITE0.widths, LITE0.strides).mean_level_weights(levels())
    assert set(means) == {"geometry.1", "geometry.2", "semantics.1", "semantics.2", "semantics.3"}
    for name, weights in means.items():
        count = 2 if name.startswith("geometry") else 3
        assert weights == pytest.approx([1 / count] * count, abs=1e-6)


def test_fusion_gives_a_map_for_each_level() -> None:
    fused = AsymptoticFusion(LITE0.widths, LITE0.strides)(levels())
    assert [x.shape for x in fused] == [(2, 32, 16, 16), (2, 32, 8, 8), (2, 32, 4, 4)]
    assert reduced_widths(WIDE_RESNET50.widths) == [32, 64, 128]


def test_semantics_do_not_enter_the_geometry_stage() -> None:
    fusion = AsymptoticFusion(LITE0.widths, LITE0.strides).eval()
    seen: list[torch.Tensor] = []
    fusion.geometry_blocks[0].register_forward_hook(lambda _m, _i, out: seen.append(out))
    one, other = levels(), levels()
    other[2] = torch.zeros_like(other[2])
    one_out, other_out = fusion(one), fusion(other)
    assert torch.equal(seen[0], seen[1])
    assert not torch.allclose(one_out[0], other_out[0])


@pytest.mark.parametrize("weights", ["position", "scalar"])
def test_fusion_weights_can_be_learned(weights: LevelWeights) -> None:
    torch.manual_seed(0)
    fuse = LevelFusion((16, 16), (8, 16), target=0, weights=weights)
    wanted, noise = torch.randn(4, 16, 8, 8), torch.randn(4, 16, 4, 4)
    optimiser = torch.optim.Adam(fuse.parameters(), lr=0.01)
    for _ in range(60):
        optimiser.zero_grad()
        F.mse_loss(fuse([wanted, noise]), wanted.relu()).backward()
        optimiser.step()
    with torch.no_grad():
        maps = [resample(level) for resample, level in zip(fuse.resample, [wanted, noise], strict=True)]
        given = fuse.weigh(maps).mean(dim=(0, 2, 3))
    assert abs(float(given[0]) - 0.5) > 1e-3


def test_mean_weights_stay_what_they_are() -> None:
    fuse = LevelFusion((16, 16, 16), (8, 16, 32), target=0, weights="mean")
    assert fuse.weigh([torch.zeros(1)] * 3).flatten().tolist() == pytest.approx([1 / 3] * 3)
    assert not any(parameter.requires_grad for parameter in fuse.weigh.parameters())


def test_semantics_come_first_where_the_order_is_reversed() -> None:
    means = AsymptoticFusion(LITE0.widths, LITE0.strides, FusionShape(first=(1, 2))).mean_level_weights(levels())
    assert set(means) == {"geometry.2", "geometry.3", "semantics.1", "semantics.2", "semantics.3"}


def test_the_wide_student_has_as_many_parameters_as_the_one_with_fusion() -> None:
    fusion, wide, plain = (
        sum(p.numel() for p in Student(LITE0, method).parameters()) for method in ("fusion", "wide", "plain")
    )
    assert plain < fusion <= wide < fusion * 1.05


def test_a_student_rebuilds_the_good_part_from_a_spoiled_one() -> None:
    student = Student(LITE0, "fusion", 64).eval().requires_grad_(False)
    good, spoiled = levels(size=64), levels(size=64, seed=1)
    expected = distillation_loss("standardised", student.targets(good), student(student.targets(spoiled)))
    assert float(student.loss(good, spoiled)) == pytest.approx(float(expected))
    assert float(student.loss(good, spoiled)) != pytest.approx(float(student.loss(spoiled, good)))


def test_an_image_without_its_fused_maps_is_rebuilt_through_the_embedding_alone() -> None:
    student = Student(LITE0, "fusion", 64).eval().requires_grad_(False)
    for lateral in student.decoder.laterals:
        torch.nn.init.normal_(lateral.weight)
    targets = student.targets(levels(size=64))
    through_embedding = student.decoder(
        student.embedding(targets), [x.shape[-1] for x in targets], [x * 0 for x in student.fusion(targets)]
    )
    half = student(targets, torch.tensor([1.0, 0.0]))
    for rebuilt, with_maps, without in zip(half, student(targets), through_embedding, strict=True):
        assert torch.allclose(rebuilt[0], with_maps[0], atol=1e-5)
        assert torch.allclose(rebuilt[1], without[1], atol=1e-5)
        assert not torch.allclose(with_maps[1], without[1], atol=1e-2)


def test_fusion_joins_three_levels_only() -> None:
    with pytest.raises(ValueError, match="three levels"):
        AsymptoticFusion((8, 16), (4, 8))


@pytest.mark.parametrize("method", get_args(Method))
@pytest.mark.parametrize("spec", [LITE0, RESNET18])
def test_a_student_rebuilds_every_level(method: Method, spec: object) -> None:
    assert spec in (LITE0, RESNET18)
    declared = LITE0 if spec is LITE0 else RESNET18
    student = Student(declared, method, 64)
    x = [torch.randn(2, w, 64 // s, 64 // s) for w, s in zip(declared.widths, declared.strides, strict=True)]
    wanted = student.wanted(student.targets(x))
    assert [r.shape for r in student(student.targets(x))] == [t.shape for t in wanted]
    assert [t.shape for t in wanted] == [t.shape for t in x] or method == "fused_targets"
    assert student.anomaly_maps(x).shape == (2, 1, 16, 16)


def test_fused_targets_are_rebuilt_and_do_not_follow_the_student() -> None:
    torch.manual_seed(0)
    student = Student(LITE0, "fused_targets", 64)
    targets = student.targets(levels(batch=4, size=64))
    wanted = student.wanted(targets)
    assert not any(level.requires_grad for level in wanted)
    assert [level.shape[1] for level in wanted] == reduced_widths(LITE0.widths)
    for level in wanted:  # standardised, but for channels that never fire
        assert level.mean(dim=(0, 2, 3)).abs().max() < 1e-4
        assert level.var(dim=(0, 2, 3)).max() == pytest.approx(1, abs=0.1)


def test_the_deepest_fused_map_alone_enters_the_embedding_where_it_goes_straight() -> None:
    student = Student(LITE0, "straight", 64).eval()
    seen: list[torch.Tensor] = []
    student.embedding.register_forward_hook(lambda _m, inputs, _out: seen.extend(inputs[0]))
    targets = student.targets(levels(size=64))
    student(targets, torch.tensor([1.0, 0.0]))  # withheld from the decoder, not from the embedding
    assert student.fusion is not None
    assert len(seen) == 1
    assert torch.equal(seen[0], student.fusion(targets)[-1])


def test_fused_maps_are_added_to_the_reduced_levels_where_residual() -> None:
    torch.manual_seed(0)
    plain = AsymptoticFusion(LITE0.widths, LITE0.strides).eval()
    residual = AsymptoticFusion(LITE0.widths, LITE0.strides, FusionShape(residual=True)).eval()
    residual.load_state_dict(plain.state_dict())
    x = levels()
    for added, fused, reduce, level in zip(residual(x), plain(x), plain.reduce, x, strict=True):
        assert torch.allclose(added, fused + reduce(level))


def test_a_resnets_student_costs_less_than_half_of_its_teacher() -> None:
    student = Student(WIDE_RESNET50).eval()
    x = [
        torch.zeros(1, w, 256 // s, 256 // s) for w, s in zip(WIDE_RESNET50.widths, WIDE_RESNET50.strides, strict=True)
    ]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        student(x)
    assert counter.get_total_flops() < 12e9  # the teacher has 24e9


def test_standardised_targets_have_mean_0_and_deviation_1() -> None:
    targets = Targets(LITE0)
    raw = [x * 3 + 1 for x in levels(batch=6)]
    targets.learn([[x[:4] for x in raw], [x[4:] for x in raw]])
    for target in targets(raw):
        assert float(target.mean(dim=(0, 2, 3)).abs().max()) < 1e-4
        assert float((target.std(dim=(0, 2, 3), correction=0) - 1).abs().max()) < 1e-3


def test_standardised_targets_ignore_contrast() -> None:
    targets = Targets(LITE0)
    raw = levels()
    assert all(
        torch.allclose(a, b, atol=1e-5) for a, b in zip(targets(raw), targets([5 * x for x in raw]), strict=True)
    )


def test_cosine_loss_is_that_of_the_whole_map() -> None:
    target, rebuilt = levels()[:1], levels(seed=1)[:1]
    flat = 1 - (target[0][0] * rebuilt[0][0]).sum() / (target[0][0].norm() * rebuilt[0][0].norm())
    other = 1 - (target[0][1] * rebuilt[0][1]).sum() / (target[0][1].norm() * rebuilt[0][1].norm())
    assert float(distillation_loss("cosine", target, rebuilt)) == pytest.approx(float((flat + other) / 2), abs=1e-5)
    assert error_maps("cosine", target, target)[0].abs().max() < 1e-5


def test_squared_error_is_averaged_over_channels_and_levels() -> None:
    zeros = [torch.zeros_like(x) for x in levels()]
    ones = [torch.ones_like(x) for x in levels()]
    assert float(distillation_loss("standardised", ones, zeros)) == pytest.approx(1.0)
    assert error_maps("standardised", ones, zeros)[1].shape == (2, 8, 8)
    assert float(error_maps("standardised", ones, zeros)[1].mean()) == pytest.approx(1.0)


def test_serving_form_scores_as_the_student_and_leaves_it_alone() -> None:
    student = Student(LITE0, "fusion", 64)
    for seed in range(3):  # give BatchNorm something to fold
        student.loss(levels(batch=4, size=64, seed=seed)).backward()
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    served = serving_form(student)
    student.eval()
    raw = levels(size=64, seed=9)
    assert torch.allclose(served.anomaly_maps(raw), student.anomaly_maps(raw), rtol=1e-3, atol=1e-5)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in served.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in student.state_dict().items())


def test_smoothing_keeps_a_constant_map() -> None:
    flat = [torch.full((1, side, side), 3.0) for side in (16, 8, 4)]
    maps = anomaly_maps(flat, [torch.ones(side, side) for side in (16, 8, 4)], torch.tensor([0.2, 0.3, 0.5]), 128)
    assert torch.allclose(maps, torch.full((1, 32, 32), 3.0), atol=1e-5)
    assert image_scores(maps).tolist() == pytest.approx([3.0], abs=1e-5)


def test_the_score_is_the_evidence_and_the_place_is_where_all_levels_agree() -> None:
    """A spot of level 1 alone is no defect; where all levels rise, the map has its maximum: that of the evidence."""
    one, two, three = torch.ones(1, 16, 16), torch.ones(1, 8, 8), torch.ones(1, 4, 4)
    one[0, 12:, 12:] = 40.0
    one[0, :4, :4], two[0, :2, :2], three[0, :1, :1] = 6.0, 6.0, 6.0
    weights = torch.tensor([0.0, 0.3, 0.7])
    ones = [torch.ones(side, side) for side in (16, 8, 4)]
    (anomaly,) = anomaly_maps([one, two, three], ones, weights, 128)
    row, column = divmod(int(anomaly.argmax()), 32)
    assert row < 8
    assert column < 8
    levels_LHW = level_maps([one, two, three], ones, 128)[0]
    assert float(anomaly.max()) == pytest.approx(float((levels_LHW * weights[:, None, None]).sum(0).max()), rel=1e-5)


def test_the_middle_level_counts_half_in_where_a_defect_is() -> None:
    """A level that doubles everywhere but on a far half doubles the map there to the power of its exponent."""
    flat = [torch.ones(1, 64, 64) for _ in range(3)]
    risen = []
    for level in range(3):
        errors = [error.clone() for error in flat]
        errors[level][:, :, 32:] = 2.0
        found = anomaly_maps(errors, [torch.ones(64, 64)] * 3, torch.tensor([0.0, 0.2, 0.8]), 256)
        risen.append(float(torch.log2(found[0, 32, -1] / found[0, 32, 0])))
    assert risen == pytest.approx([0.48, 0.24, 0.48], abs=1e-3)  # 1.2 times 2/5, 1/5, 2/5


def test_deep_levels_count_more_and_under_the_cosine_all_alike() -> None:
    assert level_importance("standardised", 3) == pytest.approx((0, 1 / 5, 4 / 5))
    assert level_importance("cosine", 3) == pytest.approx((1 / 3, 1 / 3, 1 / 3))


def test_places_that_are_always_hard_count_less() -> None:
    errors = torch.ones(16, 16)
    errors[:, 8:] = 4.0
    (share,) = place_shares([errors])
    assert float(share[8, 15] / share[8, 0]) == pytest.approx(2.0, abs=0.05)
    assert torch.allclose(place_shares([torch.full((8, 8), 7.0)])[0], torch.ones(8, 8), atol=1e-5)


def test_bfloat16_is_for_convolutions_alone() -> None:
    torch.manual_seed(0)
    student = Student(LITE0, size=64)
    good = levels(size=64)
    exact, rounded = student.loss(good), student.loss(good, precision=torch.bfloat16)
    assert rounded.dtype == torch.float32
    assert rounded.item() != exact.item()
    assert rounded.item() == pytest.approx(exact.item(), rel=0.02)


def test_the_serving_form_has_no_transposed_convolution() -> None:
    served = serving_form(Student(LITE0, size=64).eval())
    assert not any(isinstance(module, torch.nn.ConvTranspose2d) for module in served.modules())
