"""Entity sets as other tools read them: COCO instances and COCO panoptic."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pycocotools.coco import COCO

from entitybench.candidates import Candidates, resolve
from entitybench.entity_map import EntityMap
from entitybench.entity_set import Category, EntityImage, EntitySet, Provenance, open_path
from entitybench.entity_writer import EntityWriter
from entitybench.errors import ConflictError, FormatError
from entitybench.formats import coco_panoptic_export
from entitybench.formats.coco_instances_export import write_coco_instances
from entitybench.formats.coco_panoptic import (
    CocoPanoptic,
    read_panoptic_table,
    read_panoptic_truth,
)
from entitybench.formats.coco_panoptic_export import write_coco_panoptic
from entitybench.formats.coco_results import CocoResults
from entitybench.formats.predictions import ImageSize, ScoredMap

SIZES = {"000000000139": (9, 14), "000000000285": (20, 11), "000000001000": (1, 1)}


def ids_of(image_id: str) -> NDArray[np.int64]:
    height, width = SIZES[image_id]
    return np.random.default_rng(int(image_id)).integers(0, 6, (height, width))


def write_truth(path: Path, *, categories: bool = True, prefix: str = "") -> EntitySet:
    """Entities 1…4 of classes 7, 7, 3 and none, and a crowd."""
    known = [Category(7, "cat", True, "animal"), Category(3, "sky", False)] if categories else []
    with EntityWriter(
        path, kind="ground_truth", source="made", licence="CC0", categories=known
    ) as writer:
        for image_id in SIZES:
            entity_map = EntityMap.from_array(ids_of(image_id), entities=[5, 3, 1, 2], crowds=[4])
            origins = [Provenance(n, c) for n, c in [(50, 7), (30, 7), (10, 3), (20, None)]]
            writer.add(prefix + image_id, entity_map, entities=origins, crowds=[Provenance(40, 7)])
    return open_path(path)


def write_predictions(path: Path) -> EntitySet:
    """Five entities and one without a pixel; scores with all their digits."""
    with EntityWriter(path, model="mine") as writer:
        for image_id in SIZES:
            entity_map = EntityMap.from_array(ids_of(image_id), entities=[3, 9, 1, 2, 4, 5])
            scores = np.random.default_rng(1).random(6)
            writer.add(image_id, entity_map, scores)
    return open_path(path)


def sizes(entity_set: EntitySet) -> list[ImageSize]:
    return [ImageSize(row.id, row.width, row.height) for row in entity_set.rows()]


def exact_scores(image: EntityImage) -> list[float]:
    assert image.scores is not None
    return [float(score) for score in image.scores]


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def open_coco(path: Path) -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(path))


# --- instances -------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_pycocotools_reads_the_truth(tmp_path: Path) -> None:
    truth = write_truth(tmp_path / "truth")
    path = write_coco_instances(truth, tmp_path / "out" / "instances.json")
    coco = open_coco(path)
    assert coco.getCatIds() == [1]
    assert sorted(coco.getImgIds()) == [139, 285, 1000]
    assert sorted(coco.getAnnIds()) == list(range(1, 16))
    for image in truth:
        dense = image.map.to_array()
        annotations = coco.loadAnns(sorted(coco.getAnnIds(imgIds=int(image.id))))
        assert [a["iscrowd"] for a in annotations] == [0, 0, 0, 0, 1]
        for number, annotation in enumerate(annotations, start=1):
            assert np.array_equal(coco.annToMask(annotation), dense == number)
            assert annotation["area"] == (dense == number).sum()
            assert annotation["bbox"] == image.map.boxes[number].tolist()


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_pycocotools_reads_the_results(tmp_path: Path) -> None:
    truth = open_coco(
        write_coco_instances(write_truth(tmp_path / "truth"), tmp_path / "truth.json")
    )
    predictions = write_predictions(tmp_path / "mine")
    path = write_coco_instances(predictions, tmp_path / "results.json")
    with contextlib.redirect_stdout(io.StringIO()):
        results = truth.loadRes(str(path))
    for image in predictions:
        found = results.loadAnns(sorted(results.getAnnIds(imgIds=int(image.id))))
        assert [r["score"] for r in found] == exact_scores(image)
        assert [r["area"] for r in found] == image.map.areas[1:].tolist()
        dense = image.map.to_array()
        for number, result in enumerate(found, start=1):
            assert np.array_equal(truth.annToMask(result), dense == number)


def test_results_come_back_as_they_were(tmp_path: Path) -> None:
    predictions = write_predictions(tmp_path / "mine")
    path = write_coco_instances(predictions, tmp_path / "results.json")
    assert not any("bbox" in result for result in json.loads(path.read_text()))
    reader = CocoResults(path, predictions.ids)
    for size, image in zip(sizes(predictions), predictions, strict=True):
        candidates = reader.load(size)
        assert isinstance(candidates, Candidates)
        done = resolve(candidates)
        assert done.map == image.map
        assert done.scores.tolist() == exact_scores(image)


def test_stems_that_are_no_numbers_stay_as_they_are(tmp_path: Path) -> None:
    truth = write_truth(tmp_path / "truth", prefix="aachen_")
    table = json.loads(write_coco_instances(truth, tmp_path / "a.json").read_text())
    assert [image["id"] for image in table["images"]] == [f"aachen_{i}" for i in SIZES]
    assert table["images"][0] == {
        "id": "aachen_000000000139",
        "file_name": "aachen_000000000139.jpg",
        "width": 14,
        "height": 9,
    }
    assert {a["image_id"] for a in table["annotations"]} == set(truth.ids)


def test_an_empty_set_is_valid_json(tmp_path: Path) -> None:
    with EntityWriter(tmp_path / "none", model="mine"):
        pass
    with EntityWriter(tmp_path / "no_truth", kind="ground_truth"):
        pass
    results = write_coco_instances(open_path(tmp_path / "none"), tmp_path / "results.json")
    assert json.loads(results.read_text()) == []
    truth = write_coco_instances(open_path(tmp_path / "no_truth"), tmp_path / "truth.json")
    assert json.loads(truth.read_text())["annotations"] == []


def test_the_same_set_gives_the_same_bytes(tmp_path: Path) -> None:
    truth = write_truth(tmp_path / "truth")
    for name in ("a", "b"):
        write_coco_instances(truth, tmp_path / name / "truth.json")
        write_coco_panoptic(truth, tmp_path / name)
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")
    assert len(files_of(tmp_path / "a")) == 5


# --- panoptic --------------------------------------------------------------------


def test_panoptic_truth_comes_back_as_it_was(tmp_path: Path) -> None:
    truth = write_truth(tmp_path / "coco_entity_val")
    path = write_coco_panoptic(truth, tmp_path / "out")
    assert path == tmp_path / "out" / "annotations" / "panoptic_coco_entity_val.json"
    table = read_panoptic_table(path.read_bytes(), "out")
    assert [image.id for image in table.images] == [139, 285, 1000]
    raw = json.loads(path.read_text())
    for annotation, official, image in zip(
        table.annotations, raw["annotations"], truth, strict=True
    ):
        assert annotation.file_name == f"{image.id}.png"
        segments = official["segments_info"]
        assert [s["area"] for s in segments] == image.map.areas[1:].tolist()
        assert [s["bbox"] for s in segments] == image.map.boxes[1:].tolist()
        assert [s["iscrowd"] for s in segments] == [0, 0, 0, 0, 1]
        if image.map.areas[1:].all():
            found = read_panoptic_truth(path.with_suffix("") / annotation.file_name, annotation)
            assert found.map == image.map


def test_panoptic_categories(tmp_path: Path) -> None:
    """An entity keeps its class; one without gets "entity", which is always there."""
    path = write_coco_panoptic(write_truth(tmp_path / "truth"), tmp_path / "out")
    table = json.loads(path.read_text())
    assert table["categories"] == [
        {"id": 7, "name": "cat", "supercategory": "animal", "isthing": 1},
        {"id": 3, "name": "sky", "supercategory": "sky", "isthing": 0},
        {"id": 8, "name": "entity", "supercategory": "entity", "isthing": 1},
    ]
    segments = table["annotations"][0]["segments_info"]
    assert [s["category_id"] for s in segments] == [7, 7, 3, 8, 7]
    agnostic = write_coco_panoptic(
        write_truth(tmp_path / "plain", categories=False), tmp_path / "out"
    )
    table = json.loads(agnostic.read_text())
    assert [c["id"] for c in table["categories"]] == [1]
    assert {s["category_id"] for a in table["annotations"] for s in a["segments_info"]} == {1}


def test_panoptic_predictions_come_back_as_they_were(tmp_path: Path) -> None:
    predictions = write_predictions(tmp_path / "mine")
    reader = CocoPanoptic(write_coco_panoptic(predictions, tmp_path / "out"), predictions.ids)
    assert reader.score_rule == "model"
    for size, image in zip(sizes(predictions), predictions, strict=True):
        found = reader.load(size)
        assert isinstance(found, ScoredMap)
        assert found.map == image.map
        assert found.scores.tolist() == exact_scores(image)


def test_an_export_is_not_replaced_unasked(tmp_path: Path) -> None:
    truth = write_truth(tmp_path / "truth")
    path = write_coco_panoptic(truth, tmp_path / "out")
    before = files_of(tmp_path / "out")
    with pytest.raises(ConflictError, match="already there") as caught:
        write_coco_panoptic(truth, tmp_path / "out")
    assert "--overwrite" in caught.value.hint
    (path.with_suffix("") / "stale.png").write_bytes(b"")
    write_coco_panoptic(truth, tmp_path / "out", overwrite=True)
    assert files_of(tmp_path / "out") == before


def test_names_cannot_leave_the_folder(tmp_path: Path) -> None:
    with EntityWriter(tmp_path / "x", model="mine", name="../../up/a b") as writer:
        writer.add("../../up", [[1]], scores=[1])
    path = write_coco_panoptic(open_path(tmp_path / "x"), tmp_path / "out")
    assert path.parent == tmp_path / "out" / "annotations"
    assert len(files_of(tmp_path / "out")) == 2
    assert CocoPanoptic(path, ["../../up"]).image_ids == {"../../up"}


def test_a_failed_export_leaves_nothing_and_keeps_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = write_truth(tmp_path / "truth")
    write_coco_panoptic(truth, tmp_path / "out")
    write_coco_instances(truth, tmp_path / "out" / "truth.json")
    before = files_of(tmp_path)
    (truth.path / "maps" / "000000001000.png").write_bytes(b"damaged")
    with pytest.raises(FormatError, match="PNG"):
        write_coco_panoptic(truth, tmp_path / "out", overwrite=True)
    with pytest.raises(FormatError, match="PNG"):
        write_coco_instances(truth, tmp_path / "out" / "truth.json")
    with pytest.raises(FormatError, match="PNG"):
        write_coco_panoptic(truth, tmp_path / "fresh")
    after = files_of(tmp_path)
    del before["truth/maps/000000001000.png"], after["truth/maps/000000001000.png"]
    assert after == before

    def full(*_: Any) -> bytes:
        raise OSError(28, os.strerror(28))

    truth = write_truth(tmp_path / "again")
    monkeypatch.setattr(coco_panoptic_export, "encode_panoptic_png", full)
    with pytest.raises(OSError, match="No space"):
        write_coco_panoptic(truth, tmp_path / "fresh")
    assert not [p for p in (tmp_path / "fresh").rglob("*") if p.is_file()]


def test_images_are_written_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each PNG is on disk before the next map is read."""
    truth = write_truth(tmp_path / "truth")
    there: list[int] = []
    encode: Callable[[EntityMap], bytes] = coco_panoptic_export.encode_panoptic_png

    def noted(entity_map: EntityMap) -> bytes:
        there.append(len(list((tmp_path / "out").rglob("*.png"))))
        return encode(entity_map)

    monkeypatch.setattr(coco_panoptic_export, "encode_panoptic_png", noted)
    write_coco_panoptic(truth, tmp_path / "out")
    assert there == [0, 1, 2]


