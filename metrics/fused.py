"""Whole data sets matched by the compiled kernel, to the bits of `match_pair`.

COCO results are decoded, tested for overlap, compared with the truth and matched mask by mask
in one pass over their text; no map is made. `fused_maps` does the same with entity maps. Images
that overlap, or are odd in any way, are left to the caller.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from entitybench import kernel
from entitybench.candidates import checked_scores
from entitybench.compiled_truth import CompiledTruth, Masks
from entitybench.entity_map import EntityMap
from entitybench.errors import FormatError, MissingDataError
from entitybench.mapped_memory import release
from entitybench.metrics.contingency import check_sizes
from entitybench.metrics.fused_tables import join_tables
from entitybench.metrics.matching import ImageMatches
from entitybench.metrics.protocol import (
    AREA_RANGES,
    IOU_THRESHOLDS,
    MAX_DETECTIONS,
    CrowdRule,
    Protocol,
    SizeRule,
    VoidRule,
)
from entitybench.metrics.ragged import offsets_of
from entitybench.metrics.records import ImageKey, MatchRecords

_IMAGES_AT_ONCE = 512
_CELLS_AT_ONCE = 1 << 17


def kernel_rules(protocol: Protocol) -> kernel.Rules:
    """Say what decides a match in the kernel's words."""
    return kernel.Rules(
        IOU_THRESHOLDS,
        AREA_RANGES,
        MAX_DETECTIONS[-1],
        protocol.crowd is CrowdRule.IGNORE,
        protocol.void is VoidRule.IGNORE,
    )


def sizes_of(truth: CompiledTruth, protocol: Protocol) -> NDArray[np.float64]:
    """Return the sizes of all entities under the protocol, as `truth_sizes` gives them.

    Raises:
        MissingDataError: The protocol wants annotated sizes and there are none.
    """
    entities = truth.is_entity
    if protocol.size is SizeRule.PIXELS:
        return truth.areas[entities].astype(np.float64)
    if protocol.size is SizeRule.BOX:
        sides = np.maximum(truth.boxes[entities, 2:] - 1, 0)
        return (sides[:, 0] * sides[:, 1]).astype(np.float64)
    if truth.annotated is None:
        msg = "the truth has no annotated sizes"
        raise MissingDataError(msg)
    return truth.annotated[entities]


def match_maps(
    truth: EntityMap,
    prediction: EntityMap,
    scores: ArrayLike,
    sizes: NDArray[np.float64],
    protocol: Protocol,
) -> ImageMatches:
    """Match one image: `match` of its `contingency`, in one pass.

    Raises:
        FormatError: Truth and prediction differ in size, or a score is not in [0, 1].
    """
    check_sizes(truth, prediction)
    checked = checked_scores(scores, prediction.num_entities)
    out = kernel.MatchColumns.empty(min(len(checked), MAX_DETECTIONS[-1]))
    pixels = truth.shape[0] * truth.shape[1]
    true_map = kernel.TrueMap(
        truth.starts, truth.ids, truth.areas, sizes, truth.num_entities, truth.num_crowds, pixels
    )
    runs = prediction.starts, prediction.ids
    num_empty = kernel.match_runs(true_map, runs, checked, kernel_rules(protocol), out)
    return ImageMatches(*out, sizes, pixels, len(checked), num_empty)


@dataclass(frozen=True, slots=True, eq=False)
class FusedMatches:
    """Matches of all images.

    Attributes:
        records: What remains of them; meaningless for the images that are left over.
        left: Ids of the images that need a second look: their masks share pixels, or they are
            for the careful reader.
    """

    records: MatchRecords
    left: frozenset[str]


class MaskFaultError(FormatError):
    """A mask of the predictions cannot be read; the careful reader tells which and why."""


def match_masks(
    truth: CompiledTruth,
    masks: Masks,
    protocol: Protocol,
    *,
    set_name: str = "",
    threads: int = 1,
    tables: bool = False,
) -> FusedMatches:
    """Match COCO masks to compiled truth.

    Args:
        truth: I images, by columns.
        masks: The predictions of each image, in the same order of images.
        protocol: Crowd, void and size rule.
        set_name: The ground truth's name.
        threads: How many images to work on at once.
        tables: Keep the contingency tables as well.

    Raises:
        MaskFaultError: A mask is damaged.
        DamagedTruthError: The compiled truth is damaged.
        MissingDataError: The protocol wants annotated sizes and there are none.
    """
    work = Work(truth, masks.image_offsets, protocol, tables=tables)

    def match(cells: NDArray[np.int32], images: tuple[int, int]) -> tuple[int, int]:
        status, reached, mask, used = kernel.match_rle(
            masks.buffers, work.truths, work.rules, work.offsets, (work.outcomes, cells), images
        )
        if status and not (status == kernel.MAP_DAMAGED and mask < 0):
            raise MaskFaultError(kernel.refusal(status).what)
        work.check(status, reached)
        release(masks.text, 0, len(masks.text))
        return reached, used

    return work.done(match, threads, set_name)


