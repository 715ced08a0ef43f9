"""Contingency tables of COCO results by the compiled kernel, with no map in between."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from entitybench import kernel
from entitybench.compiled_truth import CompiledTruth, Masks
from entitybench.errors import FormatError
from entitybench.mapped_memory import release
from entitybench.metrics.ragged import images_of, offsets_of
from entitybench.metrics.tables import UNKNOWN, Tables

_IMAGES_AT_ONCE = 512
_CELLS_AT_ONCE = 1 << 17


class MaskFaultError(FormatError):
    """A mask of the predictions cannot be read; the careful reader tells which and why."""


def table_masks(truth: CompiledTruth, masks: Masks, ranked: NDArray[np.int64]) -> Tables:
    """Tabulate disjoint masks against compiled truth.

    Args:
        truth: I images, by columns.
        masks: The predictions of each image, in the same order of images. Where those of one
            image overlap, its table means nothing.
        ranked: `(D,)` masks that take part, as rows of `masks`.

    Returns:
        Tables in the order of the truth; origins are unknown.

    Raises:
        MaskFaultError: A mask is damaged.
        DamagedTruthError: The compiled truth is damaged.
    """
    counts = np.zeros(len(truth), dtype=np.int64)
    boxes = np.zeros((len(masks.scores), 4), dtype=np.int64)
    parts = list(_cells(truth, masks, counts, boxes))
    cells = np.concatenate([np.zeros((0, 3), dtype=np.int32), *parts])
    image = images_of(offsets_of(counts))
    cells, image = _with_unclaimed(truth, cells, image)
    order = np.lexsort((cells[:, 0], cells[:, 1], image))
    is_entity = truth.is_entity
    is_crowd = ~is_entity
    is_crowd[truth.entries["first_id"]] = False
    true_boxes = truth.boxes.astype(np.int32)
    return Tables(
        offsets_of(np.bincount(image, minlength=len(truth))),
        offsets_of(truth.entries["num_crowds"].astype(np.int64)),
        cells[order, 1],
        cells[order, 0],
        cells[order, 2],
        true_boxes[is_entity],
        true_boxes[is_crowd],
        boxes[ranked].astype(np.int32),
        np.full(np.count_nonzero(is_entity), UNKNOWN, dtype=np.int8),
    )


def _cells(
    truth: CompiledTruth, masks: Masks, counts: NDArray[np.int64], boxes: NDArray[np.int64]
) -> Iterator[NDArray[np.int32]]:
    """Yield `(L, 3)` cells (mask of the image from 1, true id, pixels), image after image."""
    sizes = np.zeros(0)
    tables = truth.packed, truth.entries, truth.areas, sizes
    cells = np.empty((_CELLS_AT_ONCE, 3), dtype=np.int32)
    begin = 0
    while begin < len(truth):
        images = begin, min(begin + _IMAGES_AT_ONCE, len(truth))
        status, reached, mask, used = kernel.table_rle(
            masks.buffers, tables, masks.image_offsets, (cells, counts, boxes), images
        )
        if status == kernel.MAP_DAMAGED and mask < 0:
            raise truth.damaged(truth.ids[reached])
        if status:
            raise MaskFaultError(kernel.refusal(status).what)
        yield cells[:used].copy()
        release(masks.text, 0, len(masks.text))
        truth.release()
        if reached == begin:
            cells = np.empty((2 * len(cells), 3), dtype=np.int32)
        begin = reached


def _with_unclaimed(
    truth: CompiledTruth, cells: NDArray[np.int32], image: NDArray[np.int64]
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Add the pixels of entities and crowds that no mask covers."""
    first = truth.entries["first_id"].astype(np.int64)
    covered = np.bincount(first[image] + cells[:, 1], cells[:, 2], len(truth.areas))
    left = truth.areas - covered.astype(np.int64)
    left[first] = 0  # nobody asks how much void is left
    ids = np.flatnonzero(left > 0)
    owners = np.searchsorted(first, ids, side="right") - 1
    bare = np.stack([np.zeros(len(ids), dtype=np.int64), ids - first[owners], left[ids]], axis=1)
    return np.concatenate([cells, bare.astype(np.int32)]), np.concatenate([image, owners])
