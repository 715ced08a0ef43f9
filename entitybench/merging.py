"""Joining the parts of an entity set to the set that one run would have written.

Parts come from `--shard i/n`.  Their images are streamed in id order through the same writer
that the one run would have used: the merged set has its bytes, and a merge that was killed goes
on.  Every map is decoded on its way, and a part whose images do not add up to its content hash
is refused.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec

from entitybench.content_hash import combine, image_digest
from entitybench.entity_set import EntityImage, EntitySet, Header, Option, open_path
from entitybench.entity_writer import EntityWriter, PreparedImage, identity
from entitybench.errors import ConflictError, FormatError, MissingDataError
from entitybench.parallel import ordered_map
from entitybench.sharding import Shard, check_complete, in_id_order, split_name

WHOLE_IMAGES = "whole_images"
"""The option in which a part keeps how many images the whole has."""

_T = TypeVar("_T")


class Progress(Protocol):
    """Shows how far an iteration is; passes the items on."""

    def __call__(self, items: Iterable[_T], *, total: int, unit: str, label: str) -> Iterable[_T]:
        """Return the items, as they come."""


@dataclass(frozen=True, slots=True)
class Merged:
    """What came of the parts of one set.

    Attributes:
        name: The set's name.
        path: Its folder.
        parts: How many parts it had.
        images: How many images it has.
        entities: How many entities.
        already_there: It was complete before.
    """

    name: str
    path: Path
    parts: int
    images: int
    entities: int
    already_there: bool


def merge_sets(
    parts: Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str] | None = None,
    *,
    jobs: int = 1,
    executor: Executor | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> list[Merged]:
    """Join parts to whole sets, `<out>/<name>` for each name among the parts.

    The parts stay where they are.

    Args:
        parts: Finished entity sets that `--shard` made, in any order, of one or more wholes.
        out: The data root; the folder of each set's first part unless given.
        jobs: Processes to use.
        executor: Checks the images instead of processes here, as in `ordered_map`.
        overwrite: Replace sets that are there and differ.
        progress: Shows the progress of each set.

    Raises:
        MissingDataError: A part is missing or unfinished.
        ConflictError: A part is there twice, parts were made with different options or share
            images, or something else is at the place of the whole.
        FormatError: A set is no part, or a part is damaged.
    """
    wholes: dict[str, list[_Part]] = {}
    for path in parts:
        part = _Part.at(Path(path))
        wholes.setdefault(part.whole, []).append(part)
    if not wholes:
        msg = "there are no parts to merge"
        raise MissingDataError(msg)
    plans = [_Plan.of(whole, wholes[whole]) for whole in sorted(wholes)]
    show = progress or _silent
    return [
        plan.write(
            Path(out or plan.parts[0].path.parent), jobs, executor, show, overwrite=overwrite
        )
        for plan in plans
    ]


def _silent(items: Iterable[_T], *, total: int, unit: str, label: str) -> Iterable[_T]:
    return items


@dataclass(frozen=True, slots=True)
class _Part:
    """One part: which it is, and the set that holds it."""

    shard: Shard
    path: Path
    whole: str
    entity_set: EntitySet

    @classmethod
    def at(cls, path: Path) -> _Part:
        entity_set = open_path(path)
        named = split_name(entity_set.header.name)
        if named is None:
            msg = f"`{entity_set.header.name}` is not part of a set"
            hint = "parts are what `--shard i/n` writes, `NAME.part-i-of-n`"
            raise FormatError(msg, where=str(path), hint=hint)
        whole, shard = named
        return cls(shard, path, whole, entity_set)

    @property
    def place(self) -> str:
        """Where it is, for messages."""
        return str(self.path)

    @property
    def header(self) -> Header:
        """The part's header as the whole would have it."""
        header = self.entity_set.header
        options = {k: v for k, v in header.options.items() if k != WHOLE_IMAGES}
        return msgspec.structs.replace(header, name=self.whole, options=options)

    @property
    def whole_images(self) -> Option:
        return self.entity_set.header.options.get(WHOLE_IMAGES)


