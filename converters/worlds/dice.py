"""Random choices that give the same result everywhere.

Only the uniform stream of PCG64 is used: the normal, integer and shuffle methods of NumPy
may change between releases, and logarithms differ in the last bit between platforms.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")


class Dice:
    """One stream of random choices.

    Args:
        key: Non-negative integers; equal keys give equal streams, others independent ones.

    >>> Dice(1, 2).whole(0, 9) == Dice(1, 2).whole(0, 9)
    True
    """

    __slots__ = ("_draw", "_generator")

    def __init__(self, *key: int) -> None:
        self._generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))
        self._draw = self._generator.random

    def between(self, low: float, high: float) -> float:
        """Return a number in [low, high)."""
        return low + (high - low) * self._draw()

    def whole(self, low: int, high: int) -> int:
        """Return an integer in low…high, both included."""
        return low + int(self._draw() * (high - low + 1))

    def chance(self, probability: float) -> bool:
        """Return True with this probability."""
        return self._draw() < probability

    def sign(self) -> int:
        """Return -1 or 1."""
        return 1 if self._draw() < 0.5 else -1

    def pick(self, options: Sequence[T]) -> T:
        """Return one of the options."""
        return options[int(self._draw() * len(options))]

    def weighted(self, options: Sequence[tuple[T, float]]) -> T:
        """Return one of the options, each with its weight."""
        left = self._draw() * sum(weight for _, weight in options)
        for option, weight in options:
            left -= weight
            if left < 0:
                return option
        return options[-1][0]

    def shuffled(self, options: Sequence[T]) -> list[T]:
        """Return the options in random order."""
        keys = self._generator.random(len(options))
        return [options[i] for i in np.argsort(keys, kind="stable")]

    def uniform(self, *shape: int) -> NDArray[np.float64]:
        """Return an array of numbers in [0, 1)."""
        return self._generator.random(shape)
