"""The engine: any source, any executor, killed at any moment, the same bytes."""

from __future__ import annotations

import importlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, count
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import numpy as np
import pytest

import entitybench.converters
from entitybench.converters import convert
from entitybench.converters.conversion import convert_source
from entitybench.converters.source import find_source, known_sources
from entitybench.entity_map import EntityMap
from entitybench.entity_set import open_path
from entitybench.errors import (
    ConflictError,
    FormatError,
    MissingDataError,
    UnknownNameError,
    WorkerError,
)
from entitybench.sharding import Shard

Release = Any  # tests/converters/conftest.py: tests cannot import one another
FilesOf = Callable[[Path], dict[str, bytes]]
_T = TypeVar("_T")

# --- a new source is one file --------------------------------------------------

SOURCE_FILE = '''
"""Digits: a source that is one file, with what only sources to come will need."""

from functools import partial

from digit_reading import read
from entitybench.converters.source import SetPlan, Source, SourceImage
from entitybench.entity_map import EntityMap
from entitybench.entity_set import Category, Model

SPLITS = {"train": 4, "val": 3, "test": 2}


def find(tree):
    return [split for split in SPLITS if tree.has_folder(f"digits/{split}")]


def plan(tree, split, options):
    names = tree.names(f"digits/{split}", suffix=".txt")
    images = [SourceImage(n.split("/")[-1].removesuffix(".txt"), f"{n}.jpg") for n in names]
    model = Model("digits", score_rule="constant") if options["predictions"] else None
    return [
        SetPlan(
            tree=tree,
            images=images,
            read=partial(read, tree, split, bool(options["predictions"]), annotator),
            categories=(Category(7, "digit", True),),
            suffix=f"a{annotator}",
            model=model,
        )
        for annotator in range(1, int(options["annotators"]) + 1)
    ]


SOURCE = Source(
    name="digits-of-old",
    title="Digits of old",
    licence="none",
    splits=SPLITS,
    find=find,
    plan=plan,
    expected="`digits/train/` with `.txt` files",
    hint="write some",
    options={"annotators": 1, "predictions": False},
    profiles=("raw", "cleaned"),
)
'''

READING_FILE = """
import os
import numpy as np
from entitybench.converters.source import ConvertedImage
from entitybench.entity_map import EntityMap
from entitybench.entity_map import EntityMap
from entitybench.entity_set import Provenance

def read(tree, split, scored, annotator, image):
    text = tree.read(f"digits/{split}/{image.id}.txt").decode()
    if "die" in text:
        os._exit(3)
    rows = [[int(digit) for digit in line] for line in text.split()]
    entity_map = EntityMap.from_array(np.array(rows) * annotator)
    count = entity_map.num_entities
    origins = (Provenance(annotator, 7, True),) * count
    warnings = ("many digits",) * (count > 2)
    scores = (1.0,) * count if scored else None
    return ConvertedImage(entity_map, origins, scores=scores, warnings=warnings)
"""

DIGITS = {"train": ["12\n10", "11\n11", "12\n34", "00\n00"], "val": ["1", "20", "11"]}


