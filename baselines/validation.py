"""AP_e of a model on a few images of an entity set, while it trains."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from entitybench.baselines.prediction import Predictor
from entitybench.entity_set import EntitySet
from entitybench.errors import MissingDataError
from entitybench.metrics import ImagePair, evaluate
from entitybench.photographs import read_photograph


def validate(predictor: Predictor, truth: EntitySet, most: int) -> dict[str, float]:
    """Score the first images of a set under the strict protocol.

    Args:
        predictor: The model.
        truth: Ground truth with photographs.
        most: How many images.

    Returns:
        The names and fractions of `Scores`.
    """
    was_training = predictor.model.training
    predictor.model.eval()
    scores = evaluate(_pairs(predictor, truth, most)).scores.as_dict()
    predictor.model.train(was_training)
    return scores


def _pairs(predictor: Predictor, truth: EntitySet, most: int) -> Iterator[ImagePair]:
    location = truth.photographs
    if location is None:
        msg = f"nobody knows where the photographs of `{truth.header.name}` are"
        raise MissingDataError(msg)
    for image in islice(truth, most):
        photograph = read_photograph(location, image.row.file_name)
        [found] = predictor.predict([photograph])
        yield ImagePair(image.id, image.map, found.map, found.scores, set_name=truth.header.name)
