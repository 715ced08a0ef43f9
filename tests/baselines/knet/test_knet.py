from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from entitybench.baselines.batch import Batch
from entitybench.baselines.configuration import load_config, named_configs
from entitybench.baselines.knet.config import Bank, KNetConfig, Losses
from entitybench.baselines.knet.features import sine_positions
from entitybench.baselines.knet.matching import class_cost, mask_cost, match
from entitybench.baselines.knet.model import FAMILY, KNet, _overlap_sum, mask_boxes
from entitybench.baselines.knet.update import (
    PRIOR_LOGIT,
    AdaptiveUpdate,
    StaticKernels,
    gather_features,
)
from entitybench.baselines.model import Classes
from entitybench.errors import FormatError

COCO = Classes(tuple(str(n) for n in range(133)), (True,) * 80 + (False,) * 53)
MIXED = Classes(("sky", "dog", "sea", "cat"), (False, True, False, True))
LAST = Classes(("dog", "cat", "sea", "sky"), (True, True, False, False))
SMALL = ("backbone.name=tiny", "kernels.channels=32", "kernels.queries=6",
         "kernels.feedforward=16", "kernels.heads=4", "backbone.frozen_stages=0")  # fmt: skip

MakeBatch = Callable[..., Batch]


def build(name: str, classes: Classes | None = None, *changes: str) -> KNet:
    torch.manual_seed(0)
    config = load_config(KNetConfig, FAMILY.package, name, changes)
    return KNet(config, classes or Classes())


def scenes(make_batch: MakeBatch, labels: list[list[int]] | None = None) -> Batch:
    """Three entities in the first image, two in the second; some void."""
    ids = torch.zeros(2, 64, 64, dtype=torch.int64)
    ids[:, 4:40, 8:60] = 1
    ids[:, 44:60, :50] = 2
    ids[0, 10:30, 20:40] = 3
    batch = make_batch(ids)
    return replace(batch, labels=torch.tensor(labels or [[0, 0, 0], [0, 0, 0]]))


# --- the architecture ----------------------------------------------------------


def test_parameter_counts_of_the_released_panoptic_model() -> None:
    """Counted by hand from the released configuration: 133 classes, 100 kernels, 3 updates."""
    with torch.device("meta"):
        model = build("knet_r50_1x_specific", COCO)
    c, k = 256, 133
    unit3, unit1 = c * c * 9 + 2 * c, c * c + 2 * c  # a convolution without bias, a group norm
    linear, norm = c * c + c, 2 * c
    semantic = (1 + 1 + 2 + 3) * unit3 + 4 * unit1
    gates = 2 * (2 * linear) + 3 * linear + 5 * norm
    attention = 4 * linear + norm
    forward = c * 2048 + 2048 + 2048 * c + c + norm
    hidden = 2 * (c * c + norm)
    update = linear + gates + attention + forward + hidden + (k * c + k) + linear
    assert update == 2_076_037
    counted = sum(p.numel() for p in model.parameters())
    body = sum(p.numel() for p in model.backbone.parameters())
    laterals = sum(c * width + c for width in (256, 512, 1024, 2048))
    pyramid = laterals + 4 * (c * c * 9 + c)
    head = semantic + 100 * c + (k * c + k) + 3 * update
    assert head == 10_684_436
    assert counted == body + pyramid + head == 37_536_852
    assert body == 23_508_032  # torchvision's resnet50 of 25,557,032 without its classifier


def test_flops_of_the_decoder_at_800_pixels() -> None:
    """What follows the pyramid, in multiply-adds; convolutions alone are counted by hand."""
    with torch.device("meta"):
        model = build("knet_r50_1x").eval()
    pixels = torch.empty(1, 3, 800, 800, device="meta")
    counter = FlopCounterMode(display=False)
    pyramid = model.pyramid(model.backbone(pixels))
    with counter, torch.no_grad():
        model.features(pyramid)
    cells = 100 * 100
    three = 256 * 256 * 9
    levels = {
        "P2": three * cells,
        "P3": three * cells,
        "P4": three * (2500 + cells),
        "P5": three * (625 + 2500 + cells),
    }
    total = sum(levels.values()) + 4 * 65_536 * cells
    assert counter.get_total_flops() == 2 * total
    with FlopCounterMode(display=False) as whole, torch.no_grad():
        model.dense(pixels)
    assert whole.get_total_flops() / 2e9 == pytest.approx(52.13 + 36.25 + 34.15, abs=0.02)


