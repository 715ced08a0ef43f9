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
from scipy.sparse import csr_array

from entitybench.errors import ConflictError, UnknownNameError
from entitybench.metrics.boxes import box_records
from entitybench.metrics.calibration import calibration_error, calibration_sums
from entitybench.metrics.class_quality import class_scores, mean_scores
from entitybench.metrics.class_sums import ClassSums
from entitybench.metrics.origins import ORIGINS, has_origins, origin_columns
from entitybench.metrics.panoptic_quality import panoptic_sums, quality_of
from entitybench.metrics.protocol import MAX_DETECTIONS
from entitybench.metrics.ragged import images_of
from entitybench.metrics.ranking import (
    NUM_THRESHOLDS,
    Column,
    RankedColumn,
    area_column,
    bits_of,
)
from entitybench.metrics.records import MatchRecords
from entitybench.result import Interval as FileInterval

DEFAULT_LEVEL = 0.95
_DRAWS_AT_ONCE = 64  # bounds the memory, not the result
_AREAS = {"": "all", "s": "small", "m": "medium", "l": "large"}
_AT = {"50": 0, "75": 5}  # places in `IOU_THRESHOLDS`
_QUALITIES = ("PQ", "SQ", "RQ")

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
    overlapping: MatchRecords | None = None,
) -> dict[str, Interval]:
    """Return an interval for each score.

    Args:
        records: Of at least one image.
        resamples: How many times as many images are drawn, with replacement.
        seed: Of the draws.
        level: In (0, 1).
        names: Which scores; those of `score_names` unless given.
        overlapping: Of the same images before overlap was resolved: adds `APoverlapping`.

    Raises:
        UnknownNameError: There is no score of that name.
        MissingDataError: A score needs tables that the records do not hold.
    """
    samples = resample(records, resamples, seed, names)
    if overlapping is not None:
        samples["APoverlapping"] = resample(overlapping, resamples, seed, ["AP"])["AP"]
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
    """Return the scores that can be resampled: all of `Evaluation.all_scores`."""
    names = ["AP", *(f"AP{more}" for more in (*_AT, *_AREAS) if more)]
    names += [f"AR{more}" for more in (*MAX_DETECTIONS, *_AREAS) if more]
    if records.tables is None:
        return names
    names += [*_QUALITIES, "ECE", "APb", *(f"APb{more}" for more in (*_AT, *_AREAS) if more)]
    if has_origins(records):
        names += [f"{kind}{origin}" for origin in ORIGINS for kind in ("AP", "AR")]
    return names if records.classes is None else [*names, *class_scores(records.classes)]


def resample(
    records: MatchRecords, resamples: int, seed: int, names: Sequence[str] | None = None
) -> Samples:
    """Return each score in each resample: name → `(resamples,)` float64, NaN where undefined.

    Raises:
        UnknownNameError: There is no score of that name.
        MissingDataError: A score needs tables that the records do not hold.
    """
    chosen = list(names or score_names(records))
    known, kind = [*score_names(records), *_QUALITIES], "score"
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
    recalls: dict[str, tuple[Column, int]] = {
        f"AR{cut}": (area_column(records), cut) for cut in MAX_DETECTIONS
    }
    for letter, area in _AREAS.items():
        column = area_column(records, area)
        yield from _average_precision(records, column, f"AP{letter}", names)
        recalls |= {f"AR{letter}": (column, MAX_DETECTIONS[-1])} if letter else {}
    if any(name.startswith("APb") for name in names):
        boxes = box_records(records)
        for letter, area in _AREAS.items():
            column = area_column(boxes, area)
            yield from _average_precision(boxes, column, f"APb{letter}", names)
    if names & {f"{kind}{origin}" for origin in ORIGINS for kind in ("AP", "AR")}:
        for origin, column in origin_columns(records).items():
            yield from _average_precision(records, column, f"AP{origin}", names)
            recalls[f"AR{origin}"] = column, MAX_DETECTIONS[-1]
    if names & set(recalls):
        yield _average_recalls(records, recalls)
    if "ECE" in names:
        yield _calibration(records)
    if names & set(_QUALITIES):
        yield _qualities(records)
    if records.classes is not None and not names.isdisjoint(class_scores(records.classes)):
        yield _class_qualities(records.classes)


def _average_precision(
    records: MatchRecords, column: Column, name: str, names: set[str]
) -> Iterator[Statistic]:
    """Yield the AP of a column over all thresholds and at single ones, if any is wanted."""
    at = {f"{name}{at}": t for at, t in _AT.items() if name in ("AP", "APb")}
    if names.isdisjoint({name, *at}):
        return
    ranked = RankedColumn(records, column)

    def statistic(weights: NDArray[np.float64]) -> Samples:
        values = ranked.average_precision(weights)
        return {name: values.mean(axis=1)} | {key: values[:, t] for key, t in at.items()}

    yield statistic


def _average_recalls(records: MatchRecords, recalls: dict[str, tuple[Column, int]]) -> Statistic:
    """Return the recalls of columns, each with so many predictions of an image at most."""
    owners, ranks = images_of(records.detection_offsets), records.ranks
    found, positives = np.zeros((2, len(records), len(recalls)))
    for place, (column, cut) in enumerate(recalls.values()):
        positives[:, place] = column.positives
        for bits in bits_of(column.matched & ~column.ignored):
            found[:, place] += np.bincount(owners[bits & (ranks < cut)], minlength=len(records))

    def statistic(weights: NDArray[np.float64]) -> Samples:
        with np.errstate(invalid="ignore"):
            recall = (weights @ found) / (weights @ positives) / NUM_THRESHOLDS
        return dict(zip(recalls, recall.T, strict=True))

    return statistic


def _calibration(records: MatchRecords) -> Statistic:
    sums = calibration_sums(records)

    def statistic(weights: NDArray[np.float64]) -> Samples:
        return {"ECE": calibration_error(weights @ sums)}

    return statistic


def _class_qualities(sums: ClassSums) -> Statistic:
    num_images, num_classes = len(sums.class_offsets) - 1, len(sums.names)
    columns = 4 * sums.class_rows[:, None] + np.arange(4)
    by_image = csr_array(
        (sums.class_sums.ravel(), columns.ravel(), 4 * sums.class_offsets),
        shape=(num_images, 4 * num_classes),
    ).T

    def statistic(weights: NDArray[np.float64]) -> Samples:
        pooled = (by_image @ weights.T).T.reshape(len(weights), num_classes, 4)
        return mean_scores(sums.things, pooled)

    return statistic


def _qualities(records: MatchRecords) -> Statistic:
    sums = panoptic_sums(records).stacked()

    def statistic(weights: NDArray[np.float64]) -> Samples:
        return dict(zip(_QUALITIES, quality_of(weights @ sums), strict=True))

    return statistic
