"""The paper's npz, by the recipe of the released converter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from entitybench.errors import FormatError, MissingDataError
from entitybench.formats.detection import open_predictions
from entitybench.formats.missing_score import MissingScore
from entitybench.formats.paper_npz import PaperNpz
from entitybench.formats.predictions import ImageSize, ScoredMap

IDS = ["000000000139"]
MAP = [[1, 1, 1, 0, 0, 0], [1, 1, 1, 0, 0, 0], [3, 3, 3, 3, 3, 3], [3, 3, 3, 3, 3, 3]]
CLASSES = {0: 255, 1: 17, 3: 92}  # the second segment was a crowd


def tables(ids: Any = MAP) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Two planes, and a row of inclusive box, class, isthing and entity id per entity."""
    plane = np.array(ids, np.uint8)
    classes = np.vectorize(CLASSES.get)(plane).astype(np.uint8)
    rows = []
    for entity in sorted(set(plane.ravel().tolist()) - {0}):
        y, x = np.nonzero(plane == entity)
        category = CLASSES[entity]
        rows.append([x.min(), y.min(), x.max(), y.max(), category, category < 80, entity])
    return np.stack([plane, classes]), np.array(rows, dtype=np.int64)


def save(folder: Path, planes: Any, rows: Any) -> Path:
    np.savez(folder / "000000000139.npz", map=planes, bounding_box=rows)
    return folder


def load(folder: Path, image: ImageSize) -> ScoredMap:
    reader = open_predictions(folder, image_ids=IDS, missing_score=MissingScore.AREA)
    assert isinstance(reader, PaperNpz)
    assert reader.score_rule == "area"
    found = reader.load(image)
    assert isinstance(found, ScoredMap)
    return found


def test_entities_with_a_gap(tmp_path: Path, image: ImageSize) -> None:
    found = load(save(tmp_path, *tables()), image)
    assert found.map.areas.tolist() == [6, 6, 12]
    assert found.scores.tolist() == [6 / 24, 12 / 24]


def test_an_image_of_nothing(tmp_path: Path, image: ImageSize) -> None:
    planes, rows = tables(np.zeros((4, 6)))
    assert rows.shape == (0,)
    assert load(save(tmp_path, planes, rows), image).map.num_entities == 0


def test_scores_are_never_made_up_silently(tmp_path: Path) -> None:
    save(tmp_path, *tables())
    with pytest.raises(MissingDataError, match="1 entity maps have no score"):
        open_predictions(tmp_path, image_ids=IDS)


@pytest.mark.parametrize(
    ("row", "column", "value", "message"),
    [
        (0, 4, 18, "entity 1 has class 18 in `bounding_box`, 17 in `map`"),
        (1, 6, 2, "`bounding_box` lists 2 entities, `map` has 2 other ones"),
        (1, 6, 1, "`bounding_box` lists 2 entities"),
    ],
)
def test_a_table_that_contradicts_the_map(
    tmp_path: Path, image: ImageSize, row: int, column: int, value: int, message: str
) -> None:
    planes, rows = tables()
    rows[row, column] = value
    with pytest.raises(FormatError, match=message) as caught:
        load(save(tmp_path, planes, rows), image)
    assert "000000000139.npz" in caught.value.where[0]


def test_a_table_of_another_length(tmp_path: Path, image: ImageSize) -> None:
    planes, rows = tables()
    with pytest.raises(FormatError, match=r"`bounding_box` lists 1 entities, `map` has 2(\n|$)"):
        load(save(tmp_path, planes, rows[:1]), image)


@pytest.mark.parametrize(
    ("planes", "rows", "message"),
    [
        (np.zeros((2, 3, 6), int), np.zeros((0, 7)), "the prediction is 6×3, the image is 6×4"),
        (np.zeros((4, 6), int), np.zeros((0, 7)), r"expected integers \(2, H, W\)"),
        (np.zeros((2, 4, 6)), np.zeros((0, 7)), r"expected integers \(2, H, W\)"),
        (np.zeros((2, 4, 6), int), np.zeros((1, 5)), r"expected \(N, 7\)"),
    ],
)
def test_arrays_of_another_shape(
    tmp_path: Path, image: ImageSize, planes: Any, rows: Any, message: str
) -> None:
    with pytest.raises(FormatError, match=message):
        load(save(tmp_path, planes, rows), image)


def test_a_file_without_its_table(tmp_path: Path) -> None:
    np.savez(tmp_path / "000000000139.npz", map=tables()[0])
    with pytest.raises(FormatError, match="1 files have no `map` or no `bounding_box`"):
        PaperNpz(tmp_path, IDS, MissingScore.AREA)
