"""Columns that hold a varying number of rows for each image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def offsets_of(counts: Sequence[int] | NDArray[np.integer]) -> NDArray[np.int64]:
    """Return where each image's rows begin, and where the last ones end.

    >>> offsets_of([2, 0, 3])
    array([0, 2, 2, 5])
    """
    offsets = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=offsets[1:])
    return offsets


def rows_of(starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the rows of several stretches, one stretch after the other.

    >>> rows_of(np.array([7, 0]), np.array([9, 2]))
    array([7, 8, 0, 1])
    """
    lengths = ends - starts
    shift = np.repeat(starts - (np.cumsum(lengths) - lengths), lengths)
    rows: NDArray[np.int64] = shift + np.arange(len(shift))
    return rows


def images_of(offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the image of each row.

    >>> images_of(np.array([0, 2, 2, 5]))
    array([0, 0, 2, 2, 2])
    """
    return np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
