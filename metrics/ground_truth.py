"""What predictions are scored against: an entity set, or a COCO file as it is.

Where the kernel is active, truth is compiled once into the cache and read from there.
"""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import IO, Protocol

import numpy as np
from numpy.typing import NDArray

from entitybench import kernel
from entitybench.compiled_truth import (
    CompiledTruth,
    PixelOrder,
    TruthImage,
    cached,
    compile_maps,
    open_compiled,
    turn,
)
from entitybench.content_hash import combine, image_digest
from entitybench.entity_map import EntityMap
from entitybench.entity_set import Category, EntityImage, EntitySet
from entitybench.errors import FormatError
from entitybench.formats.coco_instances import compile_instances
from entitybench.formats.coco_truth import CocoTruth, InstanceImage, open_coco_truth
from entitybench.formats.json_rows import MappedText
from entitybench.formats.predictions import ImageSize
from entitybench.metrics.records import ImageKey, MatchRecords
from entitybench.metrics.tables import STUFF, THING, UNKNOWN
from entitybench.registry import open_entity_set, split_union


class TrueImage(Protocol):
    """The truth of one image, not decoded yet; small and picklable."""

    @property
    def id(self) -> str:
        """The image's id."""

    @property
    def size(self) -> ImageSize:
        """Its id and size in pixels."""

    def load(self) -> tuple[EntityMap, NDArray[np.float64] | None]:
        """Return the map, and the sizes that the annotation states for the entities."""


@dataclass(frozen=True, slots=True)
class SetImage:
    """An image of an entity set."""

    image: EntityImage

    @property
    def id(self) -> str:
        """The image's id."""
        return self.image.id

    @property
    def size(self) -> ImageSize:
        """Its id and size in pixels."""
        return ImageSize(self.image.id, self.image.row.width, self.image.row.height)

    def load(self) -> tuple[EntityMap, None]:
        """Decode the map."""
        return self.image.map, None


@dataclass(frozen=True, slots=True)
class CompiledImage:
    """An image of a compiled file."""

    path: Path
    index: int
    size: ImageSize

    @property
    def id(self) -> str:
        """The image's id."""
        return self.size.id

    def load(self) -> tuple[EntityMap, NDArray[np.float64] | None]:
        """Unpack the map."""
        truth = _opened(self.path)
        entity_map = truth.map_of(self.index)
        if truth.annotated is None:
            return entity_map, None
        first = int(truth.entries["first_id"][self.index]) + 1
        return entity_map, truth.annotated[first : first + entity_map.num_entities]


@lru_cache(maxsize=8)
def _opened(path: Path) -> CompiledTruth:
    return open_compiled(path)


Labels = tuple[str, tuple[int | None, ...], tuple[int | None, ...]]


class GroundTruth(ABC):
    """Truth of many images, opened.

    Attributes:
        name: Its name in results.
        content_hash: Stands for all that a score depends on.
        ids: Image ids in the order of the source.
        place: The file or folder, for messages.
        states_sizes: Whether it states sizes of its own for the entities.
    """

    name: str
    content_hash: str
    ids: tuple[str, ...]
    place: str
    states_sizes: bool = False

    def __len__(self) -> int:
        return len(self.ids)

    def images(self) -> Iterator[TrueImage]:
        """Yield the images in order, not decoded."""
        truth = self.compiled(PixelOrder.ROWS)
        if truth is None or truth.path is None:
            yield from self._careful_images()
            return
        sides = truth.entries["width"].tolist(), truth.entries["height"].tolist()
        for index, (image_id, *size) in enumerate(zip(truth.ids, *sides, strict=True)):
            yield CompiledImage(truth.path, index, ImageSize(image_id, *size))

    def compiled(self, order: PixelOrder, *, anew: bool = False) -> CompiledTruth | None:
        """Return the compiled truth, or None where it has to be read as it is.

        Args:
            order: Along what pixels are counted.
            anew: Compile again, whatever the cache holds.

        Raises:
            FormatError: The truth is broken, or entities of one image overlap.
        """
        if not kernel.is_active() or not self.ids:
            return None
        if anew:
            _opened.cache_clear()
        try:
            return cached(self._key, order, lambda file: self._compile(order, file), anew=anew)
        except UnverifiedError:
            return None

    def origins(self) -> Iterator[tuple[str, NDArray[np.int8]]]:
        """Yield image ids and `(N,)` origins (`tables.THING` …), where the source states them."""
        return iter(())

    def categories(self) -> tuple[Category, ...]:
        """Return the source's classes; none where it has none."""
        return ()

    def labels(self) -> Iterator[Labels]:
        """Yield image ids and the category ids of entities and of crowds, in order of id."""
        return iter(())

    @property
    def _key(self) -> str:
        return f"{type(self).__name__} {self.content_hash}"

    @abstractmethod
    def _compile(self, order: PixelOrder, file: IO[bytes]) -> None:
        """Write the compiled file."""

    @abstractmethod
    def _careful_images(self) -> Iterator[TrueImage]:
        """Yield the images without the kernel."""


class UnverifiedError(FormatError):
    """The content is not what its hash promises: it must not enter the cache under it."""


