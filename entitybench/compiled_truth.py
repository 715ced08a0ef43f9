"""Ground truth compiled for the kernel: every map as packed runs in one mapped file.

Decoding a data set's maps costs far more than matching predictions to them, and it is the same
work each time. So it is done once per order of pixels: rows for predicted maps, columns for COCO
RLE. The file is used where it lies and checked image by image as it is read; a damaged one is
made anew.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import IO, Any

import msgspec
import numpy as np
import platformdirs
from numpy.typing import NDArray

from entitybench import kernel
from entitybench.entity_map import EntityMap
from entitybench.errors import FormatError
from entitybench.mapped_memory import View, release

ENTRY = np.dtype(
    [
        ("offset", np.int64),
        ("first_id", np.int64),
        ("check", np.uint64),
        ("num_runs", np.uint32),
        ("height", np.uint32),
        ("width", np.uint32),
        ("num_entities", np.uint32),
        ("num_crowds", np.uint32),
        ("id_width", np.uint32),
    ]
)
"""One image as the kernel reads it. Height and width are those of the image in either order."""

_MAGIC = b"EBRUNS1\n"
_BLOCK = 1 << 22  # packed maps are written in pieces of this many bytes


class PixelOrder(StrEnum):
    """Along what pixels are counted: rows as in entity maps, columns as in COCO RLE."""

    ROWS = "rows"
    COLUMNS = "columns"


class DamagedTruthError(FormatError):
    """A compiled file does not hold what it promises; delete it and compile again."""


class _Header(msgspec.Struct, frozen=True):
    order: PixelOrder
    num_images: int
    num_ids: int
    ids_size: int
    annotated: bool
    packed_size: int
    check: int


@dataclass(frozen=True, slots=True, eq=False)
class CompiledTruth:
    """The maps of I images with M ids in all (void of each image included).

    Attributes:
        order: Along what pixels are counted.
        ids: I image ids in the order of the source.
        entries: `(I,)` of `ENTRY`.
        areas: `(M,)` int64 pixels by id, image after image, void first.
        boxes: `(M, 4)` int64 x, y, width, height; zeros for void.
        annotated: `(M,)` float64 sizes that the annotation states, or None.
        packed: The packed maps.
        path: The file, where there is one.
        file: Its mapped memory.
    """

    order: PixelOrder
    ids: tuple[str, ...]
    entries: NDArray[np.void]
    areas: NDArray[np.int64]
    boxes: NDArray[np.int64]
    annotated: NDArray[np.float64] | None
    packed: NDArray[np.uint8]
    path: Path | None = None
    file: View = b""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def is_entity(self) -> NDArray[np.bool_]:
        """`(M,)` whether an id is an entity: neither void nor crowd."""
        counts = self.entries["num_entities"].astype(np.int64)
        totals = counts + self.entries["num_crowds"] + 1
        place = np.arange(int(totals.sum())) - np.repeat(self.entries["first_id"], totals)
        entities: NDArray[np.bool_] = (place > 0) & (place <= np.repeat(counts, totals))
        return entities

    @property
    def shapes(self) -> NDArray[np.uint32]:
        """`(I, 2)` height and width of each image."""
        return np.stack((self.entries["height"], self.entries["width"]), axis=1)

    @property
    def size_offsets(self) -> NDArray[np.int64]:
        """`(I + 1,)` where each image's entities begin among all entities."""
        return np.concatenate(([0], np.cumsum(self.entries["num_entities"], dtype=np.int64)))

    def map_of(self, index: int) -> EntityMap:
        """Return the map of one image, turned to rows where need be.

        Raises:
            DamagedTruthError: The file is damaged.
        """
        entry = self.entries[index : index + 1]
        starts = np.empty(int(entry["num_runs"][0]), dtype=np.int32)
        ids = np.empty_like(starts)
        if kernel.unpack_runs(self.packed, entry, starts, ids):
            raise self.damaged(self.ids[index])
        shape = int(entry["height"][0]), int(entry["width"][0])
        counts = int(entry["num_entities"][0]), int(entry["num_crowds"][0])
        if self.order is PixelOrder.ROWS:
            if np.any(ids[1:] == ids[:-1]):  # a long run, packed in pieces
                return EntityMap.from_runs(shape, starts, ids, *counts)
            return EntityMap(shape, *counts, starts, ids)  # the kernel has checked them
        turned = EntityMap.from_runs(shape[::-1], starts, ids, *counts)
        rows = np.ascontiguousarray(turned.to_array().T)
        numbers = range(1, sum(counts) + 1)
        return EntityMap.from_array(
            rows, entities=numbers[: counts[0]], crowds=numbers[counts[0] :]
        )

    def release(self) -> None:
        """Let the system have the memory of the maps back."""
        release(self.file, 0, len(self.file))

    def damaged(self, image_id: str) -> DamagedTruthError:
        """Return the error for a map that is not what its entry says."""
        return DamagedTruthError("compiled ground truth is damaged", where=f"image {image_id}")


