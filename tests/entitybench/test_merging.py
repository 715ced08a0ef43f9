"""Parts of an entity set joined to the bytes of the whole; what does not fit is refused."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from click.testing import CliRunner

from entitybench.commands.merge_command import command
from entitybench.entity_map import EntityMap
from entitybench.entity_set import Category, Model, Provenance, open_path
from entitybench.entity_writer import EntityWriter
from entitybench.errors import ConflictError, FormatError, MissingDataError
from entitybench.merging import WHOLE_IMAGES, merge_sets
from entitybench.sharding import Shard, check_complete

_T = TypeVar("_T")
IDS = [f"{number}" for number in (7, 8, 9, 10, 11, 100, 101)]


def write(
    path: Path,
    ids: Sequence[str],
    *,
    whole: int | None = None,
    option: str = "a",
    finish: bool = True,
    kind: str = "ground_truth",
) -> Path:
    """Write images whose content follows from their id alone."""
    options = {"choice": option} | ({} if whole is None else {WHOLE_IMAGES: whole})
    writer = EntityWriter(
        path,
        kind=kind,  # type: ignore[arg-type]
        name=path.name,
        source="made" if kind == "ground_truth" else None,
        options=options,
        categories=(Category(3, "cat", True),),
        model=Model("mine") if kind == "predictions" else None,
        images="photographs",
    )
    for image_id in ids:
        random = np.random.default_rng([ord(letter) for letter in image_id])
        entity_map = EntityMap.from_array(random.integers(0, 5, (6, 8)))
        count = entity_map.num_entities
        if kind == "predictions":
            resolved = random.random() < 0.5
            writer.add(image_id, entity_map, random.random(count), resolved=resolved)
        else:
            origins = [Provenance(n, 3, True) for n in range(count)]
            writer.add(image_id, entity_map, file_name=f"{image_id}.png", entities=origins)
    if finish:
        writer.finish()
    else:
        writer.__exit__(ValueError, None, None)
    return path


def write_parts(folder: Path, count: int, ids: Sequence[str] = IDS, **more: Any) -> list[Path]:
    shards = [Shard(index, count) for index in range(1, count + 1)]
    return [
        write(folder / shard.name("made_val"), shard.of(ids), whole=len(ids), **more)
        for shard in shards
    ]


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("kind", ["ground_truth", "predictions"])
@pytest.mark.parametrize("count", [1, 2, 3, 7, 9])
def test_the_whole_has_the_bytes_of_one_run(tmp_path: Path, count: int, kind: str) -> None:
    whole = write(tmp_path / "one" / "made_val", IDS, kind=kind)
    parts = write_parts(tmp_path / "parts", count, kind=kind)
    (done,) = merge_sets(parts[::-1], tmp_path / "merged")  # in any order
    assert files(done.path) == files(whole)
    assert (done.name, done.parts, done.images) == ("made_val", count, len(IDS))
    assert done.entities == open_path(whole).header.num_entities


def test_the_content_hash_adds_up(tmp_path: Path) -> None:
    parts = write_parts(tmp_path, 3)
    (done,) = merge_sets(parts)
    assert done.path.parent == tmp_path
    hashes = [int(open_path(part).header.content_hash, 16) for part in parts]
    assert int(open_path(done.path).header.content_hash, 16) == sum(hashes) % 2**256


def test_images_are_in_id_order_however_they_were_dealt_out(tmp_path: Path) -> None:
    whole = write(tmp_path / "one" / "made_val", IDS)
    odd = write(tmp_path / "made_val.part-1-of-2", IDS[::2])
    even = write(tmp_path / "made_val.part-2-of-2", IDS[1::2])
    (done,) = merge_sets([odd, even], tmp_path / "merged")
    assert files(done.path) == files(whole)


def test_ids_that_differ_in_case_share_no_map(tmp_path: Path) -> None:
    """The second of `a` and `A` gets another file name, in whichever part it was."""
    ids = ["A", "B", "a", "b"]
    whole = write(tmp_path / "one" / "made_val", ids)
    parts = write_parts(tmp_path, 2, ids)
    (done,) = merge_sets(parts, tmp_path / "merged")
    assert len(list((done.path / "maps").iterdir())) == 4
    assert files(done.path) == files(whole)


def test_several_wholes_are_merged_at_once(tmp_path: Path) -> None:
    parts = write_parts(tmp_path, 2)
    other = [
        p.rename(p.with_name(p.name.replace("val", "train")))
        for p in write_parts(tmp_path / "x", 2)
    ]
    for path in other:  # the name that counts is the one inside
        header = json.loads((path / "entity_set.json").read_text())
        header["name"] = path.name
        (path / "entity_set.json").write_text(json.dumps(header))
    done = merge_sets([*parts, *other], tmp_path / "out")
    assert [d.name for d in done] == ["made_train", "made_val"]


def test_what_is_merged_already_is_left_alone(tmp_path: Path) -> None:
    parts = write_parts(tmp_path, 2)
    (first,) = merge_sets(parts, tmp_path / "out")
    times = [p.stat().st_mtime_ns for p in sorted(first.path.rglob("*"))]
    (second,) = merge_sets(parts, tmp_path / "out")
    assert [first.already_there, second.already_there] == [False, True]
    assert [p.stat().st_mtime_ns for p in sorted(first.path.rglob("*"))] == times


def test_a_whole_of_other_images_is_not_taken_for_the_merged(tmp_path: Path) -> None:
    parts = write_parts(tmp_path, 2)
    write(tmp_path / "out" / "made_val", [*IDS[:-1], "102"])
    with pytest.raises(ConflictError, match="holds other images than the parts"):
        merge_sets(parts, tmp_path / "out")
    (done,) = merge_sets(parts, tmp_path / "out", overwrite=True)
    assert open_path(done.path).ids == tuple(IDS)


# --- what is refused -------------------------------------------------------------


def test_a_gap_is_refused(tmp_path: Path) -> None:
    parts = write_parts(tmp_path, 4)
    with pytest.raises(MissingDataError) as caught:
        merge_sets([parts[0], parts[2]], tmp_path / "out")
    assert caught.value.what == "parts of 4 that are missing: 2, 4"
    assert caught.value.where == (str(parts[0]), str(parts[2]))
    assert not (tmp_path / "out").exists()


def test_a_part_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    parts = write_parts(tmp_path, 2)
    copy = shutil.copytree(parts[0], tmp_path / "copy")
    with pytest.raises(ConflictError, match="part 1 of 2 is there 2 times") as caught:
        merge_sets([*parts, copy], tmp_path / "out")
    assert sorted(caught.value.where) == [str(copy), str(parts[0])]
    with pytest.raises(ConflictError, match="there 2 times"):
        merge_sets([*parts, parts[0]], tmp_path / "out")


def test_parts_of_different_divisions_are_refused(tmp_path: Path) -> None:
    parts = [write_parts(tmp_path / str(n), n)[0] for n in (2, 3)]
    with pytest.raises(ConflictError, match="different divisions: of 2 and of 3"):
        merge_sets(parts, tmp_path / "out")


def test_mixed_options_are_named(tmp_path: Path) -> None:
    first, _ = write_parts(tmp_path, 2)
    _, second = write_parts(tmp_path / "b", 2, option="b")
    with pytest.raises(ConflictError, match="made with different options") as caught:
        merge_sets([first, second], tmp_path / "out")
    assert caught.value.where == (f"option choice: 'a' in `{first}`, 'b' in `{second}`",)


def test_parts_of_a_release_that_grew_between_them_are_refused(tmp_path: Path) -> None:
    """Disjoint, complete in number, and yet the third image of six is in neither."""
    six = [*IDS[:6]]
    first = write(tmp_path / "made_val.part-1-of-2", Shard(1, 2).of(six[:5]), whole=5)
    second = write(tmp_path / "made_val.part-2-of-2", Shard(2, 2).of(six), whole=6)
    with pytest.raises(ConflictError) as caught:
        merge_sets([first, second], tmp_path / "out")
    assert caught.value.where == (f"{WHOLE_IMAGES}: 5 in `{first}`, 6 in `{second}`",)


def test_parts_that_do_not_add_up_are_refused(tmp_path: Path) -> None:
    first = write(tmp_path / "made_val.part-1-of-2", IDS[:2], whole=7)
    second = write(tmp_path / "made_val.part-2-of-2", IDS[4:], whole=7)
    with pytest.raises(ConflictError, match="the parts hold 5 images, the whole has 7"):
        merge_sets([first, second], tmp_path / "out")


def test_an_image_in_two_parts_is_refused(tmp_path: Path) -> None:
    first = write(tmp_path / "made_val.part-1-of-2", IDS[:3])
    second = write(tmp_path / "made_val.part-2-of-2", IDS[2:])
    with pytest.raises(ConflictError, match="images that are in two parts: 1") as caught:
        merge_sets([first, second], tmp_path / "out")
    assert caught.value.where == (f"image 9: `{first}` and `{second}`",)


def test_an_unfinished_part_is_refused(tmp_path: Path) -> None:
    first = write(tmp_path / "made_val.part-1-of-2", IDS[:3])
    second = write(tmp_path / "made_val.part-2-of-2", IDS[3:], finish=False)
    with pytest.raises(MissingDataError, match=r"part-2-of-2` is unfinished"):
        merge_sets([first, second], tmp_path / "out")


def test_a_set_that_is_no_part_is_refused(tmp_path: Path) -> None:
    whole = write(tmp_path / "made_val", IDS)
    with pytest.raises(FormatError, match="`made_val` is not part of a set") as caught:
        merge_sets([whole], tmp_path / "out")
    assert caught.value.where == (str(whole),)
    with pytest.raises(MissingDataError, match="no parts to merge"):
        merge_sets([], tmp_path / "out")


@pytest.mark.parametrize("damage", ["pixels", "score"])
def test_a_part_that_was_damaged_is_refused_and_left_unfinished(
    tmp_path: Path, damage: str
) -> None:
    parts = write_parts(tmp_path, 2, kind="predictions")
    table = parts[1] / "images.jsonl"
    rows = [json.loads(line) for line in table.read_text().splitlines()]
    if damage == "pixels":  # another map of the same size and as many ids
        victim, donor = parts[1] / rows[0]["map"], parts[1] / rows[1]["map"]
        rows[0]["entities"] = rows[1]["entities"] = rows[1]["entities"][:4]
        shutil.copy(donor, victim)
    else:
        rows[0]["entities"][0]["score"] /= 2
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(FormatError, match="content hash promises") as caught:
        merge_sets(parts, tmp_path / "out")
    assert caught.value.where == (str(parts[1]),)
    assert not (tmp_path / "out" / "made_val" / "entity_set.json").exists()


def test_shards_are_checked_without_files() -> None:
    check_complete([(Shard(2, 2), "b"), (Shard(1, 2), "a")])
    with pytest.raises(MissingDataError, match=r"of 30 that are missing: 2, 3, .*, 11, …"):
        check_complete([(Shard(1, 30), "a")])


@pytest.mark.parametrize("text", ["", "1", "1/", "/2", "a/b", "0/2", "3/2", "-1/2", "1/2/3"])
def test_what_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(FormatError):
        Shard.parse(text)


# --- killed, counted, at the command line ------------------------------------------

MERGE = """
import sys
from pathlib import Path
from entitybench.merging import merge_sets