def test_the_gates_of_the_adaptive_update() -> None:
    torch.manual_seed(1)
    update = AdaptiveUpdate(4)
    for norm in (m for m in update.modules() if isinstance(m, nn.LayerNorm)):
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    feature, kernel = torch.randn(4), torch.randn(4)

    def normed(layer: nn.LayerNorm, x: Tensor) -> Tensor:
        centred = x - x.mean()
        return centred / (centred.square().mean() + layer.eps).sqrt() * layer.weight + layer.bias

    f = update.of_features.weight @ feature + update.of_features.bias
    k = update.of_kernels.weight @ kernel + update.of_kernels.bias
    both = f[:4] * k[:4]
    f_gate = torch.sigmoid(normed(update.feature_gate_norm, update.feature_gate(both)))
    k_gate = torch.sigmoid(normed(update.kernel_gate_norm, update.kernel_gate(both)))
    mixed = f_gate * normed(update.feature_norm, f[4:]) + k_gate * normed(update.kernel_norm, k[4:])
    expected = normed(update.out_norm, update.out(mixed)).clamp(min=0)
    found = update(feature.expand(1, 1, 4), kernel.expand(1, 1, 4))[0, 0]
    torch.testing.assert_close(found, expected)


def test_features_are_added_up_inside_each_mask() -> None:
    masks, features = torch.randn(2, 3, 4, 5), torch.randn(2, 6, 4, 5)
    expected = torch.zeros(2, 3, 6)
    for b, n, y, x in itertools.product(range(2), range(3), range(4), range(5)):
        if masks[b, n, y, x].sigmoid() > 0.5:
            expected[b, n] += features[b, :, y, x]
    torch.testing.assert_close(gather_features(masks, features), expected)


def test_positions_are_sines_of_y_then_x() -> None:
    found = sine_positions(torch.zeros(1, 8, 3, 5))
    assert found.shape == (8, 3, 5)
    y = 2 / (3 + 1e-6) * 2 * np.pi  # row 1, counted from 1
    x = 4 / (5 + 1e-6) * 2 * np.pi  # column 3
    assert float(found[0, 1, 3]) == pytest.approx(np.sin(y), abs=1e-5)
    assert float(found[1, 1, 3]) == pytest.approx(np.cos(y), abs=1e-5)
    assert float(found[2, 1, 3]) == pytest.approx(np.sin(y / 100), abs=1e-5)  # 10000 ** (2 / 4)
    assert float(found[5, 1, 3]) == pytest.approx(np.cos(x), abs=1e-5)


def test_the_static_paths_of_the_bank() -> None:
    """Static last: every channel times the kernel, then a 3×3 convolution to one channel."""
    torch.manual_seed(0)
    bank = StaticKernels(4, Bank(static_first=0.25, static_last=1.0))
    features, kernels = torch.randn(1, 4, 6, 5), torch.randn(1, 3, 4)
    found = bank(features, kernels)
    first, last = bank.layers["static_first"], bank.layers["static_last"]
    assert isinstance(first, nn.Conv2d)
    assert isinstance(last, nn.Conv2d)
    for n in range(3):
        product = features * kernels[0, n][:, None, None]
        expected = functional.conv2d(product, last.weight.transpose(0, 1), padding=1)
        torch.testing.assert_close(found["static_last"][:, n], expected[:, 0])
        shared = functional.relu(functional.conv2d(features, first.weight, first.bias, padding=1))
        expected = functional.conv2d(shared, kernels[0, n][None, :, None, None])
        torch.testing.assert_close(found["static_first"][:, n], expected[:, 0])


