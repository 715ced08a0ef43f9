"""Where evaluators silently differ: each row of the table of traps with its number.

Numbers were measured with pycocotools 2.0.11; unless said otherwise each test also requires
today's pycocotools to give the same bits.  Images are 40×40 and A is a block of 20×20.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from entitybench.entity_map import EntityMap
from entitybench.errors import FormatError
from entitybench.metrics import (
    IOU_THRESHOLDS,
    OFFICIAL,
    RECALL_POINTS,
    STRICT,
    Evaluation,
    ImagePair,
    evaluate,
)

Check = Callable[..., Evaluation]
Paint = Callable[..., EntityMap]


def quoted(evaluation: Evaluation, *names: str) -> list[float]:
    return [evaluation.scores.as_dict()[name] for name in names]


CANVAS = (40, 40)
A, B, C = (0, 0, 20, 20), (0, 20, 20, 20), (20, 0, 20, 20)


def test_row_1_id_zero_is_an_entity(paint: Paint, coco_reference: Any) -> None:
    ids = np.full(CANVAS, -1)
    ids[:20, :20], ids[:20, 20:] = 0, 1
    truth = EntityMap.from_array(ids, entities=[0, 1], void=[-1])
    pair = ImagePair("1", truth, paint(CANVAS, A, B), [0.9, 0.8])
    assert quoted(evaluate([pair]), "AP") == pytest.approx([1], abs=1e-12)
    # this is what the trap costs elsewhere
    trapped = coco_reference([pair], STRICT, first_id=0).stats
    assert trapped[[0, 8]] == pytest.approx([0.252475, 0.5], abs=1e-6)


def test_row_1b_an_id_used_twice_is_refused() -> None:
    with pytest.raises(FormatError, match="ids listed twice: 1"):
        EntityMap.from_array([[1, 1]], entities=[1, 1])


def test_row_2_ties_across_images_follow_the_image_id(paint: Paint, check_parity: Check) -> None:
    found = ImagePair("1", paint(CANVAS, A), paint(CANVAS, A), [0.5])
    missed = ImagePair("2", paint(CANVAS, A), paint(CANVAS, B), [0.5])
    for order in ([found, missed], [missed, found]):
        assert quoted(check_parity(order, STRICT), "AP") == pytest.approx([0.504950], abs=1e-6)


@pytest.mark.parametrize(("boxes", "ap"), [((B, A), 0.5), ((A, B), 1.0)], ids=["2b", "2c"])
def test_row_2bc_ties_within_an_image_follow_the_entity_id(
    boxes: tuple[Any, Any], ap: float, paint: Paint, check_parity: Check
) -> None:
    pair = ImagePair("1", paint(CANVAS, A), paint(CANVAS, *boxes), [0.5, 0.5])
    assert quoted(check_parity([pair], STRICT), "AP") == pytest.approx([ap], abs=1e-12)


def test_row_3_annotated_size_decides_the_range(paint: Paint, check_parity: Check) -> None:
    block = paint((120, 120), (0, 0, 100, 100))
    pair = ImagePair("1", block, block, [0.9], annotated_sizes=[500])
    scores = check_parity([pair], STRICT.with_annotated_sizes()).scores
    assert scores.APs == pytest.approx(1)
    assert np.isnan([scores.APm, scores.APl]).all()
    scores = check_parity([pair], STRICT).scores
    assert scores.APl == pytest.approx(1)
    assert np.isnan([scores.APs, scores.APm]).all()


def test_row_5_a_size_of_1024_is_small_and_medium(paint: Paint, check_parity: Check) -> None:
    block = paint(CANVAS, (0, 0, 32, 32))
    scores = check_parity([ImagePair("1", block, block, [0.9])], STRICT).scores
    assert [scores.APs, scores.APm] == pytest.approx([1, 1])
    assert np.isnan(scores.APl)


def test_row_6_no_truth_in_range_is_undefined(paint: Paint, check_parity: Check) -> None:
    missed = ImagePair("1", paint(CANVAS, A), paint(CANVAS, B), [0.9])
    scores = check_parity([missed], STRICT).scores
    assert (scores.AP, scores.APs) == (0, 0)  # false positives alone, but there is truth
    assert np.isnan([scores.APm, scores.APl, scores.ARm, scores.ARl]).all()
    crowd_alone = ImagePair("1", paint(CANVAS, crowds=[A]), paint(CANVAS, A), [0.9])
    values = check_parity([crowd_alone], STRICT).scores.as_dict().values()
    assert np.isnan(list(values)).all()


@pytest.mark.parametrize(("rank", "ap", "ar"), [(101, 0, 0), (100, 0.01, 1)])
def test_row_7_the_best_hundred_are_cut_before_matching(
    rank: int, ap: float, ar: float, paint: Paint, check_parity: Check
) -> None:
    crumbs = [(30, x, 1, 1) for x in range(40)] + [(32, x, 1, 1) for x in range(40)]
    crumbs += [(34, x, 1, 1) for x in range(rank - 81)]
    found = paint(CANVAS, *crumbs, A)
    pair = ImagePair("1", paint(CANVAS, A), found, np.linspace(0.9, 0.1, rank))
    ours = check_parity([pair], STRICT)
    assert quoted(ours, "AP", "AR100") == pytest.approx([ap, ar], abs=1e-12)
    assert quoted(ours, "AR1", "AR10") == [0, 0]


def test_row_7_smaller_cuts_share_one_matching(paint: Paint, check_parity: Check) -> None:
    """The second half of A is a false positive for AR1's matching as well as for AR100's."""
    halves = paint(CANVAS, (0, 0, 20, 10), (0, 10, 20, 10), B)
    pair = ImagePair("1", paint(CANVAS, A, B), halves, [0.9, 0.8, 0.7])
    assert quoted(check_parity([pair], STRICT), "AR1", "AR10") == pytest.approx([0.05, 0.55])


def test_row_8_an_image_without_a_result_is_missed(paint: Paint, check_parity: Check) -> None:
    found = ImagePair("1", paint(CANVAS, A), paint(CANVAS, A), [0.9])
    nothing = ImagePair("2", paint(CANVAS, A), paint(CANVAS), [])
    assert quoted(check_parity([found, nothing], STRICT), "AP") == pytest.approx(
        [0.504950], abs=1e-6
    )


def test_row_9_a_prediction_half_in_a_crowd_is_ignored_at_one_half_only(
    paint: Paint, check_parity: Check
) -> None:
    truth = paint(CANVAS, C, crowds=[A])
    half_in_crowd = (0, 10, 20, 20)
    pair = ImagePair("1", truth, paint(CANVAS, half_in_crowd, C), [0.9, 0.8])
    ours = check_parity([pair], STRICT)
    assert quoted(ours, "AP", "AP50", "AP75") == pytest.approx([0.55, 1, 0.5])


def test_row_9_several_predictions_may_share_a_crowd(paint: Paint, check_parity: Check) -> None:
    truth = paint(CANVAS, C, crowds=[A])
    found = paint(CANVAS, (0, 0, 20, 5), (0, 5, 20, 5), (0, 10, 20, 5), C)
    pair = ImagePair("1", truth, found, [0.9, 0.8, 0.7, 0.6])
    assert quoted(check_parity([pair], STRICT), "AP") == pytest.approx([1])
    # officially the crowd is void and all three are false positives
    assert quoted(check_parity([pair], OFFICIAL), "AP") == pytest.approx([0.25])


@pytest.mark.parametrize(
    ("truth", "crowds", "found", "ap", "ap50"),
    [
        ([A, B], [], [(0, 0, 20, 40)], 0.050495, 0.5050),
        ([A], [], [(0, 0, 20, 10), (0, 10, 20, 10)], 0.1, 1),
        ([A], [B], [(0, 0, 20, 40)], 0.1, 1),
    ],
    ids=["one-prediction-two-entities", "two-predictions-one-entity", "entity-half-crowd-half"],
)
def test_row_11_an_iou_of_exactly_one_half(
    truth: list[Any],
    crowds: list[Any],
    found: list[Any],
    ap: float,
    ap50: float,
    paint: Paint,
    check_parity: Check,
) -> None:
    pair = ImagePair(
        "1",
        paint(CANVAS, *truth, crowds=crowds),
        paint(CANVAS, *found),
        [0.9, 0.8][: len(found)],
    )
    ours = check_parity([pair], STRICT)
    assert quoted(ours, "AP") == pytest.approx([ap], abs=1e-6)
    assert quoted(ours, "AP50") == pytest.approx([ap50], abs=1e-4)


def test_row_11_of_two_equal_halves_the_later_entity_is_taken(
    paint: Paint, check_parity: Check
) -> None:
    pair = ImagePair("1", paint(CANVAS, A, B), paint(CANVAS, (0, 0, 20, 40)), [0.9])
    assert check_parity([pair], STRICT).records.partners.tolist() == [2]


@pytest.mark.parametrize(
    ("shared", "of", "ap"), [(3, 5, 0.3), (7, 10, 0.5), (17, 20, 0.8), (11, 20, 0.2)]
)
def test_row_12_an_iou_equal_to_a_threshold_passes(
    shared: int, of: int, ap: float, paint: Paint, check_parity: Check
) -> None:
    pair = ImagePair("1", paint(CANVAS, (0, 0, of, 1)), paint(CANVAS, (0, 0, shared, 1)), [0.9])
    assert quoted(check_parity([pair], STRICT), "AP") == pytest.approx([ap], abs=1e-12)


@pytest.mark.parametrize("k", range(10, 20))
def test_row_12_every_twentieth_passes(k: int, paint: Paint, check_parity: Check) -> None:
    pair = ImagePair("1", paint(CANVAS, (0, 0, 20, 1)), paint(CANVAS, (0, 0, k, 1)), [0.9])
    assert quoted(check_parity([pair], STRICT), "AP") == pytest.approx([(k - 9) / 10], abs=1e-12)


def test_row_12_the_thresholds_are_not_steps_of_five_hundredths() -> None:
    assert IOU_THRESHOLDS[8] == 0.8999999999999999
    assert (np.arange(10, 20) / 20 >= IOU_THRESHOLDS).all()


UNREACHED = (35, 41, 47, 57, 69, 70, 82, 83, 94, 95)


@pytest.mark.parametrize("found", [*UNREACHED, 34, 36, 50])
def test_row_13_a_recall_of_k_hundredths_may_not_reach_point_k(
    found: int, paint: Paint, check_parity: Check
) -> None:
    entities = [(2 * (k // 10), 2 * (k % 10), 2, 2) for k in range(100)]
    scores = np.linspace(0.9, 0.1, found)
    pair = ImagePair("1", paint(CANVAS, *entities), paint(CANVAS, *entities[:found]), scores)
    points = found if found in UNREACHED else found + 1
    assert quoted(check_parity([pair], STRICT), "AP") == pytest.approx([points / 101], abs=1e-12)


def test_row_13_the_recall_points_that_lie_above_k_hundredths() -> None:
    assert np.flatnonzero(np.arange(101) / 100 < RECALL_POINTS).tolist() == [*UNREACHED]


def test_row_14_an_empty_mask_is_a_false_positive(paint: Paint, check_parity: Check) -> None:
    dense = paint(CANVAS, A).to_array()
    found = EntityMap.from_array(dense, entities=[9, 1])
    ours = check_parity([ImagePair("1", paint(CANVAS, A), found, [0.9, 0.8])], STRICT)
    assert quoted(ours, "AP") == pytest.approx([0.5])
    assert ours.counts.empty_predictions == 1


def test_row_15_a_perfect_ap_is_one_less_an_epsilon(paint: Paint, check_parity: Check) -> None:
    ours = check_parity([ImagePair("1", paint(CANVAS, A), paint(CANVAS, A), [0.9])], STRICT)
    assert ours.scores.AP == 1 - 2.0**-52
    assert (ours.curves.precision[:, :, 0, 2] == 1 - 2.0**-52).all()


def test_row_16_no_result_at_all_scores_zero(paint: Paint, check_parity: Check) -> None:
    """pycocotools' reader fails here; its evaluator, given no results, agrees."""
    ours = check_parity([ImagePair("1", paint(CANVAS, A), paint(CANVAS), [])], STRICT)
    assert (ours.scores.AP, ours.scores.AR100) == (0, 0)


