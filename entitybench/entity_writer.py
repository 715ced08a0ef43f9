"""Writing an entity set so that nothing is lost and nothing is half-written.

An unfinished set carries `unfinished.json` and no header.  Each map is written beside its
place and renamed into it, then its line is appended to the table; the header comes last.
Killed at any moment, the set resumes to the same bytes.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from entitybench.candidates import Candidates, OverlapPolicy, checked_scores, resolve
from entitybench.content_hash import combine, image_digest
from entitybench.entity_map import EntityMap
from entitybench.entity_set import (
    FORMAT,
    HEADER,
    IMAGES,
    LOCAL,
    UNFINISHED,
    Category,
    EntityImage,
    EntityRow,
    EntitySet,
    FolderStore,
    Header,
    ImageRow,
    Kind,
    Local,
    Model,
    Option,
    Provenance,
    decode,
    encode,
    open_path,
)
from entitybench.errors import ConflictError, EntityBenchError, FormatError
from entitybench.map_png import encode_map
from entitybench.whole_file import write_whole

RESOLVED = "unfinished.resolved"  # ids of images whose overlap was resolved, a line each
_OWN_FILES = (HEADER, UNFINISHED, RESOLVED, IMAGES, LOCAL)
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest date a zip can hold: same bytes every day


class EntityWriter:
    """Writes one entity set, image by image.

    Use it as a context manager. Leaving the block normally finishes the set; an exception
    leaves it unfinished, and the same call resumes it.

    Args:
        path: The folder to write, or a name ending in `.zip`.
        kind: `predictions` or `ground_truth`.
        name: The set's name; the path's stem unless given.
        source: The source dataset (ground truth).
        split: Its split.
        licence: Its licence.
        converter: What converted it, with its version.
        options: The choices that shaped it; re-running with others is refused.
        categories: The source's classes.
        model: What made the predictions: a name or a `Model`; required for predictions.
        trained_on: Names of the sets the model was trained on, where `model` is a name.
        images: Where the photographs are, kept in `local.json` and never hashed.
        overwrite: Replace a set that was made with other options.

    Attributes:
        already_complete: The finished set is there, made with the same options; `add` refuses.
        finished: Ids of the images that are already there; adding one again changes nothing.

    Raises:
        ConflictError: Something else is there, or a set made with other options.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with EntityWriter(f"{folder}/mine", model="mine") as writer:
    ...         writer.add("000000000139", [[1, 1, 2], [0, 2, 2]], scores=[0.9, 0.7])
    ...     open_path(Path(folder) / "mine")["000000000139"].scores
    array([0.9, 0.7])
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        kind: Kind = "predictions",
        name: str | None = None,
        source: str | None = None,
        split: str | None = None,
        licence: str | None = None,
        converter: str | None = None,
        options: Mapping[str, Option] | None = None,
        categories: Sequence[Category] = (),
        model: str | Model | None = None,
        trained_on: Sequence[str] = (),
        images: str | None = None,
        overwrite: bool = False,
    ) -> None:
        self.path = Path(path)
        self._zipped = self.path.suffix == ".zip"
        self._folder = self.path.with_suffix(".zip.unfinished") if self._zipped else self.path
        self._header = Header(
            FORMAT,
            kind,
            name or self.path.stem,
            source,
            split,
            licence,
            converter,
            dict(sorted((options or {}).items())),
            tuple(categories),
            0,
            0,
            "",
            _model_block(kind, model, tuple(trained_on)),
        )
        self._images = images
        self._table: IO[bytes] | None = None
        self.finished: set[str] = set()
        self._map_names: set[str] = set()
        self._digests: list[int] = []
        self._num_entities = 0
        self._resolved: set[str] = set()
        self.already_complete = False
        self._open(overwrite=overwrite)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.finish()
        elif self._table is not None:
            with suppress(OSError):  # the disk may be full: the error under way says more
                self._table.close()
            self._table = None

    # --- opening ---------------------------------------------------------------

    def _open(self, *, overwrite: bool) -> None:
        if overwrite:
            self._discard()
        if self._is_complete():
            self.already_complete = True
            return
        with _disk(self._folder):
            (self._folder / "maps").mkdir(parents=True, exist_ok=True)
            self._begin_or_resume()
            self._table = (self._folder / IMAGES).open("ab")

    def _is_complete(self) -> bool:
        there = self.path.is_file() if self._zipped else (self.path / HEADER).is_file()
        if there:
            existing = open_path(self.path)
            self._same_options(existing.header)
            self.finished = set(existing.ids)
            with suppress(FileNotFoundError):  # killed between the header and the clean-up
                (self._folder / UNFINISHED).unlink()
        return there

    def _same_options(self, existing: Header) -> None:
        mine, theirs = identity(self._header), identity(existing)
        if mine == theirs:
            return
        different = [
            f"{key}: there {theirs.get(key)!r}, now {mine.get(key)!r}"
            for key in dict.fromkeys([*mine, *theirs])
            if mine.get(key) != theirs.get(key)
        ]
        msg = f"`{self.path}` is already there, made with other options"
        raise ConflictError(msg, where=different, hint="`--overwrite` replaces it")

    def _discard(self) -> None:
        """Remove a set and nothing else; the header first, so that it is never half a set."""
        if self._zipped:
            self.path.unlink(missing_ok=True)
        if any((self._folder / name).exists() for name in _OWN_FILES):
            for name in _OWN_FILES:
                (self._folder / name).unlink(missing_ok=True)
            shutil.rmtree(self._folder / "maps", ignore_errors=True)

    def _begin_or_resume(self) -> None:
        marker = self._folder / UNFINISHED
        if marker.exists():
            self._same_options(decode(marker.read_bytes(), Header, str(marker)))
            self._resume()
        else:
            self._begin()

    def _begin(self) -> None:
        strangers = [p for p in self._folder.iterdir() if p.name != "maps"]
        if strangers or any((self._folder / "maps").iterdir()):
            msg = f"`{self._folder}` is not empty and not an entity set"
            raise ConflictError(msg, hint="choose another folder; nothing was changed")
        write_whole(self._folder / UNFINISHED, encode(self._header))
        if self._images is not None:
            write_whole(self._folder / LOCAL, encode(Local(self._images)))

    def _resume(self) -> None:
        """Keep the lines whose maps can be read; cut the table at the first that cannot."""
        for leftover in (self._folder / "maps").glob("*.tmp"):
            leftover.unlink()
        table = self._folder / IMAGES
        good = 0
        if table.exists():
            with table.open("rb") as file:
                for line in file:
                    if not self._take_back(line):
                        break
                    good += len(line)
            os.truncate(table, good)
        resolved = self._folder / RESOLVED
        if resolved.exists():
            text = resolved.read_text(encoding="utf-8")
            self._resolved = {line for line in text.split("\n") if line in self.finished}

    def _take_back(self, line: bytes) -> bool:
        if not line.endswith(b"\n"):
            return False
        try:
            row = decode(line, ImageRow, IMAGES)
            image = EntityImage(FolderStore(self._folder), row)
            self._count(row, image_digest(row.id, image.map, image.scores))
        except EntityBenchError:
            return False
        return True

    def _count(self, row: ImageRow, digest: int) -> None:
        self.finished.add(row.id)
        self._map_names.add(row.map.lower())
        self._digests.append(digest)
        self._num_entities += len(row.entities)

    # --- adding ----------------------------------------------------------------

    def add(
        self,
        image_id: str,
        ids: EntityMap | ArrayLike,
        scores: ArrayLike | None = None,
        *,
        file_name: str = "",
        entities: Sequence[Provenance] = (),
        crowds: Sequence[Provenance] = (),
        resolved: bool = False,
    ) -> None:
        """Write one image. An image that is already there is left as it is.

        Args:
            image_id: The file stem of the photograph.
            ids: An `EntityMap`, or `(H, W)` integers: 0 void, any other value an entity,
                numbered in ascending order.
            scores: `(N,)` in [0, 1], one per entity in that order; predictions need them,
                ground truth has none.
            file_name: The photograph's name; `<image_id>.jpg` unless given.
            entities: Provenance of each entity (ground truth), or nothing.
            crowds: Provenance of each crowd, or nothing.
            resolved: The map came from masks that overlapped; the set counts such images.

        Raises:
            FormatError: Scores or provenance of another number; scores out of range; more
                than 65,535 ids; an id that is not a file stem.
            EntityBenchError: The disk is full or not writable; the set stays resumable.
        """
        if image_id in self.finished and not self.already_complete:
            return
        self.add_prepared(
            prepare(
                image_id,
                ids,
                scores,
                kind=self._header.kind,
                file_name=file_name,
                entities=entities,
                crowds=crowds,
                resolved=resolved,
            )
        )

    def add_prepared(self, image: PreparedImage) -> None:
        """Write an image that `prepare` made, here or in another process.

        Raises:
            EntityBenchError: The disk is full or not writable; the set stays resumable.
        """
        if image.row.id in self.finished and not self.already_complete:
            return
        if image.resolved:
            self._note_resolved(image.row.id)
        row = msgspec.structs.replace(image.row, map=self._map_name(image.row.id))
        self._write_image(row, image.png, image.digest)

    def add_masks(
        self,
        image_id: str,
        masks: ArrayLike | Candidates,
        scores: ArrayLike | None = None,
        *,
        overlap: OverlapPolicy | str = OverlapPolicy.REJECT,
        file_name: str = "",
    ) -> None:
        """Write one image of predictions from masks that may overlap.

        Args:
            image_id: The file stem of the photograph.
            masks: `(K, H, W)` booleans, or `Candidates`.
            scores: `(K,)` in [0, 1]; not for `Candidates`, which carry their own.
            overlap: `reject` or `resolve`, as in `resolve`.
            file_name: The photograph's name; `<image_id>.jpg` unless given.

        Raises:
            OverlapError: Masks share pixels and `overlap` is `reject`.
            FormatError: As in `add`.
        """
        if not isinstance(masks, Candidates):
            masks = Candidates.from_masks(masks, () if scores is None else scores)
        done = resolve(masks, OverlapPolicy(overlap), image_id)
        self.add(image_id, done.map, done.scores, file_name=file_name, resolved=bool(done.overlap))

    def _note_resolved(self, image_id: str) -> None:
        if self._table is None:
            return
        self._resolved.add(image_id)
        with _disk(self._folder), (self._folder / RESOLVED).open("a", encoding="utf-8") as file:
            file.write(f"{image_id}\n")

    def _map_name(self, image_id: str) -> str:
        """Return a file name that any file system takes, and no two images share."""
        plain = re.sub(r"[^A-Za-z0-9._-]", "_", image_id).lstrip(".") or "_"
        name = f"maps/{plain}.png"
        if plain != image_id or name.lower() in self._map_names:
            tag = hashlib.sha256(image_id.encode("utf-8")).hexdigest()[:8]
            name = f"maps/{plain}-{tag}.png"
        return name

    def _write_image(self, row: ImageRow, png: bytes, digest: int) -> None:
        if self._table is None:
            msg = f"entity set `{self.path}` is finished"
            raise ConflictError(msg, hint="`overwrite=True` replaces it")
        with _disk(self._folder):
            write_whole(self._folder / row.map, png)
            self._table.write(encode(row) + b"\n")
            self._table.flush()
        self._count(row, digest)

    # --- finishing -------------------------------------------------------------

    def finish(self) -> EntitySet:
        """Write the header and return the set. Calling it again changes nothing."""
        if self._table is not None:
            with _disk(self._folder):
                self._table.close()
                self._table = None
                self._write_header()
                if self._zipped:
                    pack(EntitySet(FolderStore(self._folder)), self.path)
                    shutil.rmtree(self._folder)
            self.already_complete = True
        return open_path(self.path)

    def _write_header(self) -> None:
        model = self._header.model
        if model is not None:
            resolved = model.resolved_images + len(self._resolved)
            model = msgspec.structs.replace(model, resolved_images=resolved)
        header = msgspec.structs.replace(
            self._header,
            num_images=len(self.finished),
            num_entities=self._num_entities,
            content_hash=combine(self._digests),
            model=model,
        )
        write_whole(self._folder / HEADER, msgspec.json.format(encode(header), indent=1) + b"\n")
        (self._folder / UNFINISHED).unlink()
        (self._folder / RESOLVED).unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class PreparedImage:
    """One image, ready to be written: all that takes time is done.

    Attributes:
        row: Its line of the table; the writer names the map.
        png: The map as a file.
        digest: Its part of the content hash.
        resolved: The map came from masks that overlapped.
    """

    row: ImageRow
    png: bytes
    digest: int
    resolved: bool = False


