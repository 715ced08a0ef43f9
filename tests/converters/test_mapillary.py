"""Mapillary Vistas: the layout of both versions, panoptic tables and instance maps."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from entitybench.converters import convert
from entitybench.entity_set import open_path
from entitybench.errors import FormatError, MissingDataError
from tests.small_releases import zipped

LABELS = [
    {"name": "animal--bird", "instances": True, "evaluate": True},
    {"name": "construction--flat--road", "instances": False, "evaluate": True},
    {"name": "object--vehicle--car", "instances": True, "evaluate": True},
    {"name": "void--unlabeled", "instances": False, "evaluate": False},
]
# class × 256 + instance; birds begin at 0, and 768 is unlabelled
MAP = [
    [0, 0, 1, 768],
    [256, 256, 1, 768],
    [256, 512, 513, 768],
]


def png(array: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


def instance_map(values: Any = MAP) -> bytes:
    return png(np.array(values, dtype=np.uint16))


def panoptic(year: int, stem: str) -> dict[str, bytes]:
    """Write one image as the release does: string ids, one-based categories."""
    ids = np.array([[1, 1, 70_000], [0, 300, 300]])
    rgb = np.stack([ids % 256, ids // 256 % 256, ids // 65_536], axis=-1).astype(np.uint8)
    segments = [
        {"id": 70_000, "category_id": 3, "area": 1, "bbox": [2, 0, 1, 1], "iscrowd": 0},
        {"id": 1, "category_id": 2, "area": 2, "bbox": [0, 0, 2, 1], "iscrowd": 0},
        {"id": 300, "category_id": 3, "area": 2, "bbox": [1, 1, 2, 1], "iscrowd": 1},
    ]
    categories = [
        {"id": number, "name": label["name"], "isthing": int(bool(label["instances"]))}
        | {"supercategory": "x", "color": [0, 0, number]}
        for number, label in enumerate(LABELS, start=1)
    ]
    table = {
        "info": {},
        "images": [{"id": stem, "file_name": f"{stem}.jpg", "width": 3, "height": 2}],
        "annotations": [{"image_id": stem, "file_name": f"{stem}.png", "segments_info": segments}],
        "categories": categories,
    }
    return {
        f"panoptic/panoptic_{year}.json": json.dumps(table).encode(),
        f"panoptic/{stem}.png": png(rgb),
    }


def write(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def below(folder: str, files: dict[str, bytes]) -> dict[str, bytes]:
    return {f"{folder}/{name}": data for name, data in files.items()}


def release() -> dict[str, bytes]:
    """Version 2.0 as it is published, with both truths."""
    return {
        **below("validation/v1.2", panoptic(2018, "b7")),
        **below("validation/v2.0", panoptic(2020, "b7")),
        **below("validation/v2.0", {"instances/b7.png": instance_map()}),
        "config_v2.0.json": json.dumps({"labels": LABELS}).encode(),
    }


def test_each_version_is_a_set(tmp_path: Path) -> None:
    summaries = convert("mapillary", write(tmp_path / "in", release()), tmp_path / "out")
    assert [s.name for s in summaries] == [
        "mapillary_entity_val_v1.2",
        "mapillary_entity_val_v2.0",
    ]
    for summary in summaries:
        image = open_path(summary.path)["b7"]
        assert image.map.to_array().tolist() == [[2, 2, 1], [0, 3, 3]]
        assert [e.source_id for e in image.row.entities] == [70_000, 1]
        assert [e.isthing for e in image.row.entities] == [True, False]
        assert [c.source_id for c in image.row.crowd] == [300]
        assert image.row.file_name == "b7.jpg"


def test_the_archive_is_read_in_place(tmp_path: Path, files_of: Any) -> None:
    convert("mapillary", write(tmp_path / "in", release()), tmp_path / "a")
    archive = {"mapillary-vistas-dataset_public_v2.0.zip": zipped(release())}
    convert("mapillary", write(tmp_path / "zip", archive), tmp_path / "b")
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")
    assert files_of(tmp_path / "a")


def test_version_1_2_alone_has_no_folder_of_its_own(tmp_path: Path) -> None:
    files = below("training", panoptic(2018, "a1"))
    (summary,) = convert("mapillary", write(tmp_path / "in", files), tmp_path / "out")
    assert (summary.name, summary.entities) == ("mapillary_entity_train_v1.2", 2)


def test_instance_maps_serve_where_the_table_is_not(tmp_path: Path) -> None:
    files = {
        "training/v2.0/instances/a1.png": instance_map(),
        "config_v2.0.json": json.dumps({"labels": LABELS, "version": "1.1"}).encode(),
    }
    (summary,) = convert("mapillary", write(tmp_path / "in", files), tmp_path / "out")
    written = open_path(summary.path)
    image = written["a1"]
    # birds 0 and 1, road, cars 0 and 1; what is unlabelled is void
    assert image.map.to_array().tolist() == [[1, 1, 2, 0], [3, 3, 2, 0], [3, 4, 5, 0]]
    assert [e.source_id for e in image.row.entities] == [0, 1, 256, 512, 513]
    assert [e.category_id for e in image.row.entities] == [1, 1, 2, 3, 3]
    assert [e.isthing for e in image.row.entities] == [True, True, False, True, True]
    assert [c.name for c in written.header.categories][1] == "construction--flat--road"


def test_stuff_is_one_entity_whatever_its_pixels_say(tmp_path: Path) -> None:
    files = {
        "training/instances/a1.png": instance_map([[256, 257, 300], [512, 512, 256]]),
        "config.json": json.dumps({"labels": LABELS}).encode(),
    }
    (summary,) = convert("mapillary", write(tmp_path / "in", files), tmp_path / "out")
    image = open_path(summary.path)["a1"]
    assert image.map.to_array().tolist() == [[1, 1, 1], [2, 2, 1]]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (instance_map([[1024]]), "class 4 is not one of the 4 that are listed"),
        (png(np.zeros((2, 2), dtype=np.uint8)), "expected 16-bit gray"),
        (b"nothing", "not a PNG"),
    ],
)
def test_a_damaged_instance_map_is_told_with_its_file(
    tmp_path: Path, data: bytes, message: str
) -> None:
    files = {
        "training/v1.2/instances/a1.png": data,
        "config_v1.2.json": json.dumps({"labels": LABELS}).encode(),
    }
    root = write(tmp_path / "in", files)
    with pytest.raises(FormatError, match=message) as caught:
        convert("mapillary", root, tmp_path / "out")
    assert str(root / "training/v1.2/instances/a1.png") in str(caught.value)


def test_instance_maps_want_their_classes(tmp_path: Path) -> None:
    files = {"training/v2.0/instances/a1.png": instance_map()}
    with pytest.raises(MissingDataError, match=r"nor `config_v2\.0\.json` nor `config\.json`"):
        convert("mapillary", write(tmp_path / "in", files), tmp_path / "out")


def test_the_test_split_has_no_truth(tmp_path: Path) -> None:
    root = write(tmp_path / "in", release())
    with pytest.raises(MissingDataError, match="Mapillary Vistas, split `test`: its truth"):
        convert("mapillary", root, tmp_path / "out", splits=["test"])


def test_the_fixture_of_another_reader(realdata: Path, tmp_path: Path) -> None:
    root = realdata / "fake_fixtures" / "datumaro" / "mapillary_vistas_dataset"
    summaries = convert("mapillary", root, tmp_path / "out")
    assert [(s.name, s.images, s.entities, s.crowds) for s in summaries] == [
        ("mapillary_entity_train_v1.2", 1, 5, 0),
        ("mapillary_entity_train_v2.0", 1, 5, 0),
        ("mapillary_entity_val_v1.2", 2, 3, 2),
        ("mapillary_entity_val_v2.0", 2, 3, 2),
    ]
    assert all(s.photographs_absent == 0 for s in summaries)
    image = open_path(summaries[3].path)["1"]
    tables = json.loads((root / "val/v2.0/panoptic/panoptic_2020.json").read_text())
    segments = {s["id"]: s["area"] for s in tables["annotations"][1]["segments_info"]}
    rows = [*image.row.entities, *image.row.crowd]
    assert {row.source_id: row.area for row in rows} == segments
