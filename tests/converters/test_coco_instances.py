"""COCO instance JSON: releases by the names of their tables; crowds, overlap, contradictions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from entitybench.converters import convert
from entitybench.entity_set import open_path
from entitybench.errors import (
    ConflictError,
    FormatError,
    MissingDataError,
    OverlapError,
    UnknownNameError,
)
from tests.small_releases import zipped

Table = dict[str, Any]
CATEGORIES = [
    {"id": 0, "name": "unknown", "supercategory": "entity", "type": "thing"},
    {"id": 3, "name": "sky", "supercategory": "nature", "type": "stuff"},
]


def rle(mask: Any) -> Table:
    encoded = coco_mask.encode(np.asfortranarray(np.asarray(mask, dtype=np.uint8)))
    return {"size": list(np.shape(mask)), "counts": encoded["counts"].decode("ascii")}


def table(count: int = 3, *, names: str = "{:012}.jpg") -> Table:
    """Make a table of images, each with two entities as RLE or polygon, and a crowd."""
    made: Table = {"images": [], "annotations": [], "categories": [dict(c) for c in CATEGORIES]}
    for number in range(1, count + 1):
        height, width = 8 + number, 12
        image = {"id": number, "file_name": names.format(number), "height": height, "width": width}
        made["images"].insert(0, image)
        sky = np.zeros((height, width), dtype=bool)
        sky[:number] = True
        crowd = np.zeros_like(sky)
        crowd[-1, 4:] = True
        counts = [int(c) for c in np.diff([0, *_changes(crowd), crowd.size])]
        segmentations: list[Any] = [
            rle(sky),
            [[1, number + 1, 4, number + 1, 4, number + 4, 1, number + 4]],
            {"size": [height, width], "counts": counts},
        ]
        for place, segmentation in enumerate(segmentations):
            made["annotations"].append(
                {
                    "id": number * 10 + place,
                    "image_id": number,
                    "category_id": 3 if place == 0 else 0,
                    "segmentation": segmentation,
                    "iscrowd": int(place == 2),
                    "area": 1,
                    "bbox": [0, 0, 1, 1],
                }
            )
    return made


def _changes(mask: Any) -> list[int]:
    flat = np.asarray(mask).ravel(order="F").astype(np.int8)
    return (np.flatnonzero(np.diff(flat)) + 1).tolist()


def write(root: Path, name: str, content: Table) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return root


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("annotations/entity_segmentation/entityv2_010203_entity_val.json", "entityseg_entity_val"),
        ("annotations/entityv2_010203_entity_train_lr.json", "entityseg_entity_train_lr"),
        ("entity_segmentation/entityv2_02_entity_train.json", "entityseg_entity_train_02"),
        ("lvis_v1_val.json", "lvis_entity_val"),
        ("annotations/instances_val2017.json", "coco_instances_entity_val"),
        ("annotations/instances_train2014.json", "coco_instances_entity_train_2014"),
        ("instances_test.json", "coco_instances_entity_test"),
    ],
)
def test_tables_are_known_by_their_names(tmp_path: Path, name: str, expected: str) -> None:
    (summary,) = convert("coco-instances", write(tmp_path / "in", name, table()), tmp_path / "out")
    assert (summary.name, summary.images, summary.entities, summary.crowds) == (expected, 3, 6, 3)
    assert summary.release_images == 0


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_maps_equal_those_of_pycocotools(tmp_path: Path) -> None:
    root = write(tmp_path / "in", "instances_val.json", table(5))
    (summary,) = convert("coco-instances", root, tmp_path / "out")
    oracle = COCO(str(root / "instances_val.json"))
    written = open_path(summary.path)
    assert written.ids == tuple(f"{number:012}" for number in range(1, 6))
    for image in written:
        annotations = oracle.loadAnns(oracle.getAnnIds(int(image.id)))
        annotations.sort(key=lambda a: a["iscrowd"])
        expected = np.zeros((image.row.height, image.row.width), dtype=np.int64)
        for new, annotation in enumerate(annotations, start=1):
            expected[oracle.annToMask(annotation) == 1] = new
        assert np.array_equal(image.map.to_array(), expected)
        rows = [*image.row.entities, *image.row.crowd]
        assert [row.source_id for row in rows] == [a["id"] for a in annotations]
        assert [row.isthing for row in rows] == [False, True, True]
    assert [c.isthing for c in written.header.categories] == [True, False]


def test_the_whole_stands_for_its_batches(tmp_path: Path) -> None:
    folder = "annotations/entity_segmentation"
    for batch in ("01", "02", "010203"):
        write(tmp_path / "in", f"{folder}/entityv2_{batch}_entity_train.json", table())
    summaries = convert("coco-instances", tmp_path / "in", tmp_path / "out")
    assert [s.name for s in summaries] == ["entityseg_entity_train"]
    (tmp_path / "in" / folder / "entityv2_010203_entity_train.json").unlink()
    summaries = convert("coco-instances", tmp_path / "in", tmp_path / "out")
    assert [s.name for s in summaries] == [f"entityseg_entity_train_{b}" for b in ("01", "02")]


def test_photographs_and_ids_of_names_that_are_no_numbers(tmp_path: Path) -> None:
    """EntitySeg's photographs lie in folders of batches; COCO results know their numbers."""
    content = table(2, names="entity_01_11580/street {}.jpg")
    root = write(tmp_path / "in", "annotations/entityv2_010203_entity_val.json", content)
    (root / "images" / "entity_01_11580").mkdir(parents=True)
    (root / "images" / "entity_01_11580" / "street 1.jpg").write_bytes(b"")
    with pytest.raises(FormatError, match="photograph cannot be read"):
        convert("coco-instances", root, tmp_path / "out")
    (root / "images" / "entity_01_11580" / "street 1.jpg").unlink()
    (summary,) = convert("coco-instances", root, tmp_path / "out")
    assert open_path(summary.path).ids == ("1", "2")
    assert summary.photographs_absent == 2