def prepare(
    image_id: str,
    ids: EntityMap | ArrayLike,
    scores: ArrayLike | None = None,
    *,
    kind: Kind = "predictions",
    file_name: str = "",
    entities: Sequence[Provenance] = (),
    crowds: Sequence[Provenance] = (),
    resolved: bool = False,
) -> PreparedImage:
    """Do the work of `EntityWriter.add` but for the writing: pure, for worker processes.

    Args:
        image_id: As in `EntityWriter.add`, and so are the others.
        ids: An `EntityMap` or `(H, W)` integers.
        scores: `(N,)` in [0, 1]; predictions need them, ground truth has none.
        kind: The set's kind.
        file_name: The photograph's name.
        entities: Provenance of each entity, or nothing.
        crowds: Provenance of each crowd, or nothing.
        resolved: The map came from masks that overlapped.

    Raises:
        FormatError: As in `EntityWriter.add`.
    """
    entity_map = ids if isinstance(ids, EntityMap) else EntityMap.from_array(ids)
    try:
        values = _checked_scores(scores, entity_map, kind)
        rows = _rows(entity_map, entities, crowds, values)
        png = encode_map(entity_map)
    except FormatError as error:
        msg = f"image {image_id}"
        raise error.at(msg) from error
    height, width = entity_map.shape
    row = ImageRow(
        id=_plain_id(image_id),
        file_name=file_name or f"{image_id}.jpg",
        width=width,
        height=height,
        map="",
        entities=tuple(rows[: entity_map.num_entities]),
        crowd=tuple(rows[entity_map.num_entities :]),
    )
    return PreparedImage(row, png, image_digest(image_id, entity_map, values), resolved)


