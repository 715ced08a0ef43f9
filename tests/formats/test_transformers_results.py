"""transformers' post-processed results, made by transformers."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from entitybench.candidates import Candidates
from entitybench.errors import FormatError
from entitybench.formats.detection import open_predictions
from entitybench.formats.predictions import ImageSize, ScoredMap
from entitybench.formats.query_outputs import QueryOutputs
from entitybench.formats.transformers_results import TransformersResults, open_results
from tests.tiny_models import outputs_of, post_processor

IDS = ["000000000139", "000000000285"]
SIZE = ImageSize("000000000139", 77, 50)
MODELS = ["detr", "maskformer", "mask2former"]


def post_process(kind: str, name: str, outputs: Any, size: tuple[int, int], **more: Any) -> Any:
    """Call transformers so that a random model's segments survive."""
    method = getattr(post_processor(name), f"post_process_{kind}_segmentation")
    loose = {"threshold": 0.0, "mask_threshold": 0.0, "overlap_mask_area_threshold": 0.0}
    (result,) = method(outputs, **{**loose, "target_sizes": [size], **more})
    return result


def loaded(path: Path, image: ImageSize) -> ScoredMap | Candidates:
    reader = open_predictions(path, image_ids=IDS)
    assert isinstance(reader, TransformersResults)
    found: ScoredMap | Candidates = pickle.loads(pickle.dumps(reader.entry(image))).load()
    return found


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("suffix", ["npz", "pth"])
def test_panoptic_results_of_each_model(tmp_path: Path, name: str, suffix: str) -> None:
    result = post_process("panoptic", name, outputs_of(name), SIZE.shape, label_ids_to_fuse=set())
    assert result["segments_info"], "the random model finds something"
    if suffix == "npz":
        arrays = {"segmentation": result["segmentation"].numpy()}
        table = json.dumps(result["segments_info"])
        np.savez(tmp_path / "139.npz", segments_info=table, **arrays)
    else:
        torch.save({139: result}, tmp_path / "results.pth")
    found = loaded(tmp_path, SIZE)
    assert isinstance(found, ScoredMap)
    ids = result["segmentation"].numpy()
    assert found.scores.tolist() == [s["score"] for s in result["segments_info"]]
    for number, segment in enumerate(result["segments_info"], start=1):
        np.testing.assert_array_equal(found.map.to_array() == number, ids == segment["id"])


@pytest.mark.parametrize("name", ["maskformer", "mask2former"])
def test_instance_results_number_from_zero(tmp_path: Path, name: str) -> None:
    result = post_process("instance", name, outputs_of(name), SIZE.shape)
    ids = result["segmentation"].numpy()
    assert result["segments_info"][0]["id"] == 0
    assert ids.dtype == np.float32
    torch.save({139: result}, tmp_path / "results.pth")
    found = loaded(tmp_path, SIZE)
    assert isinstance(found, ScoredMap)
    assert found.map.num_entities == len(result["segments_info"])
    areas = [(ids == segment["id"]).sum() for segment in result["segments_info"]]
    assert found.map.areas.tolist() == [(ids == -1).sum(), *areas]


@pytest.mark.parametrize("name", ["maskformer", "mask2former"])
def test_binary_maps_may_overlap(tmp_path: Path, name: str) -> None:
    result = post_process("instance", name, outputs_of(name), SIZE.shape, return_binary_maps=True)
    torch.save({139: result}, tmp_path / "results.pth")
    found = loaded(tmp_path, SIZE)
    assert isinstance(found, Candidates)
    np.testing.assert_array_equal(found.areas, result["segmentation"].sum(dim=(1, 2)).numpy())
    assert found.scores.tolist() == [s["score"] for s in result["segments_info"]]


@pytest.mark.parametrize("name", MODELS)
def test_an_image_in_which_nothing_is_found_is_filled_with_minus_one(
    tmp_path: Path, name: str
) -> None:
    result = post_process(
        "panoptic", name, outputs_of(name), SIZE.shape, threshold=1.0, label_ids_to_fuse=set()
    )
    assert result["segmentation"].unique().tolist() == [-1]
    torch.save({139: result}, tmp_path / "results.pth")
    found = loaded(tmp_path, SIZE)
    assert isinstance(found, ScoredMap)
    assert found.map.num_entities == 0
    assert found.map.areas.tolist() == [50 * 77]
    torch.save({139: {"segmentation": None, "segments_info": []}}, tmp_path / "results.pth")
    again = loaded(tmp_path, SIZE)
    assert isinstance(again, ScoredMap)
    assert again.map == found.map


# --- ids that transformers uses twice ------------------------------------------

LABELS = [0, 1, 0, 2, 3]  # sky, person, sky, dog, cat; sky is fused
SMALL = ImageSize("000000000139", 10, 4)


def five_stripes() -> SimpleNamespace:
    """Raw outputs of a model that sees five stripes and is sure of each."""
    logits = torch.full((1, 5, 5), -9.0)
    for query, label in enumerate(LABELS):
        logits[0, query, label] = 9.0 - query
    masks = torch.full((1, 5, 4, 10), -9.0)
    for query in range(5):
        masks[0, query, :, 2 * query : 2 * query + 2] = 9.0
    return SimpleNamespace(
        class_queries_logits=logits, masks_queries_logits=masks, logits=logits, pred_masks=masks
    )


def stripes(name: str, fuse: set[int]) -> Any:
    return post_process("panoptic", name, five_stripes(), SMALL.shape, label_ids_to_fuse=fuse)


