"""COCO results JSON: what is accepted, what is ignored, and every refusal."""

from __future__ import annotations

import gzip
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from entitybench.candidates import Candidates, OverlapPolicy, resolve
from entitybench.errors import FormatError, MissingDataError
from entitybench.formats.coco_results import CocoResults
from entitybench.formats.missing_score import MissingScore
from entitybench.formats.predictions import ImageSize

Rle = Callable[[Any], dict[str, Any]]
Write = Callable[[Any], Path]

LEFT = np.array([[1, 1, 1, 0, 0, 0]] * 4)
RIGHT = 1 - LEFT
EMPTY = np.zeros((4, 6), dtype=int)
TRUTH = ["000000000139", "000000000285", "street"]


def masks_of(candidates: Candidates) -> list[list[list[int]]]:
    """Draw each candidate, one at a time."""
    height, width = candidates.shape
    drawn = []
    for k in range(len(candidates)):
        flat = np.zeros(height * width, dtype=int)
        for run in range(candidates.offsets[k], candidates.offsets[k + 1]):
            flat[candidates.starts[run] : candidates.ends[run]] = 1
        drawn.append(flat.reshape(width, height).T.tolist())
    return drawn


def test_results_in_any_order_are_grouped_in_file_order(
    rle: Rle, write_results: Write, image: ImageSize
) -> None:
    path = write_results(
        [
            {"image_id": 139, "segmentation": rle(LEFT), "score": 0.25},
            {"image_id": "street", "segmentation": rle(LEFT), "score": 1},
            {"image_id": "000000000139", "segmentation": rle(RIGHT), "score": 0.75},
            {"image_id": 139, "segmentation": rle(EMPTY), "score": 0.5},
        ]
    )
    predictions = CocoResults(path, TRUTH)
    assert predictions.image_ids == {"000000000139", "street"}
    assert predictions.description == "COCO results JSON: 4 masks in 2 images"
    assert predictions.score_rule == "model"
    candidates = predictions.load(image)
    assert isinstance(candidates, Candidates)
    assert candidates.scores.tolist() == [0.25, 0.75, 0.5]
    assert masks_of(candidates) == [LEFT.tolist(), RIGHT.tolist(), EMPTY.tolist()]


def test_an_image_without_results_is_empty(write_results: Write, image: ImageSize) -> None:
    predictions = CocoResults(write_results([]), TRUTH)
    assert predictions.image_ids == frozenset()
    assert predictions.absent_means_empty
    candidates = predictions.load(image)
    assert isinstance(candidates, Candidates)
    assert len(candidates) == 0
    assert resolve(candidates).map.to_array().tolist() == EMPTY.tolist()


def test_wrapped_gzipped_and_other_keys_are_fine(
    rle: Rle, tmp_path: Path, image: ImageSize
) -> None:
    table = {
        "info": {"tool": "made"},
        "images": [{"id": 7, "file_name": "val/street.jpg"}],
        "annotations": [
            {
                "id": 3,
                "image_id": 139,
                "category_id": 18,
                "bbox": [0, 0, 1, 1],
                "area": 1,
                "iscrowd": 1,
                "segmentation": rle(LEFT),
                "score": 0.5,
            },
            {"image_id": 7, "segmentation": rle(RIGHT), "score": 0.5},
        ],
        "categories": [],
    }
    path = tmp_path / "predictions.json.gz"
    path.write_bytes(gzip.compress(json.dumps(table).encode()))
    predictions = CocoResults(path, TRUTH)
    assert predictions.image_ids == {"000000000139", "street"}  # 7 by its file's name
    candidates = predictions.load(image)
    assert isinstance(candidates, Candidates)
    assert candidates.areas.tolist() == [12]
    assert resolve(predictions.load(ImageSize("street", 6, 4))).map.areas.tolist() == [12, 12]  # type: ignore[arg-type]


def test_an_entry_crosses_a_process_border(
    rle: Rle, write_results: Write, image: ImageSize
) -> None:
    path = write_results([{"image_id": 139, "segmentation": rle(LEFT), "score": 0.5}])
    entry = pickle.loads(pickle.dumps(CocoResults(path, TRUTH).entry(image)))
    path.unlink()  # nothing is read again
    assert masks_of(entry.load()) == [LEFT.tolist()]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.integers(0, 2**32))
