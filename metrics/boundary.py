"""Boundary AP: AP whose IoU is the lesser of the masks' and of their boundaries'.

Boundary IoU (Cheng et al., Boundary IoU, CVPR 2021, equation 4) compares only the pixels of two
masks that lie within d of their contours; d is 2 % of the image's diagonal. Of an entity map all
boundaries are found at once: a pixel belongs to its entity's boundary if the square of side 2d + 1
around it holds anything else, or leaves the image. The boundaries of a map are again disjoint, so
one more contingency table tells how any two of them intersect.
"""

from __future__ import annotations

import math
from dataclasses import replace

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from entitybench.entity_map import EntityMap, find_runs
from entitybench.metrics.contingency import Contingency, check_sizes, contingency
from entitybench.metrics.evaluation import Evaluation
from entitybench.metrics.matching import ImageMatches, match
from entitybench.metrics.protocol import Protocol
from entitybench.metrics.records import MatchRecords
from entitybench.result import Result, Signatures, points_of

DIAGONAL_SHARE = 0.02
"""Width of a boundary by the image's diagonal: the published default."""

BOUNDARY = "0.02"  # how the signature says it


def boundary_width(shape: tuple[int, int]) -> int:
    """Return d in pixels, at least 1; halves are rounded to even, as the published code does.

    >>> boundary_width((480, 640))
    16
    """
    return max(1, round(DIAGONAL_SHARE * math.sqrt(shape[0] ** 2 + shape[1] ** 2)))


def boundaries(entities: EntityMap) -> EntityMap:
    """Return the boundaries of all entities and crowds; everything else is void.

    The map comes turned, rows for columns: nothing that is counted in it cares.

    >>> boundaries(EntityMap.from_array([[1, 1, 1]] * 3)).to_array()
    array([[1, 1, 1],
           [1, 0, 1],
           [1, 1, 1]], dtype=int32)
    """
    width = boundary_width(entities.shape)
    dense = entities.to_array().astype(np.min_scalar_type(entities.num_ids + 1))
    along_rows = _shortened(dense, width, entities.num_ids + 1)
    turned = np.ascontiguousarray(dense.T)
    inner = _shortened(np.ascontiguousarray(along_rows.T), width, entities.num_ids + 1)
    turned[inner != 0] = 0
    flat = turned.ravel()
    starts = find_runs(flat)
    counts = entities.num_entities, entities.num_crowds
    return EntityMap.from_runs(entities.shape[::-1], starts, flat[starts], *counts)


def boundary_contingency(truth: EntityMap, prediction: EntityMap) -> Contingency:
    """Count the pixels that the boundaries of each true and each predicted id share.

    Raises:
        FormatError: The maps differ in size.
    """
    check_sizes(truth, prediction)
    return contingency(boundaries(truth), boundaries(prediction))


def match_boundaries(
    truth: EntityMap,
    prediction: EntityMap,
    scores: ArrayLike,
    sizes: NDArray[np.float64],
    protocol: Protocol,
) -> ImageMatches:
    """Match one image by the lesser of both IoUs.

    Crowds, and void that is ignored, forgive by the mask alone, as in the published code. Sizes
    are those of the masks.

    Raises:
        FormatError: Truth and prediction differ in size, or scores or sizes are wrong.
    """
    of_boundaries = boundary_contingency(truth, prediction)
    return match(contingency(truth, prediction), scores, sizes, protocol, of_boundaries)


def boundary_result(whole: Result, records: MatchRecords) -> Result:
    """Return the result of matching by boundaries.

    Args:
        whole: The result of matching by masks.
        records: Of the same images, by boundaries.
    """
    evaluation = Evaluation.of(records)
    metric = replace(whole.metric, boundary=BOUNDARY)
    counts = whole.counts | evaluation.counts.as_dict()
    return msgspec.structs.replace(
        whole,
        signature=Signatures(str(metric), whole.signature.prediction),
        scores=points_of(evaluation.all_scores()),
        intervals={},
        counts=counts,
    )


def _shortened(dense: NDArray[np.generic], by: int, nobody: int) -> NDArray[np.generic]:
    """Cut some pixels off both ends of each run along the rows: void takes their place.

    Args:
        dense: `(H, W)` ids.
        by: How many pixels.
        nobody: An id that does not occur.
    """
    height, width = dense.shape
    fenced = np.full((height, width + 1), nobody, dtype=dense.dtype)  # no run goes on in a new row
    fenced[:, :width] = dense
    flat = fenced.ravel()
    starts = find_runs(flat)
    lengths = np.diff(starts, append=flat.size)
    kept = np.maximum(lengths - 2 * by, 0)
    before = np.minimum(lengths - kept, by)
    pieces = np.stack([before, kept, lengths - kept - before], axis=1)
    ids = np.zeros(pieces.shape, dtype=dense.dtype)
    ids[:, 1] = flat[starts]
    return np.repeat(ids.ravel(), pieces.ravel()).reshape(fenced.shape)[:, :width]
