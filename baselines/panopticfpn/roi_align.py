"""RoIAlign: the features inside boxes, on a grid of a fixed size (He and others, 2017)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

_SAMPLES = 2  # of a cell, along each side


def roi_align(levels: Sequence[Tensor], boxes: Tensor, level: Tensor, size: int) -> Tensor:
    """Look at boxes, each on one level.

    A cell is the mean of 2×2 samples, each of them bilinear between feature centres, which lie at
    `(i + 1/2)·stride`. A sample up to one cell outside of the map takes the border's value, one
    further out is 0.

    Args:
        levels: `(B, C, h, w)` maps at strides 4, 8, ….
        boxes: `(B, R, 4)` x0, y0, x1, y1 in pixels.
        level: `(B, R)` int64 which of the maps.
        size: Cells along each side.

    Returns:
        `(B, R, C, size, size)` float32.
    """
    channels = levels[0].shape[1]
    table = torch.cat([m.permute(0, 2, 3, 1).reshape(-1, channels) for m in levels]).float()
    place = _Place.of(levels, level)
    stride = 4.0 * 2.0**level
    y_low, y_weight = _corners(boxes[..., 1::2], stride, place.heights, size)
    x_low, x_weight = _corners(boxes[..., ::2], stride, place.widths, size)
    # (B, R, size, samples, 2) for each axis → (B, R, size, size, samples, samples, 2, 2)
    rows = y_low[:, :, :, None, :, None, :, None] * place.widths[..., *[None] * 6]
    index = rows + x_low[:, :, None, :, None, :, None, :] + place.starts[..., *[None] * 6]
    weight = y_weight[:, :, :, None, :, None, :, None] * x_weight[:, :, None, :, None, :, None, :]
    cells = boxes.shape[0] * boxes.shape[1] * size * size
    seen = functional.embedding_bag(
        index.reshape(cells, -1),
        table,
        mode="sum",
        per_sample_weights=weight.reshape(cells, -1) / _SAMPLES**2,
    )
    return seen.reshape(*boxes.shape[:2], size, size, channels).permute(0, 1, 4, 2, 3)


class _Place:
    """Where each box's map lies in the table of all features; `(B, R)` int64 each."""

    def __init__(self, starts: Tensor, heights: Tensor, widths: Tensor) -> None:
        self.starts, self.heights, self.widths = starts, heights, widths

    @classmethod
    def of(cls, levels: Sequence[Tensor], level: Tensor) -> _Place:
        shapes = torch.tensor([m.shape[-2:] for m in levels], device=level.device)
        cells = shapes.prod(1)
        batch = len(level)
        starts = torch.cumsum(cells * batch, 0) - cells * batch
        image = torch.arange(batch, device=level.device)[:, None]
        return cls(
            starts[level] + image * cells[level], shapes[level][..., 0], shapes[level][..., 1]
        )


def _corners(ends: Tensor, stride: Tensor, length: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return the two cells that each sample lies between, along one side, and their weights.

    Args:
        ends: `(B, R, 2)` near and far side in pixels.
        stride: `(B, R)`.
        length: `(B, R)` int64 cells of the map.
        size: Cells of the result.

    Returns:
        `(B, R, size, samples, 2)` int64 and float32.
    """
    count = size * _SAMPLES
    fraction = (torch.arange(count, device=ends.device) + 0.5) / count
    near, far = (ends / stride[..., None] - 0.5).unbind(-1)
    at = near[..., None] + (far - near)[..., None] * fraction
    last = (length - 1)[..., None]
    inside = (at >= -1) & (at <= last + 1)
    at = torch.minimum(at.clamp(min=0), last.to(at.dtype))
    low = at.floor().long()
    high = torch.minimum(low + 1, last)
    upper = at - low
    cells = torch.stack([low, high], -1)
    weights = torch.stack([1 - upper, upper], -1) * inside[..., None]
    shape = (*ends.shape[:2], size, _SAMPLES, 2)
    return cells.reshape(shape), weights.reshape(shape)


def level_of(boxes: Tensor, canonical: float, count: int) -> Tensor:
    """Return which of the maps from P2 on a box is looked at: P4 if its side is canonical."""
    side = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(-1).sqrt()
    level = torch.floor(2 + torch.log2(side / canonical + 1e-8))
    return level.clamp(0, count - 1).long()
