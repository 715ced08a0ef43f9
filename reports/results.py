"""A folder of result files, read whole and held together by their signatures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import msgspec

from entitybench.errors import ConflictError, MissingDataError
from entitybench.metrics.breakdown import further_scores
from entitybench.metrics.evaluation import Evaluation
from entitybench.metrics.records import MatchRecords
from entitybench.result import GroundTruthInfo, Result, Signatures, points_of, read_result
from entitybench.signature import MetricSignature

RECORDS_SUFFIX = ".matches.npz"
UNSTATED = "not stated"
_METHOD_END, _SEED = "@", "#"


@dataclass(frozen=True, eq=False)
class Run:
    """One model on one ground truth.

    Attributes:
        result: What the result file says.
        path: The result file; of a pooled run, the folder of results.
        pooled_from: The runs whose match records were pooled; none for a run of `eval`.
    """

    result: Result
    path: Path
    pooled_from: tuple[Run, ...] = ()

    @property
    def name(self) -> str:
        """The model's name."""
        return self.result.model.name

    @property
    def method(self) -> str:
        """The name up to `@`: `tiny` of `tiny@coco_entity_train#1`."""
        return self.name.partition(_METHOD_END)[0]

    @property
    def trained_on(self) -> tuple[str, ...]:
        """The sets it was trained on, in order of name; none if not stated, or untrained."""
        return tuple(sorted(self.result.model.trained_on))

    @property
    def ground_truth(self) -> str:
        """Name of the test set, or of the union `a+b`."""
        return self.result.ground_truth.name

    @property
    def tested_on(self) -> tuple[str, ...]:
        """The test set's name, or those of a union, in order."""
        return tuple(sorted(self.ground_truth.split("+")))

    @property
    def saw_the_test(self) -> bool:
        """Whether it was trained on a set that it is tested on."""
        return not set(self.trained_on).isdisjoint(self.tested_on)

    @cached_property
    def records(self) -> MatchRecords | None:
        """The match records beside the result file, or None where they are not kept.

        Raises:
            FormatError: The file is broken or of another version.
        """
        if self.pooled_from:
            parts = [run.records for run in self.pooled_from]
            return MatchRecords.merge([part for part in parts if part is not None])
        path = self.path.with_suffix(RECORDS_SUFFIX)
        return MatchRecords.load(path) if path.exists() else None

    def points(self, metric: str) -> float | None:
        """Return a score in points, or None where it is undefined or absent."""
        return self.result.scores.get(metric)


def read_runs(folder: Path) -> list[Run]:
    """Read every result file below a folder, in order of path; or one file.

    Below a folder, results on a subset of a test set (`eval --subset`), on a part of it
    (`eval --shard`) or of another measure (`eval --boundary`) are left out: models are compared
    on the whole.

    Raises:
        MissingDataError: There is none.
        FormatError: A JSON file there is no result file.
        ConflictError: Two files hold the same model on the same ground truth.
    """
    paths = [folder] if folder.is_file() else sorted(folder.rglob("*.json"))
    found = [Run(read_result(path), path) for path in paths]
    runs = [run for run in found if folder.is_file() or _is_whole(run.result.metric)]
    if found and not runs:
        msg = f"`{folder}` holds only results on subsets or parts of test sets"
        hint = "`entitybench merge` joins parts; the file of one subset can be given by itself"
        raise MissingDataError(msg, where=[str(run.path) for run in found], hint=hint)
    if not runs:
        msg = f"no result files in `{folder}`"
        hint = "`entitybench eval` writes them, to `results/` unless told otherwise"
        raise MissingDataError(msg, hint=hint)
    seen: dict[tuple[str, str], Run] = {}
    for run in runs:
        key = (run.name, run.ground_truth)
        if key in seen:
            msg = f"model `{run.name}` has two results on `{run.ground_truth}`"
            hint = "a second run of one model needs another name, or another folder"
            raise ConflictError(msg, where=[str(seen[key].path), str(run.path)], hint=hint)
        seen[key] = run
    return runs


def _is_whole(metric: MetricSignature) -> bool:
    return not (metric.subset or metric.boundary)


def completed(run: Run) -> Run:
    """Add the scores that the match records tell and an older result file does not say."""
    if run.records is None or "PQ" in run.result.scores:
        return run
    scores = points_of(further_scores(run.records)) | run.result.scores
    return replace(run, result=msgspec.structs.replace(run.result, scores=scores))


