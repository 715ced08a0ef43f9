"""The compiled hot loops, where they are there.

`entitybench._kernel` is built from one C file. It is optional: without a compiler everything
works, and gives the same bits, through NumPy twins. Those are the definitions: a hot function
is written out in NumPy in the module that it belongs to and hands its work to a function here
if `is_active()`.

Set `ENTITYBENCH_PURE=1` to go without the kernel where it is there.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from entitybench.errors import FormatError

if TYPE_CHECKING:
    from types import ModuleType

Buffer = NDArray[np.generic] | bytes | bytearray | memoryview


def _load() -> tuple[ModuleType | None, str]:
    if os.environ.get("ENTITYBENCH_PURE", "") not in ("", "0"):
        return None, "NumPy, as ENTITYBENCH_PURE asks"
    try:
        from entitybench import _kernel as built
    except ImportError:
        return None, "NumPy, as the kernel is not built"
    return built, "compiled kernel"


_loaded, _description = _load()
_active = _loaded is not None
if TYPE_CHECKING:
    from entitybench import _kernel
else:
    _kernel = _loaded


def is_active() -> bool:
    """Tell whether the compiled kernel does the work."""
    return _active


def describe() -> str:
    """Say in a few words what does the work: the compiled kernel, or NumPy and why."""
    return _description


# --- what can be wrong with data; the numbers are those of the C file ---

NO_MEMORY, MAP_DAMAGED, TRUTH_OVERLAPS = 1, 8, 9
JSON_NOT_FINITE = 14
_WORDS = {
    2: "RLE text holds a character that is not RLE",
    3: "RLE text ends inside a number",
    4: "RLE text holds a number of more than 35 bits",
    5: "RLE holds a count that is negative or larger than any image",
    6: "RLE counts do not sum to the pixels of the image",
    7: "RLE `counts` is a list of other things than integers",
    MAP_DAMAGED: "the runs of a map contradict themselves",
    TRUTH_OVERLAPS: "two entities of one image share pixels",
    10: "a character that does not belong there",
    11: "it ends in the middle",
    12: "it is nested too deeply",
    13: "a value of the wrong type",
    JSON_NOT_FINITE: "a number is NaN or infinite, which is not JSON",
}


def refusal(status: int) -> FormatError:
    """Return the error for a status that is not 0.

    Raises:
        MemoryError: There was no memory.
    """
    if status == NO_MEMORY:
        raise MemoryError
    return FormatError(_WORDS[status])


def _check(status: int) -> None:
    if status:
        raise refusal(status)


# --- maps as runs ---


def find_runs(flat: NDArray[np.generic]) -> NDArray[np.int32]:
    """Return the `(R,)` int32 first pixels of the runs of equal items.

    Args:
        flat: `(P,)` contiguous integers of 1, 2, 4 or 8 bytes.
    """
    starts = np.empty(flat.size + 1, dtype=np.int32)
    items = np.ascontiguousarray(flat)
    count = _kernel.find_runs(items, starts, items.itemsize)
    return starts[:count].copy()


def measure(
    starts: NDArray[np.int32], ids: NDArray[np.int32], shape: tuple[int, int], num_ids: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return `(num_ids + 1,)` areas and `(num_ids + 1, 4)` boxes x, y, width, height, in one pass.

    Raises:
        FormatError: The runs are no map.
    """
    areas = np.zeros(num_ids + 1, dtype=np.int64)
    boxes = np.zeros((num_ids + 1, 4), dtype=np.int64)
    _check(_kernel.measure(starts, ids, areas, boxes, *shape))
    return areas, boxes


def areas_of(
    starts: NDArray[np.int32], ids: NDArray[np.int32], shape: tuple[int, int], num_ids: int
) -> NDArray[np.int64]:
    """Return `(num_ids + 1,)` areas alone."""
    areas = np.zeros(num_ids + 1, dtype=np.int64)
    _check(_kernel.measure(starts, ids, areas, areas[:0], *shape))
    return areas


Runs = tuple[NDArray[np.int32], NDArray[np.int32]]