class SetTruth(GroundTruth):
    """An entity set of kind ground truth.

    Raises:
        FormatError: The set holds predictions.
    """

    def __init__(self, entity_set: EntitySet) -> None:
        self.place = str(entity_set.path)
        if entity_set.is_prediction:
            msg = f"`{self.place}` holds predictions, not ground truth"
            raise FormatError(msg, hint="`--gt` names what to score against")
        self._set = entity_set
        self.name = entity_set.header.name
        self.content_hash = entity_set.header.content_hash
        self.ids = entity_set.ids

    def _careful_images(self) -> Iterator[SetImage]:
        return (SetImage(image) for image in self._set)

    def origins(self) -> Iterator[tuple[str, NDArray[np.int8]]]:
        """Yield what the rows say of their entities."""
        names = {True: THING, False: STUFF, None: UNKNOWN}
        for row in self._set.rows():
            yield row.id, np.array([names[e.isthing] for e in row.entities], dtype=np.int8)

    def categories(self) -> tuple[Category, ...]:
        """Return the classes that the header lists."""
        return self._set.header.categories

    def labels(self) -> Iterator[Labels]:
        """Yield what the rows say of their entities and crowds."""
        for row in self._set.rows():
            entities = tuple(e.category_id for e in row.entities)
            yield row.id, entities, tuple(c.category_id for c in row.crowd)

    def _compile(self, order: PixelOrder, file: IO[bytes]) -> None:
        digests: list[int] = []

        def images() -> Iterator[TruthImage]:
            for image in self._set:
                digests.append(image_digest(image.id, image.map, None))
                yield TruthImage(image.id, image.map)

        compile_maps(images(), order, file)
        if combine(digests) != self.content_hash:
            msg = f"`{self.place}` does not hold what its content hash promises"
            raise UnverifiedError(msg)


class FileTruth(GroundTruth):
    """COCO instance JSON, or COCO panoptic JSON with its PNGs, as it is."""

    states_sizes = True

    def __init__(self, path: Path) -> None:
        self.place, self._path = str(path), path
        self.name = path.name.removesuffix(".gz").removesuffix(".json")
        self._coco: CocoTruth | None = None
        self._is_panoptic = False
        self.content_hash = self._hash()
        self.ids = self._ids_of_cache() or self._careful.ids

    def _hash(self) -> str:
        """Hash the file, and the PNGs that belong to it."""
        text = MappedText.of(self._path).view
        digest = hashlib.sha256(text)
        self._is_panoptic = text.find(b'"segments_info"') >= 0
        if self._is_panoptic:
            for image in self._careful.images():
                digest.update(b"" if isinstance(image, InstanceImage) else image.png.read_bytes())
        return digest.hexdigest()

    def origins(self) -> Iterator[tuple[str, NDArray[np.int8]]]:
        """Yield what panoptic JSON says, if its classes are of both kinds.

        Instance JSON does not say, and is not read again for it. Where all classes are of one
        kind, that is how class-agnostic files fill the field.
        """
        categories = self.categories() if self._is_panoptic else ()
        if not {True, False} <= {c.isthing for c in categories}:
            return
        known = {True: THING, False: STUFF, None: UNKNOWN}
        of_class = {c.id: known[c.isthing] for c in categories}
        for image_id, entities, _ in self.labels():
            found = [UNKNOWN if e is None else of_class.get(e, UNKNOWN) for e in entities]
            yield image_id, np.array(found, dtype=np.int8)

    def categories(self) -> tuple[Category, ...]:
        """Return the classes of panoptic JSON."""
        return self._careful.categories

    def labels(self) -> Iterator[Labels]:
        """Yield the classes of the segments of panoptic JSON."""
        return self._careful.labels()

    @property
    def _careful(self) -> CocoTruth:
        if self._coco is None:
            self._coco = open_coco_truth(self._path)
        return self._coco

    def _ids_of_cache(self) -> tuple[str, ...]:
        """Ids from the compiled file: the JSON need not be read where there is one."""
        if not kernel.is_active():
            return ()
        try:
            truth = cached(
                self._key, PixelOrder.COLUMNS, lambda f: self._compile(PixelOrder.COLUMNS, f)
            )
        except UnverifiedError:
            return ()
        return truth.ids

    def _careful_images(self) -> Iterator[TrueImage]:
        return iter(self._careful.images())

    def _compile(self, order: PixelOrder, file: IO[bytes]) -> None:
        if order is PixelOrder.ROWS:
            columns = self.compiled(PixelOrder.COLUMNS)
            if columns is not None:
                compile_maps(turn(columns), order, file)
                return
        try:
            compile_instances(self._path, file)
        except FormatError:  # the careful reader knows why, or knows better
            file.seek(0)
            file.truncate()
            compile_maps(self._careful.decoded(), order, file)


def open_truths(names: str, data: str | os.PathLike[str] | None = None) -> list[GroundTruth]:
    """Open ground truth: a name, a path, a COCO JSON, or a union `a+b` of them.

    Raises:
        FormatError: A set holds predictions; a file is broken; a name is empty or given twice.
        UnknownNameError: No set has that name.
    """
    return [open_truth(name, data) for name in split_union(names)]


def open_truth(name: str, data: str | os.PathLike[str] | None = None) -> GroundTruth:
    """Open one ground truth: a set's name or path, or a COCO JSON file."""
    path = Path(name)
    if path.name.endswith((".json", ".json.gz")) and path.is_file():
        return FileTruth(path)
    return SetTruth(open_entity_set(name, data))


def with_origins(records: MatchRecords, truths: Iterable[GroundTruth]) -> MatchRecords:
    """Say of the true entities whether they are things or stuff, as far as the source does.

    Records without tables stay as they are.
    """
    if records.tables is None:
        return records
    known = {
        ImageKey(truth.name, image_id): origins
        for truth in truths
        for image_id, origins in truth.origins()
    }
    counts = np.diff(records.truth_offsets).tolist()
    parts = [
        known.get(key, np.full(count, UNKNOWN, dtype=np.int8))
        for key, count in zip(records.images, counts, strict=True)
    ]
    origins = np.concatenate([np.zeros(0, dtype=np.int8), *parts])
    return replace(records, tables=records.tables.with_origins(origins))
