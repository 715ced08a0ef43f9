"""Who matches whom in one image, at every IoU threshold and area range at once.

COCO's greedy assignment, and next to no loop. Where entities are disjoint on both sides, an IoU
above 1/2 leaves no second partner: with I = |d ∩ g| and I > (|d| + |g| - I) / 2 follows
2 I > |d| and 2 I > |g|, so every other partner of d, and of g, has less than half of it. (The
same holds for I / |d| in a crowd, but that a crowd takes any number of predictions.) Hence the
order of assignment cannot matter, and a match at t is just IoU ≥ t.

At IoU *exactly* 1/2 a prediction may be the union of two equal halves, and a true entity be
halved by two predictions: only there is something contested between entity maps. Boxes, and
masks that still overlap, contest more. There COCO's order decides: predictions by score, then
id; true entities that count before those that are ignored; then the greater IoU; then the later
one. What nothing contests is matched at once all the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from entitybench import kernel
from entitybench.candidates import checked_scores
from entitybench.metrics.contingency import Contingency
from entitybench.metrics.protocol import (
    IOU_THRESHOLDS,
    MAX_DETECTIONS,
    CrowdRule,
    Protocol,
    VoidRule,
    checked_sizes,
    within_ranges,
)
from entitybench.metrics.tables import ImageTable

ALL_BITS = (1 << len(IOU_THRESHOLDS)) - 1
NO_PARTNER = -1


@dataclass(frozen=True, slots=True, eq=False)
class ImageMatches:
    """What the scores of one image need, and nothing else of it.

    The D predictions are the best 100, in order of rank.

    Attributes:
        scores: `(D,)` float64, descending; ties in order of id.
        prediction_ids: `(D,)` int32 id in the predicted map.
        areas: `(D,)` int64 pixels.
        matched: `(D, 4)` uint16, one column per area range (`AREA_NAMES`); bit t tells whether
            the prediction is matched at `IOU_THRESHOLDS[t]`, be it to a crowd.
        ignored: `(D, 4)` uint16; bit t tells whether it counts neither for nor against.
        best_ious: `(D,)` float64 highest IoU with any true entity, crowds apart; 0 if it
            touches none.
        partners: `(D,)` int32 true id matched at IoU .50 in the range `all`: an entity, a
            crowd, 0 for void that is ignored, -1 for none.
        truth_sizes: `(N,)` float64 size of each true entity under the protocol.
        num_pixels: Pixels of the image.
        num_predicted: P, also where it is more than 100.
        num_empty: How many of the P have no pixel.
        table: What the two maps say to each other, where it is kept.
    """

    scores: NDArray[np.float64]
    prediction_ids: NDArray[np.int32]
    areas: NDArray[np.int64]
    matched: NDArray[np.uint16]
    ignored: NDArray[np.uint16]
    best_ious: NDArray[np.float64]
    partners: NDArray[np.int32]
    truth_sizes: NDArray[np.float64]
    num_pixels: int
    num_predicted: int
    num_empty: int
    table: ImageTable | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Ranked predictions and something true that each touches.

    Attributes:
        rank: `(K,)` int64 rank of the prediction.
        truth: `(K,)` int64 true id.
        iou: `(K,)` float64; of a crowd, the share of the prediction that lies in it.
        is_crowd: `(K,)` whether the true id may be matched any number of times.
    """

    rank: NDArray[np.int64]
    truth: NDArray[np.int64]
    iou: NDArray[np.float64]
    is_crowd: NDArray[np.bool_]

    def where(self, condition: NDArray[np.bool_]) -> Pairs:
        """Return the pairs for which the condition holds."""
        return Pairs(
            self.rank[condition],
            self.truth[condition],
            self.iou[condition],
            self.is_crowd[condition],
        )


def match(
    table: Contingency,
    scores: ArrayLike,
    truth_sizes: ArrayLike,
    protocol: Protocol,
    boundaries: Contingency | None = None,
) -> ImageMatches:
    """Match the predictions of one image to its true entities.

    Args:
        table: Shared pixels of N true entities, C crowds and P predictions.
        scores: `(P,)` scores in [0, 1]. The best 100 take part; ties go to the lower id.
        truth_sizes: `(N,)` sizes of the true entities, from `protocol.truth_sizes`.
        protocol: Crowd and void rule.
        boundaries: Shared pixels of the boundaries of the same ids, if IoU is to be the lesser
            of the masks' and the boundaries'.

    Raises:
        FormatError: Scores or sizes of another number, or out of range.
    """
    checked = checked_scores(scores, table.num_predicted)
    sizes = checked_sizes(truth_sizes, table.num_entities)
    best_first = np.argsort(-checked, kind="stable")[: MAX_DETECTIONS[-1]]
    areas = table.prediction_areas[best_first + 1]
    pairs = _pairs(table, best_first, protocol, boundaries)
    truth_ignored = np.ones((len(table.truth_areas), 4), dtype=bool)
    truth_ignored[1 : table.num_entities + 1] = ~within_ranges(sizes)
    matched, ignored, partners = assign(pairs, truth_ignored, best_first.size)
    outside = np.where(within_ranges(areas), 0, ALL_BITS).astype(np.uint16)
    return ImageMatches(
        checked[best_first],
        (best_first + 1).astype(np.int32),
        areas,
        matched,
        ignored | (outside & ~matched),
        _best_ious(pairs, best_first.size),
        partners,
        sizes,
        table.num_pixels,
        table.num_predicted,
        int(np.count_nonzero(table.prediction_areas[1:] == 0)),
    )


