"""Run-length text: the same as pycocotools', and refusals where pycocotools hangs or guesses."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from entitybench.errors import FormatError
from entitybench.rle import (
    counts_of_runs,
    decode_counts,
    encode_counts,
    encode_many,
    runs_of_counts,
)

masks = st.tuples(st.integers(1, 20), st.integers(1, 20), st.integers(0, 2**32)).map(
    lambda p: np.random.default_rng(p[2]).random((p[0], p[1])) < (p[2] % 11) / 10
)


def reference_text(mask: np.ndarray) -> str:
    return str(coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"], "ascii")


def naive_counts(flat: list[bool]) -> list[int]:
    """Walk pixel by pixel."""
    counts, value = [0], False
    for pixel in flat:
        if pixel != value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    return counts


@given(masks)
def test_text_is_that_of_pycocotools(mask: np.ndarray) -> None:
    counts = naive_counts(mask.ravel(order="F").tolist())
    text = reference_text(mask)
    assert encode_counts(counts) == text
    assert decode_counts(text).tolist() == counts
    assert decode_counts(text.encode()).tolist() == counts


@given(masks)
def test_runs_and_counts_are_one_thing(mask: np.ndarray) -> None:
    flat = mask.ravel(order="F")
    starts, ends = runs_of_counts(np.array(naive_counts(flat.tolist())), flat.size)
    drawn = np.zeros(flat.size, dtype=bool)
    for start, end in zip(starts, ends, strict=True):
        assert start < end
        assert not drawn[start:end].any()
        drawn[start:end] = True
    assert np.array_equal(drawn, flat)
    assert counts_of_runs(starts, ends, flat.size).tolist() == naive_counts(flat.tolist())


@given(st.lists(st.lists(st.integers(0, 2**31 - 1), max_size=12), max_size=8))
def test_many_at_once_are_each_alone(lists: list[list[int]]) -> None:
    offsets = np.cumsum([0, *map(len, lists)])
    counts = np.array([c for counts in lists for c in counts], dtype=np.int64)
    texts = encode_many(counts, offsets)
    assert texts == [encode_counts(c) for c in lists]
    assert [decode_counts(t).tolist() for t in texts] == lists


def test_the_largest_numbers_and_steps_survive() -> None:
    counts = [0, 2**31 - 1, 0, 0, 2**31 - 1, 1, 0, 15, 16, 17, 31, 32, 33, 511, 512]
    assert decode_counts(encode_counts(counts)).tolist() == counts


def test_empty_runs_between_and_touching_runs_are_joined() -> None:
    starts, ends = runs_of_counts(np.array([1, 2, 0, 3, 4]), 10)
    assert (starts.tolist(), ends.tolist()) == ([1, 3], [3, 6])
    assert counts_of_runs(starts, ends, 10).tolist() == [1, 5, 4]
    assert counts_of_runs(np.zeros(0, np.int64), np.zeros(0, np.int64), 7).tolist() == [7]
    assert counts_of_runs(np.array([4]), np.array([7]), 7).tolist() == [4, 3]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("52 203", "a character that is not RLE"),
        ("52\u00e903", "a character that is not RLE"),
        ("52\ud80003", "a character that is not RLE"),
        ("5p", "a character that is not RLE"),
        ("52P", "ends inside a number"),
        ("P", "ends inside a number"),
        ("o" * 7 + "0", "more than 35 bits"),
        ("O", "a negative count"),
        ("500O", "a negative count"),  # 0 and the step -1
    ],
)
def test_damaged_text_is_refused(text: str, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        decode_counts(text)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([3, 2], "counts sum to 5, the image has 6 pixels"),
        ([3, 4], "counts sum to 7, the image has 6 pixels"),
        ([], "counts sum to 0, the image has 6 pixels"),
        ([3, -1, 4], "a negative number"),
        ([2**62, 2**62, 2**62, 2**62, 6], "counts hold 4611686018427387904"),
    ],
)
def test_counts_that_do_not_fill_the_image_are_refused(counts: list[int], message: str) -> None:
    with pytest.raises(FormatError, match=message):
        runs_of_counts(np.array(counts, dtype=np.int64), 6)


def test_a_sum_that_wraps_around_is_not_taken_for_the_right_one() -> None:
    counts = np.array([2**62, 2**62, 2**62, 2**62, 6])
    assert counts.sum() == 6  # int64 arithmetic
    with pytest.raises(FormatError):
        runs_of_counts(counts, 6)
