"""Cityscapes: `gtFine`, panoptic exports of it, and the real samples."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from entitybench.converters import convert
from entitybench.converters.cityscapes import CATEGORIES
from entitybench.entity_set import EntityImage, open_path
from entitybench.errors import FormatError, MissingDataError
from entitybench.validation import validate
from tests.small_releases import Files, cityscapes, grid, png, write, zipped

ID = "frankfurt_000000_000294"
STUFF = {7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23}
THINGS = {24, 25, 26, 27, 28, 31, 32, 33}


def convert_one(tmp_path: Path, files: Files) -> tuple[EntityImage, tuple[str, ...]]:
    (summary,) = convert("cityscapes", write(tmp_path / "source", files), tmp_path / "out")
    entity_set = open_path(summary.path)
    assert list(validate(entity_set)) == []
    return entity_set[ID], summary.warnings


def origins(image: EntityImage) -> list[tuple[Any, Any, Any]]:
    return [
        (r.source_id, r.category_id, r.isthing) for r in [*image.row.entities, *image.row.crowd]
    ]


def test_entities_crowds_and_void(tmp_path: Path) -> None:
    numbers = grid("""
            7     7 26001 26 26
           23     7 26003  9 26
        24000 24000    29  1 25
        29000 30002    33  0  5
    """)
    image, warnings = convert_one(tmp_path, cityscapes(ID, numbers))
    expected = grid("""
        1 1 4 7 7
        2 1 5 . 7
        3 3 . . 6
        . . 8 . .
    """)  # 29 and 30, caravan and trailer, are void, single or in groups; so is parking (9)
    assert np.array_equal(image.map.to_array(), expected)
    assert (image.map.num_entities, image.map.num_crowds) == (5, 3)
    assert origins(image) == [
        (7, 7, False),
        (23, 23, False),
        (24000, 24, True),
        (26001, 26, True),
        (26003, 26, True),
        (25, 25, True),
        (26, 26, True),
        (33, 33, True),
    ]
    assert image.row.file_name == f"frankfurt/{ID}_leftImg8bit.png"
    assert warnings == ()


def test_all_classes_are_told_apart_as_the_official_labels_tell(tmp_path: Path) -> None:
    labels = pytest.importorskip("cityscapesscripts.helpers.labels").labels
    official = [label for label in labels if label.id >= 0]
    numbers = [label.id for label in official]
    numbers += [label.id * 1000 + 7 for label in official if label.hasInstances]
    image, _ = convert_one(tmp_path, cityscapes(ID, [numbers]))
    evaluated = {label.id: label for label in official if not label.ignoreInEval}
    entities = [r.source_id for r in image.row.entities]
    crowds = [r.source_id for r in image.row.crowd]
    assert entities == sorted(
        [i for i, label in evaluated.items() if not label.hasInstances]
        + [i * 1000 + 7 for i, label in evaluated.items() if label.hasInstances]
    )
    assert crowds == [i for i, label in evaluated.items() if label.hasInstances]
    assert [(c.id, c.name, c.isthing, c.supercategory) for c in CATEGORIES] == [
        (label.id, label.name, label.hasInstances, label.category)
        for label in sorted(evaluated.values(), key=lambda label: label.trainId)
    ]
    assert {c.id for c in CATEGORIES} == STUFF | THINGS


def test_more_than_255_entities(tmp_path: Path) -> None:
    numbers = np.arange(24_000, 24_400).reshape(20, 20)
    image, _ = convert_one(tmp_path, cityscapes(ID, numbers))
    assert np.array_equal(image.map.to_array(), numbers - 23_999)


@pytest.mark.parametrize("number", [34, 999, 7000, 23_001, 34_000, 65_535])
def test_numbers_of_no_class_are_refused(tmp_path: Path, number: int) -> None:
    with pytest.raises(FormatError, match=f"number {number} stands for no class") as caught:
        convert_one(tmp_path, cityscapes(ID, [[7, number]]) | {})
    assert f"gtFine/val/frankfurt/{ID}_gtFine_instanceIds.png" in str(caught.value)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_gray_of_both_depths_will_do(tmp_path: Path, dtype: type[np.generic]) -> None:
    image, _ = convert_one(tmp_path, cityscapes(ID, [[7, 0, 26]], dtype=dtype))
    assert np.array_equal(image.map.to_array(), [[1, 0, 2]])


def test_colours_are_refused(tmp_path: Path) -> None:
    files = cityscapes(ID, [[7]])
    files[f"gtFine/val/frankfurt/{ID}_gtFine_instanceIds.png"] = png(np.zeros((1, 1, 3)))
    with pytest.raises(FormatError, match="mode RGB, expected 16-bit gray"):
        convert_one(tmp_path, files)


def test_a_photograph_of_another_size_is_refused(tmp_path: Path) -> None:
    files = cityscapes(ID, [[7, 7]])
    files[f"leftImg8bit/val/frankfurt/{ID}_leftImg8bit.png"] = png(np.zeros((2, 2, 3)))
    with pytest.raises(FormatError, match="the photograph is 2×2, its annotation is 2×1"):
        convert_one(tmp_path, files)


def release() -> Files:
    return (
        cityscapes(ID, [[7, 26, 24_000]])
        | cityscapes("lindau_000001_000019", [[8, 8, 23]])
        | cityscapes("aachen_000003_000019", [[11, 26_000, 26_001]], split="train")
        | cityscapes("berlin_000000_000019", [[1, 0, 3]], split="test")
    )


def test_folders_and_archives_give_the_same_bytes(
    tmp_path: Path, files_of: Callable[[Path], dict[str, bytes]]
) -> None:
    files = release()
    tops = ("gtFine", "leftImg8bit")
    packed = {
        f"{top}_trainvaltest.zip": zipped(
            {"README": b"", "license.txt": b""}
            | {name: data for name, data in files.items() if name.startswith(top)}
        )
        for top in tops
    }
    half = {name: data for name, data in files.items() if name.startswith("leftImg8bit")}
    one = "gtFine_trainvaltest.zip"
    layouts: dict[str, Files] = {
        "archives": packed,
        "half unpacked": half | {one: packed[one]},
        "in a folder": {f"cityscapes/{name}": data for name, data in files.items()},
    }
    convert("cityscapes", write(tmp_path / "unpacked", files), tmp_path / "a")
    expected = files_of(tmp_path / "a")
    assert sorted({name.partition("/")[0] for name in expected}) == [
        "cityscapes_entity_train",
        "cityscapes_entity_val",
    ]
    for number, (layout, content) in enumerate(layouts.items()):
        root = write(tmp_path / str(number), content)
        summaries = convert("cityscapes", root, tmp_path / layout)
        assert files_of(tmp_path / layout) == expected, layout
        assert [(s.images, s.photographs_absent) for s in summaries] == [(1, 0), (2, 0)], layout
    (summary,) = convert("cityscapes", tmp_path / "0" / one, tmp_path / "alone", splits=["val"])
    assert summary.photographs_absent == 2


def test_without_folders_the_city_tells_the_split(tmp_path: Path) -> None:
    files = {
        f"{name.partition('/')[0]}/{name.rpartition('/')[2]}": data
        for name, data in release().items()
    }
    summaries = convert("cityscapes", write(tmp_path / "source", files), tmp_path / "out")
    assert [(s.name, s.images, s.photographs_absent) for s in summaries] == [
        ("cityscapes_entity_train", 1, 0),
        ("cityscapes_entity_val", 2, 0),
    ]
    assert open_path(summaries[1].path).image_row(ID).file_name == f"{ID}_leftImg8bit.png"


def test_the_dummies_of_test_are_refused(tmp_path: Path) -> None:
    root = write(tmp_path / "source", release())
    with pytest.raises(MissingDataError, match="split `test`: its truth is not published") as error:
        convert("cityscapes", root, tmp_path / "out", splits=["test"])
    assert "dummies" in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_dummy_in_another_split_is_warned_about(tmp_path: Path) -> None:
    image, warnings = convert_one(tmp_path, cityscapes(ID, [[1, 0, 3]]))
    assert image.map.num_entities == 0
    assert warnings == (
        f"image {ID}: nothing is labelled but what the camera hides: a dummy of the test split?",
    )


def test_labels_without_instances_are_named(tmp_path: Path) -> None:
    files = release()
    del files["gtFine/val/lindau/lindau_000001_000019_gtFine_instanceIds.png"]
    root = write(tmp_path / "source", files)
    with pytest.raises(MissingDataError, match="labels but without instances: 1") as caught:
        convert("cityscapes", root, tmp_path / "out")
    assert "lindau_000001_000019_gtFine_instanceIds.png" in str(caught.value)


# --- exports -------------------------------------------------------------------


def export(root: Path, out: Path, **options: Any) -> Path:
    """Run the official script."""
    script = pytest.importorskip("cityscapesscripts.preparation.createPanopticImgs")
    out.mkdir()
    with contextlib.redirect_stdout(io.StringIO()):
        script.convert2panoptic(
            str(root / "gtFine"), str(out), setNames=["train", "val"], **options
        )
    return out


@pytest.mark.parametrize("with_train_ids", [False, True])
def test_an_official_export_gives_the_same_sets(
    tmp_path: Path, files_of: Callable[[Path], dict[str, bytes]], with_train_ids: bool
) -> None:
    root = write(tmp_path / "source", release())
    convert("cityscapes", root, tmp_path / "a")
    made = export(root, tmp_path / "export", useTrainId=with_train_ids)
    summaries = convert("cityscapes", made, tmp_path / "b")
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")
    assert [s.photographs_absent for s in summaries] == [1, 2]
    (root / "leftImg8bit").rename(made / "leftImg8bit")  # its table names files that are nowhere
    assert [s.photographs_absent for s in convert("cityscapes", made, tmp_path / "c")] == [0, 0]


@pytest.mark.parametrize(
    "spoiled",
    [{"category_id": 8}, {"iscrowd": 1}, {"id": 29_000, "category_id": 29}, {"id": 10}],
)
def test_an_export_that_is_not_official_is_refused(tmp_path: Path, spoiled: dict[str, int]) -> None:
    made = export(write(tmp_path / "source", release()), tmp_path / "export")
    path = made / "cityscapes_panoptic_val.json"
    table = json.loads(path.read_text())
    table["categories"] += [{"id": 29, "name": "caravan"}]
    annotation = next(a for a in table["annotations"] if a["image_id"] == ID)
    segment = next(s for s in annotation["segments_info"] if s["id"] == 7)
    segment.update(spoiled)
    path.write_text(json.dumps(table))
    with pytest.raises(FormatError, match="not one that the official export holds") as caught:
        convert("cityscapes", made, tmp_path / "out", splits=["val"])
    assert f"image {ID}" in str(caught.value)


# --- real samples --------------------------------------------------------------


def counted(out: Path, summaries: Any) -> dict[str, Any]:
    seen = {}
    for summary in summaries:
        entity_set = open_path(summary.path)
        assert list(validate(entity_set)) == []
        for image in entity_set:
            areas, count = image.map.areas, image.map.num_entities
            seen[image.id] = {
                "segments": image.map.num_ids,
                "crowd": image.map.num_crowds,
                "entities": count,
                "things": sum(bool(row.isthing) for row in image.row.entities),
                "void_px": int(areas[0]),
                "crowd_px": int(areas[count + 1 :].sum()),
            }
    return seen


@pytest.mark.parametrize("folder", ["cityscapes", "cityscapes_expected_official", "mini_archives"])
def test_real_samples_have_the_counted_entities(
    realdata: Path, tmp_path: Path, folder: str
) -> None:
    counts = json.loads((realdata / "expected_entity_counts.json").read_text())
    expected = {
        image_id: {key: value for key, value in row.items() if key != "raw_ids"}
        for image_id, row in counts["cityscapes_eval19"].items()
    }
    assert counted(tmp_path, convert("cityscapes", realdata / folder, tmp_path)) == expected


def test_real_samples_agree_with_the_official_script(realdata: Path, tmp_path: Path) -> None:
    folder = realdata / "cityscapes_expected_official"
    for summary in convert("cityscapes", realdata / "cityscapes", tmp_path):
        entity_set = open_path(summary.path)
        stem = f"cityscapes_panoptic_{entity_set.header.split}"
        table = json.loads((folder / f"{stem}.json").read_text())
        assert len(table["annotations"]) == len(entity_set)
        for entry in table["annotations"]:
            image = entity_set[entry["image_id"]]
            with Image.open(folder / stem / entry["file_name"]) as picture:
                r, g, b = np.moveaxis(np.asarray(picture, dtype=np.int64), 2, 0)
            ids, dense = r + 256 * g + 65_536 * b, image.map.to_array()
            assert np.array_equal(ids == 0, dense == 0)
            rows = [*image.row.entities, *image.row.crowd]
            ordered = sorted(entry["segments_info"], key=lambda s: s["iscrowd"])  # stable
            assert len(rows) == len(ordered)
            for row, segment in zip(rows, ordered, strict=True):
                assert np.array_equal(dense == row.id, ids == segment["id"])
                assert (row.area, row.category_id) == (segment["area"], segment["category_id"])


def test_a_real_shrunk_sample_converts(realdata: Path, tmp_path: Path) -> None:
    (summary,) = convert("cityscapes", realdata / "cityscapes_mmseg_downscaled", tmp_path)
    assert (summary.name, summary.images, summary.photographs_absent) == (
        "cityscapes_entity_val",
        1,
        0,
    )
    image = open_path(summary.path)[ID]
    path = realdata / "cityscapes_mmseg_downscaled" / "gtFine" / f"{ID}_gtFine_instanceIds.png"
    with Image.open(path) as picture:
        numbers = np.asarray(picture).astype(int)
    classes = np.where(numbers < 1000, numbers, numbers // 1000)
    assert np.array_equal(image.map.to_array() > 0, np.isin(classes, list(STUFF | THINGS)))
    assert [row.source_id for row in image.row.entities] == [
        n for n in np.unique(numbers) if n in STUFF or n // 1000 in THINGS
    ]
