"""Making a world: bytes, jobs, what is there already, what goes wrong."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from entitybench.converters.worlds import WORLDS, coco_writer, make_world
from entitybench.errors import ConflictError, FormatError, UnknownNameError


def digests(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("archives", [False, True])
def test_the_same_arguments_give_the_same_bytes(world: str, archives: bool, tmp_path: Path) -> None:
    for name in ("one", "two"):
        make_world(tmp_path / name, world, train=3, val=2, size=48, seed=4, archives=archives)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    make_world(tmp_path / "other", world, train=3, val=2, size=48, seed=5, archives=archives)
    assert digests(tmp_path / "one") != digests(tmp_path / "other")


def test_the_bytes_do_not_depend_on_the_jobs(tmp_path: Path) -> None:
    make_world(tmp_path / "one", "coco", train=40, val=5, size=32, seed=1)
    make_world(tmp_path / "two", "coco", train=40, val=5, size=32, seed=1, jobs=2)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")


def test_more_scenes_leave_the_first_as_they_are(tmp_path: Path) -> None:
    few = make_world(tmp_path / "few", "coco", train=0, val=2, size=48).directory
    many = make_world(tmp_path / "many", "coco", train=3, val=4, size=48).directory
    for path in (few / "val2017").iterdir():
        assert path.read_bytes() == (many / "val2017" / path.name).read_bytes()


def test_a_finished_world_is_left_alone(tmp_path: Path) -> None:
    first = make_world(tmp_path / "w", "coco", train=2, val=1, size=48)
    times = {path: path.stat().st_mtime_ns for path in first.directory.rglob("*")}
    second = make_world(tmp_path / "w", "coco", train=2, val=1, size=48)
    assert (first.already_there, second.already_there) == (False, True)
    assert first.manifest == second.manifest
    assert times == {path: path.stat().st_mtime_ns for path in first.directory.rglob("*")}


def test_the_summary_counts(tmp_path: Path) -> None:
    made = make_world(tmp_path / "w", "coco", train=3, val=2, size=48)
    counts = {}
    for split in ("train", "val"):
        maps = (tmp_path / "w" / "truth" / split).iterdir()
        counts[split] = sum(int(np.array(Image.open(path)).max()) for path in maps)
    manifest = made.manifest
    assert {s: manifest.num_entities[s] + manifest.num_crowds[s] for s in counts} == counts


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"world": "ade20k"}, "world coco, not ade20k"),
        ({"seed": 9}, "seed 0, not 9"),
        ({"train": 3}, "train 2, not 3"),
        ({"size": 64}, "size 48, not 64"),
        ({"archives": True}, "archives False, not True"),
    ],
)
def test_a_world_of_other_arguments_is_kept(
    change: dict[str, object], told: str, tmp_path: Path
) -> None:
    arguments: dict[str, Any] = {"world": "coco", "train": 2, "val": 1, "size": 48, "seed": 0}
    make_world(tmp_path / "w", **arguments)
    before = digests(tmp_path / "w")
    with pytest.raises(ConflictError, match=told):
        make_world(tmp_path / "w", **{**arguments, **change})
    assert digests(tmp_path / "w") == before


def test_a_folder_of_something_else_is_kept(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(ConflictError, match="holds no generated world"):
        make_world(tmp_path, "coco", train=1, val=1, size=48)
    (tmp_path / "world.json").write_text("{")
    with pytest.raises(ConflictError, match=r"no readable world\.json"):
        make_world(tmp_path, "coco", train=1, val=1, size=48)
    assert (tmp_path / "note.txt").read_text() == "mine"


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    make_world(tmp_path / "w", "coco", train=1, val=0, size=48)
    assert (tmp_path / "w" / "annotations" / "panoptic_train2017.json").is_file()


def test_a_world_that_broke_off_leaves_no_world(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        msg = "disk full"
        raise OSError(msg)

    with monkeypatch.context() as broken:
        broken.setattr(coco_writer, "finish", fail)
        with pytest.raises(OSError, match="disk full"):
            make_world(tmp_path / "w", "coco", train=2, val=1, size=48)
    assert not (tmp_path / "w").exists()
    made = make_world(tmp_path / "w", "coco", train=2, val=1, size=48)
    assert not made.already_there
    assert [path.name for path in tmp_path.iterdir()] == ["w"]


@pytest.mark.parametrize(
    ("name", "value"), [("train", -1), ("val", -1), ("size", 31), ("seed", -1)]
)
def test_numbers_out_of_range_are_refused(name: str, value: int, tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"train": 1, "val": 1, "size": 48, "seed": 0, name: value}
    with pytest.raises(FormatError, match=f"`{name}` of at least .* not {value}"):
        make_world(tmp_path / "w", "coco", **arguments)
    assert not any(tmp_path.iterdir())


def test_an_unknown_world_is_told(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="did you mean `cityscapes`"):
        make_world(tmp_path / "w", "cityscape", train=1, val=1)


def test_progress_is_told_scene_by_scene(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    make_world(
        tmp_path / "w", "coco", train=2, val=1, size=48, progress=lambda *step: told.append(step)
    )
    assert told == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("archives", [False, True])
def test_a_split_without_scenes_is_not_there(world: str, archives: bool, tmp_path: Path) -> None:
    made = make_world(tmp_path / "w", world, train=0, val=1, size=48, seed=0, archives=archives)
    assert list(made.manifest.num_entities) == ["val"]
    names = [path.name for path in made.directory.rglob("*")]
    assert not [name for name in names if "train" in name and "trainval" not in name]


def test_a_world_without_scenes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="at least one scene"):
        make_world(tmp_path / "w", "coco", train=0, val=0)
