"""Joining the results of `eval --shard` to the result that one run would have written."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from entitybench.errors import ConflictError, FormatError, MissingDataError
from entitybench.metrics.benchmark import RESOLVED_BEFORE, WHOLE_IMAGES
from entitybench.metrics.bootstrap import bootstrap, intervals_in_points
from entitybench.metrics.evaluation import Evaluation
from entitybench.metrics.records import MatchRecords
from entitybench.result import (
    Interval,
    Result,
    Signatures,
    environment,
    points_of,
    read_result,
    time_stamp,
    write_result,
)
from entitybench.sharding import Shard, check_complete, split_name

RECORDS = ".matches.npz"
OVERLAPPING = ".overlapping.npz"  # the same of masks before their overlap was resolved


@dataclass(frozen=True, slots=True)
class MergedResult:
    """What came of the parts of one result.

    Attributes:
        path: The result file; the match records lie beside it.
        parts: How many parts it had.
        result: What the file says.
    """

    path: Path
    parts: int
    result: Result


def merge_results(
    parts: Iterable[str | os.PathLike[str]], out: str | os.PathLike[str] | None = None
) -> list[MergedResult]:
    """Join result parts: equal to the bit to what one run gives.

    Args:
        parts: Result files that `eval --shard` wrote, with their records beside them, in any
            order, of one or more wholes.
        out: A folder for the results; that of each one's first part unless given.

    Raises:
        MissingDataError: A part or its records are missing.
        ConflictError: A part is there twice, or parts are of different models, ground truths
            or options, or share images.
        FormatError: A file is broken, or no part.
    """
    wholes: dict[tuple[Path, str], list[_Part]] = {}
    for path in map(Path, parts):
        part = _Part.at(path)
        wholes.setdefault((path.parent, part.whole), []).append(part)
    if not wholes:
        msg = "there are no parts to merge"
        raise MissingDataError(msg)
    plans = [
        (Path(out or folder) / f"{whole}.json", found) for (folder, whole), found in wholes.items()
    ]
    _refuse_twins([path for path, _ in plans])
    return [_merge(path, found) for path, found in plans]


@dataclass(frozen=True, slots=True)
class _Part:
    """One part: which it is, what it says, and what that was computed from."""

    shard: Shard
    whole: str
    path: Path
    result: Result
    records: MatchRecords
    overlapping: MatchRecords | None

    @classmethod
    def at(cls, path: Path) -> _Part:
        result = read_result(path)
        named = split_name(path.name.removesuffix(".json"))
        if named is None or result.metric.subset != named[1].label:
            msg = "the result is not of a part"
            hint = "parts are what `eval --shard i/n` writes, `NAME.part-i-of-n.json`"
            raise FormatError(msg, where=str(path), hint=hint)
        records = MatchRecords.load(path.with_suffix(RECORDS))
        before = path.with_suffix(OVERLAPPING)
        overlapping = MatchRecords.load(before) if before.exists() else None
        return cls(named[1], named[0], path, result, records, overlapping)

    @property
    def identity(self) -> dict[str, object]:
        """What all parts of one whole have in common."""
        result = self.result
        metric = replace(result.metric, num_images=0, subset="")
        prediction = replace(result.prediction, resolved_images=0)
        return {
            "model": result.model,
            "ground truth": (result.ground_truth.name, result.ground_truth.sha256),
            "signature": str(metric),
            "predictions": str(prediction),
            WHOLE_IMAGES: result.counts.get(WHOLE_IMAGES),
            RESOLVED_BEFORE: result.counts.get(RESOLVED_BEFORE),
        }


def _merge(path: Path, parts: Sequence[_Part]) -> MergedResult:
    check_complete((part.shard, str(part.path)) for part in parts)
    parts = sorted(parts, key=lambda part: part.shard)
    for part in parts[1:]:
        _check_alike(parts[0], part)
    evaluation = Evaluation.of(MatchRecords.merge([part.records for part in parts]))
    expected = parts[0].result.counts.get(WHOLE_IMAGES, len(evaluation.records))
    if len(evaluation.records) != expected:
        msg = f"the parts hold {len(evaluation.records):,} images, the whole has {expected:,}"
        raise ConflictError(msg, where=[str(part.path) for part in parts])
    result = _joined(parts, evaluation, _before_resolving(parts))
    path.parent.mkdir(parents=True, exist_ok=True)
    evaluation.records.save(path.with_suffix(RECORDS))
    write_result(path, result)
    return MergedResult(path, len(parts), result)


def _joined(
    parts: Sequence[_Part], evaluation: Evaluation, overlapping: MatchRecords | None
) -> Result:
    results = [part.result for part in parts]
    first, counts = results[0], evaluation.counts
    metric = replace(first.metric, num_images=counts.images, subset="")
    before = first.counts.get(RESOLVED_BEFORE, 0)
    resolved = sum(result.prediction.resolved_images - before for result in results)
    prediction = replace(first.prediction, resolved_images=before + resolved)
    scores = evaluation.all_scores()
    if overlapping is not None:
        scores["APoverlapping"] = Evaluation.of(overlapping).scores.AP
    created, seconds = time_stamp(sum(result.seconds or 0.0 for result in results))
    return msgspec.structs.replace(
        first,
        ground_truth=msgspec.structs.replace(
            first.ground_truth, num_images=counts.images, num_entities=counts.truth
        ),
        signature=Signatures(str(metric), str(prediction)),
        scores=points_of(scores),
        intervals=_intervals(parts, evaluation.records, overlapping),
        counts=counts.as_dict(),
        environment=environment(),
        created=created,
        seconds=seconds,
    )


def _bootstrapped(result: Result) -> tuple[int, int] | None:
    """Return resamples and seed of a result's intervals."""
    interval = next(iter(result.intervals.values()), None)
    return None if interval is None else (interval.resamples, interval.seed)


def _intervals(
    parts: Sequence[_Part], records: MatchRecords, overlapping: MatchRecords | None
) -> dict[str, Interval]:
    """Return the intervals of the whole, where the parts have some of theirs."""
    drawn = {_bootstrapped(part.result) for part in parts if len(part.records)}
    if len(drawn) > 1:
        msg = f"parts of `{parts[0].whole}` have intervals of different `--bootstrap` or `--seed`"
        raise ConflictError(msg, where=[str(part.path) for part in parts])
    how = next(iter(drawn), None)
    if how is None:
        return {}
    return intervals_in_points(bootstrap(records, *how, overlapping=overlapping))


def _before_resolving(parts: Sequence[_Part]) -> MatchRecords | None:
    """Return records of the masks before their overlap was resolved, if any overlapped."""
    if all(part.overlapping is None for part in parts):
        return None
    return MatchRecords.merge([part.overlapping or part.records for part in parts])


def _check_alike(first: _Part, other: _Part) -> None:
    mine, theirs = first.identity, other.identity
    different = [
        f"{key}: {mine[key]} in `{first.path}`, {theirs[key]} in `{other.path}`"
        for key in mine
        if mine[key] != theirs[key]
    ]
    if different:
        msg = f"parts of `{first.whole}` were scored differently"
        raise ConflictError(msg, where=different)


def _refuse_twins(paths: Sequence[Path]) -> None:
    twice = sorted({str(path) for path in paths if paths.count(path) > 1})
    if twice:
        msg = "parts from different folders would be merged into one result"
        raise ConflictError(msg, where=twice)
