"""AP before flattening: masks that still overlap against a truth that does not.

Its distance to AP_e is what zero tolerance to overlap costs a model (the paper's section 3).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from entitybench.candidates import Candidates
from entitybench.entity_map import EntityMap, find_runs
from entitybench.errors import FormatError
from entitybench.metrics.contingency import Contingency
from entitybench.metrics.matching import ImageMatches, match
from entitybench.metrics.protocol import Protocol
from entitybench.metrics.ragged import rows_of


def mask_contingency(truth: EntityMap, candidates: Candidates) -> Contingency:
    """Count the pixels that each true id shares with each mask; masks may share pixels.

    Args:
        truth: N entities and C crowds.
        candidates: P masks; mask k is the predicted id k + 1.

    Returns:
        Cells of true ids and masks. What no mask covers is in no cell: `num_pixels` and the
        area of the predicted void mean nothing. True areas are those of the truth.

    Raises:
        FormatError: Truth and masks differ in size.

    >>> truth = EntityMap.from_array([[1, 1, 2]])
    >>> masks = Candidates.from_masks([[[1, 1, 1]], [[0, 1, 1]]], [0.9, 0.8])
    >>> mask_contingency(truth, masks).to_array()
    array([[0, 0, 0],
           [0, 2, 1],
           [0, 1, 1]])
    """
    if truth.shape != candidates.shape:
        (height, width), (rows, columns) = truth.shape, candidates.shape
        msg = f"the prediction has {columns}×{rows} pixels, the truth has {width}×{height}"
        raise FormatError(msg)
    starts, ids = _runs(truth, column_major=candidates.column_major)
    ends = np.append(starts[1:], truth.shape[0] * truth.shape[1])
    first = np.searchsorted(starts, candidates.starts, side="right") - 1
    last = np.searchsorted(starts, candidates.ends, side="left")
    owner = np.repeat(np.arange(len(first)), last - first)
    run = rows_of(first, last)
    pixels = np.minimum(ends[run], candidates.ends[owner])
    pixels -= np.maximum(starts[run], candidates.starts[owner])
    columns = len(candidates) + 1
    keys = ids[run] * columns + candidates.owners[owner] + 1
    cells, place = np.unique(keys, return_inverse=True)
    true_ids, numbers = np.divmod(cells, columns)
    return Contingency(
        true_ids,
        numbers,
        np.bincount(place, pixels, len(cells)).astype(np.int64),
        truth.areas,
        np.concatenate(([0], candidates.areas)),
        truth.num_crowds,
    )


def match_overlapping(
    truth: EntityMap, candidates: Candidates, sizes: NDArray[np.float64], protocol: Protocol
) -> ImageMatches:
    """Match masks of one image as they are.

    Raises:
        FormatError: Truth and masks differ in size.
    """
    table = mask_contingency(truth, candidates)
    matches = match(table, candidates.scores, sizes, protocol)
    return replace(matches, num_pixels=truth.shape[0] * truth.shape[1])


def _runs(truth: EntityMap, *, column_major: bool) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return starts and ids of the truth's runs, down the columns where asked."""
    if not column_major:
        return truth.starts.astype(np.int64), truth.ids.astype(np.int64)
    flat = np.ascontiguousarray(truth.to_array().T).ravel()
    starts = find_runs(flat)
    return starts, flat[starts].astype(np.int64)
