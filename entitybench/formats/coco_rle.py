"""An entity map as COCO run-length texts, one per entity."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from entitybench.entity_map import EntityMap
from entitybench.rle import encode_many


def encode_map(entity_map: EntityMap) -> list[str]:
    """Return the compressed `counts` of every entity and crowd.

    The map is turned to COCO's column-major order once and read in one pass, whatever the
    number of entities; no mask is drawn.

    Returns:
        N + C texts, of the ids `1…N+C`; an id without a pixel has the text of an empty mask.

    >>> encode_map(EntityMap.from_array([[1, 1, 2], [0, 2, 2]]))
    ['01102', '33']
    """
    pixels = entity_map.shape[0] * entity_map.shape[1]
    columns = np.ascontiguousarray(entity_map.to_array().T).ravel()
    starts = np.concatenate(([0], np.flatnonzero(columns[1:] != columns[:-1]) + 1))
    ends = np.append(starts[1:], pixels)
    ids = columns[starts]
    order = np.argsort(ids, kind="stable")
    order = order[np.count_nonzero(ids == 0) :]
    counts, offsets = _counts(ids[order], starts[order], ends[order], entity_map.num_ids, pixels)
    return encode_many(counts, offsets)


def _counts(
    ids: NDArray[np.int32],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    num_ids: int,
    pixels: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the run counts of all ids, and where those of each id begin.

    Each run gives two counts: the gap before it, and its length. What is left behind the last
    run is one count more, unless nothing is.
    """
    runs = np.bincount(ids, minlength=num_ids + 1)[1:]
    last_end = np.zeros(num_ids + 1, dtype=np.int64)
    heads, tails = np.flatnonzero(np.diff(ids, prepend=0)), np.flatnonzero(np.diff(ids, append=0))
    last_end[ids[tails]] = ends[tails]
    rest = pixels - last_end[1:]
    offsets = np.concatenate(([0], np.cumsum(2 * runs + (rest > 0))))
    previous = np.empty_like(ends)
    previous[1:] = ends[:-1]
    previous[heads] = 0
    counts = np.empty(offsets[-1], dtype=np.int64)
    first = np.cumsum(2 * runs) - 2 * runs  # of each id, if there were no rests
    place = 2 * np.arange(ids.size) + (offsets[:-1] - first)[ids - 1]
    counts[place] = starts - previous
    counts[place + 1] = ends - starts
    has_rest = rest > 0
    counts[offsets[1:][has_rest] - 1] = rest[has_rest]
    return counts, offsets