def contingency(
    truth: Runs, prediction: Runs, pixels: int, num_true_ids: int, num_predicted: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return true id, predicted id and pixels of every cell that holds a pixel.

    Cells ascend by (true id, predicted id). Predicted ids beyond `num_predicted` are void.

    Args:
        truth: Starts and ids of the true map.
        prediction: Starts and ids of the predicted map, in the same order of pixels.
        pixels: Pixels of the image.
        num_true_ids: Largest true id.
        num_predicted: Largest predicted id that counts.

    Raises:
        FormatError: The runs are no maps.
    """
    cells = np.empty((truth[0].size + prediction[0].size, 3), dtype=np.uint32)
    status, count = _kernel.contingency(
        *truth, *prediction, cells, pixels, num_true_ids, num_predicted
    )
    _check(status)
    columns = cells[:count].T.astype(np.int64)
    return columns[0], columns[1], columns[2]


def draw_masks(
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    offsets: NDArray[np.int64],
    best_first: NDArray[np.int64],
    num_pixels: int,
) -> NDArray[np.int32]:
    """Draw masks over each other, the best last.

    Args:
        starts: `(R,)` first pixel of each run, mask by mask.
        ends: `(R,)` pixel behind each run.
        offsets: `(K + 1,)` mask k owns the runs `offsets[k]:offsets[k + 1]`.
        best_first: `(K,)` masks by falling rank.
        num_pixels: Pixels of the image.

    Returns:
        `(num_pixels,)` int32 mask index + 1 of each pixel; 0 for none.

    Raises:
        FormatError: A run leaves the image.
    """
    dense = np.zeros(num_pixels, dtype=np.int32)
    order = best_first.astype(np.uint32)
    borders = (np.ascontiguousarray(a) for a in (starts, ends, offsets))
    status: int = _kernel.draw_masks(*borders, order, dense)
    _check(status)
    return dense


class MatchColumns(NamedTuple):
    """Records of D ranked predictions; see `metrics.matching.ImageMatches`."""

    scores: NDArray[np.float64]
    prediction_ids: NDArray[np.int32]
    areas: NDArray[np.int64]
    matched: NDArray[np.uint16]
    ignored: NDArray[np.uint16]
    best_ious: NDArray[np.float64]
    partners: NDArray[np.int32]

    @classmethod
    def empty(cls, rows: int) -> MatchColumns:
        """Return columns with room for `rows` predictions."""
        return cls(
            np.empty(rows, dtype=np.float64),
            np.empty(rows, dtype=np.int32),
            np.empty(rows, dtype=np.int64),
            np.empty((rows, 4), dtype=np.uint16),
            np.empty((rows, 4), dtype=np.uint16),
            np.empty(rows, dtype=np.float64),
            np.empty(rows, dtype=np.int32),
        )


class Rules(NamedTuple):
    """What decides a match.

    Attributes:
        thresholds: `(T,)` float64 IoU thresholds, ascending, above 0, at most 16.
        ranges: `(4, 2)` float64 least and greatest size of each area range.
        max_detections: How many predictions of an image take part.
        crowds_ignore: A prediction in a crowd is ignored; else crowds are void.
        void_ignores: Void is one more crowd.
    """

    thresholds: NDArray[np.float64]
    ranges: NDArray[np.float64]
    max_detections: int
    crowds_ignore: bool
    void_ignores: bool


class TrueMap(NamedTuple):
    """The truth of one image.

    Attributes:
        starts: `(R,)` int32.
        ids: `(R,)` int32.
        areas: `(N + C + 1,)` int64 pixels by id.
        sizes: `(N,)` float64 sizes under the protocol.
        num_entities: N.
        num_crowds: C.
        num_pixels: Pixels of the image.
    """

    starts: NDArray[np.int32]
    ids: NDArray[np.int32]
    areas: NDArray[np.int64]
    sizes: NDArray[np.float64]
    num_entities: int
    num_crowds: int
    num_pixels: int


def match_runs(
    truth: TrueMap,
    prediction: Runs,
    scores: NDArray[np.float64],
    rules: Rules,
    out: MatchColumns,
) -> int:
    """Match the entities of one predicted map, one per score, to the truth.

    Args:
        truth: The true map.
        prediction: Starts and ids of the predicted map; ids beyond the scores are void.
        scores: `(P,)` float64.
        rules: What decides a match.
        out: Gets a row per ranked prediction.

    Returns:
        How many predictions have no pixel.

    Raises:
        FormatError: The runs are no maps.
    """
    status, num_empty = _kernel.match_runs(
        truth.starts,
        truth.ids,
        truth.areas,
        truth.sizes,
        *prediction,
        scores,
        rules.thresholds,
        rules.ranges,
        *out,
        truth.num_pixels,
        truth.num_entities,
        truth.num_crowds,
        *rules[2:],
    )
    _check(status)
    return int(num_empty)


# --- ranking and accumulation ---


def sort_scores(scores: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the positions by falling score, ties in order.

    Args:
        scores: `(D,)` float64, none negative or NaN.
    """
    order = np.empty(scores.size, dtype=np.int64)
    _kernel.sort_scores(np.ascontiguousarray(scores), order)
    return order


class Ranking(NamedTuple):
    """Ranked predictions of all images for one area range.

    Attributes:
        hits: `(D,)` uint16, bit t: matched and counted at threshold t.
        ignored: `(D,)` uint16.
        ranks: `(D,)` int64 rank in the image.
        scores: `(D,)` float64, falling.
    """

    hits: NDArray[np.uint16]
    ignored: NDArray[np.uint16]
    ranks: NDArray[np.int64]
    scores: NDArray[np.float64]


def accumulate(
    ranking: Ranking,
    positives: int,
    cut: int,
    recall_points: NDArray[np.float64],
    out: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]],
    cell: tuple[int, int],
) -> None:
    """Fill one area range and cut of the curves.

    Args:
        ranking: The predictions.
        positives: True entities that count, at least 1.
        cut: How many predictions of each image take part.
        recall_points: `(R,)` float64, ascending.
        out: Precision `(T, R, A, M)`, recall `(T, A, M)` and scores `(T, R, A, M)`; precision
            and scores hold 0 where recall is not reached.
        cell: a and m.
    """
    precision, recall, scores = out
    place = int(np.ravel_multi_index(cell, precision.shape[2:]))
    stride = precision.shape[2] * precision.shape[3]
    _kernel.accumulate(
        *ranking,
        recall_points,
        precision,
        scores,
        recall,
        positives,
        cut,
        precision.shape[0],
        stride,
        place,
        stride,
        place,
    )


