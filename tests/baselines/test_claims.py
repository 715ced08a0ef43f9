from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from entitybench.baselines.ceiling import ceiling
from entitybench.baselines.claims import judge
from entitybench.baselines.configuration import load_config
from entitybench.baselines.entity.config import EntityConfig
from entitybench.baselines.entity.model import EntityModel
from entitybench.baselines.mechanism import Mechanism, best_masks, measure_mechanism, mechanism_stem
from entitybench.baselines.prediction import Predictor
from entitybench.baselines.settings import Data
from entitybench.baselines.speed import measure
from entitybench.candidates import Candidates
from entitybench.entity_map import EntityMap
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


def test_mechanism_counts_what_masks_share(world: Path) -> None:
    torch.manual_seed(0)
    changes = ["inference.threshold=0.005", "data.test_short_side=64"]
    config = load_config(EntityConfig, "entitybench.baselines.entity", "tiny", changes)
    predictor = Predictor.of(EntityModel(config).eval(), config)
    looked: list[int] = []
    truth = open_entity_set("coco_entity_val", world)
    found = measure_mechanism(predictor, truth, progress=lambda: looked.append(1))
    assert len(looked) == len(found.counts) == len(truth)
    claimed, twice, before, after = found.counts.T
    assert (twice <= claimed).all()
    assert (after <= before).all()
    assert (before >= claimed + twice).all()


def test_a_mechanism_that_was_saved_is_the_same(tmp_path: Path) -> None:
    made, stem = mechanism(0.6, 3), mechanism_stem(tmp_path, "coco_entity_val")
    assert Mechanism.load(stem) is None
    made.save(stem)
    read = Mechanism.load(stem)
    assert read is not None
    assert read.numbers() == made.numbers()
    assert judge("area_lost", [read], [made]).per_seed == (0.0,)


def test_best_masks_are_one_for_each_true_entity() -> None:
    truth = EntityMap.from_array([[1, 1, 1, 2, 2, 3]])
    masks = [[[1, 1, 0, 0, 0, 0]], [[1, 1, 1, 1, 0, 0]], [[0, 0, 0, 1, 1, 1]], [[0, 0, 0, 0, 0, 0]]]
    candidates = Candidates.from_masks(masks, [0.9, 0.8, 0.7, 0.6])
    # entity 1: 2/3 and 3/4; entity 2: 0, 1/5 and 2/3; entity 3: 1/3
    assert best_masks(truth, candidates).tolist() == [1, 2]
    assert best_masks(truth, Candidates.from_masks(np.zeros((0, 1, 6), bool), [])).size == 0


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
