"""Why AP is not 100: every missing entity and every false positive has one cause.

In the spirit of TIDE (Bolya et al., ECCV 2020), with two causes that only maps can tell: entities
*merged* into one prediction and entities *split* into several. Both are defined by their repair,
at each IoU threshold t. A true entity g that nothing matches at t is

* `merged`, if a prediction would match it once the other true entities of which that prediction
  holds at least half were cut away from it;
* `split`, if the predictions that lie mostly in g, two or more, would match it together;
* `boundary`, if its best IoU, as it is or after such a repair, is at least .1;
* `missed` otherwise.

Where cutting and joining would both do, the one that brings the greater IoU is the cause. A false
positive takes the cause of the missing entity that it is to be repaired into. Else it is `merged`
if it holds at least half of two entities or more, `split` if it lies mostly in an entity in which
another prediction does too, `boundary` if its best IoU is at least .1, and `spurious` otherwise.
A matched prediction that ranks below a false positive is a fault of `order`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from entitybench.metrics.protocol import IOU_THRESHOLDS
from entitybench.metrics.ranking import NUM_THRESHOLDS, bits_of, hits_needed, sampled_precision
from entitybench.metrics.records import MatchRecords
from entitybench.metrics.shared_pixels import NO_ROW, SharedPixels, found_at

LEAST_IOU = 0.1
"""Below it, a prediction and an entity have nothing to do with each other, as in TIDE."""


class Cause(StrEnum):
    """Why points are missing."""

    MERGED = "merged"
    SPLIT = "split"
    BOUNDARY = "boundary"
    SPURIOUS = "spurious"
    MISSED = "missed"
    ORDER = "order"


CAUSES = tuple(Cause)
_NONE = len(CAUSES)  # stands for "not at fault" in arrays of causes
_MERGED, _SPLIT, _BOUNDARY, _SPURIOUS, _MISSED, _ORDER = range(_NONE)
_REPAIRED = (_MERGED, _SPLIT, _BOUNDARY)  # a missing entity is found by the repair


@dataclass(frozen=True, slots=True, eq=False)
class Faults:
    """The cause of every missing entity and false positive at each of T thresholds.

    Causes are indices of `CAUSES`, or their number for none.

    Attributes:
        truth: `(T, G)` int8 cause of each true entity.
        sources: `(T, G)` int64 row of the prediction that the repair makes match it; -1 for none.
        predictions: `(T, D)` int8 cause of each ranked prediction.
        is_hit: `(T, D)` whether it is a true positive.
    """

    truth: NDArray[np.int8]
    sources: NDArray[np.int64]
    predictions: NDArray[np.int8]
    is_hit: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Finding:
    """What one cause does.

    Attributes:
        cause: The cause.
        entities: True entities that it hides at IoU .50.
        predictions: False positives that it makes at IoU .50.
        gain: AP that repairing it alone would add.
        share: Its share of the AP that is missing: what repairing it adds on average over all
            orders of repairing one cause after the other (its Shapley value). The shares of all
            causes sum to 1 - AP.
    """

    cause: Cause
    entities: int
    predictions: int
    gain: float
    share: float


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All causes, in the order of `Cause`.

    Attributes:
        AP: AP as it is; NaN without a true entity, and with it every gain and share.
        findings: One for each cause.
    """

    AP: float
    findings: tuple[Finding, ...]

    def __getitem__(self, cause: str) -> Finding:
        return self.findings[CAUSES.index(Cause(cause))]


def diagnose(records: MatchRecords) -> Diagnosis:
    """Explain the points that AP lacks.

    Raises:
        MissingDataError: The records hold no tables.
    """
    faults = find_faults(records)
    values = _values(records, faults)
    everything = frozenset(range(_NONE))
    start = values[frozenset()]
    return Diagnosis(
        start,
        tuple(
            Finding(
                cause,
                int(np.count_nonzero(faults.truth[0] == index)),
                int(np.count_nonzero(faults.predictions[0] == index)),
                values[frozenset({index})] - start,
                _shapley(values, index, everything),
            )
            for index, cause in enumerate(CAUSES)
        ),
    )


# --- what is at fault ---


@dataclass(frozen=True, slots=True, eq=False)
class _Repairs:
    """What repairs would do for each true entity: IoU, and the row of the prediction."""

    best: NDArray[np.float64]
    best_source: NDArray[np.int64]
    merged: NDArray[np.float64]
    merged_source: NDArray[np.int64]
    split: NDArray[np.float64]
    split_source: NDArray[np.int64]
    merges: NDArray[np.bool_]
    is_fragment: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class _Touching:
    """True entities and ranked predictions that touch, by row, with their pixels."""

    truth: NDArray[np.int64]
    prediction: NDArray[np.int64]
    shared: NDArray[np.int64]
    truth_areas: NDArray[np.int64]
    prediction_areas: NDArray[np.int64]
    num_truth: int
    num_predictions: int