# --- the file ---


def write_compiled(file: IO[bytes], truth: CompiledTruth, packed: Iterable[bytes]) -> None:
    """Write a compiled truth; `packed` stands in for `truth.packed`, piece by piece."""
    ids = "\0".join(truth.ids).encode("utf-8", "surrogatepass")
    tables: list[NDArray[Any]] = [truth.entries, truth.areas, truth.boxes]
    tables += [] if truth.annotated is None else [truth.annotated]
    blocks = [np.ascontiguousarray(table).tobytes() for table in tables] + [ids]
    header = msgspec.json.encode(
        _Header(
            truth.order,
            len(truth.ids),
            len(truth.areas),
            len(ids),
            truth.annotated is not None,
            int(truth.packed.size),
            _crc(blocks),
        )
    )
    file.write(_MAGIC + len(header).to_bytes(8, "little") + header)
    for block in blocks:
        file.write(block)
    for piece in packed:
        file.write(piece)


def _crc(blocks: Iterable[bytes]) -> int:
    check = 0
    for block in blocks:
        check = zlib.crc32(block, check)
    return check


def open_compiled(path: Path) -> CompiledTruth:
    """Map a compiled file.

    Raises:
        DamagedTruthError: It is not one, of another version, cut short, or its tables are
            damaged. Packed maps are checked when they are read.
        FileNotFoundError: There is no such file.
    """
    with path.open("rb") as file:
        try:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError as error:
            raise _damaged(path) from error
    if data[: len(_MAGIC)] != _MAGIC:
        raise _damaged(path)
    start = len(_MAGIC) + 8
    size = int.from_bytes(data[len(_MAGIC) : start], "little")
    try:
        header = msgspec.json.decode(data[start : start + min(size, 4096)], type=_Header)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _damaged(path) from error
    return _tables(path, data, start + size, header)


def _damaged(path: Path) -> DamagedTruthError:
    return DamagedTruthError("compiled ground truth is damaged", where=str(path))


def _tables(path: Path, data: mmap.mmap, at: int, header: _Header) -> CompiledTruth:
    shapes: list[tuple[np.dtype[np.generic], int]] = [
        (ENTRY, header.num_images),
        (np.dtype(np.int64), header.num_ids),
        (np.dtype(np.int64), 4 * header.num_ids),
    ]
    shapes += [(np.dtype(np.float64), header.num_ids)] if header.annotated else []
    total = at + sum(t.itemsize * n for t, n in shapes) + header.ids_size + header.packed_size
    if total != len(data) or min(header.num_images, header.num_ids, header.ids_size) < 0:
        raise _damaged(path)
    blocks: list[bytes] = []
    for dtype, count in [*shapes, (np.dtype(np.uint8), header.ids_size)]:
        blocks.append(data[at : at + dtype.itemsize * count])
        at += dtype.itemsize * count
    if _crc(blocks) != header.check:
        raise _damaged(path)
    arrays = [np.frombuffer(b, t) for b, (t, _) in zip(blocks, shapes, strict=False)]
    ids = blocks[-1].decode("utf-8", "surrogatepass")
    return CompiledTruth(
        header.order,
        tuple(ids.split("\0")) if header.num_images else (),
        arrays[0],
        arrays[1],
        arrays[2].reshape(-1, 4),
        arrays[3] if header.annotated else None,
        np.frombuffer(data, np.uint8, header.packed_size, at),
        path,
        data,
    )


