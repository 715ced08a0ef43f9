from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from entitybench.baselines.augmentation import stack, to_device
from entitybench.baselines.placement import (
    Placement,
    canvas_for,
    draw_placement,
    resized_to,
    whole_placement,
)
from entitybench.baselines.settings import Data
from entitybench.baselines.source import Decoded

CPU = torch.device("cpu")


def decoded(height: int, width: int, seed: int = 0) -> Decoded:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    pixels = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR))
    ids = np.kron(rng.integers(0, 4, (2, 3)), np.ones((40, 40), int))[:height, :width]
    return Decoded(pixels, ids.astype(np.int32), np.array([True, False, True]), np.array([4, 5, 6]))


def plain(resized: tuple[int, int], **changes: object) -> Placement:
    values: dict[str, object] = {
        "resized": resized, "corner": (0, 0), "visible": resized, "mirrored": False,
        "contrast": 1.0, "brightness": 0.0, "seed": 7,
    }  # fmt: skip
    return Placement(**{**values, **changes})  # type: ignore[arg-type]


def test_an_image_in_its_own_size_is_unchanged() -> None:
    image = decoded(48, 70)
    batch = to_device(stack([image], [plain((48, 70))], (64, 96), 5), CPU)
    found = batch.images.pixels[0].permute(1, 2, 0)
    np.testing.assert_allclose(found[:48, :70], image.pixels, atol=0.01)
    assert torch.equal(batch.ids[0, :48, :70], torch.from_numpy(image.ids).long())
    assert batch.images.pixels[0, :, 48:].abs().sum() == 0
    assert batch.ids[0, :, 70:].sum() == 0
    assert batch.images.sizes.tolist() == [[48, 70]]
    assert batch.things.tolist() == [[True, False, True, False, False]]
    assert batch.labels.tolist() == [[4, 5, 6, 0, 0]]
    assert batch.seeds.tolist() == [7]


def test_a_mirror_image_is_mirrored_within_its_visible_part() -> None:
    image = decoded(48, 70)
    batch = to_device(stack([image], [plain((48, 70), mirrored=True)], (64, 96), 3), CPU)
    assert torch.equal(batch.ids[0, :48, :70], torch.from_numpy(image.ids[:, ::-1].copy()).long())


def test_enlarging_is_pillows_bilinear_and_ids_follow() -> None:
    image = decoded(40, 60)
    batch = to_device(stack([image], [plain((80, 150))], (96, 160), 3), CPU)
    expected = Image.fromarray(image.pixels).resize((150, 80), Image.Resampling.BILINEAR)
    found = batch.images.pixels[0, :, :80, :150].permute(1, 2, 0).numpy()
    assert np.abs(found - np.asarray(expected, dtype=float)).max() < 1.5  # Pillow rounds
    ids = Image.fromarray(image.ids.astype(np.uint8)).resize((150, 80), Image.Resampling.NEAREST)
    assert np.mean(batch.ids[0, :80, :150].numpy() != np.asarray(ids)) < 0.01


def test_a_crop_shows_the_right_corner() -> None:
    image = decoded(60, 80)
    crop = plain((60, 80), corner=(11, 23), visible=(32, 32))
    batch = to_device(stack([image], [crop], (32, 32), 3), CPU)
    assert torch.equal(batch.ids[0], torch.from_numpy(image.ids[11:43, 23:55].copy()).long())


def test_images_of_one_batch_do_not_touch() -> None:
    small, large = decoded(30, 40, 1), decoded(64, 90, 2)
    together = to_device(
        stack([small, large], [plain((45, 60)), plain((64, 90))], (64, 96), 3), CPU
    )
    alone = to_device(stack([small], [plain((45, 60))], (64, 96), 3), CPU)
    torch.testing.assert_close(together.images.pixels[0], alone.images.pixels[0], atol=0.02, rtol=0)
    assert torch.equal(together.ids[0], alone.ids[0])


def test_draws_are_seeded_and_within_bounds() -> None:
    data = Data(short_sides=(64, 96), longest=200, jitter=(0.5, 2.0), crop=80, flip=0.5)
    draws = [draw_placement((60, 100), data, [1, 2, k]) for k in range(200)]
    assert draws == [draw_placement((60, 100), data, [1, 2, k]) for k in range(200)]
    assert 60 < sum(p.mirrored for p in draws) < 140
    for p in draws:
        assert p.visible == (min(p.resized[0], 80), min(p.resized[1], 80))
        for side in (0, 1):
            assert 0 <= p.corner[side] <= p.resized[side] - p.visible[side]
    assert canvas_for(draws, data, 32) == (96, 96)


def test_canvas_sizes() -> None:
    data = Data()
    assert resized_to((480, 640), 800, 1333) == (800, 1067)
    wide, tall = whole_placement((400, 1000), data), whole_placement((640, 480), data)
    assert canvas_for([wide], data, 32) == (544, 1344)
    assert canvas_for([wide, tall], data, 32) == (1088, 1344)
    fixed = Data(fixed_canvas=True)
    assert canvas_for([wide], fixed, 32) == (800, 1344)
    assert canvas_for([tall], fixed, 32) == (1344, 800)


@pytest.mark.parametrize("size", [(1, 500), (3, 3)])
def test_odd_shapes_have_a_placement(size: tuple[int, int]) -> None:
    placement = whole_placement(size, Data(test_short_side=64, longest=128))
    assert min(placement.resized) >= 1
