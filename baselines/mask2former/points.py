"""Masks compared at a few points instead of everywhere (PointRend, Kirillov et al. 2020).

A point is a place x, y in [0, 1] × [0, 1] of the canvas. What is drawn depends on seeds alone:
not on a generator, the device or the number of processes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from entitybench.baselines.entity.assignment import random_keys
from entitybench.baselines.queries import smooth_dice


def random_points(seeds: Tensor, number: int) -> Tensor:
    """Return `(N, number, 2)` float32 points, uniform, from `(N,)` int64 seeds."""
    return random_keys(seeds, 2 * number).reshape(len(seeds), number, 2)


def sampled(maps: Tensor, points: Tensor) -> Tensor:
    """Return the `(N, C, P)` bilinear values of `(N, C, h, w)` maps at `(N, P, 2)` points."""
    if not len(maps):  # which `grid_sample` refuses
        return maps.sum((2, 3))[..., None].expand(0, maps.shape[1], points.shape[1])
    grid = 2 * points[:, :, None] - 1
    return functional.grid_sample(maps, grid, mode="bilinear", align_corners=False)[..., 0]


def truth_at(ids: Tensor, images: Tensor, slots: Tensor, points: Tensor) -> Tensor:
    """Return what bilinear sampling of the entities' masks would give.

    The masks are never made: each point asks the id map for its four neighbours.

    Args:
        ids: `(B, H, W)` int64; slot + 1, or 0.
        images: `(N,)` which image each row of points lies in.
        slots: `(N, S)` entities.
        points: `(N, P, 2)`.

    Returns:
        `(N, S, P)` float32 in [0, 1].
    """
    height, width = ids.shape[1:]
    x, y = points[..., 0] * width - 0.5, points[..., 1] * height - 0.5
    left, top = x.floor(), y.floor()
    wanted = (slots + 1)[..., None]
    total = torch.zeros((*slots.shape, points.shape[1]), device=ids.device)
    for row, across in ((top, 1 - (y - top)), (top + 1, y - top)):
        for column, along in ((left, 1 - (x - left)), (left + 1, x - left)):
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            place = row.long().clamp(0, height - 1), column.long().clamp(0, width - 1)
            owner = ids[images[:, None], *place] * inside
            total = total + (across * along)[:, None] * (owner[:, None] == wanted)
    return total


def uncertain_points(
    logits: Tensor, seeds: Tensor, number: int, oversample: float, importance: float
) -> Tensor:
    """Draw points, most of them where a mask is nearest to undecided.

    Args:
        logits: `(N, 1, h, w)`.
        seeds: `(N,)` int64.
        number: Points of each mask.
        oversample: As many times more are drawn for the most uncertain among them.
        importance: Share of the most uncertain ones; the rest is random.

    Returns:
        `(N, number, 2)`.
    """
    many, uncertain = int(number * oversample), int(importance * number)
    points = random_points(seeds, many + number - uncertain)
    drawn, rest = points[:, :many], points[:, many:]
    order = (-sampled(logits, drawn)[:, 0].abs()).topk(uncertain, dim=1).indices
    return torch.cat([drawn.gather(1, order[..., None].expand(-1, -1, 2)), rest], dim=1)


def entropy_sums(logits: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Return the summed cross-entropy (a mean over points) and the summed Dice of N masks.

    Args:
        logits: `(N, P)`.
        truth: `(N, P)` in [0, 1].
    """
    entropy = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    return entropy.mean(1).sum(), smooth_dice(logits.sigmoid(), truth).sum()
