"""detectron2's outputs, written as its predictor and its evaluators write them."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from entitybench.candidates import Candidates
from entitybench.errors import FormatError, MissingDataError
from entitybench.formats.detection import open_predictions
from entitybench.formats.detectron2_panoptic import Detectron2Panoptic
from entitybench.formats.duplicates import DuplicateRule, Duplicates
from entitybench.formats.labelled_results import open_coco, open_detectron2
from entitybench.formats.missing_score import MissingScore
from entitybench.formats.predictions import ImageSize, ScoredMap

RLE = Callable[[NDArray[Any]], dict[str, Any]]
IDS = ["000000000139", "000000000285"]
MAP = [[1, 1, 1, 0, 0, 0], [1, 1, 1, 0, 0, 0], [2, 2, 2, 2, 2, 2], [2, 2, 2, 2, 2, 2]]
# PanopticFPN: things carry a score, stuff carries an area
INFOS: list[dict[str, Any]] = [
    {"id": 1, "isthing": True, "score": 0.9, "category_id": 17, "instance_id": 0},
    {"id": 2, "isthing": False, "category_id": 40, "area": 12},
]
SCORED = [INFOS[0], {**INFOS[1], "score": 0.25}]


def pair(infos: Any, ids: Any = MAP) -> tuple[torch.Tensor, Any]:
    return torch.tensor(ids, dtype=torch.int32), infos


def flat(path: Path, image: ImageSize, rule: MissingScore = MissingScore.ERROR) -> ScoredMap:
    found = open_predictions(path, image_ids=IDS, missing_score=rule)
    assert isinstance(found, Detectron2Panoptic)
    loaded = pickle.loads(pickle.dumps(found.entry(image))).load()
    assert isinstance(loaded, ScoredMap)
    return loaded


def save_npz(path: Path, infos: Any, ids: Any = MAP) -> None:
    np.savez(path, panoptic_seg=np.array(ids, np.int32), segments_info=json.dumps(infos))


@pytest.mark.parametrize(
    "content",
    [
        {139: pair(SCORED)},
        {"000000000139": pair(SCORED)},
        {139: {"panoptic_seg": pair(SCORED)}},
        [{"image_id": 139, "panoptic_seg": pair(SCORED)}],
    ],
)
def test_one_file_for_all_images(tmp_path: Path, image: ImageSize, content: Any) -> None:
    torch.save(content, tmp_path / "panoptic.pth")
    for path in (tmp_path, tmp_path / "panoptic.pth"):
        loaded = flat(path, image)
        np.testing.assert_array_equal(loaded.map.to_array(), MAP)
        assert loaded.scores.tolist() == [0.9, 0.25]


def test_one_file_for_each_image(tmp_path: Path, image: ImageSize) -> None:
    for folder, save in (("npz", save_npz), ("pth", None)):
        (tmp_path / folder).mkdir()
        for image_id in IDS:
            path = tmp_path / folder / f"{image_id}.{folder}"
            if save:
                save(path, SCORED)
            else:
                torch.save(pair(SCORED), path)
        assert flat(tmp_path / folder, image).scores.tolist() == [0.9, 0.25]
        assert flat(tmp_path / folder / f"{IDS[0]}.{folder}", image).scores.size == 2


def test_stuff_without_score_is_refused_or_filled(tmp_path: Path, image: ImageSize) -> None:
    torch.save({139: pair(INFOS)}, tmp_path / "p.pth")
    with pytest.raises(MissingDataError, match=r"1 of 2 segments have no score"):
        flat(tmp_path, image)
    found = open_predictions(tmp_path, image_ids=IDS, missing_score=MissingScore.AREA)
    assert found.score_rule == "model, else area"
    loaded = found.load(image)
    assert isinstance(loaded, ScoredMap)
    assert loaded.scores.tolist() == [0.9, 12 / 24]


def test_without_a_table_zero_is_a_segment_and_minus_one_is_void(
    tmp_path: Path, image: ImageSize
) -> None:
    """Panoptic-DeepLab: id = category × 1000 + instance; category 0, instance 0 is a region."""
    ids = np.full((4, 6), -1)
    ids[0], ids[1], ids[2] = 0, 11001, 11002
    torch.save({139: (torch.tensor(ids), None)}, tmp_path / "p.pth")
    loaded = flat(tmp_path, image, MissingScore.CONSTANT)
    assert loaded.map.areas.tolist() == [6, 6, 6, 6]
    np.testing.assert_array_equal(loaded.map.to_array()[:, 0], [1, 2, 3, 0])
    save_npz(tmp_path / "139.npz", None, ids)
    again = flat(tmp_path / "139.npz", image, MissingScore.CONSTANT)
    assert again.map == loaded.map
    with pytest.raises(MissingDataError, match="maps without a table have no score"):
        flat(tmp_path / "139.npz", image)


def test_a_listed_zero_is_a_segment(tmp_path: Path, image: ImageSize) -> None:
    table = [{"id": 0, "score": 0.5}, {"id": 1, "score": 0.6}, {"id": 2, "score": 0.7}]
    torch.save({139: pair(table)}, tmp_path / "p.pth")
    assert flat(tmp_path, image).map.areas.tolist() == [0, 6, 6, 12]


def test_an_image_with_nothing_in_it(tmp_path: Path, image: ImageSize) -> None:
    torch.save({139: pair([], np.zeros((4, 6)))}, tmp_path / "p.pth")
    assert flat(tmp_path, image).map.num_entities == 0


@pytest.mark.parametrize(
    ("infos", "ids", "message"),
    [
        (SCORED[:1], MAP, "ids in the map that nothing lists: 2"),
        (SCORED, [[1, 2]], "the prediction is 2×1, the image is 6×4"),
        (SCORED, [[[1, 2]]], "expected a map"),
        (SCORED, np.full((4, 6), 0.5), "not whole numbers"),
        (SCORED, np.full((4, 6), np.nan), "not whole numbers"),
    ],
)
def test_a_map_that_is_not_what_its_table_says(
    tmp_path: Path, image: ImageSize, infos: Any, ids: Any, message: str
) -> None:
    torch.save({139: (torch.tensor(np.array(ids)), infos)}, tmp_path / "p.pth")
    with pytest.raises(FormatError, match=message) as caught:
        flat(tmp_path, image)
    assert str(tmp_path / "p.pth") in caught.value.where[0]


@pytest.mark.parametrize(
    ("infos", "message"),
    [
        ([SCORED[0], {**SCORED[1], "id": 1}], "segment id 1 is listed twice"),
        ([{"id": 1, "score": 1.5}], r"score 1\.5 is not in \[0, 1\]"),
        ([{"score": 0.5}], "not a list of segments"),
        ("person", "not a list of segments"),
    ],
)
def test_a_broken_table(tmp_path: Path, image: ImageSize, infos: Any, message: str) -> None:
    torch.save({139: pair(infos)}, tmp_path / "p.pth")
    with pytest.raises(FormatError, match=message):
        flat(tmp_path, image)


def test_images_that_nobody_knows_or_that_come_twice(tmp_path: Path, image: ImageSize) -> None:
    torch.save({7: pair(SCORED)}, tmp_path / "p.pth")
    with pytest.raises(FormatError, match="1 image is unknown to the ground truth"):
        flat(tmp_path, image)
    torch.save({139: pair(SCORED), "000000000139": pair(SCORED)}, tmp_path / "p.pth")
    with pytest.raises(FormatError, match="image `000000000139` is there twice"):
        flat(tmp_path, image)


def test_an_absent_image_is_missing(tmp_path: Path) -> None:
    torch.save({139: pair(SCORED)}, tmp_path / "p.pth")
    found = open_predictions(tmp_path, image_ids=IDS)
    assert found.image_ids == {"000000000139"}
    with pytest.raises(MissingDataError, match="no predictions for image `000000000285`"):
        found.entry(ImageSize("000000000285", 6, 4))


# --- instances_predictions.pth -------------------------------------------------


def results(rle: RLE, image_id: int = 139) -> list[dict[str, Any]]:
    """One region under two labels, and a piece of it: as per-class suppression leaves it."""
    whole, piece = np.zeros((4, 6)), np.zeros((4, 6))
    whole[:2], piece[0, :2] = 1, 1
    rows = [(whole, 3, 0.9), (whole, 7, 0.8), (whole, 3, 0.7), (piece, 3, 0.6)]
    return [
        {
            "image_id": image_id,
            "category_id": category,
            "bbox": [0.0, 0.0, 6.0, 2.0],
            "score": score,
            "segmentation": rle(mask),
        }
        for mask, category, score in rows
    ]


def scores(path: Path, image: ImageSize, rule: str, opened: Any = open_detectron2) -> list[float]:
    reader = opened(path, IDS, MissingScore.ERROR, Duplicates(DuplicateRule(rule)))
    loaded = pickle.loads(pickle.dumps(reader.entry(image))).load()
    assert isinstance(loaded, Candidates)
    found: list[float] = loaded.scores.tolist()
    return found


def test_instances_and_both_rules_for_duplicates(
    tmp_path: Path, image: ImageSize, rle: RLE
) -> None:
    path = tmp_path / "instances_predictions.pth"
    torch.save([{"image_id": 139, "instances": results(rle)}], path)
    found = open_predictions(path, image_ids=IDS)
    assert found.description == "detectron2 instances: 4 masks of 2 classes in 1 images"
    assert scores(path, image, "keep") == [0.9, 0.8, 0.7, 0.6]
    assert scores(path, image, "per-class") == [0.9, 0.8, 0.6]
    assert scores(path, image, "agnostic") == [0.9, 0.6]


def test_coco_results_with_the_same_rules(tmp_path: Path, image: ImageSize, rle: RLE) -> None:
    path = tmp_path / "results.json"
    for content in (results(rle), {"annotations": results(rle)}):
        path.write_text(json.dumps(content))
        assert scores(path, image, "per-class", open_coco) == [0.9, 0.8, 0.6]
        assert scores(path, image, "agnostic", open_coco) == [0.9, 0.6]
    reader = open_coco(path, IDS)
    assert reader.absent_means_empty
    assert len(reader.load(ImageSize("000000000285", 6, 4)).scores) == 0


def test_an_image_without_instances_is_listed(tmp_path: Path, rle: RLE) -> None:
    path = tmp_path / "instances_predictions.pth"
    torch.save(
        [{"image_id": 139, "instances": results(rle)}, {"image_id": 285, "instances": []}], path
    )
    found = open_detectron2(path, IDS)
    assert found.image_ids == set(IDS)
    assert not found.absent_means_empty
    assert len(found.load(ImageSize("000000000285", 6, 4)).scores) == 0


def test_per_class_needs_classes(tmp_path: Path, image: ImageSize, rle: RLE) -> None:
    path = tmp_path / "results.json"
    bare = [{k: v for k, v in row.items() if k != "category_id"} for row in results(rle)]
    path.write_text(json.dumps(bare))
    with pytest.raises(FormatError, match="4 of 4 masks have no `category_id`"):
        scores(path, image, "per-class", open_coco)
    assert scores(path, image, "agnostic", open_coco) == [0.9, 0.6]


def test_broken_instances(tmp_path: Path, image: ImageSize, rle: RLE) -> None:
    path = tmp_path / "instances_predictions.pth"
    one = {"image_id": 139, "instances": results(rle)}
    torch.save([one, one], path)
    with pytest.raises(FormatError, match="image `000000000139` is there twice"):
        open_detectron2(path, IDS)
    torch.save([{"image_id": 139, "instances": [{"bbox": [0, 0, 1, 1]}]}], path)
    with pytest.raises(FormatError, match="not detectron2's list of images"):
        open_detectron2(path, IDS)
    torch.save([{"image_id": 1, "instances": []}], path)
    with pytest.raises(FormatError, match="unknown to the ground truth"):
        open_detectron2(path, IDS)
    bad = {**results(rle)[0], "segmentation": {"size": [6, 4], "counts": [24]}}
    torch.save([{"image_id": 139, "instances": [bad]}], path)
    with pytest.raises(FormatError, match="is not the image's"):
        open_detectron2(path, IDS).load(image)
    torch.save([{"image_id": 139, "instances": [{**results(rle)[0], "score": 2.0}]}], path)
    with pytest.raises(FormatError, match="not in"):
        open_detectron2(path, IDS)


def test_proposals_are_objects_and_refused(tmp_path: Path) -> None:
    path = tmp_path / "instances_predictions.pth"
    proposals = torch.nn.Identity()  # stands for detectron2's `Instances`
    torch.save([{"image_id": 139, "instances": [], "proposals": proposals}], path)
    with pytest.raises(FormatError, match="may run code"):
        open_detectron2(path, IDS)
