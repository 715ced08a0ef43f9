"""From pairs of entity maps to an evaluation, one image at a time.

The work per image (`match_pair`) is a pure function of picklable values, so any `map` will do:
the built-in one, an executor's, a cluster's, in any order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import ArrayLike

from entitybench import kernel
from entitybench.entity_map import EntityMap
from entitybench.errors import EntityBenchError
from entitybench.metrics.accumulation import Curves, accumulate
from entitybench.metrics.breakdown import further_scores
from entitybench.metrics.contingency import contingency
from entitybench.metrics.fused import match_maps
from entitybench.metrics.matching import ImageMatches, match
from entitybench.metrics.protocol import STRICT, Protocol, truth_sizes
from entitybench.metrics.records import ImageKey, MatchRecords
from entitybench.metrics.scores import Scores, summarize
from entitybench.metrics.tables import ImageTable


@dataclass(frozen=True, slots=True, eq=False)
class ImagePair:
    """Truth and prediction of one image.

    Attributes:
        image_id: The image's id: its file stem.
        truth: N entities and any crowds.
        prediction: P entities.
        scores: `(P,)` scores in [0, 1].
        annotated_sizes: `(N,)` sizes in pixels that the annotation states, or None.
        set_name: The ground truth's name; in a union it tells images of one id apart.
    """

    image_id: str
    truth: EntityMap
    prediction: EntityMap
    scores: ArrayLike
    annotated_sizes: ArrayLike | None = None
    set_name: str = ""

    @property
    def key(self) -> ImageKey:
        """Set name and image id."""
        return ImageKey(self.set_name, self.image_id)


KeyedMatches = tuple[ImageKey, ImageMatches]
Mapper = Callable[
    [Callable[[ImagePair], KeyedMatches], Iterable[ImagePair]], Iterable[KeyedMatches]
]


def match_pair(pair: ImagePair, protocol: Protocol = STRICT) -> KeyedMatches:
    """Match one image.

    Raises:
        FormatError: Truth and prediction differ in size, or scores or sizes are wrong.
        MissingDataError: The protocol wants annotated sizes and there are none.
    """
    try:
        sizes = truth_sizes(pair.truth, protocol, pair.annotated_sizes)
        table = contingency(pair.truth, pair.prediction)
        if kernel.is_active():
            matches = match_maps(pair.truth, pair.prediction, pair.scores, sizes, protocol)
        else:
            matches = match(table, pair.scores, sizes, protocol)
    except EntityBenchError as error:
        raise error.at(pair.image_id) from error
    kept = ImageTable.of(table, pair.truth, pair.prediction, matches.prediction_ids)
    return pair.key, replace(matches, table=kept)


@dataclass(frozen=True, slots=True)
class Counts:
    """How much was scored.

    Attributes:
        images: Images.
        truth: True entities, crowds apart.
        predicted: Predicted entities.
        unmatched_truth: True entities that no prediction matches at IoU .50.
        empty_predictions: Predicted entities without a pixel.
        predictions_beyond_100: Predicted entities cut off because their image has more than 100.
        images_without_truth: Images without a true entity.
        images_without_predictions: Images without a predicted entity.
    """

    images: int
    truth: int
    predicted: int
    unmatched_truth: int
    empty_predictions: int
    predictions_beyond_100: int
    images_without_truth: int
    images_without_predictions: int

    @classmethod
    def of(cls, records: MatchRecords) -> Counts:
        """Count."""
        predicted, num_truth = int(records.num_predicted.sum()), len(records.truth_sizes)
        hits = int(np.count_nonzero(records.matched[:, 0] & ~records.ignored[:, 0] & 1))
        return cls(
            images=len(records),
            truth=num_truth,
            predicted=predicted,
            unmatched_truth=num_truth - hits,
            empty_predictions=int(records.num_empty.sum()),
            predictions_beyond_100=predicted - len(records.scores),
            images_without_truth=int(np.count_nonzero(np.diff(records.truth_offsets) == 0)),
            images_without_predictions=int(np.count_nonzero(records.num_predicted == 0)),
        )

    def as_dict(self) -> dict[str, int]:
        """Return name → count."""
        return asdict(self)


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """Scores of one prediction on one ground truth, and what they were computed from.

    Attributes:
        scores: Fractions.
        counts: How much was scored.
        curves: Precision and recall behind the scores.
        records: Matches behind the curves, with the protocol.
    """

    scores: Scores
    counts: Counts
    curves: Curves
    records: MatchRecords

    def all_scores(self) -> dict[str, float]:
        """Return name → fraction: `scores`, and where there are tables `further_scores`."""
        return self.scores.as_dict() | further_scores(self.records)

    @classmethod
    def of(cls, records: MatchRecords) -> Evaluation:
        """Score match records: those of a run, merged shards, or a subset of images."""
        curves = accumulate(records)
        return cls(summarize(curves), Counts.of(records), curves, records)


def evaluate(
    pairs: Iterable[ImagePair], protocol: Protocol = STRICT, *, mapper: Mapper = map
) -> Evaluation:
    """Score predictions image by image; memory does not grow with the maps.

    Args:
        pairs: One for each image of the ground truth, in any order; an image without
            predictions needs a pair too (an empty map). No pair at all is legal: every score
            is then undefined.
        protocol: Crowd, void and size rule.
        mapper: Stands in for `map`: an executor's, or one that does not keep the order.

    Raises:
        FormatError: Truth and prediction differ in size, or scores or sizes are wrong.
        MissingDataError: The protocol wants annotated sizes and there are none.
        ConflictError: An image occurs twice.

    >>> truth = EntityMap.from_array([[1, 1, 2]])
    >>> evaluate([ImagePair("1", truth, EntityMap.from_array([[1, 1, 0]]), [0.9])]).scores.AR100
    0.5
    """
    matches = mapper(partial(match_pair, protocol=protocol), pairs)
    return Evaluation.of(MatchRecords.gather(protocol, matches))
