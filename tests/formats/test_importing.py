"""Predictions of others become an entity set."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from entitybench.entity_set import EntitySet, Model, open_path
from entitybench.entity_writer import EntityWriter
from entitybench.errors import ConflictError, FormatError, MissingDataError, OverlapError
from entitybench.formats.detection import Format, ReadOptions
from entitybench.formats.duplicates import DuplicateRule, Duplicates
from entitybench.formats.flattening import Flattening
from entitybench.formats.importing import ImportChoices, ImportSummary, Outcome, import_predictions
from entitybench.formats.missing_score import MissingScore
from entitybench.formats.query_outputs import QueryRules

IDS = ["000000000139", "000000000285", "000000000632"]
RESOLVE = ImportChoices(flattening=Flattening.SCORE_ON_TOP)


@pytest.fixture
def truth(tmp_path: Path) -> EntitySet:
    """Three images of four columns, an entity each."""
    with EntityWriter(tmp_path / "toy_val", kind="ground_truth", source="toy", split="val") as out:
        for image_id in IDS:
            out.add(image_id, [[1, 2, 3, 4]] * 3, file_name=f"{image_id}.png")
    return open_path(tmp_path / "toy_val")


@pytest.fixture
def stacks(tmp_path: Path) -> Path:
    """Mask stacks; those of the second image overlap in a column."""
    folder = tmp_path / "stacks"
    folder.mkdir()
    for number, image_id in enumerate(IDS):
        masks = np.zeros((2, 3, 4), bool)
        masks[0, :, :2], masks[1, :, 2 - (number == 1) :] = True, True
        np.savez(folder / f"{image_id}.npz", masks=masks, scores=[0.5, 0.75])
    return folder


def run(path: Path, truth: EntitySet, choices: ImportChoices, **more: Any) -> ImportSummary:
    out = truth.path.parent / more.pop("out", "preds")
    model = more.pop("model", Model("mine", ("toy_train",)))
    return import_predictions(path, truth, out, model, choices, **more)


def digest(folder: Path) -> str:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    whole = b"".join(p.name.encode() + p.read_bytes() for p in files)
    return hashlib.sha256(whole).hexdigest()


def test_overlap_is_refused_by_name_and_then_resolved(truth: EntitySet, stacks: Path) -> None:
    with pytest.raises(OverlapError, match="predictions overlap in 1 of 3 images") as caught:
        run(stacks, truth, ImportChoices())
    assert caught.value.where == ("000000000285: entities 1 and 2 share 3 pixels",)
    assert "--overlap resolve" in caught.value.hint
    done = run(stacks, truth, RESOLVE)  # goes on where the refusal stopped
    assert (done.images, done.entities, done.already_there) == (3, 6, False)
    written = open_path(done.path)
    assert written.header.model == Model("mine", ("toy_train",), resolved_images=1)
    np.testing.assert_array_equal(written[IDS[1]].map.to_array(), [[1, 2, 2, 2]] * 3)
    assert written[IDS[1]].row.file_name == f"{IDS[1]}.png"
    fresh = run(stacks, truth, RESOLVE, out="fresh/preds")
    assert open_path(fresh.path).header.content_hash == written.header.content_hash


def test_again_changes_nothing_and_other_choices_are_refused(
    truth: EntitySet, stacks: Path
) -> None:
    first = run(stacks, truth, RESOLVE)
    before = digest(first.path)
    assert run(stacks, truth, RESOLVE).already_there
    assert digest(first.path) == before
    small = ImportChoices(flattening=Flattening.SMALL_ON_TOP)
    with pytest.raises(ConflictError, match="made with other options") as caught:
        run(stacks, truth, small)
    assert "small-on-top" in caught.value.where[0]
    done = run(stacks, truth, small, overwrite=True)
    assert done.model.score_rule == "model, small-on-top"


def test_interrupted_it_resumes_to_the_same_bytes(truth: EntitySet, stacks: Path) -> None:
    def stops_after_two(outcomes: Iterable[Outcome], total: int) -> Iterable[Outcome]:
        assert total == 3
        for number, outcome in enumerate(outcomes):
            if number == 2:
                raise KeyboardInterrupt
            yield outcome

    with pytest.raises(KeyboardInterrupt):
        run(stacks, truth, RESOLVE, progress=stops_after_two)
    totals = []

    def noted(outcomes: Iterable[Outcome], total: int) -> Iterable[Outcome]:
        totals.append(total)
        return outcomes

    resumed = run(stacks, truth, RESOLVE, progress=noted)
    whole = run(stacks, truth, RESOLVE, out="whole/preds")
    assert totals == [1]
    assert digest(resumed.path) == digest(whole.path)
    assert resumed.model.resolved_images == 1


def test_two_processes_write_the_bytes_of_one(
    truth: EntitySet, stacks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("entitybench.formats.importing._WORTH_A_PROCESS", 1)
    one = run(stacks, truth, RESOLVE, out="one/preds")
    two = run(stacks, truth, RESOLVE, out="two/preds", jobs=2)
    assert digest(one.path) == digest(two.path)


def test_images_without_predictions(truth: EntitySet, stacks: Path) -> None:
    (stacks / f"{IDS[2]}.npz").unlink()
    with pytest.raises(MissingDataError, match="predictions miss 1 of 3 images of `toy_val`"):
        run(stacks, truth, RESOLVE)
    done = run(stacks, truth, ImportChoices(None, ReadOptions(), Flattening.SCORE_ON_TOP, True))
    assert len(open_path(done.path)) == 3
    assert open_path(done.path)[IDS[2]].row.entities == ()


def test_a_results_file_lists_no_empty_images(truth: EntitySet, tmp_path: Path) -> None:
    row = {"image_id": 139, "segmentation": {"size": [3, 4], "counts": [0, 12]}, "score": 0.5}
    path = tmp_path / "results.json"
    path.write_text(json.dumps([row]))
    done = run(path, truth, ImportChoices())
    assert (done.images, done.entities) == (3, 1)


def test_an_entity_set_keeps_what_it_says_of_itself(truth: EntitySet, stacks: Path) -> None:
    first = run(stacks, truth, RESOLVE, model=Model("a", thresholded=0.25), out="first.zip")
    second = run(first.path, truth, ImportChoices(), model=Model("b"), out="second")
    assert second.model == Model("b", thresholded=0.25, resolved_images=1)


def test_stand_ins_are_said_aloud(truth: EntitySet, stacks: Path) -> None:
    for path in stacks.iterdir():
        np.savez(path, masks=np.load(path)["masks"])
    with pytest.raises(MissingDataError, match="have no score"):
        run(stacks, truth, RESOLVE)
    read = ReadOptions(MissingScore.AREA)
    done = run(stacks, truth, ImportChoices(None, read, Flattening.SCORE_ON_TOP))
    assert done.model.score_rule == "area"
    assert done.warnings == (
        "scores are stand-ins (area): AP depends on that rule; AR and SQ do not, so read them "
        "beside it",
    )


def queries(folder: Path, number: int) -> Path:
    """Outputs of so many queries: the first sees the left half, the others the same."""
    folder.mkdir()
    masks = np.full((number, 3, 4), -1.0)
    masks[:, :, :2] = 1
    logits = np.zeros((number, 3))
    logits[:, 0], logits[1:, 1] = 2.0, 3.0
    for image_id in IDS:
        np.savez(folder / f"{image_id}.npz", logits=logits, masks=masks)
    return folder


def test_fewer_queries_than_entities(truth: EntitySet, tmp_path: Path) -> None:
    done = run(queries(tmp_path / "three", 3), truth, RESOLVE)
    crowded = [w for w in done.warnings if "queries" in w]
    assert crowded == [
        "3 of 3 images have more entities than there are queries (3): they cannot all be found"
    ]
    enough = run(queries(tmp_path / "four", 4), truth, RESOLVE, out="enough")
    assert not any("queries" in w for w in enough.warnings)


def test_duplicates_are_recorded(truth: EntitySet, tmp_path: Path) -> None:
    folder = queries(tmp_path / "raw", 2)
    kept = run(folder, truth, RESOLVE, out="kept")
    assert any("--duplicates both" in warning for warning in kept.warnings)
    for rule in ("per-class", "agnostic"):
        read = ReadOptions(duplicates=Duplicates(DuplicateRule(rule)))
        choices = ImportChoices(None, read, Flattening.SCORE_ON_TOP)
        done = run(folder, truth, choices, out=rule)
        assert done.model.score_rule == f"model, duplicates {rule}"
        assert not any("--duplicates" in warning for warning in done.warnings)


def test_a_least_score_labels_the_row(truth: EntitySet, tmp_path: Path) -> None:
    folder = queries(tmp_path / "raw", 2)
    read = ReadOptions(queries=QueryRules(min_score=0.6))
    done = run(folder, truth, ImportChoices(None, read, Flattening.SCORE_ON_TOP))
    assert done.model.thresholded == 0.6
    assert done.entities == 3
    told = run(folder, truth, RESOLVE, out="told", model=Model("mine", thresholded=0.85))
    assert told.model.thresholded == 0.85


def test_more_queries_than_a_map_has_ids(truth: EntitySet, tmp_path: Path) -> None:
    """A map holds 65,535 ids: a quarter of a million masks do not become one silently."""
    with EntityWriter(tmp_path / "big", kind="ground_truth") as out:
        out.add("1", np.ones((256, 257), int))
    ids = np.arange(1, 256 * 257 + 1).reshape(256, 257)
    np.savez(tmp_path / "1.npz", ids=ids, scores=np.full(ids.size, 0.5))
    with pytest.raises(FormatError, match="65,792 ids do not fit into a 16-bit map"):
        run(tmp_path / "1.npz", open_path(tmp_path / "big"), ImportChoices())


def test_the_format_can_be_told(truth: EntitySet, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text("[]")
    done = run(path, truth, ImportChoices(Format.COCO_RESULTS))
    assert open_path(done.path).header.options == {"images_of": "toy_val", "format": "coco-results"}
    with pytest.raises(FormatError):
        run(path, truth, ImportChoices(Format.SAM), out="other")
