"""The scores beside AP_e: quality of the partition, boxes, origins, and recall by size."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from entitybench.metrics.accumulation import accumulate
from entitybench.metrics.boxes import box_records
from entitybench.metrics.calibration import calibration_error, calibration_sums
from entitybench.metrics.class_quality import class_scores
from entitybench.metrics.origins import has_origins, origin_columns
from entitybench.metrics.panoptic_quality import panoptic_quality
from entitybench.metrics.ranking import NUM_THRESHOLDS, RankedColumn, average_recall, bits_of
from entitybench.metrics.records import MatchRecords
from entitybench.metrics.scores import summarize
from entitybench.metrics.shared_pixels import NO_ROW, SharedPixels, found_at

RELATIVE_AREAS = (0.0, 0.0001, 0.001, 0.01, 0.1, 1.0)
"""Borders of the shares of the image that recall is told for."""

_OF_BOXES = ("AP", "AP50", "AP75", "APs", "APm", "APl")


def further_scores(records: MatchRecords) -> dict[str, float]:
    """Return all scores beside those of `Scores`, as fractions; none without tables.

    `PQ`, `SQ`, `RQ`; `ECE`, of which 0 is best; `APb`, `APb50`, … of boxes; where the source
    tells things from stuff, `APthing`, `APstuff`, `ARthing`, `ARstuff`; and where both sides
    tell classes, `PQc` and what else `class_scores` names.
    """
    if records.tables is None:
        return {}
    scores = asdict(panoptic_quality(records))
    boxes = summarize(accumulate(box_records(records))).as_dict()
    scores["ECE"] = float(calibration_error(calibration_sums(records).sum(axis=0)))
    scores |= {f"APb{name.removeprefix('AP')}": boxes[name] for name in _OF_BOXES}
    if has_origins(records):
        for origin, column in origin_columns(records).items():
            at_thresholds = RankedColumn(records, column).average_precision()
            scores[f"AP{origin}"] = float(at_thresholds.mean())
            scores[f"AR{origin}"] = average_recall(column)
    return scores if records.classes is None else scores | class_scores(records.classes)


@dataclass(frozen=True, slots=True)
class RecallOfSize:
    """Recall of the entities that cover a share of their image in (low, high].

    Attributes:
        low: Exclusive, but that 0 is included.
        high: Inclusive.
        entities: True entities of that size.
        recall: Mean recall over the ten IoU thresholds; NaN without one.
    """

    low: float
    high: float
    entities: int
    recall: float


def recall_by_relative_area(records: MatchRecords) -> list[RecallOfSize]:
    """Return recall by the share of the image that an entity covers.

    Areas are pixels, whatever size the protocol gives.

    Raises:
        MissingDataError: The records hold no tables.
    """
    shared = SharedPixels.of(records)
    held = shared.truth_rows != NO_ROW
    shares = shared.truth_areas[held] / records.num_pixels[shared.truth_images[held]]
    times = _times_found(records, shared)
    place = np.clip(np.searchsorted(RELATIVE_AREAS, shares) - 1, 0, None)
    counts = np.bincount(place, minlength=len(RELATIVE_AREAS) - 1)
    sums = np.bincount(place, times, len(RELATIVE_AREAS) - 1)
    with np.errstate(invalid="ignore"):
        recalls = sums / counts / NUM_THRESHOLDS
    return [
        RecallOfSize(low, high, int(count), float(recall))
        for (low, high), count, recall in zip(
            pairwise(RELATIVE_AREAS), counts, recalls, strict=True
        )
    ]


def _times_found(records: MatchRecords, shared: SharedPixels) -> NDArray[np.float64]:
    """Return at how many thresholds each true entity is found: `(G,)`."""
    times: NDArray[np.float64] = np.sum([*bits_of(found_at(records, shared))], 0, np.float64)
    return times