def test_masks_are_those_of_pycocotools(tmp_path: Path, seed: int) -> None:
    """Any mixture of the three kinds of segmentation, decoded as `annToMask` does."""
    rng = np.random.default_rng(seed)
    height, width = (int(side) for side in rng.integers(1, 30, 2))
    results, expected = [], []
    for kind in rng.integers(0, 3, int(rng.integers(1, 8))):
        mask = np.asfortranarray(rng.random((height, width)) < rng.random(), dtype=np.uint8)
        compressed = coco_mask.encode(mask)
        segmentation: Any = {"size": [height, width], "counts": compressed["counts"].decode()}
        if kind == 1:
            edges = np.flatnonzero(np.diff(mask.ravel(order="F").astype(int), prepend=0))
            counts = np.diff([0, *edges.tolist(), mask.size]).tolist()
            segmentation = {"size": [height, width], "counts": counts}
        if kind == 2:
            segmentation = [(rng.random(8) * (max(height, width) + 2)).tolist()]
            mask = coco_mask.decode(coco_mask.frPyObjects(segmentation, height, width))[:, :, 0]
        results.append({"image_id": 1, "segmentation": segmentation, "score": float(rng.random())})
        expected.append(mask.tolist())
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results))
    candidates = CocoResults(path, ["1"]).load(ImageSize("1", width, height))
    assert isinstance(candidates, Candidates)
    assert masks_of(candidates) == expected
    assert candidates.scores.tolist() == [result["score"] for result in results]


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ({"size": [6, 4], "counts": [24]}, r"RLE size \[6, 4\] is not the image's \[4, 6\]"),
        ({"size": [4, 6], "counts": "8"}, "counts sum to 8, the image has 24 pixels"),
        ({"size": [4, 6], "counts": "`0X"}, "ends inside a number"),
        ({"size": [4, 6], "counts": [30, -6]}, "a negative number"),
        ({"size": [4, 6], "counts": "h i"}, "a character that is not RLE"),
        ([[0, 0, 1]], "three points or more"),
        ("rle", "RLE or polygons"),
        (None, "RLE or polygons"),
    ],
)
def test_a_damaged_segmentation_names_its_result(
    rle: Rle, write_results: Write, image: ImageSize, segmentation: Any, message: str
) -> None:
    path = write_results(
        [
            {"image_id": 285, "segmentation": rle(LEFT), "score": 0.5},
            {"image_id": 139, "segmentation": rle(LEFT), "score": 0.5},
            {"image_id": 139, "segmentation": segmentation, "score": 0.5},
        ]
    )
    with pytest.raises(FormatError, match=message) as caught:
        CocoResults(path, TRUTH).load(image)
    assert caught.value.where == (f"{path}: $[2] (image 000000000139)",)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_score_that_is_no_number_names_its_result(
    rle: Rle, write_results: Write, bad: float
) -> None:
    good = {"image_id": 139, "segmentation": rle(LEFT), "score": 0.5}
    path = write_results([good, good | {"score": bad}])
    with pytest.raises(FormatError, match="which is not JSON") as caught:
        CocoResults(path, TRUTH)
    assert caught.value.where == (f"{path}: $[1].score",)
    assert "[0, 1]" in caught.value.hint


@pytest.mark.parametrize("bad", [-0.01, 1.01, 87])
def test_a_score_out_of_range_names_its_result(rle: Rle, write_results: Write, bad: float) -> None:
    good = {"image_id": 139, "segmentation": rle(LEFT), "score": 0.5}
    path = write_results({"annotations": [good, good | {"score": bad}]})
    with pytest.raises(FormatError, match=r"is not in \[0, 1\]") as caught:
        CocoResults(path, TRUTH)
    assert caught.value.where == (f"{path}: $.annotations[1]",)


def test_a_score_too_large_for_a_float_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text('[{"image_id": 139, "segmentation": [], "score": 1e999}]')
    with pytest.raises(FormatError, match="number out of range") as caught:
        CocoResults(path, TRUTH)
    assert caught.value.where == (f"{path}: $[0].score",)


def test_unknown_images_are_counted_and_three_shown(rle: Rle, write_results: Write) -> None:
    ids = [139, 1, 2, "none", 1, 4, 285]
    path = write_results([{"image_id": i, "segmentation": rle(LEFT), "score": 1} for i in ids])
    with pytest.raises(FormatError) as caught:
        CocoResults(path, TRUTH)
    assert str(caught.value) == (
        "4 images are unknown to the ground truth, which has 3\n"
        f"  --> {path}: image 1\n"
        f"  --> {path}: image 2\n"
        f"  --> {path}: image none\n"
        "  --> and 1 more\n"
        "\n"
        "hint: are these the predictions of another dataset or split?"
    )


@pytest.mark.parametrize(
    ("text", "message", "where"),
    [
        ("", "not JSON: it ends in the middle, at byte 0", ""),
        ('[{"image_id": 139', "not JSON: it ends in the middle, at byte 17", ""),
        ("image_id,score\n", r"not JSON: invalid character \(byte 0\)", ""),
        ('[{"image_id": x}]', r"not JSON: invalid character \(byte 14\)", ""),
        ("[" * 30, "expected `object`, got `array`", ": $[0]"),
        ('[{"image_id": 139, "segmentation": ' + "[" * 10_000, "not JSON", ""),
        ('[{"image_id": 139, "score": 1}]', "missing required field `segmentation`", ": $[0]"),
        ('[{"segmentation": [], "score": 1}]', "missing required field `image_id`", ": $[0]"),
        ('[{"image_id": 1.5, "segmentation": []}]', "got `float`", ": $[0].image_id"),
        ('[{"image_id": 1, "segmentation": [], "score": "1"}]', "got `str`", ": $[0].score"),
    ],
)
def test_what_is_not_json_or_not_results_is_refused(
    tmp_path: Path, text: str, message: str, where: str
) -> None:
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(FormatError, match=message) as caught:
        CocoResults(path, TRUTH)
    assert caught.value.where == (f"{path}{where}",)


