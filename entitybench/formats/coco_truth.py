"""COCO files as ground truth, read with care: instance JSON, or panoptic JSON with its PNGs.

Everything annotated is an entity without a class; `iscrowd` makes it a crowd. The stated `area`
is kept beside the map. AP_e needs entities that do not overlap, so truth that does is refused.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from entitybench.candidates import Candidates, OverlapPolicy, resolve
from entitybench.compiled_truth import TruthImage
from entitybench.entity_map import EntityMap
from entitybench.entity_set import Category
from entitybench.errors import FormatError, OverlapError
from entitybench.formats.coco_instances import ImageInfo, stem_of
from entitybench.formats.coco_panoptic import (
    PanopticAnnotation,
    PanopticTable,
    read_panoptic_png,
    read_panoptic_table,
)
from entitybench.formats.image_ids import ImageId
from entitybench.formats.json_file import decode_json, read_file
from entitybench.formats.predictions import ImageSize


class _Annotation(msgspec.Struct, gc=False):
    image_id: ImageId
    segmentation: msgspec.Raw
    area: float
    iscrowd: int | bool = 0


class _Instances(msgspec.Struct):
    images: list[ImageInfo]
    annotations: list[_Annotation]


class _Images(msgspec.Struct):
    images: list[ImageInfo]


class _Kind(msgspec.Struct):
    segments_info: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Kinds(msgspec.Struct):
    annotations: list[_Kind]


@dataclass(frozen=True, slots=True)
class _Annotated:
    """What is said of one image's regions: entities first, then crowds, each in file order."""

    size: ImageSize
    areas: tuple[float, ...]
    num_crowds: int

    @property
    def id(self) -> str:
        """The image's id."""
        return self.size.id

    @property
    def num_entities(self) -> int:
        """How many of the regions are entities."""
        return len(self.areas) - self.num_crowds

    def entity_areas(self) -> NDArray[np.float64]:
        """Return the stated areas of the entities."""
        return np.array(self.areas[: self.num_entities], dtype=np.float64)


@dataclass(frozen=True, slots=True)
class InstanceImage(_Annotated):
    """Annotations of one image, their masks not decoded."""

    place: str
    segmentations: tuple[bytes, ...]

    def load(self) -> tuple[EntityMap, NDArray[np.float64]]:
        """Decode the masks.

        Raises:
            OverlapError: They share pixels.
            FormatError: A segmentation is damaged, or of another size than the image.
        """
        names = [f"{self.place} (image {self.id})"] * len(self.segmentations)
        masks: list[Any] = [decode_json(t, object, self.place) for t in self.segmentations]
        found = Candidates.from_coco(self.size.shape, masks, [0.0] * len(masks), names=names)
        try:
            done = resolve(found, OverlapPolicy.REJECT, self.id)
        except OverlapError as error:
            msg = "ground truth overlaps"
            hint = (
                "AP_e needs an order of depth: `entitybench convert coco-instances --z-order "
                "area|order` declares one and makes an entity set"
            )
            raise OverlapError(msg, where=error.where, hint=hint) from error
        made = EntityMap.from_runs(
            self.size.shape, done.map.starts, done.map.ids, self.num_entities, self.num_crowds
        )
        return made, self.entity_areas()


@dataclass(frozen=True, slots=True)
class PanopticImage(_Annotated):
    """Segments of one image, their picture not read."""

    png: Path
    segments: tuple[int, ...]

    def load(self) -> tuple[EntityMap, NDArray[np.float64]]:
        """Read the PNG.

        Raises:
            MissingDataError: There is no such file.
            FormatError: Not a PNG of the image's size, or with ids that nothing lists.
        """
        ids = read_panoptic_png(self.png, shape=self.size.shape)
        entities, crowds = self.segments[: self.num_entities], self.segments[self.num_entities :]
        try:
            made = EntityMap.from_array(ids, entities=entities, crowds=crowds)
        except FormatError as error:
            raise error.at(str(self.png)) from error
        return made, self.entity_areas()


class CocoTruth(ABC):
    """A COCO file as ground truth.

    Attributes:
        categories: The classes, where everything has one and nothing else: panoptic JSON.
    """

    categories: tuple[Category, ...] = ()

    @property
    def ids(self) -> tuple[str, ...]:
        """Image ids in file order."""
        return tuple(image.id for image in self.images())

    @abstractmethod
    def images(self) -> Sequence[InstanceImage] | Sequence[PanopticImage]:
        """Return the images in file order, not decoded."""

    def labels(self) -> Iterator[tuple[str, tuple[int | None, ...], tuple[int | None, ...]]]:
        """Yield image ids and the category ids of entities and of crowds, where there are any."""
        return iter(())

    def decoded(self) -> Iterator[TruthImage]:
        """Decode the images one by one."""
        for image in self.images():
            entity_map, areas = image.load()
            crowds = np.array(image.areas[len(areas) :], dtype=np.float64)
            yield TruthImage(image.id, entity_map, np.concatenate((areas, crowds)))


