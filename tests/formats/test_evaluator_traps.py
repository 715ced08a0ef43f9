"""The readers' part of the traps that evaluators fall into, one test or more for each.

Each trap is one on which published evaluators disagree, hang, or silently give another number.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from entitybench.candidates import Candidates
from entitybench.errors import FormatError
from entitybench.formats.coco_results import CocoResults
from entitybench.formats.predictions import ImageSize

BLOCK = np.zeros((40, 40), dtype=int)
BLOCK[:20, :20] = 1
IMAGE = ImageSize("000000000001", 40, 40)
Rle = Callable[[Any], dict[str, Any]]
Write = Callable[[Any], Path]


def load(path: Path) -> Candidates:
    found = CocoResults(path, ["000000000001", "000000000002"]).load(IMAGE)
    assert isinstance(found, Candidates)
    return found


def test_trap_4_the_area_is_that_of_the_mask_and_not_of_the_box(
    rle: Rle, write_results: Write
) -> None:
    diagonal = np.eye(40, dtype=int)
    result = {"image_id": 1, "segmentation": rle(diagonal), "bbox": [0, 0, 40, 40], "score": 1}
    assert load(write_results([result])).areas.tolist() == [40]


def test_trap_14_an_empty_mask_is_legal(rle: Rle, write_results: Write) -> None:
    empty = {"image_id": 1, "segmentation": rle(0 * BLOCK), "score": 1}
    found = load(write_results([empty, {**empty, "segmentation": rle(BLOCK), "score": 0.5}]))
    assert found.areas.tolist() == [0, 400]
    assert found.scores.tolist() == [1, 0.5]


def test_trap_16_an_empty_list_is_legal(write_results: Write) -> None:
    assert len(load(write_results([]))) == 0


def test_trap_17_an_unknown_image_is_refused(rle: Rle, write_results: Write) -> None:
    path = write_results([{"image_id": 3, "segmentation": rle(BLOCK), "score": 1}])
    with pytest.raises(FormatError, match="1 image is unknown to the ground truth, which has 2"):
        load(path)


def test_trap_18_an_rle_of_another_size_is_refused(rle: Rle, write_results: Write) -> None:
    segmentation = {**rle(BLOCK), "size": [20, 80]}
    path = write_results([{"image_id": 1, "segmentation": segmentation, "score": 1}])
    with pytest.raises(FormatError, match=r"RLE size \[20, 80\] is not the image's \[40, 40\]"):
        load(path)


def test_trap_19_truncated_counts_are_refused_with_their_result(
    rle: Rle, write_results: Write
) -> None:
    """Where it is cut inside a number, and where the numbers left are too few."""
    good = {"image_id": 1, "segmentation": rle(BLOCK), "score": 1}
    counts = rle(BLOCK)["counts"]
    for length in range(len(counts)):
        cut = {**good, "segmentation": {"size": [40, 40], "counts": counts[:length]}}
        path = write_results([good, cut])
        with pytest.raises(FormatError) as caught:
            load(path)
        assert caught.value.where == (f"{path}: $[1] (image 000000000001)",)


def test_trap_20_counts_as_a_list_are_accepted(rle: Rle, write_results: Write) -> None:
    listed = {"size": [40, 40], "counts": [0, *[20, 20] * 19, 20, 820]}
    compressed = load(write_results([{"image_id": 1, "segmentation": rle(BLOCK), "score": 1}]))
    found = load(write_results([{"image_id": 1, "segmentation": listed, "score": 1}]))
    assert found.starts.tolist() == compressed.starts.tolist()
    assert found.ends.tolist() == compressed.ends.tolist()


def test_trap_21_a_score_that_is_no_number_is_refused(rle: Rle, write_results: Write) -> None:
    path = write_results([{"image_id": 1, "segmentation": rle(BLOCK), "score": float("nan")}])
    with pytest.raises(FormatError, match="a number is NaN, which is not JSON"):
        load(path)


@pytest.mark.parametrize("category", [0, -1, 1, 133, "cat", None])
def test_trap_22_category_ids_are_ignored(rle: Rle, write_results: Write, category: Any) -> None:
    result = {"image_id": 1, "segmentation": rle(BLOCK), "score": 1, "category_id": category}
    assert load(write_results([result])).areas.tolist() == [400]


def test_trap_23_equal_scores_keep_the_order_of_the_file_and_not_of_the_categories(
    rle: Rle, write_results: Write
) -> None:
    result = {"image_id": 1, "segmentation": rle(BLOCK), "score": 0.5}
    corner = {**result, "segmentation": rle(np.eye(40)), "category_id": 2}
    found = load(write_results([corner, {**result, "category_id": 1}]))
    assert found.areas.tolist() == [40, 400]


def test_trap_25_ids_of_results_are_ignored(rle: Rle, write_results: Write) -> None:
    result = {"image_id": 1, "segmentation": rle(BLOCK), "score": 0.5}
    corner = {**result, "segmentation": rle(np.eye(40)), "id": 9}
    other = {**result, "image_id": 2, "id": 9}
    found = load(write_results([corner, other, {**result, "id": 0}, {**result, "id": 9}]))
    assert found.areas.tolist() == [40, 400, 400]
