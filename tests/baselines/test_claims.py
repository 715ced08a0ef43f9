from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from entitybench.baselines.ceiling import ceiling
from entitybench.baselines.claims import judge
from entitybench.baselines.configuration import load_config
from entitybench.baselines.entity.config import EntityConfig
from entitybench.baselines.entity.model import EntityModel
from entitybench.baselines.mechanism import Mechanism, best_masks, measure_mechanism, mechanism_stem
from entitybench.baselines.model import MaskCandidates
from entitybench.baselines.prediction import Predictor, Prepared
from entitybench.baselines.settings import Data
from entitybench.baselines.speed import measure
from entitybench.candidates import Candidates
from entitybench.entity_map import EntityMap
from entitybench.entity_set import EntitySet
from entitybench.metrics import STRICT, ImagePair, MatchRecords, match_pair
from entitybench.registry import open_entity_set


def mechanism(good: float, seed: int, images: int = 25) -> Mechanism:
    """A model that finds each of three entities with a given probability."""
    rng = np.random.default_rng(seed)
    truth = EntityMap.from_array(np.repeat([[1, 2, 3]], 4, axis=0))
    pairs = []
    for number in range(images):
        found = np.where(rng.random(3) < good, [1, 2, 3], 0)
        prediction = EntityMap.from_array(np.repeat([found], 4, axis=0))
        scores = np.full(prediction.num_entities, 0.5)
        pairs.append(ImagePair(str(number), truth, prediction, scores))
    records = MatchRecords.gather(STRICT, [match_pair(pair) for pair in pairs])
    counts = rng.integers(50, 60, (images, 4))
    counts[:, 1] = 5
    return Mechanism(records, records, counts)


@pytest.mark.parametrize(
    ("better", "worse", "verdict"),
    [(0.9, 0.4, "supported"), (0.4, 0.9, "contradicted"), (0.6, 0.6, "not shown")],
)
def test_verdicts(better: float, worse: float, verdict: str) -> None:
    first = [mechanism(better, seed) for seed in range(3)]
    second = [mechanism(worse, 100 + seed) for seed in range(3)]
    found = judge("AP", first, second)
    assert found.verdict == verdict
    assert found.low <= found.difference <= found.high
    assert len(found.per_seed) == 3


def test_one_seed_against_the_others_is_not_shown() -> None:
    good, bad = (mechanism(0.95, 1), mechanism(0.3, 2))
    found = judge("AP", [good, good, bad], [bad, bad, good])
    assert found.difference > 0
    assert found.verdict == "not shown"


def test_fewer_is_better_for_shared_pixels() -> None:
    few, many = mechanism(0.5, 0), mechanism(0.5, 0)
    many.counts[:, 1] *= 3
    found = judge("claimed_twice", [few], [many])
    assert found.verdict == "supported"
    assert few.numbers()["claimed_twice"] == pytest.approx(5 * 25 / few.counts[:, 0].sum())


class Greedy(Predictor):
    """Knows the truth, and lets an entity that is the larger one take the next one, too."""

    def __init__(self, truth: EntitySet) -> None:
        self._images = iter(truth)
        super().__init__(
            EntityModel(load_config(EntityConfig, "entitybench.baselines.entity", "tiny")).eval(),
            Data(test_short_side=64, longest=64),
        )

    def candidates(self, prepared: Sequence[Prepared]) -> MaskCandidates:
        ids = entity_ids(next(self._images).map)
        masks = greedy_masks(ids)
        height, width = prepared[0].canvas
        padding = (0, width - ids.shape[1], 0, height - ids.shape[0])
        padded = torch.nn.functional.pad(torch.from_numpy(np.stack(masks)).float(), padding)
        scores = torch.linspace(0.9, 0.1, len(masks))[None]
        none = torch.zeros_like(scores, dtype=torch.int64)
        boxes = torch.zeros(1, len(masks), 4)
        return MaskCandidates(scores, scores > 0, boxes, none, padded[None], 1, 0.0)


def entity_ids(truth: EntityMap) -> NDArray[np.int32]:
    ids = truth.to_array()
    return np.where(ids <= truth.num_entities, ids, 0)  # without crowds


