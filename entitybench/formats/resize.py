"""Masks enlarged to the size of their image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def resize_bilinear(stack: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.float32]:
    """Resize maps by bilinear interpolation between the centres of pixels.

    The same as torch's `interpolate(mode="bilinear", align_corners=False)` but for rounding.

    Args:
        stack: `(K, h, w)` float32.
        shape: Height and width of the result.

    Returns:
        `(K, H, W)` float32.

    >>> resize_bilinear(np.array([[[0.0, 4.0]]], np.float32), (1, 4))
    array([[[0., 1., 3., 4.]]], dtype=float32)
    """
    return _along(_along(stack, 1, shape[0]), 2, shape[1])


def _along(stack: NDArray[np.float32], axis: int, size: int) -> NDArray[np.float32]:
    old = stack.shape[axis]
    if old == size:
        return stack
    place = np.clip((np.arange(size) + 0.5) * (old / size) - 0.5, 0, None)
    low = np.minimum(place.astype(np.int64), old - 1)
    high = np.minimum(low + 1, old - 1)
    share = (place - low).astype(np.float32).reshape([-1 if n == axis else 1 for n in range(3)])
    below, above = np.take(stack, low, axis), np.take(stack, high, axis)
    result: NDArray[np.float32] = below + (above - below) * share
    return result
