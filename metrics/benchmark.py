"""From names and paths to a scored result: the main job.

Opens ground truth and predictions, pairs their images, scores them, and says how.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np

from entitybench.candidates import Candidates, Overlap, OverlapPolicy, resolve
from entitybench.compiled_truth import DamagedTruthError, PixelOrder
from entitybench.entity_map import EntityMap
from entitybench.entity_set import Model
from entitybench.errors import ConflictError, MissingDataError, OverlapError
from entitybench.formats.coco_results_scan import ScannedResults, scan_results
from entitybench.formats.detection import open_predictions
from entitybench.formats.entity_set_predictions import EntitySetPredictions
from entitybench.formats.json_rows import NotPlainError
from entitybench.formats.missing_score import MissingScore
from entitybench.formats.predictions import Entry, ImageSize, Predictions, ScoredMap
from entitybench.metrics.boundary import match_boundaries
from entitybench.metrics.class_quality import ClassReport, with_classes
from entitybench.metrics.evaluation import Evaluation, ImagePair, match_pair
from entitybench.metrics.fused import FusedMatches, MaskFaultError, match_masks
from entitybench.metrics.fused_maps import StoredMaps, match_stored
from entitybench.metrics.ground_truth import GroundTruth, TrueImage, open_truths, with_origins
from entitybench.metrics.matching import ImageMatches
from entitybench.metrics.overlapping import match_overlapping
from entitybench.metrics.protocol import STRICT, Protocol, SizeRule
from entitybench.metrics.records import ImageKey, MatchRecords
from entitybench.result import (
    GroundTruthInfo,
    ModelInfo,
    Result,
    Signatures,
    environment,
    points_of,
    time_stamp,
)
from entitybench.sharding import Shard
from entitybench.signature import MetricSignature, PredictionSignature, ground_truth_label

WHOLE_IMAGES, RESOLVED_BEFORE = "whole_images", "resolved_before"
"""Counts that only a part has: images of the whole; images resolved before the evaluation."""


@dataclass(frozen=True, slots=True)
class ImageTask:
    """One image to score, not decoded yet: small enough to send to any worker."""

    truth: TrueImage
    set_name: str
    entry: Entry | None
    protocol: Protocol
    overlap: OverlapPolicy
    boundary: bool = False

    @property
    def key(self) -> ImageKey:
        """Set name and image id."""
        return ImageKey(self.set_name, self.truth.id)


@dataclass(frozen=True, slots=True)
class ImageOutcome:
    """What a worker returns: matches, or the overlap that forbids them.

    Attributes:
        key: Which image.
        matches: None where the overlap forbids them.
        overlap: Which masks share pixels, or None.
        before: Matches of the masks before their overlap was resolved.
        boundary: Matches by boundaries, where they are asked for.
    """

    key: ImageKey
    matches: ImageMatches | None
    overlap: Overlap | None
    before: ImageMatches | None = None
    boundary: ImageMatches | None = None


Mapper = Callable[
    [Callable[[ImageTask], ImageOutcome], Iterable[ImageTask]], Iterable[ImageOutcome]
]


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A scored model.

    Attributes:
        evaluation: Scores as fractions, counts, curves and match records.
        result: What goes into the result file, in points.
        recognised: A line for each prediction source that says what it was taken for, and one
            on its classes where there is something to say.
        overlapping: Matches of the masks before their overlap was resolved, if any overlapped.
        boundary: Matches by boundaries, if they were asked for.
    """

    evaluation: Evaluation
    result: Result
    recognised: tuple[str, ...]
    overlapping: MatchRecords | None = None
    boundary: MatchRecords | None = None


