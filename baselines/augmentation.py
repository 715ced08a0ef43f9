"""Resizing, jitter, crop and mirror of a whole batch at once, on the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from entitybench.baselines.batch import Batch, Images
from entitybench.baselines.placement import Placement
from entitybench.baselines.source import Decoded


@dataclass(frozen=True, slots=True)
class HostBatch:
    """Photographs as they were read, padded to one size; still on the host.

    Attributes:
        pixels: `(B, h, w, 3)` uint8 RGB.
        ids: `(B, h, w)` int32.
        sizes: `(B, 2)` float32 height and width of each photograph here.
        things: `(B, G)` bool.
        labels: `(B, G)` int64.
        placements: One for each.
        canvas: Height and width.
    """

    pixels: Tensor
    ids: Tensor
    sizes: Tensor
    things: Tensor
    labels: Tensor
    placements: tuple[Placement, ...]
    canvas: tuple[int, int]


def stack(
    decoded: Sequence[Decoded],
    placements: Sequence[Placement],
    canvas: tuple[int, int],
    slots: int,
) -> HostBatch:
    """Pad photographs to one size and lay them side by side."""
    count = len(decoded)
    height = max(image.pixels.shape[0] for image in decoded)
    width = max(image.pixels.shape[1] for image in decoded)
    pixels = np.zeros((count, height, width, 3), dtype=np.uint8)
    ids = np.zeros((count, height, width), dtype=np.int32)
    things = np.zeros((count, slots), dtype=bool)
    labels = np.zeros((count, slots), dtype=np.int64)
    for number, image in enumerate(decoded):
        h, w = image.ids.shape
        pixels[number, :h, :w] = image.pixels
        ids[number, :h, :w] = image.ids
        things[number, : len(image.things)] = image.things
        labels[number, : len(image.labels)] = image.labels
    sizes = np.array([image.ids.shape for image in decoded], dtype=np.float32)
    return HostBatch(
        torch.from_numpy(pixels),
        torch.from_numpy(ids),
        torch.from_numpy(sizes),
        torch.from_numpy(things),
        torch.from_numpy(labels),
        tuple(placements),
        canvas,
    )


def to_device(host: HostBatch, device: torch.device) -> Batch:
    """Place every photograph and its entities on the canvas.

    Pixels are bilinear, ids nearest. Boxes and centres are not carried along: they are measured
    on the id map that comes out.
    """
    moved = [
        _moved(t, device) for t in (host.pixels, host.ids, host.sizes, host.things, host.labels)
    ]
    pixels, ids, sizes, things, labels = moved
    numbers, seeds = _numbers(host.placements, device)
    rows, row_inside = _positions(numbers[:, 0], host.canvas[0], sizes[:, 0], None)
    columns, column_inside = _positions(
        numbers[:, 1], host.canvas[1], sizes[:, 1], numbers[:, 2, 0]
    )
    inside = row_inside[:, :, None] & column_inside[:, None, :]
    placed = _bilinear(pixels, rows, columns, sizes)
    placed = (placed - 128) * numbers[:, 3, 0, None, None, None] + 128
    placed = (placed + numbers[:, 3, 1, None, None, None]).clamp(0, 255) * inside[:, None]
    visible = numbers[:, :2, 2].long()
    return Batch(
        Images(placed, visible), _nearest(ids, rows, columns, sizes) * inside, things, labels, seeds
    )


def _moved(tensor: Tensor, device: torch.device) -> Tensor:
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def _numbers(placements: Sequence[Placement], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return `(B, 4, 3)` float32 numbers in one transfer, and `(B,)` int64 seeds."""
    rows = [
        [
            [p.resized[0], p.corner[0], p.visible[0]],
            [p.resized[1], p.corner[1], p.visible[1]],
            [float(p.mirrored), 0.0, 0.0],
            [p.contrast, p.brightness, 0.0],
        ]
        for p in placements
    ]
    seeds = torch.tensor([p.seed for p in placements], dtype=torch.int64)
    return _moved(torch.tensor(rows, dtype=torch.float32), device), _moved(seeds, device)


def _positions(
    numbers: Tensor, length: int, sizes: Tensor, mirrored: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return `(B, length)` positions in the photograph, from its edge, and which exist."""
    resized, corner, visible = numbers[:, :, None].unbind(1)
    place = torch.arange(length, device=numbers.device, dtype=torch.float32)[None]
    inside = place < visible
    if mirrored is not None:
        place = torch.where(mirrored[:, None] > 0, visible - 1 - place, place)
    return (place + corner + 0.5) * sizes[:, None] / resized, inside


def _bilinear(pixels: Tensor, rows: Tensor, columns: Tensor, sizes: Tensor) -> Tensor:
    height, width = pixels.shape[1:3]
    # positions stay half a pixel within the photograph, so that its padding is never read
    y = torch.minimum(rows.clamp(min=0.5), sizes[:, :1] - 0.5) * 2 / height - 1
    x = torch.minimum(columns.clamp(min=0.5), sizes[:, 1:] - 0.5) * 2 / width - 1
    shape = (len(pixels), y.shape[1], x.shape[1])
    grid = torch.stack([x[:, None].expand(shape), y[:, :, None].expand(shape)], dim=-1)
    source = pixels.permute(0, 3, 1, 2).float()
    return functional.grid_sample(source, grid, mode="bilinear", align_corners=False)


def _nearest(ids: Tensor, rows: Tensor, columns: Tensor, sizes: Tensor) -> Tensor:
    y = torch.minimum(rows.floor(), sizes[:, :1] - 1).clamp(min=0).long()
    x = torch.minimum(columns.floor(), sizes[:, 1:] - 1).clamp(min=0).long()
    image = torch.arange(len(ids), device=ids.device)[:, None, None]
    return ids[image, y[:, :, None], x[:, None, :]].long()
