"""Boxes, areas and centres of the entities of a batch, from its id maps, on the device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_FAR = 1 << 40


@dataclass(frozen=True, slots=True)
class Regions:
    """Geometry of `(B, G)` entities; where `present` is False the rest is meaningless.

    Attributes:
        present: `(B, G)` bool: the entity has a pixel.
        boxes: `(B, G, 4)` float32 x0, y0, x1, y1 in pixels, the far sides exclusive.
        areas: `(B, G)` int64 pixels.
        centres: `(B, G, 2)` float32 mass centres: mean x and y of the pixel indices.
    """

    present: Tensor
    boxes: Tensor
    areas: Tensor
    centres: Tensor


def measure(ids: Tensor, slots: int) -> Regions:
    """Measure every entity.

    Args:
        ids: `(B, H, W)` int64 in 0…slots.
        slots: G.
    """
    batch, height, width = ids.shape
    flat, x, y = _flat(ids, slots)
    ones = torch.ones_like(flat)
    areas = _sum(flat, ones, batch, slots)
    sums = torch.stack([_sum(flat, x, batch, slots), _sum(flat, y, batch, slots)], dim=-1)
    sides = [
        _extreme(flat, x, batch, slots, "amin", width),
        _extreme(flat, y, batch, slots, "amin", height),
        _extreme(flat, x, batch, slots, "amax", -1) + 1,
        _extreme(flat, y, batch, slots, "amax", -1) + 1,
    ]
    centres = (sums.double() / areas.clamp(min=1)[..., None]).float()
    return Regions(areas > 0, torch.stack(sides, dim=-1).float(), areas, centres)


def nearest_pixels(ids: Tensor, targets: Tensor) -> Tensor:
    """Return, for each entity, the pixel of its mask that is nearest to a point.

    Args:
        ids: `(B, H, W)` int64 in 0…G.
        targets: `(B, G, 2)` x and y.

    Returns:
        `(B, G, 2)` float32 x and y; ties go to the first in row-major order. Entities without a
        pixel get NaN.
    """
    batch, height, width = ids.shape
    slots = targets.shape[1]
    flat, x, y = _flat(ids, slots)
    own = torch.nn.functional.pad(targets, (0, 0, 1, 0)).reshape(-1, 2)[flat]
    distance = (x - own[:, 0]) ** 2 + (y - own[:, 1]) ** 2
    # one integer holds the distance (in 1/64 square pixels) above the position: both decide
    key = (distance * 64).long() * (height * width) + y * width + x
    best = _extreme(flat, key, batch, slots, "amin", _FAR) % (height * width)
    points = torch.stack([best % width, best // width], dim=-1).float()
    present = _sum(flat, torch.ones_like(flat), batch, slots) > 0
    return points.masked_fill(~present[..., None], torch.nan)


def cells(ids: Tensor, regions: Regions, side: int = 3) -> Tensor:
    """Cut each entity by a grid over its box and number the pieces as entities of their own.

    Args:
        ids: `(B, H, W)` int64 in 0…G.
        regions: Their geometry.
        side: Cells along each side.

    Returns:
        `(B, H, W)` int64 in 0…G·side²; entity g owns the pieces from (g - 1)·side² + 1 on.
    """
    batch, height, width = ids.shape
    slots = regions.present.shape[1]
    flat, x, y = _flat(ids, slots)
    boxes = torch.nn.functional.pad(regions.boxes, (0, 0, 1, 0)).reshape(-1, 4)[flat]
    across = ((x - boxes[:, 0]) * side / (boxes[:, 2] - boxes[:, 0]).clamp(min=1)).long()
    down = ((y - boxes[:, 1]) * side / (boxes[:, 3] - boxes[:, 1]).clamp(min=1)).long()
    across, down = across.clamp(0, side - 1), down.clamp(0, side - 1)
    piece = (ids.reshape(-1) - 1) * side * side + down * side + across + 1
    return torch.where(ids.reshape(-1) > 0, piece, 0).reshape(batch, height, width)


def _flat(ids: Tensor, slots: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return, per pixel, the place of its entity in a `(B, slots + 1)` table, its x and its y."""
    batch, height, width = ids.shape
    device = ids.device
    offset = torch.arange(batch, device=device)[:, None, None] * (slots + 1)
    y = torch.arange(height, device=device)[None, :, None].expand_as(ids)
    x = torch.arange(width, device=device)[None, None, :].expand_as(ids)
    return (ids + offset).reshape(-1), x.reshape(-1), y.reshape(-1)


def _sum(flat: Tensor, values: Tensor, batch: int, slots: int) -> Tensor:
    table = torch.zeros(batch * (slots + 1), dtype=torch.int64, device=flat.device)
    return table.scatter_add_(0, flat, values).reshape(batch, slots + 1)[:, 1:]


def _extreme(flat: Tensor, values: Tensor, batch: int, slots: int, how: str, start: int) -> Tensor:
    table = torch.full((batch * (slots + 1),), start, dtype=torch.int64, device=flat.device)
    table = table.scatter_reduce_(0, flat, values, reduce=how)
    return table.reshape(batch, slots + 1)[:, 1:]
