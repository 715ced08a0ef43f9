"""Matching and candidates of models with queries, against slow definitions."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import pytest
import torch

from entitybench.baselines.entity.config import Backbone
from entitybench.baselines.queries import (
    Pairs,
    candidates_of,
    check_flavour,
    class_costs,
    classification_sum,
    dice_costs,
    enlarged,
    entropy_costs,
    find_weights,
    focal_costs,
    match,
    pixel_sums,
    smooth_dice,
)
from entitybench.errors import FormatError, MissingDataError


def test_the_matching_is_the_cheapest() -> None:
    costs = torch.rand(2, 3, 5, 4, generator=torch.Generator().manual_seed(0))
    present = torch.tensor([[True, True, False, True], [False] * 4, [True, False, False, False]])
    for layer, pairs in zip(costs, match(list(costs), present), strict=True):
        for image in range(3):
            own = pairs.image == image
            slots = present[image].nonzero()[:, 0].tolist()
            assert sorted(pairs.slot[own].tolist()) == slots
            assert len(set(pairs.query[own].tolist())) == len(slots)
            found = layer[image, pairs.query[own], pairs.slot[own]].sum()
            every = [
                sum(float(layer[image, q, s]) for q, s in zip(order, slots, strict=True))
                for order in permutations(range(5), len(slots))
            ]
            assert float(found) == pytest.approx(min(every), abs=1e-6)


def test_costs_that_are_no_numbers_are_taken_last() -> None:
    costs = torch.tensor([[[torch.nan, 1.0], [0.5, torch.inf], [2.0, 3.0]]])
    [pairs] = match([costs], torch.ones(1, 2, dtype=torch.bool))
    assert list(zip(pairs.query.tolist(), pairs.slot.tolist(), strict=True)) == [(0, 1), (1, 0)]


def test_more_entities_than_queries_leave_some_without() -> None:
    [pairs] = match([torch.rand(1, 2, 5)], torch.ones(1, 5, dtype=torch.bool))
    assert len(pairs.slot) == 2


def test_pairs_are_numbered_within_their_image() -> None:
    image = torch.tensor([0, 0, 2, 2, 2])
    assert Pairs(image, image, image).rank.tolist() == [0, 1, 0, 1, 2]
    assert Pairs(image[:0], image[:0], image[:0]).rank.tolist() == []


def test_costs_are_the_losses_of_each_pair() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(1, 3, 20, generator=generator)
    truth = (torch.rand(1, 2, 20, generator=generator) < 0.4).float()
    focal, dice = focal_costs(logits, truth), dice_costs(logits, truth)
    entropy = entropy_costs(logits, truth)
    for q in range(3):
        for g in range(2):
            x, t = logits[0, q], truth[0, g]
            pixels, own = pixel_sums(x.reshape(1, 4, 5), t.reshape(1, 4, 5))
            assert float(focal[0, q, g]) == pytest.approx(float(pixels), rel=1e-5)
            assert float(dice[0, q, g]) == pytest.approx(float(own), rel=1e-5)
            slow = torch.nn.functional.binary_cross_entropy_with_logits(x, t)
            assert float(entropy[0, q, g]) == pytest.approx(float(slow), rel=1e-5)


def test_dice_by_hand() -> None:
    # 2·(.5 + 1) + 1 over .5 + 1 + .5 + 2 + 1
    probability, truth = torch.tensor([0.5, 1.0, 0.5]), torch.tensor([1.0, 1.0, 0.0])
    assert float(smooth_dice(probability, truth)) == pytest.approx(1 - 4 / 5)


def test_classification_by_hand() -> None:
    logits = torch.tensor([[[2.0, 0.0, 1.0], [0.0, 3.0, 0.0]]])
    pairs = Pairs(torch.tensor([0]), torch.tensor([1]), torch.tensor([2]))
    labels = torch.tensor([[0, 0, 1]])
    log = logits.log_softmax(-1)[0]
    expected = -0.1 * log[0, 2] - log[1, 1]
    assert torch.isclose(classification_sum(logits, labels, pairs, 0.1), expected)
    costs = class_costs(logits, labels)
    assert torch.allclose(costs[0, 1], -log[1].exp()[[0, 0, 1]])


def test_candidates_are_sorted_and_labelled() -> None:
    logits = torch.tensor([[[0.0, 1.0, 5.0], [4.0, 0.0, 0.0], [0.0, 2.0, 0.0]]])
    masks = torch.full((1, 3, 4, 6), -3.0)
    masks[0, 1, 1:3, 2:5] = 3.0
    masks[0, 0, 3, 0] = 1.0
    found = candidates_of(logits, masks)
    assert found.labels.tolist() == [[0, 1, 1]]
    assert found.scores[0].tolist() == pytest.approx(
        [float(logits[0, q].softmax(0)[k]) for q, k in ((1, 0), (2, 1), (0, 1))]
    )
    assert found.boxes.tolist() == [[[8, 4, 20, 12], [0, 0, 0, 0], [0, 12, 4, 16]]]
    assert torch.allclose(found.masks[0, 0], masks[0, 1].sigmoid())
    assert (found.stride, found.first_cell) == (4, 1.5)


def test_no_mask_is_enlarged_to_no_mask() -> None:
    empty = torch.zeros(0, 4, 5, requires_grad=True)
    assert enlarged(empty, (16, 20)).shape == (0, 16, 20)
    assert enlarged(empty, (16, 20)).requires_grad


def test_files_of_other_pixels_are_refused(tmp_path: Path) -> None:
    check_flavour(tmp_path, Backbone(name="r50", stride_in_1x1=False, pixels="imagenet"))
    with pytest.raises(FormatError, match="other pixels or strides") as caught:
        check_flavour(tmp_path, Backbone(name="r50"))
    assert "backbone.pixels=imagenet" in caught.value.hint
    assert "backbone.stride_in_1x1=false" in caught.value.hint


def test_a_folder_holds_the_weights(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="no weights in"):
        find_weights(tmp_path)
    (tmp_path / "pytorch_model.bin").touch()
    assert find_weights(tmp_path).name == "pytorch_model.bin"
    (tmp_path / "model.safetensors").touch()
    assert find_weights(tmp_path).name == "model.safetensors"
    assert find_weights(tmp_path / "model.safetensors").name == "model.safetensors"
