"""Contingency tables of all images from the cells that the compiled kernel writes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from entitybench.compiled_truth import CompiledTruth
from entitybench.metrics.ragged import offsets_of
from entitybench.metrics.tables import UNKNOWN, Tables


def join_tables(
    truth: CompiledTruth,
    cells: Sequence[NDArray[np.int32]],
    num_cells: NDArray[np.int64],
    boxes: NDArray[np.int32],
) -> Tables:
    """Join the cells of I images, in their order.

    Args:
        truth: The images.
        cells: `(3, L)` true id, predicted id and pixels, piece after piece.
        num_cells: `(I,)` how many each image has; 0 where its table means nothing.
        boxes: `(D, 4)` of the ranked predictions.

    Returns:
        Tables in the order of the truth; origins are unknown.
    """
    is_entity = truth.is_entity
    is_crowd = ~is_entity
    is_crowd[truth.entries["first_id"]] = False
    true_boxes = truth.boxes.astype(np.int32)
    none = np.zeros((3, 0), dtype=np.int32)
    ids, predicted, pixels = np.concatenate([none, *cells], axis=1)
    return Tables(
        offsets_of(num_cells),
        offsets_of(truth.entries["num_crowds"].astype(np.int64)),
        ids,
        predicted,
        pixels,
        true_boxes[is_entity],
        true_boxes[is_crowd],
        boxes,
        np.full(np.count_nonzero(is_entity), UNKNOWN, dtype=np.int8),
    )
