"""Causes by hand, by masks instead of tables, and by orders instead of Shapley's formula."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import permutations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from entitybench.entity_map import EntityMap
from entitybench.metrics import IOU_THRESHOLDS, ImagePair, MatchRecords, evaluate
from entitybench.metrics.diagnosis import CAUSES, Cause, Diagnosis, diagnose, find_faults
from entitybench.metrics.per_image import report_images
from entitybench.perturbation import Perturbation, merge, perturb, shifted, split

Paint = Callable[..., EntityMap]
NONE = "none"


def causes_at(records: MatchRecords, t: int = 0) -> tuple[list[str], list[str]]:
    faults, names = find_faults(records), [*map(str, CAUSES), NONE]
    return [names[c] for c in faults.truth[t]], [names[c] for c in faults.predictions[t]]


def one(truth: EntityMap, found: EntityMap, scores: Sequence[float] | None = None) -> MatchRecords:
    given = np.linspace(0.9, 0.1, found.num_entities) if scores is None else scores
    return evaluate([ImagePair("1", truth, found, given)]).records


class TestByHand:
    def test_perfect(self, paint: Paint) -> None:
        truth = paint((10, 10), (0, 0, 5, 10), (5, 0, 5, 10))
        assert causes_at(one(truth, truth)) == ([NONE] * 2, [NONE] * 2)
        assert all(f.share == f.gain == 0 for f in diagnose(one(truth, truth)).findings)

    def test_merged(self, paint: Paint) -> None:
        """Three equal entities in one prediction: it matches none."""
        truth = paint((9, 10), (0, 0, 3, 10), (3, 0, 3, 10), (6, 0, 3, 10))
        records = one(truth, paint((9, 10), (0, 0, 9, 10)))
        assert causes_at(records) == (["merged"] * 3, ["merged"])
        found = diagnose(records)
        assert (found["merged"].entities, found["merged"].predictions) == (3, 1)
        assert found["merged"].gain == pytest.approx(1)

    def test_swallowed(self, paint: Paint) -> None:
        """The prediction matches the greater entity at .50; the smaller is merged into it."""
        truth = paint((10, 10), (0, 0, 7, 10), (7, 0, 3, 10))
        records = one(truth, paint((10, 10), (0, 0, 10, 10)))
        assert causes_at(records) == ([NONE, "merged"], [NONE])
        assert causes_at(records, 9) == (["merged"] * 2, ["merged"])

    def test_held_by_what_no_cut_repairs(self, paint: Paint) -> None:
        """Two entities of 20 pixels in a prediction of 400: still a merger, and both missed."""
        truth = paint((50, 10), (0, 0, 2, 10), (2, 0, 2, 10))
        records = one(truth, paint((50, 10), (0, 0, 40, 10)))
        assert causes_at(records) == (["missed"] * 2, ["merged"])

    def test_split(self, paint: Paint) -> None:
        truth = paint((9, 10), (0, 0, 9, 10))
        found = paint((9, 10), (0, 0, 3, 10), (3, 0, 3, 10), (6, 0, 3, 10))
        records = one(truth, found)
        assert causes_at(records) == (["split"], ["split"] * 3)
        assert diagnose(records)["split"].gain == pytest.approx(1)

    def test_a_chip_is_a_split_too(self, paint: Paint) -> None:
        truth = paint((10, 10), (0, 0, 10, 10))
        records = one(truth, paint((10, 10), (0, 0, 8, 10), (8, 0, 2, 10)), [0.5, 0.9])
        assert causes_at(records) == ([NONE], [NONE, "split"][::-1])  # best score first

    def test_boundary(self, paint: Paint) -> None:
        truth = paint((20, 10), (0, 0, 10, 10))
        records = one(truth, paint((20, 10), (6, 0, 10, 10)))  # IoU 40 / 160
        assert causes_at(records) == (["boundary"], ["boundary"])
        near = one(truth, paint((20, 10), (2, 0, 10, 10)))  # IoU 80 / 120
        assert causes_at(near) == ([NONE], [NONE])
        assert causes_at(near, 4) == (["boundary"], ["boundary"])  # at .70

    def test_missed_and_spurious(self, paint: Paint) -> None:
        truth = paint((20, 10), (0, 0, 10, 10))
        records = one(truth, paint((20, 10), (10, 0, 10, 10)))
        assert causes_at(records) == (["missed"], ["spurious"])
        touching = one(truth, paint((20, 10), (9, 0, 10, 10)))  # IoU 10 / 190
        assert causes_at(touching) == (["missed"], ["spurious"])

    def test_iou_of_exactly_a_tenth_is_boundary(self, paint: Paint) -> None:
        truth = paint((20, 11), (0, 0, 10, 11))
        records = one(truth, paint((20, 11), (8, 0, 12, 11)))  # 22 / 220
        assert causes_at(records) == (["boundary"], ["boundary"])

    def test_order(self, paint: Paint) -> None:
        truth = paint((20, 10), (0, 0, 10, 10))
        found = paint((20, 10), (0, 0, 10, 10), (10, 0, 10, 10))
        records = one(truth, found, [0.1, 0.9])
        assert causes_at(records) == ([NONE], ["spurious", NONE])
        diagnosis = diagnose(records)
        assert diagnosis["order"].gain == pytest.approx(0.5)
        assert diagnosis["spurious"].gain == pytest.approx(0.5)
        assert diagnosis["order"].share == pytest.approx(0.25)  # either repair does it all

    def test_what_is_ignored_is_no_fault(self, paint: Paint) -> None:
        truth = paint((20, 10), (0, 0, 10, 10), crowds=[(10, 0, 10, 10)])
        found = paint((20, 10), (0, 0, 10, 10), (10, 0, 10, 10))
        assert causes_at(one(truth, found))[1] == [NONE] * 2

    def test_nothing_to_find(self, paint: Paint) -> None:
        found = diagnose(one(paint((4, 4)), paint((4, 4), (0, 0, 2, 2))))
        assert math.isnan(found.AP)
        assert all(math.isnan(f.share) for f in found.findings)
        assert found["spurious"].predictions == 1


# --- masks instead of tables ---

Mask = NDArray[np.bool_]


def iou(a: Mask, b: Mask) -> float:
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else 0.0


def holds_half(mask: Mask, entity: Mask) -> bool:
    return bool(entity.any()) and 2 * int((mask & entity).sum()) >= int(entity.sum())


class SlowImage:
    """One image by the definition in words: masks are matched, cut and joined."""

    def __init__(self, pair: ImagePair) -> None:
        truth, found, num = pair.truth.to_array(), pair.prediction.to_array(), pair.truth.num_ids
        scores = np.asarray(pair.scores)
        ranked = sorted(range(len(scores)), key=lambda d: -scores[d])[:100]
        self.scores = [float(scores[d]) for d in ranked]
        self.masks = [found == d + 1 for d in ranked]
        self.entities = [truth == g for g in range(1, pair.truth.num_entities + 1)]
        self.crowds = [truth == c for c in range(pair.truth.num_entities + 1, num + 1)]
        self.ious = [[iou(mask, entity) for mask in self.masks] for entity in self.entities]
        self.cuts = [[self.cut(m, g) for m in self.masks] for g in range(len(self.entities))]
        self.inside = [
            [d for d, m in enumerate(self.masks) if 2 * int((m & entity).sum()) > int(m.sum())]
            for entity in self.entities
        ]

    def cut(self, mask: Mask, g: int) -> float:
        """Return the IoU with entity `g` of what is left without the others; 0 without any."""
        others = [o for k, o in enumerate(self.entities) if k != g and holds_half(mask, o)]
        return iou(mask & ~np.any(others, axis=0), self.entities[g]) if others else 0.0

    def match(self, t: float) -> tuple[dict[int, int], set[int]]:
        """Return entity to prediction, best rank first, and the predictions that crowds forgive."""
        matched: dict[int, int] = {}
        forgiven = set()
        for d, mask in enumerate(self.masks):
            free = [g for g in range(len(self.entities)) if g not in matched]
            best = max(free, key=lambda g: (self.ious[g][d], g), default=-1)
            if best >= 0 and self.ious[best][d] >= t:
                matched[best] = d
            elif any((mask & crowd).sum() / max(mask.sum(), 1) >= t for crowd in self.crowds):
                forgiven.add(d)
        return matched, forgiven

    def cause_of_entity(self, g: int, t: float) -> tuple[str, int]:
        """Return why nothing matches `g`, and the prediction that the repair makes match it."""
        ious, cuts, inside = self.ious[g], self.cuts[g], self.inside[g]
        pieces = [self.masks[d] for d in inside]
        joined = iou(np.any(pieces, axis=0), self.entities[g]) if len(pieces) > 1 else 0.0
        best, cut = max(ious, default=0.0), max(cuts, default=0.0)
        if cut >= t and (joined < t or cut >= joined):
            return "merged", cuts.index(cut)
        if joined >= t:
            return "split", inside[0]
        return ("boundary", ious.index(best)) if max(best, cut, joined) >= 0.1 else ("missed", -1)

    def cause_of_prediction(self, d: int) -> str:
        """Return what a false positive is at fault for where it is no entity's repair."""
        if sum(holds_half(self.masks[d], entity) for entity in self.entities) > 1:
            return "merged"
        if any(d in inside and len(inside) > 1 for inside in self.inside):
            return "split"
        return "boundary" if max([0.0, *(row[d] for row in self.ious)]) >= 0.1 else "spurious"

    def faults(self, t: float) -> tuple[list[str], list[int], list[str], list[bool]]:
        """Return causes and sources of the entities, causes of the predictions, and the hits."""
        matched, forgiven = self.match(t)
        entities = [
            (NONE, -1) if g in matched else self.cause_of_entity(g, t)
            for g in range(len(self.entities))
        ]
        hits = [d in matched.values() for d in range(len(self.masks))]
        predictions = []
        for d, is_hit in enumerate(hits):
            repairs = {cause for cause, source in entities if source == d}
            owed = [cause for cause in ("merged", "split", "boundary") if cause in repairs]
            cause = NONE if is_hit or d in forgiven else [*owed, self.cause_of_prediction(d)][0]
            predictions.append(cause)
        return [c for c, _ in entities], [s for _, s in entities], predictions, hits


