"""SA-1B: files to the letter of its description, unpacked and in its archives."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from entitybench.converters import convert
from entitybench.entity_set import open_path
from entitybench.errors import FormatError, MissingDataError, OverlapError

HEIGHT, WIDTH = 10, 14


def annotation(number: int, mask: Any) -> dict[str, Any]:
    """Write one mask with every key that the release has."""
    encoded = coco_mask.encode(np.asfortranarray(np.asarray(mask, dtype=np.uint8)))
    return {
        "bbox": coco_mask.toBbox(encoded).tolist(),
        "area": int(coco_mask.area(encoded)),
        "segmentation": {"size": [HEIGHT, WIDTH], "counts": encoded["counts"].decode("ascii")},
        "predicted_iou": 0.93,
        "point_coords": [[3.0, 4.5]],
        "crop_box": [0, 0, WIDTH, HEIGHT],
        "id": number,
        "stability_score": 0.97,
    }


def nest(number: int) -> dict[str, Any]:
    """An image with a shirt in a person, a button on the shirt, and a wall beside them."""
    masks = np.zeros((4, HEIGHT, WIDTH), dtype=bool)
    masks[0, 4, 4] = True
    masks[1, 1:9, 2:8] = True
    masks[2, 3:6, 3:7] = True
    masks[3, :, 10:] = True
    return {
        "image": {
            "image_id": number,
            "width": WIDTH,
            "height": HEIGHT,
            "file_name": f"sa_{number}.jpg",
        },
        "annotations": [annotation(500 + k, mask) for k, mask in enumerate(masks)],
    }


def files(*numbers: int) -> dict[str, bytes]:
    made = {f"sa_{number}.json": json.dumps(nest(number)).encode() for number in numbers}
    for number in numbers:
        photograph = io.BytesIO()
        Image.new("RGB", (WIDTH, HEIGHT)).save(photograph, "JPEG")
        made[f"sa_{number}.jpg"] = photograph.getvalue()
    return made


def write(root: Path, made: dict[str, bytes]) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for name, data in made.items():
        (root / name).write_bytes(data)
    return root


def write_archive(root: Path, number: int, made: dict[str, bytes]) -> None:
    root.mkdir(parents=True, exist_ok=True)
    with tarfile.open(root / f"sa_{number:06}.tar", "w") as archive:
        for name, data in made.items():
            info = tarfile.TarInfo(f"./{name}")  # as the release names its members
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def test_nested_masks_are_refused_without_an_order(tmp_path: Path) -> None:
    root = write(tmp_path / "sa1b", files(223750))
    with pytest.raises(OverlapError) as caught:
        convert("sa1b", root, tmp_path / "out")
    assert caught.value.where == tuple(
        f"{root}/sa_223750.json: annotations {pair} pixel{s}"
        for pair, s in (
            ("500 and 501 share 1", ""),
            ("500 and 502 share 1", ""),
            ("501 and 502 share 12", "s"),
        )
    )


def test_smaller_masks_lie_on_larger_ones(tmp_path: Path) -> None:
    root = write(tmp_path / "sa1b", files(223750, 9))
    (summary,) = convert("sa1b", root, tmp_path / "out", options={"z_order": "area"})
    assert summary.name == "sa1b_entity_train"
    assert (summary.images, summary.entities, summary.photographs_absent) == (2, 8, 0)
    written = open_path(summary.path)
    assert written.header.options["z_order"] == "area"
    image = written["sa_223750"]
    # 8×6 person less 3×4 shirt; shirt less its button; 10×4 wall
    assert image.map.areas.tolist()[1:] == [1, 36, 11, 40]
    assert image.map.to_array()[4].tolist() == [0, 0, 2, 3, 1, 3, 3, 2, 0, 0, 4, 4, 4, 4]
    assert [entity.source_id for entity in image.row.entities] == [500, 501, 502, 503]
    assert image.row.file_name == "sa_223750.jpg"


def test_by_order_of_the_file_the_shirt_hides_its_button(tmp_path: Path) -> None:
    root = write(tmp_path / "sa1b", files(1))
    (summary,) = convert("sa1b", root, tmp_path / "out", options={"z_order": "order"})
    assert (summary.entities, summary.num_warnings) == (3, 1)
    assert summary.warnings == ("image sa_1: 1 of 4 annotations are hidden by others and left out",)


def test_archives_and_folders_give_the_same_set(tmp_path: Path, files_of: Any) -> None:
    made = files(1, 2, 3)
    options = {"z_order": "area"}
    convert("sa1b", write(tmp_path / "flat", made), tmp_path / "a", options=options)
    for number, part in enumerate(([1, 3], [2])):
        names = [f"sa_{n}.{kind}" for n in part for kind in ("jpg", "json")]
        write_archive(tmp_path / "tars", number, {name: made[name] for name in names})
    (summary,) = convert("sa1b", tmp_path / "tars", tmp_path / "b", options=options)
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")
    assert summary.photographs_absent == 0


def test_folders_of_archives_that_were_unpacked(tmp_path: Path) -> None:
    write(tmp_path / "in" / "sa_000000", files(1))
    write(tmp_path / "in" / "sa_000001", files(2))
    (summary,) = convert("sa1b", tmp_path / "in", tmp_path / "out", options={"z_order": "area"})
    written = open_path(summary.path)
    assert written["sa_2"].row.file_name == "sa_000001/sa_2.jpg"
    assert summary.photographs_absent == 0


def test_a_file_about_another_image_is_refused(tmp_path: Path) -> None:
    root = write(tmp_path / "in", {"sa_7.json": json.dumps(nest(8)).encode()})
    with pytest.raises(FormatError, match=r"about `sa_8\.jpg`, its name says `sa_7`"):
        convert("sa1b", root, tmp_path / "out", options={"z_order": "area"})


def test_damage_is_told_with_its_file(tmp_path: Path) -> None:
    whole = json.dumps(nest(7)).encode()
    root = write(tmp_path / "in", {"sa_7.json": whole[:200]})
    with pytest.raises(FormatError, match="not JSON") as caught:
        convert("sa1b", root, tmp_path / "out", options={"z_order": "area"})
    assert str(root / "sa_7.json") in str(caught.value)


def test_other_folders_are_not_taken_for_it(tmp_path: Path) -> None:
    write(tmp_path / "in", {"sa_x.json": b"{}", "data.json": b"{}"})
    with pytest.raises(MissingDataError, match="SA-1B was not found"):
        convert("sa1b", tmp_path / "in", tmp_path / "out")