def greedy_masks(ids: NDArray[np.int32]) -> list[NDArray[np.bool_]]:
    alone = [ids == number for number in range(1, ids.max() + 1)]
    following = [*alone[1:], np.zeros_like(alone[0])]
    return [a | b if a.sum() >= b.sum() else a for a, b in zip(alone, following, strict=True)]


def slow_counts(ids: NDArray[np.int32]) -> list[int]:
    masks = greedy_masks(ids)
    best = set()
    for number in range(1, ids.max() + 1):
        entity = ids == number
        ious = [(mask & entity).sum() / (mask | entity).sum() for mask in masks]
        if max(ious) >= 0.5:
            best.add(ious.index(max(ious)))
    counts = [0, 0, 0, 0]
    for place in np.ndindex(ids.shape):
        claiming = [number for number, mask in enumerate(masks) if mask[place]]
        chosen = [number for number in claiming if number in best]
        counts[0] += len(chosen) >= 1
        counts[1] += len(chosen) >= 2
        counts[2] += len(chosen)
        counts[3] += bool(claiming) and claiming[0] in best  # the best score is on top
    return counts


def test_mechanism_counts_what_masks_share(world: Path) -> None:
    looked: list[int] = []
    truth = open_entity_set("coco_entity_val", world)
    found = measure_mechanism(Greedy(truth), truth, progress=lambda: looked.append(1))
    assert len(looked) == len(found.counts) == len(truth)
    expected = {image.id: slow_counts(entity_ids(image.map)) for image in truth}
    assert found.counts.tolist() == [expected[key.image_id] for key in found.resolved.images]
    assert found.counts[:, 1].sum() > 0


def test_what_is_undefined_is_not_shown() -> None:
    nothing, something = mechanism(0.0, 0), mechanism(0.5, 0)
    nothing.counts[:] = 0
    found = judge("claimed_twice", [nothing], [something])
    assert np.isnan([found.difference, found.low, found.high, *found.per_seed]).all()
    assert found.verdict == "not shown"


def test_a_mechanism_that_was_saved_is_the_same(tmp_path: Path) -> None:
    made, stem = mechanism(0.6, 3), mechanism_stem(tmp_path, "coco_entity_val")
    assert Mechanism.load(stem) is None
    made.save(stem)
    read = Mechanism.load(stem)
    assert read is not None
    assert read.numbers() == made.numbers()
    assert judge("area_lost", [read], [made]).per_seed == (0.0,)


def test_best_masks_are_one_for_each_true_entity_that_is_found() -> None:
    truth = EntityMap.from_array([[1, 1, 1, 2, 2, 3, 0, 4, 0]])
    masks = np.zeros((6, 1, 9), dtype=bool)
    for number, pixels in enumerate([[0, 1], [0, 1, 2, 3], [3, 4, 5], [4, 5, 6], [], [7, 8]]):
        masks[number, 0, pixels] = True
    candidates = Candidates.from_masks(masks, [0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    # entity 1: 2/3, 3/4; entity 2: 1/5, 2/3, 1/4; entity 3: 1/3 twice, not found; entity 4: 1/2
    assert best_masks(truth, candidates).tolist() == [1, 2, 5]
    alone = Candidates.from_masks(masks[3:5], [0.6, 0.5])
    assert best_masks(truth, alone).size == 0
    assert best_masks(truth, Candidates.from_masks(np.zeros((0, 1, 9), bool), [])).size == 0
    assert (
        best_masks(
            EntityMap.from_array([[0, 0, 0]]), Candidates.from_masks([[[1, 1, 0]]], [0.5])
        ).size
        == 0
    )


def test_the_ceiling_falls_with_the_stride(world: Path) -> None:
    truth = open_entity_set("coco_entity_val", world)
    data = Data(test_short_side=64, longest=128)
    scores = [ceiling(truth, data, stride).AP for stride in (1, 2, 4)]
    assert scores[0] == max(scores)
    assert scores[0] > 2 * scores[2]  # most entities here are a few pixels wide


def test_speed_runs_on_a_cpu() -> None:
    timing = measure("tiny", (64, 96), 2, 1, ("schedule.precision=float32",), "cpu")
    assert timing.training_images_per_second > 0
    assert timing.prediction_images_per_second > 0
