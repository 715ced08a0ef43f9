"""The full ADE20K: objects of `_seg.png`, blue that runs out, and the real samples."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from entitybench.converters import convert
from entitybench.entity_set import EntityImage, open_path
from entitybench.errors import EntityBenchError, FormatError, MissingDataError
from entitybench.validation import validate
from tests.small_releases import Files, ade20k_full, grid, png, write, zipped

ID = "ADE_val_00000007"
CAR, WALL = 401, 2978
FOLDER_2016 = "ADE20K_2016_07_26/images/validation/a/abbey"
OUT_OF_BLUE = (
    f"image {ID}: blue has run out, and there are no masks: objects of one class that share a "
    "value are one entity"
)
Drawing = NDArray[np.int64]


def convert_one(tmp_path: Path, files: Files) -> tuple[EntityImage, tuple[str, ...]]:
    (summary,) = convert("ade20k-full", write(tmp_path / "source", files), tmp_path / "out")
    entity_set = open_path(summary.path)
    assert list(validate(entity_set)) == []
    return entity_set[ID], summary.warnings


def origins(image: EntityImage) -> list[tuple[Any, Any]]:
    return [(row.source_id, row.category_id) for row in image.row.entities]


def test_objects_are_ranked_by_blue(tmp_path: Path) -> None:
    classes = np.where(grid("0 1 1 2 1 0"), grid("0 401 401 2978 401 0"), 0)
    blues = grid("0 255 85 170 255 0")
    image, warnings = convert_one(tmp_path, ade20k_full(ID, classes, blues))
    assert np.array_equal(image.map.to_array(), [[0, 3, 1, 2, 3, 0]])
    assert origins(image) == [(85, CAR), (170, WALL), (255, CAR)]
    assert [row.isthing for row in image.row.entities] == [None] * 3
    assert image.row.file_name == f"urban/street/{ID}.jpg"
    assert warnings == ()


def test_the_remainder_of_red_means_nothing(tmp_path: Path) -> None:
    files = ade20k_full(ID, [[CAR, CAR]], [[10, 10]])
    name = f"ADE20K_2021_17_01/images/ADE/validation/urban/street/{ID}_seg.png"
    files[name] = png([[[10, 145, 10], [13, 145, 10]]])
    image, _ = convert_one(tmp_path, files)
    assert origins(image) == [(10, CAR)]
    assert image.row.entities[0].area == 2


def test_pixels_without_a_class_are_void(tmp_path: Path) -> None:
    image, warnings = convert_one(tmp_path, ade20k_full(ID, [[CAR, 0, 0]], [[9, 9, 0]]))
    assert np.array_equal(image.map.to_array(), [[1, 0, 0]])
    assert warnings == (f"image {ID}: pixels of an object without a class, which are void: 1",)


def test_blue_may_be_0(tmp_path: Path) -> None:
    image, warnings = convert_one(tmp_path, ade20k_full(ID, [[CAR, WALL, 0]], [[0, 1, 0]]))
    assert origins(image) == [(0, CAR), (1, WALL)]
    assert warnings == (OUT_OF_BLUE,)


def test_parts_are_no_entities(tmp_path: Path) -> None:
    files = ade20k_full(ID, [[CAR, CAR]], [[255, 255]])
    files |= {
        name.replace("_seg", "_parts_1"): data
        for name, data in ade20k_full(ID, [[0, 774]], [[0, 255]]).items()
        if name.endswith("_seg.png")
    }
    image, _ = convert_one(tmp_path, files)
    assert origins(image) == [(255, CAR)]


def many(count: int) -> tuple[Drawing, Drawing, Drawing]:
    """Objects of two pixels each, walls every third: their numbers from 1, classes and blues."""
    objects = np.repeat(np.arange(1, count + 1), 2)[None]
    classes = np.where(objects % 3 == 0, WALL, CAR)
    return objects, classes, np.round(objects * 255 / count).astype(np.int64)


def masks(objects: Drawing, classes: Drawing) -> list[tuple[int, int, int, Drawing]]:
    """An object file: ids with gaps, in reverse, a part, and something hidden whole."""
    listed: list[tuple[int, int, int, Drawing]] = [
        (2 * n, int(classes[objects == n][0]), 0, 255 * (objects == n))
        for n in range(int(objects.max()), 0, -1)
    ]
    hidden = 128 * (objects == 5)
    return [(1, 774, 1, 255 * (objects == 4)), (3, CAR, 0, hidden), *listed]


@pytest.mark.parametrize("count", [254, 255])
def test_up_to_255_objects_blue_tells_all(tmp_path: Path, count: int) -> None:
    objects, classes, blues = many(count)
    image, _ = convert_one(tmp_path, ade20k_full(ID, classes, blues))
    assert np.array_equal(image.map.to_array(), objects)


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
@pytest.mark.parametrize("count", [255, 256, 400, 1000])
def test_masks_tell_objects_apart_where_blue_has_run_out(
    tmp_path: Path, count: int, encoding: str
) -> None:
    objects, classes, blues = many(count)
    files = ade20k_full(ID, classes, blues, objects=masks(objects, classes), encoding=encoding)
    image, warnings = convert_one(tmp_path, files)
    assert warnings == ()
    assert image.map.num_entities == count
    pairs = np.unique(np.stack([objects.ravel(), image.map.to_array().ravel()]), axis=1).T
    assert len(pairs) == count  # one to one, nothing void
    for number, entity_id in pairs.tolist():
        row = image.row.entities[entity_id - 1]
        blue, number_class = round(number * 255 / count), WALL if number % 3 == 0 else CAR
        assert row.category_id == number_class
        told = (f"{blue}/{number_class}/{2 * number}", f"{blue}/{number_class}", blue)
        assert row.source_id in told


def test_without_masks_class_and_blue_tell_what_they_can(tmp_path: Path) -> None:
    _, classes, blues = many(400)
    image, warnings = convert_one(tmp_path, ade20k_full(ID, classes, blues))
    pairs = {(int(b), int(c)) for b, c in zip(blues.ravel(), classes.ravel(), strict=True)}
    assert image.map.num_entities == len(pairs) < 400
    told = [(str(row.source_id).split("/")[0], row.category_id) for row in image.row.entities]
    assert told == [(str(blue), number) for blue, number in sorted(pairs)]
    assert warnings == (OUT_OF_BLUE,)


def test_two_classes_of_one_blue_are_two_entities(tmp_path: Path) -> None:
    image, warnings = convert_one(tmp_path, ade20k_full(ID, [[CAR, WALL, WALL]], [[7, 7, 9]]))
    assert origins(image) == [("7/401", CAR), ("7/2978", WALL), (9, WALL)]
    assert warnings == (OUT_OF_BLUE,)


def test_pixels_that_masks_call_hidden_go_to_the_first_that_has_them(tmp_path: Path) -> None:
    classes, blues = [[CAR, CAR, CAR, CAR, CAR, WALL]], [[7, 7, 7, 7, 7, 7]]
    files = ade20k_full(
        ID,
        classes,
        blues,
        objects=[
            (0, CAR, 0, [[255, 128, 0, 128, 0, 0]]),
            (1, CAR, 0, [[0, 0, 255, 128, 0, 0]]),
        ],
    )
    image, warnings = convert_one(tmp_path, files)
    assert np.array_equal(image.map.to_array(), [[1, 1, 2, 1, 0, 3]])
    assert origins(image) == [("7/401/0", CAR), ("7/401/1", CAR), ("7/2978", WALL)]
    assert warnings == (
        f"image {ID}: pixels that no mask of their objects holds, which are void: 1",
    )


@pytest.mark.parametrize("spoil", ["gone", "size", "json", "outside"])
def test_spoiled_masks_are_refused(tmp_path: Path, spoil: str) -> None:
    files = ade20k_full(
        ID, [[CAR, WALL]], [[7, 7]], objects=[(0, CAR, 0, [[255, 0]]), (1, WALL, 0, [[0, 255]])]
    )
    mask = next(name for name in files if "instance_001" in name)
    table = next(name for name in files if name.endswith(".json"))
    if spoil == "gone":
        del files[mask]
    elif spoil == "size":
        files[mask] = png([[0, 255, 0]])
    elif spoil == "json":
        files[table] = files[table][:-5]
    else:
        files[table] = files[table].replace(b"ADE_val_00000007/instance_001", b"../../../x")
    with pytest.raises(EntityBenchError):
        convert_one(tmp_path, files)


def test_both_releases_and_their_archives(
    tmp_path: Path, files_of: Callable[[Path], dict[str, bytes]]
) -> None:
    train = "ADE20K_2021_17_01/images/ADE/training/sports/pool"
    new = ade20k_full(ID, [[CAR]], [[1]]) | ade20k_full(
        "ADE_train_00000001", [[WALL]], [[1]], folder=train
    )
    old = ade20k_full(ID, [[CAR, CAR]], [[1, 2]], folder=FOLDER_2016)
    del old[f"{FOLDER_2016}/{ID}.jpg"]
    summaries = convert("ade20k-full", write(tmp_path / "both", new | old), tmp_path / "a")
    assert [(s.name, s.images, s.photographs_absent, s.release_images) for s in summaries] == [
        ("ade20k_full_2021_entity_train", 1, 0, 25_574),
        ("ade20k_full_2021_entity_val", 1, 0, 2_000),
        ("ade20k_full_2016_entity_val", 1, 1, 2_000),
    ]
    archives = {"ADE20K_2021_17_01.zip": zipped(new), "ADE20K_2016_07_26.zip": zipped(old)}
    convert("ade20k-full", write(tmp_path / "archives", archives), tmp_path / "b")
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")
    (one,) = convert("ade20k-full", tmp_path / "both" / "ADE20K_2016_07_26", tmp_path / "c")
    assert one.name == "ade20k_full_2016_entity_val"


def test_a_photograph_without_objects_is_named(tmp_path: Path) -> None:
    files = ade20k_full(ID, [[CAR]], [[1]])
    other = {name.replace(ID, "ADE_val_00000008"): data for name, data in files.items()}
    files |= {name: data for name, data in other.items() if name.endswith(".jpg")}
    with pytest.raises(MissingDataError, match=r"without a `_seg.png`: 1 of 2") as caught:
        convert_one(tmp_path, files)
    assert "ADE_val_00000008_seg.png" in str(caught.value)


def test_gray_objects_are_refused(tmp_path: Path) -> None:
    files = ade20k_full(ID, [[CAR]], [[1]])
    name = next(name for name in files if name.endswith("_seg.png"))
    with pytest.raises(FormatError, match="mode L, expected 8-bit RGB") as caught:
        convert_one(tmp_path, files | {name: png([[1]])})
    assert name in str(caught.value)


# --- real samples --------------------------------------------------------------


def labels_of(path: Path) -> tuple[Drawing, Drawing]:
    with Image.open(path) as picture:
        r, g, b = np.moveaxis(np.asarray(picture, dtype=np.int64), 2, 0)
    return r // 10 * 256 + g, b


def test_real_samples_have_the_counted_objects(realdata: Path, tmp_path: Path) -> None:
    root = realdata / "ade20k_full"
    counts = json.loads((realdata / "expected_entity_counts.json").read_text())
    seen = {}
    for summary in convert("ade20k-full", root, tmp_path):
        entity_set = open_path(summary.path)
        assert list(validate(entity_set)) == []
        for image in entity_set:
            year = entity_set.header.name.split("_")[2]
            seen[f"{image.id}@{year}"] = {
                "size": [image.row.width, image.row.height],
                "objects": image.map.num_entities,
                "classes": len({row.category_id for row in image.row.entities}),
                "void_px": int(image.map.areas[0]),
            }
            (path,) = root.rglob(f"{image.id}_seg.png")
            classes, blues = labels_of(path)
            dense = image.map.to_array()
            for row in image.row.entities:
                assert np.array_equal(dense == row.id, blues == row.source_id)
                assert set(np.unique(classes[dense == row.id])) == {row.category_id}
    assert seen == counts["ade20k_full_seg"]


def test_real_entities_are_the_listed_objects(realdata: Path, tmp_path: Path) -> None:
    root = realdata / "ade20k_full" / "ADE20K_2021_17_01"
    (summary,) = convert("ade20k-full", root, tmp_path)
    for image in open_path(summary.path):
        (path,) = root.rglob(f"{image.id}.json")
        objects = json.loads(path.read_text("utf-8"))["annotation"]["object"]
        listed = sorted(o["name_ndx"] for o in objects if o["parts"]["part_level"] == 0)
        assert sorted(row.category_id or 0 for row in image.row.entities) == listed


def test_real_masks_tell_real_objects_apart(realdata: Path, tmp_path: Path) -> None:
    """Blue of a real image is spoiled until most objects share a value."""
    root = tmp_path / "ADE20K_2021_17_01"
    others = shutil.ignore_patterns("ADE_train_00016964*")
    shutil.copytree(realdata / "ade20k_full" / "ADE20K_2021_17_01", root, ignore=others)
    wanted = {}
    for path in root.rglob("*_seg.png"):
        _, blues = labels_of(path)
        ranks = np.unique(blues, return_inverse=True)[1].reshape(blues.shape)
        with Image.open(path) as picture:
            pixels = np.array(picture)
        pixels[..., 2] = (ranks + 6) // 7
        path.write_bytes(png(pixels))
        wanted[path.name.removesuffix("_seg.png")] = ranks
    (summary,) = convert("ade20k-full", root, tmp_path / "out")
    for image in open_path(summary.path):
        ranks, dense = wanted[image.id], image.map.to_array()
        assert image.map.num_entities == ranks.max()
        table = np.zeros((ranks.max() + 1, ranks.max() + 1), dtype=int)
        np.add.at(table, (ranks, dense), 1)
        # what two masks call hidden, and no third one visible, may be either's
        assert np.count_nonzero(dense[ranks > 0] == 0) == 0
        assert ranks.size - table.max(axis=1).sum() < 400
        assert sorted(table.argmax(axis=1)) == list(range(ranks.max() + 1))
