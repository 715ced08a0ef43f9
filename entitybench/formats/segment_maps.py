"""Maps of segment ids with a table of segments, as detectron2 and transformers put them out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from entitybench.entity_map import EntityMap
from entitybench.errors import EntityBenchError, FormatError
from entitybench.formats.missing_score import (
    MissingScore,
    fill_scores,
    refuse_scores_out_of_range,
    score_rule,
)
from entitybench.formats.predictions import ImageSize, ScoredMap, refuse_size
from entitybench.formats.saved_outputs import SavedOutput
from entitybench.formats.torch_file import as_array

VOID = (0, -1)  # unless the table lists them


class Segment(msgspec.Struct, frozen=True, gc=False):
    """One row of a table of segments; what else tools write there is not needed."""

    id: int
    score: float | None = None
    label_id: int | None = None
    was_fused: bool = False


Table = tuple[Segment, ...]


def read_table(output: SavedOutput) -> Table | None:
    """Return an output's `segments_info`; None if it has none.

    Raises:
        FormatError: It is not a list of segments with their `id`.
    """
    value = output.load("segments_info").get("segments_info")
    if value is None:
        return None
    try:
        return tuple(msgspec.convert(value, list[Segment]))
    except msgspec.ValidationError as error:
        msg = f"`segments_info` is not a list of segments: {error}"
        raise FormatError(msg, where=output.place) from error


def check_scores(
    tables: Mapping[str, Table | None], rule: MissingScore, place: str, places: Mapping[str, str]
) -> str:
    """Decide about missing scores, and name the rule for the signature.

    Args:
        tables: The segments of each image; None, where an image has no table, has no score.
        rule: What stands in for scores that are missing.
        place: The file or folder, for messages.
        places: Where each image's output is.

    Raises:
        MissingDataError: Scores are missing and nothing stands in for them.
        FormatError: A score is not in [0, 1].
    """
    untold = sum(table is None for table in tables.values())
    named = [(image_id, s) for image_id, table in tables.items() for s in table or ()]
    scores = [segment.score for _, segment in named]
    refuse_scores_out_of_range(scores, lambda k: f"{places[named[k][0]]}: segment {named[k][1].id}")
    if untold == len(tables) and tables:
        return score_rule(untold, untold, rule, place, noun="maps without a table")
    missing = scores.count(None) + untold
    return score_rule(missing, len(scores) + untold, rule, place, noun="segments")


@dataclass(frozen=True, slots=True)
class SegmentMapEntry:
    """The predictions of one image.

    Attributes:
        image: The image.
        output: Its output.
        key: The map's name there.
        segments: Id and score of each segment, in order; None: every id but -1 is one.
        rule: What stands in for scores that are missing.
    """

    image: ImageSize
    output: SavedOutput
    key: str
    segments: tuple[tuple[int, float | None], ...] | None
    rule: MissingScore

    def load(self) -> ScoredMap:
        """Decode the map. A listed id without a pixel is an entity of zero area.

        Raises:
            FormatError: Not a map of integers, of another size than the image, or with ids that
                the table does not list.
        """
        try:
            return self._decoded(self.output.load(self.key).get(self.key))
        except EntityBenchError as error:
            raise error.at(self.output.place) from error

    def _decoded(self, value: Any) -> ScoredMap:
        if value is None and not self.segments:  # transformers' way to say "nothing"
            value = np.zeros(self.image.shape, dtype=np.int32)
        ids = whole_numbers(as_array(value, self.key), self.key)
        refuse_size(ids.shape, self.image, f"`{self.key}`")
        if self.segments is None:
            entity_map = EntityMap.from_array(ids, void=(-1,))
            scores: list[float | None] = [None] * entity_map.num_entities
        else:
            listed = [segment_id for segment_id, _ in self.segments]
            entity_map = EntityMap.from_array(ids, entities=listed, void=VOID)
            scores = [score for _, score in self.segments]
        pixels = self.image.width * self.image.height
        return ScoredMap(entity_map, fill_scores(scores, entity_map.areas[1:], pixels, self.rule))


def whole_numbers(array: NDArray[Any], name: str) -> NDArray[Any]:
    """Return a map of ids as integers; a map of floats must hold whole numbers.

    Raises:
        FormatError: Another number of dimensions, or other values.
    """
    if array.ndim != 2 or array.dtype.kind not in "iuf":
        msg = f"`{name}` is {array.dtype} {array.shape}, expected a map (H, W) of ids"
        raise FormatError(msg)
    if array.dtype.kind != "f":
        return array
    # beyond 2^31 a float says nothing that an id could be
    if not np.all(np.abs(array) < 2**31) or np.any(array != np.round(array)):
        msg = f"`{name}` holds floats that are not whole numbers"
        raise FormatError(msg)
    return array.astype(np.int64)
