"""How certain a score is: the percentile bootstrap over images.

AP is no mean over images, so each resample is ranked and accumulated anew; `RankedColumn` makes
that a weighted cumulative sum. The draws are those of `scipy.stats.bootstrap` for the same seed.
Two models on the same images share draws, and the difference of their scores has an interval of
its own, narrower than either's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from entitybench.errors import ConflictError, UnknownNameError
from entitybench.metrics.origins import has_origins, origin_columns
from entitybench.metrics.panoptic_quality import panoptic_sums, quality_of
from entitybench.metrics.protocol import IOU_THRESHOLDS, MAX_DETECTIONS
from entitybench.metrics.ragged import images_of
from entitybench.metrics.ranking import NUM_THRESHOLDS, RankedColumn, area_column, bits_of
from entitybench.metrics.records import MatchRecords
from entitybench.result import Interval as FileInterval

DEFAULT_LEVEL = 0.95
_DRAWS_AT_ONCE = 64  # bounds the memory, not the result
_AREAS = {"": "all", "s": "small", "m": "medium", "l": "large"}
_AT = {"50": 0.5, "75": 0.75}

Samples = dict[str, NDArray[np.float64]]
Statistic = Callable[[NDArray[np.float64]], Samples]


@dataclass(frozen=True, slots=True)
class Interval:
    """A percentile interval of one score or difference, in fractions.

    Attributes:
        low: Lower end; NaN where the score is undefined in every resample.
        high: Upper end.
        level: Share of the resamples between them.
        resamples: How many were drawn.
        seed: What they were drawn with.
    """

    low: float
    high: float
    level: float
    resamples: int
    seed: int


def bootstrap(
    records: MatchRecords,
    resamples: int = 1000,
    seed: int = 0,
    level: float = DEFAULT_LEVEL,
    names: Sequence[str] | None = None,
) -> dict[str, Interval]:
    """Return an interval for each score.

    Args:
        records: Of at least one image.
        resamples: How many times as many images are drawn, with replacement.
        seed: Of the draws.
        level: In (0, 1).
        names: Which scores; those of `score_names` unless given.

    Raises:
        UnknownNameError: There is no score of that name.
        MissingDataError: A score needs tables that the records do not hold.
    """
    samples = resample(records, resamples, seed, names)
    return {name: interval(values, level, seed) for name, values in samples.items()}


def paired_bootstrap(
    baseline: MatchRecords,
    other: MatchRecords,
    resamples: int = 1000,
    seed: int = 0,
    level: float = DEFAULT_LEVEL,
    names: Sequence[str] | None = None,
) -> dict[str, Interval]:
    """Return an interval for each difference `other - baseline`, on shared draws.

    Raises:
        ConflictError: The records are not of the same images.
        UnknownNameError: There is no score of that name.
        MissingDataError: A score needs tables that the records do not hold.
    """
    if baseline.images != other.images:
        msg = "a paired difference needs the same images on both sides"
        raise ConflictError(msg)
    chosen = names or [name for name in score_names(baseline) if name in score_names(other)]
    before = resample(baseline, resamples, seed, chosen)
    after = resample(other, resamples, seed, chosen)
    return {name: interval(after[name] - before[name], level, seed) for name in chosen}


def interval(samples: NDArray[np.float64], level: float, seed: int) -> Interval:
    """Return the percentile interval of samples; undefined ones are left out."""
    defined = samples[~np.isnan(samples)]
    tail = (1 - level) / 2
    low, high = np.quantile(defined, [tail, 1 - tail]) if defined.size else (np.nan, np.nan)
    return Interval(float(low), float(high), level, len(samples), seed)


def intervals_in_points(intervals: Mapping[str, Interval]) -> dict[str, FileInterval]:
    """Return intervals as a result file holds them: in points, None for undefined."""
    return {
        name: FileInterval(
            found.level,
            None if np.isnan(found.low) else 100 * found.low,
            None if np.isnan(found.high) else 100 * found.high,
            found.resamples,
            found.seed,
        )
        for name, found in intervals.items()
    }


def score_names(records: MatchRecords) -> list[str]:
    """Return the scores that can be resampled."""
    names = [f"AP{letter}" for letter in _AREAS] + [f"AP{at}" for at in _AT]
    names += [f"AR{cut}" for cut in MAX_DETECTIONS]
    names += [f"AP{origin}" for origin in ("thing", "stuff")] if has_origins(records) else []
    return names + ([] if records.tables is None else ["PQ", "SQ", "RQ"])


def resample(
    records: MatchRecords, resamples: int, seed: int, names: Sequence[str] | None = None
) -> Samples:
    """Return each score in each resample: name → `(resamples,)` float64, NaN where undefined.

    Raises:
        UnknownNameError: There is no score of that name.
        MissingDataError: A score needs tables that the records do not hold.
    """
    chosen = list(names or score_names(records))
    known, kind = [*score_names(records), "PQ", "SQ", "RQ"], "score"
    for name in chosen:
        if name not in known:
            raise UnknownNameError.of(kind, name, known)
    statistics = list(_statistics(records, set(chosen)))
    parts: dict[str, list[NDArray[np.float64]]] = {name: [] for name in chosen}
    for weights in draws(len(records), resamples, seed):
        for statistic in statistics:
            for name, values in statistic(weights).items():
                if name in parts:
                    parts[name].append(values)
    return {name: np.concatenate([np.zeros(0), *values]) for name, values in parts.items()}


def draws(num_images: int, resamples: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """Yield how often each image is drawn: blocks of `(B, I)` float64."""
    rng = np.random.default_rng(seed)
    for begin in range(0, resamples, _DRAWS_AT_ONCE):
        count = min(_DRAWS_AT_ONCE, resamples - begin)
        drawn = rng.integers(0, max(num_images, 1), (count, num_images))
        drawn += np.arange(count)[:, None] * num_images
        flat = np.bincount(drawn.ravel(), minlength=count * num_images)
        yield flat.reshape(count, num_images).astype(np.float64)


def _statistics(records: MatchRecords, names: set[str]) -> Iterator[Statistic]:
    """Yield what computes the wanted scores of weighted images, and perhaps more."""
    for letter, area in _AREAS.items():
        wanted = {f"AP{letter}"} | ({f"AP{at}" for at in _AT} if not letter else set())
        if names & wanted:
            ranked = RankedColumn(records, area_column(records, area))
            yield _average_precisions(ranked, f"AP{letter}")
    if names & {"APthing", "APstuff"}:
        for origin, column in origin_columns(records).items():
            yield _average_precisions(RankedColumn(records, column), f"AP{origin}")
    if names & {f"AR{cut}" for cut in MAX_DETECTIONS}:
        yield _average_recalls(records)
    if names & {"PQ", "SQ", "RQ"}:
        yield _qualities(records)


def _average_precisions(ranked: RankedColumn, name: str) -> Statistic:
    def statistic(weights: NDArray[np.float64]) -> Samples:
        values = np.array([ranked.average_precision(row) for row in weights])
        samples = {name: values.mean(axis=1)}
        if name == "AP":
            at = {key: np.flatnonzero(t == IOU_THRESHOLDS)[0] for key, t in _AT.items()}
            samples |= {f"AP{key}": values[:, t] for key, t in at.items()}
        return samples

    return statistic


def _average_recalls(records: MatchRecords) -> Statistic:
    hits = records.matched[:, 0] & ~records.ignored[:, 0]
    owners, ranks = images_of(records.detection_offsets), records.ranks
    found = np.zeros((len(MAX_DETECTIONS), len(records)))
    for bits in bits_of(hits):
        for m, cut in enumerate(MAX_DETECTIONS):
            found[m] += np.bincount(owners[bits & (ranks < cut)], minlength=len(records))
    positives = records.positives[:, 0].astype(np.float64)

    def statistic(weights: NDArray[np.float64]) -> Samples:
        with np.errstate(invalid="ignore"):
            recall = (weights @ found.T) / (weights @ positives)[:, None] / NUM_THRESHOLDS
        return {f"AR{cut}": recall[:, m] for m, cut in enumerate(MAX_DETECTIONS)}

    return statistic


def _qualities(records: MatchRecords) -> Statistic:
    sums = panoptic_sums(records).stacked()

    def statistic(weights: NDArray[np.float64]) -> Samples:
        return dict(zip(("PQ", "SQ", "RQ"), quality_of(weights @ sums), strict=True))

    return statistic