class SlowFaults(NamedTuple):
    """All images at one threshold; predictions count through, as rows of the records do."""

    truth: list[str]
    sources: list[int]
    predictions: list[str]
    hits: list[bool]


def slow_faults(images: Sequence[SlowImage], t: float) -> SlowFaults:
    pooled = SlowFaults([], [], [], [])
    for image in images:
        truth, sources, predictions, hits = image.faults(t)
        first = len(pooled.predictions)
        pooled.truth.extend(truth)
        pooled.sources.extend(-1 if s < 0 else first + s for s in sources)
        pooled.predictions.extend(predictions)
        pooled.hits.extend(hits)
    return pooled


def spoiled_pairs(count: int, seed: int) -> list[ImagePair]:
    random, pairs = np.random.default_rng(seed), []
    for number in range(count):
        ids = np.kron(random.integers(0, 9, (5, 6)), np.ones((4, 5), dtype=int))
        crowds = [8] if (ids == 8).any() else []
        seen = EntityMap.from_array(ids, crowds=crowds)
        made = perturb(seen, random, Perturbation(0.3, 0.4, 0.2, 2, 0.3))
        truth = EntityMap.from_array(np.where(ids == 7, 0, ids), crowds=crowds)
        pairs.append(ImagePair(str(number), truth, *made))
    return pairs


