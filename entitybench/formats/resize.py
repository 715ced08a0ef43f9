"""Masks enlarged to the size of their image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Axis:
    """Bilinear interpolation between the centres of pixels, along one axis.

    The same as torch's `interpolate(mode="bilinear", align_corners=False)` but for rounding.

    Attributes:
        low: `(n,)` int64 source pixel before each place.
        high: `(n,)` int64 source pixel behind it.
        share: `(n,)` float32 weight of the latter.
    """

    low: NDArray[np.int64]
    high: NDArray[np.int64]
    share: NDArray[np.float32]

    @classmethod
    def between(cls, old: int, new: int) -> Axis:
        """Resize `old` pixels to `new` ones."""
        place = np.clip((np.arange(new) + 0.5) * (old / new) - 0.5, 0, None)
        low = np.minimum(place.astype(np.int64), old - 1)
        return cls(low, np.minimum(low + 1, old - 1), (place - low).astype(np.float32))

    def reached_by(self, sources: NDArray[np.intp]) -> slice:
        """Return the places between the first and the last that some sources have a part in."""
        first = int(np.searchsorted(self.high, sources[0], side="left"))
        return slice(first, int(np.searchsorted(self.low, sources[-1], side="right")))


def enlarge(mask: NDArray[np.float32], rows: Axis, columns: Axis) -> NDArray[np.float32]:
    """Resize one map.

    Args:
        mask: `(h, w)` float32.
        rows: From h to H.
        columns: From w to W.

    Returns:
        `(H, W)` float32.

    >>> rows, columns = Axis.between(1, 1), Axis.between(2, 4)
    >>> enlarge(np.array([[0.0, 4.0]], np.float32), rows, columns)
    array([[0., 1., 3., 4.]], dtype=float32)
    """
    upper, lower = mask[rows.low], mask[rows.high]
    tall = upper + (lower - upper) * rows.share[:, None]
    left, right = np.take(tall, columns.low, 1), np.take(tall, columns.high, 1)
    wide: NDArray[np.float32] = left + (right - left) * columns.share
    return wide


def enlarge_positive(
    mask: NDArray[np.float32], rows: Axis, columns: Axis
) -> tuple[slice, slice, NDArray[np.float32]]:
    """Resize the part of one map outside of which nothing is above 0.

    Args:
        mask: `(h, w)` float32.
        rows: From h to H.
        columns: From w to W.

    Returns:
        Rows and columns of the part, and its values as `enlarge` has them.
    """
    positive = mask > 0
    tall, wide = np.flatnonzero(positive.any(axis=1)), np.flatnonzero(positive.any(axis=0))
    if tall.size == 0:
        return slice(0, 0), slice(0, 0), np.zeros((0, 0), dtype=np.float32)
    down, across = rows.reached_by(tall), columns.reached_by(wide)
    return down, across, enlarge(mask, _part(rows, down), _part(columns, across))


def _part(axis: Axis, places: slice) -> Axis:
    return Axis(axis.low[places], axis.high[places], axis.share[places])
