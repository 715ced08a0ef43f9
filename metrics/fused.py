"""Whole data sets matched by the compiled kernel, to the bits of `match_pair`.

COCO results are decoded, tested for overlap, compared with the truth and matched mask by mask
in one pass over their text; no map is made. Images that overlap are left to the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from entitybench import kernel
from entitybench.candidates import checked_scores
from entitybench.compiled_truth import CompiledTruth, Masks
from entitybench.entity_map import EntityMap
from entitybench.errors import MissingDataError
from entitybench.mapped_memory import release
from entitybench.metrics.contingency import check_sizes
from entitybench.metrics.fused_tables import MaskFaultError as MaskFaultError
from entitybench.metrics.fused_tables import table_masks
from entitybench.metrics.matching import ImageMatches
from entitybench.metrics.protocol import (
    AREA_RANGES,
    IOU_THRESHOLDS,
    MAX_DETECTIONS,
    CrowdRule,
    Protocol,
    SizeRule,
    VoidRule,
)
from entitybench.metrics.records import ImageKey, MatchRecords

_IMAGES_AT_ONCE = 512


def kernel_rules(protocol: Protocol) -> kernel.Rules:
    """Say what decides a match in the kernel's words."""
    return kernel.Rules(
        IOU_THRESHOLDS,
        AREA_RANGES,
        MAX_DETECTIONS[-1],
        protocol.crowd is CrowdRule.IGNORE,
        protocol.void is VoidRule.IGNORE,
    )


def sizes_of(truth: CompiledTruth, protocol: Protocol) -> NDArray[np.float64]:
    """Return the sizes of all entities under the protocol, as `truth_sizes` gives them.

    Raises:
        MissingDataError: The protocol wants annotated sizes and there are none.
    """
    entities = truth.is_entity
    if protocol.size is SizeRule.PIXELS:
        return truth.areas[entities].astype(np.float64)
    if protocol.size is SizeRule.BOX:
        sides = np.maximum(truth.boxes[entities, 2:] - 1, 0)
        return (sides[:, 0] * sides[:, 1]).astype(np.float64)
    if truth.annotated is None:
        msg = "the truth has no annotated sizes"
        raise MissingDataError(msg)
    return truth.annotated[entities]


def match_maps(
    truth: EntityMap,
    prediction: EntityMap,
    scores: ArrayLike,
    sizes: NDArray[np.float64],
    protocol: Protocol,
) -> ImageMatches:
    """Match one image: `match` of its `contingency`, in one pass.

    Raises:
        FormatError: Truth and prediction differ in size, or a score is not in [0, 1].
    """
    check_sizes(truth, prediction)
    checked = checked_scores(scores, prediction.num_entities)
    out = kernel.MatchColumns.empty(min(len(checked), MAX_DETECTIONS[-1]))
    pixels = truth.shape[0] * truth.shape[1]
    true_map = kernel.TrueMap(
        truth.starts, truth.ids, truth.areas, sizes, truth.num_entities, truth.num_crowds, pixels
    )
    runs = prediction.starts, prediction.ids
    num_empty = kernel.match_runs(true_map, runs, checked, kernel_rules(protocol), out)
    return ImageMatches(*out, sizes, pixels, len(checked), num_empty)


@dataclass(frozen=True, slots=True, eq=False)
class FusedMatches:
    """Matches of all images.

    Attributes:
        records: What remains of them; meaningless for the images that overlap.
        overlapping: Ids of the images whose masks share pixels.
    """

    records: MatchRecords
    overlapping: frozenset[str]


def match_masks(
    truth: CompiledTruth,
    masks: Masks,
    protocol: Protocol,
    *,
    set_name: str = "",
    threads: int = 1,
    tables: bool = False,
) -> FusedMatches:
    """Match COCO masks to compiled truth.

    Args:
        truth: I images, by columns.
        masks: The predictions of each image, in the same order of images.
        protocol: Crowd, void and size rule.
        set_name: The ground truth's name.
        threads: How many images to work on at once.
        tables: Keep the contingency tables as well, in a second pass.

    Raises:
        MaskFaultError: A mask is damaged.
        DamagedTruthError: The compiled truth is damaged.
        MissingDataError: The protocol wants annotated sizes and there are none.
    """
    num_images = len(truth)
    counts = np.diff(masks.image_offsets)
    ranked = np.minimum(counts, MAX_DETECTIONS[-1])
    record_offsets = np.concatenate(([0], np.cumsum(ranked)))
    sizes = sizes_of(truth, protocol)
    overlaps = np.zeros(num_images, dtype=np.uint8)
    num_empty = np.zeros(num_images, dtype=np.int64)
    columns = kernel.MatchColumns.empty(int(record_offsets[-1]))
    maps = (truth.packed, truth.entries, truth.areas, sizes)
    offsets = masks.image_offsets, record_offsets, truth.size_offsets
    rules, out = kernel_rules(protocol), (overlaps, num_empty, columns)

    def work(begin: int) -> None:
        images = begin, min(begin + _IMAGES_AT_ONCE, num_images)
        status, image, mask = kernel.match_rle(masks.buffers, maps, rules, offsets, out, images)
        if status == kernel.MAP_DAMAGED and mask < 0:
            raise truth.damaged(truth.ids[image])
        if status:
            raise MaskFaultError(kernel.refusal(status).what)
        release(masks.text, 0, len(masks.text))
        truth.release()

    _run(work, range(0, num_images, _IMAGES_AT_ONCE), threads)
    records = MatchRecords(
        protocol,
        tuple(ImageKey(set_name, image_id) for image_id in truth.ids),
        truth.entries["height"].astype(np.int64) * truth.entries["width"],
        counts,
        num_empty,
        record_offsets,
        truth.size_offsets,
        *columns,
        sizes,
    )
    if tables:
        first = np.repeat(masks.image_offsets[:-1], ranked)
        rows = first + records.prediction_ids - 1
        records = replace(records, tables=table_masks(truth, masks, rows))
    overlapping = frozenset(truth.ids[i] for i in np.flatnonzero(overlaps).tolist())
    return FusedMatches(MatchRecords.merge([records]), overlapping)


def _run(work: Callable[[int], None], begins: Iterable[int], threads: int) -> None:
    if threads < 2:
        for begin in begins:
            work(begin)
        return
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(work, begins):
            pass
