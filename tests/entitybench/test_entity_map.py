"""The entity map against naive dense implementations."""

from __future__ import annotations

import itertools
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from entitybench.entity_map import EntityMap
from entitybench.errors import FormatError

CROSS = [[0, 1, 0], [1, 1, 1], [0, 1, 0]]  # 4-connectivity


@st.composite
def id_maps(draw: st.DrawFn) -> tuple[EntityMap, NDArray[np.int64]]:
    """A map with crowds and with ids that have no pixel, and its dense form."""
    height, width = draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    entities, crowds = draw(st.tuples(st.integers(0, 6), st.integers(0, 3)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    ids = rng.integers(0, entities + crowds + 1, (height, width))
    if draw(st.booleans()):  # blocks rather than noise
        ids = np.kron(ids, np.ones((2, 3), dtype=int))
    order = list(range(1, entities + crowds + 1))
    entity_map = EntityMap.from_array(ids, entities=order[:entities], crowds=order[entities:])
    return entity_map, ids


@given(id_maps())
def test_dense_and_runs_are_one_value(pair: tuple[EntityMap, NDArray[np.int64]]) -> None:
    entity_map, ids = pair
    assert np.array_equal(entity_map.to_array(), ids)
    count, crowds = entity_map.num_entities, entity_map.num_crowds
    again = EntityMap.from_array(
        entity_map.to_array(),
        entities=range(1, count + 1),
        crowds=range(count + 1, count + crowds + 1),
    )
    assert again == entity_map
    runs = EntityMap.from_runs(ids.shape, entity_map.starts, entity_map.ids, count, crowds)
    assert runs == entity_map
    assert pickle.loads(pickle.dumps(entity_map)) == entity_map
    assert np.all(entity_map.ids[1:] != entity_map.ids[:-1])
    assert entity_map.lengths.sum() == ids.size


@given(id_maps())
def test_areas_boxes_parts_and_centres(pair: tuple[EntityMap, NDArray[np.int64]]) -> None:
    entity_map, ids = pair
    areas, boxes = entity_map.areas, entity_map.boxes
    parts, centres = entity_map.num_parts, entity_map.mass_centres
    assert len(areas) == len(boxes) == len(parts) == len(centres) == entity_map.num_ids + 1
    for number in range(entity_map.num_ids + 1):
        mask = ids == number
        assert areas[number] == mask.sum()
        assert parts[number] == ndimage.label(mask, CROSS)[1]
        if not mask.any():
            assert boxes[number].tolist() == [0, 0, 0, 0]
            assert np.isnan(centres[number]).all()
            continue
        y, x = np.nonzero(mask)
        left, top = x.min(), y.min()
        assert boxes[number].tolist() == [left, top, x.max() - left + 1, y.max() - top + 1]
        assert centres[number] == pytest.approx([x.mean(), y.mean()])


@given(id_maps())
def test_row_runs_never_cross_a_row(pair: tuple[EntityMap, NDArray[np.int64]]) -> None:
    entity_map, ids = pair
    drawn = np.full(ids.shape, -1)
    runs = entity_map.row_runs()
    for row, left, right, number in zip(runs.row, runs.left, runs.right, runs.ids, strict=True):
        assert 0 <= left < right <= ids.shape[1]
        drawn[row, left:right] = number
    assert np.array_equal(drawn, ids)


@given(
    st.integers(0, 2**32),
    st.sampled_from(["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]),
    st.booleans(),
)
def test_any_integer_ids_become_compact(seed: int, dtype: str, fortran: bool) -> None:
    rng = np.random.default_rng(seed)
    limits = np.iinfo(dtype)
    pool = rng.integers(limits.min, limits.max, 5, dtype=dtype, endpoint=True)
    pool = np.append(pool, np.array([0, limits.min, limits.max], dtype=dtype))
    array = rng.choice(pool, (4, 6))
    entity_map = EntityMap.from_array(np.asfortranarray(array) if fortran else array)
    ascending = sorted({int(v) for v in array.ravel()} - {0})
    expected = [[(ascending.index(int(v)) + 1) if v else 0 for v in row] for row in array]
    assert entity_map.to_array().tolist() == expected
    assert entity_map.num_entities == len(ascending)


def test_listed_ids_keep_their_order_and_may_claim_zero() -> None:
    array = np.array([[5, 0, -3], [5, 9, 9]])
    entity_map = EntityMap.from_array(array, entities=[9, 0, 77], crowds=[-3], void=None)
    assert entity_map.to_array().tolist() == [[0, 2, 4], [0, 1, 1]]
    assert entity_map.areas.tolist() == [2, 2, 1, 0, 1]
    assert (entity_map.num_entities, entity_map.num_crowds) == (3, 1)


def test_many_void_ids() -> None:
    entity_map = EntityMap.from_array([[255, 0, 7]], void=(0, 255))
    assert entity_map.to_array().tolist() == [[0, 0, 1]]
    assert EntityMap.from_array([[255, 0, 7]], void=()).num_entities == 3


def test_large_unsigned_ids_do_not_wrap() -> None:
    array = np.array([[2**64 - 1, 2**63, 1, 0]], dtype=np.uint64)
    assert EntityMap.from_array(array).to_array().tolist() == [[3, 2, 1, 0]]
    listed = EntityMap.from_array(array, entities=[2**63, 2**64 - 1, 1])
    assert listed.to_array().tolist() == [[2, 1, 3, 0]]


def test_seventy_thousand_entities() -> None:
    ids = np.random.default_rng(1).permutation(70_000).reshape(250, 280) + 1
    entity_map = EntityMap.from_array(ids)
    assert entity_map.num_entities == 70_000
    assert np.array_equal(entity_map.to_array(), ids)
    assert entity_map.areas.tolist() == [0] + [1] * 70_000
    rows, columns = np.unravel_index(np.argsort(ids, axis=None), ids.shape)
    assert np.array_equal(entity_map.boxes[1:, :2], np.stack([columns, rows], axis=1))
    assert entity_map.num_parts.tolist() == [0] + [1] * 70_000


def test_one_pixel() -> None:
    void = EntityMap.from_array([[0]])
    assert (void.num_entities, void.areas.tolist()) == (0, [1])
    one = EntityMap.from_array([[-7]])
    assert one.areas.tolist() == [0, 1]
    assert one.boxes.tolist() == [[0, 0, 0, 0], [0, 0, 1, 1]]
    assert one.num_parts.tolist() == [0, 1]
    assert one.mass_centres[1].tolist() == [0.0, 0.0]


def test_an_entity_in_parts_hand_checked() -> None:
    entity_map = EntityMap.from_array([[1, 0, 1, 0], [0, 1, 1, 0], [1, 0, 0, 1]])
    assert entity_map.num_parts.tolist() == [4, 4]
    assert entity_map.boxes[1].tolist() == [0, 0, 4, 3]
    assert entity_map.mass_centres[1] == pytest.approx([8 / 6, 6 / 6])


def test_maps_differ_by_any_attribute() -> None:
    base = EntityMap.from_array([[1, 2]])
    others = [
        EntityMap.from_array([[1], [2]]),
        EntityMap.from_array([[1, 2]], entities=[1], crowds=[2]),
        EntityMap.from_array([[1, 2]], entities=[1, 2, 3]),
        EntityMap.from_array([[2, 1]], entities=[1, 2]),
        EntityMap.from_array([[1, 2]], entities=[1, 2], crowds=[3]),
    ]
    for a, b in itertools.combinations([base, *others], 2):
        assert a != b
    assert base == EntityMap.from_array([[10, 20]])
    assert base != "a map"


def test_a_map_cannot_be_changed_or_hashed() -> None:
    entity_map = EntityMap.from_array([[1, 2]])
    with pytest.raises(ValueError, match="read-only"):
        entity_map.ids[0] = 5
    dense = entity_map.to_array()
    dense[:] = 9  # a fresh copy
    assert entity_map.to_array().tolist() == [[1, 2]]
    with pytest.raises(TypeError):
        hash(entity_map)


@pytest.mark.parametrize(
    ("array", "more", "message"),
    [
        (np.zeros(4, int), {}, "two dimensions"),
        (np.zeros((2, 2, 3), int), {}, "two dimensions"),
        (np.zeros((2, 2)), {}, "holds integers, this array holds float64"),
        (np.zeros((2, 2), bool), {}, "holds integers, this array holds bool"),
        (np.zeros((0, 2), int), {}, "no entity map"),
        (np.array([[1, 2]]), {"entities": [1]}, "nothing lists: 2"),
        (np.array([[1, 2]]), {"entities": [1, 2, 2]}, "listed twice: 2"),
        (np.array([[1, 2]]), {"entities": [1, 2], "crowds": [1]}, "listed twice: 1"),
        (np.arange(1, 9)[None], {"entities": []}, "1, 2, 3, 4, 5 and 3 more"),
    ],
)
def test_bad_arrays_are_refused(array: NDArray[Any], more: dict[str, Any], message: str) -> None:
    with pytest.raises(FormatError, match=message):
        EntityMap.from_array(array, **more)


@pytest.mark.parametrize(
    ("starts", "ids", "message"),
    [
        ([], [], "do not cover"),
        ([1], [1], "do not cover"),
        ([0, 6], [1, 0], "do not cover"),
        ([0, 1], [1], "do not cover"),
        ([0, 2, 2], [1, 0, 1], "do not ascend"),
        ([0, 3, 2], [1, 0, 1], "do not ascend"),
        ([0, 3], [1, 2], "span 1…2, allowed are 0…1"),
        ([0, 3], [1, -1], "span -1…1, allowed are 0…1"),
    ],
)
def test_bad_runs_are_refused(starts: list[int], ids: list[int], message: str) -> None:
    with pytest.raises(FormatError, match=message):
        EntityMap.from_runs((2, 3), starts, ids, 1)


def test_runs_of_one_id_are_joined() -> None:
    entity_map = EntityMap.from_runs((1, 6), [0, 2, 4], [1, 1, 0], 1)
    assert entity_map.starts.tolist() == [0, 4]
