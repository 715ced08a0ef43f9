"""Does one model do better than another? A verdict from paired trainings on the same images.

Two methods were trained on the same images in the same order from the same seeds, for equally
many image passes, and are compared in pairs on the same test images. A claim is *supported* where
the bootstrap interval of the mean difference lies above zero and the difference of every seed
does, *contradicted* where both lie below, and else *not shown*.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from entitybench.baselines.mechanism import Mechanism, area_lost, claimed_twice
from entitybench.metrics.bootstrap import draws, interval, resample

Verdict = Literal["supported", "not shown", "contradicted"]
Measure = Literal["AP", "claimed_twice", "area_lost", "gap"]
RESAMPLES = 1000
LEVEL = 0.95
SEED = 0


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of a claim on one test set.

    Attributes:
        difference: Mean over the seeds, positive in favour of the claim, as a fraction.
        low: Lower end of its interval.
        high: Upper end.
        per_seed: The difference of each seed.
        verdict: In a word or two.
    """

    difference: float
    low: float
    high: float
    per_seed: tuple[float, ...]
    verdict: Verdict


def judge(measure: Measure, better: Sequence[Mechanism], worse: Sequence[Mechanism]) -> Finding:
    """Judge the claim that one method does better than another on one test set.

    The interval is over images: every seed's pair shares the draws, and the differences of the
    seeds are averaged in each resample. It says how far the result hangs on these images; how
    far it hangs on the seeds is seen in `per_seed`.

    Args:
        measure: `AP` (AP_e), where more is better; of all others less is.
        better: One for each seed.
        worse: The same seeds.
    """
    sign = 1.0 if measure == "AP" else -1.0
    pairs = list(zip(better, worse, strict=True))
    per_seed = [sign * (value_of(a, measure) - value_of(b, measure)) for a, b in pairs]
    samples = np.mean(
        [sign * (resampled(a, measure) - resampled(b, measure)) for a, b in pairs], axis=0
    )
    found = interval(samples, LEVEL, SEED)
    verdict: Verdict = "not shown"
    if found.low > 0 and min(per_seed) > 0:
        verdict = "supported"
    elif found.high < 0 and max(per_seed) < 0:
        verdict = "contradicted"
    return Finding(float(np.mean(per_seed)), found.low, found.high, tuple(per_seed), verdict)


def value_of(of: Mechanism, measure: Measure) -> float:
    """Return one measure on all images, as a fraction."""
    numbers = of.numbers()
    return numbers["AP_e" if measure == "AP" else measure]


def resampled(of: Mechanism, measure: Measure) -> NDArray[np.float64]:
    """Return one measure in every resample of the images."""
    if measure in ("AP", "gap"):
        after = resample(of.resolved, RESAMPLES, SEED, ["AP"])["AP"]
        if measure == "AP":
            return after
        return resample(of.overlapping, RESAMPLES, SEED, ["AP"])["AP"] - after
    share = claimed_twice if measure == "claimed_twice" else area_lost
    blocks = draws(len(of.counts), RESAMPLES, SEED)
    sums = np.concatenate([weights @ of.counts for weights in blocks])
    return np.array([share(row) for row in sums])
