from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from entitybench.entity_map import EntityMap
from entitybench.errors import FormatError
from entitybench.metrics import contingency

Draw = Callable[..., EntityMap]
RELAXED = settings(deadline=None)  # a busy machine is no failure


def _maps(most: int) -> st.SearchStrategy[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    shapes = st.tuples(st.integers(1, 9), st.integers(1, 9))
    return shapes.flatmap(
        lambda shape: st.tuples(
            *(hnp.arrays(np.int64, shape, elements=st.integers(0, most)) for _ in "ab")
        )
    )


def _counted_pixel_by_pixel(truth: NDArray[np.int64], prediction: NDArray[np.int64]) -> list[int]:
    table = [[0] * 6 for _ in range(6)]
    for row_a, row_b in zip(truth.tolist(), prediction.tolist(), strict=True):
        for a, b in zip(row_a, row_b, strict=True):
            table[a][b] += 1
    return [count for row in table for count in row]


@RELAXED
@given(_maps(5))
def test_equals_a_loop_over_the_pixels(
    arrays: tuple[NDArray[np.int64], NDArray[np.int64]],
) -> None:
    truth, prediction = (EntityMap.from_array(a, entities=range(1, 6)) for a in arrays)
    table = contingency(truth, prediction).to_array()
    assert table.ravel().tolist() == _counted_pixel_by_pixel(*arrays)


@RELAXED
@given(_maps(5))
def test_areas_are_those_of_the_maps(
    arrays: tuple[NDArray[np.int64], NDArray[np.int64]],
) -> None:
    truth, prediction = (EntityMap.from_array(a, entities=range(1, 6)) for a in arrays)
    table = contingency(truth, prediction)
    assert table.truth_areas.tolist() == truth.areas.tolist()
    assert table.prediction_areas.tolist() == prediction.areas.tolist()
    assert table.num_pixels == arrays[0].size
    assert (table.pixels > 0).all()


def test_hand_counted(draw: Draw) -> None:
    table = contingency(draw("1 1 2 2\n. 1 2 2"), draw("3 3 3 4\n4 4 . ."))
    assert table.to_array().tolist() == [[0, 0, 1], [0, 2, 1], [2, 1, 1]]
    assert (table.num_entities, table.num_crowds, table.num_predicted) == (2, 0, 2)


def test_crowds_of_the_truth_have_rows_and_those_of_a_prediction_are_void(draw: Draw) -> None:
    truth = draw("1 1 9 9", crowds="9")
    table = contingency(truth, truth)
    assert table.to_array().tolist() == [[0, 0], [0, 2], [2, 0]]
    assert (table.num_entities, table.num_crowds) == (1, 1)


@pytest.mark.parametrize(("rows", "columns"), [(300, 300), (700, 400)])
def test_many_ids_on_either_side_of_the_histogram_limit(rows: int, columns: int) -> None:
    random = np.random.default_rng(rows)
    truth, prediction = (
        EntityMap.from_array(random.integers(0, n + 1, (60, 80)), entities=range(1, n + 1))
        for n in (rows, columns)
    )
    expected = np.zeros((rows + 1, columns + 1), dtype=np.int64)
    np.add.at(expected, (truth.to_array(), prediction.to_array()), 1)
    assert np.array_equal(contingency(truth, prediction).to_array(), expected)


def test_seventy_thousand_entities_on_either_side_need_no_dense_table() -> None:
    ids = np.arange(1, 70_001).reshape(200, 350)
    table = contingency(EntityMap.from_array(ids), EntityMap.from_array(ids[::-1]))
    assert len(table.pixels) == 70_000
    assert (table.pixels == 1).all()
    assert (np.diff(table.truth) > 0).all()


def test_the_sums_are_exact_where_float32_would_not_be() -> None:
    shape = (5000, 5001)
    whole = EntityMap.from_runs(shape, [0], [1], 1)
    split = EntityMap.from_runs(shape, [0, 1], [1, 2], 2)
    assert contingency(whole, split).to_array()[1].tolist() == [0, 1, 5000 * 5001 - 1]


def test_maps_of_different_size_are_refused_with_both_sizes(draw: Draw) -> None:
    with pytest.raises(FormatError, match="prediction has 2×1 pixels, the truth has 3×1"):
        contingency(draw("1 1 1"), draw("1 1"))
    with pytest.raises(FormatError, match="has 1×2 pixels"):  # as many pixels, turned
        contingency(draw("1 1"), draw("1\n1"))
