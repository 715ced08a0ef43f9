"""The numbers people quote."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from entitybench.metrics.accumulation import Curves
from entitybench.metrics.protocol import AREA_NAMES, IOU_THRESHOLDS, MAX_DETECTIONS

_ALL, _SMALL, _MEDIUM, _LARGE = range(len(AREA_NAMES))


@dataclass(frozen=True, slots=True)
class Scores:
    """AP_e and its kin, as fractions.

    NaN where undefined (no true entity of that size), 0 where there is truth but no match.
    AP and AR average the IoU thresholds .50:.05:.95; AP the 101 recall points too.

    Attributes:
        AP: Average precision, 100 predictions per image.
        AP50: AP at IoU .50 alone.
        AP75: AP at IoU .75 alone.
        APs: AP of small entities, up to 32² pixels.
        APm: AP of medium ones, 32² to 96².
        APl: AP of large ones, from 96².
        AR1: Average recall with the best prediction of each image.
        AR10: With the best 10.
        AR100: With the best 100.
        ARs: AR100 of small entities.
        ARm: AR100 of medium ones.
        ARl: AR100 of large ones.
    """

    AP: float
    AP50: float
    AP75: float
    APs: float
    APm: float
    APl: float
    AR1: float
    AR10: float
    AR100: float
    ARs: float
    ARm: float
    ARl: float

    def as_dict(self) -> dict[str, float]:
        """Return name → fraction, in the order above (which is also COCO's)."""
        return asdict(self)


def summarize(curves: Curves) -> Scores:
    """Average the curves, as pycocotools' `summarize` does."""
    last = len(MAX_DETECTIONS) - 1
    precision, recall = curves.precision[..., last], curves.recall
    at_50, at_75 = (int(np.flatnonzero(t == IOU_THRESHOLDS)[0]) for t in (0.5, 0.75))
    return Scores(
        AP=_mean(precision[:, :, _ALL]),
        AP50=_mean(precision[at_50, :, _ALL]),
        AP75=_mean(precision[at_75, :, _ALL]),
        APs=_mean(precision[:, :, _SMALL]),
        APm=_mean(precision[:, :, _MEDIUM]),
        APl=_mean(precision[:, :, _LARGE]),
        AR1=_mean(recall[:, _ALL, 0]),
        AR10=_mean(recall[:, _ALL, 1]),
        AR100=_mean(recall[:, _ALL, last]),
        ARs=_mean(recall[:, _SMALL, last]),
        ARm=_mean(recall[:, _MEDIUM, last]),
        ARl=_mean(recall[:, _LARGE, last]),
    )


def _mean(values: NDArray[np.float64]) -> float:
    # NumPy sums a contiguous array in another order than a strided one: flatten, as COCO does.
    return float(np.mean(values.flatten()))
