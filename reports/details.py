"""What one run's match records say beyond its scores: curves, found by size, causes, images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from entitybench.metrics.accumulation import accumulate
from entitybench.metrics.diagnosis import Diagnosis, diagnose
from entitybench.metrics.panoptic_quality import panoptic_sums, quality_by_image
from entitybench.metrics.protocol import IOU_THRESHOLDS
from entitybench.metrics.ragged import images_of
from entitybench.metrics.records import MatchRecords

_LOOSE = int(np.flatnonzero(IOU_THRESHOLDS == 0.5)[0])
_ALL_SIZES, _MOST_DETECTIONS = 0, -1
_FEWEST = 5  # a share of fewer says nothing

SIDE_EDGES = 2.0 ** np.arange(2, 11)
"""Edges of the size bins: side, in pixels, of a square with the entity's area."""


@dataclass(frozen=True, slots=True, eq=False)
class Details:
    """Curves and counts of one run.

    Attributes:
        precision: `(101,)` precision at each recall point, mean over IoU .50:.05:.95.
        precision_50: `(101,)` the same at IoU .50.
        ap_by_iou: `(10,)` AP at each IoU threshold.
        recall_by_size: share of true entities found at IoU .50 per bin of `SIDE_EDGES`; NaN
            where a bin holds fewer than 5.
        true_counts: `(I,)` true entities of each image.
        predicted_counts: `(I,)` predicted entities of each image.
        diagnosis: Why points are missing; None where the records hold no tables.
        qualities: `(I,)` class-agnostic PQ of each image; NaN where undefined or unknown.
    """

    precision: NDArray[np.float64]
    precision_50: NDArray[np.float64]
    ap_by_iou: NDArray[np.float64]
    recall_by_size: NDArray[np.float64]
    true_counts: NDArray[np.int64]
    predicted_counts: NDArray[np.int64]
    diagnosis: Diagnosis | None
    qualities: NDArray[np.float64]

    @classmethod
    def of(cls, records: MatchRecords) -> Details:
        """Read them off the records."""
        precision = accumulate(records).precision[:, :, _ALL_SIZES, _MOST_DETECTIONS]
        has_tables = records.tables is not None
        unknown = np.full(len(records), np.nan)
        return cls(
            precision=precision.mean(axis=0),
            precision_50=precision[_LOOSE],
            ap_by_iou=precision.mean(axis=1),
            recall_by_size=_recall_by_size(records),
            true_counts=np.diff(records.truth_offsets),
            predicted_counts=records.num_predicted,
            diagnosis=diagnose(records) if has_tables else None,
            qualities=quality_by_image(panoptic_sums(records))[0] if has_tables else unknown,
        )


def _recall_by_size(records: MatchRecords) -> NDArray[np.float64]:
    bit = np.uint16(1 << _LOOSE)
    hits = (records.matched[:, _ALL_SIZES] & ~records.ignored[:, _ALL_SIZES] & bit) != 0
    first = records.truth_offsets[images_of(records.detection_offsets)[hits]]
    found = np.zeros(len(records.truth_sizes), dtype=bool)
    found[first + records.partners[hits] - 1] = True
    bins = np.digitize(np.sqrt(records.truth_sizes), SIDE_EDGES[1:-1])
    total = np.bincount(bins, minlength=len(SIDE_EDGES) - 1).astype(np.float64)
    share = np.bincount(bins, weights=found, minlength=len(total)) / np.maximum(total, 1)
    return np.where(total >= _FEWEST, share, np.nan)
