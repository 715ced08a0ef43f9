"""The paper's own files: one `<image id>.npz` per image, without scores.

`map` `(2, H, W)`: entity ids (0 is nobody) and classes (255 is nobody); `bounding_box` `(N, 7)`:
x1, y1, x2, y2, class, isthing, entity id of each entity. Ids may have gaps, where crowds were.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from entitybench.entity_map import EntityMap
from entitybench.errors import EntityBenchError, FormatError
from entitybench.formats.image_ids import ImageIds
from entitybench.formats.missing_score import MissingScore, fill_scores, score_rule
from entitybench.formats.predictions import (
    ImageSize,
    Predictions,
    ScoredMap,
    refuse_absent,
    refuse_size,
)
from entitybench.formats.saved_outputs import SavedOutput, open_outputs
from entitybench.formats.torch_file import as_array

ARRAYS = ("map", "bounding_box")
_CLASS, _ENTITY = 4, 6  # columns of `bounding_box`


@dataclass(frozen=True, slots=True)
class PaperEntry:
    """The entities of one image: its file."""

    image: ImageSize
    output: SavedOutput
    rule: MissingScore

    def load(self) -> ScoredMap:
        """Decode the map.

        Raises:
            FormatError: Arrays of other dimensions or another size; entities or classes of the
                table that are not those of the map.
        """
        try:
            values = self.output.load(*ARRAYS)
            ids, classes = self._planes(as_array(values.get("map"), "map"))
            rows = _rows(as_array(values.get("bounding_box"), "bounding_box"))
            _refuse_other_entities(ids, classes, rows)
        except EntityBenchError as error:
            raise error.at(self.output.place) from error
        entity_map = EntityMap.from_array(ids)
        scores = [None] * entity_map.num_entities
        pixels = self.image.width * self.image.height
        return ScoredMap(entity_map, fill_scores(scores, entity_map.areas[1:], pixels, self.rule))

    def _planes(self, planes: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        if planes.ndim != 3 or len(planes) != 2 or planes.dtype.kind not in "iu":
            msg = f"`map` is {planes.dtype} {planes.shape}, expected integers (2, H, W)"
            raise FormatError(msg)
        refuse_size(planes.shape[1:], self.image, "`map`")
        return planes[0], planes[1]


def _rows(rows: NDArray[Any]) -> NDArray[Any]:
    if rows.ndim == 1 and rows.size == 0:  # what the released code writes for no entity
        return np.zeros((0, 7), dtype=np.int64)
    if rows.ndim != 2 or rows.shape[1] < 7:
        msg = f"`bounding_box` is {rows.shape}, expected (N, 7)"
        raise FormatError(msg)
    return rows


def _refuse_other_entities(ids: NDArray[Any], classes: NDArray[Any], rows: NDArray[Any]) -> None:
    present, first = np.unique(ids, return_index=True)
    of_map = {
        int(entity): int(classes.ravel()[place])
        for entity, place in zip(present, first, strict=True)
        if entity != 0
    }
    of_table = {int(row[_ENTITY]): int(row[_CLASS]) for row in rows}
    if len(of_table) < len(rows) or set(of_table) != set(of_map):
        msg = f"`bounding_box` lists {len(rows)} entities, `map` has {len(of_map)} other ones"
        if len(of_table) != len(of_map):
            msg = f"`bounding_box` lists {len(rows)} entities, `map` has {len(of_map)}"
        raise FormatError(msg, hint="beyond 255 entities the released converter overflows")
    wrong = [entity for entity in of_map if of_map[entity] != of_table[entity]]
    if wrong:
        msg = f"entity {wrong[0]} has class {of_table[wrong[0]]} in `bounding_box`, "
        msg += f"{of_map[wrong[0]]} in `map`"
        raise FormatError(msg)


class PaperNpz(Predictions):
    """A folder of the paper's files, or one, as predictions.

    Args:
        path: The folder, or a single file.
        image_ids: The ground truth's image ids.
        missing_score: What stands in for scores: the format has none.

    Raises:
        FormatError: As in `open_outputs`; a file without one of the arrays.
        MissingDataError: Nothing stands in for the scores.
    """

    def __init__(
        self,
        path: Path,
        image_ids: Collection[str],
        missing_score: MissingScore = MissingScore.ERROR,
    ) -> None:
        self._path, self._rule = str(path), missing_score
        self._outputs = open_outputs(path, ImageIds(image_ids))
        bare = [o.place for o in self._outputs.values() if not set(ARRAYS) <= o.names]
        if bare:
            msg = f"{len(bare):,} files have no `map` or no `bounding_box`"
            raise FormatError(msg, where=bare)
        count = len(self._outputs)
        self.score_rule = score_rule(count, count, missing_score, self._path, noun="entity maps")
        self.image_ids = frozenset(self._outputs)
        self.description = f"the paper's npz: {count:,} files"

    def entry(self, image: ImageSize) -> PaperEntry:
        """Return the entities of one image, not decoded yet."""
        refuse_absent(self, image, self._path)
        return PaperEntry(image, self._outputs[image.id], self._rule)
