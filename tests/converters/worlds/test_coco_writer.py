"""COCO: the files to the letter, read back to the truth without the code under test."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

Reader = Callable[[Path, str], Iterator[Any]]
Maker = Callable[[str], Path]

SEGMENT_KEYS = {"id", "category_id", "iscrowd", "bbox", "area"}
IMAGE_KEYS = {
    *("id", "file_name", "width", "height", "license"),
    *("coco_url", "flickr_url", "date_captured"),
}


def table(root: Path, split: str) -> dict[str, Any]:
    text = (root / "annotations" / f"panoptic_{split}2017.json").read_text("utf-8")
    return dict(json.loads(text))


def ids_of(picture: Image.Image) -> np.ndarray[Any, np.dtype[np.int64]]:
    assert picture.mode == "RGB"
    channels = np.array(picture).astype(np.int64)
    return channels[..., 0] + 256 * channels[..., 1] + 65_536 * channels[..., 2]


@pytest.mark.parametrize("split", ["train", "val"])
def test_the_table_has_the_keys_of_the_original(world: Maker, split: str) -> None:
    found = table(world("coco"), split)
    assert set(found) == {"info", "licenses", "images", "annotations", "categories"}
    assert all(set(image) == IMAGE_KEYS for image in found["images"])
    # no `id`: pycocotools fails on the original, and so it shall on this
    assert all(set(a) == {"image_id", "file_name", "segments_info"} for a in found["annotations"])
    segments = [s for a in found["annotations"] for s in a["segments_info"]]
    assert all(set(segment) == SEGMENT_KEYS for segment in segments)
    assert all(set(c) == {"id", "name", "supercategory", "isthing"} for c in found["categories"])


def test_categories_are_those_of_the_real_table(world: Maker, realdata: Path) -> None:
    rows = json.loads((realdata / "coco_panoptic" / "panoptic_coco_categories.json").read_text())
    real = {r["id"]: (r["name"], r["supercategory"], r["isthing"]) for r in rows}
    for c in table(world("coco"), "val")["categories"]:
        assert real[c["id"]] == (c["name"], c["supercategory"], c["isthing"])


def test_images_and_annotations_belong_together_by_id_not_by_place(world: Maker) -> None:
    found = table(world("coco"), "train")
    images = [image["id"] for image in found["images"]]
    annotations = [annotation["image_id"] for annotation in found["annotations"]]
    assert images != annotations
    assert sorted(images) == sorted(annotations)
    assert len(set(images)) == 100
    for image in found["images"]:
        assert image["file_name"] == f"{image['id']:012d}.jpg"


def test_the_splits_share_no_id(world: Maker) -> None:
    ids = [{i["id"] for i in table(world("coco"), split)["images"]} for split in ("train", "val")]
    assert not ids[0] & ids[1]


@pytest.mark.parametrize("split", ["train", "val"])
def test_pictures_tables_and_truth_agree(world: Maker, truths: Reader, split: str) -> None:
    root = world("coco")
    found = table(root, split)
    annotations = {a["image_id"]: a for a in found["annotations"]}
    for truth in truths(root, split):
        annotation = annotations[int(truth.stem)]
        name = f"panoptic_{split}2017/{annotation['file_name']}"
        with Image.open(root / "annotations" / name) as picture:
            ids = ids_of(picture)
        segments = annotation["segments_info"]
        assert set(np.unique(ids)) - {0} == {segment["id"] for segment in segments}
        ordered = [s for s in segments if not s["iscrowd"]] + [s for s in segments if s["iscrowd"]]
        rebuilt = np.zeros_like(ids)
        for number, segment in enumerate(ordered, start=1):
            mask = ids == segment["id"]
            rebuilt[mask] = number
            rows, cols = np.nonzero(mask)
            x, y = cols.min(), rows.min()
            assert segment["area"] == mask.sum()
            assert segment["bbox"] == [x, y, cols.max() - x + 1, rows.max() - y + 1]
        np.testing.assert_array_equal(rebuilt, truth.ids)
        wanted = [entity["category_id"] for entity in truth.entities + truth.crowds]
        assert [segment["category_id"] for segment in ordered] == wanted


def test_photographs_are_as_large_as_their_maps(world: Maker, truths: Reader) -> None:
    root = world("coco")
    modes, orientations = set(), set()
    for truth in truths(root, "train"):
        with Image.open(root / "train2017" / f"{truth.stem}.jpg") as photograph:
            assert photograph.format == "JPEG"
            assert photograph.size == (truth.row["width"], truth.row["height"])
            modes.add(photograph.mode)
            orientations.add(photograph.getexif().get(ExifTags.Base.Orientation))
    assert modes == {"RGB", "L"}
    assert orientations == {None, 6}


def test_crowds_stand_between_entities(world: Maker) -> None:
    """A reader that numbers segments before it skips crowds gets gaps."""
    lists = [a["segments_info"] for a in table(world("coco"), "train")["annotations"]]
    flags = [[s["iscrowd"] for s in segments] for segments in lists]
    assert any(1 in flag[:-1] for flag in flags)


def test_archives_hold_the_files_of_the_folders(world: Maker) -> None:
    folders, archives = world("coco"), world("coco+archives")
    assert sorted(path.name for path in archives.iterdir()) == [
        "panoptic_annotations_trainval2017.zip",
        "train2017.zip",
        "truth",
        "val2017.zip",
        "world.json",
    ]
    with zipfile.ZipFile(archives / "panoptic_annotations_trainval2017.zip") as outer:
        assert outer.namelist() == [
            f"annotations/panoptic_{split}2017.{kind}"
            for split in ("train", "val")
            for kind in ("json", "zip")
        ]
        inner_bytes = outer.read("annotations/panoptic_val2017.zip")
        wanted = (folders / "annotations" / "panoptic_val2017.json").read_bytes()
        assert outer.read("annotations/panoptic_val2017.json") == wanted
    with zipfile.ZipFile(io.BytesIO(inner_bytes)) as inner:
        names = sorted((folders / "annotations" / "panoptic_val2017").iterdir())
        assert inner.namelist() == [f"panoptic_val2017/{path.name}" for path in names]
        assert inner.read(inner.namelist()[0]) == names[0].read_bytes()
    with zipfile.ZipFile(archives / "val2017.zip") as photographs:
        names = sorted((folders / "val2017").iterdir())
        assert photographs.namelist() == [f"val2017/{path.name}" for path in names]