def find_faults(records: MatchRecords) -> Faults:
    """Find the cause of every missing entity and false positive.

    Raises:
        MissingDataError: The records hold no tables.
    """
    shared = SharedPixels.of(records)
    repairs = _repairs(_touching(shared, records))
    hits = records.matched[:, 0] & ~records.ignored[:, 0]
    false = ~records.matched[:, 0] & ~records.ignored[:, 0]
    found = found_at(records, shared)
    truth, sources, predictions = [], [], []
    for t, (is_found, is_false) in enumerate(zip(bits_of(found), bits_of(false), strict=True)):
        cause, source = _truth_causes(repairs, is_found, float(IOU_THRESHOLDS[t]))
        truth.append(cause)
        sources.append(source)
        predictions.append(_prediction_causes(repairs, records, cause, source, is_false))
    return Faults(
        np.stack(truth), np.stack(sources), np.stack(predictions), np.stack([*bits_of(hits)])
    )


def _touching(shared: SharedPixels, records: MatchRecords) -> _Touching:
    truth_rows = shared.truth_rows[shared.truth]
    prediction_rows = shared.prediction_rows[shared.prediction]
    held = (truth_rows != NO_ROW) & (prediction_rows != NO_ROW)
    return _Touching(
        truth_rows[held],
        prediction_rows[held],
        shared.pixels[held],
        shared.truth_areas[shared.truth[held]],
        shared.prediction_areas[shared.prediction[held]],
        len(records.truth_sizes),
        len(records.scores),
    )


def _repairs(touching: _Touching) -> _Repairs:
    truth, prediction, shared = touching.truth, touching.prediction, touching.shared
    union = touching.truth_areas + touching.prediction_areas - shared
    best, best_source = _greatest(touching, shared / union)
    # cut away what belongs to others
    holds = 2 * shared >= touching.truth_areas
    num_held = np.bincount(prediction[holds], minlength=touching.num_predictions)
    pixels_held = np.bincount(prediction[holds], shared[holds], touching.num_predictions)
    of_others = pixels_held[prediction] - np.where(holds, shared, 0)
    cut = np.where(num_held[prediction] > holds, shared / (union - of_others), 0.0)
    merged, merged_source = _greatest(touching, cut)
    # join what lies mostly inside
    inside = 2 * shared > touching.prediction_areas
    split, split_source, num_inside = _joined(touching, inside)
    is_fragment = np.zeros(touching.num_predictions, dtype=bool)
    is_fragment[prediction[inside & (num_inside[truth] > 1)]] = True
    return _Repairs(
        best, best_source, merged, merged_source, split, split_source, num_held > 1, is_fragment
    )


