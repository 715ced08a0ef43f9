"""`eval --jobs`, `--cluster`, and `--shard` with its merge: equal to the bit to one run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from pycocotools import mask as coco_mask

from entitybench.cli import main
from entitybench.cluster import open_cluster
from entitybench.commands.merge_command import command
from entitybench.entity_map import EntityMap
from entitybench.entity_set import Model
from entitybench.entity_writer import EntityWriter
from entitybench.errors import ConflictError, FormatError, MissingDataError
from entitybench.metrics.merging import merge_results
from entitybench.perturbation import Perturbation, perturb
from entitybench.result import read_result

HOW = Perturbation(0.2, 0.2, 0.2, 1, 0.3)
COUNT = 11


@pytest.fixture(autouse=True)
def _one_day(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Result files that depend on nothing but what was scored."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    monkeypatch.setenv("ENTITYBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ENTITYBENCH_NO_PROGRESS", "1")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two ground truths, and predictions for each in a folder; some were resolved before."""
    model = Model("mine", resolved_images=2)
    for name in ("a_val", "b_val"):
        truth = EntityWriter(tmp_path / "data" / name, kind="ground_truth", source="made")
        mine = EntityWriter(tmp_path / "preds" / name, model=model)
        with truth, mine:
            for number in range(COUNT):
                random = np.random.default_rng([len(name), ord(name[0]), number])
                ids = np.kron(random.integers(0, 7, (5, 6)), np.ones((9, 9), dtype=int))
                entity_map = EntityMap.from_array(ids, crowds=[6] if (ids == 6).any() else [])
                truth.add(f"{number}", entity_map)
                mine.add(f"{number}", *perturb(entity_map, random, HOW))
    return tmp_path / "data"


Score = Callable[..., Path]


@pytest.fixture
def score(data: Path, tmp_path: Path) -> Score:
    """Run `eval` on the command line; return the result file."""

    def run(out: Path, *more: str, gt: str = "a_val", preds: Path | None = None) -> Path:
        preds = preds or tmp_path / "preds"
        arguments = [str(preds), "--gt", gt, "--data", str(data), "--out", str(out), "-j", "1"]
        assert main(["eval", *arguments, "-q", *more]) == 0
        return out

    return run


def parts_of(score: Score, folder: Path, count: int, *more: str, **kwargs: Any) -> list[Path]:
    for index in range(1, count + 1):
        score(folder / "r.json", *more, "--shard", f"{index}/{count}", **kwargs)
    return sorted(folder.glob("*.json"))


def same(merged: Path, whole: Path) -> bool:
    records = merged.with_suffix(".matches.npz").read_bytes()
    return (
        merged.read_bytes() == whole.read_bytes()
        and records == whole.with_suffix(".matches.npz").read_bytes()
    )


@pytest.mark.parametrize("count", [1, 3, 13])
@pytest.mark.parametrize("gt", ["a_val", "a_val+b_val"])
def test_merged_parts_have_the_bytes_of_one_run(
    score: Score, tmp_path: Path, count: int, gt: str
) -> None:
    whole = score(tmp_path / "whole.json", gt=gt)
    parts = parts_of(score, tmp_path / "parts", count, gt=gt)
    assert [p.name for p in parts] == sorted(
        f"r.part-{index}-of-{count}.json" for index in range(1, count + 1)
    )
    (done,) = merge_results(parts[::-1], tmp_path / "merged")
    assert done.path == tmp_path / "merged" / "r.json"
    assert same(done.path, whole)
    resolved = 2 * (1 + gt.count("+"))  # what the sets tell is counted once
    assert read_result(done.path).prediction.resolved_images == resolved


