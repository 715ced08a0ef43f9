"""AP^b of boxes that belong to no entity, against pycocotools."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from entitybench import EntityWriter
from entitybench.entity_set import EntitySet, open_path
from entitybench.errors import FormatError
from entitybench.metrics import Evaluation, ImageKey, MatchRecords
from entitybench.metrics.boxes import match_detections
from entitybench.metrics.protocol import STRICT
from tests.pycocotools_oracle import pycocotools_box_stats


def random_truth(folder: Path, rng: np.random.Generator, count: int) -> EntitySet:
    with EntityWriter(folder, kind="ground_truth", name="t") as writer:
        for number in range(1, count + 1):
            side = int(rng.integers(20, 160))
            coarse = rng.integers(0, 9, (side // 10 + 1, side // 10 + 1))
            ids = np.kron(coarse, np.ones((10, 10), dtype=np.int64))[:side, :side]
            kinds = np.unique(ids[ids > 0])
            writer.add(str(number), np.where(ids > 0, np.searchsorted(kinds, ids) + 1, 0))
    return open_path(folder)


def noisy_boxes(truth: EntitySet, rng: np.random.Generator) -> list[dict[str, Any]]:
    rows = []
    for image in truth:
        for x, y, width, height in image.map.boxes[1:].tolist():
            for _ in range(int(rng.integers(0, 30))):
                shift = rng.normal(0, 4, 4)
                box = [x + shift[0], y + shift[1], max(width + shift[2], 0), height + abs(shift[3])]
                score = round(float(rng.random()), 1)  # ties are many
                rows.append(
                    {"image_id": int(image.id), "category_id": 1, "bbox": box, "score": score}
                )
    return rows


def score(truth: EntitySet, rows: list[dict[str, Any]]) -> Evaluation:
    def matches(image: Any) -> Any:
        mine = [row for row in rows if row["image_id"] == int(image.id)]
        boxes = np.array([row["bbox"] for row in mine]).reshape(-1, 4)
        found = match_detections(image.map, boxes, [row["score"] for row in mine])
        return ImageKey("t", image.id), found

    return Evaluation.of(MatchRecords.gather(STRICT, map(matches, truth)))


@pytest.mark.parametrize("seed", range(6))
def test_equals_pycocotools(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = random_truth(tmp_path / "t", rng, 8)
    rows = noisy_boxes(truth, rng)
    ours = list(score(truth, rows).scores.as_dict().values())
    theirs = pycocotools_box_stats(truth, rows)
    np.testing.assert_allclose(np.nan_to_num(ours, nan=-1), theirs, atol=1e-12)


def test_nothing_found_and_nothing_there(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    truth = random_truth(tmp_path / "t", rng, 1)
    assert score(truth, []).scores.AP == 0
    with pytest.raises(FormatError):
        match_detections(truth["1"].map, np.zeros((2, 4)), [0.5])
