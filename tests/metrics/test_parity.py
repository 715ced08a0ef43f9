"""Bit equality with pycocotools, on cases made to break it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates

from entitybench.entity_map import EntityMap
from entitybench.metrics import OFFICIAL, STRICT, Evaluation, ImagePair, Protocol

Check = Callable[..., Evaluation]
Random = np.random.Generator
Ids = NDArray[np.int64]

PROTOCOLS = [
    STRICT,
    STRICT.with_annotated_sizes(),
    Protocol.named("strict", void="ignore"),
    OFFICIAL,
]
CASES_PER_SEED = 20


def _stripes(random: Random) -> tuple[Ids, Ids]:
    """Columns of a few pixels: IoU is exactly 1/2, 3/5, 3/4, … all the time."""
    width, height = int(random.integers(4, 41)), int(random.integers(1, 4))
    truth, prediction = (
        np.repeat(np.arange(1, width + 1), random.integers(1, 6, width))[:width] for _ in "ab"
    )
    return np.tile(truth, (height, 1)), np.tile(prediction, (height, 1))


def _halves(random: Random) -> tuple[Ids, Ids]:
    """True bars that predictions halve or join."""
    bars = np.repeat(np.arange(1, 11), 4)
    halved, joined = np.repeat(np.arange(1, 21), 2), np.repeat(np.arange(1, 6), 8)
    mixed = np.where(random.random(10).repeat(4) < 0.5, halved, 100 + joined)
    pair = (bars, mixed) if random.random() < 0.7 else (mixed, bars)
    return np.tile(pair[0], (2, 1)), np.tile(pair[1], (2, 1))


def _borders(random: Random) -> tuple[Ids, Ids]:
    """Rectangles of about 32² and 96² pixels, or exactly that, on one large canvas."""
    truth = np.zeros((100, 300), dtype=np.int64)
    truth[:96, :96] = 1
    truth[:32, 100:132] = 2
    truth[40:72, 100:133] = 3
    truth[:31, 140:173] = 4
    truth[:96, 180 : 180 + int(random.integers(94, 99))] = 5
    prediction = np.roll(truth, random.integers(0, 9, 2), axis=(0, 1))
    return truth, prediction


def _crumbs(random: Random) -> tuple[Ids, Ids]:
    """More than 100 predictions in an image."""
    side = int(random.integers(11, 15))
    truth = np.kron(np.arange(1, side * side + 1).reshape(side, side), np.ones((2, 2), int))
    prediction = np.where(random.random(truth.shape) < 0.2, 0, truth)
    return truth, random.permutation(side * side + 1)[prediction]


def _noise(random: Random) -> tuple[Ids, Ids]:
    """Few ids without any order."""
    shape = tuple(random.integers(1, 9, 2))
    truth, prediction = (random.integers(0, random.integers(2, 7), shape) for _ in "ab")
    return truth, prediction


def _blocks(random: Random) -> tuple[Ids, Ids]:
    """Truth in blocks; the prediction moves, merges and forgets them."""
    truth = np.kron(random.permutation(16).reshape(4, 4), np.ones((6, 6), int))
    prediction = np.roll(truth, random.integers(-2, 3, 2), axis=(0, 1))
    merged = random.integers(0, 16, 16)
    keep = random.random(16) < 0.7
    return truth, np.where(keep, np.arange(16), merged)[prediction]


# crumbs cost pycocotools the most
KINDS = 2 * (_stripes, _halves, _borders, _noise, _blocks) + (_crumbs,)


def _pair(random: Random, image_id: int) -> ImagePair:
    truth, prediction = KINDS[random.integers(len(KINDS))](random)
    fate = random.random()
    truth = np.zeros_like(truth) if fate < 0.07 else truth
    prediction = np.zeros_like(prediction) if 0.05 < fate < 0.12 else prediction
    if random.random() < 0.3:
        truth = np.where(np.isin(truth, random.integers(0, 20, 5)), 0, truth)
    ids = random.permutation(np.unique(truth[truth > 0])).tolist()
    num_crowds = int(len(ids) * random.random() * 0.5) if random.random() < 0.5 else 0
    crowds, entities = ids[:num_crowds], ids[num_crowds:]
    if random.random() < 0.1:
        entities.insert(0, 999)  # a true entity that owns no pixel
    found = random.permutation(np.unique(prediction[prediction > 0])).tolist()
    if random.random() < 0.3:
        found.insert(int(random.integers(len(found) + 1)), 998)  # a predicted one
    sizes = random.choice([10.0, 1023.5, 1024.0, 1024.5, 9216.0, 9217.0, 5e9], len(entities))
    return ImagePair(
        str(image_id),
        EntityMap.from_array(truth, entities=entities, crowds=crowds),
        EntityMap.from_array(prediction, entities=found),
        _scores(random, len(found)),
        annotated_sizes=sizes,
    )


def _scores(random: Random, count: int) -> NDArray[np.float64]:
    """Scores with many ties, few ties, or none."""
    scores = random.random(count)
    digits = int(random.integers(0, 5))
    return scores if digits == 4 else scores.round(digits)


def _data_set(random: Random) -> list[ImagePair]:
    ids = random.choice(2000, int(random.integers(1, 5)), replace=False)
    return [_pair(random, int(i)) for i in ids]


@pytest.mark.parametrize("seed", range(26))
def test_same_bits_on_adversarial_cases(seed: int, check_parity: Check) -> None:
    random = np.random.default_rng(seed)
    for case in range(CASES_PER_SEED):
        check_parity(_data_set(random), PROTOCOLS[case % len(PROTOCOLS)], seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1000, 1060))
def test_same_bits_on_many_more_cases(seed: int, check_parity: Check) -> None:
    test_same_bits_on_adversarial_cases(seed, check_parity)


def test_the_cases_are_adversarial() -> None:
    """What the generator promises does occur, else the parity tests would prove little."""
    random = np.random.default_rng(0)
    pairs = [pair for _ in range(200) for pair in _data_set(random)]
    assert any(p.truth.num_crowds for p in pairs)
    assert any(p.prediction.num_entities > 100 for p in pairs)
    assert any(p.prediction.num_entities == 0 < p.truth.num_entities for p in pairs)
    assert any(p.truth.num_ids == 0 < p.prediction.num_entities for p in pairs)
    assert any((p.prediction.areas[1:] == 0).any() for p in pairs)
    assert any((p.truth.areas[1:] == 0).any() for p in pairs)
    assert any(1024 in p.truth.areas[1:] for p in pairs)
    assert any(9216 in p.truth.areas[1:] for p in pairs)
    assert any(len(set(np.asarray(p.scores))) < p.prediction.num_entities for p in pairs)


def _warped_regions(random: Random, num: int, shape: tuple[int, int]) -> Ids:
    """Voronoi cells with wavy borders: about what people draw."""
    y, x = np.indices(shape).astype(np.float64)
    for axis in (y, x):
        axis += 40 * gaussian_filter(random.standard_normal(shape), 8)
    sites = random.random((num, 2)) * shape
    distances = (y[..., None] - sites[:, 0]) ** 2 + (x[..., None] - sites[:, 1]) ** 2
    nearest: Ids = np.argmin(distances, axis=2)
    return nearest


def _realistic(random: Random, image_id: int) -> ImagePair:
    shape = (120, 160) if random.random() < 0.7 else (160, 107)
    truth = _warped_regions(random, 12, shape)
    grid = np.indices(shape) + [3 * gaussian_filter(random.standard_normal(shape), 3) for _ in "yx"]
    moved = map_coordinates(truth, grid, order=0, mode="nearest")
    cut = _warped_regions(random, 3, shape)
    prediction = np.where(np.isin(moved, random.integers(0, 12, 2)), moved * 3 + cut, moved * 3)
    prediction[np.isin(moved, random.integers(0, 12, 1))] = -1
    num_crowds = int(random.random() < 0.2)
    truth_map = EntityMap.from_array(
        truth, entities=range(num_crowds, 10), crowds=range(num_crowds), void=None
    )
    predicted = EntityMap.from_array(prediction, void=(-1,))
    scores = random.random(predicted.num_entities).round(2 if random.random() < 0.5 else 9)
    return ImagePair(str(image_id), truth_map, predicted, scores)


@pytest.fixture(scope="module")
def realistic() -> list[ImagePair]:
    random = np.random.default_rng(7)
    ids = random.permutation(100_000)[:200]
    return [_realistic(random, int(i)) for i in ids]


@pytest.mark.parametrize("protocol", [STRICT, OFFICIAL], ids=lambda p: p.name)
def test_same_bits_on_realistic_images(
    protocol: Protocol, realistic: list[ImagePair], check_parity: Check
) -> None:
    ours = check_parity(realistic, protocol)
    assert 0.1 < ours.scores.AP < 0.9  # neither trivial nor hopeless
    assert ours.counts.truth > 1500