def evaluate(
    predictions: str | os.PathLike[str],
    ground_truth: str,
    *,
    data: str | os.PathLike[str] | None = None,
    protocol: Protocol = STRICT,
    overlap: OverlapPolicy | str = OverlapPolicy.REJECT,
    missing: str = "error",
    missing_score: MissingScore | str = MissingScore.ERROR,
    model: str | None = None,
    mapper: Mapper = map,
    threads: int = 1,
    shard: Shard | None = None,
    tables: bool = True,
    class_threshold: float = 0.0,
    boundary: bool = False,
) -> Benchmark:
    """Score predictions against ground truth.

    Args:
        predictions: One set of predictions in any format that `open_predictions` knows, or a
            folder with one set per ground-truth name.
        ground_truth: A set's name or path, a COCO instance or panoptic JSON, or a union `a+b`
            whose images are pooled.
        data: Where set names are looked up.
        protocol: Crowd, void and size rule.
        overlap: `reject` refuses masks that share pixels; `resolve` gives shared pixels to the
            higher score and records in how many images.
        missing: An image without predictions is an `error`, or counts as `empty`.
        missing_score: What stands in where the format has no scores; `error` refuses.
        model: The model's name, where the format does not tell it.
        mapper: Stands in for `map` over the images; must keep their order.
        threads: For COCO results and entity sets, which the kernel matches without the mapper.
        shard: Score only this part of the images; `merge_results` joins the parts.
        tables: Keep contingency tables, from which come quality, causes, boxes and origins.
            COCO results and entity sets are scored faster without.
        class_threshold: Least score of a prediction that counts in PQ by class, which comes of
            predictions with classes.
        boundary: Match by boundaries as well. The mapper then scores all images.

    Raises:
        OverlapError: Predictions overlap and `overlap` is `reject`; names pairs and pixels.
        MissingDataError: Images without predictions and `missing` is `error`; or a set is not
            there or unfinished.
        FormatError: A file is broken, or names images that the ground truth does not have.
    """
    began = time.monotonic()
    truths = open_truths(ground_truth, data)
    chosen = _Chosen(_protocol(protocol, truths), threads, tables)
    policy, part = OverlapPolicy(overlap), _part(truths, shard)
    readers = _readers(Path(predictions), truths, MissingScore(missing_score), missing)
    pairs = [
        _Pairing(truth, reader, None if boundary else _fused(truth, reader, chosen, part))
        for truth, reader in zip(truths, readers, strict=True)
    ]
    tasks = (
        replace(task, boundary=boundary)
        for pair in pairs
        for task in pair.tasks(chosen.protocol, policy)
        if task.key in part
    )
    done = [_within(pair.matched, part) for pair in pairs if pair.matched is not None]
    gathered = _gather(chosen.protocol, mapper(score_image, tasks), sum(map(len, done)))
    resolved = gathered.resolved
    records = _joined([*done, gathered.records])
    by_class = with_classes(with_origins(records, truths), truths, readers, class_threshold)
    evaluation = Evaluation.of(by_class.records)
    overlapping = _before_resolving(records, gathered.before)
    described = _described(readers, model or _stem(Path(predictions)), resolved)
    result = _result(truths, described, evaluation, chosen.protocol, began, by_class)
    if overlapping is not None:
        score = {"APoverlapping": Evaluation.of(overlapping).scores.AP}
        result = msgspec.structs.replace(result, scores=result.scores | points_of(score))
    if shard is not None:
        earlier = described.resolved_images - resolved
        result = _as_part(result, shard, sum(map(len, truths)), earlier)
    recognised = [reader.description for reader in readers]
    recognised += [by_class.said] if by_class.said else []
    by_boundary = MatchRecords.gather(chosen.protocol, gathered.boundary) if boundary else None
    return Benchmark(evaluation, result, tuple(recognised), overlapping, by_boundary)


def score_image(task: ImageTask) -> ImageOutcome:
    """Read, resolve and match one image; pure but for reading.

    Raises:
        FormatError: Truth or prediction of this image is broken.
    """
    truth, sizes = task.truth.load()
    found, overlapping, overlap = _prediction(task, truth)
    if overlap and task.overlap is OverlapPolicy.REJECT:
        return ImageOutcome(task.key, None, overlap)
    pair = ImagePair(task.truth.id, truth, found.map, found.scores, sizes, task.set_name)
    _, matches = match_pair(pair, task.protocol)
    before = boundary = None
    if overlapping is not None:
        before = match_overlapping(truth, overlapping, matches.truth_sizes, task.protocol)
    if task.boundary:
        sizes = matches.truth_sizes
        boundary = match_boundaries(truth, found.map, found.scores, sizes, task.protocol)
    return ImageOutcome(task.key, matches, overlap, before, boundary)


