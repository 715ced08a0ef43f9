"""Things and stuff in one image: things by score, stuff where no sure thing is."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from entitybench.baselines.panopticfpn.config import Inference

_REFERENCE_AREA = 640 * 480  # of the images that the least area of stuff is told for


def paste(masks: Tensor, boxes: Tensor, height: int, width: int, stride: int) -> Tensor:
    """Lay the masks of boxes onto a common grid.

    Args:
        masks: `(B, K, m, m)` probabilities; cells divide the box evenly.
        boxes: `(B, K, 4)` in pixels.
        height: Cells of the grid; cell i lies at pixel `stride·i + stride//2`.
        width: The same.
        stride: Pixels between cells.

    Returns:
        `(B, K, height, width)`, bilinear between the centres of a mask's cells, 0 outside.
    """
    batch, count = boxes.shape[:2]
    across, down = (
        _relative(length, stride, boxes[..., axis], boxes[..., axis + 2])
        for axis, length in ((0, width), (1, height))
    )
    grid = torch.stack(
        [
            across[:, :, None].expand(batch, count, height, width),
            down[..., None].expand(batch, count, height, width),
        ],
        -1,
    )
    pasted = functional.grid_sample(
        masks.flatten(0, 1)[:, None], grid.flatten(0, 1), align_corners=False
    )
    return pasted.reshape(batch, count, height, width)


def _relative(length: int, stride: int, near: Tensor, far: Tensor) -> Tensor:
    """Return `(B, K, length)` places of cells: -1 at a box's near side, 1 at its far side."""
    at = torch.arange(length, device=near.device) * stride + stride // 2 + 0.5
    size = (far - near).clamp(min=1e-6)[..., None]
    return (at - near[..., None]) / size * 2 - 1


def visible_things(masks: Tensor, valid: Tensor, hidden: float) -> Tensor:
    """Return `(B, K)`: which things better ones do not hide.

    A thing is dropped if more than a share of it lies in the things kept before it, or if it has
    no cell.

    Args:
        masks: `(B, K, h, w)` bool, best first.
        valid: `(B, K)` bool.
        hidden: That share.
    """
    taken = torch.zeros_like(masks[:, 0])
    kept = []
    for mask, used in zip(masks.unbind(1), valid.unbind(1), strict=True):
        area = mask.sum((1, 2))
        covered = (mask & taken).sum((1, 2))
        keep = used & (area > 0) & (covered <= hidden * area)
        taken = taken | (mask & keep[:, None, None])
        kept.append(keep)
    return torch.stack(kept, 1)


def stuff_regions(
    logits: Tensor, taken: Tensor, inside: Tensor, stride: int, config: Inference
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the region of each stuff class.

    Args:
        logits: `(B, 1 + S, h, w)`; the first class is of all things.
        taken: `(B, h, w)` bool: a sure thing is there.
        inside: `(B, h, w)` bool: the image is there, and not the canvas around it.
        stride: Pixels between cells.
        config: Least area.

    Returns:
        `(B, S, h, w)` bool regions, `(B, S)` scores (the mean probability of the class in its
        region) and `(B, S)` bool: large enough.
    """
    probability = logits.float().softmax(1)[:, 1:]
    classes = torch.arange(1, logits.shape[1], device=logits.device)
    free = inside & ~taken
    regions = (logits.argmax(1)[:, None] == classes[:, None, None]) & free[:, None]
    cells = regions.sum((2, 3))
    scores = (probability * regions).sum((2, 3)) / cells.clamp(min=1)
    share = config.stuff_area / _REFERENCE_AREA
    enough = (cells > 0) & (cells >= share * inside.sum((1, 2))[:, None])
    return regions, scores, enough
