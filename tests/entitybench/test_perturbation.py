"""Spoiled maps are spoiled as they should be."""

from __future__ import annotations

import numpy as np
import pytest

from entitybench.entity_map import EntityMap
from entitybench.perturbation import Perturbation, merge, perturb, shifted, split


def grid(text: str) -> np.ndarray[tuple[int, int], np.dtype[np.int32]]:
    rows = [[int(c) if c != "." else 0 for c in line.split()] for line in text.split("\n")]
    return np.array(rows, dtype=np.int32)


def test_merge_swallows_the_neighbour_with_the_longest_border() -> None:
    ids = grid("1 1 2\n1 1 2\n3 . 2")
    merge(ids, 1)
    assert ids.tolist() == grid("1 1 1\n1 1 1\n3 . 1").tolist()
    alone = grid("1 . 2")
    merge(alone, 1)
    assert alone.tolist() == [[1, 0, 2]]


def test_split_cuts_the_longer_side() -> None:
    ids = grid("1 1 1 1\n2 . . .")
    split(ids, 1)
    assert ids.tolist() == grid("1 1 3 3\n2 . . .").tolist()
    split(ids, 2)
    assert ids.max() == 3


def test_shift_brings_in_void() -> None:
    assert shifted(grid("1 2\n3 4"), 1, 0).tolist() == [[0, 0], [1, 2]]
    assert shifted(grid("1 2\n3 4"), 0, -1).tolist() == [[2, 0], [4, 0]]


def test_nothing_spoiled_is_the_truth_with_a_perfect_score() -> None:
    truth = EntityMap.from_array([[5, 5, 7], [0, 9, 9]], entities=[5, 7], crowds=[9])
    spoiled, scores = perturb(truth, np.random.default_rng(0), Perturbation(0, 0, 0, 0, 0))
    assert spoiled.to_array().tolist() == [[1, 1, 2], [0, 0, 0]]
    assert scores.tolist() == [1, 1]


@pytest.mark.parametrize("seed", range(5))
def test_scores_stay_in_range_and_the_seed_decides(seed: int) -> None:
    ids = np.random.default_rng(seed).integers(0, 9, (12, 17))
    truth = EntityMap.from_array(ids)
    how = Perturbation(0.5, 0.5, 0.5, 3, 1.0)
    one, scores = perturb(truth, np.random.default_rng(seed), how)
    two, again = perturb(truth, np.random.default_rng(seed), how)
    assert one == two
    assert scores.tolist() == again.tolist()
    assert scores.shape == (one.num_entities,)
    assert ((scores >= 0) & (scores <= 1)).all()


def test_everything_dropped_leaves_nothing() -> None:
    truth = EntityMap.from_array([[1, 2]])
    spoiled, scores = perturb(truth, np.random.default_rng(0), Perturbation(0, 0, 1, 0, 0))
    assert spoiled.num_entities == 0
    assert scores.shape == (0,)
