"""Greedy non-maximum suppression as a fixed point of matrix products."""

from __future__ import annotations

import torch
from torch import Tensor

SURE_ROUNDS = 32  # chains of suppressors that long do not occur among real boxes
_BLOCK = 256  # boxes whose IoUs with a few thousand others still lie in a cache


def box_ious(boxes: Tensor, others: Tensor) -> Tensor:
    """Return `(..., N, M)` IoUs of `(..., N, 4)` and `(..., M, 4)` boxes x0, y0, x1, y1.

    An empty box has 0 with every other.
    """
    shared = _shared(boxes[..., 0::2], others[..., 0::2])
    shared *= _shared(boxes[..., 1::2], others[..., 1::2])
    union = _areas(boxes)[..., :, None] + _areas(others)[..., None, :]
    union -= shared
    return shared.div_(union.clamp_(min=torch.finfo(boxes.dtype).tiny))


def _shared(spans: Tensor, others: Tensor) -> Tensor:
    """Return `(..., N, M)`: how far two spans from low to high lie on each other."""
    low = torch.maximum(spans[..., :, None, 0], others[..., None, :, 0])
    high = torch.minimum(spans[..., :, None, 1], others[..., None, :, 1])
    return high.sub_(low).clamp_(min=0)


def _areas(boxes: Tensor) -> Tensor:
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(-1)


def suppress(
    boxes: Tensor,
    labels: Tensor,
    valid: Tensor,
    threshold: float,
    *,
    rounds: int = 0,
    most: int | None = None,
) -> Tensor:
    """Return which boxes greedy suppression keeps, for a batch of images at once.

    A box is dropped if a kept box before it, of its label, shares more than the threshold.

    Args:
        boxes: `(B, N, 4)` in descending order of score.
        labels: `(B, N)`.
        valid: `(B, N)` bool; the others neither stay nor suppress.
        threshold: IoU.
        rounds: How many, without asking the device; 0 goes on until nothing changes, and
            asks each time.
        most: How many per image are needed, if not all: with `rounds=0`, what comes after these
            may be left out.

    Returns:
        `(B, N)` bool.
    """
    if rounds:
        return _settled(_would_drop(boxes, labels, boxes, labels, threshold), valid, rounds)
    keep, count = valid.clone(), valid.shape[1]
    for first in range(0, count, _BLOCK):
        last = min(first + _BLOCK, count)
        near, own = boxes[:, first:last], labels[:, first:last]
        drops = _would_drop(near, own, near, own, threshold)
        keep[:, first:last] = _settled(drops, keep[:, first:last], 0)
        needed = keep[:, last:].any(1)
        if most is not None:
            needed &= keep[:, :last].sum(1) < most
        if not needed.any():
            keep[:, last:] = False
            break
        drops = _would_drop(near, own, boxes[:, last:], labels[:, last:], threshold)
        keep[:, last:] &= ~(drops & keep[:, first:last, None]).any(1)
    return keep


def _would_drop(
    boxes: Tensor, labels: Tensor, others: Tensor, their_labels: Tensor, threshold: float
) -> Tensor:
    """Return `(B, N, M)` bool: of one label, and sharing more than the threshold."""
    same = labels[..., :, None] == their_labels[..., None, :]
    return (box_ious(boxes, others) > threshold) & same


def _settled(drops: Tensor, valid: Tensor, rounds: int) -> Tensor:
    """Return `(B, N)` bool: what is kept, where `[i, j]` says that i would drop j after it.

    Starting from "all are kept", each round settles at least the next link of every chain of
    suppressors, so the fixed point is the greedy result.
    """
    against = (drops.triu(1) & valid[..., :, None]).float()
    keep = valid
    for _ in range(rounds or valid.shape[1] + 1):
        hits = torch.bmm(keep.float()[:, None], against)[:, 0]
        new = valid & (hits == 0)
        if not rounds and torch.equal(new, keep):
            break
        keep = new
    return keep