@dataclass(frozen=True, slots=True)
class _Chosen:
    """How to score: by which rules, on how many threads, with tables or without."""

    protocol: Protocol
    threads: int
    tables: bool


def _joined(parts: Sequence[MatchRecords]) -> MatchRecords:
    """Join parts of which most are empty, or all but one."""
    held = [part for part in parts if len(part)]
    return held[0] if len(held) == 1 else MatchRecords.merge(parts)


class _Everything(Container[object]):
    """Holds everything."""

    def __contains__(self, item: object) -> bool:
        return True


def _part(truths: Sequence[GroundTruth], shard: Shard | None) -> Container[object]:
    """Return the keys of the images to score."""
    if shard is None:
        return _Everything()
    keys = [ImageKey(truth.name, image_id) for truth in truths for image_id in truth.ids]
    return frozenset(shard.of(keys))


def _within(records: MatchRecords, part: Container[object]) -> MatchRecords:
    if isinstance(part, _Everything):
        return records
    return records.take([index for index, key in enumerate(records.images) if key in part])


def _as_part(result: Result, shard: Shard, images: int, resolved_before: int) -> Result:
    """Say that a result is of a part: its numbers stand in no column."""
    metric = replace(result.metric, subset=shard.label)
    counts = {WHOLE_IMAGES: images, RESOLVED_BEFORE: resolved_before}
    return msgspec.structs.replace(
        result,
        signature=Signatures(str(metric), result.signature.prediction),
        counts=result.counts | counts,
    )


@dataclass(frozen=True, slots=True)
class _Pairing:
    """One ground truth with its predictions, and what the kernel made of them at once."""

    truth: GroundTruth
    reader: Predictions
    fused: FusedMatches | None

    @property
    def matched(self) -> MatchRecords | None:
        """Records of the images that need no second look."""
        if self.fused is None:
            return None
        records, left = self.fused.records, self.fused.left
        if not left:
            return records
        held = [i for i, key in enumerate(records.images) if key.image_id not in left]
        return records.take(held)

    def tasks(self, protocol: Protocol, overlap: OverlapPolicy) -> Iterator[ImageTask]:
        """Yield the images that are left, in order."""
        left = None if self.fused is None else self.fused.left
        if left is not None and not left:
            return
        for image in self.truth.images():
            if left is None or image.id in left:
                entry = _entry(self.reader, image.size)
                yield ImageTask(image, self.truth.name, entry, protocol, overlap)


def _fused(
    truth: GroundTruth, reader: Predictions, chosen: _Chosen, part: Container[object]
) -> FusedMatches | None:
    """Match COCO results or an entity set in one pass; None where there is no kernel for them."""
    for anew in (False, True):
        try:
            if isinstance(reader, ScannedResults):
                return _fused_masks(truth, reader, chosen, anew=anew)
            if isinstance(reader, EntitySetPredictions):
                return _fused_maps(truth, reader, chosen, part, anew=anew)
        except DamagedTruthError:
            if anew:
                raise
    return None


def _fused_masks(
    truth: GroundTruth, reader: ScannedResults, chosen: _Chosen, *, anew: bool
) -> FusedMatches | None:
    compiled = truth.compiled(PixelOrder.COLUMNS, anew=anew)
    if compiled is None:
        return None
    try:
        masks = reader.masks_of(compiled.ids, compiled.shapes)
        return match_masks(
            compiled,
            masks,
            chosen.protocol,
            set_name=truth.name,
            threads=chosen.threads,
            tables=chosen.tables,
        )
    except (MaskFaultError, NotPlainError):
        return None


