"""Candidates and `resolve` against brute force on dense masks."""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from entitybench import candidates as module
from entitybench.candidates import Candidates, OverlapPolicy, checked_scores, find_overlap, resolve
from entitybench.errors import FormatError, OverlapError

Stack = NDArray[np.bool_]


@st.composite
def stacks(draw: st.DrawFn) -> tuple[Stack, list[float]]:
    """Random masks of all densities, empty and full ones too, with many equal scores."""
    count = draw(st.integers(0, 7))
    height, width = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    seed = draw(st.integers(0, 2**32))
    rng = np.random.default_rng(seed)
    density = rng.choice([0, 0.05, 0.3, 0.7, 1], size=(count, 1, 1))
    masks = rng.random((count, height, width)) < density
    scores = rng.choice([0.0, 0.25, 0.5, 1.0], size=count).tolist()
    return masks, scores


def rle(mask: NDArray[Any]) -> dict[str, Any]:
    encoded: dict[str, Any] = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": encoded["size"], "counts": encoded["counts"].decode()}


def uncompressed(mask: NDArray[Any]) -> dict[str, Any]:
    flat = mask.ravel(order="F").astype(int)
    edges = np.flatnonzero(np.diff(flat, prepend=0)).tolist()
    counts = np.diff([0, *edges, flat.size]).tolist()
    return {"size": list(mask.shape), "counts": counts}


def brute_force_overlap(masks: Stack) -> tuple[list[tuple[int, int]], list[int]]:
    pairs, pixels = [], []
    for a, b in itertools.combinations(range(len(masks)), 2):
        shared = int((masks[a] & masks[b]).sum())
        if shared:
            pairs.append((a, b))
            pixels.append(shared)
    return pairs, pixels


def brute_force_winner(masks: Stack, scores: Sequence[float]) -> NDArray[np.int64]:
    """For each pixel the claiming candidate of the best score, the earliest of equals; -1."""
    _, height, width = masks.shape
    winner = np.full((height, width), -1)
    for y, x in itertools.product(range(height), range(width)):
        claims = [k for k in range(len(masks)) if masks[k, y, x]]
        if claims:
            winner[y, x] = max(claims, key=lambda k: (scores[k], -k))
    return winner


def dense(candidates: Candidates) -> Stack:
    height, width = candidates.shape
    stack = np.zeros((len(candidates), height * width), dtype=bool)
    for run, owner in enumerate(candidates.owners):
        stack[owner, candidates.starts[run] : candidates.ends[run]] = True
    if candidates.column_major:
        return stack.reshape(-1, width, height).transpose(0, 2, 1)
    return stack.reshape(-1, height, width)


@given(stacks())
def test_every_source_gives_the_same_masks(given_stack: tuple[Stack, list[float]]) -> None:
    masks, scores = given_stack
    shape = masks.shape[1], masks.shape[2]
    for candidates in (
        Candidates.from_masks(masks, scores),
        Candidates.from_masks(masks.astype(np.uint8), scores),
        Candidates.from_coco(shape, [rle(m) for m in masks], scores),
        Candidates.from_coco(shape, [uncompressed(m) for m in masks], scores),
    ):
        assert np.array_equal(dense(candidates), masks)
        assert candidates.areas.tolist() == masks.sum(axis=(1, 2)).tolist()
        assert candidates.scores.tolist() == scores


@given(stacks())
def test_overlap_is_found_exactly(given_stack: tuple[Stack, list[float]]) -> None:
    masks, scores = given_stack
    pairs, pixels = brute_force_overlap(masks)
    for candidates in (
        Candidates.from_masks(masks, scores),
        Candidates.from_coco(masks.shape[1:], [rle(m) for m in masks], scores),
    ):
        found = find_overlap(candidates)
        assert (found.pairs, found.pixels) == (pairs, pixels)
        assert bool(found) == bool(pairs)


