"""Which kernel answers for which entity: the cheapest one-to-one matching."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional

from entitybench.baselines.knet.config import Losses

_SMALL = 1e-3
_ALPHA, _GAMMA = 0.25, 2.0


def match(cost: Tensor, wanted: Tensor) -> Tensor:
    """Match kernels and entities, one to one, at the least total cost.

    Args:
        cost: `(B, N, G)`; not finite counts as very dear.
        wanted: `(B, G)` bool: the entity is there.

    Returns:
        `(B, N)` int64: the entity's slot, or -1. With more entities than kernels the dearest
        entities remain without one.
    """
    host = torch.nan_to_num(cost.detach().float(), nan=1e6, posinf=1e6, neginf=-1e6).cpu().numpy()
    there = wanted.cpu().numpy()
    result = np.full(cost.shape[:2], -1, dtype=np.int64)
    for row, table, present in zip(result, host, there, strict=True):
        slots = np.flatnonzero(present)
        kernels, columns = linear_sum_assignment(table[:, slots])
        row[kernels] = slots[columns]
    return torch.from_numpy(result).to(cost.device)


def mask_cost(logits: Tensor, truth: Tensor, weights: Losses) -> Tensor:
    """Return the `(B, N, G)` cost of masks: how little they agree, pixel by pixel and by Dice.

    Args:
        logits: `(B, N, h, w)`.
        truth: `(B, G, h, w)` float32 0/1.
        weights: Of the two.
    """
    probability, target = logits.float().sigmoid().flatten(2), truth.flatten(2)
    shared = torch.bmm(probability, target.transpose(1, 2))
    mine, theirs = probability.sum(2)[..., None], target.sum(2)[:, None]
    pixels = target.shape[2]
    # p·g + (1 - p)·(1 - g), averaged
    agree = (2 * shared + pixels - mine - theirs) / pixels
    squares = (probability * probability).sum(2)[..., None]
    dice = 2 * shared / (squares + theirs + 2 * _SMALL)
    return -weights.mask * agree - weights.dice * dice


def class_cost(logits: Tensor, labels: Tensor, weights: Losses) -> Tensor:
    """Return the `(B, N, G)` cost of calling kernels by the entities' classes.

    Args:
        logits: `(B, N, K)`.
        labels: `(B, G)` int64 columns.
        weights: Of the cost.
    """
    logits = logits.float()
    probability = logits.sigmoid()
    as_positive = _ALPHA * (1 - probability) ** _GAMMA * functional.softplus(-logits)
    as_negative = (1 - _ALPHA) * probability**_GAMMA * functional.softplus(logits)
    columns = labels[:, None].expand(-1, logits.shape[1], -1)
    return weights.entityness * (as_positive - as_negative).gather(2, columns)
