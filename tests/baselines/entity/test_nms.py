from __future__ import annotations

import numpy as np
import pytest
import torch

from entitybench.baselines.entity.nms import SURE_ROUNDS, box_ious, suppress


def greedy(boxes: np.ndarray, labels: np.ndarray, valid: np.ndarray, threshold: float) -> list[int]:
    """The obvious loop: take the best that is left, drop what shares too much with it."""
    kept: list[int] = []
    for i in range(len(boxes)):
        if not valid[i]:
            continue
        if all(labels[i] != labels[k] or iou(boxes[i], boxes[k]) <= threshold for k in kept):
            kept.append(i)
    return kept


def iou(a: np.ndarray, b: np.ndarray) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return float(shared / union)


@pytest.mark.parametrize("rounds", [0, SURE_ROUNDS])
def test_fixed_point_is_the_greedy_result(rounds: int) -> None:
    rng = np.random.default_rng(0)
    for _ in range(60):
        count = int(rng.integers(1, 60))
        low = rng.integers(0, 40, (2, count, 2))
        boxes = np.concatenate([low, low + rng.integers(1, 40, (2, count, 2))], -1).astype(float)
        labels = rng.integers(0, 2, (2, count))
        valid = rng.random((2, count)) < 0.9
        threshold = float(rng.choice([0.1, 0.3, 0.6]))
        keep = suppress(
            torch.tensor(boxes),
            torch.tensor(labels),
            torch.tensor(valid),
            threshold,
            rounds=rounds,
        )
        for image in range(2):
            expected = greedy(boxes[image], labels[image], valid[image], threshold)
            assert torch.nonzero(keep[image])[:, 0].tolist() == expected


def many_boxes(count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(1)
    low = rng.uniform(0, 100, (2, count, 2))
    boxes = np.concatenate([low, low + rng.uniform(5, 60, (2, count, 2))], -1)
    valid = rng.random((2, count)) < 0.9
    return torch.tensor(boxes), torch.tensor(rng.integers(0, 3, (2, count))), torch.tensor(valid)


def test_more_boxes_than_are_looked_at_together() -> None:
    boxes, labels, valid = many_boxes(700)
    keep = suppress(boxes, labels, valid, 0.4)
    for image in range(2):
        one = boxes[image].numpy(), labels[image].numpy(), valid[image].numpy()
        expected = greedy(*one, 0.4)
        assert torch.nonzero(keep[image])[:, 0].tolist() == expected
        assert len(expected) < 600


@pytest.mark.parametrize("most", [1, 20, 150, 10_000])
def test_the_best_are_the_same_where_the_rest_is_left_out(most: int) -> None:
    boxes, labels, valid = many_boxes(700)
    valid[0, 300:] = False  # an image that is done before the other
    every, best = (suppress(boxes, labels, valid, 0.4, most=m) for m in (None, most))
    assert not (best & ~every).any()
    for image in range(2):
        wanted = torch.nonzero(every[image])[:most, 0].tolist()
        assert torch.nonzero(best[image])[: len(wanted), 0].tolist() == wanted
    if most == 1:
        assert best.sum() < every.sum()  # it did stop


def test_a_chain_is_followed_to_its_end() -> None:
    # each box shares 9/11 with the next and 8/12 with the one after
    left = torch.arange(8.0)
    boxes = torch.stack([left, torch.zeros(8), left + 10, torch.ones(8)], dim=-1)[None]
    labels, valid = torch.zeros(1, 8, dtype=torch.int64), torch.ones(1, 8, dtype=torch.bool)
    assert suppress(boxes, labels, valid, 0.7).tolist() == [[True, False] * 4]


def test_ious_by_hand() -> None:
    boxes = torch.tensor([[0.0, 0, 4, 4], [2, 2, 6, 6], [5, 5, 5, 9]])
    ious = box_ious(boxes, boxes)
    assert ious[0, 1].item() == pytest.approx(4 / 28)
    assert ious[0, 2].item() == 0.0
    assert ious[2, 2].item() == 0.0  # an empty box
