"""From outputs to boxes: proposals from anchors, detections from proposals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from entitybench.baselines.entity.nms import suppress
from entitybench.baselines.panopticfpn.boxes import areas, clip, decode
from entitybench.baselines.panopticfpn.config import Inference, Proposals

PROPOSAL_SCALE = (1.0, 1.0)
BOX_SCALE = (10.0, 5.0)


class Found(NamedTuple):
    """K boxes of each image, best first.

    Attributes:
        boxes: `(B, K, 4)` x0, y0, x1, y1 in pixels.
        scores: `(B, K)` float32.
        labels: `(B, K)` int64.
        valid: `(B, K)` bool: the slot is used.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    valid: Tensor


def propose(
    logits: Tensor,
    changes: Tensor,
    anchors: Tensor,
    lengths: Sequence[int],
    sizes: Tensor,
    config: Proposals,
    *,
    training: bool,
) -> tuple[Tensor, Tensor]:
    """Return `(B, N, 4)` proposals, best first, and `(B, N)` whether the slot is used.

    Args:
        logits: `(B, A)`.
        changes: `(B, A, 4)`.
        anchors: `(A, 4)`.
        lengths: Anchors of each level. Levels do not suppress each other.
        sizes: `(B, 2)` of the images.
        config: How many.
        training: Whether the larger number is looked at.
    """
    most = config.per_level if training else config.per_level_test
    boxes, scores = [], []
    first = 0
    for length in lengths:
        level = slice(first, first + length)
        score, order = logits[:, level].topk(min(most, length), dim=1)
        decoded = decode(anchors[level][order], _take(changes[:, level], order), PROPOSAL_SCALE)
        decoded = clip(decoded, sizes)
        valid = (areas(decoded) > 0) & score.isfinite()
        keep = suppress(decoded, torch.zeros_like(order), valid, config.nms_iou)
        boxes.append(decoded)
        scores.append(score.masked_fill(~keep, -torch.inf))
        first += length
    score, order = _top(torch.cat(scores, 1), config.kept)
    return _take(torch.cat(boxes, 1), order), score > -torch.inf


def detect(
    logits: Tensor,
    changes: Tensor,
    proposals: Tensor,
    valid: Tensor,
    sizes: Tensor,
    config: Inference,
) -> Found:
    """Pick the best pairs of proposal and class, and drop duplicates of a class.

    Args:
        logits: `(B, N, K + 1)`; the last says that there is nothing.
        changes: `(B, N, K, 4)`.
        proposals: `(B, N, 4)`.
        valid: `(B, N)`.
        sizes: `(B, 2)` of the images.
        config: Thresholds.
    """
    probability = logits.float().softmax(-1)[..., :-1]
    count = probability.shape[2]
    usable = (probability > config.threshold) & valid[..., None]
    ranked = torch.where(usable, probability, -1.0).flatten(1)
    score, place = _top(ranked, config.before_nms)
    change = _take(changes.float().flatten(1, 2), place)
    boxes = clip(decode(_take(proposals, place // count), change, BOX_SCALE), sizes)
    labels = place % count
    usable = (score > 0) & (areas(boxes) > 0)
    keep = suppress(boxes, labels, usable, config.nms_iou)
    score, order = _top(torch.where(keep, score, -1.0), config.most)
    used = max(int((score > 0).sum(1).max()), 1)  # waits for the device
    score, order = score[:, :used], order[:, :used]
    return Found(_take(boxes, order), score.clamp(min=0), labels.gather(1, order), score > 0)


def _top(values: Tensor, most: int) -> tuple[Tensor, Tensor]:
    best, order = values.topk(min(most, values.shape[1]), dim=1)
    return best, order


def _take(rows: Tensor, index: Tensor) -> Tensor:
    return rows.gather(1, index[..., None].expand(-1, -1, rows.shape[2]))