def coco_results(path: Path, *, overlapping: bool) -> Path:
    """Write COCO results of random boxes, as plain COCO tools do."""
    random, rows = np.random.default_rng(7), []
    for number in range(COUNT):
        taken = np.zeros((45, 54), dtype=bool)
        for _ in range(6):
            top, left = random.integers(0, 30, 2)
            mask = np.zeros((45, 54), dtype=bool)
            mask[top : top + 14, left : left + 14] = True
            if not overlapping:
                mask &= ~taken
            taken |= mask
            encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
            rle = {"size": [45, 54], "counts": encoded["counts"].decode()}
            row = {"image_id": number, "category_id": 1, "segmentation": rle}
            rows.append(row | {"score": float(random.random())})
    path.write_text(json.dumps(rows))
    return path


@pytest.mark.parametrize("overlapping", [False, True])
def test_coco_results_in_parts(score: Score, tmp_path: Path, overlapping: bool) -> None:
    """Scored in one pass over the file, but for images whose overlap is resolved."""
    preds = coco_results(tmp_path / "results.json", overlapping=overlapping)
    more = ["--overlap", "resolve", "--bootstrap", "6"]
    whole = score(tmp_path / "whole.json", *more, preds=preds)
    parts = parts_of(score, tmp_path / "p", 4, *more, preds=preds)
    (done,) = merge_results(parts, tmp_path / "merged")
    assert same(done.path, whole)
    assert bool(read_result(whole).prediction.resolved_images) == overlapping
    assert ("APoverlapping" in read_result(done.path).scores) == overlapping
    assert set(read_result(done.path).intervals) == set(read_result(done.path).scores)


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """The address of a Dask scheduler with two workers."""
    pytest.importorskip("distributed")
    with open_cluster("local:2") as opened:
        # Dask's executor names its client nowhere else
        yield opened.executor._client.scheduler.address  # type: ignore[attr-defined]


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.filterwarnings("ignore:There is no current event loop:DeprecationWarning")
@pytest.mark.parametrize("predictions", ["maps", "plain", "overlapping", "by boundary"])
def test_workers_change_no_byte(
    score: Score, scheduler: str, tmp_path: Path, predictions: str
) -> None:
    """Threads of the kernel, processes, and a cluster; the last two get the images left over."""
    more, preds = ["--overlap", "resolve", "--bootstrap", "6"], None
    if predictions in ("plain", "overlapping"):
        overlapping = predictions == "overlapping"
        preds = coco_results(tmp_path / "results.json", overlapping=overlapping)
    more += ["--boundary"] * (predictions == "by boundary")
    whole = score(tmp_path / "one" / "r.json", *more, preds=preds)
    for way in (["--jobs", "3"], ["--cluster", scheduler]):
        other = score(tmp_path / way[0] / "r.json", *more, *way, preds=preds)
        files, expected = (
            {f.name: f.read_bytes() for f in p.parent.iterdir()} for p in (other, whole)
        )
        assert files == expected


def test_intervals_are_those_of_the_whole(score: Score, tmp_path: Path) -> None:
    whole = score(tmp_path / "whole.json", "--bootstrap", "20", "--seed", "4")
    parts = parts_of(score, tmp_path / "p", 3, "--bootstrap", "20", "--seed", "4")
    (done,) = merge_results(parts, tmp_path / "merged")
    assert read_result(done.path).intervals
    assert same(done.path, whole)
    score(tmp_path / "p" / "r.json", "--bootstrap", "20", "--seed", "5", "--shard", "2/3")
    with pytest.raises(ConflictError, match="different `--bootstrap` or `--seed`"):
        merge_results(parts, tmp_path / "merged")


def test_subsets_are_cut_from_wholes(data: Path, tmp_path: Path) -> None:
    (tmp_path / "night.txt").write_text("1\n")
    arguments = ["eval", str(tmp_path / "preds"), "--gt", "a_val", "--data", str(data)]
    more = ["--shard", "1/2", "--subset", str(tmp_path / "night.txt")]
    assert main([*arguments, *more]) == 2


