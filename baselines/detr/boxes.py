"""Boxes as DETR has them: centre and size in units of the image."""

from __future__ import annotations

import torch
from torch import Tensor

_SMALL = 1e-7


def normalised_boxes(boxes: Tensor, sizes: Tensor) -> Tensor:
    """Return centre x, y, width and height in units of each image.

    Args:
        boxes: `(B, G, 4)` x0, y0, x1, y1 in pixels.
        sizes: `(B, 2)` height and width.
    """
    scale = sizes.flip(1).float()[:, None]
    low, high = boxes[..., :2] / scale, boxes[..., 2:] / scale
    return torch.cat([(low + high) / 2, high - low], dim=-1)


def corners(boxes: Tensor) -> Tensor:
    """Return x0, y0, x1, y1 of `(..., 4)` boxes given as centre and size."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def generalised_iou(first: Tensor, second: Tensor) -> Tensor:
    """Return the GIoU in [-1, 1] of `(..., 4)` boxes x0, y0, x1, y1; of two points it is 0."""
    shared = _area(
        torch.maximum(first[..., :2], second[..., :2]),
        torch.minimum(first[..., 2:], second[..., 2:]),
    )
    hull = _area(
        torch.minimum(first[..., :2], second[..., :2]),
        torch.maximum(first[..., 2:], second[..., 2:]),
    )
    union = _area(first[..., :2], first[..., 2:]) + _area(second[..., :2], second[..., 2:]) - shared
    return shared / union.clamp(min=_SMALL) - (hull - union) / hull.clamp(min=_SMALL)


def _area(low: Tensor, high: Tensor) -> Tensor:
    return (high - low).clamp(min=0).prod(-1)


def box_costs(boxes: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Return the `(B, Q, G)` L1 distances and minus the GIoU of `(B, Q, 4)` and `(B, G, 4)`."""
    distance = torch.cdist(boxes, truth, p=1)
    return distance, -generalised_iou(corners(boxes)[:, :, None], corners(truth)[:, None])
