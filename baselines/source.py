"""Entity sets as training images: which there are, and how one is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from entitybench.baselines.model import Classes
from entitybench.entity_set import EntityImage, EntityRow, EntitySet
from entitybench.errors import FormatError, MissingDataError
from entitybench.photographs import read_photograph


@dataclass(frozen=True, slots=True)
class Listed:
    """One image of a collection.

    Attributes:
        set_number: Which set.
        image_id: Its id there.
        size: Height and width.
        num_entities: True entities.
    """

    set_number: int
    image_id: str
    size: tuple[int, int]
    num_entities: int


@dataclass(frozen=True, slots=True)
class Decoded:
    """One image as it was read.

    Attributes:
        pixels: `(h, w, 3)` uint8 RGB.
        ids: `(h, w)` int32 in 0…N; void, crowds and entities left out are 0.
        things: `(N,)` bool.
        labels: `(N,)` int64 classes.
    """

    pixels: NDArray[np.uint8]
    ids: NDArray[np.int32]
    things: NDArray[np.bool_]
    labels: NDArray[np.int64]


class Collection:
    """The images of one or several entity sets.

    Args:
        sets: Ground truth.
        locations: Where the photographs of each set are; None asks the set.
        subset: `all`, `things` or `stuff`; the other entities become void.
        class_names: Classes in order, for class-specific training; none is class-agnostic.
        most_entities: Images with more entities are left out; 0 takes all.

    Raises:
        FormatError: A set holds predictions, or an empty union.
        MissingDataError: Nobody knows where the photographs are.
    """

    def __init__(
        self,
        sets: Sequence[EntitySet],
        locations: Sequence[str | None] = (),
        *,
        subset: str = "all",
        class_names: Sequence[str] = (),
        most_entities: int = 0,
    ) -> None:
        self.sets = list(sets)
        given = [*locations, *[None] * (len(sets) - len(locations))]
        self.locations = [_location(s, g) for s, g in zip(sets, given, strict=True)]
        self._subset = subset
        number = {name: place for place, name in enumerate(class_names)}
        self._classes = [
            {c.id: number[c.name] for c in s.header.categories if c.name in number} for s in sets
        ]
        self.images = [
            Listed(n, row.id, (row.height, row.width), len(row.entities))
            for n, entity_set in enumerate(self.sets)
            for row in entity_set.rows()
            if not most_entities or len(row.entities) <= most_entities
        ]
        if not self.images:
            msg = "there is no image to train on"
            raise FormatError(msg, where=[str(s.path) for s in sets])

    @property
    def set_sizes(self) -> list[int]:
        """Images of each set that are trained on."""
        counts = Counter(image.set_number for image in self.images)
        return [counts[number] for number in range(len(self.sets))]

    def entry(self, index: int) -> EntityImage:
        """Return one image, not decoded yet; for one thread at a time."""
        listed = self.images[index]
        return self.sets[listed.set_number][listed.image_id]

    def decode(self, index: int, image: EntityImage, least: tuple[int, int]) -> Decoded:
        """Read one image; for any thread.

        Args:
            index: Its number.
            image: Its entry.
            least: Height and width that it will be resized to. A photograph at least twice as
                large is reduced by a whole factor right away, with its map.

        Raises:
            FormatError: Photograph and map differ in size, or a file is broken.
        """
        number = self.images[index].set_number
        photograph = read_photograph(self.locations[number], image.row.file_name)
        ids = image.map.to_array()
        if photograph.size != ids.shape[::-1]:
            width, height = photograph.size
            msg = f"the photograph is {width}×{height}, the map is {ids.shape[1]}×{ids.shape[0]}"
            raise FormatError(msg, where=f"{self.sets[number].path}: image {image.id}")
        factor = max(1, min(ids.shape[0] // least[0], ids.shape[1] // least[1]))
        things = np.array([bool(e.isthing) for e in image.row.entities], dtype=bool)
        labels = np.array([self._label(number, e) for e in image.row.entities], dtype=np.int64)
        ids = self._wanted(things, image.map.num_ids)[ids]
        pixels = np.asarray(photograph.reduce(factor) if factor > 1 else photograph)
        return Decoded(pixels, _reduced(ids, factor), things, labels)

    def _label(self, number: int, entity: EntityRow) -> int:
        return self._classes[number].get(entity.category_id or 0, 0)

    def _wanted(self, things: NDArray[np.bool_], num_ids: int) -> NDArray[np.int32]:
        """Return new ids by old ones: crowds and entities outside the subset become 0."""
        table = np.zeros(num_ids + 1, dtype=np.int32)
        keep = np.ones_like(things)
        if self._subset != "all":
            keep = things if self._subset == "things" else ~things
        table[1 : len(things) + 1] = np.arange(1, len(things) + 1) * keep
        return table


def _location(entity_set: EntitySet, given: str | None) -> str:
    if entity_set.is_prediction:
        msg = f"`{entity_set.path}` holds predictions, not ground truth"
        raise FormatError(msg)
    location = given or entity_set.photographs
    if location is None:
        msg = f"nobody knows where the photographs of `{entity_set.header.name}` are"
        raise MissingDataError(msg, hint="`--images` names their folder or archive")
    return location


def _reduced(ids: NDArray[np.int32], factor: int) -> NDArray[np.int32]:
    if factor == 1:
        return ids
    rows, columns = (
        np.minimum(np.arange(0, side, factor) + factor // 2, side - 1) for side in ids.shape
    )
    reduced: NDArray[np.int32] = ids[rows[:, None], columns]
    return reduced


def read_plain(photograph: Image.Image, least: tuple[int, int]) -> Decoded:
    """Take a photograph without entities, for prediction."""
    factor = max(1, min(photograph.height // least[0], photograph.width // least[1]))
    pixels = np.asarray(photograph.reduce(factor) if factor > 1 else photograph)
    empty = np.zeros(0, dtype=np.int64)
    return Decoded(pixels, np.zeros(pixels.shape[:2], np.int32), empty.astype(bool), empty)


def classes_of(sets: Sequence[EntitySet]) -> Classes:
    """Return the classes of several sets; one name is one class, a thing if any set says so."""
    things: dict[str, bool] = {}
    for category in (c for s in sets for c in s.header.categories):
        things[category.name] = things.get(category.name, False) or bool(category.isthing)
    if not things:
        msg = "class-specific training needs sets with categories"
        raise FormatError(msg, where=[str(s.path) for s in sets])
    return Classes(tuple(things), tuple(things.values()))