Step = Callable[[NDArray[np.int32], tuple[int, int]], tuple[int, int]]
"""Matches images until the cells are full; returns the image reached and the cells written."""


class Work:
    """Columns for the matches of all images of a compiled truth, and who fills them.

    Args:
        truth: I images.
        offsets: `(I + 1,)` where each image's predictions begin.
        protocol: Crowd, void and size rule.
        tables: Keep the contingency tables as well.

    Attributes:
        truths: What the kernel borrows of the truth.
        rules: What decides a match, in the kernel's words.
        offsets: Where predictions, records and sizes of each image begin.
        outcomes: The columns.

    Raises:
        MissingDataError: The protocol wants annotated sizes and there are none.
    """

    def __init__(
        self, truth: CompiledTruth, offsets: NDArray[np.int64], protocol: Protocol, *, tables: bool
    ) -> None:
        self.truth, self.protocol, self.tables = truth, protocol, tables
        sizes = sizes_of(truth, protocol)
        self.truths = kernel.Truths(truth.packed, truth.entries, truth.areas, sizes)
        self.rules = kernel_rules(protocol)
        self.counts = np.diff(offsets)
        records = offsets_of(np.minimum(self.counts, MAX_DETECTIONS[-1]))
        self.offsets = offsets, records, truth.size_offsets
        rows = int(records[-1])
        self.outcomes = kernel.Outcomes(
            np.zeros(len(truth), dtype=np.uint8),
            np.zeros(len(truth), dtype=np.int64),
            kernel.MatchColumns.empty(rows),
            np.zeros(len(truth), dtype=np.int64),
            np.zeros((rows if tables else 0, 4), dtype=np.int32),
        )

    def check(self, status: int, image: int) -> None:
        """Refuse a status that is not 0.

        Raises:
            DamagedTruthError: The compiled truth is damaged.
        """
        if status == kernel.MAP_DAMAGED:
            raise self.truth.damaged(self.truth.ids[image])
        if status:
            raise kernel.refusal(status)

    def done(self, step: Step, threads: int, set_name: str) -> FusedMatches:
        """Match all images, some at a time, and join what comes out."""
        begins = range(0, len(self.truth), _IMAGES_AT_ONCE)
        if threads < 2:
            parts = [self._some(step, begin) for begin in begins]
        else:
            with ThreadPoolExecutor(threads) as pool:
                parts = list(pool.map(lambda begin: self._some(step, begin), begins))
        records = self._records(set_name, [cells for part in parts for cells in part])
        left = np.flatnonzero(self.outcomes.left).tolist()
        return FusedMatches(records.in_order(), frozenset(self.truth.ids[i] for i in left))

    def _some(self, step: Step, begin: int) -> list[NDArray[np.int32]]:
        """Match a stretch of images; returns their cells, piece by piece."""
        end = min(begin + _IMAGES_AT_ONCE, len(self.truth))
        cells = np.empty((3, _CELLS_AT_ONCE if self.tables else 0), dtype=np.int32)
        pieces = []
        while begin < end:
            reached, used = step(cells, (begin, end))
            pieces.append(cells[:, :used].copy())
            if reached == begin:
                cells = np.empty((3, 2 * cells.shape[1]), dtype=np.int32)
            begin = reached
            self.truth.release()
        return pieces

    def _records(self, set_name: str, cells: list[NDArray[np.int32]]) -> MatchRecords:
        tables = None
        if self.tables:
            tables = join_tables(self.truth, cells, self.outcomes.num_cells, self.outcomes.boxes)
        return MatchRecords(
            self.protocol,
            tuple(ImageKey(set_name, image_id) for image_id in self.truth.ids),
            self.truth.entries["height"].astype(np.int64) * self.truth.entries["width"],
            self.counts,
            self.outcomes.num_empty,
            self.offsets[1],
            self.offsets[2],
            *self.outcomes.columns,
            self.truths.sizes,
            tables,
        )