@dataclass(frozen=True, slots=True)
class _Plan:
    """A whole that can be written: its parts in order, and all its images in order."""

    whole: str
    parts: tuple[_Part, ...]
    part_of: dict[str, _Part]

    @classmethod
    def of(cls, whole: str, parts: Sequence[_Part]) -> _Plan:
        check_complete((part.shard, part.place) for part in parts)
        parts = sorted(parts, key=lambda part: part.shard)
        for part in parts[1:]:
            _check_alike(parts[0], part)
        part_of = _owners(parts)
        expected = parts[0].whole_images
        if expected is not None and expected != len(part_of):
            msg = f"the parts hold {len(part_of):,} images, the whole has {expected:,}"
            raise ConflictError(msg, where=[part.place for part in parts])
        ordered = {image_id: part_of[image_id] for image_id in in_id_order(part_of)}
        return cls(whole, tuple(parts), ordered)

    @property
    def digest(self) -> str:
        """The content hash of the whole, as the parts add up to it."""
        return combine(int(part.entity_set.header.content_hash, 16) for part in self.parts)

    def write(
        self,
        out: Path,
        jobs: int,
        executor: Executor | None,
        progress: Progress,
        *,
        overwrite: bool,
    ) -> Merged:
        path = out / self.whole
        with self._writer(path, overwrite=overwrite) as writer:
            already_there = writer.already_complete
            self._check_begun(writer)
            if not already_there:
                self._copy(writer, jobs, executor, progress)
        header = open_path(path).header
        count = len(self.parts)
        images, entities = header.num_images, header.num_entities
        return Merged(self.whole, path, count, images, entities, already_there)

    def _writer(self, path: Path, *, overwrite: bool) -> EntityWriter:
        header = self.parts[0].header
        photographs = {part.entity_set.photographs for part in self.parts}
        model = header.model
        if model is not None:
            models = [part.entity_set.header.model for part in self.parts]
            resolved = sum(m.resolved_images for m in models if m is not None)
            model = msgspec.structs.replace(model, resolved_images=resolved)
        return EntityWriter(
            path,
            kind=header.kind,
            name=self.whole,
            source=header.source,
            split=header.split,
            licence=header.licence,
            converter=header.converter,
            options=header.options,
            categories=header.categories,
            model=model,
            images=photographs.pop() if len(photographs) == 1 else None,
            overwrite=overwrite,
        )

    def _check_begun(self, writer: EntityWriter) -> None:
        """Refuse what is there if it was made of other images."""
        begun = set(list(self.part_of)[: len(writer.finished)])
        if writer.already_complete:
            same = open_path(writer.path).header.content_hash == self.digest
        else:
            same = writer.finished == begun
        if not same:
            msg = f"`{writer.path}` holds other images than the parts"
            raise ConflictError(msg, hint="`--overwrite` replaces it")

    def _copy(
        self, writer: EntityWriter, jobs: int, executor: Executor | None, progress: Progress
    ) -> None:
        digests: dict[Shard, int] = {part.shard: 0 for part in self.parts}
        results = ordered_map(
            _take,
            self._images(),
            jobs=jobs,
            executor=executor,
            describe=lambda image: f"image {image.id}",
        )
        with closing(results):
            total = len(self.part_of)
            shown = progress(results, total=total, unit="image", label=self.whole)
            for image, part in zip(shown, self.part_of.values(), strict=True):
                digests[part.shard] += image.digest
                writer.add_prepared(image)
        for part in self.parts:
            if combine([digests[part.shard]]) != part.entity_set.header.content_hash:
                msg = "the part does not hold what its content hash promises"
                hint = "was it copied whole? `entitybench validate` tells where it differs"
                raise FormatError(msg, where=part.place, hint=hint)

    def _images(self) -> Iterator[EntityImage]:
        for image_id, part in self.part_of.items():
            yield part.entity_set[image_id]


def _take(image: EntityImage) -> PreparedImage:
    """Read one image of a part, and count its digest anew."""
    png = image.store.read(image.row.map)
    return PreparedImage(image.row, png, image_digest(image.id, image.map, image.scores))


def _check_alike(first: _Part, other: _Part) -> None:
    mine, theirs = identity(first.header), identity(other.header)
    mine[WHOLE_IMAGES], theirs[WHOLE_IMAGES] = first.whole_images, other.whole_images
    different = [
        f"{key}: {mine.get(key)!r} in `{first.place}`, {theirs.get(key)!r} in `{other.place}`"
        for key in dict.fromkeys([*mine, *theirs])
        if mine.get(key) != theirs.get(key)
    ]
    if different:
        msg = f"parts of `{first.whole}` were made with different options"
        raise ConflictError(msg, where=different)


def _owners(parts: Sequence[_Part]) -> dict[str, _Part]:
    """Return the part of each image."""
    owners: dict[str, _Part] = {}
    twice: list[str] = []
    for part in parts:
        for image_id in part.entity_set.ids:
            if image_id in owners:
                twice.append(f"image {image_id}: `{owners[image_id].place}` and `{part.place}`")
            owners[image_id] = part
    if twice:
        msg = f"images that are in two parts: {len(twice):,}"
        raise ConflictError(msg, where=twice)
    return owners
