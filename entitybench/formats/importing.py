"""Anybody's predictions become an entity set.

Reading, removing duplicates and flattening are pure functions of one image, which workers run;
this process writes.  Stopped at any moment, the same call resumes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from entitybench import __version__
from entitybench.candidates import Candidates, Resolution, resolve
from entitybench.entity_map import EntityMap
from entitybench.entity_set import Category, EntitySet, ImageRow, Model, Option, Provenance
from entitybench.entity_writer import EntityWriter, PreparedImage, prepare
from entitybench.errors import MAX_EXAMPLES, FormatError, MissingDataError, OverlapError
from entitybench.formats.detection import Format, ReadOptions, open_predictions
from entitybench.formats.duplicates import DuplicateRule
from entitybench.formats.flattening import Flattening, flatten
from entitybench.formats.predictions import Entry, ImageSize, Predictions, ScoredMap
from entitybench.formats.query_outputs import QueryScore
from entitybench.formats.sam import SamScore
from entitybench.merging import WHOLE_IMAGES
from entitybench.parallel import ordered_map
from entitybench.sharding import Shard

_WORTH_A_PROCESS = 32  # images; a process takes a second or two to start


@dataclass(frozen=True, slots=True)
class ImportChoices:
    """What shapes an imported set.

    Attributes:
        format: The format; recognised unless given.
        read: Choices that some formats leave open.
        flattening: Who wins a pixel that several masks claim; None refuses such masks.
        missing_is_empty: An image without predictions counts as empty; else it is refused.
    """

    format: Format | None = None
    read: ReadOptions = field(default_factory=ReadOptions)
    flattening: Flattening | None = None
    missing_is_empty: bool = False


@dataclass(frozen=True, slots=True)
class ImportSummary:
    """What an import did.

    Attributes:
        path: The set.
        model: What the set says of the model.
        recognised: What the predictions were taken for.
        images: Images in the set.
        entities: Entities in the set.
        emptied: Masks that lost all their pixels to others, in the images read by this call.
        already_there: The finished set was there, made with the same choices.
        warnings: What a user should know before trusting the numbers.
    """

    path: Path
    model: Model
    recognised: str
    images: int
    entities: int
    emptied: int
    already_there: bool
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Task:
    row: ImageRow
    entry: Entry | None
    flattening: Flattening | None
    classes: tuple[Provenance, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """An image ready to write, or the overlap that forbids it."""

    image: PreparedImage | None
    places: tuple[str, ...] = ()
    emptied: int = 0


Progress = Callable[[Iterable[Outcome], int], Iterable[Outcome]]


def import_predictions(
    path: str | os.PathLike[str],
    truth: EntitySet,
    out: str | os.PathLike[str],
    model: Model,
    choices: ImportChoices | None = None,
    *,
    overwrite: bool = False,
    jobs: int = 1,
    executor: Executor | None = None,
    shard: Shard | None = None,
    progress: Progress = lambda items, _: items,
) -> ImportSummary:
    """Write an entity set of predictions from a file or folder of another tool.

    Args:
        path: The predictions.
        truth: The ground truth whose images they predict, and whose classes, where predictions
            bear ids of classes without names; nothing else of it is used.
        out: The set to write: a folder, or a name ending in `.zip`.
        model: Name, training sets and threshold; its score rule is found here.
        choices: What shapes the set.
        overwrite: Replace a set made with other choices.
        jobs: Processes that read.
        executor: Reads instead of processes here, as in `ordered_map`; `jobs` is then how many
            workers it has.
        shard: Only this part of the images, as `<out>.part-i-of-n`; `merge_sets` joins the parts.
        progress: Wraps the images as they come, given their number.

    Raises:
        OverlapError: Masks share pixels and no flattening is chosen; names pairs and pixels.
        MissingDataError: Images without predictions, or scores that nothing stands in for.
        FormatError: Not recognised or broken.
        ConflictError: Another set is there.
    """
    choices = choices or ImportChoices()
    reader = open_predictions(
        Path(path), image_ids=truth.ids, format=choices.format, options=choices.read
    )
    share = truth.ids if shard is None else shard.of(truth.ids)
    if not choices.missing_is_empty:
        _refuse_missing(reader, share, truth.header.name)
    where = _part_path(Path(out), shard)
    written = EntityWriter(
        where,
        name=where.name.removesuffix(".zip") if shard else None,
        source=truth.header.source,
        split=truth.header.split,
        converter=f"entitybench import {__version__}",
        options=_options(truth, choices, shard),
        categories=_categories(reader, truth),
        model=_described(model, reader, choices, shard),
        images=truth.photographs,
        overwrite=overwrite,
    )
    already_there = written.already_complete
    tally = _Tally()
    with written as writer:
        if not already_there:
            left = set(share) - writer.finished
            tasks = _tasks(reader, truth, choices.flattening, left)
            workers = jobs if executor else min(jobs, 1 + len(share) // _WORTH_A_PROCESS)
            outcomes = ordered_map(
                _work, tasks, jobs=workers, executor=executor, describe=lambda task: task.row.id
            )
            tally.write(writer, progress(outcomes, len(left)))
    return _summary(written, reader, truth, choices, tally, already_there=already_there)


def _part_path(out: Path, shard: Shard | None) -> Path:
    if shard is None:
        return out
    suffix = ".zip" if out.suffix == ".zip" else ""
    return out.with_name(shard.name(out.name.removesuffix(suffix)) + suffix)


def _options(truth: EntitySet, choices: ImportChoices, shard: Shard | None) -> dict[str, Option]:
    """Return the choices that are not in the model block; overlap changes nothing but flattening.

    A set that was refused for overlap holds the images that have none, just as flattening would
    write them: it may be resumed with a policy.
    """
    read = choices.read
    options: dict[str, Option] = {"images_of": truth.header.name}
    if shard is not None:
        options[WHOLE_IMAGES] = len(truth)
    if choices.format is not None:
        options["format"] = str(choices.format)
    if read.duplicates.rule is not DuplicateRule.KEEP:
        options["duplicate_iou"] = read.duplicates.iou
    if read.queries.min_score:
        options["min_score"] = read.queries.min_score
    if read.queries.num_classes is not None:
        options["num_classes"] = read.queries.num_classes
    if read.queries.score is not QueryScore.CLASS:
        options["query_score"] = str(read.queries.score)
    if read.sam_score is not SamScore.PREDICTED_IOU:
        options["sam_score"] = str(read.sam_score)
    return options


def _described(
    model: Model, reader: Predictions, choices: ImportChoices, shard: Shard | None
) -> Model:
    """Say where scores came from, and what was done to the masks; a signature shows it."""
    parts = [reader.score_rule]
    if choices.read.duplicates.rule is not DuplicateRule.KEEP:
        parts.append(f"duplicates {choices.read.duplicates.rule}")
    if choices.flattening not in (None, Flattening.SCORE_ON_TOP):
        parts.append(str(choices.flattening))
    thresholded, resolved = model.thresholded, 0
    least = choices.read.queries.min_score
    if thresholded is None and least:
        thresholded = least
    if reader.model is not None:
        # of the whole set, and merged parts add up: the first tells it for all
        resolved = reader.model.resolved_images if shard is None or shard.index == 1 else 0
        thresholded = reader.model.thresholded if thresholded is None else thresholded
    return Model(model.name, model.trained_on, model.url, ", ".join(parts), thresholded, resolved)


def _categories(reader: Predictions, truth: EntitySet) -> tuple[Category, ...]:
    """Return the classes of predictions that have some; ids without names are the truth's."""
    return (reader.categories or truth.header.categories) if reader.labelled else ()


