"""From overlapping soft masks to one map without overlap: the best score on top.

Masks are enlarged to the photograph's size by two matrix products that hold both bilinear steps
(from mask cells to the canvas, from the canvas to the photograph) exactly, a few masks at a
time, and a running maximum keeps the best owner of each pixel: memory does not grow with the
number of masks, and nothing waits for the device.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from entitybench.baselines.model import MaskCandidates
from entitybench.baselines.regions import measure
from entitybench.entity_map import EntityMap

_AT_ONCE = 32
_IN_MASK = 0.5


@dataclass(frozen=True, slots=True)
class Painted:
    """One image, painted; on the device.

    Attributes:
        ids: `(H, W)` int64: slot + 1 of the owner, 0 void.
        scores: `(K,)` float32 of each slot.
        labels: `(K,)` int64 class of each slot.
        kept: `(K,)` bool: the slot owns pixels.
    """

    ids: Tensor
    scores: Tensor
    labels: Tensor
    kept: Tensor

    def to_host(self) -> tuple[EntityMap, NDArray[np.float64], NDArray[np.int64]]:
        """Return the entity map, entities in order of the slots, their scores and classes."""
        kept = torch.nonzero(self.kept)[:, 0].cpu().numpy()
        scores = self.scores.double().cpu().numpy()[kept]
        labels = self.labels.cpu().numpy()[kept]
        ids = self.ids.to(torch.int16).cpu().numpy()
        return EntityMap.from_array(ids, entities=(kept + 1).tolist()), scores, labels


def paint(
    candidates: MaskCandidates,
    number: int,
    on_canvas: tuple[int, int],
    size: tuple[int, int],
    *,
    rescore: bool = False,
    least_side: int = 1,
) -> Painted:
    """Paint one image of a batch.

    Args:
        candidates: Of the batch.
        number: Which image.
        on_canvas: Height and width of the image on the canvas.
        size: Height and width of the photograph.
        rescore: Multiply each score by the mean probability of the pixels that it owns. The
            owner of a pixel is decided by the scores before.
        least_side: Entities whose painted box has a shorter side are dropped; 1 drops those
            without a pixel.

    Returns:
        Pixels above .5 in several masks belong to the highest score, ties to the earlier slot.
    """
    owner, probability = _owners(candidates, number, on_canvas, size)
    slots = candidates.scores.shape[1]
    regions = measure(owner[None], slots)
    sides = regions.boxes[0, :, 2:] - regions.boxes[0, :, :2]
    kept = regions.present[0] & (sides >= least_side).all(1)
    scores = candidates.scores[number]
    if rescore:
        total = torch.zeros(slots + 1, device=owner.device).index_add_(
            0, owner.flatten(), probability.flatten()
        )
        scores = scores * total[1:] / regions.areas[0].clamp(min=1)
    survives = torch.nn.functional.pad(kept, (1, 0))
    labels = candidates.labels[number]
    return Painted(owner * survives[owner], scores.clamp(0, 1), labels, kept)


def full_masks(
    candidates: MaskCandidates, number: int, on_canvas: tuple[int, int], size: tuple[int, int]
) -> Tensor:
    """Return the `(K, H, W)` bool masks of one image before resolution; invalid slots empty."""
    chunks = [part > _IN_MASK for _, part in _enlarged(candidates, number, on_canvas, size)]
    return torch.cat(chunks) & candidates.valid[number][:, None, None]


def _owners(
    candidates: MaskCandidates, number: int, on_canvas: tuple[int, int], size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Return `(H, W)` slot + 1 of the owner, and its probability there."""
    slots = candidates.scores.shape[1]
    device = candidates.masks.device
    rank = torch.zeros(size, dtype=torch.int32, device=device)
    probability = torch.zeros(size, device=device)
    # scores descend, so an earlier slot outranks a later one; an unused slot claims nothing
    ranks = torch.arange(slots, 0, -1, dtype=torch.int32, device=device)
    ranks = ranks * candidates.valid[number]
    for first, part in _enlarged(candidates, number, on_canvas, size):
        claims = (part > _IN_MASK) * ranks[first : first + len(part), None, None]
        best, which = claims.max(0)
        wins = best > rank
        rank = torch.where(wins, best, rank)
        probability = torch.where(wins, part.gather(0, which[None])[0], probability)
    return torch.where(rank > 0, slots + 1 - rank, 0).long(), probability


def _enlarged(
    candidates: MaskCandidates, number: int, on_canvas: tuple[int, int], size: tuple[int, int]
) -> Iterator[tuple[int, Tensor]]:
    """Yield the first slot and the `(k, H, W)` probabilities of a few masks at a time."""
    masks = candidates.masks[number]
    stride, first_cell = candidates.stride, candidates.first_cell
    rows, columns = (
        _on_device(cells, stride, first_cell, inner, outer, masks.device)
        for cells, inner, outer in zip(masks.shape[1:], on_canvas, size, strict=True)
    )
    for first in range(0, len(masks), _AT_ONCE):
        part = masks[first : first + _AT_ONCE].float()
        yield first, torch.matmul(rows, torch.matmul(part, columns.T))


@lru_cache(maxsize=256)
def _on_device(
    cells: int, stride: int, first_cell: float, inner: int, outer: int, device: torch.device
) -> Tensor:
    return torch.from_numpy(enlargement(cells, stride, first_cell, inner, outer)).to(device)


def enlargement(
    cells: int, stride: int, first_cell: float, inner: int, outer: int
) -> NDArray[np.float32]:
    """Return the `(outer, cells)` matrix from mask cells to the photograph along one side.

    Args:
        cells: Mask cells along the canvas; cell i lies at `stride·i + first_cell`.
        stride: Pixels of the canvas between cells.
        first_cell: Pixel index of the first cell.
        inner: Pixels of the image on the canvas.
        outer: Pixels of the photograph.
    """
    to_canvas = _linear((np.arange(inner) - first_cell) / stride, cells)
    to_photograph = _linear((np.arange(outer) + 0.5) * inner / outer - 0.5, inner)
    both: NDArray[np.float32] = (to_photograph @ to_canvas).astype(np.float32)
    return both


def _linear(positions: NDArray[np.float64], length: int) -> NDArray[np.float64]:
    """Return the matrix that reads a row of values at positions; the ends are repeated."""
    clamped = np.clip(positions, 0, length - 1)
    low = np.floor(clamped).astype(np.int64)
    high = np.minimum(low + 1, length - 1)
    weight = clamped - low
    matrix = np.zeros((len(positions), length))
    rows = np.arange(len(positions))
    np.add.at(matrix, (rows, low), 1 - weight)
    np.add.at(matrix, (rows, high), weight)
    return matrix
