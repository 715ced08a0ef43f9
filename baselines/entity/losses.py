"""The losses, each a sum over this process; who adds them up decides the normalisation."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_ALPHA, _GAMMA = 0.25, 2.0
_SMALL = 1e-5


def focal_sum(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the summed focal loss (alpha .25, gamma 2) of logits and 0/1 targets of one shape."""
    cross_entropy = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    probability = logits.sigmoid()
    wrong = probability + targets - 2 * probability * targets
    weight = 1 - _ALPHA - targets + 2 * _ALPHA * targets
    return (weight * wrong**_GAMMA * cross_entropy).sum()


def giou_loss(distances: Tensor, targets: Tensor) -> Tensor:
    """Return 1 - GIoU of boxes around one point.

    The intersection over union is smoothed by +1 above and below; the enclosing term is not.

    Args:
        distances: `(..., 4)` to the left, top, right and bottom.
        targets: The same.
    """
    shared = _box_area(torch.minimum(distances, targets))
    union = _box_area(distances) + _box_area(targets) - shared
    hull = _box_area(torch.maximum(distances, targets))
    iou = (shared + 1) / (union + 1)
    return 1 - (iou - (hull - union) / hull.clamp(min=_SMALL))


def _box_area(distances: Tensor) -> Tensor:
    left, top, right, bottom = distances.unbind(-1)
    return (left + right) * (top + bottom)


def dice_loss(probabilities: Tensor, targets: Tensor) -> Tensor:
    """Return 1 - Dice over the last two dimensions; both empty is a loss of 1.

    Args:
        probabilities: `(..., h, w)` in [0, 1].
        targets: `(..., h, w)` bool or 0/1.
    """
    truth = targets.to(probabilities.dtype)
    shared = (probabilities * truth).sum((-2, -1))
    total = (probabilities * probabilities).sum((-2, -1)) + truth.sum((-2, -1))
    return 1 - 2 * shared / (total + _SMALL)