def test_the_bank_costs_nothing_at_prediction(make_batch: MakeBatch) -> None:
    plain, banked = build("tiny", None, *SMALL).eval(), build("tiny_bank", None, *SMALL).eval()
    banked.load_state_dict(plain.state_dict(), strict=False)
    images = scenes(make_batch).images
    assert torch.equal(plain.candidates(images).masks, banked.candidates(images).masks)
    with FlopCounterMode(display=False) as one:
        plain.dense(torch.zeros(1, 3, 64, 64))
    with FlopCounterMode(display=False) as other:
        banked.dense(torch.zeros(1, 3, 64, 64))
    assert one.get_total_flops() == other.get_total_flops()


# --- matching ------------------------------------------------------------------


def test_matching_is_the_cheapest_of_all() -> None:
    generator = torch.Generator().manual_seed(3)
    cost = torch.randn(4, 5, 4, generator=generator)
    wanted = torch.tensor([[1, 1, 1, 1], [0, 1, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0]]).bool()
    found = match(cost, wanted)
    for table, row, there in zip(cost, found, wanted, strict=True):
        slots = there.nonzero()[:, 0].tolist()
        best = min(
            (float(sum(table[n, g] for n, g in zip(order, slots, strict=True))), order)
            for order in itertools.permutations(range(5), len(slots))
        )[1]
        expected = torch.full((5,), -1)
        for n, g in zip(best, slots, strict=True):
            expected[n] = g
        assert torch.equal(row, expected)


def test_with_more_entities_than_kernels_the_dearest_are_left() -> None:
    cost = torch.tensor([[[3.0, 0.0, 1.0], [3.0, 1.0, 0.0]]])
    assert match(cost, torch.ones(1, 3, dtype=torch.bool)).tolist() == [[1, 2]]


def test_matching_survives_numbers_that_are_none() -> None:
    cost = torch.tensor([[[torch.nan, 0.0], [1.0, torch.inf]]])
    assert match(cost, torch.ones(1, 2, dtype=torch.bool)).tolist() == [[1, 0]]


def test_costs_against_loops() -> None:
    torch.manual_seed(0)
    weights = Losses(entityness=2.0, mask=1.5, dice=4.0)
    logits, truth = torch.randn(1, 3, 4, 4), (torch.rand(1, 2, 4, 4) > 0.5).float()
    classes, labels = torch.randn(1, 3, 5), torch.tensor([[4, 1]])
    masks, names = mask_cost(logits, truth, weights), class_cost(classes, labels, weights)
    for n, g in itertools.product(range(3), range(2)):
        p, t = logits[0, n].sigmoid(), truth[0, g]
        agree = (p * t + (1 - p) * (1 - t)).mean()
        dice = 2 * (p * t).sum() / (p.square().sum() + t.sum() + 2e-3)
        assert float(masks[0, n, g]) == pytest.approx(float(-1.5 * agree - 4 * dice), rel=1e-5)
        q = classes[0, n, int(labels[0, g])].sigmoid()
        positive = -0.25 * (1 - q) ** 2 * q.log()
        negative = -0.75 * q**2 * (1 - q).log()
        assert float(names[0, n, g]) == pytest.approx(float(2 * (positive - negative)), rel=1e-4)


# --- losses --------------------------------------------------------------------


