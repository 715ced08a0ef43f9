from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch

from entitybench.baselines.batch import Batch
from entitybench.baselines.entity.assignment import assign, choose, random_keys
from entitybench.baselines.entity.config import Sampling
from entitybench.baselines.entity.grid import make_grid
from entitybench.baselines.regions import cells, measure, nearest_pixels
from entitybench.entity_map import EntityMap

MakeBatch = Callable[..., Batch]


def random_ids(seed: int, shape: tuple[int, int] = (96, 128), count: int = 6) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    ids = np.zeros(shape, dtype=np.int64)
    for number in range(1, count + 1):
        y, x = rng.integers(0, shape[0] - 8), rng.integers(0, shape[1] - 8)
        ids[y : y + rng.integers(2, 70), x : x + rng.integers(2, 90)] = number
    return torch.from_numpy(ids)


def test_regions_agree_with_the_entity_map() -> None:
    ids = torch.stack([random_ids(0), random_ids(1)])
    regions = measure(ids, 7)
    for image in range(2):
        reference = EntityMap.from_array(ids[image].numpy(), entities=range(1, 8))
        assert regions.areas[image].tolist() == reference.areas[1:].tolist()
        for g in range(7):
            assert bool(regions.present[image, g]) == (reference.areas[g + 1] > 0)
            if regions.present[image, g]:
                x, y, width, height = reference.boxes[g + 1]
                assert regions.boxes[image, g].tolist() == [x, y, x + width, y + height]
                np.testing.assert_allclose(
                    regions.centres[image, g], reference.mass_centres[g + 1], rtol=1e-6
                )


def test_nearest_pixels_lie_in_the_mask_of_a_ring() -> None:
    ids = torch.zeros(1, 9, 9, dtype=torch.int64)
    ids[0, 1:8, 1:8] = 1
    ids[0, 3:6, 3:6] = 0
    centre = measure(ids, 1).centres
    assert centre[0, 0].tolist() == [4, 4]  # outside the mask
    assert nearest_pixels(ids, centre)[0, 0].tolist() == [4, 2]  # the first of four in row order
    assert nearest_pixels(torch.zeros_like(ids), centre).isnan().all()


def test_cells_cut_a_box_into_nine() -> None:
    ids = torch.ones(1, 6, 9, dtype=torch.int64) * 2
    pieces = cells(ids, measure(ids, 2))[0]
    assert pieces[0].tolist() == [10, 10, 10, 11, 11, 11, 12, 12, 12]
    assert pieces[:, 0].tolist() == [10, 10, 13, 13, 16, 16]


def slow_assign(
    ids: np.ndarray, shapes: tuple[tuple[int, int], ...]
) -> dict[tuple[int, int, int], int]:
    """The rule, location by location and entity by entity; (level, i, j) → entity."""
    owner = {}
    for number, (height, width) in enumerate(shapes):
        stride = 8 * 2**number
        low = -1 if number == 0 else 8 * stride / 2
        high = 8 * stride if number < len(shapes) - 1 else 1e8
        for i in range(height):
            for j in range(width):
                x, y = j * stride + stride // 2, i * stride + stride // 2
                best = None
                for g in np.unique(ids[ids > 0]):
                    ys, xs = np.nonzero(ids == g)
                    x0, y0, x1, y1 = xs.min(), ys.min(), xs.max() + 1, ys.max() + 1
                    cx, cy, r = xs.mean(), ys.mean(), 1.5 * stride
                    inside = max(cx - r, x0) < x < min(cx + r, x1)
                    inside &= max(cy - r, y0) < y < min(cy + r, y1)
                    reach = max(x - x0, y - y0, x1 - x, y1 - y)
                    size = (x1 - x0) * (y1 - y0)
                    if inside and low <= reach <= high and (best is None or size < best[0]):
                        best = (size, int(g))
                if best:
                    owner[number, i, j] = best[1]
    return owner


@pytest.mark.parametrize("seed", range(4))
def test_assignment_equals_the_rule_in_loops(seed: int, make_batch: MakeBatch) -> None:
    ids = random_ids(seed)
    shapes = ((12, 16), (6, 8), (3, 4))
    grid = make_grid(shapes, 3, 8.0, torch.device("cpu"))
    found = assign(make_batch(ids[None], 8), grid, Sampling())
    expected = slow_assign(ids.numpy(), shapes)
    assert expected
    place, owner = 0, {}
    for number, (height, width) in enumerate(shapes):
        for i in range(height):
            for j in range(width):
                if found.positive[0, place]:
                    owner[number, i, j] = int(found.entity[0, place]) + 1
                    left, top, right, bottom = found.distances[0, place].tolist()
                    centerness = (
                        min(left, right) / max(left, right) * min(top, bottom) / max(top, bottom)
                    ) ** 0.5
                    assert float(found.centerness[0, place]) == pytest.approx(centerness, rel=1e-5)
                else:
                    assert found.centerness[0, place] == 0
                place += 1
    assert owner == expected


def test_a_mass_centre_at_zero_has_positives(make_batch: MakeBatch) -> None:
    """The released code gives the whole image none if the first centre's x is exactly 0."""
    ids = torch.zeros(1, 64, 64, dtype=torch.int64)
    ids[0, :, 0] = 1
    ids[0, 20:44, 20:44] = 2
    found = assign(make_batch(ids), make_grid(((8, 8),), 3, 8.0, torch.device("cpu")), Sampling())
    assert found.positive.any()


def test_nine_points_reach_further_than_one(make_batch: MakeBatch) -> None:
    ids = torch.ones(1, 64, 64, dtype=torch.int64)
    grid = make_grid(((8, 8),), 3, 16.0, torch.device("cpu"))
    batch = make_batch(ids)
    one = assign(batch, grid, Sampling())
    nine = assign(batch, grid, Sampling(stuff="nine_points"))
    assert one.positive.sum() == 9
    assert nine.positive.sum() == 64
    as_thing = dataclasses.replace(batch, things=torch.ones(1, 1, dtype=torch.bool))
    assert assign(as_thing, grid, Sampling(stuff="nine_points")).positive.sum() == 9


def test_choice_is_uniform_seeded_and_bounded(make_batch: MakeBatch) -> None:
    ids = torch.ones(2, 64, 64, dtype=torch.int64)
    ids[1, :, 20:] = 0
    grid = make_grid(((8, 8),), 3, 16.0, torch.device("cpu"))
    batch = make_batch(ids)
    targets = assign(batch, grid, Sampling(radius=9))
    assert targets.positive.sum(1).tolist() == [64, 16]
    per_image = choose(targets, batch.seeds, Sampling(per_image=10, scope="image"))
    assert per_image.valid.sum(1).tolist() == [10, 10]
    whole = choose(targets, batch.seeds, Sampling(per_image=20, scope="batch"))
    assert whole.valid.sum() == 40
    assert whole.index.shape[1] == whole.valid.sum(1).max()
    again = choose(targets, batch.seeds, Sampling(per_image=20, scope="batch"))
    assert torch.equal(whole.index, again.index)
    everything = choose(targets, batch.seeds, Sampling(per_image=120, scope="batch"))
    assert everything.valid.sum() == 80


def test_random_keys_are_spread_and_differ_by_seed() -> None:
    keys = random_keys(torch.arange(50), 1000)
    assert keys.min() >= 0
    assert keys.max() < 1
    assert abs(float(keys.mean()) - 0.5) < 0.005
    assert abs(float(torch.corrcoef(keys[:2])[0, 1])) < 0.12
    assert len(set(keys.flatten().tolist())) > 49_000
