"""Panoptic quality against panopticapi's rules written out pixel by pixel, and hotcoco's."""

from __future__ import annotations

import contextlib
import io
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hotcoco.panoptic import pq_compute
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from entitybench.entity_map import EntityMap
from entitybench.metrics import OFFICIAL, ImagePair, MatchRecords, evaluate
from entitybench.metrics.panoptic_quality import (
    PanopticQuality,
    panoptic_quality,
    panoptic_sums,
    quality_by_image,
)

Paint = Callable[..., EntityMap]


def slow_sums(pair: ImagePair) -> tuple[int, int, int, float]:
    """Masks, not tables: the rules as the paper and panopticapi state them."""
    truth, found = pair.truth.to_array(), pair.prediction.to_array()
    num_entities = pair.truth.num_entities
    void = truth == 0
    forgiven = void | (truth > num_entities)
    matched_truth, matched_found, total = set(), set(), 0.0
    for t in range(1, num_entities + 1):
        for p in range(1, pair.prediction.num_entities + 1):
            shared = np.logical_and(truth == t, found == p).sum()
            union = np.logical_or(truth == t, (found == p) & ~void).sum()
            if union and shared / union > 0.5:
                matched_truth.add(t)
                matched_found.add(p)
                total += shared / union
    spurious = 0
    for p in range(1, pair.prediction.num_entities + 1):
        area = (found == p).sum()
        if p not in matched_found and not (area and (forgiven & (found == p)).sum() / area > 0.5):
            spurious += 1
    return len(matched_truth), spurious, num_entities - len(matched_truth), total


def slow_quality(pairs: Sequence[ImagePair]) -> PanopticQuality:
    matched, spurious, missed, iou = np.sum(
        [slow_sums(pair) for pair in pairs] or [(0, 0, 0, 0)], axis=0
    )
    both = matched + 0.5 * spurious + 0.5 * missed
    return PanopticQuality(
        iou / both if both else math.nan,
        iou / matched if matched else math.nan,
        matched / both if both else math.nan,
    )


def quality(*pairs: ImagePair) -> PanopticQuality:
    return panoptic_quality(evaluate(pairs).records)


def pair_of(truth: EntityMap, prediction: EntityMap, number: int = 1) -> ImagePair:
    scores = np.linspace(0.1, 0.9, prediction.num_entities)
    return ImagePair(str(number), truth, prediction, scores)


def random_pair(random: np.random.Generator, number: int) -> ImagePair:
    """Blocks: IoUs and shares of exactly one half are common."""
    shape = random.integers(1, 5, 2)
    block = np.ones(random.integers(1, 4, 2), dtype=int)
    truth = np.kron(random.integers(0, 6, shape), block)
    moved = np.where(random.random(truth.shape) < 0.5, truth, np.roll(truth, 1, axis=1))
    found = np.where(random.random(truth.shape) < 0.2, random.integers(0, 9, truth.shape), moved)
    crowds = [c for c in (4, 5) if (truth == c).any()]
    return pair_of(EntityMap.from_array(truth, crowds=crowds), EntityMap.from_array(found), number)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 6))
def test_quality_is_that_of_the_rules(seed: int, count: int) -> None:
    random = np.random.default_rng(seed)
    pairs = [random_pair(random, number) for number in range(count)]
    records = evaluate(pairs).records
    ours, slow = panoptic_quality(records), slow_quality(pairs)
    for name in ("PQ", "SQ", "RQ"):
        np.testing.assert_allclose(getattr(ours, name), getattr(slow, name), rtol=1e-13)
    stacked = panoptic_sums(records).stacked()
    np.testing.assert_allclose(stacked, [slow_sums(p) for p in pairs] or np.zeros((0, 4)))


