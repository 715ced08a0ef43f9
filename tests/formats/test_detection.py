"""What `open_predictions` recognises, and what it says when it does not."""

from __future__ import annotations

import gzip
import json
import shutil
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from entitybench.entity_writer import EntityWriter
from entitybench.errors import FormatError, MissingDataError
from entitybench.formats.coco_panoptic import CocoPanoptic
from entitybench.formats.coco_results import CocoResults
from entitybench.formats.detection import Format, open_predictions
from entitybench.formats.detectron2_panoptic import Detectron2Panoptic
from entitybench.formats.entity_set_predictions import EntitySetPredictions
from entitybench.formats.mask_stack import MaskStacks
from entitybench.formats.missing_score import MissingScore
from entitybench.formats.predictions import Predictions
from entitybench.formats.query_outputs import QueryOutputs
from entitybench.formats.transformers_results import TransformersResults

Write = Callable[[Sequence[tuple[Any, Any, Sequence[dict[str, Any]]]]], Path]
TRUTH = ["000000000139"]
RESULT = {"image_id": 139, "segmentation": {"size": [4, 6], "counts": [24]}, "score": 1}


def opened(path: Path, rule: MissingScore = MissingScore.ERROR) -> Predictions:
    return open_predictions(path, image_ids=TRUTH, missing_score=rule)


@pytest.mark.parametrize("table", [[], [RESULT], {"annotations": [RESULT]}, {"annotations": []}])
def test_results(tmp_path: Path, table: Any) -> None:
    path = tmp_path / "a.json"
    path.write_text("\n  " + json.dumps(table))
    assert isinstance(opened(path), CocoResults)
    assert isinstance(opened(tmp_path), CocoResults)  # the only thing in its folder
    packed = tmp_path / "b.json.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert isinstance(opened(packed), CocoResults)


def test_panoptic_by_its_json_or_its_folder(write_panoptic: Write, tmp_path: Path) -> None:
    path = write_panoptic([(139, [[1]], [{"id": 1, "score": 1}])])
    assert isinstance(opened(path), CocoPanoptic)
    assert isinstance(opened(tmp_path), CocoPanoptic)


def test_mask_stacks_by_file_or_folder(tmp_path: Path) -> None:
    path = tmp_path / "139.npz"
    np.savez(path, masks=np.zeros((0, 4, 6), bool), scores=[])
    assert isinstance(opened(path), MaskStacks)
    assert isinstance(opened(tmp_path), MaskStacks)
    np.save(tmp_path / "139.npy", np.zeros((0, 4, 6), bool))
    assert isinstance(opened(tmp_path / "139.npy", MissingScore.AREA), MaskStacks)


def test_entity_sets_as_folder_and_zip(tmp_path: Path) -> None:
    for name in ("mine", "mine.zip"):
        with EntityWriter(tmp_path / name, model="mine") as writer:
            writer.add("000000000139", [[1]], scores=[1])
        assert isinstance(opened(tmp_path / name), EntitySetPredictions)


def test_an_unfinished_entity_set_is_not_scored(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), EntityWriter(tmp_path / "mine", model="mine"):
        raise RuntimeError
    with pytest.raises(MissingDataError, match="is unfinished"):
        opened(tmp_path / "mine")


def test_the_score_rule_reaches_the_reader(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{**RESULT, "score": None}]))
    assert opened(path, MissingScore.CONSTANT).score_rule == "constant"


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="no predictions at"):
        opened(tmp_path / "absent")


def assert_lists_what_was_looked_for(error: FormatError) -> None:
    for name in ("entity set", "COCO results JSON", "COCO panoptic JSON", "mask stacks"):
        assert name in error.hint


@pytest.mark.parametrize("name", ["preds.pkl", "preds.csv", "preds"])
def test_another_file_is_refused_and_not_opened(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"\x80\x04.")
    with pytest.raises(FormatError, match="is not a known format of predictions") as caught:
        opened(path)
    assert_lists_what_was_looked_for(caught.value)


