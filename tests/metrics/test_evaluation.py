from __future__ import annotations

import multiprocessing
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from entitybench.entity_map import EntityMap
from entitybench.errors import FormatError, MissingDataError
from entitybench.metrics import (
    OFFICIAL,
    STRICT,
    Curves,
    Evaluation,
    ImagePair,
    MatchRecords,
    Protocol,
    evaluate,
)

Draw = Callable[..., EntityMap]
RELAXED = settings(deadline=None)  # a busy machine is no failure


def assert_same_curves(a: Curves, b: Curves) -> None:
    np.testing.assert_array_equal(a.precision, b.precision)
    np.testing.assert_array_equal(a.recall, b.recall)
    np.testing.assert_array_equal(a.scores, b.scores)


@st.composite
def image_pairs(draw: st.DrawFn, most: int = 5) -> list[ImagePair]:
    """Up to four small images of few ids, some of them crowds; scores often tie."""
    pairs = []
    for image_id in range(draw(st.integers(1, 4))):
        shape = (draw(st.integers(1, 6)), draw(st.integers(1, 6)))
        truth, found = (
            draw(hnp.arrays(np.int64, shape, elements=st.integers(0, most))) for _ in "ab"
        )
        num_crowds = draw(st.integers(0, 2))
        num_entities = most - num_crowds
        scores = draw(st.lists(st.sampled_from([0.0, 0.2, 0.5, 1.0]), min_size=most, max_size=most))
        pairs.append(
            ImagePair(
                str(image_id),
                EntityMap.from_array(
                    truth,
                    entities=range(1, num_entities + 1),
                    crowds=range(num_entities + 1, most + 1),
                ),
                EntityMap.from_array(found, entities=range(1, most + 1)),
                scores,
            )
        )
    return pairs


@RELAXED
@given(image_pairs(), st.randoms(use_true_random=False), st.sampled_from([STRICT, OFFICIAL]))
def test_renumbering_the_truth_changes_nothing(
    pairs: list[ImagePair], random: Random, protocol: Protocol
) -> None:
    renumbered = []
    for pair in pairs:
        truth = pair.truth
        entities = list(range(1, truth.num_entities + 1))
        random.shuffle(entities)
        crowds = range(truth.num_entities + 1, truth.num_ids + 1)
        dense = truth.to_array()
        other = EntityMap.from_array(dense, entities=entities, crowds=crowds)
        renumbered.append(replace(pair, truth=other))
    assert_same_curves(evaluate(pairs, protocol).curves, evaluate(renumbered, protocol).curves)


@RELAXED
@given(image_pairs(), st.sampled_from([STRICT, OFFICIAL, Protocol.named("strict", "ignore")]))
def test_a_perfect_prediction_scores_one(pairs: list[ImagePair], protocol: Protocol) -> None:
    perfect = [
        replace(p, truth=p.prediction, scores=p.scores)
        for p in pairs
        if (p.prediction.areas[1:] > 0).all()
    ]
    scores = evaluate(perfect, protocol).scores.as_dict()
    defined = {k: v for k, v in scores.items() if not np.isnan(v) and k not in ("AR1", "AR10")}
    assert list(defined.values()) == pytest.approx([1] * len(defined), abs=1e-12)
    assert bool(defined) == bool(perfect)


@RELAXED
@given(image_pairs(), st.data())
def test_removing_a_prediction_never_raises_recall(
    pairs: list[ImagePair], data: st.DataObject
) -> None:
    victim = data.draw(st.integers(0, len(pairs) - 1))
    pair = pairs[victim]
    gone = data.draw(st.integers(1, pair.prediction.num_entities))
    kept = [i for i in range(1, pair.prediction.num_entities + 1) if i != gone]
    rest = EntityMap.from_array(pair.prediction.to_array(), entities=kept, void=(0, gone))
    scores = np.delete(np.asarray(pair.scores), gone - 1)
    fewer = [*pairs]
    fewer[victim] = replace(pair, prediction=rest, scores=scores)
    before, after = evaluate(pairs).curves.recall, evaluate(fewer).curves.recall
    assert not np.any(after[:, :, 2] > before[:, :, 2])


@RELAXED
@given(image_pairs(), st.data())
def test_merged_shards_are_the_whole(pairs: list[ImagePair], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(pairs)))
    shards = [evaluate(pairs[cut:]).records, evaluate(pairs[:cut]).records]
    whole, merged = evaluate(pairs), Evaluation.of(MatchRecords.merge(shards))
    assert_same_curves(whole.curves, merged.curves)
    assert whole.counts == merged.counts


@RELAXED
@given(image_pairs(), st.permutations(range(4)))
def test_the_order_of_images_changes_nothing(pairs: list[ImagePair], order: list[int]) -> None:
    shuffled = [pairs[k] for k in order if k < len(pairs)]
    assert_same_curves(evaluate(pairs).curves, evaluate(shuffled).curves)