def test_text_that_is_not_utf8_and_broken_gzip_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_bytes(b'[{"image_id": "\xff", "segmentation": []}]')
    with pytest.raises(FormatError, match="not JSON: 'utf-8' codec"):
        CocoResults(path, TRUTH)
    packed = tmp_path / "results.json.gz"
    for data in (b"[]", gzip.compress(b"[]" * 500)[:-10]):
        packed.write_bytes(data)
        with pytest.raises(FormatError, match="not a readable gzip"):
            CocoResults(packed, TRUTH)
    with pytest.raises(MissingDataError, match="no file"):
        CocoResults(tmp_path / "absent.json", TRUTH)


def test_missing_scores_are_refused_and_the_choices_named(rle: Rle, write_results: Write) -> None:
    scored = {"image_id": 139, "segmentation": rle(LEFT), "score": 0.5}
    unscored = {"image_id": 139, "segmentation": rle(RIGHT)}
    path = write_results([scored, unscored, unscored | {"score": None}])
    with pytest.raises(MissingDataError) as caught:
        CocoResults(path, TRUTH)
    assert caught.value.what == "2 of 3 predicted entities have no score"
    assert caught.value.where == (str(path),)
    for choice in ("--missing-score constant", "area", "mean-prob", "ranks entities by score"):
        assert choice in caught.value.hint
    with pytest.raises(MissingDataError, match="mean-prob` needs probabilities"):
        CocoResults(path, TRUTH, MissingScore.MEAN_PROB)


def test_missing_scores_follow_the_rule(rle: Rle, write_results: Write, image: ImageSize) -> None:
    corner = EMPTY.copy()
    corner[:2, :3] = 1
    path = write_results(
        [
            {"image_id": 139, "segmentation": rle(mask)} | score
            for mask, score in [(LEFT, {}), (corner, {"score": 0.125}), (corner, {}), (EMPTY, {})]
        ]
    )
    area = CocoResults(path, TRUTH, MissingScore.AREA)
    assert area.score_rule == "model, else area"
    candidates = area.load(image)
    assert isinstance(candidates, Candidates)
    assert candidates.scores.tolist() == [12 / 24, 0.125, 6 / 24, 0]
    constant = CocoResults(path, TRUTH, MissingScore.CONSTANT).load(image)
    assert isinstance(constant, Candidates)
    assert constant.scores.tolist() == [1, 0.125, 1, 1]
    alone = write_results([{"image_id": 139, "segmentation": rle(LEFT)}])
    assert CocoResults(alone, TRUTH, MissingScore.CONSTANT).score_rule == "constant"


def test_overlapping_results_stay_overlapping_until_resolved(
    rle: Rle, write_results: Write, image: ImageSize
) -> None:
    middle = np.roll(LEFT, 2, axis=1)
    path = write_results(
        [
            {"image_id": 139, "segmentation": rle(m), "score": s}
            for m, s in [(LEFT, 0.5), (middle, 0.75)]
        ]
    )
    candidates = CocoResults(path, TRUTH).load(image)
    assert isinstance(candidates, Candidates)
    done = resolve(candidates, OverlapPolicy.RESOLVE)
    assert done.overlap.pixels == [4]
    assert done.map.to_array().tolist() == [[1, 1, 2, 2, 2, 0]] * 4


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_sa_v_masks_are_those_of_pycocotools(realdata: Path, tmp_path: Path) -> None:
    """Real masks of video frames, as the SAM tools write them."""
    file = realdata / "extras" / "sa_v_example" / "sav_000001_manual.json"
    frames = json.loads(file.read_text())["masklet"]
    results, expected = [], []
    for number, frame in enumerate(frames[:2]):
        for mask in frame:
            size, counts = mask["size"], mask["counts"]
            results.append(
                {"image_id": number, "segmentation": {"size": size, "counts": counts}, "score": 1}
            )
            expected.append(coco_mask.decode({"size": size, "counts": counts.encode()}))
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results))
    predictions = CocoResults(path, ["0", "1"])
    height, width = expected[0].shape
    found = []
    for stem in ("0", "1"):
        candidates = predictions.load(ImageSize(stem, width, height))
        assert isinstance(candidates, Candidates)
        found += masks_of(candidates)
    assert len(found) == len(expected) > 0
    for mine, theirs in zip(found, expected, strict=True):
        assert np.array_equal(mine, theirs)