class TestVectorsOfTheReleasedCode:
    """Small cases whose numbers were read off the paper's released evaluator."""

    def test_two_halves_of_the_image(self, paint: Paint, check_parity: Check) -> None:
        halves = paint((100, 100), (0, 0, 50, 100), (50, 0, 50, 100))
        pair = ImagePair("1", halves, halves, [0.9, 0.8])
        for protocol in (STRICT, OFFICIAL):
            assert quoted(check_parity([pair], protocol), "AP") == pytest.approx([1], abs=1e-12)

    def test_iou_of_exactly_one_half(self, paint: Paint, check_parity: Check) -> None:
        truth, found = paint((100, 100), (0, 0, 50, 100)), paint((100, 100), (0, 0, 25, 100))
        ours = check_parity([ImagePair("1", truth, found, [0.9])], OFFICIAL)
        assert quoted(ours, "AP50", "AP75", "AP") == pytest.approx([1, 0, 0.1])

    def test_a_thin_frame_is_small_by_mask_and_large_by_box(
        self, paint: Paint, check_parity: Check
    ) -> None:
        ids = np.zeros((100, 100), dtype=np.int64)
        ids[[0, -1]] = ids[:, [0, -1]] = 1
        frame = EntityMap.from_array(ids)
        assert frame.areas[1] == 396
        pair = ImagePair("1", frame, frame, [0.9])
        strict = check_parity([pair], STRICT).scores
        assert strict.APs == pytest.approx(1)
        assert np.isnan([strict.APm, strict.APl]).all()
        official = check_parity([pair], OFFICIAL)
        assert official.records.truth_sizes.tolist() == [9801]
        assert official.scores.APl == pytest.approx(1)
        assert np.isnan([official.scores.APs, official.scores.APm]).all()
