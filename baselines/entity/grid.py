"""The locations of all levels in one row: where they lie and what sizes they answer for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Grid:
    """L locations, level after level, row after row.

    Attributes:
        points: `(L, 2)` float32 x and y in pixels: `(j·s + s//2, i·s + s//2)`.
        strides: `(L,)` float32.
        reaches: `(L, 2)` float32 least and greatest reach of an entity that the level answers
            for, inclusive, in pixels.
        lengths: Locations of each level.
    """

    points: Tensor
    strides: Tensor
    reaches: Tensor
    lengths: tuple[int, ...]


@lru_cache(maxsize=64)
def make_grid(
    shapes: tuple[tuple[int, int], ...], first_level: int, sizes: float, device: torch.device
) -> Grid:
    """Lay out the locations; kept, so that nothing is uploaded in a step.

    Args:
        shapes: Height and width of each level's map.
        first_level: Level of the first; its stride is 2 to that power.
        sizes: Greatest reach of the first level, in its strides. The next levels double it, the
            last has no bound.
        device: Where.
    """
    points, strides, reaches = [], [], []
    lower = -1.0
    for number, (height, width) in enumerate(shapes):
        stride = 2 ** (first_level + number)
        last = number == len(shapes) - 1
        upper = math.inf if last else sizes * stride
        y = torch.arange(height, device=device) * stride + stride // 2
        x = torch.arange(width, device=device) * stride + stride // 2
        mesh = torch.stack([x.expand(height, width), y[:, None].expand(height, width)], dim=-1)
        points.append(mesh.reshape(-1, 2).float())
        strides.append(torch.full((height * width,), float(stride), device=device))
        reaches.append(torch.tensor([lower, upper], device=device).expand(height * width, 2))
        lower = upper
    lengths = tuple(height * width for height, width in shapes)
    return Grid(torch.cat(points), torch.cat(strides), torch.cat(reaches), lengths)
