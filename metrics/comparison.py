"""Two models on the same images: differences, and how certain they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from entitybench.errors import ConflictError, FormatError, MissingDataError
from entitybench.metrics.bootstrap import DEFAULT_LEVEL, Interval, paired_bootstrap, score_names
from entitybench.metrics.evaluation import Evaluation
from entitybench.metrics.panoptic_quality import PanopticQuality
from entitybench.metrics.records import MatchRecords
from entitybench.metrics.scores import Scores
from entitybench.result import Result, read_result

RECORDS = ".matches.npz"
_ORDER = (
    *(field.name for field in fields(Scores)),
    *(field.name for field in fields(PanopticQuality)),
    *("APb", "APb50", "APb75", "APbs", "APbm", "APbl"),
    *("APthing", "APstuff", "ARthing", "ARstuff", "APoverlapping"),
    *(f"{name}c{origin}" for origin in ("", "thing", "stuff") for name in ("PQ", "SQ", "RQ")),
    "ECE",
)
_TOLERANCE = 1e-6  # in points: rounding in the file, not another number


@dataclass(frozen=True, slots=True)
class Scored:
    """A result and, where they lie beside it, the records that it was computed from."""

    path: Path
    result: Result
    records: MatchRecords | None

    @classmethod
    def at(cls, path: Path) -> Scored:
        """Read a result file and its match records.

        Raises:
            MissingDataError: There is no such file.
            FormatError: A file is broken, or the records are not those of the result.
        """
        result = read_result(path)
        beside = path.with_suffix(RECORDS)
        if not beside.exists():
            return cls(path, result, None)
        records = MatchRecords.load(beside)
        points, stated = 100 * Evaluation.of(records).scores.AP, 100 * result.score("AP")
        if not math.isclose(points, stated, abs_tol=_TOLERANCE) and points == points:
            msg = f"the match records give an AP of {points:.3f}, the result {stated:.3f}"
            raise FormatError(msg, where=str(beside), hint="run `entitybench eval` again")
        return cls(path, result, records)


@dataclass(frozen=True, slots=True)
class Difference:
    """One score of two models, as fractions.

    Attributes:
        name: Which score.
        baseline: Of the first model; NaN if undefined.
        other: Of the second.
        interval: Of `other - baseline`, or None where there are no records to resample.
    """

    name: str
    baseline: float
    other: float
    interval: Interval | None

    @property
    def delta(self) -> float:
        """The difference `other - baseline`; NaN if either is undefined."""
        return self.other - self.baseline

    @property
    def is_certain(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.interval is not None and (self.interval.low > 0 or self.interval.high < 0)

    @property
    def is_regression(self) -> bool:
        """Whether it fell, by more than chance where that is known."""
        return self.delta < 0 if self.interval is None else self.interval.high < 0


@dataclass(frozen=True, slots=True)
class Comparison:
    """One model against the baseline.

    Attributes:
        baseline: The first model.
        other: The second.
        differences: One for each score that both have.
        notes: What a reader must know: how predictions or metrics differ, what is missing.
    """

    baseline: Scored
    other: Scored
    differences: tuple[Difference, ...]
    notes: tuple[str, ...]

    def __getitem__(self, name: str) -> Difference:
        return next(d for d in self.differences if d.name == name)


def compare(
    paths: Sequence[Path],
    *,
    resamples: int = 1000,
    seed: int = 0,
    level: float = DEFAULT_LEVEL,
    allow_mixed: bool = False,
) -> list[Comparison]:
    """Compare result files with the first of them.

    Args:
        paths: Two or more.
        resamples: How many times to draw the images, the same for both models.
        seed: Of the draws.
        level: Of the intervals, in (0, 1).
        allow_mixed: Compare scores that were computed differently, and note how.

    Raises:
        ConflictError: The metric parts of the signatures differ.
        MissingDataError: Fewer than two results, or a file is not there.
        FormatError: A file is broken.
    """
    if len(paths) < 2:
        msg = "a comparison needs two results or more"
        raise MissingDataError(msg)
    first, *others = [Scored.at(path) for path in paths]
    for other in others:
        if not allow_mixed:
            _refuse_mixed(first, other)
    return [_compare(first, other, resamples, seed, level) for other in others]


def _refuse_mixed(first: Scored, other: Scored) -> None:
    keys = first.result.metric.differences(other.result.metric)
    if keys:
        msg = f"cannot compare scores computed differently: {', '.join(keys)}"
        raise ConflictError(
            msg,
            where=[f"{scored.path}  {scored.result.signature.metric}" for scored in (first, other)],
            hint="run `entitybench eval` again on one of them, or pass `--allow-mixed`",
        )


def _compare(first: Scored, other: Scored, resamples: int, seed: int, level: float) -> Comparison:
    both = first.result.scores.keys() & other.result.scores.keys()
    names = [*(name for name in _ORDER if name in both), *sorted(both - set(_ORDER))]
    intervals, notes = _intervals(first, other, names, resamples, seed, level)
    differences = tuple(
        Difference(name, first.result.score(name), other.result.score(name), intervals.get(name))
        for name in names
    )
    return Comparison(first, other, differences, (*_notes(first, other), *notes))


def _intervals(
    first: Scored, other: Scored, names: list[str], resamples: int, seed: int, level: float
) -> tuple[dict[str, Interval], list[str]]:
    if not resamples:
        return {}, []
    bare = [scored for scored in (first, other) if scored.records is None]
    if bare or first.records is None or other.records is None:
        return {}, [f"no intervals: no match records beside `{s.path}`" for s in bare]
    if first.records.images != other.records.images:
        return {}, ["no intervals: the images differ"]
    both = set(score_names(first.records)) & set(score_names(other.records)) & set(names)
    chosen = [name for name in score_names(first.records) if name in both]
    intervals = paired_bootstrap(first.records, other.records, resamples, seed, level, chosen)
    return intervals, []


def _notes(first: Scored, other: Scored) -> list[str]:
    mine, theirs = first.result, other.result
    notes = []
    keys = mine.metric.differences(theirs.metric)
    if keys:
        notes.append(
            f"computed differently ({', '.join(keys)}): `{mine.signature.metric}` and "
            f"`{theirs.signature.metric}`"
        )
    if mine.signature.prediction != theirs.signature.prediction:
        notes.append(
            f"predictions differ: `{mine.signature.prediction}` and `{theirs.signature.prediction}`"
        )
    for result in (mine, theirs):
        seen = set(result.model.trained_on) & set(result.ground_truth.name.split("+"))
        notes += [f"{result.model.name} was trained on {name}" for name in sorted(seen)]
    return notes