@given(stacks())
def test_painting_gives_each_pixel_to_the_best_score(
    given_stack: tuple[Stack, list[float]],
) -> None:
    masks, scores = given_stack
    winner = brute_force_winner(masks, scores)
    done = resolve(Candidates.from_masks(masks, scores), OverlapPolicy.RESOLVE)
    kept = [k for k in range(len(masks)) if (winner == k).any() or not masks[k].any()]
    assert done.kept.tolist() == kept
    assert done.num_emptied == len(masks) - len(kept)
    assert done.scores.tolist() == [scores[k] for k in kept]
    expected = np.zeros(winner.shape, dtype=int)
    for entity, k in enumerate(kept, start=1):
        expected[winner == k] = entity
    assert np.array_equal(done.map.to_array(), expected)
    assert (done.map.num_entities, done.map.num_crowds) == (len(kept), 0)


@given(stacks())
def test_column_major_resolves_to_the_same_map(given_stack: tuple[Stack, list[float]]) -> None:
    masks, scores = given_stack
    rows = resolve(Candidates.from_masks(masks, scores), OverlapPolicy.RESOLVE)
    columns = resolve(
        Candidates.from_coco(masks.shape[1:], [rle(m) for m in masks], scores),
        OverlapPolicy.RESOLVE,
    )
    assert rows.map == columns.map
    assert rows.overlap == columns.overlap


@given(stacks())
def test_rejecting_names_every_pair(given_stack: tuple[Stack, list[float]]) -> None:
    masks, scores = given_stack
    candidates = Candidates.from_masks(masks, scores)
    pairs, pixels = brute_force_overlap(masks)
    if not pairs:
        done = resolve(candidates)
        assert done.num_emptied == 0
        assert done.kept.tolist() == list(range(len(masks)))
        return
    with pytest.raises(OverlapError) as caught:
        resolve(candidates, image="000139")
    where = caught.value.where
    assert len(where) == len(pairs)
    for place, (a, b), shared in zip(where, pairs, pixels, strict=True):
        plural = "s" if shared > 1 else ""
        assert place == f"000139: entities {a + 1} and {b + 1} share {shared} pixel{plural}"
    assert "--overlap resolve" in str(caught.value)


def test_overlap_in_small_blocks_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    masks = np.random.default_rng(3).random((12, 30, 30)) < 0.4
    candidates = Candidates.from_masks(masks, np.zeros(12))
    whole = find_overlap(candidates)
    monkeypatch.setattr(module, "_PAIRS_AT_ONCE", 5)
    assert find_overlap(candidates) == whole
    assert (whole.pairs, whole.pixels) == brute_force_overlap(masks)


def test_masks_that_touch_do_not_overlap() -> None:
    masks = np.array([[[1, 1, 0, 0]], [[0, 0, 1, 1]]])
    done = resolve(Candidates.from_masks(masks, [0.1, 0.9]))
    assert done.map.to_array().tolist() == [[1, 1, 2, 2]]


def test_ties_go_to_the_earlier_and_swallowed_masks_are_counted() -> None:
    masks = np.array([[[1, 1, 0]], [[1, 1, 0]], [[0, 0, 0]], [[0, 1, 1]]])
    done = resolve(Candidates.from_masks(masks, [0.5, 0.5, 0.9, 0.5]), OverlapPolicy.RESOLVE)
    assert done.map.to_array().tolist() == [[1, 1, 3]]
    assert done.kept.tolist() == [0, 2, 3]
    assert done.map.areas.tolist() == [0, 2, 0, 1]
    assert done.num_emptied == 1
    assert done.overlap.pairs == [(0, 1), (0, 3), (1, 3)]
    assert done.overlap.pixels == [2, 1, 1]


def test_no_candidates_are_an_empty_map() -> None:
    for candidates in (
        Candidates.from_masks(np.zeros((0, 2, 3), dtype=bool), []),
        Candidates.from_coco((2, 3), [], []),
    ):
        done = resolve(candidates)
        assert done.map.to_array().tolist() == [[0, 0, 0], [0, 0, 0]]
        assert done.map.num_entities == 0


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@settings(max_examples=200)
@given(st.integers(0, 2**32))
def test_polygons_are_drawn_as_pycocotools_draws_them(seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = (int(side) for side in rng.integers(1, 40, 2))
    polygons = [
        (rng.random(2 * int(corners)) * rng.choice([0.5, 1, 1.5]) * max(height, width)).tolist()
        for corners in rng.integers(3, 8, rng.integers(1, 4))
    ]
    polygons = [[c - 3 for c in polygon] for polygon in polygons]  # partly outside
    expected = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, height, width)))
    candidates = Candidates.from_coco((height, width), [polygons], [1.0])
    assert np.array_equal(dense(candidates)[0], expected.astype(bool))


