"""Weights against literal resampling, and intervals against SciPy's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from entitybench import kernel
from entitybench.entity_map import EntityMap
from entitybench.errors import ConflictError, MissingDataError, UnknownNameError
from entitybench.metrics import STRICT, Evaluation, ImagePair, MatchRecords, accumulate, evaluate
from entitybench.metrics.bootstrap import (
    bootstrap,
    draws,
    interval,
    paired_bootstrap,
    resample,
    score_names,
)
from entitybench.metrics.protocol import AREA_NAMES
from entitybench.metrics.ranking import Column, RankedColumn, area_column, hits_needed
from entitybench.metrics.scores import Scores
from entitybench.metrics.tables import STUFF, THING


def made_pairs(
    count: int, seed: int, *, ties: bool = False, quality: float = 0.8
) -> list[ImagePair]:
    """Images of 60 × 60 to 200 × 200 pixels: entities of all three sizes, and crowds."""
    random = np.random.default_rng(seed)
    pairs = []
    for number in range(count):
        block = np.ones((int(random.integers(12, 40)),) * 2, dtype=int)
        truth = np.kron(random.integers(0, 9, (5, 5)), block)
        kept = random.random(truth.shape) < 0.98
        found = np.where(kept, truth, 0) if random.random() < quality else np.roll(truth, 9, 0)
        found = found * (random.integers(0, 9) != found)
        prediction = EntityMap.from_array(found)
        scores = random.random(prediction.num_entities)
        crowds = [8] if (truth == 8).any() else []
        pairs.append(
            ImagePair(
                str(number),
                EntityMap.from_array(truth, crowds=crowds),
                prediction,
                scores.round(1) if ties else scores,
            )
        )
    return pairs


def made_records(count: int, seed: int, **how: Any) -> MatchRecords:
    return evaluate(made_pairs(count, seed, **how)).records


@pytest.fixture(scope="module")
def records() -> MatchRecords:
    return made_records(14, seed=0)


def literal(records: MatchRecords, drawn: Sequence[int] | NDArray[np.int64]) -> dict[str, float]:
    """Score the images that were drawn as if they were a data set."""
    return Evaluation.of(records.take(np.sort(drawn))).all_scores()


def test_weights_of_one_give_the_bits_of_accumulate(records: MatchRecords) -> None:
    for seed, ties in ((0, False), (1, True)):
        some = made_records(8, seed, ties=ties)
        curves = accumulate(some)
        for index, name in enumerate(AREA_NAMES):
            ranked = RankedColumn(some, area_column(some, name)).precision(np.ones(8))
            np.testing.assert_array_equal(ranked, curves.precision[:, :, index, 2])


def test_a_resample_is_a_data_set(records: MatchRecords) -> None:
    """Every score of every resample equals that of the images really drawn."""
    samples = resample(records, 40, seed=7)
    rng = np.random.default_rng(7)
    for index in range(40):
        expected = literal(records, rng.integers(0, len(records), len(records)))
        assert set(samples) == set(expected)
        for name, value in expected.items():
            np.testing.assert_allclose(samples[name][index], value, atol=1e-14, err_msg=name)


def test_a_resample_is_scored_as_pycocotools_scores_copies(coco_reference: Any) -> None:
    """Every image as often as it was drawn, under ids of their own."""
    pairs = made_pairs(9, seed=2)
    samples = resample(evaluate(pairs).records, 5, seed=4)
    for index, weights in enumerate(np.concatenate([*draws(9, 5, 4)])):
        copies = [
            replace(pair, image_id=f"{10 * number + copy}")
            for number, pair in enumerate(pairs)
            for copy in range(int(weights[number]))
        ]
        stats_of_copies = coco_reference(copies, STRICT).stats
        ours = [samples[field.name][index] for field in fields(Scores)]
        np.testing.assert_allclose(np.nan_to_num(ours, nan=-1), stats_of_copies, atol=1e-14)


def test_precision_of_a_resample_has_the_bits_of_the_literal_one(records: MatchRecords) -> None:
    rng = np.random.default_rng(3)
    ranked = [RankedColumn(records, area_column(records, name)) for name in AREA_NAMES]
    for _ in range(20):
        drawn = rng.integers(0, len(records), len(records))
        weights = np.bincount(drawn, minlength=len(records)).astype(float)
        curves = accumulate(records.take(np.sort(drawn)))
        for index, column in enumerate(ranked):
            np.testing.assert_array_equal(
                column.precision(weights), curves.precision[:, :, index, 2]
            )


def test_intervals_are_those_of_scipy(records: MatchRecords) -> None:
    """Same seed, same draws, same percentiles."""
    ours = bootstrap(records, 60, seed=5, level=0.9, names=["AP", "PQ", "AR100"])
    for name, found in ours.items():

        def statistic(drawn: NDArray[np.int64], name: str = name) -> float:
            return literal(records, drawn)[name]

        theirs = stats.bootstrap(
            (np.arange(len(records)),),
            statistic,
            n_resamples=60,
            vectorized=False,
            confidence_level=0.9,
            method="percentile",
            rng=np.random.default_rng(5),
        ).confidence_interval
        assert found.low == pytest.approx(theirs.low, abs=1e-12)
        assert found.high == pytest.approx(theirs.high, abs=1e-12)
        assert (found.level, found.resamples, found.seed) == (0.9, 60, 5)


def test_differences_are_paired() -> None:
    better, worse = made_records(20, 3, quality=0.9), made_records(20, 3, quality=0.3)
    found = paired_bootstrap(worse, better, 200, seed=1)
    assert found["AP"].low > 0
    one, other = (resample(r, 200, 1, ["AP"])["AP"] for r in (worse, better))
    expected = np.quantile(other - one, [0.025, 0.975])
    np.testing.assert_allclose([found["AP"].low, found["AP"].high], expected, rtol=1e-14)
    rng = np.random.default_rng(1)
    drawn = rng.integers(0, 20, 20)
    delta = literal(better, drawn)["AP"] - literal(worse, drawn)["AP"]
    assert (other - one)[0] == pytest.approx(delta, abs=1e-14)


def test_paired_intervals_are_those_of_scipy() -> None:
    one, other = made_records(9, 3, quality=0.3), made_records(9, 3, quality=0.9)

    def difference(mine: NDArray[np.int64], theirs: NDArray[np.int64]) -> float:
        return literal(other, theirs)["AP"] - literal(one, mine)["AP"]

    theirs = stats.bootstrap(
        (np.arange(9), np.arange(9)),
        difference,
        n_resamples=40,
        vectorized=False,
        paired=True,
        confidence_level=0.8,
        method="percentile",
        rng=np.random.default_rng(6),
    ).confidence_interval
    ours = paired_bootstrap(one, other, 40, seed=6, level=0.8, names=["AP"])["AP"]
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert ours.low < ours.high


def test_a_model_against_itself_differs_by_nothing(records: MatchRecords) -> None:
    found = paired_bootstrap(records, records, 50)
    assert (found["AP"].low, found["PQ"].high) == (0, 0)
    assert not np.nan_to_num([(i.low, i.high) for i in found.values()]).any()


def test_other_images_are_no_pair(records: MatchRecords) -> None:
    with pytest.raises(ConflictError, match="the same images"):
        paired_bootstrap(records, records.take([0, 1]), 5)


def test_draws_depend_on_the_seed_alone() -> None:
    one, again = np.concatenate([*draws(50, 150, 3)]), np.concatenate([*draws(50, 150, 3)])
    assert one.shape == (150, 50)
    assert (one.sum(axis=1) == 50).all()
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, np.concatenate([*draws(50, 150, 4)]))
    np.testing.assert_array_equal(np.concatenate([*draws(50, 70, 3)]), one[:70])


def test_origins_are_resampled_too(records: MatchRecords) -> None:
    assert records.tables is not None
    origins = np.where(np.arange(len(records.truth_sizes)) % 3, THING, STUFF).astype(np.int8)
    known = replace(records, tables=records.tables.with_origins(origins))
    assert set(score_names(known)) == set(Evaluation.of(known).all_scores())
    samples = resample(known, 5, 0, ["APthing", "APstuff", "ARthing", "ARstuff"])
    rng = np.random.default_rng(0)
    for index in range(5):
        expected = literal(known, rng.integers(0, len(records), len(records)))
        for name, values in samples.items():
            assert values[index] == pytest.approx(expected[name], abs=1e-14)


def test_masks_before_resolving_share_the_draws(records: MatchRecords) -> None:
    other = made_records(14, seed=0, quality=0.2)
    found = bootstrap(records, 20, 3, names=["AP"], overlapping=other)
    assert found["APoverlapping"] == bootstrap(other, 20, 3, names=["AP"])["AP"]
    assert set(found) == {"AP", "APoverlapping"}


@pytest.mark.skipif(not kernel.is_active(), reason="the kernel is not active")
@pytest.mark.parametrize("seed", range(6))
def test_the_kernel_gives_the_bits_of_numpy(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(seed)
    some = made_records(12, seed, ties=seed % 2 == 0)
    weights = np.concatenate(
        [*draws(12, 30, seed), random.integers(0, 2, (5, 12)), np.zeros((1, 12))]
    )
    for name in AREA_NAMES:
        ranked = RankedColumn(some, area_column(some, name))
        compiled = ranked.precision(weights)
        with monkeypatch.context() as patch:
            patch.setattr(kernel, "_active", False)
            np.testing.assert_array_equal(ranked.precision(weights), compiled)
            np.testing.assert_array_equal(ranked.precision(weights[0]), compiled[0])


@pytest.mark.skipif(not kernel.is_active(), reason="the kernel is not active")
@pytest.mark.parametrize("falls", [True, False])
def test_the_kernel_passes_over_nothing_in_long_rankings(
    monkeypatch: pytest.MonkeyPatch, *, falls: bool
) -> None:
    """Dozens of hits between two recall points; precision falls along the ranking, or does not."""
    random = np.random.default_rng(0)
    scores = np.sort(random.random((60, 100)), axis=1)[:, ::-1].ravel()
    quality = random.random(6000) * (scores if falls else 1)
    levels = np.searchsorted(np.linspace(0.05, 0.6, 10), quality)
    matched = ((1 << levels) - 1).astype(np.uint16)
    matched[::97] &= 0b1011110011  # boxes need not match at every threshold below
    ignored = np.where(random.random(6000) < 0.1, matched >> 3, 0).astype(np.uint16)
    column = Column(matched, ignored, np.full(60, 70))
    some = replace(made_records(60, 0), scores=scores, detection_offsets=np.arange(61) * 100)
    ranked = RankedColumn(some, column)
    weights = np.concatenate([*draws(60, 20, 1), np.ones((1, 60))])
    compiled = ranked.precision(weights)
    monkeypatch.setattr(kernel, "_active", False)
    np.testing.assert_array_equal(ranked.precision(weights), compiled)


@pytest.mark.skipif(not kernel.is_active(), reason="the kernel is not active")
def test_the_kernel_refuses_a_ranking_that_contradicts_itself(records: MatchRecords) -> None:
    ranking = RankedColumn(records, area_column(records, "large"))._events
    weights, needed = np.ones((2, len(records))), hits_needed(np.ones(2))
    assert kernel.weigh(ranking, weights, needed).shape == (2, 10, 101)
    for name, column in ranking._asdict().items():
        for value in (-1, 1 << 30):
            if column.size and name != "odd_signs":
                damaged = column.copy()
                damaged[-1] = value
                with pytest.raises(ValueError, match="contradicts itself"):
                    kernel.weigh(ranking._replace(**{name: damaged}), weights, needed)


def test_what_cannot_be_resampled(records: MatchRecords) -> None:
    with pytest.raises(UnknownNameError, match="`APx`"):
        bootstrap(records, 5, names=["APx"])
    bare = replace(records, tables=None)
    assert "PQ" not in score_names(bare)
    assert "PQ" not in bootstrap(bare, 5)
    with pytest.raises(MissingDataError, match="no contingency tables"):
        bootstrap(bare, 5, names=["PQ"])


def test_undefined_scores_have_no_interval() -> None:
    empty = EntityMap.from_array(np.zeros((3, 3), dtype=int))
    found = bootstrap(evaluate([ImagePair("1", empty, empty, [])]).records, 5)
    assert all(math.isnan(i.low) and math.isnan(i.high) for i in found.values())
    values = np.array([0.1, np.nan, 0.3])
    assert interval(values, 0.5, 0).low == pytest.approx(0.15)


@pytest.mark.parametrize("positives", [1, 3, 7, 100, 101, 12345])
def test_hits_needed_are_those_of_the_quotient(positives: int) -> None:
    points = np.linspace(0.0, 1.00, 101)
    counts = np.arange(positives + 1)
    expected = [int(np.flatnonzero(counts / positives >= point)[0]) for point in points]
    assert hits_needed(positives).tolist() == expected