def check_comparable(runs: Sequence[Run]) -> None:
    """Refuse runs on one ground truth whose numbers were computed differently.

    Raises:
        ConflictError: Metric parts differ; shows two files and their signatures.
    """
    for name in dict.fromkeys(run.ground_truth for run in runs):
        same = [run for run in runs if run.ground_truth == name]
        other = next((r for r in same if r.result.metric != same[0].result.metric), None)
        if other is not None:
            msg = f"the scores on `{name}` were computed differently"
            parts = ", ".join(
                f"`{d}`" for d in same[0].result.metric.differences(other.result.metric)
            )
            where = [f"{run.path}  {run.result.signature.metric}" for run in (same[0], other)]
            hint = (
                f"they differ in {parts}; run `entitybench eval` again on one of them, "
                "or pass `--allow-mixed`"
            )
            raise ConflictError(msg, where=where, hint=hint)


def with_union(runs: Sequence[Run], tests: Sequence[str] = ()) -> list[Run]:
    """Add, for each model, the pooled images of single test sets, from its match records.

    Args:
        runs: As read.
        tests: The sets to pool; all that there are, if none are named.

    A model that lacks a test set or its records, or that has results on that union already,
    gets no new run; neither does one whose parts follow different protocols.
    """
    single = sorted(tests or {run.ground_truth for run in runs if len(run.tested_on) == 1})
    if len(single) < 2:
        return list(runs)
    union = "+".join(single)
    pooled = []
    for name in dict.fromkeys(run.name for run in runs):
        own = {run.ground_truth: run for run in runs if run.name == name}
        if union in own or not own.keys() >= set(single):
            continue
        parts = [own[test] for test in single]
        if _can_pool(parts):
            pooled.append(_pooled(parts, union))
    return [*runs, *pooled]


def _can_pool(parts: Iterable[Run]) -> bool:
    parts = list(parts)
    signatures = {replace(p.result.metric, ground_truth="-", num_images=0) for p in parts}
    records = [part.records for part in parts]
    protocols = {r.protocol for r in records if r is not None}
    return None not in records and len(signatures) == 1 and len(protocols) == 1


def _pooled(parts: Sequence[Run], union: str) -> Run:
    evaluation = Evaluation.of(
        MatchRecords.merge([part.records for part in parts if part.records is not None])
    )
    first = parts[0].result
    metric = replace(
        first.metric,
        ground_truth="+".join(part.result.metric.ground_truth for part in parts),
        num_images=evaluation.counts.images,
    )
    result = Result(
        model=first.model,
        ground_truth=GroundTruthInfo(
            union,
            evaluation.counts.images,
            evaluation.counts.truth,
            "+".join(part.result.ground_truth.sha256 for part in parts),
        ),
        signature=Signatures(str(metric), first.signature.prediction),
        scores=points_of(evaluation.all_scores()),
        counts=evaluation.counts.as_dict(),
        environment=first.environment,
        created=max(part.result.created for part in parts),
        seconds=None,
    )
    return Run(result, parts[0].path.parent, tuple(parts))


_TITLES = {
    "coco": "COCO",
    "ade20k": "ADE20K",
    "ade20k_full": "ADE20K full",
    "ade20k_full_2021": "ADE20K 2021",
    "bsds500": "BSDS500",
    "cityscapes": "Cityscapes",
    "mapillary": "Mapillary",
    "sa1b": "SA-1B",
}


def domain_of(set_name: str) -> str:
    """Return what training and test set of one source share.

    >>> domain_of("coco_entity_val")
    'coco'
    """
    return set_name.partition("_entity_")[0]


def title_of(set_name: str) -> str:
    """Name an entity set for people.

    >>> title_of("coco_entity_val"), title_of("my-scenes")
    ('COCO val', 'my-scenes')
    """
    domain, found, split = set_name.partition("_entity_")
    return f"{_TITLES.get(domain, domain)} {split.replace('_', ' ')}" if found else set_name


def training_title(trained_on: Sequence[str]) -> str:
    """Name what a model was trained on: sources alone where every split is `train`.

    >>> training_title(["ade20k_entity_train", "coco_entity_train"])
    'ADE20K + COCO'
    """
    if not trained_on:
        return UNSTATED
    return " + ".join(title_of(name).removesuffix(" train") for name in trained_on)


def test_title(tested_on: Sequence[str]) -> str:
    """Name a test set or a union; a split that all share is said once.

    >>> test_title(["ade20k_entity_val", "coco_entity_val"])
    'ADE20K + COCO val'
    >>> test_title(["coco_entity_train", "coco_entity_val"])
    'COCO train + COCO val'
    """
    titles = [title_of(name) for name in tested_on]
    splits = {title.partition(" ")[2] for title in titles}
    if len(splits) == 1 and "" not in splits:
        titles = [title.partition(" ")[0] for title in titles[:-1]] + titles[-1:]
    return " + ".join(titles)