def slow_losses(model: KNet, batch: Batch) -> dict[str, float]:
    """All losses with loops over images, kernels and classes, as the released code states them."""
    config = model.config.losses
    outputs = model.dense(model.normalised(batch.images))
    targets = model.targets(batch)
    matched = model.matches(outputs.stages, targets)
    things = [c for c, kind in enumerate(model.classes.things or (True,)) if kind]
    stuff = [c for c in range(model.classes.count) if c not in things]
    queries, stride = model.config.kernels.queries, model.mask_stride
    ids = batch.ids[:, stride // 2 :: stride, stride // 2 :: stride]
    total = {"mask": 0.0, "dice": 0.0, "rank": 0.0, "entityness": 0.0}
    for number, (stage, slots) in enumerate(zip(outputs.stages, matched, strict=True)):
        pairs: list[tuple[Tensor, Tensor]] = []  # logits and truth of matched kernels
        focal, rank, owned = 0.0, 0.0, 0
        for b in range(len(ids)):
            logits = functional.interpolate(
                stage.masks[b : b + 1], scale_factor=2, mode="bilinear", align_corners=False
            )[0]
            truth: dict[int, Tensor] = {}
            for n in range(queries):
                if slots[b, n] >= 0:
                    truth[n] = ids[b] == slots[b, n] + 1
            if number:
                for place, c in enumerate(stuff):
                    union = torch.zeros_like(ids[b], dtype=torch.bool)
                    for g in range(batch.num_slots):
                        if int(batch.labels[b, g]) == c:
                            union |= ids[b] == g + 1
                    if union.any():
                        truth[queries + place] = union
            pairs += [(logits[n], mask) for n, mask in truth.items()]
            seen = logits if number else logits[:queries]
            for y, x in itertools.product(*map(range, ids[b].shape)):
                owner = [n for n, mask in truth.items() if mask[y, x]]
                if owner:
                    rank -= float(seen[:, y, x].log_softmax(0)[owner[0]])
                    owned += 1
            if number:
                for n in range(queries + len(stuff)):
                    own = things if n < queries else [stuff[n - queries]]
                    for c in own:
                        p = float(stage.classes[b, n, c].sigmoid())
                        if n < queries:
                            hit = n in truth and (
                                not model.classes or int(batch.labels[b, slots[b, n]]) == c
                            )
                        else:
                            hit = n in truth
                        focal -= (
                            0.25 * (1 - p) ** 2 * np.log(p) if hit else 0.75 * p**2 * np.log(1 - p)
                        )
        count = max(len(pairs), 1)
        for logit, mask in pairs:
            chance, t = logit.sigmoid(), mask.float()
            entropy = functional.binary_cross_entropy(chance, t)
            total_area = chance.square().sum() + t.sum() + 1e-5
            dice = 1 - 2 * (chance * t).sum() / total_area
            total["mask"] += config.mask * float(entropy) / count
            total["dice"] += config.dice * float(dice) / count
        total["rank"] += config.rank * rank / max(owned, 1)
        total["entityness"] += config.entityness * focal / count
    return total


@pytest.mark.parametrize("classes", [Classes(), MIXED, LAST], ids=["agnostic", "mixed", "last"])
def test_losses_against_loops(classes: Classes, make_batch: MakeBatch) -> None:
    model = build("knet_r50_1x", classes, *SMALL, "kernels.initial_deviation=0.1").train()
    for stage in model.updates:  # away from the prior, where all classes are unlikely
        nn.init.normal_(stage.classes.bias)  # type: ignore[union-attr, arg-type]
    labels = [[0, 1, 3], [2, 2, 0]] if classes else None  # two regions of one stuff class
    batch = scenes(make_batch, labels)
    model.backbone.eval()
    with torch.no_grad():
        found = model.losses(batch)
        expected = slow_losses(model, batch)
    assert set(found) == {*expected, "semantic"}
    for name, value in expected.items():
        assert float(found[name]) == pytest.approx(value, rel=1e-4), name


def test_the_semantic_loss_against_a_loop(make_batch: MakeBatch) -> None:
    model = build("tiny_specific", MIXED, *SMALL)
    batch = scenes(make_batch, [[0, 1, 3], [2, 2, 0]])
    targets = model.targets(batch)
    logits = torch.randn(2, 4, 16, 16)
    enlarged = functional.interpolate(logits, scale_factor=2, mode="bilinear")
    total, count = 0.0, 0
    for b, y, x in itertools.product(range(2), range(32), range(32)):
        entity = int(batch.ids[b, 2 * y + 1, 2 * x + 1])
        label = int(batch.labels[b, entity - 1]) if entity else -1
        count += entity > 0
        for c in range(4):
            p = float(enlarged[b, c, y, x].sigmoid())
            hit = c == label
            total -= 0.25 * (1 - p) ** 2 * np.log(p) if hit else 0.75 * p**2 * np.log(1 - p)
    found = model._semantic_loss(logits, targets)
    assert float(found) == pytest.approx(total / count, rel=1e-4)


def test_each_update_is_matched_by_the_stage_before(make_batch: MakeBatch) -> None:
    model = build("tiny", None, *SMALL).train()
    batch = scenes(make_batch)
    targets = model.targets(batch)
    stages = model.dense(model.normalised(batch.images)).stages
    found = model.matches(stages, targets)
    assert len(found) == len(stages) == 4
    assert torch.equal(found[0], found[1])  # by the initial masks
    for image, entities in enumerate((3, 2)):
        assert [int((slots[image] >= 0).sum()) for slots in found] == [entities] * 4


def test_overlap_suppression_rewards_masks_that_do_not_overlap(make_batch: MakeBatch) -> None:
    model = build("tiny_overlap", None, *SMALL)
    batch = scenes(make_batch)
    targets = model.targets(batch)
    slots = torch.tensor([[0, 1, 2, -1, -1, -1], [0, 1, -1, -1, -1, -1]])
    truth, there = model._truth(slots, targets, with_stuff=True)
    apart = _overlap_sum(20 * truth - 10, truth, there, "softmax")
    overlapping = (20 * truth - 10).clone()
    overlapping[0, 0] = 10.0  # the first entity claims every pixel
    assert float(apart) < 0.01
    assert float(_overlap_sum(overlapping, truth, there, "softmax")) > 0.3
    # unlike Dice of each mask alone, it does not mind a claim on what belongs to nobody
    nobody = (20 * truth - 10).clone()
    nobody[0, 0][~truth[0].any(0)] = 10.0
    assert float(_overlap_sum(nobody, truth, there, "softmax")) < 0.01


@pytest.mark.parametrize("name", [n for n in named_configs(FAMILY.package) if "r18" not in n])
def test_every_parameter_is_trained(name: str, make_batch: MakeBatch) -> None:
    classes = MIXED if name.endswith("_specific") else Classes()
    model = build(name, classes, *SMALL).train()
    terms = model(scenes(make_batch, [[0, 1, 3], [2, 2, 0]] if classes else None))
    torch.autograd.backward(torch.stack(list(terms.values())).sum())
    idle = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert idle == []
    dead = [
        n for n, p in model.named_parameters()
        if n.startswith(("updates", "initial", "semantic")) and not p.grad.abs().sum()  # type: ignore[union-attr]
    ]  # fmt: skip
    assert dead == []
    assert ("overlap" in terms) == name.endswith(("_overlap", "_both"))
    assert ("static_last" in terms) == name.endswith(("_bank", "_both"))


# --- prediction ----------------------------------------------------------------


def test_queries_are_called_things_and_stuff_kernels_their_own_class(
    make_batch: MakeBatch,
) -> None:
    model = build("tiny_specific", MIXED, *SMALL).eval()
    found = model.candidates(scenes(make_batch).images)
    assert found.scores.shape == (2, 6 + 2)
    for labels in found.labels:
        assert sorted(c for c in labels.tolist() if c in (0, 2)) == [0, 2]
    probabilities = torch.rand(1, 8, 4)
    scores, labels = model._scores(probabilities)
    for n in range(6):
        best = max((1, 3), key=lambda c: float(probabilities[0, n, c]))
        assert int(labels[0, n]) == best
        assert scores[0, n] == probabilities[0, n, best]
    assert labels[0, 6:].tolist() == [0, 2]
    assert scores[0, 6:].tolist() == [probabilities[0, 6, 0], probabilities[0, 7, 2]]


def test_untrained_scores_are_low(make_batch: MakeBatch) -> None:
    model = build("tiny", None, *SMALL).eval()
    scores = model.candidates(scenes(make_batch).images).scores
    assert float(scores.median()) == pytest.approx(1 / (1 + np.exp(-PRIOR_LOGIT)), abs=0.15)


def test_boxes_of_masks() -> None:
    masks = torch.zeros(3, 5, 7, dtype=torch.bool)
    masks[0, 1:3, 2:6] = True
    masks[1, 4, 0] = True
    assert mask_boxes(masks).tolist() == [[2, 1, 6, 3], [0, 4, 1, 5], [0, 0, 0, 0]]


def test_classes_without_a_thing_are_refused() -> None:
    config = load_config(KNetConfig, FAMILY.package, "tiny_specific")
    with pytest.raises(FormatError, match="none of the classes"):
        FAMILY.build(config, Classes(("sky",), (False,)))