@pytest.mark.parametrize("seed", range(4))
def test_causes_are_those_of_the_masks(seed: int) -> None:
    """Of entities and of predictions, and what each repair would match."""
    pairs = spoiled_pairs(10, seed)
    records, images = evaluate(pairs).records, [SlowImage(pair) for pair in pairs]
    faults, names = find_faults(records), [*map(str, CAUSES), NONE]
    seen: set[str] = set()
    for t, threshold in enumerate(IOU_THRESHOLDS.tolist()):
        slow = slow_faults(images, threshold)
        assert [names[c] for c in faults.truth[t]] == slow.truth
        assert faults.sources[t].tolist() == slow.sources
        assert [names[c] for c in faults.predictions[t]] == slow.predictions
        assert faults.is_hit[t].tolist() == slow.hits
        seen.update(slow.truth, slow.predictions)
    assert seen == {"merged", "split", "boundary", "missed", "spurious", NONE}


@pytest.mark.parametrize("seed", range(2))
def test_the_row_of_an_image_is_that_of_its_masks(seed: int) -> None:
    pairs = spoiled_pairs(6, seed)
    for pair, row in zip(pairs, report_images(evaluate(pairs).records), strict=True):
        image = SlowImage(pair)
        found = [len(image.match(t)[0]) for t in IOU_THRESHOLDS.tolist()]
        truth, _, predictions, _ = image.faults(0.5)
        assert (row.entities, row.predicted) == (len(image.entities), len(image.masks))
        assert row.recall == pytest.approx(np.mean(found) / len(image.entities))
        for cause in ("merged", "split", "boundary", "missed"):
            assert getattr(row, cause) == truth.count(cause)
        assert row.spurious == predictions.count("spurious")


