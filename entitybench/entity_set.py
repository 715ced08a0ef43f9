"""An entity set: a folder (or zip) of entity maps and their table. Format version 1.

::

    coco_entity_val/
      entity_set.json   header; written last: without it the set is unfinished
      images.jsonl      one line per image
      maps/….png        the entity maps
      local.json        where the photographs were; never hashed, may be absent

Ground truth and predictions have one format.  `docs/entity-format.md` specifies it.
"""

from __future__ import annotations

import re
import tempfile
import weakref
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Literal, Protocol, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from entitybench.entity_map import EntityMap
from entitybench.errors import FormatError, MissingDataError
from entitybench.map_png import decode_map

FORMAT = "entitybench/1"
HEADER, IMAGES, LOCAL, UNFINISHED = (
    "entity_set.json",
    "images.jsonl",
    "local.json",
    "unfinished.json",
)

_PLAIN_MAP = re.compile(r"maps/[A-Za-z0-9_-][A-Za-z0-9._-]*\.png")


class Provenance(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where an entity or crowd came from; never enters a score, only breaks one down."""

    source_id: int | str | None = None
    category_id: int | None = None
    isthing: bool | None = None


class EntityRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One entity or crowd: id in the map, area in pixels, box x, y, width, height."""

    id: int
    area: int
    bbox: tuple[int, int, int, int]
    source_id: int | str | None = None
    category_id: int | None = None
    isthing: bool | None = None
    score: float | None = None


class ImageRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line of `images.jsonl`."""

    id: str
    file_name: str
    width: int
    height: int
    map: str
    entities: tuple[EntityRow, ...]
    crowd: tuple[EntityRow, ...]


class Category(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A class of the source; entities keep its id as provenance."""

    id: int
    name: str
    isthing: bool | None = None
    supercategory: str | None = None


class Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What made the predictions.

    Attributes:
        name: The model's name, as the leaderboard shows it.
        trained_on: Names of the entity sets it was trained on.
        url: Where to read about it.
        score_rule: Where the scores came from: `model`, or the rule that stood in.
        thresholded: The score below which predictions were dropped, if any.
        resolved_images: Images in which an overlap was resolved before writing.
    """

    name: str
    trained_on: tuple[str, ...] = ()
    url: str | None = None
    score_rule: str = "model"
    thresholded: float | None = None
    resolved_images: int = 0


_T = TypeVar("_T")
Kind = Literal["ground_truth", "predictions"]
Option = str | int | float | bool | None


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """`entity_set.json`."""

    format: str
    kind: Kind
    name: str
    source: str | None
    split: str | None
    licence: str | None
    converter: str | None
    options: dict[str, Option]
    categories: tuple[Category, ...]
    num_images: int
    num_entities: int
    content_hash: str
    model: Model | None = None


class Local(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """`local.json`: a folder, or `archive.zip!/prefix`, in which the photographs lie."""

    images: str


class _Version(msgspec.Struct):
    format: str


class Store(Protocol):
    """The files of a set, wherever they lie."""

    @property
    def path(self) -> Path:
        """The folder or zip."""

    def read(self, name: str) -> bytes:
        """Return a file's bytes; `MissingDataError` where there is none."""

    def seekable(self, name: str) -> IO[bytes]:
        """Open a file for random access."""


@dataclass(frozen=True)
class FolderStore:
    """A set as a folder."""

    path: Path

    def read(self, name: str) -> bytes:
        """Return a file's bytes."""
        try:
            return (self.path / name).read_bytes()
        except FileNotFoundError as error:
            msg = f"`{name}` is missing"
            raise MissingDataError(msg, where=str(self.path)) from error

    def seekable(self, name: str) -> IO[bytes]:
        """Open a file for random access."""
        if not (self.path / name).is_file():
            self.read(name)
        return (self.path / name).open("rb")


@dataclass(frozen=True)
class ZipStore:
    """A set as a zip, read in place; opened anew in each process."""

    path: Path
    _open: list[zipfile.ZipFile] = field(default_factory=list, repr=False, compare=False)

    def __reduce__(self) -> tuple[type[ZipStore], tuple[Path]]:
        return type(self), (self.path,)

    @property
    def _zip(self) -> zipfile.ZipFile:
        if not self._open:
            try:
                self._open.append(zipfile.ZipFile(self.path))
            except zipfile.BadZipFile as error:
                msg = f"not a readable zip ({error})"
                raise FormatError(msg, where=str(self.path)) from error
        return self._open[0]

    @cached_property
    def _names(self) -> dict[str, str]:
        """Member of each file, whether the set lies at the top or inside one folder."""
        names = self._zip.namelist()
        tops = [n for n in names if n == HEADER or (n.count("/") == 1 and n.endswith("/" + HEADER))]
        prefix = tops[0].removesuffix(HEADER) if len(tops) == 1 else ""
        return {name.removeprefix(prefix): name for name in names if name.startswith(prefix)}

    def read(self, name: str) -> bytes:
        """Return a member's bytes."""
        if name not in self._names:
            msg = f"`{name}` is missing"
            raise MissingDataError(msg, where=str(self.path))
        try:
            return self._zip.read(self._names[name])
        except (zipfile.BadZipFile, EOFError) as error:
            msg = f"`{name}` cannot be read ({error})"
            raise FormatError(msg, where=str(self.path)) from error

    def seekable(self, name: str) -> IO[bytes]:
        """Unpack a member to an unnamed temporary file, so that memory stays flat."""
        if name not in self._names:
            self.read(name)
        spool = tempfile.TemporaryFile()  # noqa: SIM115  # the caller closes it
        with self._zip.open(self._names[name]) as member:
            while block := member.read(1 << 20):
                spool.write(block)
        spool.seek(0)
        return spool


@dataclass(frozen=True)
class EntityImage:
    """One image of a set; its map is decoded when it is first asked for."""

    store: Store
    row: ImageRow

    @property
    def id(self) -> str:
        """The image's id: its file stem."""
        return self.row.id

    @cached_property
    def map(self) -> EntityMap:
        """The entity map.

        Raises:
            FormatError: The map is not what its row says.
        """
        row = self.row
        png, place = read_map(self.store, row.map, row.id), f"{self.store.path}/{row.map}"
        try:
            return decode_map(png, (row.height, row.width), len(row.entities), len(row.crowd))
        except FormatError as error:
            raise error.at(place) from error

    @cached_property
    def scores(self) -> NDArray[np.float64] | None:
        """`(N,)` float64 scores; None for ground truth."""
        scores = [entity.score for entity in self.row.entities]
        if any(score is None for score in scores):
            return None
        return np.array(scores, dtype=np.float64)


def read_map(store: Store, name: str, image_id: str) -> bytes:
    """Return the PNG of an image's map.

    Raises:
        FormatError: The name might lead out of the set.
        MissingDataError: There is no such file.
    """
    if not _PLAIN_MAP.fullmatch(name):
        msg = f"map {name!r} is not a plain name inside the set"
        raise FormatError(msg, where=f"{store.path}: image {image_id}")
    return store.read(name)


class EntitySet:
    """A finished entity set, read lazily.

    Iterating streams the images in file order; `set[image_id]` reads one. Neither holds more
    than one image.

    Attributes:
        header: What the set is.
        store: Where its files lie.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.header = _read_header(store)

    def __reduce__(self) -> tuple[type[EntitySet], tuple[Store]]:
        return type(self), (self.store,)

    def __repr__(self) -> str:
        return f"EntitySet({self.header.name}, {self.header.kind}, {len(self)} images)"

    @property
    def path(self) -> Path:
        """The folder or zip."""
        return self.store.path

    @property
    def is_prediction(self) -> bool:
        """Whether the set holds predictions."""
        return self.header.kind == "predictions"

    @property
    def photographs(self) -> str | None:
        """Where the photographs were when the set was made, if that is known here."""
        try:
            return decode(self.store.read(LOCAL), Local, f"{self.path}/{LOCAL}").images
        except MissingDataError:
            return None

    def __len__(self) -> int:
        return self.header.num_images

    def __iter__(self) -> Iterator[EntityImage]:
        for row in self.rows():
            yield EntityImage(self.store, row)

    def rows(self) -> Iterator[ImageRow]:
        """Stream the table in file order."""
        with self.store.seekable(IMAGES) as file:
            for number, line in enumerate(file, start=1):
                yield self._row(line, number)

    def _row(self, line: bytes, number: int) -> ImageRow:
        return decode(line, ImageRow, f"{self.path}/{IMAGES}: line {number}")

    @cached_property
    def _places(self) -> dict[str, tuple[int, int]]:
        """Line number and byte offset of each image."""
        places: dict[str, tuple[int, int]] = {}
        offset = 0
        with self.store.seekable(IMAGES) as file:
            for number, line in enumerate(file, start=1):
                image_id = decode(line, _Id, f"{self.path}/{IMAGES}: line {number}").id
                if image_id in places:
                    msg = f"image `{image_id}` is listed twice"
                    raise FormatError(msg, where=f"{self.path}/{IMAGES}: line {number}")
                places[image_id] = (number, offset)
                offset += len(line)
        return places

    @property
    def ids(self) -> tuple[str, ...]:
        """Image ids in file order."""
        return tuple(self._places)

    def __contains__(self, image_id: object) -> bool:
        return image_id in self._places

    @cached_property
    def _table(self) -> IO[bytes]:
        table = self.store.seekable(IMAGES)
        weakref.finalize(self, table.close)
        return table

    def image_row(self, image_id: str) -> ImageRow:
        """Return one line of the table.

        Raises:
            MissingDataError: The set has no such image.
        """
        if image_id not in self._places:
            msg = f"no image `{image_id}`"
            raise MissingDataError(msg, where=str(self.path))
        number, offset = self._places[image_id]
        self._table.seek(offset)
        return self._row(self._table.readline(), number)

    def __getitem__(self, image_id: str) -> EntityImage:
        return EntityImage(self.store, self.image_row(image_id))


class _Id(msgspec.Struct):
    id: str


def is_entity_set(path: Path) -> bool:
    """Tell whether a finished entity set lies there, without reading it."""
    if path.is_dir():
        return (path / HEADER).is_file()
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(n == HEADER or n.endswith("/" + HEADER) for n in archive.namelist())


def open_path(path: Path) -> EntitySet:
    """Open the finished entity set at a path.

    Raises:
        MissingDataError: There is none, or it is unfinished.
        FormatError: Its header is not one, or of a newer version.
    """
    if path.is_dir():
        if (path / UNFINISHED).exists() and not (path / HEADER).exists():
            msg = f"entity set `{path}` is unfinished"
            raise MissingDataError(msg, hint="run the command that writes it again: it resumes")
        return EntitySet(FolderStore(path))
    if not path.exists():
        msg = f"no entity set at `{path}`"
        raise MissingDataError(msg)
    return EntitySet(ZipStore(path))


def _read_header(store: Store) -> Header:
    data, place = store.read(HEADER), f"{store.path}/{HEADER}"
    version = decode(data, _Version, place).format
    if version != FORMAT:
        newer = version.startswith("entitybench/")
        msg = f"format `{version}` is not `{FORMAT}`"
        hint = "this set was written by a newer entitybench; upgrade" if newer else ""
        raise FormatError(msg, where=place, hint=hint)
    return decode(data, Header, place)


def decode(data: bytes, kind: type[_T], place: str) -> _T:
    """Decode validated JSON; the error names the place and the path inside."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        what, _, inside = str(error).partition(" - at ")
        msg = f"not a valid entry: {what}"
        raise FormatError(
            msg, where=place + (f": {inside.strip('`')}" if inside else "")
        ) from error


def encode(value: Any) -> bytes:
    """Encode as compact JSON, fields in the order of the format."""
    return msgspec.json.encode(value)
