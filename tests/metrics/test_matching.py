from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from entitybench.entity_map import EntityMap
from entitybench.errors import FormatError
from entitybench.metrics import (
    OFFICIAL,
    STRICT,
    ImageMatches,
    Protocol,
    VoidRule,
    contingency,
    match,
    truth_sizes,
)

Draw = Callable[..., EntityMap]
ALL_BITS = 0b1111111111


def matches(
    truth: EntityMap,
    prediction: EntityMap,
    scores: list[float],
    protocol: Protocol = STRICT,
    sizes: list[float] | None = None,
) -> ImageMatches:
    used = truth_sizes(truth, protocol) if sizes is None else sizes
    return match(contingency(truth, prediction), scores, used, protocol)


def test_one_bit_for_each_threshold_that_is_passed(draw: Draw) -> None:
    # 3 of 5 pixels: IoU .60 passes .50, .55 and .60
    found = matches(draw("1 1 1 1 1 ."), draw("1 1 1 . . ."), [0.9])
    assert found.matched[0].tolist() == [0b111] * 4
    assert found.best_ious.tolist() == [3 / 5]
    assert found.partners.tolist() == [1]


def test_five_pixels_are_small_so_the_match_is_ignored_elsewhere(draw: Draw) -> None:
    found = matches(draw("1 1 1 1 1 ."), draw("1 1 1 . . ."), [0.9])
    # all and small count it; medium and large ignore truth and prediction alike
    assert found.ignored[0].tolist() == [0, 0, ALL_BITS, ALL_BITS]


def test_an_unmatched_prediction_counts_by_its_own_area(draw: Draw) -> None:
    found = matches(draw("1 ."), draw(". 1"), [0.9], sizes=[5000])
    assert found.matched.tolist() == [[0, 0, 0, 0]]
    assert found.ignored.tolist() == [[0, 0, ALL_BITS, ALL_BITS]]


def test_a_small_match_to_a_medium_truth_counts_as_medium(draw: Draw) -> None:
    found = matches(draw("1 ."), draw("1 ."), [0.9], sizes=[5000])
    assert found.matched.tolist() == [[ALL_BITS] * 4]
    assert found.ignored.tolist() == [[0, ALL_BITS, 0, ALL_BITS]]


def test_best_score_first_and_ties_in_order_of_id(draw: Draw) -> None:
    found = matches(draw("1 2 3 4"), draw("1 2 3 4"), [0.5, 0.9, 0.5, 0.9])
    assert found.prediction_ids.tolist() == [2, 4, 1, 3]
    assert found.scores.tolist() == [0.9, 0.9, 0.5, 0.5]
    assert found.partners.tolist() == [2, 4, 1, 3]


def test_two_halves_of_one_entity_the_better_score_takes_it(draw: Draw) -> None:
    found = matches(draw("1 1"), draw("1 2"), [0.3, 0.6])
    assert found.prediction_ids.tolist() == [2, 1]
    assert found.matched[:, 0].tolist() == [1, 0]
    assert found.partners.tolist() == [1, -1]
    assert found.best_ious.tolist() == [0.5, 0.5]


def test_of_two_halves_the_one_that_counts_is_taken_else_the_later(draw: Draw) -> None:
    found = matches(draw("1 2"), draw("1 1"), [0.9], sizes=[10, 5000])
    assert found.partners.tolist() == [2]
    # small: entity 1 counts and 2 is ignored; medium: the reverse; large: both are ignored
    assert found.matched.tolist() == [[1, 1, 1, 1]]
    assert (found.ignored & 1).tolist() == [[0, 0, 0, 1]]


def test_an_entity_goes_before_a_crowd(draw: Draw) -> None:
    found = matches(draw("1 9", crowds="9"), draw("1 1"), [0.9])
    assert found.partners.tolist() == [1]
    assert found.ignored[0, 0] == 0


def test_a_crowd_takes_many_and_all_are_ignored(draw: Draw) -> None:
    found = matches(draw("9 9 9 .", crowds="9"), draw("1 2 3 4"), [0.9, 0.8, 0.7, 0.6])
    assert found.partners.tolist() == [1, 1, 1, -1]
    assert found.ignored[:, 0].tolist() == [ALL_BITS] * 3 + [0]
    assert found.best_ious.tolist() == [0] * 4  # a crowd has no IoU


def test_two_crowds_that_halve_predictions_take_all_of_them(draw: Draw) -> None:
    truth, prediction = draw("8 8 8\n9 9 9", crowds="89"), draw("1 2 3\n1 2 3")
    found = matches(truth, prediction, [0.9, 0.8, 0.7])
    assert found.partners.tolist() == [2, 2, 2]
    assert found.ignored[:, 0].tolist() == [1, 1, 1]


def test_an_iou_is_the_plain_quotient(draw: Draw) -> None:
    assert matches(draw("1 1 1"), draw("1 1 ."), [0.9]).best_ious.tolist() == [2 / 3]


def test_officially_a_crowd_is_void(draw: Draw) -> None:
    found = matches(draw("9 9 1", crowds="9"), draw("1 1 2"), [0.9, 0.8], OFFICIAL)
    assert found.partners.tolist() == [-1, 1]
    assert found.ignored[0, 0] == 0
    assert found.areas.tolist() == [2, 1]  # all its pixels, those in the crowd too


def test_void_that_is_ignored_is_one_more_crowd(draw: Draw) -> None:
    truth, prediction = draw(". . . 1"), draw("1 1 2 2")
    counted = matches(truth, prediction, [0.9, 0.8])
    ignored = matches(truth, prediction, [0.9, 0.8], replace(STRICT, void=VoidRule.IGNORE))
    assert counted.ignored[:, 0].tolist() == [0, 0]
    assert ignored.ignored[:, 0].tolist() == [ALL_BITS, 0]
    assert ignored.partners.tolist() == [0, 1]


def test_only_the_best_hundred_take_part() -> None:
    ids = np.arange(1, 121).reshape(10, 12)
    everything = EntityMap.from_array(ids)
    found = matches(everything, everything, np.linspace(0.1, 0.9, 120).tolist())
    assert found.prediction_ids.tolist() == list(range(120, 20, -1))
    assert (found.num_predicted, len(found.truth_sizes)) == (120, 120)


def test_nothing_predicted_and_nothing_true(draw: Draw) -> None:
    found = matches(draw("1 1"), draw(". ."), [])
    assert found.matched.shape == found.ignored.shape == (0, 4)
    assert found.truth_sizes.tolist() == [2]
    found = matches(draw(". ."), draw("1 1"), [0.5])
    assert found.matched.tolist() == [[0] * 4]
    assert (found.num_pixels, found.num_predicted, found.num_empty) == (2, 1, 0)


@pytest.mark.parametrize(
    ("scores", "sizes", "message"),
    [
        ([0.5], [1.0, 1.0], "2 entities need 2 scores"),
        ([0.5, np.nan], [1.0, 1.0], "score nan of entity 2 is not in"),
        ([0.5, 1.5], [1.0, 1.0], "score 1.5 of entity 2"),
        ([0.5, 0.5], [1.0], "2 true entities need 2 sizes"),
        ([0.5, 0.5], [1.0, np.nan], "size nan of true entity 2"),
        ([0.5, 0.5], [-1.0, 1.0], "size -1.0 of true entity 1"),
    ],
)
def test_wrong_scores_and_sizes_are_refused(
    scores: list[float], sizes: list[float], message: str, draw: Draw
) -> None:
    with pytest.raises(FormatError, match=message):
        matches(draw("1 2"), draw("1 2"), scores, sizes=sizes)
