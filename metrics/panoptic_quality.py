"""Panoptic quality without classes: how well the map as a whole is partitioned.

The rules are those of panopticapi (Kirillov et al., Panoptic Segmentation, CVPR 2019) with all
entities in one category. There is no ranking: every prediction counts, whatever its score.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from entitybench.metrics.records import MatchRecords
from entitybench.metrics.shared_pixels import NO_ROW, SharedPixels


@dataclass(frozen=True, slots=True)
class PanopticQuality:
    """Fractions; NaN where undefined.

    Attributes:
        PQ: SQ × RQ: the summed IoU of the matches, over matches plus half of all errors.
        SQ: Mean IoU of the matches; undefined without one (PQ is then 0).
        RQ: F1 score at IoU above .5; undefined where there is neither truth nor prediction.
    """

    PQ: float
    SQ: float
    RQ: float


@dataclass(frozen=True, slots=True, eq=False)
class PanopticSums:
    """What panoptic quality is computed from, for each of I images.

    Attributes:
        matched: `(I,)` int64 pairs of IoU above .5.
        spurious: `(I,)` int64 predictions without one that do not lie in void and crowds.
        missed: `(I,)` int64 true entities without one.
        iou: `(I,)` float64 summed IoU of the pairs.
    """

    matched: NDArray[np.int64]
    spurious: NDArray[np.int64]
    missed: NDArray[np.int64]
    iou: NDArray[np.float64]

    def stacked(self) -> NDArray[np.float64]:
        """Return `(I, 4)` float64 columns: matched, spurious, missed, iou."""
        return np.stack([self.matched, self.spurious, self.missed, self.iou], axis=1).astype(float)

    def pooled(self) -> PanopticQuality:
        """Return the quality of all images together."""
        quality = quality_of(self.stacked().sum(axis=0))
        return PanopticQuality(*(float(value) for value in quality))


def quality_of(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn sums into quality.

    Args:
        sums: `(…, 4)` matched, spurious, missed and summed IoU.

    Returns:
        `(3, …)` PQ, SQ and RQ; NaN where undefined.

    >>> quality_of(np.array([1.0, 1.0, 0.0, 0.9])).round(3)
    array([0.6  , 0.9  , 0.667])
    """
    matched, spurious, missed, iou = np.moveaxis(sums, -1, 0)
    both = matched + spurious / 2 + missed / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.stack([iou / both, iou / matched, matched / both])


def panoptic_sums(records: MatchRecords) -> PanopticSums:
    """Match at IoU above .5 and count, image by image.

    The rules, whatever the protocol of the records: a union leaves out the prediction's pixels
    in void. An unmatched prediction more than half of which lies in void and crowds is dropped;
    with exactly half it counts. A crowd is neither matched nor missed. A prediction without a
    pixel is spurious, a true entity without one is missed.

    Raises:
        MissingDataError: The records hold no tables.
    """
    shared = SharedPixels.of(records)
    is_entity = shared.truth_rows != NO_ROW
    forgiven = shared.is_void | shared.is_crowd
    in_void = _by_prediction(shared, shared.is_void)
    held = is_entity[shared.truth] & shared.is_predicted[shared.prediction]
    truth, prediction, pixels = shared.truth[held], shared.prediction[held], shared.pixels[held]
    areas = shared.truth_areas[truth] + shared.prediction_areas[prediction]
    iou = pixels / (areas - pixels - in_void[prediction])
    hit = iou > 0.5
    unmatched = shared.is_predicted.copy()
    unmatched[prediction[hit]] = False
    unmatched &= 2 * _by_prediction(shared, forgiven) <= shared.prediction_areas
    matched_images = shared.image[held][hit]
    matched = np.bincount(matched_images, minlength=len(records))
    return PanopticSums(
        matched,
        np.bincount(shared.prediction_images[unmatched], minlength=len(records)),
        np.diff(records.truth_offsets) - matched,
        np.bincount(matched_images, iou[hit], len(records)).astype(np.float64),
    )


def panoptic_quality(records: MatchRecords) -> PanopticQuality:
    """Return PQ, SQ and RQ of all images together.

    Raises:
        MissingDataError: The records hold no tables.
    """
    return panoptic_sums(records).pooled()


def quality_by_image(sums: PanopticSums) -> NDArray[np.float64]:
    """Return `(3, I)` PQ, SQ and RQ of each image alone."""
    return quality_of(sums.stacked())


def _by_prediction(shared: SharedPixels, among: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Count the pixels of each prediction that lie in some true ids."""
    held = among[shared.truth]
    return np.bincount(
        shared.prediction[held], shared.pixels[held], len(shared.prediction_areas)
    ).astype(np.int64)