# --- compiling maps ---


@dataclass(frozen=True, slots=True)
class TruthImage:
    """One image to compile.

    Attributes:
        id: The image's id.
        map: Its map.
        annotated: `(N + C,)` sizes that the annotation states, or None.
    """

    id: str
    map: EntityMap
    annotated: NDArray[np.float64] | None = None


def compile_maps(images: Iterable[TruthImage], order: PixelOrder, file: IO[bytes]) -> None:
    """Compile images one by one; memory does not grow with the maps."""
    with tempfile.TemporaryFile() as packed:
        truth = _pack_all(images, order, packed)
        packed.seek(0)
        write_compiled(file, truth, iter(lambda: packed.read(_BLOCK), b""))


def _pack_all(images: Iterable[TruthImage], order: PixelOrder, packed: IO[bytes]) -> CompiledTruth:
    ids: list[str] = []
    entries: list[NDArray[np.void]] = []
    areas: list[NDArray[np.int64]] = []
    boxes: list[NDArray[np.int64]] = []
    annotated: list[NDArray[np.float64]] = []
    first_id = 0
    for image in images:
        entry, data = _pack(image.map, order)
        entry["offset"], entry["first_id"] = packed.tell(), first_id
        first_id += image.map.num_ids + 1
        packed.write(data)
        ids.append(image.id)
        entries.append(entry)
        areas.append(image.map.areas)
        boxes.append(_boxes_without_void(image.map))
        if image.annotated is not None:
            annotated.append(np.concatenate(([0.0], image.annotated)))
    return CompiledTruth(
        order,
        tuple(ids),
        np.concatenate([np.zeros(0, ENTRY), *entries]),
        np.concatenate([np.zeros(0, np.int64), *areas]),
        np.concatenate([np.zeros((0, 4), np.int64), *boxes]),
        np.concatenate(annotated) if annotated else None,
        np.broadcast_to(np.uint8(0), packed.tell()),
    )


def _boxes_without_void(entity_map: EntityMap) -> NDArray[np.int64]:
    boxes = entity_map.boxes
    boxes[0] = 0
    return boxes


def _pack(entity_map: EntityMap, order: PixelOrder) -> tuple[NDArray[np.void], bytes]:
    entry = np.zeros(1, dtype=ENTRY)
    entry["height"], entry["width"] = entity_map.shape
    entry["num_entities"], entry["num_crowds"] = entity_map.num_entities, entity_map.num_crowds
    data = kernel.pack_runs(
        entity_map.starts, entity_map.ids, entry, transposed=order is PixelOrder.COLUMNS
    )
    return entry, data


def turn(truth: CompiledTruth) -> Iterator[TruthImage]:
    """Yield the images of a compiled truth, to be compiled in the other order."""
    for index, image_id in enumerate(truth.ids):
        first = int(truth.entries["first_id"][index])
        entity_map = truth.map_of(index)
        sizes = None
        if truth.annotated is not None:
            sizes = truth.annotated[first + 1 : first + 1 + entity_map.num_ids]
        yield TruthImage(image_id, entity_map, sizes)


# --- compiling RLE ---


@dataclass(frozen=True, slots=True, eq=False)
class Masks:
    """K masks as text, image after image.

    Attributes:
        text: The file.
        extra: Texts that are not in the file (made of polygons); an offset of `-1 - n` means
            byte n of it.
        offsets: `(K,)` int64 first byte of each text.
        lengths: `(K,)` uint32 bytes of each text.
        kinds: `(K,)` uint8 `kernel.SEGMENT_…`.
        scores: `(K,)` float64.
        image_offsets: `(I + 1,)` int64; image i owns masks `[i]:[i + 1]`.
    """

    text: View
    extra: bytes
    offsets: NDArray[np.int64]
    lengths: NDArray[np.uint32]
    kinds: NDArray[np.uint8]
    scores: NDArray[np.float64]
    image_offsets: NDArray[np.int64]

    @property
    def buffers(self) -> tuple[object, ...]:
        """What the kernel borrows, in its order."""
        return self.text, self.extra, self.offsets, self.lengths, self.kinds, self.scores


