"""From match records to precision, recall and score at every operating point.

Bit for bit the arrays of pycocotools' `accumulate`, but undefined is NaN. Precision need be
known only at true positives: the curve's monotone envelope has its steps nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from entitybench import kernel
from entitybench.metrics.protocol import (
    AREA_NAMES,
    IOU_THRESHOLDS,
    MAX_DETECTIONS,
    RECALL_POINTS,
)
from entitybench.metrics.records import MatchRecords


@dataclass(frozen=True, slots=True, eq=False)
class Curves:
    """Precision over recall for T = 10 IoU thresholds, A = 4 area ranges and M = 3 cuts.

    NaN where the area range holds no true entity.

    Attributes:
        precision: `(T, R, A, M)` highest precision at recall ≥ `RECALL_POINTS[r]`; 0 beyond
            the recall that is reached.
        recall: `(T, A, M)` recall of all predictions.
        scores: `(T, R, A, M)` score at which that recall is first reached; 0 beyond.
    """

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    scores: NDArray[np.float64]

    def with_coco_sentinels(
        self,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Return precision, recall and scores with -1 for undefined, as COCO tools do."""
        precision, recall, scores = (
            np.where(np.isnan(a), -1.0, a) for a in (self.precision, self.recall, self.scores)
        )
        return precision, recall, scores


def accumulate(records: MatchRecords) -> Curves:
    """Pool the images and rank their predictions.

    Predictions rank by score; ties follow the order of images, then rank in the image. The
    best 1, 10 and 100 of each image are cut from one matching, they are not matched anew.
    """
    shape = (len(IOU_THRESHOLDS), len(RECALL_POINTS), len(AREA_NAMES), len(MAX_DETECTIONS))
    precision, scores = np.full(shape, np.nan), np.full(shape, np.nan)
    recall = np.full((shape[0], *shape[2:]), np.nan)
    positives = records.positives.sum(axis=0)
    if kernel.is_active():
        curves = Curves(precision, recall, scores)
        _accumulate_compiled(records, positives, curves)
        return curves
    best_first = np.argsort(-records.scores, kind="stable")
    ranks = records.ranks[best_first]
    for m, a in product(range(shape[3]), np.flatnonzero(positives)):
        rows = best_first[ranks < MAX_DETECTIONS[m]]
        ranked_scores = records.scores[rows]
        counted = ~records.ignored[rows, a]
        hits = records.matched[rows, a] & counted
        for t in range(shape[0]):
            precision[t, :, a, m], scores[t, :, a, m], recall[t, a, m] = _curve(
                _bits(hits, t), _bits(counted, t), ranked_scores, int(positives[a])
            )
    return Curves(precision, recall, scores)


def _accumulate_compiled(
    records: MatchRecords, positives: NDArray[np.int64], curves: Curves
) -> None:
    """Fill the curves of all area ranges that hold a true entity."""
    best_first = kernel.sort_scores(records.scores)
    ranks, scores = records.ranks[best_first], records.scores[best_first]
    for a in np.flatnonzero(positives).tolist():
        curves.precision[:, :, a], curves.scores[:, :, a] = 0.0, 0.0
        ignored = records.ignored[best_first, a]
        hits = records.matched[best_first, a] & ~ignored
        ranking = kernel.Ranking(hits, ignored, ranks, scores)
        arrays = curves.precision, curves.recall, curves.scores
        for m, cut in enumerate(MAX_DETECTIONS):
            kernel.accumulate(ranking, int(positives[a]), cut, RECALL_POINTS, arrays, (a, m))
        curves.scores[:, 0, a] = scores[0] if len(scores) else 0.0  # recall 0 is there at once


def _bits(packed: NDArray[np.uint16], t: int) -> NDArray[np.bool_]:
    bits: NDArray[np.bool_] = (packed & np.uint16(1 << t)) != 0
    return bits


def _curve(
    is_hit: NDArray[np.bool_],
    is_counted: NDArray[np.bool_],
    ranked_scores: NDArray[np.float64],
    positives: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Return precision and score at each recall point, and the recall reached."""
    hit_rows = np.flatnonzero(is_hit)
    hits = np.arange(1, len(hit_rows) + 1, dtype=np.float64)
    seen = np.cumsum(is_counted)[hit_rows].astype(np.float64)
    # COCO's guard against 0 / 0; it also makes the first of all precisions 1 - 2⁻⁵², not 1
    precision = hits / (seen + np.spacing(1.0))
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    first = np.searchsorted(hits / positives, RECALL_POINTS, side="left")
    reached = first < len(hits)
    at_points, scores = np.zeros(len(RECALL_POINTS)), np.zeros(len(RECALL_POINTS))
    at_points[reached] = envelope[first[reached]]
    scores[reached] = ranked_scores[hit_rows[first[reached]]]
    scores[0] = ranked_scores[0] if len(ranked_scores) else 0.0  # recall 0 is there at once
    return at_points, scores, len(hits) / positives
