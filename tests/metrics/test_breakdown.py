"""Boxes, origins, masks before flattening: against pycocotools, which knows nothing of maps."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from entitybench.candidates import Candidates, OverlapPolicy, resolve
from entitybench.entity_map import EntityMap
from entitybench.errors import FormatError, MissingDataError
from entitybench.metrics import OFFICIAL, STRICT, ImagePair, MatchRecords, accumulate, evaluate
from entitybench.metrics.boxes import box_records
from entitybench.metrics.breakdown import further_scores, recall_by_relative_area
from entitybench.metrics.origins import origin_columns
from entitybench.metrics.overlapping import mask_contingency, match_overlapping
from entitybench.metrics.ranking import RankedColumn
from entitybench.metrics.records import ImageKey
from entitybench.metrics.tables import STUFF, THING, UNKNOWN

Rows = list[dict[str, Any]]


def pycocotools(truth: Rows, results: Rows, shape: tuple[int, int], kind: str) -> COCOeval:
    """Evaluate rows whose `image_id` counts from 0."""
    count = 1 + max([0, *(row["image_id"] for row in [*truth, *results])])
    ground, found = COCO(), COCO()
    ground.dataset = {
        "images": [{"id": n, "height": shape[0], "width": shape[1]} for n in range(count)],
        "annotations": [{"category_id": 1, "id": n, **r} for n, r in enumerate(truth, 1)],
        "categories": [{"id": 1, "name": "entity"}],
    }
    found.dataset = {
        **ground.dataset,
        "annotations": [
            {"category_id": 1, "id": n, "iscrowd": 0, **r} for n, r in enumerate(results, 1)
        ],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        ground.createIndex()
        found.createIndex()
        run = COCOeval(ground, found, kind)
        run.evaluate()
        run.accumulate()
    return run


def rle(mask: NDArray[np.bool_]) -> Any:
    return coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))


def box_of(mask: NDArray[np.bool_], shorter: int = 0) -> list[int]:
    if not mask.any():
        return [0, 0, 0, 0]
    y, x = np.nonzero(mask)
    left, top = int(x.min()), int(y.min())
    return [left, top, int(x.max()) + 1 - left - shorter, int(y.max()) + 1 - top - shorter]


def random_pair(random: np.random.Generator, number: int, size: int = 3) -> ImagePair:
    truth = np.kron(random.integers(0, 8, (4, 5)), np.ones((size, size), dtype=int))
    noisy = np.where(random.random(truth.shape) < 0.1, random.integers(0, 8, truth.shape), truth)
    found = np.where(random.random(truth.shape) < 0.5, noisy, np.roll(noisy, 1, axis=1))
    crowds = [7] if (truth == 7).any() else []
    prediction = EntityMap.from_array(found)
    scores = random.random(prediction.num_entities).round(1)
    return ImagePair(str(number), EntityMap.from_array(truth, crowds=crowds), prediction, scores)


def assert_curves(records: MatchRecords, run: COCOeval) -> None:
    precision, recall, _ = accumulate(records).with_coco_sentinels()
    np.testing.assert_array_equal(precision, run.eval["precision"][:, :, 0])
    np.testing.assert_array_equal(recall, run.eval["recall"][:, 0])


# --- boxes ---


def box_rows(pairs: Sequence[ImagePair], protocol: Any) -> tuple[Rows, Rows]:
    official = protocol is OFFICIAL
    truth: Rows = []
    results: Rows = []
    for number, pair in enumerate(pairs):
        dense, found = pair.truth.to_array(), pair.prediction.to_array()
        last = pair.truth.num_entities if official else pair.truth.num_ids
        for i in range(1, last + 1):
            box = box_of(dense == i, int(official))
            truth.append(
                {
                    "image_id": number,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": int(i > pair.truth.num_entities),
                }
            )
        for i, score in enumerate(np.asarray(pair.scores).tolist(), 1):
            box = box_of(found == i, int(official))
            row = {"image_id": number, "bbox": box, "area": box[2] * box[3], "score": score}
            results.append(row)
    return truth, results


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([STRICT, OFFICIAL]), st.sampled_from([2, 14]))
def test_boxes_are_those_of_pycocotools(seed: int, protocol: Any, size: int) -> None:
    random = np.random.default_rng(seed)
    pairs = [random_pair(random, number, size) for number in range(4)]
    run = pycocotools(*box_rows(pairs, protocol), pairs[0].truth.shape, "bbox")
    assert_curves(box_records(evaluate(pairs, protocol).records), run)


def test_a_frame_and_its_picture_have_one_box() -> None:
    """Entities that share no pixel may share a box: only the better ranked one is matched."""
    ids = np.ones((5, 5), dtype=int)
    ids[1:4, 1:4] = 2
    truth = EntityMap.from_array(ids, entities=[1], void=[2])
    corners = np.where((np.add.outer(range(5), range(5)) % 2) == 0, ids, 3)
    found = EntityMap.from_array(corners, entities=[1, 3], void=[2])
    records = evaluate([ImagePair("1", truth, found, [0.8, 0.9])]).records
    assert box_records(records).matched[:, 0].tolist() == [1023, 0]


# --- origins ---


def with_origins(records: MatchRecords, origins: Sequence[int]) -> MatchRecords:
    assert records.tables is not None
    tables = records.tables.with_origins(np.array(origins, dtype=np.int8))
    return replace(records, tables=tables)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([STRICT, OFFICIAL]))
def test_origins_are_area_ranges_to_pycocotools(seed: int, protocol: Any) -> None:
    """Truth of the other origin gets a size beyond all ranges: that is what ignores it."""
    random = np.random.default_rng(seed)
    pairs = [random_pair(random, number) for number in range(4)]
    records = evaluate(pairs, protocol).records
    origins = random.integers(-1, 2, len(records.truth_sizes))
    known = with_origins(records, origins.tolist())
    columns, scores = origin_columns(known), further_scores(known)
    for name, origin in (("thing", THING), ("stuff", STUFF)):
        truth, results, row = [], [], 0
        for number, pair in enumerate(pairs):
            dense, found = pair.truth.to_array(), pair.prediction.to_array()
            crowds = range(pair.truth.num_entities + 1, pair.truth.num_ids + 1)
            for i in [
                *range(1, pair.truth.num_entities + 1),
                *(crowds if protocol is STRICT else ()),
            ]:
                crowd = i > pair.truth.num_entities
                other = not crowd and origins[row] != origin
                row += not crowd
                mask = {"segmentation": rle(dense == i), "iscrowd": int(crowd)}
                truth.append({"image_id": number, "area": 1e11 if other else 1.0, **mask})
            for i, score in enumerate(np.asarray(pair.scores).tolist(), 1):
                mask = {"segmentation": rle(found == i), "area": 1.0}
                results.append({"image_id": number, "score": score, **mask})
        run = pycocotools(truth, results, pairs[0].truth.shape, "segm")
        expected = run.eval["precision"][:, :, 0, 0, 2]
        ours = RankedColumn(records, columns[name]).precision(np.ones(len(records)))
        np.testing.assert_array_equal(np.nan_to_num(ours, nan=-1), expected)
        recall = run.eval["recall"][:, 0, 0, 2].mean()
        for score, theirs in ((f"AP{name}", expected.mean()), (f"AR{name}", recall)):
            value = scores.get(score, math.nan)  # none where no entity has an origin
            assert np.nan_to_num(value, nan=-1) == pytest.approx(theirs, abs=1e-14)


def test_two_equal_halves_of_different_origin() -> None:
    """A prediction that is the union of both is matched to whichever counts."""
    truth = EntityMap.from_array([[1, 2]])
    records = evaluate([ImagePair("1", truth, EntityMap.from_array([[1, 1]]), [0.9])]).records
    scores = further_scores(with_origins(records, [THING, STUFF]))
    assert scores["ARthing"] == scores["ARstuff"] == 0.1


def test_without_origins_there_is_no_such_score() -> None:
    truth = EntityMap.from_array([[1, 2]])
    records = evaluate([ImagePair("1", truth, truth, [0.9, 0.8])]).records
    assert "APthing" not in further_scores(records)
    known = further_scores(with_origins(records, [THING, UNKNOWN]))
    assert known["APthing"] == pytest.approx(1)
    assert math.isnan(known["APstuff"])


# --- before flattening ---


def random_candidates(
    random: np.random.Generator, truth: EntityMap, *, column_major: bool
) -> tuple[Candidates, NDArray[np.bool_]]:
    dense, masks = truth.to_array(), []
    for _ in range(int(random.integers(1, 9))):
        wanted = random.integers(1, truth.num_ids + 1, 2)
        mask = np.isin(dense, wanted) if random.random() < 0.5 else dense == wanted[0]
        masks.append(
            np.roll(mask, random.integers(-1, 2), axis=1) & (random.random(dense.shape) < 0.9)
        )
    stack = np.array(masks)
    scores = random.random(len(masks)).round(1)
    if not column_major:
        return Candidates.from_masks(stack, scores), stack
    texts = [rle(mask) for mask in stack]
    return Candidates.from_coco(truth.shape, texts, scores), stack


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_overlapping_masks_are_matched_as_pycocotools_does(seed: int, column_major: bool) -> None:
    random = np.random.default_rng(seed)
    truth_rows: Rows = []
    results: Rows = []
    matches = []
    for number in range(4):
        truth = random_pair(random, number).truth
        candidates, stack = random_candidates(random, truth, column_major=column_major)
        sizes = truth.areas[1 : truth.num_entities + 1].astype(float)
        own = match_overlapping(truth, candidates, sizes, STRICT)
        matches.append((ImageKey("", str(number)), own))
        dense = truth.to_array()
        for i in range(1, truth.num_ids + 1):
            crowd = int(i > truth.num_entities)
            mask = {"segmentation": rle(dense == i), "area": int((dense == i).sum())}
            truth_rows.append({"image_id": number, "iscrowd": crowd, **mask})
        for mask, score in zip(stack, candidates.scores.tolist(), strict=True):
            row = {"segmentation": rle(mask), "area": int(mask.sum()), "score": score}
            results.append({"image_id": number, **row})
    run = pycocotools(truth_rows, results, truth.shape, "segm")
    assert_curves(MatchRecords.gather(STRICT, matches), run)


def test_cells_of_masks_are_counted_pixel_by_pixel() -> None:
    random = np.random.default_rng(4)
    for column_major in (False, True):
        truth = random_pair(random, 0).truth
        candidates, stack = random_candidates(random, truth, column_major=column_major)
        table = mask_contingency(truth, candidates).to_array()
        for t in range(truth.num_ids + 1):
            for k, mask in enumerate(stack, start=1):
                assert table[t, k] == (mask & (truth.to_array() == t)).sum()


def test_masks_that_are_disjoint_match_as_their_map_does() -> None:
    random = np.random.default_rng(2)
    pair = random_pair(random, 1)
    stack = (
        pair.prediction.to_array() == np.arange(1, pair.prediction.num_entities + 1)[:, None, None]
    )
    candidates = Candidates.from_masks(stack, pair.scores)
    flat = resolve(candidates, OverlapPolicy.REJECT).map
    sizes = pair.truth.areas[1 : pair.truth.num_entities + 1].astype(float)
    loose = match_overlapping(pair.truth, candidates, sizes, STRICT)
    records = evaluate([replace(pair, prediction=flat)]).records
    assert loose.num_pixels == records.num_pixels[0]
    for name in ("matched", "ignored", "partners", "best_ious", "areas", "scores"):
        np.testing.assert_array_equal(getattr(loose, name), getattr(records, name))


def test_masks_of_another_size_are_refused() -> None:
    candidates = Candidates.from_masks(np.ones((1, 2, 2), dtype=bool), [1])
    with pytest.raises(FormatError, match="the prediction has 2×2 pixels, the truth has 3×2"):
        mask_contingency(EntityMap.from_array([[1, 1, 1], [1, 1, 1]]), candidates)


# --- recall by size ---


def test_recall_by_relative_area(paint: Callable[..., EntityMap]) -> None:
    """In 100 × 100: one pixel, 1 %, 20 %, and half of the image, which is found to IoU .8."""
    boxes = [(0, 0, 1, 1), (0, 10, 10, 10), (20, 0, 20, 100), (50, 0, 50, 100)]
    truth = paint((100, 100), *boxes)
    found = paint((100, 100), boxes[0], boxes[2], (50, 0, 40, 100))
    rows = recall_by_relative_area(evaluate([ImagePair("1", truth, found, [1, 1, 1])]).records)
    assert [(row.high, row.entities) for row in rows] == [
        (0.0001, 1), (0.001, 0), (0.01, 1), (0.1, 0), (1.0, 2),
    ]  # fmt: skip
    recalls = [row.recall for row in rows]
    assert recalls[0] == 1
    assert recalls[2] == 0
    assert recalls[4] == pytest.approx((1 + 0.7) / 2)
    assert math.isnan(recalls[1])


SIZES = [(1, 1), (3, 4), (2, 5), (10, 12), (7, 9), (30, 40), (33, 41), (80, 30)]
"""In 100 × 120 pixels: some lie on the borders of .1, 1 and 10 %."""


@pytest.mark.parametrize("seed", range(5))
def test_recall_by_relative_area_is_that_of_pycocotools_s_matches(
    seed: int, coco_reference: Any
) -> None:
    random, pairs = np.random.default_rng(seed), []
    for number in range(5):
        truth = np.zeros((100, 120), dtype=int)
        for entity, (height, width) in enumerate(sorted(SIZES, key=math.prod, reverse=True), 1):
            top, left = random.integers(0, (101 - height, 121 - width))
            truth[top : top + height, left : left + width] = entity
        found = np.where(random.random(truth.shape) < 0.9, truth, 0)
        prediction = EntityMap.from_array(np.roll(found, random.integers(-1, 2), axis=1))
        true_map = EntityMap.from_array(truth, crowds=[2] if (truth == 2).any() else [])
        scores = random.random(prediction.num_entities)
        pairs.append(ImagePair(str(number), true_map, prediction, scores))
    evaluator = coco_reference(pairs, STRICT).evaluator
    times: dict[float, list[float]] = {high: [] for high in (0.0001, 0.001, 0.01, 0.1, 1)}
    for image in evaluator.evalImgs[: len(pairs)]:  # those of all areas
        for column, entity in enumerate(image["gtIds"]):
            if not image["gtIgnore"][column]:
                share = evaluator.cocoGt.anns[entity]["area"] / 12000
                high = min(high for high in times if share <= high)
                times[high].append(float(np.mean(image["gtMatches"][:, column] > 0)))
    rows = recall_by_relative_area(evaluate(pairs).records)
    assert [(row.high, row.entities) for row in rows] == [(h, len(t)) for h, t in times.items()]
    for row, found_times in zip(rows, times.values(), strict=True):
        assert row.recall == pytest.approx(np.mean(found_times))
        assert found_times


def test_without_tables_only_ap_is_known() -> None:
    truth = EntityMap.from_array([[1, 2]])
    evaluation = evaluate([ImagePair("1", truth, truth, [0.9, 0.8])])
    bare = type(evaluation).of(replace(evaluation.records, tables=None))
    assert bare.all_scores() == bare.scores.as_dict()
    assert evaluation.all_scores()["PQ"] == 1
    with pytest.raises(MissingDataError, match="no contingency tables"):
        recall_by_relative_area(bare.records)