def weigh(
    ranking: tuple[NDArray[np.generic], ...],
    weights: NDArray[np.float64],
    needed: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return precision at each recall point under each set of weights.

    Args:
        ranking: The columns of `metrics.ranking._Events`, for T thresholds.
        weights: `(B, I)` how often each image counts; whole numbers.
        needed: `(B, R)` hits with which each recall point is reached.

    Returns:
        `(B, T, R)` float64; 0 where recall is not reached.
    """
    draws, images = weights.shape
    points = needed.shape[1]
    curves = np.zeros((draws, ranking[3].size - 1, points))
    how_often, hits = weights.astype(np.int32), needed.astype(np.int64)
    _kernel.weigh(*ranking, how_often, hits, curves, images, points)
    return curves


# --- PNG ---


def read_png(
    png: Buffer, shape: tuple[int, int], kind: tuple[int, int, int]
) -> NDArray[np.uint8] | None:
    """Read a PNG that is plain and of a known kind.

    Args:
        png: The file's bytes.
        shape: Height and width that it must have; no more than that is ever unpacked.
        kind: Bit depth, PNG's colour type, and bytes of a pixel.

    Returns:
        `(H, bytes of a row)` uint8, or None: of another kind or size, or damaged.
    """
    rows = np.empty((shape[0], shape[1] * kind[2]), dtype=np.uint8)
    return rows if _kernel.read_png(png, rows, *shape, *kind) else None


# --- RLE ---

SEGMENT_NONE, SEGMENT_TEXT, SEGMENT_ESCAPED, SEGMENT_LIST, SEGMENT_POLYGONS = range(5)


def mask_runs(text: bytes, pixels: int, kind: int = SEGMENT_TEXT) -> NDArray[np.uint32]:
    """Decode one mask.

    Args:
        text: Compressed text, or the JSON of a list of counts.
        pixels: Pixels of the image.
        kind: `SEGMENT_TEXT`, `SEGMENT_ESCAPED` (with JSON's escapes) or `SEGMENT_LIST`.

    Returns:
        `(R, 2)` uint32 start and end of each run of 1, ascending and disjoint.

    Raises:
        FormatError: The text is not valid, or does not fill the image.
    """
    runs = np.empty((len(text) // 2 + 2, 2), dtype=np.uint32)
    status, count = _kernel.mask_runs(text, runs, kind, pixels)
    _check(status)
    return runs[:count]


# --- JSON ---


def scan_rows(text: object, position: int, rows: NDArray[np.void]) -> tuple[int, int, bool, int]:
    """Scan objects of a list into rows; see `formats.json_rows`.

    Returns:
        Rows filled, position reached, whether the list ended, and what is wrong there or 0.
    """
    found: tuple[int, int, bool, int] = _kernel.scan_rows(text, rows, position)
    return found


def skip_value(text: object, position: int) -> tuple[int, int]:
    """Return the position behind a JSON value, and what is wrong there or 0."""
    found: tuple[int, int] = _kernel.skip_value(text, position)
    return found


# --- compiled truth; see `compiled_truth` ---

LAYOUT = 1
"""Version of the packed maps; part of the name of a cached file."""


def pack_runs(
    starts: NDArray[np.int32], ids: NDArray[np.int32], entry: NDArray[np.void], *, transposed: bool
) -> bytes:
    """Pack a map, by columns where `transposed`; fills the entry but for its places.

    Raises:
        FormatError: The runs are no map of the entry's size.
    """
    pixels = int(entry["height"][0]) * int(entry["width"][0])
    most = pixels if transposed else starts.size
    out = np.empty(6 * (most + pixels // 65535 + 2), dtype=np.uint8)
    status, size = _kernel.pack_runs(starts, ids, entry, out, transposed)
    _check(status)
    return out[:size].tobytes()


def unpack_runs(
    packed: NDArray[np.uint8],
    entry: NDArray[np.void],
    starts: NDArray[np.int32],
    ids: NDArray[np.int32],
) -> int:
    """Unpack one map as it lies; returns what is wrong with it, or 0."""
    status: int = _kernel.unpack_runs(packed, entry, starts, ids)
    return status


def compile_rle(
    masks: tuple[object, ...],
    image_offsets: NDArray[np.int64],
    entries: NDArray[np.void],
    areas: NDArray[np.int64],
    boxes: NDArray[np.int64],
    out: bytearray,
    begin: int,
    base: int,
) -> tuple[int, int, int, int]:
    """Compile images from `begin` on until `out` is full.

    Returns:
        What is wrong or 0, the image reached, the mask at fault or -1, bytes written.
    """
    found: tuple[int, int, int, int] = _kernel.compile_rle(
        *masks, image_offsets, entries, areas, boxes, out, begin, len(entries), base
    )
    return found


class Truths(NamedTuple):
    """The compiled truth of I images; see `compiled_truth.CompiledTruth`.

    Attributes:
        packed: Packed maps.
        entries: `(I,)` of `compiled_truth.ENTRY`.
        areas: `(M,)` int64 pixels by id.
        sizes: `(G,)` float64 sizes of the entities under the protocol.
    """

    packed: Buffer
    entries: NDArray[np.void]
    areas: NDArray[np.int64]
    sizes: NDArray[np.float64]


class Outcomes(NamedTuple):
    """What an evaluation of I images fills.

    Attributes:
        left: `(I,)` uint8 whether the image needs a second look; then nothing else of it counts.
        num_empty: `(I,)` int64 predictions without a pixel.
        columns: Records of the ranked predictions.
        num_cells: `(I,)` int64 cells of each image's table.
        boxes: `(D, 4)` int32 x, y, width, height of the ranked predictions.
    """

    left: NDArray[np.uint8]
    num_empty: NDArray[np.int64]
    columns: MatchColumns
    num_cells: NDArray[np.int64]
    boxes: NDArray[np.int32]


Offsets = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]


def match_rle(
    masks: tuple[object, ...],
    truths: Truths,
    rules: Rules,
    offsets: Offsets,
    out: tuple[Outcomes, NDArray[np.int32]],
    images: tuple[int, int],
) -> tuple[int, int, int, int]:
    """Match the masks of a range of images until the cells are full.

    The interpreter is free meanwhile.

    Args:
        masks: Text, extra text, offsets, lengths, kinds, scores (`compiled_truth.Masks`).
        truths: By columns.
        rules: What decides a match.
        offsets: `(I + 1,)` each: masks, records and sizes by image.
        out: By image and by record; and `(3, L)` cells, true id, predicted id and pixels, in
            the order of `metrics.tables`. L = 0: neither tables nor boxes.
        images: First and behind the last.

    Returns:
        What is wrong or 0, the image reached, the mask at fault or -1, cells written.
    """
    found: tuple[int, int, int, int] = _kernel.match_rle(
        *masks, *_evaluation(truths, rules, offsets, out), *images, *rules[2:]
    )
    return found


def match_png(
    pngs: list[bytes | None],
    maps: tuple[NDArray[np.float64], NDArray[np.int64]],
    truths: Truths,
    rules: Rules,
    offsets: Offsets,
    out: tuple[Outcomes, NDArray[np.int32]],
    images: tuple[int, int],
) -> tuple[int, int, int]:
    """Match the entity maps of a range of images until the cells are full.

    An image is left over where there is no PNG, or it is no plain entity map of its size and ids.

    Args:
        pngs: The bytes of each image of the range.
        maps: Scores, image after image; and `(I,)` entities and crowds of each map.
        truths: By rows.
        rules: What decides a match.
        offsets: As for `match_rle`, of scores instead of masks.
        out: As for `match_rle`.
        images: First and behind the last.

    Returns:
        What is wrong or 0, the image reached, cells written.
    """
    found: tuple[int, int, int] = _kernel.match_png(
        *maps, *_evaluation(truths, rules, offsets, out), pngs, *images, *rules[2:]
    )
    return found


def _evaluation(
    truths: Truths, rules: Rules, offsets: Offsets, out: tuple[Outcomes, NDArray[np.int32]]
) -> tuple[object, ...]:
    """Return what both evaluations borrow, in the kernel's order."""
    outcomes, cells = out
    return (
        *truths,
        *rules[:2],
        *offsets,
        *outcomes[:2],
        *outcomes.columns,
        outcomes.num_cells,
        cells,
        outcomes.boxes,
    )


class Claims(NamedTuple):
    """K pairs that may match, ascending by rank, then by true id; see `metrics.matching.Pairs`.

    Attributes:
        ranks: `(K,)` int64.
        truths: `(K,)` int64.
        ious: `(K,)` float64.
        crowds: `(K,)` bool.
    """

    ranks: NDArray[np.int64]
    truths: NDArray[np.int64]
    ious: NDArray[np.float64]
    crowds: NDArray[np.bool_]


def assign(
    claims: Claims,
    truth_ignored: NDArray[np.bool_],
    thresholds: NDArray[np.float64],
    out: tuple[NDArray[np.uint16], NDArray[np.uint16], NDArray[np.int32]],
) -> None:
    """Assign predictions to true entities as COCO does; see `metrics.matching.assign`.

    Args:
        claims: What may match.
        truth_ignored: `(G, A)`.
        thresholds: `(T,)` float64, ascending, at most 16.
        out: `(D, A)` matched and ignored bits, both 0; `(D,)` partners.
    """
    _kernel.assign(*claims, np.ascontiguousarray(truth_ignored), thresholds, *out, out[0].shape[1])