@pytest.mark.parametrize("content", [{}, {139: {"boxes": 1}}, {"boxes": {"a": 1}}, 7, [1]])
def test_a_torch_file_of_something_else(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "preds.pth"
    torch.save(content, path)
    with pytest.raises(FormatError):
        opened(path)


def test_a_torch_file_is_known_by_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "preds.pth"
    torch.save({139: {"boxes": torch.zeros(1, 4)}}, path)
    with pytest.raises(FormatError, match="holds no output that is known") as caught:
        opened(path)
    assert caught.value.where == ("it holds `boxes`",)
    assert_lists_what_was_looked_for(caught.value)


@pytest.mark.parametrize(
    ("arrays", "kind"),
    [
        ({"masks": np.zeros((0, 4, 6), bool), "scores": np.zeros(0)}, MaskStacks),
        ({"masks": np.zeros((1, 2, 2)), "logits": np.zeros((1, 2))}, QueryOutputs),
        ({"panoptic_seg": np.zeros((4, 6), int), "segments_info": "[]"}, Detectron2Panoptic),
        ({"segmentation": np.zeros((4, 6), int), "segments_info": "[]"}, TransformersResults),
    ],
)
def test_arrays_are_known_by_their_names(tmp_path: Path, arrays: Any, kind: type) -> None:
    np.savez(tmp_path / "139.npz", **arrays)
    assert isinstance(opened(tmp_path), kind)
    assert isinstance(opened(tmp_path / "139.npz"), kind)


def test_the_users_word_is_taken(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[]")
    (tmp_path / "b.pth").write_bytes(b"")
    found = open_predictions(tmp_path, image_ids=TRUTH, format=Format.COCO_RESULTS)
    assert isinstance(found, CocoResults)
    with pytest.raises(FormatError, match=r"not a readable \.pth file"):
        open_predictions(tmp_path, image_ids=TRUTH, format=Format.DETECTRON2_INSTANCES)
    (tmp_path / "b.json").write_text("[]")
    with pytest.raises(FormatError, match="holds 2 files that may be coco-panoptic"):
        open_predictions(tmp_path, image_ids=TRUTH, format=Format.COCO_PANOPTIC)


def test_a_folder_without_predictions(tmp_path: Path) -> None:
    (tmp_path / "000000000139.png").write_bytes(b"")
    with pytest.raises(FormatError, match="holds no known format") as caught:
        opened(tmp_path)
    assert_lists_what_was_looked_for(caught.value)


def test_a_zip_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "preds.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("results.json", "[]")
    with pytest.raises(FormatError, match="holds no entity set") as caught:
        opened(path)
    assert_lists_what_was_looked_for(caught.value)
    path.write_bytes(b"PK")
    with pytest.raises(FormatError, match="holds no entity set"):
        opened(path)


def test_several_candidates_in_a_folder_are_all_named(tmp_path: Path) -> None:
    for name in ("a.json", "b.json"):
        (tmp_path / name).write_text("[]")
    np.save(tmp_path / "139.npy", np.zeros((1, 1), int))
    with pytest.raises(FormatError, match="more than one thing") as caught:
        opened(tmp_path)
    assert caught.value.where == (
        str(tmp_path / "a.json"),
        str(tmp_path / "b.json"),
        "1 mask stacks",
    )
    assert caught.value.hint == "name the file itself"


@pytest.mark.parametrize(
    "table",
    [
        {"annotations": [{"image_id": 139, "bbox": [0, 0, 1, 1], "score": 1}]},
        {"annotations": [RESULT, {"image_id": 139, "file_name": "a.png", "segments_info": []}]},
        {"annotations": [{**RESULT, "segments_info": []}]},
    ],
)
def test_an_ambiguous_table_is_refused(tmp_path: Path, table: Any) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(table))
    with pytest.raises(FormatError, match="neither `segmentation` nor `segments_info`") as caught:
        opened(path)
    assert_lists_what_was_looked_for(caught.value)


def test_an_object_without_annotations_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"results": []}')
    with pytest.raises(FormatError, match="no `annotations`") as caught:
        opened(path)
    assert_lists_what_was_looked_for(caught.value)


def test_json_that_is_not_json_tells_the_byte(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"annotations": [}')
    with pytest.raises(FormatError, match=r"not JSON: .*\(byte 17\)"):
        opened(path)


def test_the_real_truth_of_coco_is_recognised(realdata: Path, tmp_path: Path) -> None:
    root = realdata / "coco_panoptic" / "assembled_official_layout" / "annotations"
    copy = tmp_path / "annotations"
    shutil.copytree(root / "panoptic_val2017", copy / "panoptic_val2017")
    shutil.copy(root / "panoptic_val2017.json", copy)
    found = open_predictions(
        copy, image_ids=["000000000139", "000000142238"], missing_score=MissingScore.AREA
    )
    assert found.description == (
        "COCO panoptic JSON: 47 segments in 2 images, 1 crowds left out; "
        f"PNGs in `{copy / 'panoptic_val2017'}`"
    )
