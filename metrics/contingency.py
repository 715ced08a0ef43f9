"""Which pixels each true id shares with each predicted id of one image.

Everything that a metric asks about two entity maps (intersections, areas, unions) is read off
this one table, which costs time in proportion to the runs of the maps, not to their pixels and
not to the number of pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from entitybench import kernel
from entitybench.entity_map import EntityMap
from entitybench.errors import FormatError

# Up to this many cells a histogram is faster than sorting (2 MiB: it stays in the cache).
_MAX_DENSE_CELLS = 1 << 18


@dataclass(frozen=True, slots=True, eq=False)
class Contingency:
    """Pixel counts of (true id, predicted id), the empty cells left out.

    Only cells that hold a pixel are kept: an image with 70,000 entities on either side has no
    more of them than runs.

    Attributes:
        truth: `(K,)` int64 true id of each cell in `0…N+C`; 0 is void.
        prediction: `(K,)` int64 predicted id in `0…P`; 0 is void. Cells ascend by
            (truth, prediction) and do not repeat.
        pixels: `(K,)` int64 pixels of each cell, at least 1.
        truth_areas: `(N + C + 1,)` int64 pixels of each true id.
        prediction_areas: `(P + 1,)` int64 pixels of each predicted id.
        num_crowds: C; the last C true ids are crowds.
    """

    truth: NDArray[np.int64]
    prediction: NDArray[np.int64]
    pixels: NDArray[np.int64]
    truth_areas: NDArray[np.int64]
    prediction_areas: NDArray[np.int64]
    num_crowds: int

    @property
    def num_entities(self) -> int:
        """N, the true entities."""
        return len(self.truth_areas) - 1 - self.num_crowds

    @property
    def num_predicted(self) -> int:
        """P, the predicted entities."""
        return len(self.prediction_areas) - 1

    @property
    def num_pixels(self) -> int:
        """Pixels of the image."""
        return int(self.pixels.sum())

    def iou(self, truth: NDArray[np.int64], prediction: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the IoU of pairs of ids; those of no pixel at all have 0."""
        columns = len(self.prediction_areas)
        cells, wanted = self.truth * columns + self.prediction, truth * columns + prediction
        place = np.searchsorted(cells, wanted)
        found = np.append(cells, -1)[place] == wanted
        shared = np.where(found, np.append(self.pixels, 0)[place], 0)
        union = self.truth_areas[truth] + self.prediction_areas[prediction] - shared
        quotients: NDArray[np.float64] = shared / np.maximum(union, 1)
        return quotients

    def to_array(self) -> NDArray[np.int64]:
        """Return the dense `(N + C + 1, P + 1)` int64 table; row and column 0 are void."""
        table = np.zeros((len(self.truth_areas), len(self.prediction_areas)), dtype=np.int64)
        table[self.truth, self.prediction] = self.pixels
        return table


def contingency(truth: EntityMap, prediction: EntityMap) -> Contingency:
    """Count the pixels that each true id shares with each predicted one.

    Args:
        truth: N entities and C crowds.
        prediction: P entities. Crowds in a prediction (truth given as a prediction has them)
            claim nothing: they count as void.

    Raises:
        FormatError: The maps differ in size.

    >>> truth = EntityMap.from_array([[1, 1, 2]])
    >>> contingency(truth, EntityMap.from_array([[1, 0, 2]])).to_array()
    array([[0, 0, 0],
           [1, 1, 0],
           [0, 0, 1]])
    """
    check_sizes(truth, prediction)
    rows, cols, pixels = _cells(truth, prediction)
    return Contingency(
        rows,
        cols,
        pixels,
        _totals(rows, pixels, truth.num_ids + 1),
        _totals(cols, pixels, prediction.num_entities + 1),
        truth.num_crowds,
    )


def _cells(
    truth: EntityMap, prediction: EntityMap
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return true id, predicted id and pixels of every cell that holds a pixel."""
    if kernel.is_active():
        return kernel.contingency(
            (truth.starts, truth.ids),
            (prediction.starts, prediction.ids),
            truth.shape[0] * truth.shape[1],
            truth.num_ids,
            prediction.num_entities,
        )
    true_ids, predicted_ids, lengths = _shared_runs(truth, prediction)
    predicted_ids[predicted_ids > prediction.num_entities] = 0
    columns = prediction.num_entities + 1
    cells, pixels = _sum_by_cell(
        true_ids * columns + predicted_ids, lengths, (truth.num_ids + 1) * columns
    )
    rows, cols = np.divmod(cells, columns)
    return rows, cols, pixels


def check_sizes(truth: EntityMap, prediction: EntityMap) -> None:
    """Raise `FormatError` unless both maps have the same height and width."""
    if truth.shape != prediction.shape:
        (height, width), (rows, columns) = truth.shape, prediction.shape
        msg = f"the prediction has {columns}×{rows} pixels, the truth has {width}×{height}"
        raise FormatError(
            msg, hint="predict at the size of the ground truth, or resize the map by nearest id"
        )


def _shared_runs(
    truth: EntityMap, prediction: EntityMap
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Cut the image wherever either map changes: true id, predicted id and length of each piece.

    Where both change at one pixel a piece of length 0 remains; it counts nothing.
    """
    starts = np.concatenate((truth.starts, prediction.starts))
    order = np.argsort(starts, kind="stable")  # merges two sorted halves, hence linear
    from_truth = order < truth.starts.size
    true_run = np.cumsum(from_truth) - 1
    # Both maps begin at pixel 0 and truth is sorted first: -1 stands there for no pixels at all.
    predicted_run = np.maximum(np.arange(order.size) - true_run - 1, 0)
    lengths = np.diff(starts[order], append=truth.shape[0] * truth.shape[1]).astype(np.int64)
    return (
        truth.ids[true_run].astype(np.int64),
        prediction.ids[predicted_run].astype(np.int64),
        lengths,
    )


def _sum_by_cell(
    keys: NDArray[np.int64], lengths: NDArray[np.int64], num_cells: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the cells that hold pixels, ascending, and their pixels.

    The sums run in float64, which is exact: an image has fewer than 2**31 pixels.
    """
    if num_cells <= _MAX_DENSE_CELLS:
        counts = np.bincount(keys, weights=lengths)
        cells = np.flatnonzero(counts)
        return cells, counts[cells].astype(np.int64)
    cells, place = np.unique(keys, return_inverse=True)
    pixels = np.bincount(place, weights=lengths).astype(np.int64)
    held = pixels > 0
    return cells[held], pixels[held]


def _totals(ids: NDArray[np.int64], pixels: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    return np.bincount(ids, weights=pixels, minlength=size).astype(np.int64)