GOOD = {"size": [4, 5], "counts": [20]}


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ({"size": [5, 4], "counts": [20]}, r"RLE size \[5, 4\] is not the image's \[4, 5\]"),
        ({"size": [4], "counts": [20]}, r"RLE size \[4\] is not"),
        ({"counts": [20]}, "RLE size None is not"),
        ({"size": [4, 5]}, "neither text nor a list of integers"),
        ({"size": [4, 5], "counts": [20.0]}, "neither text nor a list of integers"),
        ({"size": [4, 5], "counts": [True, 19]}, "neither text nor a list of integers"),
        ({"size": [4, 5], "counts": [2**70]}, "neither text nor a list of integers"),
        ({"size": [4, 5], "counts": [-1, 21]}, "a negative number"),
        ({"size": [4, 5], "counts": [3, 16]}, "counts sum to 19, the image has 20 pixels"),
        ({"size": [4, 5], "counts": "3P"}, "ends inside a number"),
        ([], "without polygons"),
        ([[1, 1, 2, 2]], "three points or more"),
        ([[1, 1, 2, 2, 3, 3, 4]], "three points or more"),
        ([[1, 1, 2, 2, 3, float("nan")]], "coordinate that is not a number"),
        ([[1, 1, 2, 2, 3, float("inf")]], "coordinate that is not a number"),
        ([[1, 1, 2, 2, 3, 1e12]], "coordinate that is not a number"),
        ([[1, 1, 2, 2, 3, "4"]], "coordinate that is not a number"),
        ([[1, 1, 2, 2, 3, [4]]], "coordinate that is not a number"),
        ([1, 1, 2, 2, 3, 3], "a list x1, y1"),
        ("abc", "RLE or polygons, not str"),
        (None, "RLE or polygons, not NoneType"),
    ],
)
def test_a_damaged_segmentation_is_refused_by_name(segmentation: object, message: str) -> None:
    with pytest.raises(FormatError, match=message) as caught:
        Candidates.from_coco((4, 5), [GOOD, segmentation], [0.5, 0.5])
    assert caught.value.where == ("segmentation 1",)
    with pytest.raises(FormatError) as caught:
        Candidates.from_coco((4, 5), [segmentation], [0.5], names=["$[7]"])
    assert caught.value.where == ("$[7]",)


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        (np.zeros((2, 3)), "three dimensions"),
        (np.zeros((1, 2, 3)), "booleans, or integers 0 and 1"),
        (np.full((1, 2, 3), 2), "booleans, or integers 0 and 1"),
        (np.full((1, 2, 3), 255, np.uint8), "booleans, or integers 0 and 1"),
        (np.full((1, 2, 3), -1), "booleans, or integers 0 and 1"),
        (np.zeros((1, 0, 3), bool), "no entity map"),
    ],
)
def test_a_bad_stack_is_refused(masks: NDArray[Any], message: str) -> None:
    with pytest.raises(FormatError, match=message):
        Candidates.from_masks(masks, [0.5])


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), -0.01, 1.01])
def test_a_score_beyond_its_range_is_refused(bad: float) -> None:
    with pytest.raises(FormatError, match=r"entity 2 is not in \[0, 1\]"):
        checked_scores([0.5, bad], 2)


def test_scores_of_another_number_are_refused() -> None:
    with pytest.raises(FormatError, match="2 entities need 2 scores"):
        Candidates.from_masks(np.zeros((2, 1, 1), bool), [0.5])


def test_candidates_cross_a_process_border() -> None:
    masks = np.random.default_rng(0).random((3, 4, 5)) < 0.5
    candidates = Candidates.from_masks(masks, [0.1, 0.2, 0.3])
    assert np.array_equal(dense(pickle.loads(pickle.dumps(candidates))), masks)
