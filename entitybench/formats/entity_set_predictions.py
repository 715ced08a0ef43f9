"""An entity set as predictions: its own, or ground truth for a self test."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np

from entitybench.candidates import checked_scores
from entitybench.entity_map import EntityMap
from entitybench.entity_set import EntityImage, EntitySet
from entitybench.errors import FormatError
from entitybench.formats.image_ids import ImageIds
from entitybench.formats.predictions import (
    ImageSize,
    Predictions,
    ScoredMap,
    refuse_absent,
    refuse_size,
)


@dataclass(frozen=True, slots=True)
class EntitySetEntry:
    """The predictions of one image: where its map lies and its row of the table."""

    image: ImageSize
    source: EntityImage
    is_truth: bool

    def load(self) -> ScoredMap:
        """Decode the map.

        Raises:
            FormatError: Another size than the image; a score missing or out of range; a
                damaged map.
        """
        place = f"{self.source.store.path}"
        row = self.source.row
        refuse_size((row.height, row.width), self.image, place)
        scores = np.ones(len(row.entities)) if self.is_truth else self.source.scores
        if scores is None:
            msg = "predicted entities have no score"
            raise FormatError(msg, where=f"{place}: image {row.id}")
        try:
            return ScoredMap(_without_crowds(self.source.map), checked_scores(scores, len(scores)))
        except FormatError as error:
            msg = f"{place}: image {row.id}"
            raise error.at(msg) from error


class EntitySetPredictions(Predictions):
    """An entity set of predictions; or of ground truth, which gets the constant score 1.

    Crowds of ground truth are left out: a crowd is no prediction.

    Args:
        entity_set: The set.
        image_ids: The ground truth's image ids; the set's ids must be among them.

    Raises:
        FormatError: The set has images that the ground truth does not know.
    """

    def __init__(self, entity_set: EntitySet, image_ids: Collection[str]) -> None:
        self.entity_set = entity_set
        ids, known = ImageIds(image_ids), frozenset(image_ids)
        ids.refuse((i for i in entity_set.ids if i not in known), str(entity_set.path))
        self.image_ids = frozenset(entity_set.ids)
        header = entity_set.header
        self.model = header.model
        self.categories = header.categories
        self.labelled = bool(header.categories)
        size = f"{header.num_entities:,} entities in {header.num_images:,} images"
        if header.model is not None:
            self.score_rule = header.model.score_rule
            self.description = f"entity set `{header.name}` of `{header.model.name}`: {size}"
        else:
            self.score_rule = "constant"
            self.description = (
                f"entity set `{header.name}`: ground truth given as predictions, "
                f"each scored 1: {size}"
            )

    def labels(self) -> Iterator[tuple[str, tuple[int | None, ...]]]:
        """Yield image ids and the category id of each entity, in order of the map's ids."""
        for row in self.entity_set.rows():
            yield row.id, tuple(entity.category_id for entity in row.entities)

    def entry(self, image: ImageSize) -> EntitySetEntry:
        """Return the predictions of one image, not decoded yet."""
        refuse_absent(self, image, str(self.entity_set.path))
        return EntitySetEntry(
            image, self.entity_set[image.id], is_truth=not self.entity_set.is_prediction
        )


def _without_crowds(entity_map: EntityMap) -> EntityMap:
    if not entity_map.num_crowds:
        return entity_map
    ids = np.where(entity_map.ids > entity_map.num_entities, 0, entity_map.ids)
    return EntityMap.from_runs(entity_map.shape, entity_map.starts, ids, entity_map.num_entities)
