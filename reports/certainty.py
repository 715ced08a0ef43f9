"""How certain the leaderboard is: intervals of AP, and paired differences between models."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from entitybench.metrics.bootstrap import DEFAULT_LEVEL, interval, resample
from entitybench.reports.results import Run

SEED = 0
Samples = Mapping[tuple[str, str], NDArray[np.float64]]
"""Model and ground truth → AP in each resample, as fractions; models share the draws."""


@dataclass(frozen=True, slots=True)
class Difference:
    """How much better one run is than another on the same images, in points.

    Attributes:
        value: The difference of their AP.
        low: Lower end of its paired interval.
        high: Upper end.
    """

    value: float
    low: float
    high: float

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0


def samples_of(runs: Sequence[Run], resamples: int) -> Samples:
    """Resample the AP of every run that has match records; none for 0 resamples."""
    if not resamples:
        return {}
    return {
        (run.name, run.ground_truth): resample(records, resamples, SEED, ["AP"])["AP"]
        for run in runs
        if (records := run.records) is not None and len(records) > 1
    }


def intervals_of(samples: Samples) -> dict[tuple[str, str], tuple[float, float]]:
    """Return the 95 % interval of each, in points; undefined ones are left out."""
    found = {key: interval(values, DEFAULT_LEVEL, SEED) for key, values in samples.items()}
    return {
        key: (100 * ends.low, 100 * ends.high)
        for key, ends in found.items()
        if not math.isnan(ends.low)
    }


def differences(runs: Sequence[Run], samples: Samples) -> tuple[tuple[Difference | None, ...], ...]:
    """Return row less column for runs on one ground truth; None where it cannot be told.

    Empty where there are not two runs with records of the same images.
    """
    table = tuple(tuple(_difference(a, b, samples) for b in runs) for a in runs)
    return table if any(cell is not None for row in table for cell in row) else ()


def _difference(a: Run, b: Run, samples: Samples) -> Difference | None:
    ours, theirs = (samples.get((run.name, run.ground_truth)) for run in (a, b))
    if a is b or ours is None or theirs is None or not _share_images(a, b):
        return None
    ends = interval(ours - theirs, DEFAULT_LEVEL, SEED)
    left, right = a.points("AP"), b.points("AP")
    if left is None or right is None or math.isnan(ends.low):
        return None
    return Difference(left - right, 100 * ends.low, 100 * ends.high)


def _share_images(a: Run, b: Run) -> bool:
    ours, theirs = a.records, b.records
    return ours is not None and theirs is not None and ours.images == theirs.images
