"""AP^b: AP of boxes instead of masks, the paper's Table 1.

Boxes are the tight boxes of the final maps. Unlike the entities in them they overlap, so matching
them is COCO's greedy assignment in earnest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

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
    truth = _sides(tables.truth_boxes, shorter)
    crowds = _sides(tables.crowd_boxes, shorter)
    predictions = _sides(tables.prediction_boxes, shorter)
    sizes, areas = truth[:, 2] * truth[:, 3], predictions[:, 2] * predictions[:, 3]
    of_predictions = records.detection_offsets
    parts = list(_close(predictions, of_predictions, truth, records.truth_offsets))
    if records.protocol.crowd is CrowdRule.IGNORE:
        close = _close(predictions, of_predictions, crowds, tables.crowd_offsets, crowd=True)
        parts += [replace(near, truth=near.truth + len(truth)) for near in close]
    truth_ignored = np.ones((len(truth) + len(crowds), 4), dtype=bool)
    truth_ignored[: len(truth)] = ~within_ranges(sizes)
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


def _sides(boxes: NDArray[np.int32], shorter: int) -> NDArray[np.int64]:
    wide = boxes.astype(np.int64)
    wide[:, 2:] = np.maximum(wide[:, 2:] - shorter, 0)
    return wide


def _close(
    predictions: NDArray[np.int64],
    of_predictions: NDArray[np.int64],
    truth: NDArray[np.int64],
    of_truth: NDArray[np.int64],
    *,
    crowd: bool = False,
) -> Iterator[Pairs]:
    """Yield the pairs of one image that reach the least threshold; ids are rows."""
    owners = images_of(of_predictions)
    options = np.diff(of_truth)[owners]
    upto = offsets_of(options)
    begin = 0
    while begin < len(owners):
        end = max(begin + 1, int(np.searchsorted(upto, upto[begin] + _PAIRS_AT_ONCE)) - 1)
        rank = np.repeat(np.arange(begin, end), options[begin:end])
        nth = np.arange(len(rank)) - (upto[rank] - upto[begin])
        other = of_truth[owners[rank]] + nth
        iou = _ious(predictions[rank], truth[other], crowd=crowd)
        held = iou >= IOU_THRESHOLDS[0]
        yield Pairs(rank[held], other[held], iou[held], np.full(np.count_nonzero(held), crowd))
        begin = end


def _ious(a: NDArray[np.int64], b: NDArray[np.int64], *, crowd: bool) -> NDArray[np.float64]:
    """Return the IoU of each pair; in a crowd the share of a; 0 of nothing."""
    corner = np.maximum(a[:, :2], b[:, :2])
    sides = np.minimum(a[:, :2] + a[:, 2:], b[:, :2] + b[:, 2:]) - corner
    shared = np.where((sides > 0).all(axis=1), sides[:, 0] * sides[:, 1], 0)
    own = a[:, 2] * a[:, 3]
    union = own if crowd else own + b[:, 2] * b[:, 3] - shared
    return np.where(shared > 0, shared / np.maximum(union, 1), 0.0)


def _joined(parts: list[Pairs]) -> Pairs:
    none = np.zeros(0, dtype=np.int64)
    return Pairs(
        np.concatenate([none, *(part.rank for part in parts)]),
        np.concatenate([none, *(part.truth for part in parts)]),
        np.concatenate([np.zeros(0), *(part.iou for part in parts)]),
        np.concatenate([np.zeros(0, dtype=bool), *(part.is_crowd for part in parts)]),
    )
