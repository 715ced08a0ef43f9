"""Batches in the order of their steps, read ahead by threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from entitybench.baselines.augmentation import HostBatch, stack
from entitybench.baselines.placement import Placement, canvas_for, draw_placement
from entitybench.baselines.sampling import Draw, Epochs
from entitybench.baselines.settings import Data
from entitybench.baselines.source import Collection, Decoded

_AHEAD = 3  # steps that are read before they are wanted


@dataclass(frozen=True, slots=True)
class _Plan:
    """What a step consists of, before anything is read."""

    step: int
    draws: list[Draw]
    placements: list[Placement]
    canvas: tuple[int, int]
    slots: int


class Loader:
    """Makes this process's part of every step.

    A step is the same whoever makes it: the canvas, the slots and all that is drawn at random
    are those of the whole batch, and each process reads its share of the images.

    Args:
        collection: The images.
        data: How they are placed.
        batch: Images of a step, over all processes.
        seed: Any non-negative integer.
        divisor: Sides of the canvas are multiples of it.
        process: Which process this is, and of how many.
        threads: Readers.
    """

    def __init__(
        self,
        collection: Collection,
        data: Data,
        *,
        batch: int,
        seed: int,
        divisor: int,
        process: tuple[int, int] = (0, 1),
        threads: int = 1,
    ) -> None:
        self._collection = collection
        self._data = data
        self._seed = seed
        self._divisor = max(divisor, data.divisor)
        self._process = process
        self._threads = threads
        upright = np.array([image.size[0] > image.size[1] for image in collection.images])
        self.epochs = Epochs(collection.set_sizes, upright, batch, data, seed)

    def image_ids(self, step: int) -> list[str]:
        """Name the images of a whole step."""
        images = (self._collection.images[draw.image] for draw in self.epochs.step(step))
        return [f"{self._collection.sets[i.set_number].header.name}/{i.image_id}" for i in images]

    def step(self, number: int) -> HostBatch:
        """Make one step's batch, now."""
        return next(self.steps(number, number + 1))

    def steps(self, first: int, last: int) -> Iterator[HostBatch]:
        """Yield the batches of steps first…last - 1."""
        with ThreadPoolExecutor(self._threads) as threads:
            waiting: deque[tuple[_Plan, list[Future[Decoded]]]] = deque()
            try:
                for number in range(first, last):
                    waiting.append(self._begin(number, threads))
                    if len(waiting) > _AHEAD:
                        yield self._finish(*waiting.popleft())
                while waiting:
                    yield self._finish(*waiting.popleft())
            finally:
                for _, futures in waiting:
                    for future in futures:
                        future.cancel()

    def _begin(
        self, number: int, threads: ThreadPoolExecutor
    ) -> tuple[_Plan, list[Future[Decoded]]]:
        plan = self._plan(number)
        futures = []
        for draw, placement in self._own(plan):
            entry = self._collection.entry(draw.image)
            futures.append(
                threads.submit(self._collection.decode, draw.image, entry, placement.resized)
            )
        return plan, futures

    def _plan(self, number: int) -> _Plan:
        draws = self.epochs.step(number)
        images = [self._collection.images[draw.image] for draw in draws]
        placements = [
            # the place in the batch tells copies of one image in one step apart
            draw_placement(image.size, self._data, [self._seed, 2, number, place])
            for place, image in enumerate(images)
        ]
        canvas = canvas_for(placements, self._data, self._divisor)
        slots = max(1, *(image.num_entities for image in images))
        return _Plan(number, draws, placements, canvas, slots)

    def _own(self, plan: _Plan) -> list[tuple[Draw, Placement]]:
        rank, count = self._process
        share = len(plan.draws) // count
        own = slice(rank * share, (rank + 1) * share)
        return list(zip(plan.draws[own], plan.placements[own], strict=True))

    def _finish(self, plan: _Plan, futures: list[Future[Decoded]]) -> HostBatch:
        placements = [placement for _, placement in self._own(plan)]
        decoded = [future.result() for future in futures]
        return stack(decoded, placements, plan.canvas, plan.slots)
