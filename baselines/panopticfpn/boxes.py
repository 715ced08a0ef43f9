"""Boxes: anchors, how much they share, and how one is told as a change of another."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

RATIOS = (0.5, 1.0, 2.0)  # height over width
_LARGEST = math.log(1000 / 16)  # of a change of size, as a logarithm


@lru_cache(maxsize=64)
def make_anchors(
    shapes: tuple[tuple[int, int], ...], anchor: float, device: torch.device
) -> Tensor:
    """Return `(A, 4)` anchors x0, y0, x1, y1: level, row, column, ratio.

    Args:
        shapes: Height and width of each level, from stride 4 on.
        anchor: Side of a square anchor in strides.
        device: Where.
    """
    levels = []
    for number, (height, width) in enumerate(shapes):
        stride = 4 << number
        y = torch.arange(height, device=device) * stride
        x = torch.arange(width, device=device) * stride
        mesh = torch.stack([x.expand(height, width), y[:, None].expand(height, width)], -1)
        centre = mesh.repeat(1, 1, 2)[:, :, None].float()
        levels.append((centre + _shapes(anchor * stride, device)).reshape(-1, 4))
    return torch.cat(levels)


def _shapes(side: float, device: torch.device) -> Tensor:
    """Return `(3, 4)` boxes of equal area around the origin."""
    boxes = []
    for ratio in RATIOS:
        width = math.sqrt(side * side / ratio)
        height = ratio * width
        boxes.append([-width / 2, -height / 2, width / 2, height / 2])
    return torch.tensor(boxes, device=device)


def pair_ious(first: Tensor, second: Tensor) -> Tensor:
    """Return `(B, N, M)` IoUs of `(B or 1, N, 4)` and `(B, M, 4)` boxes; 0 for empty ones."""
    low = torch.maximum(first[:, :, None, :2], second[:, None, :, :2])
    high = torch.minimum(first[:, :, None, 2:], second[:, None, :, 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    union = areas(first)[:, :, None] + areas(second)[:, None] - shared
    return shared / union.clamp(min=torch.finfo(shared.dtype).tiny)


def areas(boxes: Tensor) -> Tensor:
    """Return the areas of `(..., 4)` boxes; 0 where a side is negative."""
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(-1)


def encode(boxes: Tensor, targets: Tensor, scale: tuple[float, float]) -> Tensor:
    """Return the `(..., 4)` changes that turn boxes into targets: of place, then of size.

    Args:
        boxes: `(..., 4)` with sides above 0.
        targets: `(..., 4)` with sides above 0.
        scale: What changes of place and of size are multiplied by.
    """
    size = boxes[..., 2:] - boxes[..., :2]
    wanted = targets[..., 2:] - targets[..., :2]
    move = (targets[..., :2] + wanted / 2 - boxes[..., :2] - size / 2) / size
    return torch.cat([move * scale[0], (wanted / size).log() * scale[1]], -1)


def decode(boxes: Tensor, changes: Tensor, scale: tuple[float, float]) -> Tensor:
    """Return the boxes that changes lead to: the inverse of `encode`."""
    size = boxes[..., 2:] - boxes[..., :2]
    centre = boxes[..., :2] + size / 2 + changes[..., :2] / scale[0] * size
    half = size * (changes[..., 2:] / scale[1]).clamp(max=_LARGEST).exp() / 2
    return torch.cat([centre - half, centre + half], -1)


def clip(boxes: Tensor, sizes: Tensor) -> Tensor:
    """Cut `(B, N, 4)` boxes at the far sides of images of `(B, 2)` height and width."""
    limits = sizes.flip(1).repeat(1, 2)[:, None].to(boxes.dtype)
    return torch.minimum(boxes.clamp(min=0), limits)
