"""The reference evaluator and a way to draw entity maps, shared by the tests of metrics."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from entitybench.entity_map import EntityMap
from entitybench.metrics import Evaluation, ImagePair, Protocol, evaluate

Draw = Callable[..., EntityMap]


def _rle(mask: NDArray[np.bool_]) -> dict[str, Any]:
    return dict(coco_mask.encode(np.asfortranarray(mask.astype(np.uint8))))


class CocoReference:
    """Runs pycocotools on the same images, from masks: no code in common with ours."""

    def __init__(
        self, pairs: Sequence[ImagePair], protocol: Protocol, seed: int = 0, first_id: int = 1
    ) -> None:
        self._random = np.random.default_rng(seed)
        self._protocol = protocol
        truth = [self._truth(pair) for pair in pairs]
        results = self._interleaved([self._results(pair) for pair in pairs])
        annotations = self._interleaved(truth)
        for number, annotation in enumerate(annotations, start=first_id):
            annotation["id"] = number
        images = [
            {"id": int(p.image_id), "height": p.truth.shape[0], "width": p.truth.shape[1]}
            for p in pairs
        ]
        self._random.shuffle(images)
        with contextlib.redirect_stdout(io.StringIO()):
            self.evaluator = self._run(images, annotations, results)
        self.precision = self.evaluator.eval["precision"][:, :, 0]
        self.recall = self.evaluator.eval["recall"][:, 0]
        self.scores = self.evaluator.eval["scores"][:, :, 0]
        self.stats: NDArray[np.float64] = self.evaluator.stats

    @staticmethod
    def _run(images: list[Any], annotations: list[Any], results: list[Any]) -> Any:
        truth = COCO()
        truth.dataset = {
            "images": images,
            "annotations": annotations,
            "categories": [{"id": 1, "name": "entity"}],
        }
        truth.createIndex()
        predictions = truth.loadRes(results) if results else _without_results(truth)
        evaluator = COCOeval(truth, predictions, "segm")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
        return evaluator

    def _truth(self, pair: ImagePair) -> list[dict[str, Any]]:
        """Write the protocol out by hand: which masks are crowds, and how large each entity is."""
        dense = pair.truth.to_array()
        num = pair.truth.num_entities
        crowds = list(range(num + 1, pair.truth.num_ids + 1))
        if self._protocol.name == "official":
            crowds = []
        if self._protocol.void == "ignore":
            crowds.append(0)
        rows = []
        for number in [*range(1, num + 1), *crowds]:
            mask = dense == number
            area: float = int(mask.sum())
            if self._protocol.size == "annotation" and number and number not in crowds:
                area = float(np.asarray(pair.annotated_sizes)[number - 1])
            if self._protocol.name == "official":
                area = _box_area(mask)
            rows.append(
                {
                    "image_id": int(pair.image_id),
                    "category_id": 1,
                    "iscrowd": int(number in crowds),
                    "area": area,
                    "bbox": [0, 0, 1, 1],
                    "segmentation": _rle(mask),
                }
            )
        return rows

    def _results(self, pair: ImagePair) -> list[dict[str, Any]]:
        dense = pair.prediction.to_array()
        return [
            {
                "image_id": int(pair.image_id),
                "category_id": 1,
                "score": float(score),
                "segmentation": _rle(dense == number),
            }
            for number, score in enumerate(np.asarray(pair.scores), start=1)
        ]

    def _interleaved(self, groups: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
        """Shuffle the rows of different images among each other, each image's in its order."""
        owner = np.repeat(np.arange(len(groups)), [len(g) for g in groups])
        self._random.shuffle(owner)
        rows = [iter(group) for group in groups]
        return [next(rows[k]) for k in owner]


def _box_area(mask: NDArray[np.bool_]) -> float:
    if not mask.any():
        return 0.0
    y, x = np.nonzero(mask)
    return float((x.max() - x.min()) * (y.max() - y.min()))


def _without_results(truth: Any) -> Any:
    """pycocotools' `loadRes` cannot take an empty list."""
    empty = COCO()
    empty.dataset = {**truth.dataset, "annotations": []}
    empty.createIndex()
    return empty


@pytest.fixture(scope="session")
def coco_reference() -> type[CocoReference]:
    return CocoReference


@pytest.fixture(scope="session")
def check_parity() -> Callable[..., Evaluation]:
    """Evaluate with both and require the same bits in every array and statistic."""

    def check(pairs: Sequence[ImagePair], protocol: Protocol, seed: int = 0) -> Evaluation:
        reference = CocoReference(pairs, protocol, seed)
        ours = evaluate(pairs, protocol)
        precision, recall, scores = ours.curves.with_coco_sentinels()
        np.testing.assert_array_equal(precision, reference.precision, strict=True)
        np.testing.assert_array_equal(recall, reference.recall, strict=True)
        np.testing.assert_array_equal(scores, reference.scores, strict=True)
        stats = np.nan_to_num(list(ours.scores.as_dict().values()), nan=-1.0)
        np.testing.assert_array_equal(stats, reference.stats)
        return ours

    return check


@pytest.fixture(scope="session")
def draw() -> Draw:
    """Draw an entity map as text: `.` is void, digits and letters are ids."""

    def from_text(text: str, entities: str | None = None, crowds: str = "") -> EntityMap:
        rows = [row.split() for row in text.strip().splitlines()]
        ids = np.array([[0 if c == "." else int(c, 36) for c in row] for row in rows])
        listed = None if entities is None else [int(c, 36) for c in entities]
        return EntityMap.from_array(ids, entities=listed, crowds=[int(c, 36) for c in crowds])

    return from_text


@pytest.fixture(scope="session")
def paint() -> Callable[..., EntityMap]:
    """Paint rectangles (top, left, height, width) on a canvas as entities 1…N, then crowds."""

    def rectangles(
        shape: tuple[int, int],
        *boxes: tuple[int, int, int, int],
        crowds: Sequence[tuple[int, int, int, int]] = (),
    ) -> EntityMap:
        canvas = np.zeros(shape, dtype=np.int64)
        for number, (top, left, height, width) in enumerate([*boxes, *crowds], start=1):
            canvas[top : top + height, left : left + width] = number
        num = len(boxes)
        return EntityMap.from_array(
            canvas,
            entities=range(1, num + 1),
            crowds=range(num + 1, num + len(crowds) + 1),
        )

    return rectangles
