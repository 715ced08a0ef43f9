"""Boxes, RoIAlign, targets and fusion against slow, obvious versions."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from entitybench.baselines.panopticfpn.boxes import clip, decode, encode, make_anchors, pair_ious
from entitybench.baselines.panopticfpn.config import Inference, Proposals
from entitybench.baselines.panopticfpn.detection import BOX_SCALE, detect, propose
from entitybench.baselines.panopticfpn.fusion import paste, stuff_regions, visible_things
from entitybench.baselines.panopticfpn.roi_align import level_of, roi_align
from entitybench.baselines.panopticfpn.targets import (
    assign_anchors,
    assign_proposals,
    draw,
    mask_targets,
)


def random_boxes(shape: tuple[int, ...], size: float, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(*shape, 2, generator=generator) * size
    side = torch.rand(*shape, 2, generator=generator) * size * 0.6 + 1
    return torch.cat([corner, corner + side], -1)


def iou(first: list[float], second: list[float]) -> float:
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    shared = max(width, 0) * max(height, 0)
    areas = [max(b[2] - b[0], 0) * max(b[3] - b[1], 0) for b in (first, second)]
    return shared / (sum(areas) - shared) if shared else 0.0


# --- boxes ---------------------------------------------------------------------


def test_anchors_are_those_of_the_paper() -> None:
    """Area 32² on P2, ratios 1:2, 1:1 and 2:1, at the corners of the cells, as detectron2 has."""
    anchors = make_anchors(((2, 3), (1, 2)), 8.0, torch.device("cpu"))
    assert anchors.shape == ((6 + 2) * 3, 4)
    half, full = 16 * math.sqrt(2), 16 / math.sqrt(2)
    expected = [[-half, -full, half, full], [-16, -16, 16, 16], [-full, -half, full, half]]
    torch.testing.assert_close(anchors[:3], torch.tensor(expected))
    assert anchors[4].tolist() == [-12, -16, 20, 16]  # the next cell to the right
    assert anchors[10].tolist() == [-16, -12, 16, 20]  # the first cell of the second row
    assert anchors[22].tolist() == [-24, -32, 40, 32]  # second cell of P3


def test_ious_against_a_loop() -> None:
    first, second = random_boxes((2, 4), 20.0), random_boxes((2, 3), 20.0, 1)
    second[0, 1] = torch.tensor([5.0, 5.0, 5.0, 9.0])  # empty
    found = pair_ious(first, second)
    for b, n, m in itertools.product(range(2), range(4), range(3)):
        expected = iou(first[b, n].tolist(), second[b, m].tolist())
        assert float(found[b, n, m]) == pytest.approx(expected, abs=1e-6)


def test_changes_of_boxes() -> None:
    box = torch.tensor([10.0, 20.0, 30.0, 60.0])  # 20×40 around (20, 40)
    target = torch.tensor([15.0, 20.0, 55.0, 40.0])  # 40×20 around (35, 30)
    found = encode(box, target, BOX_SCALE)
    expected = [10 * 15 / 20, 10 * -10 / 40, 5 * math.log(2), 5 * math.log(0.5)]
    assert found.tolist() == pytest.approx(expected, abs=1e-5)
    torch.testing.assert_close(decode(box, found, BOX_SCALE), target)
    wild = decode(box, torch.tensor([0.0, 0.0, 1e9, 0.0]), (1.0, 1.0))
    assert float(wild[2] - wild[0]) == pytest.approx(20 * 1000 / 16)  # no overflow
    cut = clip(torch.tensor([[[-3.0, 5.0, 99.0, 99.0]]]), torch.tensor([[40, 50]]))
    assert cut.tolist() == [[[0, 5, 50, 40]]]


# --- RoIAlign ------------------------------------------------------------------


def slow_sample(features: Tensor, y: float, x: float) -> Tensor:
    """One bilinear sample of `(C, h, w)` features, whose cell i has its centre at i."""
    height, width = features.shape[1:]
    if y < -1 or y > height or x < -1 or x > width:
        return torch.zeros(features.shape[0])
    y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
    top, left = int(y), int(x)
    total = torch.zeros(features.shape[0])
    for row, column in itertools.product((top, top + 1), (left, left + 1)):
        weight = (1 - abs(y - row)) * (1 - abs(x - column))
        if weight > 0:
            total += weight * features[:, row, column]
    return total


def slow_roi_align(features: Tensor, box: list[float], stride: int, size: int) -> Tensor:
    x0, y0, x1, y1 = (value / stride - 0.5 for value in box)
    result = torch.zeros(features.shape[0], size, size)
    for i, j in itertools.product(range(size), range(size)):
        for a, b in itertools.product((0.25, 0.75), (0.25, 0.75)):
            y = y0 + (i + a) * (y1 - y0) / size
            x = x0 + (j + b) * (x1 - x0) / size
            result[:, i, j] += slow_sample(features, y, x) / 4
    return result


def test_roi_align_against_a_loop() -> None:
    torch.manual_seed(0)
    levels = [torch.randn(2, 3, 16 >> n, 24 >> n) for n in range(4)]
    boxes = random_boxes((2, 12), 60.0)
    boxes[0, 0] = torch.tensor([-40.0, -30.0, 20.0, 10.0])  # far outside
    boxes[0, 1] = torch.tensor([80.0, 50.0, 130.0, 90.0])
    boxes[0, 2] = torch.tensor([7.0, 9.0, 7.0, 9.0])  # a point
    boxes[0, 3] = torch.tensor([0.0, 0.0, 96.0, 64.0])
    level = torch.arange(24).reshape(2, 12) % 4
    found = roi_align(levels, boxes, level, 5)
    assert found.shape == (2, 12, 3, 5, 5)
    for b, r in itertools.product(range(2), range(12)):
        chosen = int(level[b, r])
        expected = slow_roi_align(levels[chosen][b], boxes[b, r].tolist(), 4 << chosen, 5)
        torch.testing.assert_close(found[b, r], expected, rtol=1e-4, atol=1e-5)


def test_roi_align_reads_a_ramp_where_it_lies() -> None:
    """Cells at (i + 1/2)·stride of a linear map: the mean over a box is the value at its centre."""
    x = (torch.arange(12) + 0.5) * 4
    levels = [x.expand(1, 1, 10, 12)]
    found = roi_align(
        levels, torch.tensor([[[10.0, 8.0, 30.0, 28.0]]]), torch.zeros(1, 1).long(), 4
    )
    torch.testing.assert_close(found[0, 0, 0, 0], torch.tensor([12.5, 17.5, 22.5, 27.5]))


def test_gradients_flow_back_to_the_samples() -> None:
    torch.manual_seed(0)
    levels = [torch.randn(1, 2, 6, 6, dtype=torch.float32, requires_grad=True)]
    boxes = torch.tensor([[[3.0, 5.0, 17.0, 20.0]]])
    torch.autograd.backward(roi_align(levels, boxes, torch.zeros(1, 1).long(), 2).sum())
    gradient = levels[0].grad
    assert gradient is not None
    assert float(gradient.sum()) == pytest.approx(
        2 * 2 * 2, abs=1e-5
    )  # each cell's weights sum to 1
    assert float(gradient[0, 0, 5, 5]) == 0


def test_levels_of_boxes() -> None:
    sides = torch.tensor([1.0, 111.0, 112.0, 223.0, 224.0, 447.0, 448.0, 2000.0])
    boxes = torch.stack([torch.zeros(8), torch.zeros(8), sides, sides], -1)
    assert level_of(boxes, 224.0, 4).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


# --- targets -------------------------------------------------------------------


def test_anchors_against_a_loop() -> None:
    anchors, boxes = random_boxes((40,), 30.0), random_boxes((2, 4), 30.0, 7)
    wanted = torch.tensor([[True, True, False, True], [False, False, False, False]])
    entity, positive, negative = assign_anchors(anchors, boxes, wanted, 0.5, 0.2)
    for b in range(2):
        there = [g for g in range(4) if wanted[b, g]]
        table = [[iou(a.tolist(), boxes[b, g].tolist()) for g in there] for a in anchors]
        for n in range(40):
            best = max(table[n], default=0.0)
            is_best = any(
                table[n][k] > 0 and table[n][k] == max(row[k] for row in table)
                for k in range(len(there))
            )
            assert bool(positive[b, n]) == (best >= 0.5 or is_best)
            assert bool(negative[b, n]) == (best < 0.2 and not is_best)
            if positive[b, n]:
                assert int(entity[b, n]) == there[int(np.argmax(table[n]))]


def test_without_slots_everything_is_background() -> None:
    boxes, wanted = torch.zeros(2, 0, 4), torch.zeros(2, 0, dtype=torch.bool)
    _, positive, negative = assign_anchors(random_boxes((5,), 9.0), boxes, wanted, 0.5, 0.2)
    assert not positive.any()
    assert negative.all()


def test_proposals_that_are_empty_or_unused_are_neither() -> None:
    proposals = torch.tensor([[[0.0, 0, 8, 8], [0, 0, 8, 8], [4, 4, 4, 4], [50, 50, 60, 60]]])
    valid = torch.tensor([[True, False, True, True]])
    boxes, wanted = torch.tensor([[[0.0, 0, 8, 10]]]), torch.ones(1, 1, dtype=torch.bool)
    entity, positive, negative = assign_proposals(proposals, valid, boxes, wanted, 0.5)
    assert positive.tolist() == [[True, False, False, False]]
    assert negative.tolist() == [[False, False, False, True]]
    assert int(entity[0, 0]) == 0


def test_what_is_drawn() -> None:
    positive, negative = torch.zeros(3, 50).bool(), torch.zeros(3, 50).bool()
    positive[0, :30], negative[0, 30:] = True, True
    positive[1, :2], negative[1, 10:] = True, True
    seeds = torch.tensor([5, 6, 7])
    drawn = draw(positive, negative, seeds, 16, 0.25)
    assert drawn.slots == 4
    for b, (fore, back) in enumerate([(4, 12), (2, 14), (0, 0)]):
        used = drawn.place[b][drawn.valid[b]].tolist()
        assert len(set(used)) == len(used) == fore + back
        assert int(drawn.positive[b].sum()) == fore
        assert positive[b][drawn.place[b][drawn.positive[b]]].all()
        assert negative[b][drawn.place[b][drawn.valid[b] & ~drawn.positive[b]]].all()
    assert not drawn.positive[:, 4:].any()
    again = draw(positive[:1], negative[:1], seeds[:1], 16, 0.25)
    assert torch.equal(again.place[0], drawn.place[0])  # whatever else is in the batch
    other = draw(positive[:1], negative[:1], seeds[1:2], 16, 0.25)
    assert not torch.equal(other.place[0], drawn.place[0])


def test_masks_inside_boxes() -> None:
    ids = torch.zeros(1, 12, 16, dtype=torch.int64)
    ids[0, 2:10, 4:12] = 2
    boxes = torch.tensor(
        [[[4.0, 2.0, 12.0, 10.0], [0.0, 0.0, 16.0, 12.0], [10.0, 8.0, 30.0, 30.0]]]
    )
    found = mask_targets(ids, boxes, torch.ones(1, 3, dtype=torch.int64), 4)
    assert found[0, 0].all()
    expected = [[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 1, 1, 0]]
    # rows at 1.5, 4.5, 7.5 and 10.5; columns at 2, 6, 10 and 14
    expected[3] = [0, 0, 0, 0]
    assert found[0, 1].tolist() == expected
    assert not found[0, 2].any()  # 12.5 and 10.75 on: past the mask, clamped at the border
    assert not mask_targets(ids, boxes, torch.zeros(1, 3, dtype=torch.int64), 4).any()


# --- detection -----------------------------------------------------------------


def slow_greedy(
    order: list[int], boxes: list[list[float]], labels: list[int], most: float
) -> list[int]:
    kept: list[int] = []
    for n in order:
        if all(labels[n] != labels[k] or iou(boxes[n], boxes[k]) <= most for k in kept):
            kept.append(n)
    return kept


def test_proposals_against_a_loop() -> None:
    torch.manual_seed(0)
    anchors = random_boxes((30,), 40.0)
    logits, changes = torch.randn(2, 30), torch.randn(2, 30, 4) * 0.3
    sizes = torch.tensor([[40, 50], [30, 30]])
    config = Proposals(per_level=12, per_level_test=8, nms_iou=0.5, kept=9)
    for training, most in ((True, 12), (False, 8)):
        found, valid = propose(logits, changes, anchors, [20, 10], sizes, config, training=training)
        for b in range(2):
            decoded = clip(decode(anchors, changes, (1.0, 1.0)), sizes)[b].tolist()
            kept: list[int] = []
            for first, last in ((0, 20), (20, 30)):
                order = sorted(range(first, last), key=lambda n: -float(logits[b, n]))[:most]
                order = [
                    n
                    for n in order
                    if decoded[n][2] > decoded[n][0] and decoded[n][3] > decoded[n][1]
                ]
                kept += slow_greedy(order, decoded, [0] * 30, 0.5)
            kept = sorted(kept, key=lambda n: -float(logits[b, n]))[:9]
            assert int(valid[b].sum()) == len(kept)
            torch.testing.assert_close(found[b][valid[b]], torch.tensor([decoded[n] for n in kept]))


def test_detections_against_a_loop() -> None:
    torch.manual_seed(0)
    proposals = random_boxes((1, 15), 40.0)
    logits, changes = torch.randn(1, 15, 4), torch.randn(1, 15, 3, 4) * 0.5
    valid = torch.ones(1, 15, dtype=torch.bool)
    valid[0, 3] = False
    sizes = torch.tensor([[60, 60]])
    config = Inference(threshold=0.2, nms_iou=0.3, most=8)
    found = detect(logits, changes, proposals, valid, sizes, config)
    scores, boxes, labels = [], [], []
    for n, c in itertools.product(range(15), range(3)):
        score = float(logits[0, n].softmax(0)[c])
        box = clip(decode(proposals[:, n], changes[:, n, c], BOX_SCALE)[None], sizes)[0, 0].tolist()
        usable = score > 0.2 and n != 3 and box[2] > box[0] and box[3] > box[1]
        scores.append(score if usable else -1.0)
        boxes.append(box)
        labels.append(c)
    order = sorted((k for k in range(45) if scores[k] > 0), key=lambda k: -scores[k])
    kept = slow_greedy(order, boxes, labels, 0.3)[:8]
    assert 0 < len(kept) < len(order)
    used = found.valid[0]
    assert found.scores[0][used].tolist() == pytest.approx([scores[k] for k in kept])
    assert found.labels[0][used].tolist() == [labels[k] for k in kept]
    torch.testing.assert_close(found.boxes[0][used], torch.tensor([boxes[k] for k in kept]))


def test_no_detection_is_one_unused_slot() -> None:
    config = Inference(threshold=1.0)
    arguments = (torch.zeros(2, 5, 3), torch.zeros(2, 5, 2, 4), random_boxes((2, 5), 9.0))
    found = detect(*arguments, torch.ones(2, 5).bool(), torch.tensor([[20, 20]] * 2), config)
    assert found.valid.tolist() == [[False], [False]]
    assert found.scores.tolist() == [[0.0], [0.0]]


# --- fusion --------------------------------------------------------------------


def test_masks_are_pasted_into_their_boxes() -> None:
    torch.manual_seed(0)
    masks, boxes = torch.rand(1, 3, 7, 7), random_boxes((1, 3), 30.0)
    found = paste(masks, boxes, 10, 12, 4)
    for k, i, j in itertools.product(range(3), range(10), range(12)):
        x0, y0, x1, y1 = boxes[0, k].tolist()
        # a mask's cell c has its centre at (c + 1/2) / 7 of the side; zeros lie around the mask
        y = (4 * i + 2.5 - y0) / (y1 - y0) * 7 - 0.5
        x = (4 * j + 2.5 - x0) / (x1 - x0) * 7 - 0.5
        padded = torch.nn.functional.pad(masks[0, k], (1, 1, 1, 1))
        expected = 0.0
        if -1 < y < 7 and -1 < x < 7:
            expected = float(slow_sample(padded[None], y + 1, x + 1)[0])
        assert float(found[0, k, i, j]) == pytest.approx(expected, abs=1e-5)


def test_hidden_things_are_dropped_in_order() -> None:
    masks = torch.zeros(1, 5, 4, 10, dtype=torch.bool)
    masks[0, 0, :, :4] = True
    masks[0, 1, :, 2:5] = True  # two of its three columns are taken
    masks[0, 2, :, 2:6] = True  # exactly half: stays
    masks[0, 4, :, 5:9] = True  # a quarter
    valid = torch.ones(1, 5, dtype=torch.bool)
    assert visible_things(masks, valid, 0.5).tolist() == [[True, False, True, False, True]]
    valid[0, 0] = False
    assert visible_things(masks, valid, 0.5).tolist() == [[False, True, False, False, True]]


def test_stuff_takes_what_is_left_over() -> None:
    logits = torch.full((1, 3, 4, 8), -5.0)
    logits[0, 1, :, :5] = 5.0  # the first stuff class
    logits[0, 2, :1, 5:7] = 5.0  # the second: two cells
    logits[0, 0, 1:, 5:] = 5.0  # things
    taken = torch.zeros(1, 4, 8, dtype=torch.bool)
    taken[0, :, :2] = True
    inside = torch.ones(1, 4, 8, dtype=torch.bool)
    inside[0, 3] = False
    config = Inference(stuff_area=640 * 480 / 10)  # a tenth of the image: 2.4 cells
    regions, scores, enough = stuff_regions(logits, taken, inside, 4, config)
    expected = torch.zeros(4, 8, dtype=torch.bool)
    expected[:3, 2:5] = True
    assert torch.equal(regions[0, 0], expected)
    assert enough.tolist() == [[True, False]]
    sure = math.exp(5) / (math.exp(5) + 2 * math.exp(-5))
    assert float(scores[0, 0]) == pytest.approx(sure, rel=1e-5)
    _, _, all_enough = stuff_regions(logits, taken, inside, 4, Inference(stuff_area=0.0))
    assert all_enough.tolist() == [[True, True]]
