"""What every reader of predictions returns: random access by image.

Evaluation runs image by image, in parallel.  A reader therefore hands out one small picklable
value per image (`entry`), which does the decoding wherever it is loaded; `load` does both.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from entitybench.candidates import Candidates
from entitybench.entity_map import EntityMap
from entitybench.entity_set import Category, Model
from entitybench.errors import FormatError, MissingDataError


@dataclass(frozen=True, slots=True)
class ImageSize:
    """An image of the ground truth: its id (the file stem) and its size in pixels."""

    id: str
    width: int
    height: int

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.height, self.width


@dataclass(frozen=True, slots=True)
class ScoredMap:
    """Predictions of one image that cannot overlap.

    Attributes:
        map: The entities `1…N`; no crowds.
        scores: `(N,)` float64 in [0, 1].
    """

    map: EntityMap
    scores: NDArray[np.float64]


class Entry(Protocol):
    """The predictions of one image, not decoded yet; small and picklable."""

    def load(self) -> Candidates | ScoredMap:
        """Decode them.

        Raises:
            FormatError: The file is not what its format promises.
            MissingDataError: A file is not there.
        """


class Predictions(ABC):
    """Predictions of many images, opened.

    Attributes:
        description: One line that says what was recognised.
        score_rule: `model`, or the rule that stood in for scores that were missing.
        image_ids: The ground truth's ids of the images that have predictions.
        absent_means_empty: The format lists masks and not images, so that an image without a
            mask is not mentioned; `entry` then returns an empty one.
        model: What made the predictions, where the format tells it.
        max_entities: The most entities that an image can have, where the format bounds them.
        always_thresholded: The tools that write the format drop what scores low, and the file
            does not say below which score.
        num_classes: How many classes the masks have; None: the format has none, and duplicates
            cannot be judged within a class.
        labelled: Every predicted entity has a class, which `labels` tells.
        categories: The classes; none where they are labelled with ids alone, which are then
            the ground truth's.
    """

    description: str
    score_rule: str
    image_ids: frozenset[str]
    absent_means_empty: bool = False
    model: Model | None = None
    max_entities: int | None = None
    always_thresholded: bool = False
    num_classes: int | None = None
    labelled: bool = False
    categories: tuple[Category, ...] = ()

    @abstractmethod
    def entry(self, image: ImageSize) -> Entry:
        """Return the predictions of one image, not decoded yet.

        Raises:
            MissingDataError: There are none, and the format would list an empty image.
        """

    def labels(self) -> Iterator[tuple[str, tuple[int | None, ...]]]:
        """Yield image ids and the category id of each entity of the map, in order of its ids."""
        return iter(())

    def load(self, image: ImageSize) -> Candidates | ScoredMap:
        """Return the predictions of one image: `entry(image).load()`."""
        return self.entry(image).load()


def refuse_absent(predictions: Predictions, image: ImageSize, place: str) -> None:
    """Raise `MissingDataError` unless the image has predictions."""
    if image.id not in predictions.image_ids:
        msg = f"no predictions for image `{image.id}`"
        raise MissingDataError(msg, where=place)


def refuse_size(shape: tuple[int, ...], image: ImageSize, place: str) -> None:
    """Raise `FormatError` unless a prediction has the height and width of its image."""
    if tuple(shape) != image.shape:
        msg = f"the prediction is {shape[1]}×{shape[0]}, the image is {image.width}×{image.height}"
        raise FormatError(msg, where=f"{place} (image {image.id})")