def _fused_maps(
    truth: GroundTruth,
    reader: EntitySetPredictions,
    chosen: _Chosen,
    part: Container[object],
    *,
    anew: bool,
) -> FusedMatches | None:
    compiled = truth.compiled(PixelOrder.ROWS, anew=anew)
    if compiled is None:
        return None
    wanted = {i for i in compiled.ids if ImageKey(truth.name, i) in part}
    return match_stored(
        compiled,
        StoredMaps.of(reader.entity_set, compiled, wanted),
        chosen.protocol,
        set_name=truth.name,
        threads=chosen.threads,
        tables=chosen.tables,
    )


def _protocol(protocol: Protocol, truths: Sequence[GroundTruth]) -> Protocol:
    """Take the sizes that COCO files state; a union must not mix them with counted pixels."""
    stated = {truth.states_sizes for truth in truths}
    if len(stated) > 1:
        msg = "a union of entity sets and COCO files would mix two kinds of sizes"
        raise ConflictError(msg, hint="convert the COCO files to entity sets")
    return protocol.with_annotated_sizes() if stated == {True} else protocol


def _prediction(
    task: ImageTask, truth: EntityMap
) -> tuple[ScoredMap, Candidates | None, Overlap | None]:
    """Return the predicted map, and where masks overlapped these and how."""
    if task.entry is None:
        return ScoredMap(EntityMap.from_runs(truth.shape, [0], [0], 0), np.zeros(0)), None, None
    loaded = task.entry.load()
    if isinstance(loaded, ScoredMap):
        return loaded, None, None
    done = resolve(loaded, OverlapPolicy.RESOLVE)
    found = ScoredMap(done.map, done.scores)
    return (found, loaded, done.overlap) if done.overlap else (found, None, None)


def _entry(reader: Predictions, image: ImageSize) -> Entry | None:
    return reader.entry(image) if image.id in reader.image_ids else None


def _readers(
    path: Path, truths: Sequence[GroundTruth], missing_score: MissingScore, missing: str
) -> list[Predictions]:
    """Open the predictions for each ground truth; refuse those that lack images."""
    readers = [
        _reader(_own_predictions(path, truth.name, len(truths)), truth, missing_score)
        for truth in truths
    ]
    for reader, truth in zip(readers, truths, strict=True):
        _check_images(reader, truth, missing)
    return readers


def _reader(path: Path, truth: GroundTruth, missing_score: MissingScore) -> Predictions:
    scanned = scan_results(path, truth.ids)
    if scanned is not None:
        return scanned
    return open_predictions(path, missing_score=missing_score, image_ids=truth.ids)


def _own_predictions(path: Path, name: str, num_truths: int) -> Path:
    """Return the predictions for one ground truth: inside a folder of sets, or the path."""
    if not path.exists():
        msg = f"no predictions at `{path}`"
        raise MissingDataError(msg)
    for own in (path / name, path / f"{name}.zip", path / f"{name}.json"):
        if path.is_dir() and own.exists():
            return own
    if num_truths > 1:
        msg = f"`{path}` has no predictions for `{name}`"
        raise MissingDataError(msg, hint="a union needs one set per name in one folder")
    return path


def _check_images(reader: Predictions, truth: GroundTruth, missing: str) -> None:
    absent = [image_id for image_id in truth.ids if image_id not in reader.image_ids]
    if absent and not reader.absent_means_empty and missing != "empty":
        msg = f"predictions miss {len(absent)} of {len(truth)} images of `{truth.name}`"
        hint = (
            "an image without predictions needs an empty entry; "
            "`--missing empty` counts them as empty"
        )
        raise MissingDataError(msg, where=absent, hint=hint)


_Keyed = tuple[ImageKey, ImageMatches]


@dataclass(frozen=True, slots=True)
class _Gathered:
    """What came of the images.

    Attributes:
        records: Their matches.
        resolved: In how many an overlap was resolved.
        before: Matches of those before it was.
        boundary: Matches by boundaries.
    """

    records: MatchRecords
    resolved: int
    before: list[_Keyed]
    boundary: list[_Keyed]


