"""Entity sets as predictions: their own scores, and ground truth with a constant one."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from entitybench.entity_map import EntityMap
from entitybench.entity_set import Model, open_path
from entitybench.entity_writer import EntityWriter
from entitybench.errors import FormatError, MissingDataError
from entitybench.formats.entity_set_predictions import EntitySetPredictions
from entitybench.formats.predictions import ImageSize, ScoredMap

IDS = [[1, 1, 2, 0, 3, 3]] * 4
TRUTH = ["000000000139", "street"]


def write(path: Path, **more: Any) -> EntitySetPredictions:
    with EntityWriter(path, **{"model": Model("mine", score_rule="area")} | more) as writer:
        if more.get("kind") == "ground_truth":
            writer.add("000000000139", EntityMap.from_array(IDS, entities=[2, 3], crowds=[1]))
        else:
            writer.add("000000000139", IDS, scores=[0.5, 0.25, 1])
    return EntitySetPredictions(open_path(path), TRUTH)


@pytest.mark.parametrize("name", ["mine", "mine.zip"])
def test_predictions_keep_their_scores(tmp_path: Path, image: ImageSize, name: str) -> None:
    predictions = write(tmp_path / name)
    assert predictions.description == "entity set `mine` of `mine`: 3 entities in 1 images"
    assert predictions.score_rule == "area"
    assert predictions.image_ids == {"000000000139"}
    found = pickle.loads(pickle.dumps(predictions.entry(image))).load()
    assert isinstance(found, ScoredMap)
    assert found.map.to_array().tolist() == IDS
    assert found.scores.tolist() == [0.5, 0.25, 1]


def test_ground_truth_is_scored_1_aloud_and_loses_its_crowds(
    tmp_path: Path, image: ImageSize
) -> None:
    predictions = write(tmp_path / "truth", kind="ground_truth", model=None)
    assert "ground truth given as predictions, each scored 1" in predictions.description
    assert predictions.score_rule == "constant"
    found = predictions.load(image)
    assert isinstance(found, ScoredMap)
    assert found.map == EntityMap.from_array([[0, 0, 1, 0, 2, 2]] * 4)
    assert found.scores.tolist() == [1, 1]


def test_an_image_of_another_size_is_refused(tmp_path: Path) -> None:
    predictions = write(tmp_path / "mine")
    with pytest.raises(FormatError, match="the prediction is 6×4, the image is 4×6") as caught:
        predictions.load(ImageSize("000000000139", 4, 6))
    assert caught.value.where == (f"{tmp_path / 'mine'} (image 000000000139)",)


def test_missing_and_unknown_images(tmp_path: Path) -> None:
    predictions = write(tmp_path / "mine")
    with pytest.raises(MissingDataError, match="no predictions for image `street`"):
        predictions.entry(ImageSize("street", 6, 4))
    with pytest.raises(FormatError, match="1 image is unknown to the ground truth, which has 1"):
        EntitySetPredictions(predictions.entity_set, ["139"])  # an entity set's ids are exact


@pytest.mark.parametrize(
    ("score", "message"),
    [(1.5, r"score 1.5 of entity 2 is not in \[0, 1\]"), (None, "entities have no score")],
)
def test_scores_that_were_tampered_with_are_refused(
    tmp_path: Path, image: ImageSize, score: float | None, message: str
) -> None:
    write(tmp_path / "mine")
    table = tmp_path / "mine" / "images.jsonl"
    row = json.loads(table.read_text())
    row["entities"][1]["score"] = score
    table.write_text(json.dumps(row) + "\n")
    with pytest.raises(FormatError, match=message) as caught:
        EntitySetPredictions(open_path(tmp_path / "mine"), TRUTH).load(image)
    assert caught.value.where == (f"{tmp_path / 'mine'}: image 000000000139",)


def test_an_image_without_entities(tmp_path: Path, image: ImageSize) -> None:
    with EntityWriter(tmp_path / "none", model="mine") as writer:
        writer.add("000000000139", np.zeros((4, 6), int), scores=[])
    found = EntitySetPredictions(open_path(tmp_path / "none"), TRUTH).load(image)
    assert isinstance(found, ScoredMap)
    assert (found.map.num_entities, found.scores.tolist()) == (0, [])
