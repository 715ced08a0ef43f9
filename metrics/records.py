"""Match records: what remains of a data set once its images are matched.

A few dozen bytes per prediction. Scores, slices, pooled test sets and intervals are computed
from these columns alone; no map is opened again. Shards merge to the same bits as one run.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from entitybench.entity_set import decode
from entitybench.errors import ConflictError, FormatError, MissingDataError
from entitybench.metrics.class_sums import COLUMNS as CLASS_COLUMNS
from entitybench.metrics.class_sums import ClassSums
from entitybench.metrics.matching import ALL_BITS, NO_PARTNER, ImageMatches
from entitybench.metrics.protocol import MAX_DETECTIONS, Protocol, within_ranges
from entitybench.metrics.ragged import offsets_of, rows_of
from entitybench.metrics.tables import NAMES as TABLE_COLUMNS
from entitybench.metrics.tables import Tables
from entitybench.signature import METRIC_VERSION
from entitybench.whole_file import write_whole

FORMAT = "entitybench-matches/1"

# name → dtype and shape behind the first dimension
_IMAGE_COLUMNS: dict[str, tuple[type[np.generic], tuple[int, ...]]] = {
    "num_pixels": (np.int64, ()),
    "num_predicted": (np.int64, ()),
    "num_empty": (np.int64, ()),
}
_DETECTION_COLUMNS: dict[str, tuple[type[np.generic], tuple[int, ...]]] = {
    "scores": (np.float64, ()),
    "prediction_ids": (np.int32, ()),
    "areas": (np.int64, ()),
    "matched": (np.uint16, (4,)),
    "ignored": (np.uint16, (4,)),
    "best_ious": (np.float64, ()),
    "partners": (np.int32, ()),
}
_TRUTH_COLUMNS: dict[str, tuple[type[np.generic], tuple[int, ...]]] = {
    "truth_sizes": (np.float64, ()),
}
# what NumPy raises for a damaged file, from the zip's directory down to an array's header
_BROKEN_FILE = (
    OSError,
    ValueError,
    EOFError,
    KeyError,
    NotImplementedError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
)
_OFFSETS = ("detection_offsets", "truth_offsets")
_COLUMN_NAMES = (*_OFFSETS, *_IMAGE_COLUMNS, *_DETECTION_COLUMNS, *_TRUTH_COLUMNS)


class ImageKey(NamedTuple):
    """Names one image of one ground truth; in a union two sets may share an image id."""

    set_name: str
    image_id: str


def image_order(keys: Sequence[ImageKey]) -> list[int]:
    """Return the positions of the keys in pooled order: by set name, then by image id.

    Ids are numbers where all ids of their set are decimal (`9` before `10`), else text. Equal
    scores of different images rank in this order, so it is part of the metric.

    >>> image_order([ImageKey("b", "10"), ImageKey("b", "9"), ImageKey("a", "10b")])
    [2, 1, 0]
    """
    textual = {k.set_name for k in keys if not (k.image_id.isascii() and k.image_id.isdecimal())}

    def place(index: int) -> tuple[str, int, str, str]:
        set_name, image_id = keys[index]
        if set_name in textual:
            return set_name, 0, image_id, ""
        digits = image_id.lstrip("0")
        return set_name, len(digits), digits, image_id

    return sorted(range(len(keys)), key=place)


@dataclass(frozen=True, slots=True, eq=False)
class MatchRecords:
    """Matches of I images in columns: D predictions and G true entities in all.

    Make one with `gather`, `merge` or `load`: those check, and bring images into pooled order.
    The columns of predictions and true entities are those of `ImageMatches`, image after image.

    Attributes:
        protocol: What the images were matched under.
        images: I keys in pooled order (`image_order`), none twice.
        num_pixels: `(I,)` int64 size of each image.
        num_predicted: `(I,)` int64 predictions of each image, those beyond 100 too.
        num_empty: `(I,)` int64 how many of them have no pixel.
        detection_offsets: `(I + 1,)` int64; image i owns rows `[i]:[i + 1]`.
        truth_offsets: `(I + 1,)` int64, the same for true entities.
        scores: `(D,)` float64.
        prediction_ids: `(D,)` int32.
        areas: `(D,)` int64.
        matched: `(D, 4)` uint16.
        ignored: `(D, 4)` uint16.
        best_ious: `(D,)` float64.
        partners: `(D,)` int32.
        truth_sizes: `(G,)` float64.
        tables: What the maps of each image say to each other; None where they were matched
            without, or where one of several merged parts has none.
        classes: What PQ by class is computed from; None where either side tells no classes, or
            where merged parts do not share theirs.
    """

    protocol: Protocol
    images: tuple[ImageKey, ...]
    num_pixels: NDArray[np.int64]
    num_predicted: NDArray[np.int64]
    num_empty: NDArray[np.int64]
    detection_offsets: NDArray[np.int64]
    truth_offsets: NDArray[np.int64]
    scores: NDArray[np.float64]
    prediction_ids: NDArray[np.int32]
    areas: NDArray[np.int64]
    matched: NDArray[np.uint16]
    ignored: NDArray[np.uint16]
    best_ious: NDArray[np.float64]
    partners: NDArray[np.int32]
    truth_sizes: NDArray[np.float64]
    tables: Tables | None = None
    classes: ClassSums | None = None

    def __len__(self) -> int:
        return len(self.images)

    @property
    def ranks(self) -> NDArray[np.int64]:
        """`(D,)` rank of each prediction in its image, from 0."""
        first = np.repeat(self.detection_offsets[:-1], np.diff(self.detection_offsets))
        return np.arange(len(self.scores)) - first

    @property
    def positives(self) -> NDArray[np.int64]:
        """`(I, 4)` true entities that count, per image and area range."""
        upto = np.zeros((len(self.truth_sizes) + 1, 4), dtype=np.int64)
        np.cumsum(within_ranges(self.truth_sizes), axis=0, out=upto[1:])
        return np.diff(upto[self.truth_offsets], axis=0)

    @classmethod
    def gather(
        cls, protocol: Protocol, matches: Iterable[tuple[ImageKey, ImageMatches]]
    ) -> MatchRecords:
        """Collect images that were matched under `protocol`, in any order.

        Raises:
            ConflictError: An image occurs twice.
        """
        keys: list[ImageKey] = []
        parts: list[ImageMatches] = []
        for key, part in matches:
            keys.append(ImageKey(*key))
            parts.append(part)
        columns = {
            name: np.array([getattr(p, name) for p in parts], dtype=dtype)
            for name, (dtype, _) in _IMAGE_COLUMNS.items()
        }
        columns |= {
            name: np.concatenate([np.zeros((0, *tail), dtype), *(getattr(p, name) for p in parts)])
            for name, (dtype, tail) in (_DETECTION_COLUMNS | _TRUTH_COLUMNS).items()
        }
        columns["detection_offsets"] = offsets_of([len(p.scores) for p in parts])
        columns["truth_offsets"] = offsets_of([len(p.truth_sizes) for p in parts])
        tables = [part.table for part in parts if part.table is not None]
        held = Tables.gather(tables) if len(tables) == len(parts) else None
        return cls(protocol, tuple(keys), **columns, tables=held, classes=None).in_order()

    @classmethod
    def merge(cls, parts: Sequence[MatchRecords]) -> MatchRecords:
        """Join the records of shards, or of several ground truths, in any order.

        Raises:
            ConflictError: The parts follow different protocols, or share an image.
            MissingDataError: There is no part.
        """
        if not parts:
            msg = "there are no match records to merge"
            raise MissingDataError(msg)
        protocols = {part.protocol for part in parts}
        if len(protocols) > 1:
            msg = "match records follow different protocols"
            raise ConflictError(msg, where=sorted(str(p) for p in protocols))
        columns = {
            name: np.concatenate([getattr(part, name) for part in parts])
            for name in _IMAGE_COLUMNS | _DETECTION_COLUMNS | _TRUTH_COLUMNS
        }
        for name in _OFFSETS:
            counts = [np.diff(getattr(part, name)) for part in parts]
            columns[name] = offsets_of(np.concatenate(counts))
        images = tuple(key for part in parts for key in part.images)
        tables = [part.tables for part in parts if part.tables is not None]
        held = Tables.merge(tables) if len(tables) == len(parts) else None
        sums = [part.classes for part in parts if part.classes is not None]
        classes = ClassSums.merge(sums) if len(sums) == len(parts) else None
        return cls(parts[0].protocol, images, **columns, tables=held, classes=classes).in_order()

    def take(self, indices: Sequence[int] | NDArray[np.integer[Any]]) -> MatchRecords:
        """Return the records of some images, given by position, in the order given.

        To keep the metric's order, pass ascending positions. A position may repeat (as a
        bootstrap's do); such records can be scored but neither merged nor loaded again.
        """
        chosen = np.asarray(indices, dtype=np.int64)
        columns = {name: getattr(self, name)[chosen] for name in _IMAGE_COLUMNS}
        all_rows = {}
        for offsets, names in zip(_OFFSETS, (_DETECTION_COLUMNS, _TRUTH_COLUMNS), strict=True):
            bounds = getattr(self, offsets)
            rows = all_rows[offsets] = rows_of(bounds[chosen], bounds[chosen + 1])
            columns |= {name: getattr(self, name)[rows] for name in names}
            columns[offsets] = offsets_of(bounds[chosen + 1] - bounds[chosen])
        of_detections, of_truth = (all_rows[name] for name in _OFFSETS)
        held = None if self.tables is None else self.tables.take(chosen, of_truth, of_detections)
        sums = None if self.classes is None else self.classes.take(chosen)
        images = tuple(self.images[i] for i in chosen.tolist())
        return replace(self, images=images, **columns, tables=held, classes=sums)

    def in_order(self) -> MatchRecords:
        """Return the images in pooled order.

        Raises:
            ConflictError: An image occurs twice.
        """
        twice = _repeated(self.images)
        if twice:
            msg = f"match records hold {len(twice)} images twice"
            raise ConflictError(msg, where=[_shown(key) for key in twice])
        order = image_order(self.images)
        return self if order == list(range(len(self))) else self.take(order)

    def save(self, path: Path) -> None:
        """Write an `.npz` file, whole or not at all; equal records give equal bytes."""
        buffer = BytesIO()
        arrays = {name: getattr(self, name) for name in _COLUMN_NAMES}
        arrays |= {} if self.tables is None else self.tables.columns()
        header = {"format": FORMAT, "metric": METRIC_VERSION, "protocol": asdict(self.protocol)}
        if self.classes is not None:
            arrays |= self.classes.columns()
            header["classes"] = {"names": self.classes.names, "things": self.classes.things}
        arrays["header"] = np.array(json.dumps(header, sort_keys=True))
        arrays["images"] = np.array(json.dumps(self.images))
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, array in arrays.items():
                _write_array(archive, name, array)
        write_whole(path, buffer.getvalue())

    @classmethod
    def load(cls, path: Path) -> MatchRecords:
        """Read what `save` wrote, and check it.

        Raises:
            MissingDataError: There is no such file.
            FormatError: The file is broken, of another version, or contradicts itself.
        """
        try:
            return _checked(_decoded(_arrays(path)))
        except FormatError as error:
            raise error.at(str(path)) from error


class _Classes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    names: tuple[str, ...]
    things: tuple[bool | None, ...]


class _Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: str
    metric: int
    protocol: Protocol
    classes: _Classes | None = None


def _write_array(archive: zipfile.ZipFile, name: str, array: NDArray[Any]) -> None:
    """Add an array as NumPy's `savez_compressed` does, but at zlib's fastest: a third the time."""
    data = BytesIO()
    np.lib.format.write_array(data, np.asanyarray(array), allow_pickle=False)
    info = zipfile.ZipInfo(f"{name}.npy")  # dated 1980: equal records give equal bytes
    archive.writestr(info, data.getvalue(), zipfile.ZIP_DEFLATED, compresslevel=1)


def _repeated(keys: Iterable[ImageKey]) -> list[ImageKey]:
    seen: set[ImageKey] = set()
    return [key for key in keys if key in seen or seen.add(key)]  # type: ignore[func-returns-value]


def _shown(key: ImageKey) -> str:
    return f"{key.set_name}/{key.image_id}" if key.set_name else key.image_id


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    try:
        data = path.read_bytes()
    except OSError as error:
        msg = f"the match records cannot be read: {error.strerror}"
        raise MissingDataError(msg, where=str(path)) from error
    try:
        archive = np.load(BytesIO(data), allow_pickle=False)
        if isinstance(archive, np.lib.npyio.NpzFile):
            return {name: archive[name] for name in archive.files}
    except _BROKEN_FILE as error:
        msg = "not a file of match records, or a broken one"
        raise FormatError(msg) from error
    msg = "a single array, not match records"
    raise FormatError(msg)


def _decoded(arrays: dict[str, NDArray[Any]]) -> MatchRecords:
    wanted = {*_COLUMN_NAMES, "images", "header"}
    for more in (TABLE_COLUMNS, CLASS_COLUMNS):
        wanted |= set(more) if set(more) & set(arrays) else set()
    if set(arrays) != wanted:
        odd = ", ".join(f"`{name}`" for name in sorted(wanted ^ set(arrays)))
        msg = f"columns missing or unknown: {odd}"
        raise FormatError(msg)
    header = decode(_text(arrays.pop("header")), _Header, "header")
    if (header.format, header.metric) != (FORMAT, METRIC_VERSION):
        msg = (
            f"match records of format `{header.format}`, metric {header.metric}; "
            f"this version reads `{FORMAT}`, metric {METRIC_VERSION}"
        )
        raise FormatError(msg, hint="run `entitybench eval` again")
    images = decode(_text(arrays.pop("images")), list[tuple[str, str]], "images")
    keys = tuple(ImageKey(*key) for key in images)
    held = {name: arrays.pop(name) for name in TABLE_COLUMNS if name in arrays}
    tables = Tables(**held) if held else None
    sums = {name: arrays.pop(name) for name in CLASS_COLUMNS if name in arrays}
    if bool(sums) != (header.classes is not None):
        msg = "sums by class need the names of the classes, and the names need the sums"
        raise FormatError(msg)
    named = header.classes
    classes = None if named is None else ClassSums(named.names, named.things, **sums)
    return MatchRecords(header.protocol, keys, **arrays, tables=tables, classes=classes)


def _text(array: NDArray[Any]) -> bytes:
    if array.dtype.kind != "U" or array.ndim:
        msg = "header and images are not text"
        raise FormatError(msg)
    return str(array).encode("utf-8", "surrogatepass")


def _checked(records: MatchRecords) -> MatchRecords:
    num_images = len(records)
    expected = dict.fromkeys(_OFFSETS, (np.int64, (num_images + 1,))) | {
        name: (dtype, (num_images, *tail)) for name, (dtype, tail) in _IMAGE_COLUMNS.items()
    }
    _check_columns(records, expected)
    for offsets, columns in zip(_OFFSETS, (_DETECTION_COLUMNS, _TRUTH_COLUMNS), strict=True):
        bounds = getattr(records, offsets)
        if bounds[0] != 0 or np.any(np.diff(bounds) < 0):
            msg = f"`{offsets}` do not ascend from 0"
            raise FormatError(msg)
        rows = int(bounds[-1])
        _check_columns(records, {n: (d, (rows, *tail)) for n, (d, tail) in columns.items()})
    if records.tables is not None:
        counts = num_images, len(records.truth_sizes), len(records.scores)
        _check_columns(records.tables, records.tables.expected(*counts))
    if records.classes is not None:
        _check_columns(records.classes, records.classes.expected(num_images))
    for what, sound in _sound(records):
        if not sound:
            msg = f"match records contradict themselves: {what}"
            raise FormatError(msg)
    return records


def _check_columns(
    records: MatchRecords | Tables | ClassSums,
    expected: dict[str, tuple[type[np.generic], tuple[int, ...]]],
) -> None:
    for name, (dtype, shape) in expected.items():
        array = getattr(records, name)
        if array.dtype != dtype or array.shape != shape:
            msg = (
                f"column `{name}` is {array.dtype} of shape {array.shape}, "
                f"expected {np.dtype(dtype)} of shape {shape}"
            )
            raise FormatError(msg)


def _sound(records: MatchRecords) -> Iterable[tuple[str, bool | np.bool_]]:
    """Yield what must hold of records, and whether it does."""
    detections = np.diff(records.detection_offsets)
    follows = records.ranks[1:] > 0
    falls = records.scores[1:] <= records.scores[:-1]
    sizes, ious = records.truth_sizes, records.best_ious
    yield "images repeat", not _repeated(records.images)
    yield "images out of order", image_order(records.images) == list(range(len(records)))
    yield (
        f"more than {MAX_DETECTIONS[-1]} predictions of one image, or fewer than it has",
        np.array_equal(detections, np.minimum(records.num_predicted, MAX_DETECTIONS[-1])),
    )
    yield "an image without a pixel", np.all(records.num_pixels > 0)
    yield (
        "more empty predictions than predictions",
        np.all((records.num_empty >= 0) & (records.num_empty <= records.num_predicted)),
    )
    yield "a score not in [0, 1]", np.all((records.scores >= 0) & (records.scores <= 1))
    yield "scores that rise within an image", np.all(falls | ~follows)
    yield "an IoU not in [0, 1]", np.all((ious >= 0) & (ious <= 1))
    yield "a negative area or id", np.all((records.areas >= 0) & (records.prediction_ids > 0))
    yield "a partner below none", np.all(records.partners >= NO_PARTNER)
    yield (
        "bits of thresholds that do not exist",
        np.all((records.matched | records.ignored) <= ALL_BITS),
    )
    yield "a size that is not a number of pixels", np.all(np.isfinite(sizes) & (sizes >= 0))
    yield "more matches than true entities", _enough_truth(records)
    if records.tables is not None:
        counts = np.diff(records.truth_offsets), records.num_predicted
        yield from records.tables.sound(*counts, records.num_pixels)
    if records.classes is not None:
        yield from records.classes.sound()


def _enough_truth(records: MatchRecords) -> bool:
    """No image has more true positives at IoU .50 than entities to match."""
    hits = (records.matched & ~records.ignored) & 1
    upto = np.zeros((len(hits) + 1, 4), dtype=np.int64)
    np.cumsum(hits, axis=0, out=upto[1:])
    return bool(np.all(np.diff(upto[records.detection_offsets], axis=0) <= records.positives))
