"""ADE20K: the merge of stuff and things, missing halves, and the real samples."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from entitybench.converters import convert
from entitybench.converters.ade20k_classes import NAMES, THINGS
from entitybench.entity_set import EntityImage, open_path
from entitybench.errors import EntityBenchError, FormatError, MissingDataError, UnknownNameError
from entitybench.validation import validate
from tests.small_releases import ADE_FOLDERS, ade20k, grid, jpeg, png, tarred, write, zipped

WALL, FLOOR, BED, CABINET = 1, 4, 8, 11  # stuff, stuff, Instance100 category 1, category 3
TOP = "ADEChallengeData2016"


def convert_one(tmp_path: Path, *pictures: Any) -> tuple[EntityImage, tuple[str, ...]]:
    """Convert one image; return it and the warnings."""
    root = write(tmp_path / "source", ade20k(1, *pictures))
    (summary,) = convert("ade20k", root, tmp_path / "out")
    entity_set = open_path(summary.path)
    assert list(validate(entity_set)) == []
    return entity_set["ADE_val_00000001"], summary.warnings


def origins(image: EntityImage) -> list[tuple[Any, Any, Any, int]]:
    return [(r.source_id, r.category_id, r.isthing, r.area) for r in image.row.entities]


def test_things_are_painted_over_stuff(tmp_path: Path) -> None:
    semantic = grid("""
        1 1 1 4
        1 8 8 4
        . 8 11 4
    """)
    category = grid("""
        . . . .
        . 1 1 1
        . 1 . .
    """)
    instance = grid("""
        . . . .
        . 7 2 2
        . 7 . .
    """)
    image, warnings = convert_one(tmp_path, semantic, category, instance)
    expected = grid("""
        1 1 1 2
        1 4 3 3
        . 4 . 2
    """)  # the cabinet has no instance: void; void stays void
    assert np.array_equal(image.map.to_array(), expected)
    assert origins(image) == [
        (WALL, WALL, False, 4),
        (FLOOR, FLOOR, False, 2),  # one of three is under the bed
        (2, BED, True, 2),
        (7, BED, True, 2),
    ]
    assert image.row.entities[1].bbox == (3, 0, 1, 3)
    assert image.row.crowd == ()
    assert image.row.file_name == "ADE_val_00000001.jpg"
    assert warnings == ()


def test_stuff_that_things_cover_whole_is_gone(tmp_path: Path) -> None:
    semantic, ones = grid("1 1 4"), grid("1 1 .")
    image, _ = convert_one(tmp_path, semantic, ones, 5 * ones)
    assert origins(image) == [(FLOOR, FLOOR, False, 1), (5, BED, True, 2)]
    assert np.array_equal(image.map.to_array(), [[2, 2, 1]])


def test_things_lie_on_void_and_on_things_too(tmp_path: Path) -> None:
    image, _ = convert_one(tmp_path, grid(". 11 8"), grid("1 1 ."), grid("3 3 ."))
    assert origins(image) == [(3, BED, True, 2)]


def test_an_annotation_of_zeros_is_an_image_without_entities(tmp_path: Path) -> None:
    image, warnings = convert_one(tmp_path, np.zeros((3, 5)))
    assert (image.map.num_entities, image.map.shape, warnings) == (0, (3, 5), ())


def test_an_image_without_instances_has_stuff_only(tmp_path: Path) -> None:
    image, _ = convert_one(tmp_path, grid("1 8 4"))
    assert origins(image) == [(WALL, WALL, False, 1), (FLOOR, FLOOR, False, 1)]


def test_an_instance_of_several_categories_is_warned_about(tmp_path: Path) -> None:
    image, warnings = convert_one(tmp_path, grid("8 8 8 8 8"), grid("1 3 3 2 1"), grid("9 9 9 4 4"))
    assert origins(image) == [(4, BED, True, 2), (9, CABINET, True, 3)]  # tied: the lower
    assert [warning.partition(": ")[2] for warning in warnings] == [
        "instance 4 has several categories: 1, 2",
        "instance 9 has several categories: 1, 3",
    ]


def test_a_category_without_an_instance_is_warned_about(tmp_path: Path) -> None:
    image, warnings = convert_one(tmp_path, grid("1 1 8"), grid("1 . 1"), grid(". . ."))
    assert origins(image) == [(WALL, WALL, False, 2)]
    assert warnings == (
        "image ADE_val_00000001: pixels with a category, but without an instance: 2",
    )


def test_255_instances_and_all_stuff_are_told_apart(tmp_path: Path) -> None:
    stuff = [number for number in range(1, 151) if number not in THINGS]
    semantic = np.array([*stuff, *[BED] * 255])[None]
    instance = np.array([*[0] * 50, *range(1, 256)])[None]
    image, _ = convert_one(tmp_path, semantic, np.minimum(instance, 1), instance)
    assert np.array_equal(image.map.to_array(), np.arange(1, 306)[None])
    assert [row.isthing for row in image.row.entities] == [False] * 50 + [True] * 255


@pytest.mark.parametrize(
    ("pictures", "message"),
    [
        ((grid("1 151"),), "class 151 in the semantic picture; there are 150"),
        ((grid("1 8"), grid(". ."), grid(". 3")), "instance 3 has category 0; they count from 1"),
        ((grid("1 8"), grid(". 101"), grid(". 3")), "instance 3 has category 101; they count"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(
    tmp_path: Path, pictures: tuple[Any, ...], message: str
) -> None:
    with pytest.raises(FormatError, match=message) as caught:
        convert_one(tmp_path, *pictures)
    assert "ADE_val_00000001" in str(caught.value)


def test_pictures_of_different_sizes_are_refused(tmp_path: Path) -> None:
    files = ade20k(1, np.ones((4, 6)))
    name = f"{TOP}/annotations_instance/validation/ADE_val_00000001.png"
    files[name] = png(np.zeros((4, 5, 3)))
    root = write(tmp_path / "source", files)
    with pytest.raises(FormatError, match="the PNG is 5×4, the image is 6×4") as caught:
        convert("ade20k", root, tmp_path / "out")
    assert name in str(caught.value)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_photographs_of_all_kinds_fit_as_they_are_stored(
    tmp_path: Path, mode: str, orientation: int
) -> None:
    files = ade20k(1, np.ones((4, 6)))
    files[f"{TOP}/images/validation/ADE_val_00000001.jpg"] = jpeg((4, 6), mode, orientation)
    (summary,) = convert("ade20k", write(tmp_path / "source", files), tmp_path / "out")
    assert (summary.images, summary.photographs_absent) == (1, 0)


def test_a_photograph_of_another_size_is_refused(tmp_path: Path) -> None:
    files = ade20k(1, np.ones((4, 6)))
    files[f"{TOP}/images/validation/ADE_val_00000001.jpg"] = jpeg((6, 4))
    root = write(tmp_path / "source", files)
    with pytest.raises(FormatError, match="the photograph is 4×6, its annotation is 6×4"):
        convert("ade20k", root, tmp_path / "out")


def release(top: str = f"{TOP}/") -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for split, number in (("train", 1), ("train", 2), ("val", 1)):
        ones = np.full((4, 6), number)
        files |= ade20k(
            number, ones, ones * [0, 0, 0, 1, 1, 1], ones * [0, 0, 0, 1, 1, 1], split=split, top=top
        )
    return files


def test_folders_and_archives_give_the_same_bytes(
    tmp_path: Path, files_of: Callable[[Path], dict[str, bytes]]
) -> None:
    files = release()
    inside = f"{TOP}/annotations_instance/"
    instances = {n.removeprefix(f"{TOP}/"): d for n, d in files.items() if n.startswith(inside)}
    rest = {name: data for name, data in files.items() if not name.startswith(inside)}
    archive = tarred(instances)
    layouts: dict[str, dict[str, bytes]] = {
        "as published": {f"{TOP}.zip": zipped(rest), "annotations_instance.tar": archive},
        "instances beside": rest | instances,
        "tar beside the folder": rest | {"annotations_instance.tar": archive},
        "tar inside the folder": rest | {f"{TOP}/annotations_instance.tar": archive},
        "the folder itself": release(""),
        "in a folder": {f"ade/{name}": data for name, data in files.items()},
    }
    convert("ade20k", write(tmp_path / "unpacked", files), tmp_path / "a")
    expected = files_of(tmp_path / "a")
    assert len(expected) == 2 * 2 + 3
    for number, (layout, content) in enumerate(layouts.items()):
        summaries = convert("ade20k", write(tmp_path / str(number), content), tmp_path / layout)
        assert files_of(tmp_path / layout) == expected, layout
        assert [s.photographs_absent for s in summaries] == [0, 0], layout
        assert [s.release_images for s in summaries] == [20_210, 2_000]


def test_photographs_are_not_needed(tmp_path: Path) -> None:
    files = {name: data for name, data in release().items() if "/images/" not in name}
    summaries = convert("ade20k", write(tmp_path / "source", files), tmp_path / "out")
    assert [s.photographs_absent for s in summaries] == [2, 1]


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("annotations_instance/training/ADE_train_00000002.png", "annotations that are missing: 1"),
        ("annotations/training/ADE_train_00000002.png", "annotations that are missing: 1 of 2"),
        ("annotations_instance/training", "no `annotations_instance/training`"),
    ],
)
def test_a_missing_half_is_named(tmp_path: Path, gone: str, message: str) -> None:
    files = {name: data for name, data in release().items() if f"{TOP}/{gone}" not in name}
    root = write(tmp_path / "source", files)
    with pytest.raises(MissingDataError, match=message) as caught:
        convert("ade20k", root, tmp_path / "out")
    assert gone in str(caught.value)
    (summary,) = convert("ade20k", root, tmp_path / "out", splits=["val"])
    assert summary.images == 1


def test_a_photograph_without_annotations_is_named(tmp_path: Path) -> None:
    files = release() | {f"{TOP}/images/validation/ADE_val_00000077.jpg": jpeg((4, 6))}
    root = write(tmp_path / "source", files)
    with pytest.raises(MissingDataError, match="photographs without an annotation: 1"):
        convert("ade20k", root, tmp_path / "out")


def test_the_test_split_and_unknown_profiles_are_refused(tmp_path: Path) -> None:
    root = write(tmp_path / "source", release())
    with pytest.raises(MissingDataError, match="`test`: its annotations have never been published"):
        convert("ade20k", root, tmp_path / "out", splits=["test"])
    with pytest.raises(UnknownNameError, match="unknown profile of ade20k `cleaned`"):
        convert("ade20k", root, tmp_path / "out", profile="cleaned")
    (_, val) = convert("ade20k", root, tmp_path / "out", profile="raw")
    assert val.name == "ade20k_entity_val"
    assert open_path(val.path).header.options["profile"] == "raw"


# --- real samples --------------------------------------------------------------


def test_classes_are_those_of_the_real_tables(realdata: Path) -> None:
    folder = realdata / "ade20k_challenge"
    rows = (folder / TOP / "objectInfo150.txt").read_text("utf-8").splitlines()[1:]
    assert [row.split("\t")[4].split(",")[0].strip() for row in rows] == list(NAMES)
    table = folder / "placeschallenge_instancesegmentation" / "categoryMapping.txt"
    pairs = [line.split()[:2] for line in table.read_text("utf-8").splitlines()[1:]]
    assert {int(k): int(number) for k, number in pairs} == dict(enumerate(THINGS, start=1))


def test_real_samples_agree_with_the_public_recipe(realdata: Path, tmp_path: Path) -> None:
    root = realdata / "ade20k_challenge_derived"
    counts = json.loads((realdata / "expected_entity_counts.json").read_text())
    seen = {}
    for summary in convert("ade20k", root, tmp_path):
        entity_set = open_path(summary.path)
        assert list(validate(entity_set)) == []
        for image in entity_set:
            seen[image.id] = {
                "segments": image.map.num_entities,
                "things": sum(bool(row.isthing) for row in image.row.entities),
                "void_px": int(image.map.areas[0]),
            }
            compare_with_recipe(root / "expected_mask2former", entity_set.header.split, image)
    assert seen == counts["ade20k_challenge_derived_mask2former"]


def compare_with_recipe(folder: Path, split: str | None, image: EntityImage) -> None:
    """Compare partition and categories; the recipe's ids are random colours."""
    table = json.loads((folder / f"ade20k_panoptic_{split}.json").read_text())
    (entry,) = (a for a in table["annotations"] if a["image_id"] == image.id)
    with Image.open(folder / f"ade20k_panoptic_{split}" / entry["file_name"]) as picture:
        r, g, b = np.moveaxis(np.asarray(picture, dtype=np.int64), 2, 0)
    theirs, ours = r + 256 * g + 65_536 * b, image.map.to_array()
    assert np.array_equal(theirs == 0, ours == 0)
    segments = {s["id"]: s["category_id"] + 1 for s in entry["segments_info"]}
    pairs = np.unique(np.stack([theirs.ravel(), ours.ravel()]), axis=1).T.tolist()
    pairs = [(there, here) for there, here in pairs if here]
    assert len(pairs) == len(segments) == image.map.num_entities  # one to one
    for there, here in pairs:
        assert image.row.entities[here - 1].category_id == segments[there]
        assert image.row.entities[here - 1].isthing == (segments[there] in THINGS)


