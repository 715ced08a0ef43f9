"""The engine: from a source release to entity sets, whatever the source and whatever runs it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol, TypeVar

from PIL import Image

from entitybench.archives import DAMAGE, close_archives, plain_name
from entitybench.converters.release import locate, wanted_splits
from entitybench.converters.source import (
    WORLD,
    ConvertedImage,
    ImageT,
    Options,
    SetPlan,
    Source,
    SourceImage,
    find_source,
    in_id_order,
)
from entitybench.converters.source_tree import SourceTree
from entitybench.entity_set import Kind, open_path
from entitybench.entity_writer import EntityWriter, PreparedImage, prepare
from entitybench.errors import ConflictError, FormatError, MissingDataError, UnknownNameError
from entitybench.merging import WHOLE_IMAGES
from entitybench.parallel import ordered_map
from entitybench.photographs import GENERATED
from entitybench.sharding import Shard

SHOWN_WARNINGS = 20

_T = TypeVar("_T")
_NOT_AN_IMAGE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError, *DAMAGE)


class Progress(Protocol):
    """Shows how far an iteration is; passes the items on."""

    def __call__(self, items: Iterable[_T], *, total: int, unit: str, label: str) -> Iterable[_T]:
        """Return the items, as they come.

        Args:
            items: What is counted.
            total: How many there will be.
            unit: What one of them is.
            label: What the bar is about.
        """


@dataclass(frozen=True, slots=True)
class Summary:
    """What came of one entity set.

    Attributes:
        name: The set's name.
        path: Its folder.
        images: How many images it has.
        release_images: How many the complete release has; 0 where unknown, or for a shard.
        entities: How many entities.
        crowds: How many crowds.
        photographs_absent: Images whose photograph was not found.
        already_there: It was complete before.
        num_warnings: How many warnings there were in this run.
        warnings: The first twenty.
    """

    name: str
    path: Path
    images: int
    release_images: int
    entities: int
    crowds: int
    photographs_absent: int
    already_there: bool
    num_warnings: int
    warnings: tuple[str, ...]


def convert_source(
    source_name: str,
    root: str | os.PathLike[str] | None,
    out: str | os.PathLike[str],
    *,
    splits: Sequence[str] | None = None,
    profile: str | None = None,
    options: Options | None = None,
    jobs: int = 1,
    executor: Executor | None = None,
    shard: Shard | tuple[int, int] | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> list[Summary]:
    """Convert a source release to entity sets, `<out>/<source>_entity_<split>` for each split.

    What is complete is left alone, what is unfinished goes on where it ended; the bytes written
    are the same whatever runs it and however often it was interrupted.

    Args:
        source_name: `coco`, …: a name of `known_sources()`.
        root: The release: its folder, the folder above, or an archive. None:
            `$ENTITYBENCH_SOURCES/<source>`.
        out: The data root.
        splits: Which; all that are there unless given.
        profile: A way to convert; the source's first unless given.
        options: The source's own options, where they differ from its defaults.
        jobs: Processes to use.
        executor: Runs the images instead of processes here, as in `ordered_map`; `jobs` is then
            how many workers it has.
        shard: `(i, n)`, from 1: only this part of each set, as `<set>.part-i-of-n`; `merge_sets`
            joins the parts.
        overwrite: Replace sets that were made with other options.
        progress: Shows the progress of each set.

    Returns:
        A summary of each set, in order.

    Raises:
        UnknownNameError: No such source, split, profile or option.
        MissingDataError: The release, a split, or part of one is not there.
        FormatError: A file is not what its format promises.
        ConflictError: A set is there, of other options or other images.
    """
    source = find_source(source_name)
    chosen = _chosen(source, profile, options or {})
    part = Shard(*shard) if isinstance(shard, tuple) else shard
    engine = _Engine(
        source, Path(out), chosen, jobs, executor, part, overwrite, progress or _silent
    )
    try:
        tree, found = locate(source, root)
        plans = [
            (split, plan)
            for split in wanted_splits(source, tree, found, splits)
            for plan in source.plan(tree, split, chosen)
        ]
        return [engine.convert(split, plan) for split, plan in plans]
    finally:
        close_archives()


def _chosen(source: Source, profile: str | None, options: Options) -> Options:
    """Return every option of a conversion, the profile among them."""
    profile = source.profiles[0] if profile is None else profile
    if profile not in source.profiles:
        kind = f"profile of {source.name}"
        raise UnknownNameError.of(kind, profile, source.profiles)
    for option in options:
        if option not in source.options:
            kind = f"option of {source.name}"
            raise UnknownNameError.of(kind, option, source.options)
    return {"profile": profile, **source.options, **options}


def _silent(items: Iterable[_T], *, total: int, unit: str, label: str) -> Iterable[_T]:
    return items


@dataclass(slots=True)
class _Warnings:
    """Counts warnings and keeps the first: of millions of images, each may have one."""

    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, said: Iterable[str]) -> None:
        for warning in said:
            self.count += 1
            if self.count <= SHOWN_WARNINGS:
                self.first.append(warning)


@dataclass(frozen=True, slots=True)
class _Task:
    """One image to convert, and its photograph where it is there."""

    image: SourceImage
    photograph: str | None


@dataclass(frozen=True, slots=True)
class _Engine:
    """The choices of one conversion, applied to one set after the other."""

    source: Source
    out: Path
    options: Options
    jobs: int
    executor: Executor | None
    shard: Shard | None
    overwrite: bool
    progress: Progress

    def convert(self, split: str, plan: SetPlan[Any]) -> Summary:
        images = in_id_order(plan.images)
        _check_plan([image.id for image in images], plan)
        tasks = _tasks(images if self.shard is None else self.shard.of(images), plan)
        path = self.out / self._name(split, plan)
        with self._writer(path, split, plan, len(images)) as writer:
            _check_images(writer, [task.image.id for task in tasks])
            warnings = None if writer.already_complete else self._write(writer, tasks, plan)
        absent = sum(task.photograph is None for task in tasks)
        expected = self.source.splits[split] if plan.release_images is None else plan.release_images
        return self._summary(path, expected, absent, warnings)

    def _name(self, split: str, plan: SetPlan[Any]) -> str:
        profile = str(self.options["profile"])
        words = [plan.stem or self.source.name.replace("-", "_"), "entity", split, plan.suffix]
        words += [profile] * (profile != self.source.profiles[0])
        name, shard = "_".join(filter(None, words)), self.shard
        return shard.name(name) if shard else name

    def _writer(self, path: Path, split: str, plan: SetPlan[Any], images: int) -> EntityWriter:
        whole = {} if self.shard is None else {WHOLE_IMAGES: images}
        return EntityWriter(
            path,
            kind=_kind(plan),
            name=path.name,
            source=self.source.name,
            split=split,
            licence=GENERATED if WORLD in plan.tree else self.source.licence,
            converter=f"{self.source.name}/{self.source.revision}",
            options={**self.options, **whole},
            categories=plan.categories,
            model=plan.model,
            images=plan.tree.location(plan.photographs) if plan.photographs else None,
            overwrite=self.overwrite,
        )

    def _write(self, writer: EntityWriter, tasks: Sequence[_Task], plan: SetPlan[Any]) -> _Warnings:
        """Convert and write what is not there yet; return the warnings."""
        left = [task for task in tasks if task.image.id not in writer.finished]
        results = ordered_map(
            partial(_convert_image, plan.tree, plan.read, _kind(plan)),
            left,
            jobs=self.jobs,
            executor=self.executor,
            describe=lambda task: f"image {task.image.id}",
        )
        warnings = _Warnings()
        with closing(results):
            shown = self.progress(results, total=len(left), unit="image", label=writer.path.name)
            for done in shown:
                writer.add_prepared(done.image)
                warnings.add(f"image {done.image.row.id}: {said}" for said in done.warnings)
        return warnings

    def _summary(
        self, path: Path, expected: int, absent: int, warnings: _Warnings | None
    ) -> Summary:
        written = open_path(path)
        return Summary(
            name=written.header.name,
            path=path,
            images=len(written),
            release_images=0 if self.shard else expected,
            entities=written.header.num_entities,
            crowds=sum(len(row.crowd) for row in written.rows()),
            photographs_absent=absent,
            already_there=warnings is None,
            num_warnings=warnings.count if warnings else 0,
            warnings=tuple(warnings.first) if warnings else (),
        )


def _tasks(images: Sequence[ImageT], plan: SetPlan[ImageT]) -> list[_Task]:
    folder = plan.photographs
    if not folder:
        return [_Task(image, None) for image in images]
    there = set(plan.tree.names(folder))
    names = [plain_name(f"{folder}/{image.file_name}") for image in images]  # `.` is the top
    return [
        _Task(image, name if name in there else None)
        for image, name in zip(images, names, strict=True)
    ]


def _check_plan(ids: Sequence[str], plan: SetPlan[Any]) -> None:
    if not ids:
        msg = "the split has no images"
        raise MissingDataError(msg, where=str(plan.tree))
    twice = [image_id for image_id, following in pairwise(ids) if image_id == following]
    if twice:
        msg = f"image ids that are there twice: {len(twice):,}"
        raise FormatError(msg, where=[f"{plan.tree}: image {image_id}" for image_id in twice])


def _check_images(writer: EntityWriter, ids: Sequence[str]) -> None:
    """Refuse to go on with a set that was begun from other images."""
    done = len(writer.finished)
    if writer.finished != set(ids[:done]) or (writer.already_complete and done < len(ids)):
        msg = f"`{writer.path}` was made of other images than the source has now"
        where = f"{done:,} images there, {len(ids):,} in the source"
        raise ConflictError(msg, where=where, hint="`--overwrite` replaces it")


@dataclass(frozen=True, slots=True)
class _Done:
    """What a worker sends back: an image that only has to be written, and its warnings."""

    image: PreparedImage
    warnings: tuple[str, ...]


def _kind(plan: SetPlan[Any]) -> Kind:
    return "predictions" if plan.model else "ground_truth"


def _convert_image(tree: SourceTree, read: Any, kind: Kind, task: _Task) -> _Done:
    """Do all the work of one image but the writing: it is what scales."""
    converted: ConvertedImage = read(task.image)
    if task.photograph is not None:
        _check_photograph(tree, task.photograph, converted.map.shape)
    prepared = prepare(
        task.image.id,
        converted.map,
        converted.scores,
        kind=kind,
        file_name=task.image.file_name,
        entities=converted.entities,
        crowds=converted.crowds,
    )
    return _Done(prepared, converted.warnings)


def _check_photograph(tree: SourceTree, name: str, shape: tuple[int, int]) -> None:
    """Compare the photograph's size with the map's: from its header, no pixel is decoded."""
    try:
        with tree.open(name) as file, Image.open(file) as photograph:
            width, height = photograph.size
    except _NOT_AN_IMAGE as error:
        msg = f"the photograph cannot be read ({error})"
        raise FormatError(msg, where=tree.place(name)) from error
    if (height, width) != shape:
        msg = f"the photograph is {width}×{height}, its annotation is {shape[1]}×{shape[0]}"
        raise FormatError(msg, where=tree.place(name))
