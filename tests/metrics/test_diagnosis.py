"""Causes by hand, by masks instead of tables, and by orders instead of Shapley's formula."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from entitybench.entity_map import EntityMap
from entitybench.metrics import IOU_THRESHOLDS, ImagePair, MatchRecords, evaluate
from entitybench.metrics.diagnosis import CAUSES, Cause, Diagnosis, diagnose, find_faults
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


def iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else 0.0


def slow_causes(pair: ImagePair, t: float, found: set[int]) -> dict[int, str]:
    """The definition in words, by cutting and joining masks; `found` are the ids matched at t."""
    dense, map_ = pair.truth.to_array(), pair.prediction.to_array()
    truth = {g: dense == g for g in range(1, pair.truth.num_entities + 1)}
    masks = [map_ == d for d in range(1, pair.prediction.num_entities + 1)]
    causes = {}
    for g, entity in truth.items():
        best = max([0.0, *(iou(mask, entity) for mask in masks)])
        cut, inside = 0.0, []
        for mask in masks:
            others = [
                o
                for k, o in truth.items()
                if k != g and o.any() and 2 * (mask & o).sum() >= o.sum()
            ]
            if others and (mask & entity).any():
                left = mask & ~np.any(others, axis=0)
                cut = max(cut, iou(left, entity))
            if 2 * (mask & entity).sum() > mask.sum():
                inside.append(mask)
        joined = iou(np.any(inside, axis=0), entity) if len(inside) > 1 else 0.0
        if g in found:
            causes[g] = NONE
        elif cut >= t and (joined < t or cut >= joined):
            causes[g] = "merged"
        elif joined >= t:
            causes[g] = "split"
        else:
            causes[g] = "boundary" if max(best, cut, joined) >= 0.1 else "missed"
    return causes


def spoiled_pairs(count: int, seed: int) -> list[ImagePair]:
    random, pairs = np.random.default_rng(seed), []
    for number in range(count):
        ids = np.kron(random.integers(0, 9, (5, 6)), np.ones((4, 5), dtype=int))
        truth = EntityMap.from_array(ids, crowds=[8] if (ids == 8).any() else [])
        made = perturb(truth, random, Perturbation(0.3, 0.4, 0.2, 2, 0.3))
        pairs.append(ImagePair(str(number), truth, *made))
    return pairs


@pytest.mark.parametrize("seed", range(4))
def test_causes_are_those_of_the_masks(seed: int) -> None:
    pairs = spoiled_pairs(10, seed)
    records = evaluate(pairs).records
    faults, names = find_faults(records), [*map(str, CAUSES), NONE]
    seen: set[str] = set()
    for t, threshold in enumerate(IOU_THRESHOLDS.tolist()):
        for index, pair in enumerate(pairs):
            rows = slice(*records.truth_offsets[index : index + 2])
            ours = dict(enumerate((names[c] for c in faults.truth[t][rows]), start=1))
            found = {g for g, cause in ours.items() if cause == NONE}
            assert ours == slow_causes(pair, threshold, found)
            hits = records.matched[:, 0] & ~records.ignored[:, 0] & (1 << t)
            own = slice(*records.detection_offsets[index : index + 2])
            assert len(found) == np.count_nonzero(hits[own])
            seen.update(ours.values())
    assert seen == {"merged", "split", "boundary", "missed", NONE}


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


def literal_value(records: MatchRecords, repaired: set[str]) -> float:
    faults, scores = find_faults(records), records.scores
    names = [*map(str, CAUSES), NONE]
    values = []
    for t in range(10):
        truth = [names[c] for c in faults.truth[t]]
        hits = [(scores[d], d) for d in np.flatnonzero(faults.is_hit[t]).tolist()]
        for g, cause in enumerate(truth):
            if cause in repaired & {"merged", "split", "boundary"}:
                source = int(faults.sources[t][g])
                hits.append((scores[source], source))
        kept = [names[c] not in {NONE, *repaired} for c in faults.predictions[t]]
        shift = 2 if "order" in repaired else 0
        false = [(scores[d] - shift, d) for d in np.flatnonzero(kept).tolist()]
        num_truth = len(truth) - (truth.count("missed") if "missed" in repaired else 0)
        values.append(literal_ap(hits, false, num_truth))
    return float(np.mean(values))


@pytest.mark.parametrize("seed", range(3))
def test_gains_and_shares_are_those_of_repairing_literally(seed: int) -> None:
    records = evaluate(spoiled_pairs(6, seed)).records
    found = diagnose(records)
    names = [str(cause) for cause in CAUSES]
    values: dict[frozenset[str], float] = {}

    def value(repaired: Iterable[str]) -> float:
        key = frozenset(repaired)
        if key not in values:
            values[key] = literal_value(records, set(key))
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