class TestByHand:
    def test_a_union_leaves_out_the_prediction_s_void(self, paint: Paint) -> None:
        """50 pixels of truth; the prediction covers them and 20 of void."""
        truth, found = paint((10, 10), (0, 0, 5, 10)), paint((10, 10), (0, 0, 7, 10))
        assert quality(pair_of(truth, found)) == PanopticQuality(1, 1, 1)

    def test_iou_of_exactly_one_half_is_no_match(self, paint: Paint) -> None:
        truth = paint((10, 10), (0, 0, 5, 10), (5, 0, 5, 10))
        both = paint((10, 10), (0, 0, 10, 10))
        assert panoptic_sums(evaluate([pair_of(truth, both)]).records).stacked().tolist() == [
            [0, 1, 2, 0]
        ]
        assert evaluate([pair_of(truth, both)]).scores.AP50 > 0  # to AP it is one

    @pytest.mark.parametrize(("height", "spurious"), [(4, 1), (5, 1), (6, 0)])
    def test_a_prediction_in_void_by_more_than_half_is_dropped(
        self, paint: Paint, height: int, spurious: int
    ) -> None:
        """Of 10 rows predicted, `height` lie in void, the others in an entity of 40."""
        truth = paint((50, 10), (height, 0, 40, 10))
        found = paint((50, 10), (0, 0, 10, 10))
        sums = panoptic_sums(evaluate([pair_of(truth, found)]).records)
        assert (sums.spurious.tolist(), sums.missed.tolist()) == ([spurious], [1])

    def test_void_and_several_crowds_count_together(self, paint: Paint) -> None:
        """A third in void, a third in each of two crowds; panopticapi sees one crowd alone."""
        truth = paint((9, 10), crowds=[(0, 0, 3, 10), (3, 0, 3, 10)])
        found = paint((9, 10), (0, 0, 9, 10))
        assert math.isnan(quality(pair_of(truth, found)).PQ)

    def test_a_crowd_is_neither_matched_nor_missed(self, paint: Paint) -> None:
        truth = paint((9, 10), crowds=[(0, 0, 9, 10)])
        assert math.isnan(quality(pair_of(truth, paint((9, 10)))).RQ)

    def test_a_prediction_without_a_pixel_is_spurious(self, paint: Paint) -> None:
        truth = paint((4, 4), (0, 0, 4, 4))
        found = EntityMap.from_array(np.ones((4, 4), dtype=int), entities=[1, 2])
        assert quality(pair_of(truth, found)).RQ == 2 / 3

    def test_undefined_and_zero(self, paint: Paint) -> None:
        empty, one = paint((4, 4)), paint((4, 4), (0, 0, 4, 4))
        assert math.isnan(quality().PQ)
        assert math.isnan(quality(pair_of(empty, empty)).PQ)
        nothing = quality(pair_of(one, empty))
        assert (nothing.PQ, nothing.RQ) == (0, 0)
        assert math.isnan(nothing.SQ)

    def test_it_does_not_depend_on_the_protocol_or_the_scores(self, paint: Paint) -> None:
        truth = paint((9, 10), (0, 0, 3, 10), crowds=[(3, 0, 3, 10)])
        found = paint((9, 10), (0, 0, 2, 10), (3, 0, 3, 10))
        strict, official = (
            panoptic_quality(evaluate([pair_of(truth, found)], *more).records)
            for more in ([], [OFFICIAL])
        )
        assert strict == official == quality(ImagePair("1", truth, found, [0, 0]))

    def test_more_than_a_hundred_predictions_all_count(self) -> None:
        ids = np.arange(1, 151).reshape(10, 15)
        truth = EntityMap.from_array(ids)
        assert quality(pair_of(truth, truth)) == PanopticQuality(1, 1, 1)


def test_images_alone_and_pooled(paint: Paint) -> None:
    one, half = paint((4, 4), (0, 0, 4, 4)), paint((4, 4), (0, 0, 3, 4))
    records = evaluate(
        [pair_of(one, one, 1), pair_of(one, half, 2), pair_of(one, paint((4, 4)), 3)]
    )
    assert quality_by_image(panoptic_sums(records.records))[0].tolist() == [1, 0.75, 0]
    assert panoptic_quality(records.records).PQ == 1.75 / 2.5


def test_a_subset_is_pooled_alone(paint: Paint) -> None:
    one = paint((4, 4), (0, 0, 4, 4))
    records = evaluate([pair_of(one, one, 1), pair_of(one, paint((4, 4)), 2)]).records
    assert panoptic_quality(records.take([0])).PQ == 1
    assert panoptic_quality(MatchRecords.merge([records.take([1])])).PQ == 0


# --- hotcoco ---


def write_panoptic(folder: Path, maps: Sequence[EntityMap], *, truth: bool) -> Path:
    """Write COCO panoptic files with one category, with nothing of our own."""
    png = folder / ("truth" if truth else "found")
    png.mkdir(parents=True)
    annotations = []
    for number, entity_map in enumerate(maps, start=1):
        dense = entity_map.to_array()
        channels = [dense & 255, dense >> 8 & 255, dense * 0]
        Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8)).save(png / f"{number}.png")
        segments = [
            {
                "id": int(i),
                "category_id": 1,
                "iscrowd": int(truth and i > entity_map.num_entities),
                "area": int((dense == i).sum()),
                "bbox": [0, 0, 1, 1],
            }
            for i in np.unique(dense)
            if i
        ]
        annotations.append(
            {"image_id": number, "file_name": f"{number}.png", "segments_info": segments}
        )
    content: dict[str, Any] = {
        "images": [
            {"id": n, "file_name": f"{n}.jpg", "height": m.shape[0], "width": m.shape[1]}
            for n, m in enumerate(maps, start=1)
        ],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "entity", "isthing": 1, "color": [1, 1, 1]}],
    }
    path = png.with_suffix(".json")
    path.write_text(json.dumps(content))
    return path


def hotcoco_quality(folder: Path, pairs: Sequence[ImagePair]) -> NDArray[np.float64]:
    truth = write_panoptic(folder, [pair.truth for pair in pairs], truth=True)
    found = write_panoptic(folder, [pair.prediction for pair in pairs], truth=False)
    with contextlib.redirect_stdout(io.StringIO()):
        results = pq_compute(str(truth), str(found))
    return np.array([results["All"][name] for name in ("pq", "sq", "rq")])


@pytest.mark.parametrize("seed", range(6))
def test_hotcoco_agrees(tmp_path: Path, seed: int) -> None:
    """With one crowd per image at most, where the rules are the same."""
    random = np.random.default_rng(seed)
    pairs = []
    for number in range(12):
        ids = np.kron(random.integers(0, 8, (6, 6)), np.ones((5, 6), dtype=int))
        moved = np.where(random.random(ids.shape) < 0.1, 0, np.roll(ids, 2, axis=1))
        crowds = [7] if (ids == 7).any() else []
        truth = EntityMap.from_array(ids, crowds=crowds)
        pairs.append(pair_of(truth, EntityMap.from_array(moved), number))
    ours = quality(*pairs)
    theirs = hotcoco_quality(tmp_path, pairs)
    np.testing.assert_allclose([ours.PQ, ours.SQ, ours.RQ], theirs, rtol=1e-12)
    assert 0.2 < ours.PQ < 0.95
