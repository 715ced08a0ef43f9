"""AP^b: AP of boxes instead of masks, the paper's Table 1.

Boxes are the tight boxes of the final maps. Unlike the entities in them they overlap, so matching
them is COCO's greedy assignment in earnest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from entitybench.metrics.matching import ALL_BITS, Pairs, assign
from entitybench.metrics.protocol import (
    IOU_THRESHOLDS,
    CrowdRule,
    SizeRule,
    within_ranges,
)
from entitybench.metrics.ragged import images_of, offsets_of
from entitybench.metrics.records import MatchRecords
from entitybench.metrics.shared_pixels import tables_of

_PAIRS_AT_ONCE = 1 << 21  # bounds the memory, not the result


def box_records(records: MatchRecords) -> MatchRecords:
    """Match boxes instead of masks.

    Sizes, of truth and of predictions, are areas of boxes. `official` takes sides as the released
    code does: largest minus least coordinate without + 1. A crowd's box is a crowd, if crowds
    are ignored; void has no box.

    Returns:
        Records to accumulate as any others; their tables are those of the masks.

    Raises:
        MissingDataError: The records hold no tables.
    """
    tables = tables_of(records)
    shorter = 1 if records.protocol.size is SizeRule.BOX else 0
    truth = _Boxes.of(tables.truth_boxes, shorter)
    crowds = _Boxes.of(tables.crowd_boxes, shorter)
    predictions = _Boxes.of(tables.prediction_boxes, shorter)
    sizes, areas = truth.areas, predictions.areas
    of_predictions = records.detection_offsets
    parts = list(_close(predictions, of_predictions, truth, records.truth_offsets))
    if records.protocol.crowd is CrowdRule.IGNORE:
        close = _close(predictions, of_predictions, crowds, tables.crowd_offsets, crowd=True)
        parts += [replace(near, truth=near.truth + len(sizes)) for near in close]
    truth_ignored = np.ones((len(sizes) + len(crowds.areas), 4), dtype=bool)
    truth_ignored[: len(sizes)] = ~within_ranges(sizes)
    matched, ignored, partners = assign(_joined(parts), truth_ignored, len(areas))
    outside = np.where(within_ranges(areas), 0, ALL_BITS).astype(np.uint16)
    return replace(
        records,
        matched=matched,
        ignored=ignored | (outside & ~matched),
        partners=partners,
        areas=areas,
        truth_sizes=sizes.astype(np.float64),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Boxes:
    """Boxes by side, `(K,)` each: the pairs are many, and columns are fast."""

    left: NDArray[np.int32]
    top: NDArray[np.int32]
    right: NDArray[np.int32]
    bottom: NDArray[np.int32]
    areas: NDArray[np.int64]

    @classmethod
    def of(cls, boxes: NDArray[np.int32], shorter: int) -> _Boxes:
        left, top, width, height = np.ascontiguousarray(boxes.T)
        width, height = np.maximum(width - shorter, 0), np.maximum(height - shorter, 0)
        areas = width.astype(np.int64) * height
        return cls(left, top, left + width, top + height, areas)


def _close(
    predictions: _Boxes,
    of_predictions: NDArray[np.int64],
    truth: _Boxes,
    of_truth: NDArray[np.int64],
    *,
    crowd: bool = False,
) -> Iterator[Pairs]:
    """Yield the pairs of one image that reach the least threshold; ids are rows."""
    owners = images_of(of_predictions)
    upto = offsets_of(np.diff(of_truth)[owners])
    begin = 0
    while begin < len(owners):
        end = max(begin + 1, int(np.searchsorted(upto, upto[begin] + _PAIRS_AT_ONCE)) - 1)
        rank = np.repeat(np.arange(begin, end), np.diff(upto[begin : end + 1]))
        other = np.arange(len(rank)) + (of_truth[owners[rank]] + upto[begin] - upto[rank])
        shared = _shared(predictions, rank, truth, other)
        near = np.flatnonzero(shared)
        rank, other, shared = rank[near], other[near], shared[near]
        own = predictions.areas[rank]
        iou = shared / (own if crowd else own + truth.areas[other] - shared)
        held = iou >= IOU_THRESHOLDS[0]
        yield Pairs(rank[held], other[held], iou[held], np.full(np.count_nonzero(held), crowd))
        begin = end


def _shared(
    a: _Boxes, rows: NDArray[np.int64], b: _Boxes, others: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the pixels that each pair of boxes shares."""
    width = np.minimum(a.right[rows], b.right[others]) - np.maximum(a.left[rows], b.left[others])
    height = np.minimum(a.bottom[rows], b.bottom[others]) - np.maximum(a.top[rows], b.top[others])
    shared: NDArray[np.int64] = np.maximum(width, 0).astype(np.int64) * np.maximum(height, 0)
    return shared


def _joined(parts: list[Pairs]) -> Pairs:
    none = np.zeros(0, dtype=np.int64)
    return Pairs(
        np.concatenate([none, *(part.rank for part in parts)]),
        np.concatenate([none, *(part.truth for part in parts)]),
        np.concatenate([np.zeros(0), *(part.iou for part in parts)]),
        np.concatenate([np.zeros(0, dtype=bool), *(part.is_crowd for part in parts)]),
    )
