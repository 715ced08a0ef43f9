"""Calibration against an image-by-image, prediction-by-prediction implementation."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from entitybench.entity_map import EntityMap
from entitybench.metrics import Evaluation, ImagePair, MatchRecords, evaluate
from entitybench.metrics.calibration import calibration_error, calibration_sums, reliability


def made(count: int, seed: int) -> list[ImagePair]:
    random = np.random.default_rng(seed)
    pairs = []
    for number in range(count):
        truth = np.kron(random.integers(0, 7, (5, 6)), np.ones((5, 5), dtype=int))
        found = np.where(random.random(truth.shape) < 0.8, truth, random.integers(0, 7))
        prediction = EntityMap.from_array(np.roll(found, random.integers(0, 3), 0))
        crowds = [6] if (truth == 6).any() else []
        scores = random.integers(0, 21, prediction.num_entities) / 20  # many on the borders
        true_map = EntityMap.from_array(truth, crowds=crowds)
        pairs.append(ImagePair(str(number), true_map, prediction, scores))
    return pairs


def slow_error(pairs: list[ImagePair]) -> float:
    """The definition on masks, with exact scores; an IoU of .5 is a match, and crowds forgive."""
    bins: list[list[tuple[Fraction, bool]]] = [[] for _ in range(10)]
    for pair in pairs:
        truth, found = pair.truth.to_array(), pair.prediction.to_array()
        numbers = range(1, pair.truth.num_ids + 1)
        entities, crowds = numbers[: pair.truth.num_entities], numbers[pair.truth.num_entities :]
        for number, score in enumerate(np.asarray(pair.scores).tolist(), start=1):
            mask = found == number
            is_hit = any(
                2 * (mask & (truth == g)).sum() >= (mask | (truth == g)).sum() for g in entities
            )
            if not is_hit and any(2 * (truth[mask] == c).sum() >= mask.sum() for c in crowds):
                continue
            exact = Fraction(round(20 * score), 20)
            bins[min(int(10 * exact), 9)].append((exact, is_hit))
    total = sum(map(len, bins))
    gaps = [abs(sum((s - int(hit) for s, hit in b), Fraction(0))) for b in bins]
    return float(sum(gaps) / total)


@pytest.mark.parametrize("seed", range(6))
def test_error_is_that_of_the_definition(seed: int) -> None:
    pairs = made(12, seed)
    evaluation = evaluate(pairs)
    expected = slow_error(pairs)
    assert evaluation.all_scores()["ECE"] == pytest.approx(expected, abs=1e-12)
    bins = reliability(evaluation.records)
    gaps = [b.predictions * abs(b.score - b.matched) for b in bins if b.predictions]
    assert sum(gaps) / sum(b.predictions for b in bins) == pytest.approx(expected, abs=1e-12)


def scored(scores: list[float]) -> MatchRecords:
    """A row of eight entities; the first four are found, the others are twice too long."""
    truth = np.zeros((2, 16), dtype=int)
    truth[0, :4] = 1, 2, 3, 4
    found = truth.copy()
    found[1, :8] = 5, 5, 6, 6, 7, 7, 8, 8
    pair = ImagePair("1", EntityMap.from_array(truth), EntityMap.from_array(found), scores)
    return evaluate([pair]).records


def test_by_hand() -> None:
    records = scored([1.0, 0.9, 0.3, 0.3, 0.3, 0.3, 0.0, 0.05])
    bins = reliability(records)
    assert [b.predictions for b in bins] == [2, 0, 0, 4, 0, 0, 0, 0, 0, 2]
    assert (bins[3].low, bins[3].high, bins[3].matched) == (0.3, 0.4, 0.5)
    assert bins[3].score == pytest.approx(0.3)
    assert (bins[9].matched, bins[9].score) == (1, 0.95)
    assert math.isnan(bins[1].matched)
    # (2 · .05 + 4 · .2 + 2 · .025) / 8
    error = calibration_error(calibration_sums(records).sum(axis=0))
    assert error == pytest.approx(0.95 / 8)


def test_perfect_and_worst_scores() -> None:
    right = scored([1.0] * 4 + [0.0] * 4)
    wrong = scored([0.0] * 4 + [1.0] * 4)
    assert Evaluation.of(right).all_scores()["ECE"] == 0
    assert Evaluation.of(wrong).all_scores()["ECE"] == 1


def test_a_rising_function_of_the_scores_moves_the_error_and_not_ap() -> None:
    pairs = made(10, 9)
    squared = [replace(pair, scores=np.asarray(pair.scores) ** 2) for pair in pairs]
    before, after = evaluate(pairs).all_scores(), evaluate(squared).all_scores()
    assert before["AP"] == after["AP"]
    assert before["ECE"] != after["ECE"]


def test_nothing_predicted_is_undefined() -> None:
    empty = EntityMap.from_array(np.zeros((3, 3), dtype=int))
    evaluation = evaluate([ImagePair("1", empty, empty, [])])
    assert math.isnan(evaluation.all_scores()["ECE"])
    assert all(row.predictions == 0 for row in reliability(evaluation.records))
