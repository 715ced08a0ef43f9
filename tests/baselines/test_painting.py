from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from entitybench.baselines import painting
from entitybench.baselines.entity.mask_branch import aligned_upsample
from entitybench.baselines.model import MaskCandidates
from entitybench.baselines.painting import enlargement, full_masks, paint

CANVAS, INNER, OUTER = (32, 48), (30, 44), (41, 67)


def candidates(count: int, seed: int = 0) -> MaskCandidates:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, count, 4, 6, generator=generator)
    masks = functional.interpolate(coarse, size=(8, 12), mode="bilinear")
    scores = torch.rand(1, count, generator=generator).sort(descending=True).values
    valid = torch.rand(1, count, generator=generator) < 0.9
    boxes = torch.zeros(1, count, 4)
    return MaskCandidates(scores, valid, boxes, boxes[..., 0].long(), masks, stride=4)


def slow_masks(found: MaskCandidates) -> torch.Tensor:
    """The two bilinear steps one after the other, as the released code takes them."""
    canvas = aligned_upsample(found.masks, 4)[..., : INNER[0], : INNER[1]]
    return functional.interpolate(canvas, size=OUTER, mode="bilinear", align_corners=False)[0]


def test_enlargement_equals_two_bilinear_steps() -> None:
    found = candidates(5)
    rows = torch.from_numpy(enlargement(8, 4, 2, INNER[0], OUTER[0]))
    columns = torch.from_numpy(enlargement(12, 4, 2, INNER[1], OUTER[1]))
    torch.testing.assert_close(
        rows @ found.masks[0] @ columns.T, slow_masks(found), rtol=1e-5, atol=1e-5
    )


def test_cells_in_the_middle_of_their_pixels() -> None:
    """An offset of 1.5 is what `interpolate` means by a cell of four pixels."""
    masks = candidates(3).masks[0]
    rows = torch.from_numpy(enlargement(8, 4, 1.5, 32, 32))
    columns = torch.from_numpy(enlargement(12, 4, 1.5, 48, 48))
    expected = functional.interpolate(masks[None], size=CANVAS, mode="bilinear")[0]
    torch.testing.assert_close(rows @ masks @ columns.T, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("at_once", [1, 3, 32])
@pytest.mark.parametrize("rescore", [False, True])
def test_painting_equals_the_loop(
    at_once: int, rescore: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(painting, "_AT_ONCE", at_once)
    for seed in range(8):
        found = candidates(9, seed)
        soft = slow_masks(found).numpy()
        canvas = np.zeros(OUTER, dtype=np.int64)
        for k in reversed(range(9)):  # the best last, on top
            if found.valid[0, k]:
                canvas[soft[k] > 0.5] = k + 1
        painted = paint(found, 0, INNER, OUTER, rescore=rescore)
        assert np.mean(painted.ids.numpy() != canvas) < 0.001  # a sum's last bit at exactly .5
        for k in range(9):
            own = painted.ids.numpy() == k + 1
            assert bool(painted.kept[k]) == bool(own.any())
            if own.any():
                factor = soft[k][own].mean() if rescore else 1.0
                expected = float(found.scores[0, k]) * factor
                assert float(painted.scores[k]) == pytest.approx(expected, rel=1e-4)


def test_thin_entities_are_dropped_and_leave_void() -> None:
    masks = torch.zeros(1, 2, 8, 12)
    masks[0, 0, 3, :] = 1
    masks[0, 1, 5:8, 2:9] = 1
    found = MaskCandidates(
        torch.tensor([[0.9, 0.8]]),
        torch.ones(1, 2, dtype=torch.bool),
        torch.zeros(1, 2, 4),
        torch.zeros(1, 2, dtype=torch.int64),
        masks,
        stride=1,
    )
    painted = paint(found, 0, (8, 12), (8, 12), least_side=2)
    assert painted.kept.tolist() == [False, True]
    assert painted.ids[3].sum() == 0
    entity_map, scores, _ = painted.to_host()
    assert entity_map.areas.tolist() == [96 - 21, 21]
    assert scores == pytest.approx([0.8])


def test_no_detection_is_an_empty_map() -> None:
    found = candidates(3)
    nobody = MaskCandidates(
        found.scores, torch.zeros_like(found.valid), found.boxes, found.labels, found.masks, 4
    )
    entity_map, scores, _ = paint(nobody, 0, INNER, OUTER).to_host()
    assert entity_map.num_entities == 0
    assert scores.size == 0
    assert not full_masks(nobody, 0, INNER, OUTER).any()
