from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from entitybench.baselines.panopticfcn.targets import (
    best_places,
    centre_map,
    choose,
    dice_losses,
    gaussian_radius,
    region_map,
    shares,
    suits,
)
from entitybench.baselines.regions import measure

STRIDES = [8, 16, 32, 64, 128]


def random_ids(seed: int, count: int = 3, batch: int = 2, side: int = 64) -> torch.Tensor:
    """Rectangles over each other; void between them."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.zeros(batch, side, side, dtype=torch.int64)
    for image in ids:
        for number in range(1, count + 1):
            y, x, h, w = torch.randint(2, side // 2, (4,), generator=generator).tolist()
            image[y : y + h, x : x + w] = number
    return ids


@pytest.mark.parametrize("width", [1, 2.5, 7, 16, 100])
@pytest.mark.parametrize("height", [1, 3, 11.5, 64, 300])
def test_the_radius_is_the_least_of_cornernets_three(width: float, height: float) -> None:
    least = 0.7
    total, area = width + height, width * height
    first = total + math.sqrt(total**2 - 4 * area * (1 - least) / (1 + least))
    second = 2 * total + math.sqrt(4 * total**2 - 16 * (1 - least) * area)
    b = 2 * least * total
    third = -b + math.sqrt(b**2 + 16 * least * (1 - least) * area)
    expected = math.floor(min(first, second, third) / 2)
    assert gaussian_radius(torch.tensor(width), torch.tensor(height)) == expected


def test_levels_of_released_sizes_with_open_ends() -> None:
    # (1, 64) (32, 128) (64, 256) (128, 512) (256, 2048), but for the two ends
    ids = torch.zeros(1, 2200, 2200, dtype=torch.int64)
    sides = (0, 32, 33, 64, 65, 2100)  # the first has no pixel
    for number, side in reversed(list(enumerate(sides, 1))):
        ids[:, :side, :side] = number
    ids[0, 2150, 2150] = 1  # a single pixel
    regions = measure(ids, len(sides))
    expected = [
        [True, True, True, True, False, False],
        [False, True, True, True, True, False],
        [False, False, False, True, True, False],
        [False, False, False, False, False, False],
        [False, False, False, False, False, True],
    ]
    assert suits(regions, STRIDES, 8.0)[0].tolist() == expected
    absent = suits(measure(torch.zeros_like(ids), 2), STRIDES, 8.0)
    assert not absent.any()


def slow_centre_map(
    ids: torch.Tensor, member: torch.Tensor, channel: torch.Tensor, channels: int, stride: int
) -> torch.Tensor:
    """Draw pixel by pixel, entity by entity."""
    side = ids.shape[1] // stride
    target = torch.zeros(len(ids), channels, side, side)
    for image in range(len(ids)):
        for entity in range(member.shape[1]):
            y, x = torch.nonzero(ids[image] == entity + 1, as_tuple=True)
            if not member[image, entity] or not len(y):
                continue
            row = int(y.double().mean() // stride)
            column = int(x.double().mean() // stride)
            height = float(y.max() - y.min() + 1) / stride
            width = float(x.max() - x.min() + 1) / stride
            radius = int(gaussian_radius(torch.tensor(width), torch.tensor(height)))
            deviation = (2 * radius + 1) / 3
            for i in range(max(0, row - radius), min(side, row + radius + 1)):
                for j in range(max(0, column - radius), min(side, column + radius + 1)):
                    squares = (i - row) ** 2 + (j - column) ** 2
                    value = math.exp(-squares / (2 * deviation**2))
                    place = target[image, channel[image, entity]]
                    place[i, j] = max(float(place[i, j]), value)
    return target


@pytest.mark.parametrize("stride", [4, 8, 32])
@pytest.mark.parametrize("seed", range(4))
def test_centres_are_drawn_as_one_by_one(stride: int, seed: int) -> None:
    ids = random_ids(seed, 5)
    generator = torch.Generator().manual_seed(seed)
    member = torch.rand(2, 5, generator=generator) > 0.3
    channel = torch.randint(0, 3, (2, 5), generator=generator)
    shape = (64 // stride, 64 // stride)
    regions = measure(ids, 5)
    drawn = centre_map(regions, member & regions.present, channel, 3, stride, shape)
    expected = slow_centre_map(ids, member, channel, 3, stride)
    torch.testing.assert_close(drawn, expected, rtol=0, atol=1e-6)
    assert drawn.amax() == 1


def test_a_centre_in_the_last_corner_stays_on_the_map() -> None:
    ids = torch.zeros(1, 32, 32, dtype=torch.int64)
    ids[0, 31, 31] = 1
    regions = measure(ids, 1)
    drawn = centre_map(regions, regions.present, torch.zeros(1, 1).long(), 1, 32, (1, 1))
    assert drawn.tolist() == [[[[1.0]]]]


def test_shares_are_the_bilinear_reduction_of_each_mask() -> None:
    ids = random_ids(3, 4)
    one_hot = functional.one_hot(ids, 5)[..., 1:].permute(0, 3, 1, 2).float()
    expected = functional.interpolate(one_hot, scale_factor=0.25, mode="bilinear")
    assert torch.equal(shares(ids, 4), expected)
    assert set(expected.flatten().tolist()) <= {0, 0.25, 0.5, 0.75, 1}


def test_places_are_the_best_scores_inside() -> None:
    generator = torch.Generator().manual_seed(0)
    masks = shares(random_ids(1, 3), 3)  # 16×16
    channel = torch.tensor([[0, 1, 1], [1, 0, 0]])
    logits = torch.randn(2, 2, 8, 8, generator=generator)
    scores, cells = best_places(logits, masks, channel, 7)
    # a half-size bilinear reduction is the mean of 2×2
    inside = masks.reshape(2, 3, 8, 2, 8, 2).mean((3, 5)) > 0.1
    for image in range(2):
        for entity in range(3):
            probability = logits[image, channel[image, entity]].sigmoid().flatten()
            cells_inside = torch.nonzero(inside[image, entity].flatten())[:, 0].tolist()
            own = sorted(((float(probability[i]), i) for i in cells_inside), reverse=True)[:7]
            found = scores[image, entity]
            assert found[: len(own)].tolist() == pytest.approx([value for value, _ in own])
            assert cells[image, entity][: len(own)].tolist() == [cell for _, cell in own]
            assert found[len(own) :].abs().sum() == 0


def test_a_level_with_fewer_cells_than_places() -> None:
    masks = torch.zeros(1, 2, 8, 8)
    masks[0, 0] = 1  # the second entity is nowhere
    scores, cells = best_places(torch.zeros(1, 1, 1, 2), masks, torch.zeros(1, 2).long(), 7)
    assert scores[0, 0].tolist() == [0.5, 0.5, 0, 0, 0, 0, 0]
    assert scores[0, 1].sum() == 0
    assert cells.amax() <= 1


def test_regions_need_half_a_cell() -> None:
    masks = torch.zeros(1, 2, 4, 4)
    masks[0, 0, :2, :2] = torch.tensor([[1.0, 1.0], [0.0, 0.0]])
    masks[0, 1, 2:, 2:] = torch.tensor([[1.0, 0.75], [0.0, 0.0]])
    assert region_map(masks, (2, 2)).tolist() == [[[[0.5, 0], [0, 0]], [[0, 0], [0, 0]]]]


def test_all_pairs_are_chosen_or_as_many_as_fit() -> None:
    pairs = torch.tensor([[True, False, True, True], [False] * 4])
    values = torch.arange(8.0).reshape(2, 4)
    seeds = torch.tensor([5, 6])
    every = choose(pairs, seeds, 0)
    assert every.valid.tolist() == [[True] * 3, [False] * 3]
    assert sorted(every.pick(values)[0].tolist()) == [0, 2, 3]
    two = choose(pairs, seeds, 2)
    assert two.valid.tolist() == [[True] * 2, [False] * 2]
    assert set(two.pick(values)[0].tolist()) < {0.0, 2.0, 3.0}
    alone = choose(pairs[:1], seeds[:1], 2)
    assert torch.equal(alone.index, two.index[:1])  # the other images do not matter
    drawn = {tuple(sorted(choose(pairs, seeds + n, 2).index[0].tolist())) for n in range(40)}
    assert drawn == {(0, 2), (0, 3), (2, 3)}
    nothing = choose(torch.zeros(2, 4, dtype=torch.bool), seeds, 0)
    assert nothing.index.shape == (2, 1)
    assert not nothing.valid.any()


def test_dice_by_hand() -> None:
    found = torch.tensor([[0.5, 1.0], [0.0, 0.0]])
    truth = torch.tensor([[1.0, 0.5], [0.0, 0.0]])
    # 2·(0.5 + 0.5) / (0.25 + 1 + 1 + 0.25)
    assert float(dice_losses(found, truth)) == pytest.approx(1 - 2 / 2.5)
    assert float(dice_losses(truth, truth)) == pytest.approx(0)
    assert float(dice_losses(torch.zeros(2, 2), torch.zeros(2, 2))) == 1