def test_lvis_names_its_photographs_by_their_address(tmp_path: Path) -> None:
    content = table(2)
    for image in content["images"]:
        name = image.pop("file_name")
        image["coco_url"] = f"http://images.cocodataset.org/train2017/{name}"
    root = write(tmp_path / "in", "lvis_v1_val.json", content)
    (summary,) = convert("coco-instances", root, tmp_path / "out")
    written = open_path(summary.path)
    assert written.ids == ("000000000001", "000000000002")
    assert written["000000000001"].row.file_name == "train2017/000000000001.jpg"


def test_a_table_is_read_inside_its_archive(tmp_path: Path) -> None:
    data = {"lvis_v1_val.json": json.dumps(table()).encode()}
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "lvis_v1_val.json.zip").write_bytes(zipped(data))
    (summary,) = convert("coco-instances", tmp_path / "in", tmp_path / "out")
    assert summary.entities == 6


def overlapping() -> Table:
    content = table(2)
    sky = np.zeros((9, 12), dtype=bool)
    sky[:6] = True  # over the square of image 1, which has 9 pixels
    content["annotations"][0]["segmentation"] = rle(sky)
    return content


def test_overlap_wants_a_declared_order(tmp_path: Path) -> None:
    root = write(tmp_path / "in", "instances_val.json", overlapping())
    with pytest.raises(OverlapError) as caught:
        convert("coco-instances", root, tmp_path / "out")
    place = root / "instances_val.json"
    assert caught.value.where == (f"{place}: image 1: annotations 10 and 11 share 9 pixels",)
    assert "--z-order area" in caught.value.hint


def test_the_order_is_among_the_options_and_cannot_be_mixed(tmp_path: Path) -> None:
    root = write(tmp_path / "in", "instances_val.json", overlapping())
    (summary,) = convert("coco-instances", root, tmp_path, options={"z_order": "area"})
    written = open_path(summary.path)
    assert written.header.options == {"profile": "raw", "z_order": "area"}
    assert written["000000000001"].map.areas.tolist()[1:] == [63, 9, 8]
    with pytest.raises(ConflictError) as caught:
        convert("coco-instances", root, tmp_path, options={"z_order": "order"})
    assert caught.value.where == ("option z_order: there 'area', now 'order'",)
    with pytest.raises(UnknownNameError, match="z-order `areas`"):
        convert("coco-instances", root, tmp_path / "new", options={"z_order": "areas"})


def spoil(content: Table, path: str, value: Any) -> None:
    *way, last = path.split(".")
    for step in way:
        content = content[int(step) if step.isdecimal() else step]  # type: ignore[index]
    content[last] = value


@pytest.mark.parametrize(
    ("path", "value", "message", "where"),
    [
        ("annotations.1.image_id", 99, "image 99 is not in", r"\$\.annotations\[1\]"),
        ("annotations.1.category_id", 99, "category 99 is not in", r"\$\.annotations\[1\]"),
        ("annotations.1.segmentation", [[1, 1, 2]], "three points or more", "annotation 11"),
        ("annotations.1.segmentation", [], "without polygons", "annotation 11"),
        ("annotations.0.segmentation", {"size": [2, 2], "counts": "04"}, "RLE size", "tion 10"),
        ("annotations.0.segmentation", "nothing", "RLE or polygons, not str", "annotation 10"),
        ("images.0.width", 0, "the image is 0×", "image 3"),
        ("images.0.id", 1, "listed twice: 1", "instances_val.json"),
        ("images.0.file_name", "../x.jpg", "not a plain name", "image 3"),
        ("annotations.0.id", 1.5, "not what its format promises", r"\$\.annotations\[0\]\.id"),
    ],
)
def test_contradictions_are_refused(
    tmp_path: Path, path: str, value: Any, message: str, where: str
) -> None:
    content = table()
    spoil(content, path, value)
    root = write(tmp_path / "in", "instances_val.json", content)
    with pytest.raises(FormatError, match=message) as caught:
        convert("coco-instances", root, tmp_path / "out")
    assert caught.match(where)


def test_what_is_expected_is_told(tmp_path: Path) -> None:
    write(tmp_path / "in", "annotations/panoptic_val2017.json", {})
    with pytest.raises(MissingDataError, match=r"expected: `entityv2_010203_entity_val\.json`"):
        convert("coco-instances", tmp_path / "in", tmp_path / "out")