# --- what repairs bring ---


def literal_ap(
    hits: Iterable[tuple[float, int]], false: Iterable[tuple[float, int]], num_truth: int
) -> float:
    """AP of a ranking written out: (score, place) of each; the place decides ties."""
    if not num_truth:
        return float(not list(false))
    ranking = [(-s, p, 0) for s, p in hits] + [(-s, p, 1) for s, p in false]
    outcomes = [kind == 0 for _, _, kind in sorted(ranking)]
    found, points = np.cumsum(outcomes), []
    precision = found / np.arange(1, len(outcomes) + 1)
    recall = found / num_truth
    for point in np.linspace(0, 1, 101):
        later = precision[recall >= point]
        points.append(later.max() if later.size else 0.0)
    return float(np.mean(points))


def literal_value(
    scores: Sequence[float], at_thresholds: Sequence[SlowFaults], repaired: set[str]
) -> float:
    values = []
    for faults in at_thresholds:
        hits = [(scores[d], d) for d, is_hit in enumerate(faults.hits) if is_hit]
        for cause, source in zip(faults.truth, faults.sources, strict=True):
            if cause in repaired & {"merged", "split", "boundary"}:
                hits.append((scores[source], source))
        shift = 2 if "order" in repaired else 0
        false = [
            (scores[d] - shift, d)
            for d, cause in enumerate(faults.predictions)
            if cause not in {NONE, *repaired}
        ]
        missed = faults.truth.count("missed") if "missed" in repaired else 0
        values.append(literal_ap(hits, false, len(faults.truth) - missed))
    return float(np.mean(values))


