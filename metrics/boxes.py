"""AP^b: AP of boxes instead of masks, the paper's Table 1.

Boxes are the tight boxes of the final maps, or what a detector without masks found
(`match_detections`). Unlike entities they overlap, so matching them is COCO's greedy assignment
in earnest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from entitybench.candidates import checked_scores
from entitybench.entity_map import EntityMap
from entitybench.metrics.matching import ALL_BITS, NO_PARTNER, ImageMatches, Pairs, assign
from entitybench.metrics.protocol import (
    IOU_THRESHOLDS,
    MAX_DETECTIONS,
    STRICT,
    CrowdRule,
    Protocol,
    SizeRule,
    within_ranges,
)
from entitybench.metrics.ragged import images_of, offsets_of
from entitybench.metrics.records import MatchRecords
from entitybench.metrics.shared_pixels import tables_of

_PAIRS_AT_ONCE = 1 << 17  # what the cache holds; it does not change the result


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


# --- boxes that are no entity's: a detector's ---------------------------------


def match_detections(
    truth: EntityMap, boxes: ArrayLike, scores: ArrayLike, protocol: Protocol = STRICT
) -> ImageMatches:
    """Match the boxes that a detector found in one image to the boxes of its true entities.

    The rules are those of `box_records`; a box may lie anywhere, in fractions of pixels.

    Args:
        truth: N entities and any crowds.
        boxes: `(P, 4)` x, y, width and height in pixels.
        scores: `(P,)` in [0, 1]. The best 100 take part; ties keep their order.
        protocol: Crowd rule, and how boxes are measured.

    Raises:
        FormatError: Scores of another number, or out of range.
    """
    found = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    checked = checked_scores(scores, len(found))
    best = np.argsort(-checked, kind="stable")[: MAX_DETECTIONS[-1]]
    shorter = 1 if protocol.size is SizeRule.BOX else 0
    count = truth.num_entities
    wanted = _corners(truth.boxes[1:].astype(np.float64), shorter)
    own = _corners(found[best], shorter)
    sizes, areas = _areas(wanted), _areas(own)
    is_crowd = np.arange(len(wanted)) >= count
    shared = _areas(_common(own, wanted))
    union = np.where(is_crowd, areas[:, None], areas[:, None] + sizes - shared)
    iou = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    possible = ~is_crowd | (protocol.crowd is CrowdRule.IGNORE)
    rank, other = np.nonzero((iou >= IOU_THRESHOLDS[0]) & possible)
    pairs = Pairs(rank, other, iou[rank, other], is_crowd[other])
    matched, ignored, partners = assign(pairs, is_crowd[:, None] | ~within_ranges(sizes), len(own))
    outside = np.where(within_ranges(areas), 0, ALL_BITS).astype(np.uint16)
    return ImageMatches(
        checked[best],
        (best + 1).astype(np.int32),
        areas.astype(np.int64),
        matched,
        ignored | (outside & ~matched),
        (iou * ~is_crowd).max(axis=1, initial=0.0),
        np.where(partners == NO_PARTNER, NO_PARTNER, partners + 1).astype(np.int32),
        sizes[:count],
        truth.shape[0] * truth.shape[1],
        len(found),
        int(np.count_nonzero(_areas(_corners(found, shorter)) == 0)),
    )


def _corners(boxes: NDArray[np.float64], shorter: int) -> NDArray[np.float64]:
    sides = np.maximum(boxes[:, 2:] - shorter, 0)
    return np.concatenate([boxes[:, :2], boxes[:, :2] + sides], axis=1)


def _areas(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the areas of `(…, 4)` boxes; of none where a far side lies before the near one."""
    sides = np.maximum(corners[..., 2:] - corners[..., :2], 0)
    areas: NDArray[np.float64] = sides[..., 0] * sides[..., 1]
    return areas


def _common(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the `(A, B, 4)` boxes that each of A shares with each of B."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    return np.concatenate([low, high], axis=2)