def _classes(reader: Predictions, truth: EntitySet) -> dict[str, tuple[Provenance, ...]]:
    """Return what is known of the class of each entity, image by image."""
    isthing = {c.id: c.isthing for c in _categories(reader, truth)}
    if not isthing:
        return {}
    return {
        image_id: tuple(
            Provenance(category_id=c, isthing=None if c is None else isthing.get(c)) for c in ids
        )
        for image_id, ids in reader.labels()
    }


def _tasks(
    reader: Predictions, truth: EntitySet, flattening: Flattening | None, left: set[str]
) -> Iterator[_Task]:
    classes = _classes(reader, truth)
    for row in truth.rows():
        if row.id in left:
            there = row.id in reader.image_ids or reader.absent_means_empty
            entry = reader.entry(ImageSize(row.id, row.width, row.height)) if there else None
            yield _Task(row, entry, flattening, classes.get(row.id, ()))


def _work(task: _Task) -> Outcome:
    """Read, flatten and encode one image; pure but for reading."""
    size = ImageSize(task.row.id, task.row.width, task.row.height)
    loaded = _empty(size) if task.entry is None else task.entry.load()
    if isinstance(loaded, ScoredMap):
        return Outcome(_prepared(task.row, loaded.map, loaded.scores, classes=task.classes))
    try:
        done = _resolved(loaded, task.flattening, size.id)
    except OverlapError as error:
        return Outcome(None, tuple(error.where[:MAX_EXAMPLES]))
    image = _prepared(task.row, done.map, done.scores, resolved=bool(done.overlap))
    return Outcome(image, emptied=done.num_emptied)


