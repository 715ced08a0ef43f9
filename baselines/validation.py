"""AP_e of a model on a few images of an entity set, while it trains; of a detector, AP^b."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from PIL import Image

from entitybench.baselines.prediction import Detected, Predictor
from entitybench.entity_set import EntityImage, EntitySet
from entitybench.errors import MissingDataError
from entitybench.formats.coco_image_ids import coco_ids
from entitybench.formats.json_file import new_file, write_list
from entitybench.metrics import (
    Evaluation,
    ImageKey,
    ImageMatches,
    ImagePair,
    MatchRecords,
    evaluate,
)
from entitybench.metrics.boxes import match_detections
from entitybench.metrics.protocol import STRICT
from entitybench.photographs import read_photograph


def validate(predictor: Predictor, truth: EntitySet, most: int) -> dict[str, float]:
    """Score the first images of a set under the strict protocol.

    Args:
        predictor: The model.
        truth: Ground truth with photographs.
        most: How many images.

    Returns:
        The names and fractions of `Scores`: of masks, or of a detector's boxes.
    """
    was_training = predictor.model.training
    predictor.model.eval()
    if predictor.model.finds_masks:
        scores = evaluate(_pairs(predictor, truth, most)).scores
    else:
        scores = score_boxes(predictor, truth, most).scores
    predictor.model.train(was_training)
    return scores.as_dict()


def score_boxes(predictor: Predictor, truth: EntitySet, most: int | None = None) -> Evaluation:
    """Score a detector's boxes on the first images of a set: the paper's Table 1."""
    found = _detected(predictor, truth, most)
    matches = (_matched(truth, image, boxes) for image, boxes in found)
    return Evaluation.of(MatchRecords.gather(STRICT, matches))


def write_boxes(predictor: Predictor, truth: EntitySet, out_file: Path) -> Evaluation:
    """Score a detector's boxes on a set, and write them as COCO results while it goes.

    Args:
        predictor: The detector.
        truth: Ground truth with photographs.
        out_file: A list of `image_id`, `category_id`, `bbox` (x, y, width and height in pixels)
            and `score`; replaced when the new one is whole.
    """
    image_id_of = coco_ids(truth.ids)
    kept = []

    def rows() -> Iterator[dict[str, object]]:
        for image, found in _detected(predictor, truth, None):
            kept.append(_matched(truth, image, found))
            for box, score, label in zip(found.boxes, found.scores, found.labels, strict=True):
                yield {
                    "image_id": image_id_of(image.id),
                    "category_id": int(label) + 1,
                    "bbox": box.tolist(),
                    "score": float(score),
                }

    out_file.parent.mkdir(parents=True, exist_ok=True)
    with new_file(out_file) as file:
        write_list(file, rows())
    return Evaluation.of(MatchRecords.gather(STRICT, kept))


def _matched(
    truth: EntitySet, image: EntityImage, found: Detected
) -> tuple[ImageKey, ImageMatches]:
    matches = match_detections(image.map, found.boxes, found.scores)
    return ImageKey(truth.header.name, image.id), matches


def _detected(
    predictor: Predictor, truth: EntitySet, most: int | None
) -> Iterator[tuple[EntityImage, Detected]]:
    for image, photograph in _photographs(truth, most):
        [found] = predictor.detect([photograph])
        yield image, found


def _pairs(predictor: Predictor, truth: EntitySet, most: int) -> Iterator[ImagePair]:
    for image, photograph in _photographs(truth, most):
        [found] = predictor.predict([photograph])
        yield ImagePair(image.id, image.map, found.map, found.scores, set_name=truth.header.name)


def _photographs(truth: EntitySet, most: int | None) -> Iterator[tuple[EntityImage, Image.Image]]:
    location = truth.photographs
    if location is None:
        msg = f"nobody knows where the photographs of `{truth.header.name}` are"
        raise MissingDataError(msg)
    for image in islice(truth, most):
        yield image, read_photograph(location, image.row.file_name)