@pytest.mark.parametrize("seed", range(3))
def test_gains_and_shares_are_those_of_repairing_literally(seed: int) -> None:
    pairs = spoiled_pairs(6, seed)
    found, images = diagnose(evaluate(pairs).records), [SlowImage(pair) for pair in pairs]
    scores = [score for image in images for score in image.scores]
    at_thresholds = [slow_faults(images, t) for t in IOU_THRESHOLDS.tolist()]
    names = [str(cause) for cause in CAUSES]
    values: dict[frozenset[str], float] = {}

    def value(repaired: Iterable[str]) -> float:
        key = frozenset(repaired)
        if key not in values:
            values[key] = literal_value(scores, at_thresholds, set(key))
        return values[key]

    assert found.AP == pytest.approx(value([]), abs=1e-12)
    shares = dict.fromkeys(names, 0.0)
    orders = list(permutations(names))
    for order in orders:
        for place, name in enumerate(order):
            shares[name] += (value(order[: place + 1]) - value(order[:place])) / len(orders)
    for name in names:
        assert found[name].gain == pytest.approx(value([name]) - value([]), abs=1e-12)
        assert found[name].share == pytest.approx(shares[name], abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_shares_sum_to_what_is_missing(seed: int) -> None:
    found = diagnose(evaluate(spoiled_pairs(8, seed)).records)
    assert sum(f.share for f in found.findings) == pytest.approx(1 - found.AP, abs=1e-12)
    assert all(f.share >= -1e-12 for f in found.findings)


# --- real truth, spoiled in known ways ---


def spoil(truth: EntityMap, how: str, random: np.random.Generator) -> tuple[EntityMap, int]:
    """Do one thing to a third of the entities; returns the map and how many were touched."""
    ids = truth.to_array()
    ids[ids > truth.num_entities] = 0
    wanted = [g for g in np.unique(ids[ids > 0]).tolist() if random.random() < 1 / 3]
    for entity in wanted:
        if how == "merged":
            merge(ids, entity)
        elif how == "split":
            for _ in range(3):  # into eighths: no piece matches
                for part in np.unique(ids[truth.to_array() == entity]).tolist():
                    split(ids, part)
        elif how == "missed":
            ids[ids == entity] = 0
    if how == "boundary":
        ids = shifted(ids, 6, 6)
    if how == "spurious":
        free = ids == 0
        ids[free] = ids.max() + 1
    return EntityMap.from_array(ids), len(wanted)


def diagnosis_of(maps: Sequence[EntityMap], how: str) -> Diagnosis:
    """Diagnose spoiled truth, ranked by IoU so that the order is not at fault."""
    random, pairs = np.random.default_rng(0), []
    for number, truth in enumerate(maps):
        found, _ = spoil(truth, how, random)
        first = one(truth, found, [0.0] * found.num_entities)
        scores = np.zeros(found.num_entities)
        scores[first.prediction_ids - 1] = first.best_ious
        pairs.append(ImagePair(str(number), truth, found, scores))
    return diagnose(evaluate(pairs).records)


@pytest.fixture(scope="module")
def coco_maps(realdata: Path) -> list[EntityMap]:
    """The panoptic PNGs that come with the release, as they are."""
    folder = realdata / "coco_panoptic" / "assembled_official_layout" / "annotations"
    maps = []
    for path in sorted(folder.glob("panoptic_*2017/*.png")):
        rgb = np.asarray(Image.open(path).convert("RGB")).astype(np.int64)
        maps.append(EntityMap.from_array(rgb @ np.array([1, 256, 65536])))
    assert maps
    return maps


@pytest.fixture(scope="module")
def city_maps(realdata: Path) -> list[EntityMap]:
    """Cityscapes' instance ids; classes below 24 that are stuff, and all instances."""
    maps = []
    for path in sorted((realdata / "cityscapes" / "gtFine").rglob("*_gtFine_instanceIds.png"))[:4]:
        ids = np.asarray(Image.open(path)).astype(np.int64)[::2, ::2]
        ids[(ids < 7) | np.isin(ids, (9, 10, 14, 15, 16, 18))] = 0
        maps.append(EntityMap.from_array(ids))
    assert maps
    return maps


@pytest.mark.parametrize("source", ["coco_maps", "city_maps"])
@pytest.mark.parametrize("how", ["merged", "split", "missed", "boundary"])
def test_the_diagnosis_names_what_was_done_to_real_truth(
    source: str, how: str, request: pytest.FixtureRequest
) -> None:
    found = diagnosis_of(request.getfixturevalue(source), how)
    shares = {str(f.cause): f.share for f in found.findings}
    assert max(shares, key=lambda cause: shares[cause]) == how
    missing = 1 - found.AP
    assert missing > 0.01
    assert shares[how] > 0.75 * missing


LEAST_PIXELS = 200
"""Eighths and moved copies of smaller entities are not what they should be."""


def spoil_each(truth: EntityMap, random: np.random.Generator) -> tuple[EntityMap, dict[int, str]]:
    """Do different things to the entities of one map; returns the cause that each must have."""
    original = truth.to_array()
    original[original > truth.num_entities] = 0
    ids = original.copy()
    causes = dict.fromkeys(range(1, truth.num_entities + 1), NONE)
    untouched = {g for g in causes if truth.areas[g] >= LEAST_PIXELS}
    for entity in random.permutation(sorted(untouched)).tolist():
        how = random.choice(["merged", "split", "missed", "boundary", NONE])
        if entity in untouched and do(how, ids, original, entity, causes, untouched):
            untouched.discard(entity)
    return EntityMap.from_array(ids), causes


def do(
    how: str,
    ids: NDArray[np.int32],
    original: NDArray[np.int32],
    entity: int,
    causes: dict[int, str],
    untouched: set[int],
) -> bool:
    """Do one thing to one entity, in place; false if it cannot be done to this one."""
    mine = original == entity
    if how == "merged":
        joined = ids.copy()
        merge(joined, entity)
        gone = set(np.unique(ids).tolist()) - set(np.unique(joined).tolist())
        if not gone <= untouched or not gone:
            return False
        (other,) = gone
        untouched.discard(other)
        ids[...] = joined
        causes[min(entity, other, key=lambda g: int((original == g).sum()))] = how
        return True
    if how == "split":
        for _ in range(3):
            for part in np.unique(ids[mine]).tolist():
                split(ids, part)
    elif how == "missed":
        ids[mine] = 0
    elif how == "boundary":  # moved until a third is left, over nobody else
        free = mine | ((original == 0) & (ids == 0))
        steps = (np.roll(mine, step, axis=1) & free for step in range(1, 400))
        moved = next((m for m in steps if iou(m, mine) < 1 / 3), mine)
        if not 0.1 <= iou(moved, mine) < 0.5:
            return False
        ids[mine] = 0
        ids[moved] = entity
    causes[entity] = how
    return True


@pytest.mark.parametrize("source", ["coco_maps", "city_maps"])
def test_each_entity_of_real_truth_has_the_cause_that_was_done_to_it(
    source: str, request: pytest.FixtureRequest
) -> None:
    """Amounts are known to the entity, and at IoU .50 every one of them is named."""
    random = np.random.default_rng(0)
    done: list[str] = []
    named: list[str] = []
    for truth in request.getfixturevalue(source):
        found, causes = spoil_each(truth, random)
        done += causes.values()
        named += causes_at(one(truth, found))[0]
    assert named == done
    assert min(done.count(how) for how in ("merged", "split", "missed", "boundary")) >= 3


def test_dropped_entities_are_missed_and_nothing_else(coco_maps: list[EntityMap]) -> None:
    found, random = diagnosis_of(coco_maps, "missed"), np.random.default_rng(0)
    dropped = sum(spoil(truth, "missed", random)[1] for truth in coco_maps)
    assert found["missed"].entities == dropped
    others = [f.cause for f in found.findings if f.entities or f.predictions]
    assert others == [Cause.MISSED]


def test_a_prediction_of_nothing_is_spurious(city_maps: list[EntityMap]) -> None:
    found = diagnosis_of(city_maps, "spurious")
    assert found["spurious"].predictions == len(city_maps)
    assert sum(f.entities for f in found.findings) == 0
