"""Spoiling an entity map in known ways.

Truth with entities merged, split, dropped and shifted is a prediction whose faults are known:
it tests an evaluator, shows what a score means, and stands in for a model where none is at
hand.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from entitybench.entity_map import EntityMap

Ids = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Perturbation:
    """How much of what is done.

    Attributes:
        merge: Share of the entities that swallow a neighbour.
        split: Share that are cut in two.
        drop: Share that vanish.
        shift: Greatest displacement of the whole map, in pixels, each way.
        noise: Deviation of the scores about the IoU with the truth.
    """

    merge: float = 0.1
    split: float = 0.1
    drop: float = 0.1
    shift: int = 2
    noise: float = 0.1


def perturb(
    truth: EntityMap, rng: np.random.Generator, how: Perturbation
) -> tuple[EntityMap, NDArray[np.float64]]:
    """Spoil a map and score each entity by its best IoU with the truth, with noise.

    Crowds are dropped first, as a prediction has none.

    Returns:
        The spoiled map, and `(N,)` scores in [0, 1].
    """
    original = truth.to_array()
    original[original > truth.num_entities] = 0
    ids = original.copy()
    for entity in _some(truth, rng, how.merge):
        merge(ids, entity)
    for entity in _some(truth, rng, how.split):
        split(ids, entity)
    for entity in _some(truth, rng, how.drop):
        ids[ids == entity] = 0
    down, right = rng.integers(-how.shift, how.shift + 1, 2)
    spoiled = EntityMap.from_array(shifted(ids, int(down), int(right)))
    scores = _best_ious(original, spoiled) + rng.normal(0, how.noise, spoiled.num_entities)
    return spoiled, np.clip(scores, 0, 1)


def _some(truth: EntityMap, rng: np.random.Generator, share: float) -> NDArray[np.int64]:
    return np.flatnonzero(rng.random(truth.num_entities) < share) + 1


def merge(ids: Ids, entity: int) -> None:
    """Give the pixels of the entity's greatest neighbour to it, in place."""
    mine = ids == entity
    near = np.zeros_like(mine)
    near[1:] |= mine[:-1]
    near[:-1] |= mine[1:]
    near[:, 1:] |= mine[:, :-1]
    near[:, :-1] |= mine[:, 1:]
    counts = np.bincount(ids[near & ~mine & (ids > 0)])
    if counts.size:
        ids[ids == counts.argmax()] = entity


def split(ids: Ids, entity: int) -> None:
    """Cut the entity at the middle of its longer side, in place; a single pixel stays whole."""
    rows, columns = np.nonzero(ids == entity)
    if rows.size < 2:
        return
    along = rows if np.ptp(rows) >= np.ptp(columns) else columns
    behind = along > np.median(along) if along.max() > np.median(along) else along == along.max()
    ids[rows[behind], columns[behind]] = ids.max() + 1


def shifted(ids: Ids, down: int, right: int) -> Ids:
    """Return the map moved by whole pixels; what comes in from outside is void."""
    moved = np.zeros_like(ids)
    height, width = ids.shape
    moved[max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)] = ids[
        max(-down, 0) : height + min(-down, 0), max(-right, 0) : width + min(-right, 0)
    ]
    return moved


def _best_ious(original: Ids, spoiled: EntityMap) -> NDArray[np.float64]:
    predicted = spoiled.to_array()
    columns = spoiled.num_entities + 1
    table = np.bincount(
        (original.astype(np.int64) * columns + predicted).ravel(),
        minlength=(int(original.max()) + 1) * columns,
    ).reshape(-1, columns)
    shared = table[1:, 1:]
    union = table.sum(axis=1)[1:, None] + table.sum(axis=0)[None, 1:] - shared
    best: NDArray[np.float64] = (shared / np.maximum(union, 1)).max(axis=0, initial=0.0)
    return best
