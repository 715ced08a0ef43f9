"""ADE20K: the files to the letter, merged by the public recipe to the truth."""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from entitybench.converters.ade20k_classes import THINGS
from entitybench.converters.worlds.vocabulary import CATEGORIES

Reader = Callable[[Path, str], Iterator[Any]]
Maker = Callable[[str], Path]
FOLDERS = {"train": "training", "val": "validation"}


def pictures(root: Path, split: str, stem: str) -> tuple[np.ndarray[Any, Any], ...]:
    base = root / "ADEChallengeData2016"
    with Image.open(base / "annotations" / FOLDERS[split] / f"{stem}.png") as picture:
        assert picture.mode == "L"
        semantic = np.array(picture).astype(int)
    with Image.open(base / "annotations_instance" / FOLDERS[split] / f"{stem}.png") as picture:
        assert picture.mode == "RGB"
        instance = np.array(picture).astype(int)
    return semantic, instance


def merged(
    semantic: np.ndarray[Any, Any], instance: np.ndarray[Any, Any]
) -> tuple[np.ndarray[Any, Any], list[int]]:
    """Stuff classes ascending, then instances ascending over whatever is there."""
    things = set(THINGS)
    segments = [
        (category, semantic == category)
        for category in range(1, 151)
        if category not in things and (semantic == category).any()
    ]
    for number in range(1, 256):
        mask = instance[..., 1] == number
        if mask.any():
            (red,) = np.unique(instance[..., 0][mask])
            segments.append((THINGS[red - 1], mask))
    ids = np.zeros(semantic.shape, dtype=int)
    for number, (_, mask) in enumerate(segments, start=1):
        ids[mask] = number
    alive = [n for n in range(1, len(segments) + 1) if (ids == n).any()]
    final = np.zeros(len(segments) + 1, dtype=int)
    final[alive] = np.arange(1, len(alive) + 1)
    return final[ids], [segments[n - 1][0] for n in alive]


def test_the_hundred_categories_are_the_real_ones(realdata: Path) -> None:
    file = "placeschallenge_instancesegmentation/categoryMapping.txt"
    text = (realdata / "ade20k_challenge" / file).read_text("utf-8")
    rows = [line.split() for line in text.splitlines()][1:]
    assert list(dict.fromkeys(int(row[1]) for row in rows)) == list(THINGS)
    assert len(THINGS) == 100


def test_names_and_ids_are_those_of_the_real_table(realdata: Path) -> None:
    table = realdata / "ade20k_challenge" / "ADEChallengeData2016" / "objectInfo150.txt"
    rows = [line.split("\t") for line in table.read_text("utf-8").splitlines()][1:]
    real = {int(row[0]): row[4] for row in rows}
    for category in CATEGORIES["ade20k"].values():
        # the real names go on with more synonyms
        assert real[category.id].startswith(category.name.split(",")[0])


def test_things_of_the_vocabulary_are_things_of_the_format() -> None:
    for category in CATEGORIES["ade20k"].values():
        assert category.isthing == (category.id in THINGS)


@pytest.mark.parametrize("split", ["train", "val"])
def test_the_merge_gives_the_truth(world: Maker, truths: Reader, split: str) -> None:
    root = world("ade20k")
    for truth in truths(root, split):
        ids, categories = merged(*pictures(root, split, truth.stem))
        np.testing.assert_array_equal(ids, truth.ids)
        assert categories == [entity["category_id"] for entity in truth.entities]
        assert truth.crowds == []


def test_names_count_from_one_and_photographs_fit(world: Maker, truths: Reader) -> None:
    root = world("ade20k")
    stems = [truth.stem for truth in truths(root, "val")]
    assert stems == [f"ADE_val_{number:08d}" for number in range(1, 13)]
    folder = root / "ADEChallengeData2016" / "images" / "validation"
    for truth in truths(root, "val"):
        with Image.open(folder / f"{truth.stem}.jpg") as photograph:
            assert photograph.size == (truth.row["width"], truth.row["height"])


def test_readers_meet_what_the_real_release_has(world: Maker, truths: Reader) -> None:
    root = world("ade20k")
    lost = covered = full = empty = 0
    for truth in truths(root, "train"):
        semantic, instance = pictures(root, "train", truth.stem)
        thing = np.isin(semantic, THINGS)
        lost += bool((thing & (instance[..., 1] == 0)).any())
        covered += bool((~thing & (semantic > 0) & (instance[..., 1] > 0)).any())
        full += instance[..., 1].max() == 255
        empty += not semantic.any()
        assert not instance[..., 2].any()
    assert lost > 1  # classes without an instance
    assert covered == full == empty == 1


def test_the_table_of_objects_counts_what_is_there(world: Maker, truths: Reader) -> None:
    root = world("ade20k")
    text = (root / "ADEChallengeData2016" / "objectInfo150.txt").read_text("utf-8")
    head, *lines = text.splitlines()
    assert head.split("\t") == ["Idx", "Ratio", "Train", "Val", "Name"]
    rows = {int(line.split("\t")[0]): line.split("\t") for line in lines}
    assert sum(float(row[1]) for row in rows.values()) == pytest.approx(0.95, abs=0.05)
    walls = sum(
        bool((pictures(root, "train", truth.stem)[0] == 1).any()) for truth in truths(root, "train")
    )
    assert rows[1][2:] == [str(walls), rows[1][3], "wall"]


def test_archives_hold_the_files_of_the_folders(world: Maker) -> None:
    folders, archives = world("ade20k"), world("ade20k+archives")
    base = folders / "ADEChallengeData2016"
    with tarfile.open(archives / "annotations_instance.tar") as pack:
        members = {m.name: m for m in pack.getmembers()}
        assert len(members) == 112
        name = "annotations_instance/validation/ADE_val_00000003.png"
        file = pack.extractfile(members[name])
        assert file is not None
        assert file.read() == (base / name).read_bytes()
        assert {(m.mtime, m.uid, m.uname) for m in members.values()} == {(0, 0, "")}
    with zipfile.ZipFile(archives / "ADEChallengeData2016.zip") as pack_of_rest:
        names = pack_of_rest.namelist()
        assert not any("annotations_instance" in name for name in names)
        on_disk = {
            path.relative_to(folders).as_posix()
            for path in base.rglob("*")
            if path.is_file() and "annotations_instance" not in path.parts
        }
        assert set(names) == on_disk