@pytest.mark.parametrize("name", MODELS)
def test_an_id_used_twice_is_refused(tmp_path: Path, name: str) -> None:
    result = stripes(name, {0})
    ids = [segment["id"] for segment in result["segments_info"]]
    assert ids == [1, 2, 1, 2, 3], "transformers has mended its ids: test another version"
    torch.save({139: result}, tmp_path / "results.pth")
    with pytest.raises(
        FormatError, match="one id stands for several segments in 1 of 1 images"
    ) as caught:
        open_predictions(tmp_path, image_ids=IDS)
    assert caught.value.where[0].endswith("image 139: id 2")
    assert "label_ids_to_fuse=set()" in caught.value.hint


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("suffix", ["npz", "pth"])
def test_it_is_made_anew_from_raw_outputs(tmp_path: Path, name: str, suffix: str) -> None:
    raw, good = five_stripes(), stripes(name, set())
    queries = {"logits": raw.logits[0], "pred_masks": raw.pred_masks[0]}
    for image_id, result in ((139, stripes(name, {0})), (285, good)):
        path = tmp_path / f"{image_id}.{suffix}"
        if suffix == "npz":
            arrays = {key: value.numpy() for key, value in queries.items()}
            arrays["segmentation"] = result["segmentation"].numpy()
            np.savez(path, segments_info=json.dumps(result["segments_info"]), **arrays)
        else:
            torch.save({**result, **queries}, path)
    reader = open_predictions(tmp_path, image_ids=IDS)
    assert isinstance(reader, QueryOutputs)
    assert reader.image_ids == set(IDS)
    assert "re-use ids in 1, not used" in reader.description
    found = reader.load(SMALL)
    assert isinstance(found, Candidates)
    assert found.areas.tolist() == [8] * 5


def test_what_was_fused_rightly_is_one_entity_with_the_best_score(tmp_path: Path) -> None:
    table = [
        {"id": 1, "label_id": 0, "was_fused": True, "score": 0.5},
        {"id": 2, "label_id": 1, "was_fused": False, "score": 0.9},
        {"id": 1, "label_id": 0, "was_fused": True, "score": 0.75},
    ]
    ids = torch.tensor([[1] * 4 + [2] * 6] * 4)
    torch.save({139: {"segmentation": ids, "segments_info": table}}, tmp_path / "results.pth")
    reader = open_predictions(tmp_path, image_ids=IDS)
    assert reader.description.endswith("2 segments in 1 images, 1 fused into others")
    found = reader.load(SMALL)
    assert isinstance(found, ScoredMap)
    assert found.scores.tolist() == [0.75, 0.9]


@pytest.mark.parametrize(
    "second",
    [
        {"id": 1, "label_id": 1, "was_fused": True, "score": 0.5},  # another class
        {"id": 1, "label_id": 0, "was_fused": False, "score": 0.5},  # not a part of it
    ],
)
def test_what_only_looks_fused_is_refused(tmp_path: Path, second: dict[str, Any]) -> None:
    first = {"id": 1, "label_id": 0, "was_fused": True, "score": 0.5}
    ids = torch.ones(4, 10, dtype=torch.int32)
    content = {139: {"segmentation": ids, "segments_info": [first, second]}}
    torch.save(content, tmp_path / "results.pth")
    with pytest.raises(FormatError, match="one id stands for several segments"):
        open_results(tmp_path, IDS)


# --- broken results -------------------------------------------------------------


def broken(folder: Path, **changes: Any) -> Path:
    result = stripes("mask2former", set()) | changes
    torch.save({139: result}, folder / "results.pth")
    return folder


def test_masks_of_another_size(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="the prediction is 10×4, the image is 77×50"):
        loaded(broken(tmp_path), SIZE)
    with pytest.raises(FormatError, match="the prediction is 3×2"):
        loaded(broken(tmp_path, segmentation=torch.zeros(5, 2, 3)), SMALL)


def test_more_masks_than_segments(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="6 masks, but 5 segments"):
        loaded(broken(tmp_path, segmentation=torch.zeros(6, 4, 10)), SMALL)


def test_more_ids_than_segments(tmp_path: Path) -> None:
    extra = torch.full((4, 10), 9)
    with pytest.raises(FormatError, match="ids in the map that nothing lists: 9"):
        loaded(broken(tmp_path, segmentation=extra), SMALL)


def test_masks_that_are_not_binary(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="other values than 0 and 1"):
        loaded(broken(tmp_path, segmentation=torch.full((5, 4, 10), 0.5)), SMALL)


def test_runs_without_ids(tmp_path: Path) -> None:
    result = post_process(
        "instance", "maskformer", outputs_of("maskformer"), SIZE.shape, return_coco_annotation=True
    )
    torch.save({139: json.loads(json.dumps(result, default=int))}, tmp_path / "results.pth")
    with pytest.raises(FormatError, match="has lost its ids"):
        loaded(tmp_path, SIZE)


def test_a_result_without_its_table(tmp_path: Path) -> None:
    torch.save({139: {"segmentation": torch.ones(4, 10)}}, tmp_path / "results.pth")
    with pytest.raises(FormatError, match="no `segmentation` with its `segments_info`"):
        loaded(tmp_path, SMALL)


def test_a_whole_model_output_is_an_object(tmp_path: Path) -> None:
    torch.save({139: outputs_of("detr")}, tmp_path / "results.pth")
    with pytest.raises(FormatError, match="may run code; it was not loaded"):
        open_predictions(tmp_path, image_ids=IDS)