def test_real_truth_exported_again_is_the_original_partition(
    realdata: Path, tmp_path: Path
) -> None:
    """COCO panoptic → entity set → COCO panoptic: the same segments, pixel for pixel."""
    root = realdata / "coco_panoptic" / "assembled_official_layout" / "annotations"
    table = read_panoptic_table((root / "panoptic_val2017.json").read_bytes(), "val")
    with EntityWriter(
        tmp_path / "val", kind="ground_truth", categories=[c.category() for c in table.categories]
    ) as writer:
        for one in table.annotations:
            truth = read_panoptic_truth(root / "panoptic_val2017" / one.file_name, one)
            writer.add(
                Path(one.file_name).stem, truth.map, entities=truth.entities, crowds=truth.crowds
            )
    path = write_coco_panoptic(open_path(tmp_path / "val"), tmp_path / "out")
    raw = json.loads((root / "panoptic_val2017.json").read_text())
    again = json.loads(path.read_text())
    for before, after in zip(raw["annotations"], again["annotations"], strict=True):
        assert before["image_id"] == after["image_id"]
        old = rgb(root / "panoptic_val2017" / before["file_name"])
        new = rgb(path.with_suffix("") / after["file_name"])
        pairs = np.unique(np.stack([old.ravel(), new.ravel()]), axis=1).T.tolist()
        renamed = dict(pairs)
        assert len(renamed) == len(pairs) == len(set(renamed.values()))  # one to one
        assert renamed[0] == 0
        rows = {s["id"]: s for s in after["segments_info"]}
        for segment in before["segments_info"]:
            same = rows[renamed[segment["id"]]]
            for key in ("category_id", "iscrowd", "area", "bbox"):
                assert same[key] == segment[key]


def rgb(path: Path) -> NDArray[np.int64]:
    channels = np.asarray(Image.open(path)).astype(np.int64)
    return channels[..., 0] + 256 * channels[..., 1] + 65536 * channels[..., 2]