def test_a_part_says_that_it_is_one(score: Score, tmp_path: Path) -> None:
    part = read_result(parts_of(score, tmp_path, 3)[1])
    assert "|subset:part-2-of-3" in part.signature.metric
    assert part.ground_truth.num_images == part.counts["images"] == 4
    assert part.counts["whole_images"] == COUNT


@pytest.mark.parametrize("gap", [0, 1, 2])
def test_a_gap_is_refused(score: Score, tmp_path: Path, gap: int) -> None:
    parts = parts_of(score, tmp_path, 3)
    del parts[gap]
    with pytest.raises(MissingDataError, match=f"parts of 3 that are missing: {gap + 1}"):
        merge_results(parts)


def test_a_part_twice_is_refused(score: Score, tmp_path: Path) -> None:
    parts = parts_of(score, tmp_path, 2)
    with pytest.raises(ConflictError, match="part 2 of 2 is there 2 times"):
        merge_results([*parts, parts[1]])


@pytest.mark.parametrize(
    ("more", "key"),
    [
        (("--protocol", "official"), "signature"),
        (("--void", "ignore"), "signature"),
    ],
)
def test_mixed_protocols_are_refused(
    score: Score, tmp_path: Path, more: tuple[str, ...], key: str
) -> None:
    parts = parts_of(score, tmp_path / "a", 2)
    other = parts_of(score, tmp_path / "b", 2, *more)
    shutil.copy(other[1], parts[1])
    shutil.copy(other[1].with_suffix(".matches.npz"), parts[1].with_suffix(".matches.npz"))
    with pytest.raises(ConflictError, match="`r` were scored differently") as caught:
        merge_results(parts)
    (where,) = caught.value.where
    assert where.startswith(f"{key}: ")


def test_parts_of_other_truth_or_models_are_refused(score: Score, tmp_path: Path) -> None:
    first = parts_of(score, tmp_path / "a", 2)
    other = parts_of(score, tmp_path / "b", 2, gt="b_val")
    shutil.copytree(tmp_path / "a", tmp_path / "c")
    for path in (tmp_path / "c").glob("*part-2*"):
        shutil.copy(other[1].with_name(path.name), path)
    with pytest.raises(ConflictError) as caught:
        merge_results(sorted((tmp_path / "c").glob("*.json")))
    assert any(where.startswith("ground truth: ") for where in caught.value.where)
    with pytest.raises(ConflictError, match="merged into one result"):
        merge_results([*first, *other], tmp_path / "out")


def test_a_whole_result_is_no_part(score: Score, tmp_path: Path) -> None:
    whole = score(tmp_path / "r.json")
    with pytest.raises(FormatError, match="not of a part"):
        merge_results([whole])
    shutil.copy(whole, tmp_path / "r.part-1-of-1.json")
    with pytest.raises(FormatError, match="not of a part"):
        merge_results([tmp_path / "r.part-1-of-1.json"])


def test_a_part_without_its_records_is_refused(score: Score, tmp_path: Path) -> None:
    parts = parts_of(score, tmp_path, 2)
    parts[0].with_suffix(".matches.npz").unlink()
    with pytest.raises(MissingDataError, match="match records cannot be read"):
        merge_results(parts)


def test_a_pattern_may_catch_the_records_too(score: Score, tmp_path: Path) -> None:
    whole = score(tmp_path / "whole.json")
    parts_of(score, tmp_path / "p", 2)
    caught = sorted(map(str, (tmp_path / "p").glob("r.part-*")))
    assert len(caught) == 4
    told = CliRunner().invoke(command, caught)
    assert told.exit_code == 0
    assert f"{read_result(whole).scores['AP']:.1f}" in told.stdout
    assert "subset" not in told.stdout
    assert same(tmp_path / "p" / "r.json", whole)
    told = CliRunner().invoke(command, [*caught, "--json"])
    assert json.loads(told.stdout)["results"][0]["parts"] == 2