@pytest.fixture
def digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A source that is dropped in as one file; returns its release."""
    plugin, library = tmp_path / "plugin", tmp_path / "library"
    for folder, name, text in (
        (plugin, "digits_of_old.py", SOURCE_FILE),
        (library, "digit_reading.py", READING_FILE),
    ):
        folder.mkdir()
        (folder / name).write_text(text)
    for split, texts in DIGITS.items():
        folder = tmp_path / "release" / "digits" / split
        folder.mkdir(parents=True)
        for number, text in enumerate(texts):
            (folder / f"{number + 8}.txt").write_text(text)
    monkeypatch.setattr(
        entitybench.converters, "__path__", [*entitybench.converters.__path__, str(plugin)]
    )
    monkeypatch.syspath_prepend(library)
    importlib.invalidate_caches()
    yield tmp_path / "release"
    for name in ("entitybench.converters.digits_of_old", "digit_reading"):
        sys.modules.pop(name, None)
    vars(entitybench.converters).pop("digits_of_old", None)


def test_a_new_source_is_one_file(digits: Path, tmp_path: Path) -> None:
    assert "digits-of-old" in known_sources()
    train, val = convert("digits-of-old", digits, tmp_path / "out")
    assert (train.name, val.name) == (
        "digits_of_old_entity_train_a1",
        "digits_of_old_entity_val_a1",
    )
    assert (train.images, train.entities, train.release_images) == (4, 7, 4)
    entity_set = open_path(train.path)
    assert entity_set.ids == ("8", "9", "10", "11")  # as numbers
    assert entity_set["8"].map.to_array().tolist() == [[1, 2], [1, 0]]
    assert entity_set["8"].row.file_name == "digits/train/8.txt.jpg"
    assert entity_set.header.licence == "none"
    assert entity_set.header.converter == "digits-of-old/1"
    assert entity_set.photographs is None


def test_a_broken_source_fails_nobody_else(digits: Path, tmp_path: Path) -> None:
    (tmp_path / "plugin" / "aa_broken.py").write_text("import nothing_of_that_name")
    assert find_source("coco").name == "coco"
    assert [s.images for s in convert("digits-of-old", digits, tmp_path / "out")] == [4, 3]
    with pytest.raises(ModuleNotFoundError, match="nothing_of_that_name"):
        find_source("aa-broken")


@pytest.mark.parametrize("name", ["archives", "worlds", "ade20k_full", "", "../converters"])
def test_a_module_that_is_no_source_is_none(name: str) -> None:
    with pytest.raises(UnknownNameError, match=f"unknown source `{name}`"):
        find_source(name)


def test_one_split_may_give_several_sets(digits: Path, tmp_path: Path) -> None:
    options = {"annotators": 2}
    summaries = convert("digits-of-old", digits, tmp_path, splits=["val"], options=options)
    assert [s.name for s in summaries] == [f"digits_of_old_entity_val_a{k}" for k in (1, 2)]
    second = open_path(summaries[1].path)
    assert second["9"].row.entities[0].source_id == 2
    assert second.header.options == {"annotators": 2, "predictions": False, "profile": "raw"}


def test_a_source_may_give_predictions(digits: Path, tmp_path: Path) -> None:
    (summary,) = convert(
        "digits-of-old", digits, tmp_path, splits=["val"], options={"predictions": True}
    )
    entity_set = open_path(summary.path)
    assert entity_set.is_prediction
    assert entity_set.header.model is not None
    assert entity_set.header.model.score_rule == "constant"
    assert entity_set["8"].scores is not None


def test_a_profile_is_part_of_the_name_and_the_options(digits: Path, tmp_path: Path) -> None:
    (summary,) = convert("digits-of-old", digits, tmp_path, splits=["val"], profile="cleaned")
    assert summary.name == "digits_of_old_entity_val_a1_cleaned"
    assert open_path(summary.path).header.options["profile"] == "cleaned"


def test_warnings_name_their_image(digits: Path, tmp_path: Path) -> None:
    summaries = convert("digits-of-old", digits, tmp_path)
    assert [(s.num_warnings, s.warnings) for s in summaries] == [
        (1, ("image 10: many digits",)),
        (0, ()),
    ]


def test_the_default_place_of_sources(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(MissingDataError) as caught:
        convert("digits-of-old", None, tmp_path / "out")
    assert str(caught.value) == (
        "Digits of old was not found without `--source` or $ENTITYBENCH_SOURCES\n"
        "expected: `digits/train/` with `.txt` files\n\nhint: write some"
    )
    monkeypatch.setenv("ENTITYBENCH_SOURCES", str(tmp_path))
    with pytest.raises(MissingDataError, match="digits-of-old"):
        convert("digits-of-old", None, tmp_path / "out")
    digits.rename(tmp_path / "digits-of-old")
    assert len(convert("digits-of-old", None, tmp_path / "out")) == 2


def test_names_that_nobody_knows(digits: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="unknown source `coc`, did you mean `coco`"):
        find_source("coc")
    with pytest.raises(UnknownNameError, match="split of digits-of-old `vla`, did you mean `val`"):
        convert("digits-of-old", digits, tmp_path, splits=["vla"])
    with pytest.raises(UnknownNameError, match="profile of digits-of-old `clean`"):
        convert("digits-of-old", digits, tmp_path, profile="clean")
    with pytest.raises(UnknownNameError, match="option of digits-of-old `annotator`"):
        convert("digits-of-old", digits, tmp_path, options={"annotator": 1})


def test_a_split_that_is_not_there(digits: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="no split `test`\nexpected: `digits/train/`"):
        convert("digits-of-old", digits, tmp_path / "out", splits=["val", "test"])
    assert not (tmp_path / "out").exists()  # nothing is begun that cannot be finished


def test_splits_are_converted_once_in_the_order_asked(digits: Path, tmp_path: Path) -> None:
    summaries = convert("digits-of-old", digits, tmp_path, splits=["val", "train", "val"])
    assert [s.name.split("_")[4] for s in summaries] == ["val", "train"]


def test_a_dead_worker_is_told_by_its_image(digits: Path, tmp_path: Path) -> None:
    (digits / "digits" / "val" / "9.txt").write_text("die")
    with pytest.raises(WorkerError) as caught:
        convert("digits-of-old", digits, tmp_path / "out", splits=["val"], jobs=2)
    assert caught.value.where == ("image 9",)


# --- the same bytes, whatever runs it ----------------------------------------------


@pytest.mark.parametrize("archived", [False, True])
def test_processes_and_threads_write_the_same_bytes(
    new_release: Callable[[int], Release], tmp_path: Path, files_of: FilesOf, archived: bool
) -> None:
    release = new_release(40)
    root = tmp_path / "coco"
    root = release.write_archives(root, 8, 8) if archived else release.write(root)
    convert("coco", root, tmp_path / "one")
    convert("coco", root, tmp_path / "two", jobs=2)
    with ThreadPoolExecutor(3) as executor:
        convert("coco", root, tmp_path / "threads", executor=executor)
    expected = files_of(tmp_path / "one")
    assert len(expected) == 42
    assert files_of(tmp_path / "two") == expected
    assert files_of(tmp_path / "threads") == expected


KILLED = """
import sys
from entitybench.converters import convert

