"""Which images make up each step: pre-sampled epochs, shuffled, by seed alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from entitybench.baselines.settings import Data


class Draw(NamedTuple):
    """One image of a step.

    Attributes:
        image: Its number in the collection.
        epoch: From 0.
    """

    image: int
    epoch: int


def shares(set_sizes: Sequence[int], balance: str, budget: int) -> list[int]:
    """Return how many images of each set an epoch holds.

    Args:
        set_sizes: Images of each set.
        balance: `size` keeps their proportions, `equal` gives all the same.
        budget: Images of an epoch; 0 takes as many as there are. Rounding goes to the first sets.

    >>> shares([118_287, 20_210], "size", 138_497), shares([118_287], "size", 138_497)
    ([118287, 20210], [138497])
    >>> shares([10, 30], "equal", 0)
    [20, 20]
    """
    total = budget or sum(set_sizes)
    weights = list(set_sizes) if balance == "size" else [1] * len(set_sizes)
    exact = [total * weight / sum(weights) for weight in weights]
    counts = [int(value) for value in exact]
    for place in range(total - sum(counts)):
        counts[place] += 1
    return counts


@dataclass(slots=True)
class Epochs:
    """An endless sequence of steps.

    The images of an epoch are drawn once, by the seed: each set gives whole copies of itself and
    a random rest, to the size of its share. Every epoch shuffles them anew. Images that do not
    fill a last batch are left out of that epoch.

    Attributes:
        set_sizes: Images of each set, in the collection's order.
        upright: `(N,)` bool: which images are taller than wide.
        batch: Images of a step.
        data: Balance, budget and grouping.
        seed: Any non-negative integer.
        steps_per_epoch: How many.
    """

    set_sizes: Sequence[int]
    upright: NDArray[np.bool_]
    batch: int
    data: Data
    seed: int
    _pool: NDArray[np.int64] = field(init=False)
    _epoch: int = field(init=False, default=-1)
    _steps: list[NDArray[np.int64]] = field(init=False, default_factory=list)
    steps_per_epoch: int = field(init=False)

    def __post_init__(self) -> None:
        self._pool = self._drawn()
        self.steps_per_epoch = len(self._of(0))  # the same in every epoch

    def _drawn(self) -> NDArray[np.int64]:
        rng = np.random.default_rng([self.seed, 0])
        counts = shares(self.set_sizes, self.data.balance, self.data.budget)
        if sum(counts) < self.batch:  # a handful of images still makes a whole batch
            counts = shares(self.set_sizes, self.data.balance, self.batch)
        pool, first = [], 0
        for size, count in zip(self.set_sizes, counts, strict=True):
            copies, rest = divmod(count, size) if size else (0, 0)
            pool += [np.arange(size)] * copies + [np.sort(rng.permutation(size)[:rest])]
            pool[-copies - 1 :] = [part + first for part in pool[-copies - 1 :]]
            first += size
        return np.concatenate(pool).astype(np.int64)

    def step(self, number: int) -> list[Draw]:
        """Return the images of a step, from 0."""
        epoch, place = divmod(number, self.steps_per_epoch)
        return [Draw(int(image), epoch) for image in self._of(epoch)[place]]

    def _of(self, epoch: int) -> list[NDArray[np.int64]]:
        if epoch != self._epoch:
            order = np.random.default_rng([self.seed, 1, epoch]).permutation(self._pool)
            self._epoch, self._steps = epoch, self._batches(order)
        return self._steps

    def _batches(self, order: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """Cut an order into batches; where grouped, each takes the next images of one kind.

        The number of batches is that of images over batch size in every epoch: leftovers of the
        two orientations are mixed.
        """
        if not self.data.group:
            return [order[i : i + self.batch] for i in range(0, self._whole(order), self.batch)]
        kinds = self.upright[order]
        batches, leftovers, ends = [], [], []
        for kind in (False, True):
            places = np.flatnonzero(kinds == kind)
            whole = self._whole(places)
            for i in range(0, whole, self.batch):
                batches.append(order[places[i : i + self.batch]])
                ends.append(int(places[i + self.batch - 1]))
            leftovers.append(order[places[whole:]])
        mixed = np.concatenate(leftovers)
        ordered = [batches[i] for i in np.argsort(ends)]
        return ordered + [
            mixed[i : i + self.batch] for i in range(0, self._whole(mixed), self.batch)
        ]

    def _whole(self, items: NDArray[np.int64]) -> int:
        return len(items) // self.batch * self.batch