def open_coco_truth(path: Path) -> CocoTruth:
    """Open instance or panoptic JSON.

    Raises:
        MissingDataError: There is no such file.
        FormatError: Not JSON, not of either format, or it contradicts itself.
    """
    data = read_file(path)
    kinds = decode_json(data, _Kinds, str(path)).annotations
    if kinds and all(kind.segments_info is not msgspec.UNSET for kind in kinds):
        images = decode_json(data, _Images, str(path)).images
        return PanopticTruth(path, images, read_panoptic_table(data, str(path)))
    return InstanceTruth(path, decode_json(data, _Instances, str(path)))


class InstanceTruth(CocoTruth):
    """`images` and `annotations`, each annotation a mask."""

    def __init__(self, path: Path, table: _Instances) -> None:
        self._place = str(path)
        self._sizes = _sizes(table.images, self._place)
        self._of_image: dict[ImageId, list[_Annotation]] = {i: [] for i in self._sizes}
        for annotation in table.annotations:
            _refuse_unknown(annotation.image_id, self._of_image, self._place)
            self._of_image[annotation.image_id].append(annotation)

    def images(self) -> list[InstanceImage]:
        """Return the images in file order, not decoded."""
        return [self._image(size, self._of_image[i]) for i, size in self._sizes.items()]

    def _image(self, size: ImageSize, annotations: list[_Annotation]) -> InstanceImage:
        ordered, num_crowds = _entities_first(annotations)
        areas = tuple(a.area for a in ordered)
        masks = tuple(bytes(a.segmentation) for a in ordered)
        return InstanceImage(size, areas, num_crowds, self._place, masks)


class PanopticTruth(CocoTruth):
    """`images`, `annotations` with `segments_info`, and PNGs in the folder of the JSON's name."""

    def __init__(self, path: Path, images: list[ImageInfo], table: PanopticTable) -> None:
        self._place = str(path)
        beside = path.with_name(path.name.removesuffix(".gz").removesuffix(".json"))
        self._folder = beside if beside.is_dir() else path.parent
        self._sizes = _sizes(images, self._place)
        for annotation in table.annotations:
            _refuse_unknown(annotation.image_id, self._sizes, self._place)
        self._of_image = {annotation.image_id: annotation for annotation in table.annotations}
        self.categories = tuple(category.category() for category in table.categories)

    def labels(self) -> Iterator[tuple[str, tuple[int | None, ...], tuple[int | None, ...]]]:
        """Yield image ids and the category ids of entities and of crowds."""
        for image_id, size in self._sizes.items():
            ordered, num_crowds = _entities_first(self._of_image[image_id].segments_info)
            ids = tuple(segment.category_id for segment in ordered)
            yield size.id, ids[: len(ids) - num_crowds], ids[len(ids) - num_crowds :]

    def images(self) -> list[PanopticImage]:
        """Return the images in file order, not decoded."""
        missing = [i for i in self._sizes if i not in self._of_image]
        if missing:
            msg = f"{len(missing)} images have no panoptic annotation"
            raise FormatError(msg, where=[f"{self._place}: image {i}" for i in missing])
        return [self._image(size, self._of_image[i]) for i, size in self._sizes.items()]

    def _image(self, size: ImageSize, annotation: PanopticAnnotation) -> PanopticImage:
        ordered, num_crowds = _entities_first(annotation.segments_info)
        areas = tuple(s.area for s in ordered if s.area is not None)
        if len(areas) < len(ordered):
            msg = "a segment has no `area`, by which ground truth tells sizes"
            raise FormatError(msg, where=f"{self._place}: image {annotation.image_id}")
        png = self._folder / annotation.file_name
        return PanopticImage(size, areas, num_crowds, png, tuple(s.id for s in ordered))


class _Region(Protocol):
    @property
    def iscrowd(self) -> int | bool: ...


_RegionT = TypeVar("_RegionT", bound=_Region)


def _entities_first(rows: Iterable[_RegionT]) -> tuple[list[_RegionT], int]:
    """Put crowds last, all else in file order; return how many crowds there are."""
    ordered = sorted(rows, key=lambda row: bool(row.iscrowd))
    return ordered, sum(bool(row.iscrowd) for row in ordered)


def _sizes(images: list[ImageInfo], place: str) -> dict[ImageId, ImageSize]:
    sizes = {i.id: ImageSize(stem_of(i), i.width, i.height) for i in images}
    if len(sizes) < len(images) or len({s.id for s in sizes.values()}) < len(images):
        msg = "`images` lists an image twice"
        raise FormatError(msg, where=place)
    return sizes


def _refuse_unknown(image_id: ImageId, known: dict[ImageId, Any], place: str) -> None:
    if image_id not in known:
        msg = f"an annotation is of image {image_id}, which `images` does not list"
        raise FormatError(msg, where=place)
