"""`entitybench import`, and scoring what it wrote."""

from __future__ import annotations

import json
from pathlib import Path

import click
import numpy as np
import pytest

from entitybench.cli import main
from entitybench.commands.import_command import FORMATS, command
from entitybench.entity_set import open_path
from entitybench.entity_writer import EntityWriter
from entitybench.errors import MissingDataError, OverlapError
from entitybench.formats.detection import Format
from entitybench.metrics.benchmark import evaluate

IDS = ["000000000139", "000000000285"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data root with two images of two halves, and raw outputs of a model with classes."""
    monkeypatch.chdir(tmp_path)
    with EntityWriter("data/toy_val", kind="ground_truth") as truth:
        for image_id in IDS:
            truth.add(image_id, [[1, 1, 2, 2]] * 4)
    (tmp_path / "raw").mkdir()
    masks = np.full((3, 4, 4), -3.0, np.float32)
    masks[:2, :, :2] = masks[2, :, 2:] = 3.0  # the left half twice, the right half once
    logits = np.array([[4, 0, 0], [0, 3, 0], [2, 0, 0]], np.float32)
    for image_id in IDS:
        np.savez(tmp_path / "raw" / f"{image_id}.npz", logits=logits, masks=masks)
    return tmp_path


def run(*arguments: str) -> int:
    result = command.main([*arguments, "-j", "1"], "import", standalone_mode=False)
    assert isinstance(result, int)
    return result


def test_the_formats_are_those_that_are_read() -> None:
    assert FORMATS == ("auto", *Format)


def test_a_set_where_nobody_said_where(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["raw", "--gt", "toy_val", "--model", "my model", "--trained-on", "toy_train"]
    assert run(*arguments, "--overlap", "resolve") == 0
    printed, said = capsys.readouterr()
    model = open_path(here / "preds" / "my_model" / "toy_val").header.model
    assert model is not None
    assert (model.name, model.trained_on, model.resolved_images) == ("my model", ("toy_train",), 2)
    assert "preds/my_model/toy_val       2         4" in printed
    assert "raw query outputs: 2 images, 3 queries, 2 classes" in said
    assert "2 masks lost all their pixels to others" in said
    assert "next: entitybench eval preds/my_model/toy_val --gt toy_val" in said
    assert run(*arguments, "--overlap", "resolve") == 0
    assert "already there" in capsys.readouterr().out


def test_both_rules_are_reported_and_scored(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The left half is found under two labels: two predictions per class, one across classes."""
    arguments = ["raw", "--gt", "toy_val", "--model", "m", "--flatten", "score-on-top", "--json"]
    assert run(*arguments, "--duplicates", "both") == 0
    sets = json.loads(capsys.readouterr().out)["sets"]
    assert [s["model"]["name"] for s in sets] == ["m-per-class", "m-agnostic"]
    assert [s["path"] for s in sets] == ["preds/m-per-class/toy_val", "preds/m-agnostic/toy_val"]
    rules = [s["model"]["score_rule"] for s in sets]
    assert rules == ["model, duplicates per-class", "model, duplicates agnostic"]
    for s in sets:
        done = evaluate(s["path"], "toy_val")
        assert done.result.scores["AP"] == pytest.approx(100)
        rule = s["model"]["score_rule"].replace(", ", "-").replace(" ", "-")
        assert done.result.signature.prediction.startswith(f"scores:{rule}|")


def test_both_rules_beside_a_named_set(here: Path) -> None:
    arguments = ["raw", "--gt", "toy_val", "--model", "m", "--overlap", "resolve"]
    assert run(*arguments, "--duplicates", "both", "--out", "out/x.zip") == 0
    assert sorted(p.name for p in Path("out").iterdir()) == ["x-agnostic.zip", "x-per-class.zip"]


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_parts_merge_to_what_one_run_writes(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Overlap is resolved in both images: the parts' counts add up, whatever came before."""
    arguments = ["raw", "--gt", "toy_val", "--model", "m", "--overlap", "resolve"]
    assert run(*arguments, "--out", "whole/toy_val") == 0
    for shard in ("1/2", "2/2"):
        assert run(*arguments, "--out", "parts/toy_val", "--shard", shard) == 0
    assert "next: entitybench merge parts/toy_val.part-*-of-2" in capsys.readouterr().err
    parts = sorted(here.glob("parts/toy_val.part-*-of-2"))
    assert [open_path(part).ids for part in parts] == [(IDS[0],), (IDS[1],)]
    assert main(["merge", *map(str, parts), "--out", "merged", "-j", "1"]) == 0
    assert files_of(here / "merged") == files_of(here / "whole")
    again = ["whole/toy_val", "--gt", "toy_val", "--model", "again", "--out", "again/toy_val"]
    for shard in ("1/2", "2/2"):
        assert run(*again, "--shard", shard) == 0
    parts = sorted(here.glob("again/toy_val.part-*-of-2"))
    assert main(["merge", *map(str, parts), "-j", "1"]) == 0
    model = open_path(here / "again" / "toy_val").header.model
    assert model is not None
    assert model.resolved_images == 2


def test_a_part_needs_only_its_own_images(here: Path) -> None:
    (here / "raw" / f"{IDS[1]}.npz").unlink()
    arguments = ["raw", "--gt", "toy_val", "--model", "m", "--flatten", "score-on-top"]
    assert run(*arguments, "--out", "x.zip", "--shard", "1/2") == 0
    assert open_path(here / "x.part-1-of-2.zip").header.name == "x.part-1-of-2"
    with pytest.raises(MissingDataError, match="predictions miss 1 of 1 images of `toy_val`"):
        run(*arguments, "--out", "x.zip", "--shard", "2/2")


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.filterwarnings("ignore:There is no current event loop:DeprecationWarning")
def test_a_cluster_writes_what_one_process_does(here: Path) -> None:
    pytest.importorskip("distributed")
    arguments = ["raw", "--gt", "toy_val", "--model", "m", "--overlap", "resolve"]
    assert run(*arguments, "--out", "a/toy_val") == 0
    assert run(*arguments, "--out", "b/toy_val", "--cluster", "local:1") == 0
    assert files_of(here / "a") == files_of(here / "b")


def test_one_rule(here: Path) -> None:
    arguments = ["raw", "--gt", "toy_val", "--model", "m", "--out", "preds/x"]
    assert run(*arguments, "--duplicates", "agnostic") == 0  # nothing overlaps any more
    header = open_path(Path("preds/x")).header
    assert header.num_entities == 4
    assert header.options == {"duplicate_iou": 0.6, "images_of": "toy_val"}
    assert header.model is not None
    assert header.model.resolved_images == 0


def test_overlap_is_refused_unless_allowed(here: Path) -> None:
    with pytest.raises(OverlapError, match="overlap in 2 of 2 images"):
        run("raw", "--gt", "toy_val", "--model", "m")
    with pytest.raises(click.UsageError, match="--overlap reject allows none"):
        run(
            *("raw", "--gt", "toy_val", "--model", "m"),
            *("--overlap", "reject", "--flatten", "small-on-top"),
        )


def test_a_threshold_labels_the_row(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A panoptic output has lost what scored low: it says so until somebody says how low."""
    for image_id in IDS:
        table = json.dumps([{"id": 1, "score": 0.9}])
        ids = np.ones((4, 4), np.int32)
        np.savez(here / "raw" / f"{image_id}.npz", panoptic_seg=ids, segments_info=table)
    arguments = ["raw", "--gt", "toy_val", "--model", "m"]
    assert run(*arguments, "--out", "preds/unsaid") == 0
    assert "`--thresholded X`" in capsys.readouterr().err
    assert run(*arguments, "--thresholded", "0.85", "--out", "preds/said") == 0
    assert "warning" not in capsys.readouterr().err
    scored = evaluate("preds/said", "toy_val")
    assert scored.result.signature.prediction.endswith("|thresholded:0.85")


def test_eval_recognises_what_import_does(here: Path) -> None:
    """Nobody has to import: the same files are scored where they lie, to the same numbers."""
    run("raw", "--gt", "toy_val", "--model", "m", "--overlap", "resolve", "--out", "preds/x")
    imported = evaluate("preds/x", "toy_val").result
    direct = evaluate("raw", "toy_val", overlap="resolve", model="m").result
    assert imported.scores.items() <= direct.scores.items()  # masks have more to tell
    assert direct.signature == imported.signature


@pytest.mark.parametrize("option", [["--thresholded", "2"], ["--as", "yolo"], ["--min-score", "x"]])
def test_bad_options(here: Path, option: list[str]) -> None:
    with pytest.raises(click.UsageError):
        run("raw", "--gt", "toy_val", "--model", "m", *option)


def test_the_choices_of_raw_queries_reach_the_reader(here: Path) -> None:
    arguments = ["raw", "--gt", "toy_val", "--model", "m", "--overlap", "resolve"]
    run(*arguments, "--out", "a")
    run(*arguments, "--out", "b", "--query-score", "class-mask", "--num-classes", "2")
    run(*arguments, "--out", "c", "--min-score", "0.85")
    a, b = open_path(Path("a"))[IDS[0]].scores, open_path(Path("b"))[IDS[0]].scores
    assert a is not None
    assert b is not None
    np.testing.assert_allclose(b, a / (1 + np.exp(-3)), rtol=1e-6)
    assert open_path(Path("b")).header.options["query_score"] == "class-mask"
    assert open_path(Path("c")).header.num_entities == 2
