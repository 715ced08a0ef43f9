"""Precision over recall of ranked predictions whose images count any number of times.

A resample of images is a weight per image. The predictions are sorted once; a resample is then
a weighted cumulative sum, taken at the true positives alone, where every step of the curve is.
Weights of 1 give the bits of `accumulate`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from entitybench import kernel
from entitybench.metrics.protocol import AREA_NAMES, IOU_THRESHOLDS, RECALL_POINTS
from entitybench.metrics.ragged import images_of, offsets_of
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


class _Events(NamedTuple):
    """The true positives of D ranked predictions at each of T thresholds.

    A hit is a prediction that is a true positive at any threshold. What counts at one threshold
    differs little from what counts at the last one (the base): `odd_*` list where, so that what
    an event has seen is two lookups and not a sum of its own.

    Attributes:
        base_images: `(B,)` int32 image of each prediction of the base, in order of rank.
        hit_images: `(H,)` int32 image of each hit, in order of rank.
        base_before: `(H,)` int32 how many of the base rank up to each hit, itself included.
        offsets: `(T + 1,)` int64; threshold t owns events `[t]:[t + 1]`.
        events: `(E,)` int32 which hit each event is.
        odd_before: `(E,)` int32 how many odd ones of its threshold rank up to each event.
        odd_offsets: `(T + 1,)` int64; threshold t owns odd ones `[t]:[t + 1]`.
        odd_images: `(O,)` int32.
        odd_signs: `(O,)` int8: 1 counts here and not in the base, -1 the reverse.
    """

    base_images: NDArray[np.int32]
    hit_images: NDArray[np.int32]
    base_before: NDArray[np.int32]
    offsets: NDArray[np.int64]
    events: NDArray[np.int32]
    odd_before: NDArray[np.int32]
    odd_offsets: NDArray[np.int64]
    odd_images: NDArray[np.int32]
    odd_signs: NDArray[np.int8]

    @classmethod
    def of(
        cls, images: NDArray[np.int64], hits: NDArray[np.uint16], counted: NDArray[np.uint16]
    ) -> _Events:
        """List them: images `(D,)` in order of rank, with the bits that are hits and that count."""
        base = _bit(counted, NUM_THRESHOLDS - 1)
        rows = np.flatnonzero(hits)
        odd = [np.flatnonzero(bits != base) for bits in bits_of(counted)]
        signs = [np.where(_bit(counted[o], t), 1, -1) for t, o in enumerate(odd)]
        events = [np.flatnonzero(bits) for bits in bits_of(hits[rows])]
        before = [np.searchsorted(o, rows[e], "right") for o, e in zip(odd, events, strict=True)]
        return cls(
            images[base].astype(np.int32),
            images[rows].astype(np.int32),
            np.cumsum(base, dtype=np.int32)[rows],
            offsets_of([len(e) for e in events]),
            np.concatenate(events).astype(np.int32),
            np.concatenate(before).astype(np.int32),
            offsets_of([len(o) for o in odd]),
            images[np.concatenate(odd)].astype(np.int32),
            np.concatenate(signs).astype(np.int8),
        )


class RankedColumn:
    """A column whose predictions are ranked, ready for any weights.

    Predictions rank as `accumulate` ranks them. The copies of a prediction that a weight stands
    for rank next to each other.

    Attributes:
        positives: `(I,)` float64 true entities that count.
    """

    def __init__(self, records: MatchRecords, column: Column) -> None:
        order = best_first(records.scores)
        counted = ~column.ignored[order]
        hits = column.matched[order] & counted
        images = images_of(records.detection_offsets)[order]
        self.positives = column.positives.astype(np.float64)
        self._events = _Events.of(images, hits, counted)

    def precision(self, weights: Weights) -> NDArray[np.float64]:
        """Return precision at each recall point.

        Args:
            weights: `(…, I)` whole numbers as float64: how often each image counts.

        Returns:
            `(…, T, R)`; NaN where no true entity counts.
        """
        positives = weights @ self.positives
        needed = hits_needed(np.maximum(positives, 1.0))
        rows = weights.reshape(-1, len(self.positives))
        points = needed.reshape(len(rows), -1)
        if kernel.is_active() and len(self.positives):
            curves = kernel.weigh(self._events, rows, points)
        else:
            parts = [self._curves(*row) for row in zip(rows, points, strict=True)]
            curves = np.array(parts, dtype=np.float64)
        curves = curves.reshape(*np.shape(positives), NUM_THRESHOLDS, len(RECALL_POINTS))
        curves[positives == 0] = np.nan
        return curves

    def average_precision(self, weights: Weights | None = None) -> NDArray[np.float64]:
        """Return `(…, T)` AP at each IoU threshold; every image counts once unless weighted."""
        every = np.ones(len(self.positives)) if weights is None else weights
        return np.asarray(self.precision(every).mean(axis=-1))

    def _curves(self, weights: Weights, needed: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return `(T, R)` precision under one set of weights: the twin of `kernel.weigh`."""
        ranked = self._events
        own = weights[ranked.hit_images]
        seen = _cumulated(weights[ranked.base_images])[ranked.base_before]
        odd_weights = weights[ranked.odd_images] * ranked.odd_signs
        rows = []
        for t in range(NUM_THRESHOLDS):
            held = slice(*ranked.offsets[t : t + 2])
            events, odd = ranked.events[held], slice(*ranked.odd_offsets[t : t + 2])
            seen_here = seen[events] + _cumulated(odd_weights[odd])[ranked.odd_before[held]]
            rows.append(sampled_precision(np.cumsum(own[events]), seen_here, needed))
        return np.stack(rows)


def best_first(scores: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the positions by falling score, ties in order."""
    if kernel.is_active():
        return kernel.sort_scores(scores)
    return np.argsort(-scores, kind="stable")


def average_recall(column: Column) -> float:
    """Return recall averaged over the IoU thresholds; NaN where no true entity counts."""
    positives = int(column.positives.sum())
    hits = sum(int(np.count_nonzero(bits)) for bits in bits_of(column.matched & ~column.ignored))
    return hits / positives / NUM_THRESHOLDS if positives else math.nan


def hits_needed(positives: float | NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the least number of hits with which each recall point is reached: `(…, R)`.

    It is compared as a quotient, as COCO does: 35 of 100 are a recall of .35, which the point
    .35000000000000003 is not.

    >>> hits_needed(100)[34:36]
    array([34., 36.])
    """
    total = np.asarray(positives)[..., None]
    needed: NDArray[np.float64] = np.ceil(RECALL_POINTS * total)
    needed -= (needed - 1) / total >= RECALL_POINTS
    needed += needed / total < RECALL_POINTS
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