def _resolved(candidates: Candidates, flattening: Flattening | None, image: str) -> Resolution:
    if flattening is None:
        return resolve(candidates, image=image)
    return flatten(candidates, flattening, image)


def _empty(size: ImageSize) -> ScoredMap:
    return ScoredMap(EntityMap.from_runs(size.shape, [0], [0], 0), np.zeros(0))


def _prepared(
    row: ImageRow,
    entity_map: EntityMap,
    scores: NDArray[np.float64],
    *,
    resolved: bool = False,
    classes: tuple[Provenance, ...] = (),
) -> PreparedImage:
    return prepare(
        row.id,
        entity_map,
        scores,
        file_name=row.file_name,
        entities=classes,
        resolved=resolved,
    )


@dataclass(slots=True)
class _Tally:
    """Writes what comes, and counts."""

    images: int = 0
    refused: int = 0
    emptied: int = 0
    places: list[str] = field(default_factory=list)

    def write(self, writer: EntityWriter, outcomes: Iterable[Outcome]) -> None:
        """Write each image; refuse at the end if masks overlap, with their number."""
        for outcome in outcomes:
            self.images += 1
            self.emptied += outcome.emptied
            if outcome.image is not None:
                writer.add_prepared(outcome.image)
            else:
                self.refused += 1
                self.places.extend(outcome.places)
        if self.refused:
            msg = f"predictions overlap in {self.refused:,} of {self.images:,} images"
            hint = (
                "AP_e allows no overlap; `--overlap resolve` gives shared pixels to the higher "
                "score, `--flatten small-on-top` to the smaller mask; either is recorded"
            )
            raise OverlapError(msg, where=self.places, hint=hint)


def _refuse_missing(reader: Predictions, ids: Sequence[str], truth: str) -> None:
    absent = [image_id for image_id in ids if image_id not in reader.image_ids]
    if absent and not reader.absent_means_empty:
        msg = f"predictions miss {len(absent):,} of {len(ids):,} images of `{truth}`"
        hint = "`--missing empty` counts an image without predictions as empty"
        raise MissingDataError(msg, where=absent, hint=hint)


def _summary(
    writer: EntityWriter,
    reader: Predictions,
    truth: EntitySet,
    choices: ImportChoices,
    tally: _Tally,
    *,
    already_there: bool,
) -> ImportSummary:
    written = writer.finish()
    model = written.header.model
    if model is None:
        msg = "an imported set has no model"
        raise FormatError(msg, where=str(written.path))
    return ImportSummary(
        written.path,
        model,
        reader.description,
        len(written),
        written.header.num_entities,
        tally.emptied,
        already_there,
        tuple(_warnings(reader, truth, model, choices)),
    )


def _warnings(
    reader: Predictions, truth: EntitySet, model: Model, choices: ImportChoices
) -> Iterator[str]:
    """Yield what would make a number mean something else than it seems."""
    if reader.max_entities is not None:
        most = reader.max_entities
        crowded = sum(len(row.entities) > most for row in truth.rows())
        if crowded:
            yield (
                f"{crowded:,} of {len(truth):,} images have more entities than there are "
                f"queries ({most:,}): they cannot all be found"
            )
    if reader.always_thresholded and model.thresholded is None:
        yield (
            "outputs of this kind have lost what scored low, which costs recall; `--thresholded "
            "X` says below which score, and labels the row"
        )
    if reader.score_rule not in ("model", *map(str, QueryScore), *map(str, SamScore)):
        yield (
            f"scores are stand-ins ({reader.score_rule}): AP depends on that rule; AR and SQ do "
            "not, so read them beside it"
        )
    if (reader.num_classes or 0) > 1 and choices.read.duplicates.rule is DuplicateRule.KEEP:
        yield (
            "a model with classes may find one region under two labels: `--duplicates both` "
            "imports it with duplicates removed per class and across classes"
        )
