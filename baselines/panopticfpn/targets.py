"""What anchors and proposals are trained on, and which of them are drawn."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from entitybench.baselines.entity.assignment import random_keys
from entitybench.baselines.panopticfpn.boxes import areas, pair_ious


class Drawn(NamedTuple):
    """Places drawn for training: first P slots for foreground, then slots for background.

    Attributes:
        place: `(B, S)` int64 among what it was drawn from.
        valid: `(B, S)` bool: the slot is used.
        positive: `(B, S)` bool: used, and foreground.
        slots: P.
    """

    place: Tensor
    valid: Tensor
    positive: Tensor
    slots: int


def assign_anchors(
    anchors: Tensor, boxes: Tensor, wanted: Tensor, foreground: float, background: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Tell what each anchor is trained on.

    An anchor is foreground if it shares enough with a box, or as much with one as the best anchor
    of that box does. It answers for the box that it shares most with.

    Args:
        anchors: `(A, 4)`.
        boxes: `(B, G, 4)` of the entities.
        wanted: `(B, G)` bool: the entity is there and is to be found.
        foreground: Least IoU.
        background: IoU below which an anchor is background.

    Returns:
        `(B, A)` int64 entity, bool foreground and bool background.
    """
    ious = pair_ious(anchors[None], boxes) * wanted[:, None]
    best, entity = _best(ious)
    of_entity = ious.amax(1, keepdim=True)
    among_best = ((ious == of_entity) & (of_entity > 0)).any(2)
    positive = (best >= foreground) | among_best
    return entity, positive, (best < background) & ~positive


def assign_proposals(
    proposals: Tensor, valid: Tensor, boxes: Tensor, wanted: Tensor, foreground: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Tell what each proposal is trained on: the box that it shares most with, if enough.

    Args:
        proposals: `(B, N, 4)`.
        valid: `(B, N)` bool: the others are neither foreground nor background.
        boxes: `(B, G, 4)` of the entities.
        wanted: `(B, G)` bool.
        foreground: Least IoU.

    Returns:
        `(B, N)` int64 entity, bool foreground and bool background.
    """
    best, entity = _best(pair_ious(proposals, boxes) * wanted[:, None])
    valid = valid & (areas(proposals) > 0)
    positive = valid & (best >= foreground)
    return entity, positive, valid & ~positive


def _best(ious: Tensor) -> tuple[Tensor, Tensor]:
    """Return the greatest IoU and whose it is; without entities 0 and 0."""
    if not ious.shape[2]:
        zero = ious.new_zeros(ious.shape[:2])
        return zero, zero.long()
    best, entity = ious.max(2)
    return best, entity


def draw(positive: Tensor, negative: Tensor, seeds: Tensor, count: int, share: float) -> Drawn:
    """Draw foreground up to a share, and fill up with background; uniform, from the seeds alone.

    Args:
        positive: `(B, N)` bool.
        negative: `(B, N)` bool.
        seeds: `(B,)` int64.
        count: Most places of an image.
        share: Largest share of foreground.
    """
    keys = random_keys(seeds, positive.shape[1])
    slots = min(int(count * share), keys.shape[1])
    fore, first = keys.masked_fill(~positive, torch.inf).topk(slots, largest=False)
    fore_valid = fore < torch.inf
    rest = min(count, keys.shape[1])
    back, second = keys.masked_fill(~negative, torch.inf).topk(rest, largest=False)
    room = count - fore_valid.sum(1, keepdim=True)
    back_valid = (back < torch.inf) & (torch.arange(rest, device=keys.device) < room)
    return Drawn(
        torch.cat([first, second], 1),
        torch.cat([fore_valid, back_valid], 1),
        torch.cat([fore_valid, torch.zeros_like(back_valid)], 1),
        slots,
    )


def mask_targets(ids: Tensor, boxes: Tensor, entity: Tensor, side: int) -> Tensor:
    """Return the part of each entity's mask that lies in a box, on a grid.

    Args:
        ids: `(B, H, W)` int64 in 0…G.
        boxes: `(B, R, 4)` in pixels.
        entity: `(B, R)` int64 slots.
        side: Cells along each side.

    Returns:
        `(B, R, side, side)` float32 0/1: whether the pixel under a cell's centre is the entity's.
    """
    batch, height, width = ids.shape
    fraction = (torch.arange(side, device=ids.device) + 0.5) / side
    ends = boxes[..., None]
    at = ends[..., :2, :] + (ends[..., 2:, :] - ends[..., :2, :]) * fraction  # (B, R, 2, side)
    x = at[:, :, 0].floor().long().clamp(0, width - 1)
    y = at[:, :, 1].floor().long().clamp(0, height - 1)
    index = (y[..., :, None] * width + x[..., None, :]).flatten(1)
    seen = ids.reshape(batch, -1).gather(1, index).reshape(*boxes.shape[:2], side, side)
    return (seen == entity[..., None, None] + 1).float()