if __name__ == "__main__":
    merge_sets(sorted(Path(sys.argv[1]).glob("*.part-*")), sys.argv[2])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_merge_that_is_killed_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    ids = [f"{number:06}" for number in range(600)]
    write_parts(tmp_path / "parts", 3, ids)
    whole = write(tmp_path / "one" / "made_val", ids)
    script, out = tmp_path / "merge.py", tmp_path / "out"
    script.write_text(MERGE)
    table = out / "made_val" / "images.jsonl"
    killed = 0
    for lines in (1, 150, 400):
        process = subprocess.Popen([sys.executable, script, tmp_path / "parts", out])
        end = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < end:
            if table.exists() and table.read_bytes().count(b"\n") >= lines:
                break
            time.sleep(0.0005)
        process.kill()
        killed += process.wait() == -signal.SIGKILL
    assert killed >= 2
    (done,) = merge_sets((tmp_path / "parts").iterdir(), out)
    assert files(done.path) == files(whole)


def test_progress_counts_the_images(tmp_path: Path) -> None:
    seen: list[Any] = []

    def progress(items: Iterable[_T], *, total: int, unit: str, label: str) -> Iterator[_T]:
        seen.append((total, unit, label))
        for item in items:
            seen.append(1)
            yield item

    merge_sets(write_parts(tmp_path, 2), tmp_path / "out", progress=progress)
    assert seen == [(7, "image", "made_val"), *[1] * 7]


def test_processes_write_the_same(tmp_path: Path) -> None:
    whole = write(tmp_path / "one" / "made_val", IDS)
    (done,) = merge_sets(write_parts(tmp_path, 2), tmp_path / "out", jobs=2)
    assert files(done.path) == files(whole)


def test_the_command_tells_what_it_did(tmp_path: Path) -> None:
    parts = list(map(str, write_parts(tmp_path, 2)))
    runner = CliRunner()
    told = runner.invoke(command, [*parts, "--out", str(tmp_path / "out"), "-j", "1"])
    assert told.stdout.split() == [
        *("set", "parts", "images", "entities"),
        *("made_val", "2", "7", "28", "written"),
    ]
    told = runner.invoke(command, [*parts, "--out", str(tmp_path / "out"), "-j", "1", "--json"])
    (done,) = json.loads(told.stdout)["sets"]
    assert (done["already_there"], done["path"]) == (True, str(tmp_path / "out" / "made_val"))