def _gather(protocol: Protocol, outcomes: Iterable[ImageOutcome], already: int = 0) -> _Gathered:
    """Collect matches; refuse overlaps with their count and the first of their places."""
    forbidden: list[str] = []
    before: list[_Keyed] = []
    boundary: list[_Keyed] = []
    seen, refused, resolved = already, 0, 0

    def matched() -> Iterator[_Keyed]:
        nonlocal seen, refused, resolved
        for outcome in outcomes:
            seen += 1
            if outcome.matches is None and outcome.overlap is not None:
                refused += 1
                forbidden.extend(outcome.overlap.places(outcome.key.image_id))
            elif outcome.matches is not None:
                resolved += outcome.overlap is not None
                before.extend([(outcome.key, outcome.before)] if outcome.before else [])
                boundary.extend([(outcome.key, outcome.boundary)] if outcome.boundary else [])
                yield outcome.key, outcome.matches

    records = MatchRecords.gather(protocol, matched())
    if refused:
        msg = f"predictions overlap in {refused} of {seen} images"
        hint = (
            "AP_e allows no overlap; `--overlap resolve` gives shared pixels to the higher "
            "score and records it in the signature"
        )
        raise OverlapError(msg, where=forbidden, hint=hint)
    return _Gathered(records, resolved, before, boundary)


def _before_resolving(records: MatchRecords, before: Sequence[_Keyed]) -> MatchRecords | None:
    """Return records with the masks of some images as they were before; None if of none."""
    if not before:
        return None
    changed = {key for key, _ in before}
    same = [index for index, key in enumerate(records.images) if key not in changed]
    earlier = MatchRecords.gather(records.protocol, before)
    return MatchRecords.merge([records.take(same), earlier])


def _described(readers: Sequence[Predictions], name: str, resolved: int) -> Model:
    """Say what made the predictions; the parts of a union must come from one model."""
    blocks = [reader.model or Model(name, score_rule=reader.score_rule) for reader in readers]
    if len({(block.name, block.score_rule, block.thresholded) for block in blocks}) > 1:
        names = [f"{m.name}, scores {m.score_rule}, threshold {m.thresholded}" for m in blocks]
        msg = "the parts of the union come from different models or score rules"
        raise ConflictError(msg, where=names)
    first = blocks[0]
    return Model(
        first.name,
        tuple(dict.fromkeys(trained for m in blocks for trained in m.trained_on)),
        first.url,
        first.score_rule,
        first.thresholded,
        resolved + sum(m.resolved_images for m in blocks),
    )


def _stem(path: Path) -> str:
    return path.resolve().name.removesuffix(".gz").removesuffix(".zip").removesuffix(".json")


def _result(
    truths: list[GroundTruth],
    model: Model,
    evaluation: Evaluation,
    protocol: Protocol,
    began: float,
    by_class: ClassReport,
) -> Result:
    hashes = {truth.name: truth.content_hash for truth in truths}
    scores = evaluation.all_scores()
    created, took = time_stamp(time.monotonic() - began)
    metric = MetricSignature(
        ground_truth_label(hashes),
        evaluation.counts.images,
        protocol.name,
        protocol.void,
        size="annotation" if protocol.size is SizeRule.ANNOTATION else "",
    )
    rule = model.score_rule.replace(",", "").replace(" ", "-")  # a signature has no spaces
    prediction = PredictionSignature(
        rule,
        model.resolved_images,
        model.thresholded,
        by_class.label,
        by_class.threshold,
    )
    return Result(
        model=ModelInfo(model.name, model.trained_on, url=model.url),
        ground_truth=GroundTruthInfo(
            "+".join(sorted(hashes)),
            evaluation.counts.images,
            evaluation.counts.truth,
            "+".join(hashes[name] for name in sorted(hashes)),
        ),
        signature=Signatures(str(metric), str(prediction)),
        scores=points_of(scores),
        counts=evaluation.counts.as_dict(),
        environment=environment(),
        created=created,
        seconds=took,
    )