if __name__ == "__main__":
    convert("coco", sys.argv[1], sys.argv[2], jobs=int(sys.argv[3]))
"""


def kill_when(root: Path, out: Path, jobs: int, lines: int, pause: float) -> bool:
    """Convert in a process of its own, and kill it after some images; tell if it was in time."""
    script = out.parent / "killed.py"
    script.write_text(KILLED)
    process = subprocess.Popen([sys.executable, str(script), str(root), str(out), str(jobs)])
    table = out / "coco_entity_val" / "images.jsonl"
    end = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < end:
        if table.exists() and table.read_bytes().count(b"\n") >= lines:
            break
        time.sleep(0.001)
    time.sleep(pause)
    process.kill()
    return process.wait() == -signal.SIGKILL


def killed_again_and_again(root: Path, tmp_path: Path, files_of: FilesOf, kills: int) -> None:
    """Kill one conversion at random moments until it is done; compare the bytes."""
    convert("coco", root, tmp_path / "whole")
    generator = random.Random(kills)
    images = open_path(tmp_path / "whole" / "coco_entity_val").header.num_images
    killed = 0
    for attempt in count():
        out, lines = tmp_path / f"out{attempt}", 0
        while killed < kills and lines < images:
            lines += generator.randrange(1, images // 2)
            jobs, pause = generator.choice([1, 1, 2]), generator.random() * 0.01
            killed += kill_when(root, out, jobs, min(lines, images), pause)
        convert("coco", root, out)
        assert files_of(out) == files_of(tmp_path / "whole")
        if killed == kills:
            return


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_killed_conversion_resumes_to_the_same_bytes(
    new_release: Callable[[int], Release], tmp_path: Path, files_of: FilesOf
) -> None:
    root = new_release(120).write_archives(tmp_path / "coco", 0, 8)
    killed_again_and_again(root, tmp_path, files_of, kills=4)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_conversion_killed_fifty_times_resumes_to_the_same_bytes(
    new_release: Callable[[int], Release], tmp_path: Path, files_of: FilesOf
) -> None:
    root = new_release(300).write_archives(tmp_path / "coco", 0, 8)
    killed_again_and_again(root, tmp_path, files_of, kills=50)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("jobs", [1, 2])
def test_ctrl_c_leaves_a_set_that_resumes(
    new_release: Callable[[int], Release], tmp_path: Path, files_of: FilesOf, jobs: int
) -> None:
    root = new_release(400).write(tmp_path / "coco")
    convert("coco", root, tmp_path / "whole")
    script, out = tmp_path / "script.py", tmp_path / "out"
    script.write_text(KILLED)
    process = subprocess.Popen(
        [sys.executable, str(script), str(root), str(out), str(jobs)],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    table = out / "coco_entity_val" / "images.jsonl"
    while process.poll() is None and not (table.exists() and table.stat().st_size):
        time.sleep(0.001)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert "SpawnProcess" not in errors  # no worker speaks
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert not (out / "coco_entity_val" / "entity_set.json").exists()
    convert("coco", root, out)
    assert files_of(out) == files_of(tmp_path / "whole")


# --- what is already there -----------------------------------------------------------


def test_a_complete_set_is_left_alone(release: Release, tmp_path: Path) -> None:
    root = release.write(tmp_path / "coco")
    first = convert("coco", root, tmp_path / "out")
    times = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*") if p.is_file()}
    second = convert("coco", root, tmp_path / "out")
    assert [s.already_there for s in first] == [False, False]
    assert [s.already_there for s in second] == [True, True]
    assert times == {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*") if p.is_file()}
    for one, two in zip(first, second, strict=True):
        assert (one.images, one.entities, one.crowds, one.photographs_absent) == (
            two.images,
            two.entities,
            two.crowds,
            two.photographs_absent,
        )


def test_a_complete_set_of_fewer_images_is_not_taken_for_the_whole(
    release: Release, tmp_path: Path, files_of: FilesOf
) -> None:
    """Who converted a sample first must not believe that it is the release."""
    root = release.write(tmp_path / "coco")
    convert("coco", root, tmp_path / "out", splits=["val"])
    release.val.add(4, np.ones((8, 8), dtype=np.int64))
    release.write(root)
    with pytest.raises(ConflictError, match="made of other images") as caught:
        convert("coco", root, tmp_path / "out", splits=["val"])
    assert caught.value.where == ("3 images there, 4 in the source",)
    convert("coco", root, tmp_path / "out", splits=["val"], overwrite=True)
    convert("coco", root, tmp_path / "new", splits=["val"])
    assert files_of(tmp_path / "out") == files_of(tmp_path / "new")


def test_an_unfinished_set_of_other_images_is_not_resumed(release: Release, tmp_path: Path) -> None:
    root = release.write(tmp_path / "coco")
    (root / "annotations" / "panoptic_val2017" / "000000010009.png").write_bytes(b"")
    with pytest.raises(FormatError):
        convert("coco", root, tmp_path / "out", splits=["val"])
    release.val.add(4, np.ones((8, 8), dtype=np.int64))  # sorts before what is there
    release.write(root)
    with pytest.raises(ConflictError, match="made of other images"):
        convert("coco", root, tmp_path / "out", splits=["val"])


def test_other_options_are_a_conflict_that_names_them(digits: Path, tmp_path: Path) -> None:
    convert("digits-of-old", digits, tmp_path, splits=["val"])
    with pytest.raises(ConflictError) as caught:
        convert("digits-of-old", digits, tmp_path, splits=["val"], options={"annotators": 2})
    assert caught.value.where == ("option annotators: there 1, now 2",)


def test_a_split_without_images_is_refused(release: Release, tmp_path: Path) -> None:
    release.val.table["images"].clear()
    release.val.table["annotations"].clear()
    release.val.pngs.clear()
    with pytest.raises(MissingDataError, match="the split has no images"):
        convert("coco", release.write(tmp_path / "coco"), tmp_path / "out", splits=["val"])


# --- shards and progress ---------------------------------------------------------------


def test_shards_are_disjoint_and_complete() -> None:
    for parts_wanted in (1, 2, 3, 7, 20):
        for size in (0, 1, 2, 6, 7, 100):
            shards = [Shard(i + 1, parts_wanted) for i in range(parts_wanted)]
            parts = [list(shard.of(range(size))) for shard in shards]
            assert list(chain.from_iterable(parts)) == list(range(size))
            assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("shard", [(0, 2), (3, 2), (-1, 2), (1, 0)])
def test_a_shard_that_does_not_exist_is_refused(
    release: Release, tmp_path: Path, shard: tuple[int, int]
) -> None:
    with pytest.raises(FormatError, match=f"shard {shard[0]}/{shard[1]}"):
        convert("coco", release.write(tmp_path / "coco"), tmp_path / "out", shard=shard)


def test_shards_hold_the_images_of_the_whole(release: Release, tmp_path: Path) -> None:
    root = release.write(tmp_path / "coco")
    (whole,) = convert("coco", root, tmp_path / "out", splits=["val"])
    expected = {image.id: image.map for image in open_path(whole.path)}
    seen: dict[str, EntityMap] = {}
    for index in (1, 2):
        (part,) = convert("coco", root, tmp_path / "out", splits=["val"], shard=(index, 2))
        assert part.name == f"coco_entity_val.part-{index}-of-2"
        seen |= {image.id: image.map for image in open_path(part.path)}
    assert seen == expected
    assert list(seen) == list(expected)


def test_progress_sees_every_image_of_what_is_left(release: Release, tmp_path: Path) -> None:
    bars: list[tuple[str, int, str]] = []
    counted = 0

    def progress(items: Iterable[_T], *, total: int, unit: str, label: str) -> Iterator[_T]:
        nonlocal counted
        bars.append((label, total, unit))
        for item in items:
            counted += 1
            yield item

    root = release.write(tmp_path / "coco")
    convert_source("coco", root, tmp_path / "out", progress=progress)
    assert bars == [("coco_entity_train", 2, "image"), ("coco_entity_val", 3, "image")]
    assert counted == 5


def test_a_source_module_that_is_loaded_lists_itself_once() -> None:
    sources = known_sources()
    assert list(sources) == sorted(sources)
    assert all(source.name == name for name, source in sources.items())
    module: ModuleType = importlib.import_module("entitybench.converters.coco")
    assert sources["coco"] is module.SOURCE
