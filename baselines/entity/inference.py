"""From the outputs of all locations to scored boxes without duplicates."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from entitybench.baselines.entity.config import Inference
from entitybench.baselines.entity.grid import Grid
from entitybench.baselines.entity.head import HeadOutputs
from entitybench.baselines.entity.nms import suppress


@dataclass(frozen=True, slots=True)
class Detections:
    """K slots per image, best first.

    Attributes:
        index: `(B, K)` int64 location.
        valid: `(B, K)` bool: the slot is used.
        scores: `(B, K)` float32, the root of entityness × centerness.
        boxes: `(B, K, 4)` float32 x0, y0, x1, y1 in pixels of the canvas.
        labels: `(B, K)` int64.
    """

    index: Tensor
    valid: Tensor
    scores: Tensor
    boxes: Tensor
    labels: Tensor


def decode_boxes(distances: Tensor, grid: Grid) -> Tensor:
    """Return `(B, L, 4)` boxes x0, y0, x1, y1 from distances in strides."""
    reach = distances * grid.strides[:, None]
    return torch.cat([grid.points - reach[..., :2], grid.points + reach[..., 2:]], dim=-1)


def detect(outputs: HeadOutputs, grid: Grid, inference: Inference) -> Detections:
    """Pick the best locations, drop duplicates, keep the best that remain."""
    place, score = _best_of_levels(outputs, grid, inference)
    num_classes = outputs.entityness.shape[2]
    location, label = place // num_classes, place % num_classes
    boxes = _take(decode_boxes(outputs.distances.float(), grid), location)
    apart = inference.nms_classes == "apart"
    keep = suppress(
        boxes,
        label if apart else torch.zeros_like(label),
        score > 0,
        inference.nms_iou,
        rounds=inference.nms_rounds,
        most=inference.most,
    )
    final, order = _top(torch.where(keep, score, -1.0), inference.most)
    if not inference.nms_rounds:  # asking the device is allowed: leave empty slots out
        used = max(int((final > 0).sum(1).max()), 1)
        final, order = final[:, :used], order[:, :used]
    return Detections(
        location.gather(1, order),
        final > 0,
        final.clamp(min=0).sqrt(),
        _take(boxes, order),
        label.gather(1, order),
    )


def _best_of_levels(
    outputs: HeadOutputs, grid: Grid, inference: Inference
) -> tuple[Tensor, Tensor]:
    """Return `(B, N)` places (location × class) and scores, best first; -1 is no candidate."""
    entityness = outputs.entityness.float().sigmoid()
    product = entityness * outputs.centerness.float().sigmoid()[..., None]
    tested = product if inference.threshold_with_centerness else entityness
    ranked = torch.where(tested > inference.threshold, product, -1.0)
    places, scores, first = [], [], 0
    for part in torch.split(ranked, list(grid.lengths), dim=1):
        score, place = _top(part.flatten(1), inference.per_level)
        places.append(place + first)
        scores.append(score)
        first += part.shape[1] * part.shape[2]
    score, order = torch.cat(scores, 1).sort(dim=1, descending=True, stable=True)
    place = torch.cat(places, 1).gather(1, order)
    most = inference.before_nms or score.shape[1]
    return place[:, :most], score[:, :most]


def _top(values: Tensor, most: int) -> tuple[Tensor, Tensor]:
    best, order = values.topk(min(most, values.shape[1]), dim=1)
    return best, order


def _take(rows: Tensor, index: Tensor) -> Tensor:
    return rows.gather(1, index[..., None].expand(-1, -1, rows.shape[2]))
