"""From maps to candidates: peaks, fusion of kernels, and scores that know the mask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

_NARROW_LEVELS = 3  # the first levels are smoothed over 3×3 cells, the next over 5×5
_INSIDE = 0.4  # a score counts the probabilities above it


class Found(NamedTuple):
    """Kernels of N candidates per image.

    Attributes:
        scores: `(B, N)` float32 in [0, 1]; 0 is no candidate.
        numbers: `(B, N)` int64 channel of the centre or the region map.
        kernels: `(B, N, D)`.
    """

    scores: Tensor
    numbers: Tensor
    kernels: Tensor

    def best(self, most: int) -> Found:
        """Return the best, at most so many and no more than there are, in descending order."""
        used = max(1, min(most, int((self.scores > 0).sum(1).max())))
        scores, order = self.scores.topk(used, dim=1)
        rows = order[..., None].expand(-1, -1, self.kernels.shape[2])
        return Found(scores, self.numbers.gather(1, order), self.kernels.gather(1, rows))


def peaks(logits: Tensor, number: int) -> Tensor:
    """Return the smoothed scores of a level's centre map, 0 where a neighbour's is greater.

    Args:
        logits: `(B, C, h, w)`.
        number: Of the level, from 0.
    """
    scores = logits.sigmoid()
    size = 3 if number < _NARROW_LEVELS else 5
    scores = (scores + functional.avg_pool2d(scores, size, 1, size // 2)) / 2
    return scores * (functional.max_pool2d(scores, 3, 1, 1) == scores)


def find_centres(
    centres: Sequence[Tensor], kernels: Sequence[Tensor], per_level: int, threshold: float
) -> Found:
    """Return the best peaks of all levels with the numbers at their places, best first."""
    parts = []
    for number, (logits, values) in enumerate(zip(centres, kernels, strict=True)):
        scores = peaks(logits, number).flatten(1)
        scores, order = scores.topk(min(per_level, scores.shape[1]), dim=1)
        cells = values.flatten(2).transpose(1, 2)
        channel, cell = order // cells.shape[1], order % cells.shape[1]
        rows = cell[..., None].expand(-1, -1, cells.shape[2])
        scores = torch.where(scores > threshold, scores, 0.0)
        parts.append(Found(scores, channel, cells.gather(1, rows)))
    found = Found(*(torch.cat(kind, dim=1) for kind in zip(*parts, strict=True)))
    return found.best(found.scores.shape[1])


def fuse(found: Found, similar: float, *, apart: bool) -> Found:
    """Average the kernels that belong to one entity (paper, section 3.3: kernel fusion).

    Each candidate goes to the first, in order of scores, whose kernel is similar. It survives if
    that is itself, and takes the mean of all that went to it. As in the released code a candidate
    that went elsewhere still draws others to itself, and these are lost with it.

    Args:
        found: Candidates, best first.
        similar: Least cosine of two kernels of one entity.
        apart: Whether only kernels of one class are compared.
    """
    valid = found.scores > 0
    direction = functional.normalize(found.kernels, dim=2)
    linked = torch.bmm(direction, direction.transpose(1, 2)) >= similar
    if apart:
        linked &= found.numbers[:, :, None] == found.numbers[:, None, :]
    own = torch.eye(linked.shape[1], dtype=torch.bool, device=linked.device)
    linked = (linked | own).triu() & valid[:, :, None] & valid[:, None, :]
    first = linked.float().argmax(1)  # of equal ones, argmax takes the first
    places = torch.arange(linked.shape[1], device=linked.device)
    members = ((first[:, None, :] == places[:, None]) & valid[:, None, :]).float()
    count = members.sum(2, keepdim=True).clamp(min=1)
    survives = valid & (first == places)
    return Found(
        torch.where(survives, found.scores, 0.0),
        found.numbers,
        torch.bmm(members, found.kernels) / count,
    )


def mean_kernel(masks: Tensor, kernels: Tensor) -> Tensor:
    """Return the sum of a level's kernels over each region, over the cells of the whole level.

    So the kernel of a small region is small: the released code pools the masked map, and its
    weights expect that.

    Args:
        masks: `(B, R, h, w)` float32.
        kernels: `(B, C, h, w)`.

    Returns:
        `(B, R, C)`.
    """
    total = torch.einsum("brhw,bchw->brc", masks, kernels)
    return total / (masks.shape[-2] * masks.shape[-1])


class LevelRegions(NamedTuple):
    """Classes that a level found.

    Attributes:
        scores: `(B, R)` mean score over the cells where the class is the best; 0 where it is not
            found.
        kernels: `(B, R, C)`, before the generator.
    """

    scores: Tensor
    kernels: Tensor


def find_regions(logits: Tensor, kernels: Tensor, threshold: float) -> LevelRegions:
    """Give each cell to its best class, and read score and kernel of each class."""
    scores = logits.sigmoid()
    numbers = torch.arange(logits.shape[1], device=logits.device)[:, None, None]
    masks = (logits.argmax(1, keepdim=True) == numbers).float()
    mean = (scores * masks).sum((2, 3)) / masks.sum((2, 3)).clamp(min=1)
    return LevelRegions(torch.where(mean > threshold, mean, 0.0), mean_kernel(masks, kernels))


def fuse_regions(scores: Tensor, kernels: Tensor) -> Found:
    """Average each class of stuff over the levels that found it; `all things` is left out.

    Args:
        scores: `(B, levels, R)`; 0 where a level did not find the class.
        kernels: `(B, levels, R, D)`.
    """
    found = (scores > 0).float()
    count = found.sum(1).clamp(min=1)
    mean = (kernels * found[..., None]).sum(1) / count[..., None]
    total = scores.sum(1) / count
    numbers = torch.arange(total.shape[1], device=total.device).expand_as(total)
    return Found(total[:, 1:], numbers[:, 1:], mean[:, 1:])


def mask_scores(masks: Tensor) -> Tensor:
    """Return the `(B, K)` mean probability inside each mask; 0 where it is empty."""
    inside = masks * (masks > _INSIDE)
    return inside.sum((2, 3)) / (masks > _INSIDE).sum((2, 3)).clamp(min=1)


def mask_boxes(masks: Tensor, stride: int) -> Tensor:
    """Return `(B, K, 4)` float32 boxes x0, y0, x1, y1 around the cells above .5; zeros if none."""
    inside = masks > 0.5
    sides = []
    for cells in (inside.any(2), inside.any(3)):
        length = cells.shape[2]
        places = torch.arange(length, device=masks.device)
        low = torch.where(cells, places, length).amin(2)
        sides += [low * cells.any(2), torch.where(cells, places + 1, 0).amax(2)]
    return torch.stack([sides[0], sides[2], sides[1], sides[3]], dim=-1).float() * stride