@RELAXED
@given(image_pairs())
def test_an_image_without_anything_changes_nothing(pairs: list[ImagePair]) -> None:
    void = EntityMap.from_array([[0]])
    more = [*pairs, ImagePair("77", void, void, [])]
    assert_same_curves(evaluate(pairs).curves, evaluate(more).curves)


def test_by_hand(draw: Draw) -> None:
    """Two true entities, one found exactly and one not; one prediction is wrong."""
    pair = ImagePair("1", draw("1 1 . 2 2"), draw("1 1 2 . ."), [0.8, 0.9])
    ours = evaluate([pair])
    # the wrong one ranks first: precision 1/2 up to recall 1/2, that is at 51 of 101 points
    assert ours.scores.as_dict()["AP"] == pytest.approx(51 / 101 / 2)
    assert ours.scores.AR100 == 0.5
    assert ours.counts.as_dict() == {
        "images": 1,
        "truth": 2,
        "predicted": 2,
        "unmatched_truth": 1,
        "empty_predictions": 0,
        "predictions_beyond_100": 0,
        "images_without_truth": 0,
        "images_without_predictions": 0,
    }


def test_counts(draw: Draw) -> None:
    crumbs = EntityMap.from_array(np.arange(1, 131).reshape(10, 13))
    ghost = EntityMap.from_array([[1, 1]], entities=[1, 2])
    pairs = [
        ImagePair("1", draw("1 1\n. ."), draw(". .\n. ."), []),
        ImagePair("2", draw(". ."), ghost, [0.5, 0.4]),
        ImagePair("3", crumbs, crumbs, np.full(130, 0.5)),
        ImagePair("4", draw("9 9 1", crowds="9"), draw("1 1 2"), [0.5, 0.5]),
    ]
    counts = evaluate(pairs).counts
    assert (counts.images, counts.truth, counts.predicted) == (4, 132, 134)
    assert counts.unmatched_truth == 1 + 30
    assert counts.empty_predictions == 1
    assert counts.predictions_beyond_100 == 30
    assert (counts.images_without_truth, counts.images_without_predictions) == (1, 1)


def test_no_image_at_all_is_undefined() -> None:
    scores = evaluate([]).scores.as_dict()
    assert np.isnan(list(scores.values())).all()


def test_errors_name_the_image(draw: Draw) -> None:
    good = ImagePair("000139", draw("1 1"), draw("1 1"), [0.5])
    with pytest.raises(FormatError, match=r"score 7.0 .*\n  --> 000139"):
        evaluate([replace(good, scores=[7])])
    with pytest.raises(FormatError, match=r"has 2×1 pixels.*\n  --> 000139"):
        evaluate([replace(good, truth=draw("1\n1"))])
    with pytest.raises(MissingDataError, match="--> 000139"):
        evaluate([good], STRICT.with_annotated_sizes())


def test_truth_as_prediction_may_bring_its_crowds(draw: Draw) -> None:
    truth = draw("1 1 9 9\n2 2 9 .", crowds="9")
    for protocol in (STRICT, OFFICIAL):
        scores = evaluate([ImagePair("1", truth, truth, [1, 1])], protocol).scores.as_dict()
        assert scores["AP"] == pytest.approx(1, abs=1e-12)


def test_any_map_will_do(draw: Draw) -> None:
    pairs = [ImagePair(str(k), draw("1 1 2 2"), draw("1 2 2 2"), [0.5, k / 9]) for k in range(9)]
    whole = evaluate(pairs)
    with ThreadPoolExecutor(2) as pool:
        assert_same_curves(evaluate(pairs, mapper=pool.map).curves, whole.curves)
    # a fresh process knows nothing but what is sent
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawned) as other:
        assert_same_curves(evaluate(pairs, mapper=other.map).curves, whole.curves)


def test_a_map_may_return_images_in_any_order(draw: Draw) -> None:
    pairs = [ImagePair(str(k), draw("1 2"), draw("1 2"), [0.5, k / 9]) for k in range(9)]
    backwards = evaluate(pairs, mapper=lambda f, items: reversed([f(i) for i in items]))
    assert_same_curves(backwards.curves, evaluate(pairs).curves)


def test_pairs_are_consumed_one_at_a_time(draw: Draw) -> None:
    """Of a thousand images, no two are alive at once."""
    alive: set[int] = set()
    most = 0

    def images() -> object:
        for k in range(1000):
            yield ImagePair(str(k), draw("1 2"), draw("1 2"), [0.5, 0.5])

    def watched(function: Callable[[ImagePair], object], items: object) -> object:
        nonlocal most
        for pair in items:  # type: ignore[attr-defined]
            alive.add(id(pair))
            most = max(most, len(alive))
            yield function(pair)
            alive.discard(id(pair))

    evaluate(images(), mapper=watched)  # type: ignore[arg-type]
    assert most == 1


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = (
        "import sys, entitybench.metrics\n"
        "heavy = {'pandas', 'matplotlib', 'torch', 'sklearn', 'PIL.ImageQt'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
