from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from pycocotools.cocoeval import Params

from entitybench.entity_map import EntityMap
from entitybench.errors import ConflictError, FormatError, MissingDataError, UnknownNameError
from entitybench.metrics import (
    AREA_RANGES,
    IOU_THRESHOLDS,
    MAX_DETECTIONS,
    OFFICIAL,
    RECALL_POINTS,
    STRICT,
    Protocol,
    SizeRule,
    truth_sizes,
)

Draw = Callable[..., EntityMap]


def test_the_numbers_are_those_of_pycocotools_bit_for_bit() -> None:
    theirs = Params("segm")
    assert np.array_equal(IOU_THRESHOLDS, theirs.iouThrs)
    assert np.array_equal(RECALL_POINTS, theirs.recThrs)
    assert list(MAX_DETECTIONS) == theirs.maxDets
    assert AREA_RANGES.tolist() == theirs.areaRng


def test_the_numbers_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        IOU_THRESHOLDS[0] = 0.4


def test_names() -> None:
    assert Protocol.named("strict") == STRICT
    assert Protocol.named("official") == OFFICIAL
    assert Protocol.named("strict", "ignore").void == "ignore"


def test_unknown_names_are_told_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="unknown protocol `strikt`, did you mean `strict`"):
        Protocol.named("strikt")
    with pytest.raises(UnknownNameError, match=r"unknown void rule `count`.*`counted`"):
        Protocol.named("strict", "count")


def test_the_official_protocol_cannot_ignore_void() -> None:
    with pytest.raises(ConflictError, match="official protocol counts void"):
        Protocol.named("official", "ignore")


def test_annotated_sizes_are_a_variant_of_strict_alone() -> None:
    assert STRICT.with_annotated_sizes().size is SizeRule.ANNOTATION
    assert OFFICIAL.with_annotated_sizes() == OFFICIAL


def test_sizes_under_each_rule(draw: Draw) -> None:
    # an L of 3 pixels, a bar of one row, a crowd
    truth = draw("1 . 2 2 2\n1 1 . . 9", crowds="9")
    assert truth_sizes(truth, STRICT).tolist() == [3, 3]
    assert truth_sizes(truth, OFFICIAL).tolist() == [1, 0]
    annotated = STRICT.with_annotated_sizes()
    assert truth_sizes(truth, annotated, [1.5, 7]).tolist() == [1.5, 7]


def test_an_entity_without_a_pixel_has_size_zero() -> None:
    truth = EntityMap.from_array([[1, 1]], entities=[1, 2])
    assert truth_sizes(truth, STRICT).tolist() == [2, 0]
    assert truth_sizes(truth, OFFICIAL).tolist() == [0, 0]


def test_annotated_sizes_that_are_missing_or_wrong_are_refused(draw: Draw) -> None:
    annotated = STRICT.with_annotated_sizes()
    with pytest.raises(MissingDataError, match="no annotated sizes"):
        truth_sizes(draw("1 2"), annotated)
    with pytest.raises(FormatError, match="2 true entities need 2 sizes, got shape"):
        truth_sizes(draw("1 2"), annotated, [1])
    with pytest.raises(FormatError, match="size inf of true entity 1"):
        truth_sizes(draw("1 2"), annotated, [np.inf, 1])
