"""COCO JSON as ground truth, with no conversion: rows 10 and 24 of the traps among it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from entitybench.cli import main
from entitybench.entity_map import EntityMap
from entitybench.entity_set import EntitySet, Provenance
from entitybench.entity_writer import EntityWriter
from entitybench.errors import FormatError, OverlapError
from entitybench.metrics.benchmark import evaluate
from entitybench.perturbation import Perturbation, perturb
from entitybench.registry import open_entity_set


@pytest.fixture
def truth(tmp_path: Path) -> EntitySet:
    rng = np.random.default_rng(0)
    with EntityWriter(tmp_path / "data" / "made_entity_val", kind="ground_truth") as writer:
        for number in range(4):
            ids = np.kron(rng.integers(0, 7, (6, 7)), np.ones((9, 9), dtype=int))
            writer.add(f"{number:06}", EntityMap.from_array(ids, crowds=[6]))
    return open_entity_set(tmp_path / "data" / "made_entity_val")


@pytest.fixture
def predictions(tmp_path: Path, truth: EntitySet) -> Path:
    with EntityWriter(tmp_path / "preds", model="m") as writer:
        for image in truth:
            rng = np.random.default_rng(int(image.id))
            writer.add(image.id, *perturb(image.map, rng, Perturbation(0.2, 0.2, 0.2, 1, 0.3)))
    return tmp_path / "preds"


def scores(predictions: Path, truth: str, data: Path | None = None) -> list[float]:
    return [*evaluate(predictions, truth, data=data).evaluation.scores.as_dict().values()]


def test_instance_json_scores_as_the_set_does(
    tmp_path: Path, truth: EntitySet, predictions: Path
) -> None:
    out = str(tmp_path / "gt.json")
    assert main(["export", "coco-instances", str(truth.path), "-o", out]) == 0
    direct = scores(predictions, out)
    np.testing.assert_array_equal(direct, scores(predictions, str(truth.path)))
    signature = evaluate(predictions, out).result.signature.metric
    assert "size:annotation" in signature


def test_panoptic_json_scores_as_the_set_does(
    tmp_path: Path, truth: EntitySet, predictions: Path
) -> None:
    out = tmp_path / "panoptic"
    assert main(["export", "coco-panoptic", str(truth.path), "-o", str(out)]) == 0
    (table,) = out.rglob("*.json")
    np.testing.assert_array_equal(
        scores(predictions, str(table)), scores(predictions, str(truth.path))
    )


def test_panoptic_json_tells_things_from_stuff(
    tmp_path: Path, truth: EntitySet, predictions: Path
) -> None:
    """As a set does that says the same; a file whose classes are all of things says nothing."""
    out = tmp_path / "panoptic"
    assert main(["export", "coco-panoptic", str(truth.path), "-o", str(out)]) == 0
    (table,) = out.rglob("*.json")
    assert "APthing" not in evaluate(predictions, str(table)).result.scores
    content = json.loads(table.read_text())
    content["categories"] = [
        {"id": 1, "name": "dog", "isthing": 1},
        {"id": 2, "name": "sky", "isthing": 0},
        {"id": 3, "name": "odd"},
    ]
    kinds = {1: True, 2: False, 3: None}
    said: dict[str, list[bool | None]] = {}
    for annotation in content["annotations"]:
        segments = annotation["segments_info"]
        for place, segment in enumerate(segments):
            segment["category_id"] = place % 3 + 1
        entities = [s for s in segments if not s["iscrowd"]]
        key = f"{annotation['image_id']:06}"
        said[key] = [kinds[s["category_id"]] for s in entities]
    table.write_text(json.dumps(content))
    with EntityWriter(tmp_path / "said", kind="ground_truth") as writer:
        for image in truth:
            origins = [Provenance(isthing=kind) for kind in said[image.id]]
            writer.add(image.id, image.map, entities=origins)
    direct, by_set = (
        evaluate(predictions, str(path)).result.scores for path in (table, tmp_path / "said")
    )
    for name in ("APthing", "APstuff", "ARthing", "ARstuff"):
        assert direct[name] == by_set[name]
    assert direct["ARthing"] != direct["ARstuff"]


def two_images(**more: Any) -> dict[str, Any]:
    """Two images of 40×40 with a block each; only the first is found."""
    block = np.zeros((40, 40), dtype=np.uint8)
    block[:20, :20] = 1
    rle = coco_mask.encode(np.asfortranarray(block))
    segmentation = {"size": [40, 40], "counts": rle["counts"].decode()}
    annotations = [
        {"id": n, "image_id": n, "category_id": 1, "segmentation": segmentation, "area": 400}
        | {"bbox": [0, 0, 20, 20], "iscrowd": 0}
        | more
        for n in (1, 2)
    ]
    return {
        "images": [{"id": n, "file_name": f"{n}.jpg", "width": 40, "height": 40} for n in (1, 2)],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "entity"}],
    }


def found_first(folder: Path, content: dict[str, Any]) -> tuple[Path, str]:
    segmentation = two_images()["annotations"][0]["segmentation"]
    result = {"image_id": 1, "category_id": 1, "segmentation": segmentation, "score": 0.9}
    (folder / "results.json").write_text(json.dumps([result]))
    (folder / "gt.json").write_text(json.dumps(content))
    return folder / "results.json", str(folder / "gt.json")


def test_row_10_an_annotations_ignore_has_no_effect(tmp_path: Path) -> None:
    content = two_images()
    content["annotations"][1]["ignore"] = 1
    assert round(scores(*found_first(tmp_path, content))[0], 6) == 0.504950


def test_row_24_without_iscrowd_it_is_no_crowd(tmp_path: Path) -> None:
    content = two_images()
    for annotation in content["annotations"]:
        del annotation["iscrowd"]
    assert round(scores(*found_first(tmp_path, content))[0], 6) == 0.504950


def test_row_24_without_area_it_is_refused(tmp_path: Path) -> None:
    content = two_images()
    del content["annotations"][1]["area"]
    with pytest.raises(FormatError, match="area") as caught:
        scores(*found_first(tmp_path, content))
    assert "gt.json" in str(caught.value)


def test_truth_that_overlaps_is_refused_with_the_hint(tmp_path: Path) -> None:
    content = two_images()
    content["annotations"][1]["image_id"] = 1
    with pytest.raises(OverlapError) as caught:
        scores(*found_first(tmp_path, content))
    assert "z-order" in str(caught.value)