def _greatest(
    touching: _Touching, iou: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return each entity's greatest IoU and the prediction that has it, ties to the better rank."""
    order = np.lexsort((-touching.prediction, iou, touching.truth))
    value = np.zeros(touching.num_truth)
    source = np.full(touching.num_truth, NO_ROW)
    value[touching.truth[order]] = iou[order]  # the last one of each entity stays
    source[touching.truth[order]] = touching.prediction[order]
    source[value == 0] = NO_ROW
    return value, source


def _joined(
    touching: _Touching, inside: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Return what each entity makes of the predictions that lie mostly in it.

    Returns:
        IoU with all of them together (0 with fewer than two), the best ranked, and their number.
    """
    truth, count = touching.truth[inside], touching.num_truth
    num_inside = np.bincount(truth, minlength=count)
    shared = np.bincount(truth, touching.shared[inside], count)
    covered = np.bincount(truth, touching.prediction_areas[inside], count)
    areas = np.zeros(count)
    areas[truth] = touching.truth_areas[inside]
    first = np.full(count, np.iinfo(np.int64).max)
    np.minimum.at(first, truth, touching.prediction[inside])
    several = num_inside > 1
    iou = np.zeros(count)
    iou[several] = (shared / np.maximum(areas + covered - shared, 1))[several]
    return iou, np.where(several, first, NO_ROW), num_inside


def _truth_causes(
    repairs: _Repairs, is_found: NDArray[np.bool_], threshold: float
) -> tuple[NDArray[np.int8], NDArray[np.int64]]:
    """Return the cause of each true entity at one threshold, and what its repair would match."""
    merged, split = repairs.merged >= threshold, repairs.split >= threshold
    merged &= ~split | (repairs.merged >= repairs.split)
    touched = np.maximum(repairs.best, np.maximum(repairs.merged, repairs.split)) >= LEAST_IOU
    conditions = [is_found, merged, split, touched]
    cause = np.select(conditions, [_NONE, _MERGED, _SPLIT, _BOUNDARY], _MISSED)
    sources = [repairs.merged_source, repairs.split_source, repairs.best_source]
    nowhere = np.full(len(cause), NO_ROW)
    source = np.select([cause == index for index in _REPAIRED], sources, nowhere)
    return cause.astype(np.int8), source


def _prediction_causes(
    repairs: _Repairs,
    records: MatchRecords,
    truth_causes: NDArray[np.int8],
    sources: NDArray[np.int64],
    is_false: NDArray[np.bool_],
) -> NDArray[np.int8]:
    """Return the cause of each ranked prediction at one threshold."""
    own = np.select(
        [repairs.merges, repairs.is_fragment, records.best_ious >= LEAST_IOU],
        [_MERGED, _SPLIT, _BOUNDARY],
        _SPURIOUS,
    ).astype(np.int8)
    repaired = sources != NO_ROW
    inherited = np.full(len(own), _NONE, dtype=np.int8)
    np.minimum.at(inherited, sources[repaired], truth_causes[repaired])
    cause = np.where(inherited < _NONE, inherited, own)
    return np.where(is_false, cause, _NONE).astype(np.int8)


# --- what repairs would bring ---


def _values(records: MatchRecords, faults: Faults) -> dict[frozenset[int], float]:
    """Return AP after repairing each set of causes."""
    players = range(_NONE)
    subsets = [frozenset(s) for size in range(_NONE + 1) for s in combinations(players, size)]
    if not len(records.truth_sizes):
        return dict.fromkeys(subsets, math.nan)
    place = np.empty(len(records.scores), dtype=np.int64)
    place[np.argsort(-records.scores, kind="stable")] = np.arange(len(place))
    totals = np.zeros(len(subsets))
    for t in range(NUM_THRESHOLDS):
        ranked = _Threshold.of(faults, t, place)
        totals += [ranked.average_precision(subset) for subset in subsets]
    return dict(zip(subsets, (totals / NUM_THRESHOLDS).tolist(), strict=True))


@dataclass(frozen=True, slots=True, eq=False)
class _Threshold:
    """The ranking at one threshold, taken apart by cause.

    Attributes:
        hits: Places of the true positives, and by cause of those that its repair adds.
        false_before: By cause, `(D + 1,)` how many of its false positives rank before a place.
        num_truth: True entities.
        num_missed: Those of them that are missed.
    """

    hits: dict[int, NDArray[np.int64]]
    false_before: dict[int, NDArray[np.int64]]
    num_truth: int
    num_missed: int

    @classmethod
    def of(cls, faults: Faults, t: int, place: NDArray[np.int64]) -> _Threshold:
        causes = faults.truth[t]
        hits = {_NONE: place[faults.is_hit[t]]}
        hits |= {c: place[faults.sources[t][causes == c]] for c in _REPAIRED}
        false_before = {}
        for cause in (*_REPAIRED, _SPURIOUS):
            at_fault = np.zeros(len(place) + 1, dtype=np.int64)
            at_fault[place[faults.predictions[t] == cause] + 1] = 1
            false_before[cause] = np.cumsum(at_fault)
        return cls(hits, false_before, len(causes), int(np.count_nonzero(causes == _MISSED)))

    def average_precision(self, repaired: frozenset[int]) -> float:
        """Return AP once some causes are repaired."""
        found = [hits for cause, hits in self.hits.items() if cause in repaired | {_NONE}]
        places = np.sort(np.concatenate(found))
        false = [before for cause, before in self.false_before.items() if cause not in repaired]
        num_truth = self.num_truth - (self.num_missed if _MISSED in repaired else 0)
        if not num_truth:
            return float(not any(before[-1] for before in false))
        hits = np.arange(1.0, len(places) + 1)
        ahead = 0 if _ORDER in repaired else sum(before[places] for before in false)
        return float(np.mean(sampled_precision(hits, hits + ahead, hits_needed(num_truth))))


def _shapley(values: dict[frozenset[int], float], player: int, players: frozenset[int]) -> float:
    """Return the player's mean contribution over all orders of joining."""
    total = 0.0
    count = len(players)
    for others, value in values.items():
        if player not in others:
            ways = math.factorial(len(others)) * math.factorial(count - len(others) - 1)
            total += ways * (values[others | {player}] - value)
    return total / math.factorial(count)