def pack(entity_set: EntitySet, path: Path) -> None:
    """Write a finished set as one zip; the same set gives the same bytes.

    Maps are stored as they are (a PNG is compressed already). `local.json` stays behind: it
    says where photographs are on one machine.
    """
    temporary = path.with_name(path.name + ".tmp")
    with zipfile.ZipFile(temporary, "w") as archive:
        for name, deflated in _members(entity_set):
            info = zipfile.ZipInfo(name, _EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED if deflated else zipfile.ZIP_STORED
            info.external_attr = 0o644 << 16
            archive.writestr(info, entity_set.store.read(name))
    temporary.replace(path)


def _members(entity_set: EntitySet) -> Iterator[tuple[str, bool]]:
    yield HEADER, True
    yield IMAGES, True
    for row in entity_set.rows():
        yield row.map, False


def identity(header: Header) -> dict[str, object]:
    """What must be equal for two runs to write the same set."""
    plain: dict[str, object] = msgspec.to_builtins(header)
    options = plain.pop("options")
    model = plain.pop("model", {})
    for key in ("num_images", "num_entities", "content_hash"):
        del plain[key]
    if not (isinstance(options, dict) and isinstance(model, dict)):
        return plain
    model.pop("resolved_images", None)
    return (
        plain
        | {f"option {key}": value for key, value in options.items()}
        | {f"model {key}": value for key, value in model.items()}
    )


def _model_block(
    kind: Kind, model: str | Model | None, trained_on: tuple[str, ...]
) -> Model | None:
    if kind == "ground_truth":
        return None
    if not model:
        msg = "predictions need the name of their model"
        raise FormatError(msg, hint="`model='my-model'`")
    return Model(model, trained_on) if isinstance(model, str) else model


def _plain_id(image_id: str) -> str:
    if not image_id or any(ord(character) < 32 for character in image_id):
        msg = f"image id {image_id!r} is not a file stem"
        raise FormatError(msg)
    return image_id


def _checked_scores(
    scores: ArrayLike | None, entity_map: EntityMap, kind: Kind
) -> NDArray[np.float64] | None:
    if kind == "ground_truth":
        if scores is not None:
            msg = "ground truth has no scores"
            raise FormatError(msg)
        return None
    if entity_map.num_crowds:
        msg = "predictions have no crowds"
        raise FormatError(msg)
    if scores is None:
        msg = "predictions need a score for each entity"
        raise FormatError(msg)
    return checked_scores(scores, entity_map.num_entities)


def _rows(
    entity_map: EntityMap,
    entities: Sequence[Provenance],
    crowds: Sequence[Provenance],
    scores: NDArray[np.float64] | None,
) -> list[EntityRow]:
    """Return a row for each id, area and box from the final pixels."""
    if len(entities) not in (0, entity_map.num_entities):
        msg = f"{entity_map.num_entities} entities, but provenance of {len(entities)}"
        raise FormatError(msg)
    if len(crowds) not in (0, entity_map.num_crowds):
        msg = f"{entity_map.num_crowds} crowds, but provenance of {len(crowds)}"
        raise FormatError(msg)
    origins = [*(entities or [Provenance()] * entity_map.num_entities)]
    origins += crowds or [Provenance()] * entity_map.num_crowds
    areas, boxes = entity_map.areas.tolist(), entity_map.boxes.tolist()
    return [
        EntityRow(
            number,
            areas[number],
            tuple(boxes[number]),
            origin.source_id,
            origin.category_id,
            origin.isthing,
            score,
        )
        for number, (origin, score) in enumerate(
            zip_longest(origins, [] if scores is None else scores.tolist()), start=1
        )
    ]


@contextmanager
def _disk(folder: Path) -> Iterator[None]:
    """Tell a full or read-only disk as what it is."""
    try:
        yield
    except OSError as error:
        msg = f"cannot write: {error.strerror or error}"
        raise EntityBenchError(
            msg,
            where=str(error.filename or folder),
            hint="what was written is kept: make room and run the same command again",
        ) from error