def _pairs(
    table: Contingency,
    best_first: NDArray[np.int64],
    protocol: Protocol,
    boundaries: Contingency | None,
) -> Pairs:
    """List what can match: ranked predictions and the entities and crowds they touch.

    IoU is one float64 quotient of integers, as in pycocotools, hence the same bits.
    """
    rank_of = np.full(table.num_predicted + 1, -1)
    rank_of[best_first + 1] = np.arange(best_first.size)
    takes_part, is_crowd = _roles(table, protocol)
    held = (rank_of[table.prediction] >= 0) & takes_part[table.truth]
    truth, prediction, shared = table.truth[held], table.prediction[held], table.pixels[held]
    own = table.prediction_areas[prediction]
    crowd = is_crowd[truth]
    union = np.where(crowd, own, own + table.truth_areas[truth] - shared)
    iou = shared / union
    if boundaries is not None:
        of_boundaries = boundaries.iou(truth, prediction)
        iou = np.where(crowd, iou, np.minimum(iou, of_boundaries))
    return Pairs(rank_of[prediction], truth, iou, crowd)


def _roles(table: Contingency, protocol: Protocol) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Tell for each true id whether it takes part, and whether it does so as a crowd."""
    is_crowd = np.zeros(len(table.truth_areas), dtype=bool)
    is_crowd[0] = protocol.void is VoidRule.IGNORE
    is_crowd[table.num_entities + 1 :] = protocol.crowd is CrowdRule.IGNORE
    takes_part = is_crowd.copy()
    takes_part[1 : table.num_entities + 1] = True
    return takes_part, is_crowd


def assign(
    pairs: Pairs, truth_ignored: NDArray[np.bool_], count: int
) -> tuple[NDArray[np.uint16], NDArray[np.uint16], NDArray[np.int32]]:
    """Assign predictions to true entities as COCO does.

    Args:
        pairs: What touches; the order of the pairs does not matter.
        truth_ignored: `(G, A)` for A ways of counting, whether a true id is ignored.
        count: D; predictions rank `0…D - 1`.

    Returns:
        `(D, A)` uint16 bits of the thresholds matched at, `(D, A)` uint16 those of them that
        are ignored, and `(D,)` int32 true id matched at IoU .50 in the first way, or -1.
    """
    ways = truth_ignored.shape[1]
    matched = np.zeros((count, ways), dtype=np.uint16)
    ignored = np.zeros((count, ways), dtype=np.uint16)
    partners = np.full(count, NO_PARTNER, dtype=np.int32)
    if kernel.is_active():
        order = np.lexsort((pairs.truth, pairs.rank))
        ranked = pairs.rank[order], pairs.truth[order], pairs.iou[order], pairs.is_crowd[order]
        claims = kernel.Claims(*ranked)
        kernel.assign(claims, truth_ignored, IOU_THRESHOLDS, (matched, ignored, partners))
        return matched, ignored, partners
    candidates = pairs.where(pairs.iou >= IOU_THRESHOLDS[0])
    contested = _contested(candidates, truth_ignored.shape[0], count)
    sure = candidates.where(~contested)
    passed = np.searchsorted(IOU_THRESHOLDS, sure.iou, side="right")
    matched[sure.rank] = ((1 << passed) - 1)[:, None]
    ignored[sure.rank] = np.where(truth_ignored[sure.truth], matched[sure.rank], 0)
    partners[sure.rank] = sure.truth
    rest = candidates.where(contested)
    for t, threshold in enumerate(IOU_THRESHOLDS.tolist()):
        rest = rest.where(rest.iou >= threshold)
        for way in range(ways if rest.rank.size else 0):
            chosen = _share(rest, truth_ignored[:, way])
            ranks, truths = np.array(list(chosen.items())).T
            bit = np.uint16(1 << t)
            matched[ranks, way] |= bit
            ignored[ranks, way] |= np.where(truth_ignored[truths, way], bit, 0).astype(np.uint16)
            if t == way == 0:
                partners[ranks] = truths
    return matched, ignored, partners


def _contested(candidates: Pairs, num_truth: int, count: int) -> NDArray[np.bool_]:
    """Tell which pairs compete: two for one prediction, or two for one true entity."""
    options = np.bincount(candidates.rank, minlength=count)[candidates.rank]
    claims = np.bincount(candidates.truth, minlength=num_truth)[candidates.truth]
    contested: NDArray[np.bool_] = (options > 1) | ((claims > 1) & ~candidates.is_crowd)
    return contested


def _share(contested: Pairs, truth_ignored: NDArray[np.bool_]) -> dict[int, int]:
    """Assign pairs that compete in COCO's order; returns the true id of each rank."""
    options: dict[int, list[tuple[bool, float, int, bool]]] = {}
    for rank, truth, iou, crowd in zip(
        contested.rank.tolist(),
        contested.truth.tolist(),
        contested.iou.tolist(),
        contested.is_crowd.tolist(),
        strict=True,
    ):
        options.setdefault(rank, []).append((not truth_ignored[truth], iou, truth, crowd))
    chosen: dict[int, int] = {}
    taken: set[int] = set()
    for rank in sorted(options):
        free = [option for option in options[rank] if option[2] not in taken]
        if free:
            _, _, truth, crowd = max(free)
            chosen[rank] = truth
            taken.update(() if crowd else (truth,))
    return chosen


def _best_ious(pairs: Pairs, count: int) -> NDArray[np.float64]:
    best = np.zeros(count)
    np.maximum.at(best, pairs.rank[~pairs.is_crowd], pairs.iou[~pairs.is_crowd])
    return best
