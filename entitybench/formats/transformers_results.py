"""What transformers' `post_process_*_segmentation` returns for each image.

`{"segmentation", "segments_info"}`: a map of ids, from 1 (panoptic) or from 0 (instances, -1 is
nobody), or `(N, H, W)` masks which may overlap (`return_binary_maps=True`).

After a fused class, transformers hands out ids that it has used already, so that two segments
share one id and one region of the map (huggingface/transformers#23461). Such results are
refused, or made anew from the raw outputs where these were saved beside them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from entitybench.candidates import Candidates
from entitybench.errors import EntityBenchError, FormatError
from entitybench.formats.image_ids import ImageIds
from entitybench.formats.missing_score import MissingScore, fill_scores
from entitybench.formats.predictions import (
    ImageSize,
    Predictions,
    ScoredMap,
    refuse_absent,
    refuse_size,
)
from entitybench.formats.query_outputs import QueryOutputs, QueryRules, has_queries
from entitybench.formats.saved_outputs import SavedOutput, open_outputs
from entitybench.formats.segment_maps import (
    Segment,
    SegmentMapEntry,
    Table,
    check_scores,
    read_table,
)
from entitybench.formats.torch_file import as_array

KEY = "segmentation"


@dataclass(frozen=True, slots=True)
class TransformersEntry:
    """The predictions of one image, a map or a stack of masks."""

    image: ImageSize
    output: SavedOutput
    segments: tuple[tuple[int, float | None], ...]
    rule: MissingScore

    def load(self) -> Candidates | ScoredMap:
        """Decode the map, or the masks.

        Raises:
            FormatError: Of another size than the image, or not what `segments_info` promises.
        """
        value = self.output.load(KEY).get(KEY)
        if isinstance(value, list):
            msg = "`segmentation` in COCO's run-length form has lost its ids"
            hint = "leave `return_coco_annotation` out"
            raise FormatError(msg, where=self.output.place, hint=hint)
        if getattr(value, "ndim", 2) != 3:
            return SegmentMapEntry(self.image, self.output, KEY, self.segments, self.rule).load()
        try:
            return self._masks(value)
        except EntityBenchError as error:
            raise error.at(self.output.place) from error

    def _masks(self, value: object) -> Candidates:
        stack = as_array(value, KEY)
        refuse_size(stack.shape[1:], self.image, f"`{KEY}`")
        if len(stack) != len(self.segments):
            msg = f"{len(stack)} masks, but {len(self.segments)} segments"
            raise FormatError(msg)
        if not np.isin(stack, (0, 1)).all():
            msg = f"`{KEY}` holds masks with other values than 0 and 1"
            raise FormatError(msg)
        bare = Candidates.from_masks(stack.astype(bool), np.zeros(len(stack)))
        pixels = self.image.width * self.image.height
        scores = fill_scores([s for _, s in self.segments], bare.areas, pixels, self.rule)
        return Candidates(bare.shape, bare.starts, bare.ends, bare.offsets, scores)


class TransformersResults(Predictions):
    """Saved post-processed results, in any way that `saved_outputs` knows.

    Args:
        path: The file or folder.
        outputs: What was opened there.
        tables: The segments of each image, as listed.
        missing_score: What stands in for scores that are missing.

    Raises:
        FormatError: A score is not in [0, 1].
        MissingDataError: Scores are missing and nothing stands in for them.
    """

    always_thresholded = True

    def __init__(
        self,
        path: Path,
        outputs: Mapping[str, SavedOutput],
        tables: Mapping[str, Table],
        missing_score: MissingScore,
    ) -> None:
        self._path, self._outputs, self._rule = str(path), outputs, missing_score
        self._tables = {image_id: _fused(table) for image_id, table in tables.items()}
        places = {image_id: output.place for image_id, output in outputs.items()}
        self.score_rule = check_scores(self._tables, missing_score, self._path, places)
        self.image_ids = frozenset(outputs)
        count = sum(len(table) for table in self._tables.values())
        fused = sum(len(table) for table in tables.values()) - count
        merged = f", {fused:,} fused into others" if fused else ""
        self.description = (
            f"transformers results: {count:,} segments in {len(outputs):,} images{merged}"
        )

    def entry(self, image: ImageSize) -> TransformersEntry:
        """Return the predictions of one image, not decoded yet."""
        refuse_absent(self, image, self._path)
        segments = tuple((s.id, s.score) for s in self._tables[image.id])
        return TransformersEntry(image, self._outputs[image.id], segments, self._rule)


def open_results(
    path: Path,
    image_ids: Collection[str],
    missing_score: MissingScore = MissingScore.ERROR,
    rules: QueryRules | None = None,
) -> TransformersResults | QueryOutputs:
    """Open post-processed results, or the raw outputs beside them where the results are broken.

    Args:
        path: The file or folder.
        image_ids: The ground truth's image ids.
        missing_score: What stands in for scores that are missing.
        rules: How candidates are made from raw outputs.

    Returns:
        The results. If any image re-uses an id and every image has its raw outputs, those, for
        all images alike.

    Raises:
        FormatError: An id stands for several segments and raw outputs are missing; an output
            without `segmentation` or `segments_info`; else as in `TransformersResults`.
        MissingDataError: Scores are missing and nothing stands in for them.
    """
    outputs = open_outputs(path, ImageIds(image_ids))
    tables = {image_id: _table(output) for image_id, output in outputs.items()}
    broken = {image_id: ids for image_id, table in tables.items() if (ids := reused_ids(table))}
    if not broken:
        return TransformersResults(path, outputs, tables, missing_score)
    if not all(has_queries(output.names) for output in outputs.values()):
        raise _reused(broken, outputs)
    reader = QueryOutputs.of_outputs(str(path), outputs, rules or QueryRules())
    reader.description += f"; post-processed results re-use ids in {len(broken):,}, not used"
    return reader


def _table(output: SavedOutput) -> Table:
    table = read_table(output)
    if KEY not in output.names or table is None:
        msg = f"no `{KEY}` with its `segments_info`"
        raise FormatError(msg, where=output.place)
    return table


def reused_ids(table: Table) -> list[int]:
    """Return the ids that stand for several segments, ascending.

    Segments that were fused share their id rightly: all are marked, and of one class.

    >>> reused_ids((Segment(1, label_id=3, was_fused=True), Segment(1, label_id=3, was_fused=True)))
    []
    >>> reused_ids((Segment(2, label_id=7), Segment(2, label_id=8)))
    [2]
    """
    of_id: dict[int, list[Segment]] = {}
    for segment in table:
        of_id.setdefault(segment.id, []).append(segment)
    return sorted(
        segment_id
        for segment_id, segments in of_id.items()
        if len(segments) > 1
        and not (
            all(segment.was_fused for segment in segments)
            and len({segment.label_id for segment in segments}) == 1
        )
    )


def _fused(table: Table) -> Table:
    """Return one segment for each id; a fused one has the best score of its parts."""
    best: dict[int, Segment] = {}
    for segment in table:
        there = best.get(segment.id)
        if there is None or (segment.score or 0.0) > (there.score or 0.0):
            best[segment.id] = segment
    return tuple(best.values())


def _reused(broken: Mapping[str, list[int]], outputs: Mapping[str, SavedOutput]) -> FormatError:
    msg = f"one id stands for several segments in {len(broken):,} of {len(outputs):,} images"
    return FormatError(
        msg,
        where=[f"{outputs[i].place}: id {', '.join(map(str, ids))}" for i, ids in broken.items()],
        hint="transformers re-uses ids after a fused class: call it with `label_ids_to_fuse=set()`,"
        " or save the raw logits and masks beside the results",
    )
