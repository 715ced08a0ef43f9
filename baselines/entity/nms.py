"""Greedy non-maximum suppression as a fixed point of matrix products."""

from __future__ import annotations

import torch
from torch import Tensor

SURE_ROUNDS = 32  # chains of suppressors that long do not occur among real boxes


def box_ious(boxes: Tensor) -> Tensor:
    """Return `(..., N, N)` IoUs of `(..., N, 4)` boxes x0, y0, x1, y1; 0 for empty ones."""
    low = torch.maximum(boxes[..., :, None, :2], boxes[..., None, :, :2])
    high = torch.minimum(boxes[..., :, None, 2:], boxes[..., None, :, 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    areas = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(-1)
    union = areas[..., :, None] + areas[..., None, :] - shared
    return shared / union.clamp(min=torch.finfo(boxes.dtype).tiny)


def suppress(
    boxes: Tensor,
    labels: Tensor,
    valid: Tensor,
    threshold: float,
    *,
    rounds: int = 0,
) -> Tensor:
    """Return which boxes greedy suppression keeps, for a batch of images at once.

    A box is dropped if a kept box before it, of its label, shares more than the threshold.
    Starting from "all are kept", each round settles at least the next link of every chain of
    suppressors, so the fixed point is the greedy result.

    Args:
        boxes: `(B, N, 4)` in descending order of score.
        labels: `(B, N)`.
        valid: `(B, N)` bool; the others neither stay nor suppress.
        threshold: IoU.
        rounds: How many; 0 goes on until nothing changes, which asks the device each time.

    Returns:
        `(B, N)` bool.
    """
    same = labels[..., :, None] == labels[..., None, :]
    against = ((box_ious(boxes) > threshold) & same).triu(1)
    against = (against & valid[..., :, None]).float()  # [i, j]: i comes first and would drop j
    keep = valid
    for _ in range(rounds or boxes.shape[1] + 1):
        hits = torch.bmm(keep.float()[:, None], against)[:, 0]
        new = valid & (hits == 0)
        if not rounds and torch.equal(new, keep):
            break
        keep = new
    return keep
