"""detectron2's `panoptic_seg`: a pair (map, segments) for each image.

The table lists the ids; 0 is void. Where the table is None, an id is category × label divisor
+ instance, -1 is void, and 0 is a segment like any other. Things have a score, stuff has none.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from entitybench.errors import FormatError
from entitybench.formats.image_ids import ImageIds
from entitybench.formats.missing_score import MissingScore
from entitybench.formats.predictions import ImageSize, Predictions, refuse_absent
from entitybench.formats.saved_outputs import open_outputs
from entitybench.formats.segment_maps import SegmentMapEntry, Table, check_scores, read_table

KEY = "panoptic_seg"


class Detectron2Panoptic(Predictions):
    """Saved `panoptic_seg` outputs, in any way that `saved_outputs` knows.

    Args:
        path: The file or folder.
        image_ids: The ground truth's image ids.
        missing_score: What stands in for scores that are missing; stuff has none.

    Raises:
        FormatError: As in `open_outputs`; an output without `panoptic_seg`; an id that is
            listed twice; a score that is not in [0, 1].
        MissingDataError: Scores are missing and nothing stands in for them.
    """

    always_thresholded = True

    def __init__(
        self,
        path: Path,
        image_ids: Collection[str],
        missing_score: MissingScore = MissingScore.ERROR,
    ) -> None:
        self._path = str(path)
        self._rule = missing_score
        self._outputs = open_outputs(path, ImageIds(image_ids))
        self._tables = {image_id: self._table(image_id) for image_id in self._outputs}
        places = {image_id: output.place for image_id, output in self._outputs.items()}
        self.score_rule = check_scores(self._tables, missing_score, self._path, places)
        self.image_ids = frozenset(self._outputs)
        count = sum(len(table or ()) for table in self._tables.values())
        bare = sum(table is None for table in self._tables.values())
        without = f", {bare:,} maps without a table" if bare else ""
        self.description = (
            f"detectron2 panoptic_seg: {count:,} segments in {len(self._outputs):,} images{without}"
        )

    def _table(self, image_id: str) -> Table | None:
        output = self._outputs[image_id]
        if KEY not in output.names:
            msg = f"no `{KEY}`"
            raise FormatError(msg, where=output.place)
        table = read_table(output)
        ids = [segment.id for segment in table or ()]
        if len(set(ids)) < len(ids):
            twice = next(i for n, i in enumerate(ids) if i in ids[:n])
            msg = f"segment id {twice} is listed twice"
            raise FormatError(msg, where=output.place)
        return table

    def entry(self, image: ImageSize) -> SegmentMapEntry:
        """Return the predictions of one image, not decoded yet."""
        refuse_absent(self, image, self._path)
        table = self._tables[image.id]
        segments = None if table is None else tuple((s.id, s.score) for s in table)
        return SegmentMapEntry(image, self._outputs[image.id], KEY, segments, self._rule)