def test_real_archives_give_the_same_sets(
    realdata: Path, tmp_path: Path, files_of: Callable[[Path], dict[str, bytes]]
) -> None:
    convert("ade20k", realdata / "ade20k_challenge_derived", tmp_path / "a")
    convert("ade20k", realdata / "mini_archives", tmp_path / "b")
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")


def test_real_challenge_data_without_instances_is_refused(realdata: Path, tmp_path: Path) -> None:
    with pytest.raises(EntityBenchError, match="no `annotations_instance/training`") as caught:
        convert("ade20k", realdata / "ade20k_challenge", tmp_path)
    assert str(realdata / "ade20k_challenge" / TOP / "annotations_instance") in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_real_sizes_and_stuff_agree_with_the_published_tables(
    realdata: Path, tmp_path: Path
) -> None:
    """The real pictures of classes with empty instance pictures beside them."""
    challenge = realdata / "ade20k_challenge"
    listed = json.loads(
        (challenge / "placeschallenge_instancesegmentation" / "imgCatIds.json").read_text()
    )
    sizes = {Path(i["file_name"]).stem: (i["width"], i["height"]) for i in listed["images"]}
    shutil.copytree(challenge / TOP, tmp_path / TOP)
    for path in (challenge / TOP / "annotations").rglob("*.png"):
        with Image.open(path) as picture:
            blank = Image.new("RGB", picture.size)
        target = tmp_path / TOP / "annotations_instance" / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        blank.save(target)
    num_images = 0
    roots = (tmp_path / TOP, realdata / "ade20k_challenge_derived")
    for number, root in enumerate(roots):
        for summary in convert("ade20k", root, tmp_path / str(number)):
            entity_set = open_path(summary.path)
            folder = root / "annotations" / ADE_FOLDERS[entity_set.header.split or ""]
            for image in entity_set:
                num_images += 1
                assert (image.row.width, image.row.height) == sizes[image.id]
                if number == 0:
                    with Image.open(folder / f"{image.id}.png") as picture:
                        present = set(np.unique(np.asarray(picture)).tolist()) - {0, *THINGS}
                    assert {r.category_id for r in image.row.entities} == present
    assert num_images == 8 + 3
