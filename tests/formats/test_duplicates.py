"""Removing duplicates and flattening, against dense masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from entitybench.candidates import Candidates, OverlapPolicy, resolve
from entitybench.errors import FormatError
from entitybench.formats.detection import ReadOptions, open_predictions
from entitybench.formats.duplicates import (
    DuplicateRule,
    Duplicates,
    WithoutDuplicates,
    remove_duplicates,
    take,
)
from entitybench.formats.flattening import Flattening, flatten
from entitybench.formats.predictions import ImageSize

Masks = NDArray[np.bool_]


def random_masks(seed: int) -> tuple[Masks, NDArray[np.float64], NDArray[np.int64]]:
    """Rectangles, many nearly the same, with few different scores and classes."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((14, 12, 15), bool)
    for mask in masks:
        top, left = rng.integers(0, 4, 2)
        mask[top : top + rng.integers(1, 8), left : left + rng.integers(1, 9)] = True
    return masks, rng.integers(1, 8, 14) / 8, rng.integers(0, 3, 14)


def suppressed(
    masks: Masks, scores: NDArray[np.float64], labels: NDArray[np.int64], iou: float
) -> list[int]:
    """Greedy suppression as textbooks write it."""
    kept: list[int] = []
    for k in sorted(range(len(masks)), key=lambda k: (-scores[k], k)):
        for better in kept:
            shared, either = (masks[k] & masks[better]).sum(), (masks[k] | masks[better]).sum()
            if labels[k] == labels[better] and shared / either > iou:
                break
        else:
            kept.append(k)
    return sorted(kept)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("iou", [0.3, 0.6])
def test_as_a_textbook_does_it(seed: int, iou: float) -> None:
    masks, scores, labels = random_masks(seed)
    candidates = Candidates.from_masks(masks, scores)
    for rule, classes in (("per-class", labels), ("agnostic", np.zeros_like(labels))):
        done = remove_duplicates(candidates, Duplicates(DuplicateRule(rule), iou), labels)
        kept = suppressed(masks, scores, classes, iou)
        expected = Candidates.from_masks(masks[kept], scores[kept])
        np.testing.assert_array_equal(done.starts, expected.starts)
        np.testing.assert_array_equal(done.offsets, expected.offsets)
        np.testing.assert_array_equal(done.scores, expected.scores)


def test_an_iou_of_just_the_threshold_is_no_duplicate() -> None:
    half = Candidates.from_masks([[[1, 1, 0]], [[0, 1, 1]], [[1, 1, 0]]], [0.9, 0.8, 0.7])
    third = Duplicates(DuplicateRule.AGNOSTIC, 1 / 3)  # the first two have an IoU of 1/3
    assert remove_duplicates(half, third).scores.tolist() == [0.9, 0.8]


def test_what_was_dropped_drops_nobody() -> None:
    chain = Candidates.from_masks(
        [[[1, 1, 1, 1, 0, 0]], [[0, 1, 1, 1, 1, 0]], [[0, 0, 1, 1, 1, 1]]], [0.9, 0.8, 0.7]
    )
    done = remove_duplicates(chain, Duplicates(DuplicateRule.AGNOSTIC, 0.5))
    assert done.scores.tolist() == [0.9, 0.7]


def test_keep_keeps_and_nothing_is_nothing() -> None:
    masks, scores, _ = random_masks(0)
    candidates = Candidates.from_masks(masks, scores)
    assert remove_duplicates(candidates, Duplicates()) is candidates
    empty = Candidates.from_masks(np.zeros((0, 2, 2), bool), [])
    assert len(remove_duplicates(empty, Duplicates(DuplicateRule.AGNOSTIC))) == 0


def test_taking_masks_in_any_order_and_twice() -> None:
    masks, scores, _ = random_masks(1)
    order = np.array([3, 0, 3, 13])
    taken = take(Candidates.from_masks(masks, scores), order)
    expected = Candidates.from_masks(masks[order], scores[order])
    np.testing.assert_array_equal(taken.starts, expected.starts)
    np.testing.assert_array_equal(taken.ends, expected.ends)
    np.testing.assert_array_equal(taken.offsets, expected.offsets)
    np.testing.assert_array_equal(taken.scores, expected.scores)


def test_a_format_without_classes(tmp_path: Path) -> None:
    masks = np.array([[[1, 1]], [[1, 1]]], bool)
    np.savez(tmp_path / "139.npz", masks=masks, scores=[0.5, 0.75])

    def opened(rule: str) -> object:
        options = ReadOptions(duplicates=Duplicates(DuplicateRule(rule)))
        return open_predictions(tmp_path, image_ids=["139"], options=options)

    reader = opened("agnostic")
    assert isinstance(reader, WithoutDuplicates)
    assert reader.description == "mask stacks: 1 files"
    loaded = reader.load(ImageSize("139", 2, 1))
    assert isinstance(loaded, Candidates)
    assert loaded.scores.tolist() == [0.75]
    with pytest.raises(FormatError, match="per-class` needs classes: mask stacks"):
        opened("per-class")
    np.savez(tmp_path / "139.npz", ids=np.array([[1, 2]]), scores=[0.5, 0.75])
    flat = opened("agnostic")
    assert isinstance(flat, WithoutDuplicates)
    with pytest.raises(FormatError, match="no duplicates to remove"):
        flat.load(ImageSize("139", 2, 1))


# --- flattening ----------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("policy", Flattening)
def test_the_mask_on_top_by_definition(seed: int, policy: Flattening) -> None:
    masks, scores, _ = random_masks(seed)
    areas = masks.sum(axis=(1, 2))
    size = {"small-on-top": areas, "large-on-top": -areas}.get(policy, np.zeros_like(areas))
    best_first = sorted(range(len(masks)), key=lambda k: (size[k], -scores[k], k))
    owner = np.full(masks.shape[1:], -1)
    for k in best_first:
        owner[masks[k] & (owner < 0)] = k
    done = flatten(Candidates.from_masks(masks, scores), policy)
    kept = sorted(set(owner.ravel().tolist()) - {-1})
    assert done.kept.tolist() == kept
    assert done.num_emptied == len(masks) - len(kept)
    np.testing.assert_array_equal(done.scores, scores[kept])
    numbers = np.array([kept.index(k) + 1 if k >= 0 else 0 for k in owner.ravel()])
    np.testing.assert_array_equal(done.map.to_array().ravel(), numbers)


def test_score_on_top_is_the_rule_of_every_model() -> None:
    masks, scores, _ = random_masks(9)
    candidates = Candidates.from_masks(masks, scores)
    assert flatten(candidates).map == resolve(candidates, OverlapPolicy.RESOLVE).map


@pytest.mark.parametrize("policy", Flattening)
def test_no_mask_at_all(policy: Flattening) -> None:
    assert flatten(Candidates.from_masks(np.zeros((0, 1, 2)).astype(bool), []), policy).map.shape
