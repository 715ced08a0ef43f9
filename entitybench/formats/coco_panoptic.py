"""COCO panoptic: a JSON table and a folder of RGB PNGs, for predictions and for ground truth.

A pixel's id is R + 256 G + 65536 B; the `segments_info` of an image say which ids there are.
Ids come from that list alone: some tools number their segments from 0, so 0 is void only where
the list does not claim it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import msgspec
import numpy as np
from numpy.typing import NDArray

from entitybench import kernel
from entitybench.entity_map import EntityMap
from entitybench.entity_set import Category, Provenance
from entitybench.errors import FormatError, MissingDataError
from entitybench.formats.image_ids import ImageId, ImageIds
from entitybench.formats.json_file import decode_json, read_file
from entitybench.formats.missing_score import MissingScore, fill_scores, judge_scores
from entitybench.formats.predictions import ImageSize, Predictions, ScoredMap, refuse_absent
from entitybench.png import open_png
from entitybench.png_rows import read_values

MAX_ID = 2**24 - 1


class PanopticSegment(msgspec.Struct, frozen=True, gc=False):
    """One entry of `segments_info`; what else tools write there is not needed."""

    id: int
    category_id: int | None = None
    iscrowd: int | bool = 0
    score: float | None = None
    area: float | None = None


class PanopticAnnotation(msgspec.Struct, frozen=True):
    """The segments of one image and the name of its PNG."""

    image_id: ImageId
    file_name: str
    segments_info: tuple[PanopticSegment, ...]


class PanopticImage(msgspec.Struct, frozen=True, gc=False):
    """One entry of `images`."""

    id: ImageId
    file_name: str = ""
    width: int | None = None
    height: int | None = None


class PanopticCategory(msgspec.Struct, frozen=True, gc=False):
    """One entry of `categories`."""

    id: int
    name: str = ""
    isthing: int | bool | None = None
    supercategory: str | None = None

    def category(self) -> Category:
        """Return it as an entity set keeps it."""
        isthing = None if self.isthing is None else bool(self.isthing)
        return Category(self.id, self.name, isthing, self.supercategory)


class PanopticTable(msgspec.Struct, frozen=True):
    """The JSON file."""

    annotations: tuple[PanopticAnnotation, ...]
    images: tuple[PanopticImage, ...] = ()
    categories: tuple[PanopticCategory, ...] = ()


def read_panoptic_table(data: bytes, place: str) -> PanopticTable:
    """Decode and check the JSON.

    Args:
        data: The file's content.
        place: Its name, for messages.

    Raises:
        FormatError: Not JSON, not of this format; an image or a segment id is listed twice; an
            id that three bytes cannot hold; a file name that leaves its folder.
    """
    table = decode_json(data, PanopticTable, place)
    images: set[ImageId] = set()
    for index, annotation in enumerate(table.annotations):
        where = f"{place}: $.annotations[{index}] (image {annotation.image_id})"
        if annotation.image_id in images:
            msg = f"image {annotation.image_id} is listed twice"
            raise FormatError(msg, where=where)
        images.add(annotation.image_id)
        _check_annotation(annotation, where)
    return table


def _check_annotation(annotation: PanopticAnnotation, where: str) -> None:
    ids = [segment.id for segment in annotation.segments_info]
    if len(set(ids)) < len(ids):
        twice = next(segment_id for n, segment_id in enumerate(ids) if segment_id in ids[:n])
        msg = f"segment id {twice} is listed twice"
        raise FormatError(msg, where=where)
    if ids and not (min(ids) >= 0 and max(ids) <= MAX_ID):
        wrong = next(segment_id for segment_id in ids if not 0 <= segment_id <= MAX_ID)
        msg = f"segment id {wrong} does not fit into three bytes"
        raise FormatError(msg, where=where)
    name = PurePosixPath(annotation.file_name)
    text = annotation.file_name
    if name.is_absolute() or ".." in name.parts or not name.name or set("\\:\0") & set(text):
        msg = f"file name {text!r} is not a plain name inside its folder"
        raise FormatError(msg, where=where)


def read_panoptic_png(
    png: bytes | Path, *, shape: tuple[int, int] | None = None, name: str = ""
) -> NDArray[np.uint32]:
    """Read the ids of a panoptic PNG.

    Args:
        png: The file's content, or its path.
        shape: The height and width that it must have; checked before a pixel is decompressed.
        name: The file's name, for messages.

    Returns:
        `(H, W)` uint32 ids R + 256 G + 65536 B.

    Raises:
        MissingDataError: There is no such file.
        FormatError: Not a PNG, truncated, of another size, or of another mode than RGB.
    """
    place = name or (str(png) if isinstance(png, Path) else "")
    try:
        data = png.read_bytes() if isinstance(png, Path) else png
    except FileNotFoundError as error:
        msg = f"no file `{png!s}`"
        raise MissingDataError(msg) from error
    plain = read_values(data, shape, ("RGB",)) if kernel.is_active() else None
    if plain is not None:
        return plain
    try:
        image = open_png(data, shape, ("RGB",), "8-bit RGB without alpha")
    except FormatError as error:
        raise (error.at(place) if place else error) from error
    # four bytes a pixel, so that a pixel is one little-endian number
    pixels = np.frombuffer(image.tobytes("raw", "RGBX"), dtype="<u4")
    ids = (pixels & np.uint32(MAX_ID)).astype(np.uint32, copy=False)
    return ids.reshape(image.height, image.width)


# --- ground truth ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PanopticTruth:
    """The ground truth of one image.

    Attributes:
        map: Entities in the order of `segments_info`, then crowds.
        entities: Where each entity came from.
        crowds: Where each crowd came from.
    """

    map: EntityMap
    entities: tuple[Provenance, ...]
    crowds: tuple[Provenance, ...]


def read_panoptic_truth(
    png: bytes | Path,
    annotation: PanopticAnnotation,
    *,
    shape: tuple[int, int] | None = None,
    isthing: Mapping[int, bool | None] | None = None,
) -> PanopticTruth:
    """Read one image of ground truth, strictly.

    Args:
        png: The PNG's content, or its path.
        annotation: The image's entry in the table.
        shape: The height and width of the image, if known.
        isthing: Whether a category id is of things, for the provenance.

    Raises:
        FormatError: As in `read_panoptic_png`; an id in the PNG that the table does not list,
            or an id in the table without a pixel.
    """
    place = str(png) if isinstance(png, Path) else annotation.file_name
    ids = read_panoptic_png(png, shape=shape, name=place)
    entities = [s for s in annotation.segments_info if not s.iscrowd]
    crowds = [s for s in annotation.segments_info if s.iscrowd]
    try:
        entity_map = EntityMap.from_array(
            ids, entities=[s.id for s in entities], crowds=[s.id for s in crowds]
        )
    except FormatError as error:
        raise error.at(place) from error
    empty = [
        segment.id
        for segment, area in zip([*entities, *crowds], entity_map.areas[1:], strict=True)
        if not area
    ]
    if empty:
        msg = f"ids in the table without a pixel: {', '.join(map(str, empty[:5]))}"
        raise FormatError(msg, where=place)
    origins = [_origin(segment, isthing or {}) for segment in [*entities, *crowds]]
    count = len(entities)
    return PanopticTruth(entity_map, tuple(origins[:count]), tuple(origins[count:]))


def _origin(segment: PanopticSegment, isthing: Mapping[int, bool | None]) -> Provenance:
    category = segment.category_id
    return Provenance(segment.id, category, None if category is None else isthing.get(category))


# --- predictions -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PanopticEntry:
    """The predictions of one image.

    Attributes:
        image: The image.
        png: The PNG's path.
        ids: Segment ids in the order of the table; crowds are left out.
        scores: Each score, or None.
        rule: What stands in for None.
    """

    image: ImageSize
    png: Path
    ids: tuple[int, ...]
    scores: tuple[float | None, ...]
    rule: MissingScore

    def load(self) -> ScoredMap:
        """Decode the map. A listed id without a pixel is an entity of zero area.

        Raises:
            FormatError: As in `read_panoptic_png`.
            MissingDataError: The PNG is not there.
        """
        ids = read_panoptic_png(self.png, shape=self.image.shape)
        entity_map = EntityMap.from_array(ids, entities=self.ids, void=None)
        pixels = self.image.width * self.image.height
        scores = fill_scores(self.scores, entity_map.areas[1:], pixels, self.rule)
        return ScoredMap(entity_map, scores)


class CocoPanoptic(Predictions):
    """Panoptic predictions: a JSON, and PNGs in a folder of its name, beside it or below it.

    Pixels of an id that the table does not list are void. Segments marked `iscrowd` are not
    predictions: they are left out, and the description says so. Where all segments bear one
    category, as the format forces class-agnostic models to write, they count as not labelled.

    Args:
        path: The `.json` or `.json.gz`.
        image_ids: The ground truth's image ids.
        missing_score: What stands in for scores that are missing.
        data: The file's content where it was read before.

    Raises:
        FormatError: As in `read_panoptic_table`; images that the ground truth does not know;
            two entries for one image; a score that is not in [0, 1].
        MissingDataError: PNGs are missing, or scores are and nothing stands in for them.
    """

    always_thresholded = True

    def __init__(
        self,
        path: Path,
        image_ids: Collection[str],
        missing_score: MissingScore = MissingScore.ERROR,
        *,
        data: bytes | None = None,
    ) -> None:
        self._path = str(path)
        self._rule = missing_score
        table = read_panoptic_table(read_file(path) if data is None else data, self._path)
        self._of_image = ImageIds(image_ids).match(
            ((a.image_id, a) for a in table.annotations),
            self._path,
            where=lambda a: f"{self._path}: image {a.image_id}",
            stem=lambda a: PurePosixPath(a.file_name).stem,
        )
        self._folder = _png_folder(path, [a.file_name for a in table.annotations])
        self.score_rule = self._judge_scores()
        used = {segment.category_id for _, segment in self._segments()}
        self.labelled = None not in used and len(used) > 1
        self.categories = tuple(category.category() for category in table.categories)
        self.image_ids = frozenset(self._of_image)
        self.description = self._describe()

    def _segments(self) -> Iterator[tuple[str, PanopticSegment]]:
        for image_id, annotation in self._of_image.items():
            for segment in annotation.segments_info:
                if not segment.iscrowd:
                    yield image_id, segment

    def _judge_scores(self) -> str:
        segments = list(self._segments())

        def place(index: int) -> str:
            image_id, segment = segments[index]
            return f"{self._path}: image {image_id}, segment {segment.id}"

        return judge_scores([s.score for _, s in segments], self._rule, self._path, place)

    def _describe(self) -> str:
        every = sum(len(a.segments_info) for a in self._of_image.values())
        count = sum(1 for _ in self._segments())
        crowds = f", {every - count:,} crowds left out" if every > count else ""
        return (
            f"COCO panoptic JSON: {count:,} segments in {len(self._of_image):,} images"
            f"{crowds}; PNGs in `{self._folder}`"
        )

    def labels(self) -> Iterator[tuple[str, tuple[int | None, ...]]]:
        """Yield image ids and the category id of each segment, in the order of the table."""
        for image_id, annotation in self._of_image.items():
            segments = [s for s in annotation.segments_info if not s.iscrowd]
            yield image_id, tuple(segment.category_id for segment in segments)

    def entry(self, image: ImageSize) -> PanopticEntry:
        """Return the predictions of one image, not decoded yet."""
        refuse_absent(self, image, self._path)
        annotation = self._of_image[image.id]
        segments = [s for s in annotation.segments_info if not s.iscrowd]
        return PanopticEntry(
            image,
            self._folder / annotation.file_name,
            tuple(segment.id for segment in segments),
            tuple(segment.score for segment in segments),
            self._rule,
        )


def _png_folder(path: Path, names: list[str]) -> Path:
    """Find the folder of the PNGs: of the JSON's name, beside it, or one below."""
    stem = path.name.removesuffix(".gz").removesuffix(".json")
    beside = [path.with_name(stem), path.parent]
    below = sorted(p for p in path.parent.iterdir() if p.is_dir() and p != beside[0])
    if not names:
        return beside[0]
    folder = next((f for f in [*beside, *below] if (f / names[0]).is_file()), beside[0])
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        msg = f"{len(missing):,} of {len(names):,} PNGs are missing"
        raise MissingDataError(
            msg,
            where=[f"{folder / name}" for name in missing],
            hint=f"PNGs belong into `{stem}/` beside the JSON, or into its own folder",
        )
    return folder