def compile_masks(
    ids: Sequence[str],
    entries: NDArray[np.void],
    masks: Masks,
    annotated: NDArray[np.float64] | None,
    file: IO[bytes],
) -> None:
    """Compile truth given as RLE, in the order of columns.

    Args:
        ids: I image ids.
        entries: `(I,)` of `ENTRY` with sizes and numbers of ids; the rest is filled in.
        masks: The entities of each image, then its crowds.
        annotated: `(M,)` sizes, or None.
        file: Where to write.

    Raises:
        MaskError: A mask is damaged or masks of one image overlap.
    """
    totals = entries["num_entities"].astype(np.int64) + entries["num_crowds"] + 1
    entries["first_id"] = np.concatenate(([0], np.cumsum(totals)))[:-1]
    areas = np.zeros(int(totals.sum()), dtype=np.int64)
    boxes = np.zeros((len(areas), 4), dtype=np.int64)
    with tempfile.TemporaryFile() as packed:
        for piece in _compiled_pieces(entries, masks, areas, boxes):
            packed.write(piece)
        size = packed.tell()
        truth = CompiledTruth(
            PixelOrder.COLUMNS,
            tuple(ids),
            entries,
            areas,
            boxes,
            annotated,
            np.broadcast_to(np.uint8(0), size),
        )
        packed.seek(0)
        write_compiled(file, truth, iter(lambda: packed.read(_BLOCK), b""))


class MaskError(FormatError):
    """A mask of the truth cannot be compiled; `image` and `mask` (or -1) say which."""

    image = -1
    mask = -1


def _compiled_pieces(
    entries: NDArray[np.void],
    masks: Masks,
    areas: NDArray[np.int64],
    boxes: NDArray[np.int64],
) -> Iterator[memoryview]:
    out = bytearray(_BLOCK)
    begin = base = 0
    while begin < len(entries):
        status, image, mask, size = kernel.compile_rle(
            masks.buffers, masks.image_offsets, entries, areas, boxes, out, begin, base
        )
        if status:
            error = MaskError(kernel.refusal(status).what)
            error.image, error.mask = image, mask
            raise error
        yield memoryview(out)[:size]
        if size == 0:  # a single image is larger than the block
            out = bytearray(2 * len(out))
        begin, base = image, base + size


# --- the cache ---


def cache_folder() -> Path:
    """`$ENTITYBENCH_CACHE`, else the user's cache folder; safe to delete at any time."""
    named = os.environ.get("ENTITYBENCH_CACHE")
    return Path(named) if named else Path(platformdirs.user_cache_dir("entitybench"))


def cached(
    key: str, order: PixelOrder, compile_to: Callable[[IO[bytes]], None], *, anew: bool = False
) -> CompiledTruth:
    """Return the compiled truth of some content, compiling it where the cache has none.

    Args:
        key: Names the content: a hash.
        order: Along what pixels are counted; part of the name.
        compile_to: Writes the compiled file.
        anew: Ignore what the cache holds.
    """
    name = hashlib.sha256(f"{key} {order} {kernel.LAYOUT}".encode()).hexdigest()[:32]
    path = cache_folder() / "truth" / f"{name}.runs"
    if not anew:
        with suppress(OSError, DamagedTruthError):
            return open_compiled(path)
    return _compiled_at(path, compile_to)


def _compiled_at(path: Path, compile_to: Callable[[IO[bytes]], None]) -> CompiledTruth:
    """Write a file beside its place and rename it; into a temporary folder if that fails."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    except OSError:
        descriptor, name = tempfile.mkstemp(suffix=".runs")
        path = Path(name)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            compile_to(file)
        temporary.replace(path)
        return open_compiled(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
