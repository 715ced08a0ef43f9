"""Calibration: whether a score is the probability that a prediction is right.

A prediction is right if it is matched at IoU .50. Scores fall into ten bins of equal width; the
expected calibration error (Guo et al., On Calibration of Modern Neural Networks, ICML 2017,
equation 3) is the mean distance of a bin's score from its share of matches, weighted by
predictions. AP does not see it: any rising function of the scores has the same AP.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from entitybench.metrics.ragged import images_of
from entitybench.metrics.records import MatchRecords

NUM_BINS = 10
_BORDERS = np.arange(1, NUM_BINS) / NUM_BINS  # spelled so that a score of .3 reaches the border .3


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Predictions of similar scores.

    Attributes:
        low: Least score, inclusive.
        high: Exclusive, but that 1 is included.
        predictions: How many count.
        score: Their mean score; NaN without one.
        matched: Share of them matched at IoU .50; NaN without one.
    """

    low: float
    high: float
    predictions: int
    score: float
    matched: float


def reliability(records: MatchRecords) -> list[ReliabilityBin]:
    """Return the bins, by rising score.

    The best 100 predictions of each image count, but for those that lie in crowds and the like
    and are ignored.
    """
    totals = calibration_sums(records).sum(axis=0).reshape(NUM_BINS, 3)
    with np.errstate(invalid="ignore"):
        means = totals[:, 1:] / totals[:, :1]
    return [
        ReliabilityBin(k / NUM_BINS, (k + 1) / NUM_BINS, int(count), score, matched)
        for k, (count, (score, matched)) in enumerate(
            zip(totals[:, 0].tolist(), means.tolist(), strict=True)
        )
    ]


def calibration_sums(records: MatchRecords) -> NDArray[np.float64]:
    """Return `(I, 3 · NUM_BINS)` float64: of each bin, predictions, summed score, and matches."""
    rows = np.flatnonzero((records.ignored[:, 0] & 1) == 0)
    scores = records.scores[rows]
    place = images_of(records.detection_offsets)[rows] * NUM_BINS
    place += np.searchsorted(_BORDERS, scores, side="right")
    matched = (records.matched[rows, 0] & 1).astype(np.float64)
    size = len(records) * NUM_BINS
    columns = [np.bincount(place, weights, size) for weights in (None, scores, matched)]
    return np.stack(columns, axis=1).reshape(len(records), 3 * NUM_BINS).astype(np.float64)


def calibration_error(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the expected calibration error of sums of `calibration_sums`.

    Args:
        sums: `(…, 3 · NUM_BINS)`.

    Returns:
        `(…,)` in [0, 1]; 0 is best, NaN where no prediction counts.
    """
    bins = sums.reshape(*sums.shape[:-1], NUM_BINS, 3)
    with np.errstate(invalid="ignore"):
        error: NDArray[np.float64] = np.abs(bins[..., 1] - bins[..., 2]).sum(axis=-1) / bins[
            ..., 0
        ].sum(axis=-1)
    return error
