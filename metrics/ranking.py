"""Precision over recall of ranked predictions whose images count any number of times.

A resample of images is a weight per image. The predictions are sorted once; a resample is then
a weighted cumulative sum, taken at the true positives alone, where every step of the curve is.
Weights of 1 give the bits of `accumulate`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from entitybench.metrics.protocol import AREA_NAMES, IOU_THRESHOLDS, RECALL_POINTS
from entitybench.metrics.ragged import images_of
from entitybench.metrics.records import MatchRecords

NUM_THRESHOLDS = len(IOU_THRESHOLDS)
Weights = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """One way of counting predictions and true entities: an area range, an origin.

    Attributes:
        matched: `(D,)` uint16 bits of the thresholds matched at.
        ignored: `(D,)` uint16 bits of those at which it counts neither for nor against.
        positives: `(I,)` int64 true entities that count.
    """

    matched: NDArray[np.uint16]
    ignored: NDArray[np.uint16]
    positives: NDArray[np.int64]


def area_column(records: MatchRecords, area: str = "all") -> Column:
    """Return the column of an area range (`AREA_NAMES`)."""
    index = AREA_NAMES.index(area)
    return Column(records.matched[:, index], records.ignored[:, index], records.positives[:, index])


@dataclass(frozen=True, slots=True, eq=False)
class _Events:
    """The true positives at one threshold, in order of rank.

    What counts at this threshold differs little from what counts at the last one (the base):
    `odd_*` list where, so that what a hit has seen is two lookups and not a sum of its own.
    """

    images: NDArray[np.int64]
    base_before: NDArray[np.int64]
    odd_images: NDArray[np.int64]
    odd_signs: NDArray[np.float64]
    odd_before: NDArray[np.int64]


class RankedColumn:
    """A column whose predictions are ranked, ready for any weights.

    Predictions rank as `accumulate` ranks them. The copies of a prediction that a weight stands
    for rank next to each other.

    Attributes:
        positives: `(I,)` float64 true entities that count.
    """

    def __init__(self, records: MatchRecords, column: Column) -> None:
        order = np.argsort(-records.scores, kind="stable")
        images = images_of(records.detection_offsets)[order]
        counted = ~column.ignored[order]
        hits = column.matched[order] & counted
        self.positives = column.positives.astype(np.float64)
        base = _bit(counted, NUM_THRESHOLDS - 1)
        self._base_images = images[base]
        base_before = np.cumsum(base, dtype=np.int64)
        self._events = [
            _events(images, _bit(hits, t), _bit(counted, t), base, base_before)
            for t in range(NUM_THRESHOLDS)
        ]

    def precision(self, weights: Weights) -> NDArray[np.float64]:
        """Return precision at each recall point.

        Args:
            weights: `(I,)` whole numbers as float64: how often each image counts.

        Returns:
            `(T, R)`; NaN where no true entity counts.
        """
        positives = float(weights @ self.positives)
        if not positives:
            return np.full((NUM_THRESHOLDS, len(RECALL_POINTS)), np.nan)
        needed = hits_needed(positives)
        base = _cumulated(weights[self._base_images])
        rows = [
            sampled_precision(*self._hits_and_seen(events, weights, base), needed)
            for events in self._events
        ]
        return np.stack(rows)

    def average_precision(self, weights: Weights | None = None) -> NDArray[np.float64]:
        """Return `(T,)` AP at each IoU threshold; every image counts once unless weighted."""
        every = np.ones(len(self.positives)) if weights is None else weights
        return np.asarray(self.precision(every).mean(axis=1))

    @staticmethod
    def _hits_and_seen(
        events: _Events, weights: Weights, base: Weights
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        hits = np.cumsum(weights[events.images])
        seen = base[events.base_before]
        if events.odd_images.size:
            odd = _cumulated(weights[events.odd_images] * events.odd_signs)
            seen += odd[events.odd_before]
        return hits, seen


def average_recall(column: Column) -> float:
    """Return recall averaged over the IoU thresholds; NaN where no true entity counts."""
    positives = int(column.positives.sum())
    hits = sum(int(np.count_nonzero(bits)) for bits in bits_of(column.matched & ~column.ignored))
    return hits / positives / NUM_THRESHOLDS if positives else math.nan


def hits_needed(positives: float) -> NDArray[np.float64]:
    """Return the least number of hits with which each recall point is reached.

    It is compared as a quotient, as COCO does: 35 of 100 are a recall of .35, which the point
    .35000000000000003 is not.

    >>> hits_needed(100)[34:36]
    array([34., 36.])
    """
    needed = np.ceil(RECALL_POINTS * positives)
    needed -= (needed - 1) / positives >= RECALL_POINTS
    needed += needed / positives < RECALL_POINTS
    return needed


def sampled_precision(
    hits: NDArray[np.float64], seen: NDArray[np.float64], needed: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the greatest precision from each recall point on; 0 where it is not reached.

    Args:
        hits: `(E,)` true positives up to each of them, ascending.
        seen: `(E,)` predictions that count up to there.
        needed: `(R,)` ascending hits at which the points are reached.
    """
    first = np.searchsorted(hits, needed, side="left")
    reached = int(np.searchsorted(first, hits.size, side="left"))
    at_points = np.zeros(needed.size)
    if reached:
        precision = hits / (seen + np.spacing(1.0))
        best = np.maximum.reduceat(precision, first[:reached])
        at_points[:reached] = np.maximum.accumulate(best[::-1])[::-1]
    return at_points


def _events(
    images: NDArray[np.int64],
    is_hit: NDArray[np.bool_],
    is_counted: NDArray[np.bool_],
    base: NDArray[np.bool_],
    base_before: NDArray[np.int64],
) -> _Events:
    hits = np.flatnonzero(is_hit)
    odd = np.flatnonzero(is_counted != base)
    return _Events(
        images[hits],
        base_before[hits],
        images[odd],
        np.where(is_counted[odd], 1.0, -1.0),
        np.searchsorted(odd, hits, side="right"),
    )


def _cumulated(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the sums of the first 0, 1, 2, … values."""
    sums = np.zeros(values.size + 1)
    np.cumsum(values, out=sums[1:])
    return sums


def _bit(packed: NDArray[np.uint16], t: int) -> NDArray[np.bool_]:
    bits: NDArray[np.bool_] = (packed & np.uint16(1 << t)) != 0
    return bits


def bits_of(packed: NDArray[np.uint16]) -> Iterator[NDArray[np.bool_]]:
    """Yield whether each item's bit is set, threshold by threshold."""
    return (_bit(packed, t) for t in range(NUM_THRESHOLDS))
