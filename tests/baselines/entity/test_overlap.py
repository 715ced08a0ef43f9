from __future__ import annotations

import math

import pytest
import torch

from entitybench.baselines.entity.losses import dice_loss
from entitybench.baselines.entity.overlap import clusters, representatives, suppressed


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_equals_the_loop_over_entities_and_pixels(activation: str) -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 5, 2, 3)
    entity = torch.tensor([[0, 0, 2, 2, 2], [1, 1, 0, 0, 0]])
    valid = torch.tensor([[True, True, True, True, False], [True, False, False, False, False]])
    ids = torch.tensor([[[1, 1, 0], [3, 3, 2]], [[2, 0, 1], [1, 2, 2]]])
    mean, count = representatives(logits, entity, valid, slots=3)
    assert count.tolist() == [[2, 0, 2], [0, 1, 0]]
    found = suppressed(mean, count > 0, ids[:, None] > 0, activation)
    for b in range(2):
        clusters = {g: [k for k in range(5) if valid[b, k] and entity[b, k] == g] for g in range(3)}
        for y in range(2):
            for x in range(3):
                q = {
                    g: sum(float(logits[b, k, y, x]) for k in ks) / len(ks)
                    for g, ks in clusters.items()
                    if ks
                }
                total = sum(math.exp(v) for v in q.values())
                for g in range(3):
                    expected = 0.0
                    if g in q and ids[b, y, x] > 0:
                        sigmoid = 1 / (1 + math.exp(-q[g]))
                        expected = math.exp(q[g]) / total if activation == "softmax" else sigmoid
                    assert float(found[b, g, y, x]) == pytest.approx(expected, abs=1e-5)


def test_clusters_by_first_sample_are_those_by_entity() -> None:
    torch.manual_seed(0)
    entity = torch.randint(0, 9, (3, 6))
    valid = torch.rand(3, 6) < 0.8
    logits = torch.randn(3, 6, 2, 2)
    by_entity, _ = representatives(logits, entity, valid, 9)
    cluster, owner = clusters(entity, valid, 9)
    assert owner.shape == (3, 6)
    by_sample, count = representatives(logits, cluster, valid, 6)
    for b in range(3):
        for c in range(6):
            if count[b, c] > 0:
                torch.testing.assert_close(by_sample[b, c], by_entity[b, owner[b, c]])
        expected = {int(e) for e, v in zip(entity[b], valid[b], strict=True) if v}
        found = [int(owner[b, c]) for c in range(6) if count[b, c] > 0]
        assert sorted(found) == sorted(expected)
    few, numbers = clusters(entity, valid, 4)
    assert torch.equal(few, entity)
    assert numbers.tolist() == [[0, 1, 2, 3]] * 3


def test_a_single_entity_wins_every_pixel() -> None:
    mean, count = representatives(
        torch.full((1, 1, 2, 2), -3.0), torch.tensor([[0]]), torch.tensor([[True]]), 1
    )
    owned = torch.tensor([[[[True, False], [True, True]]]])
    assert suppressed(mean, count > 0, owned, "softmax").tolist() == [[[[1, 0], [1, 1]]]]


def test_no_kernel_at_all_is_finite() -> None:
    mean, count = representatives(
        torch.randn(1, 2, 2, 2, requires_grad=True),
        torch.zeros(1, 2, dtype=torch.int64),
        torch.zeros(1, 2, dtype=torch.bool),
        3,
    )
    out = suppressed(mean, count > 0, torch.ones(1, 1, 2, 2, dtype=torch.bool), "softmax")
    assert out.abs().sum() == 0


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_descent_takes_pixels_from_all_but_their_owner(activation: str) -> None:
    """Twins that claim each other's pixels; soft-max moves them apart by equal steps."""
    ids = torch.tensor([[[1, 1, 2, 2, 0]]])
    own = ids[:, None] == torch.tensor([1, 2])[None, :, None, None]
    owned = ids[:, None] > 0
    has_kernel = torch.ones(1, 2, dtype=torch.bool)
    masks = torch.full((1, 2, 1, 5), 2.0, requires_grad=True)
    loss = dice_loss(suppressed(masks, has_kernel, owned, activation), own).sum()
    (slope,) = torch.autograd.grad(loss, masks)
    assert (slope[own] < 0).all()  # downhill, the owner's logit rises
    assert (slope[~own & owned] > 0).all()
    assert (slope[~owned.expand_as(slope)] == 0).all()  # void teaches nothing
    if activation == "softmax":
        torch.testing.assert_close(slope.sum(1), torch.zeros(1, 1, 5))

    optimiser = torch.optim.SGD([masks], lr=20.0)
    for _ in range(100):
        optimiser.zero_grad()
        loss = dice_loss(suppressed(masks, has_kernel, owned, activation), own).sum()
        torch.autograd.backward(loss)
        optimiser.step()
    assert torch.equal((masks > 0) & owned, own)


def test_dice_by_hand() -> None:
    p = torch.tensor([[[1.0, 0.5], [0.0, 0.0]]])
    g = torch.tensor([[[1.0, 1.0], [0.0, 1.0]]])
    assert float(dice_loss(p, g)) == pytest.approx(1 - 2 * 1.5 / (1.25 + 3), abs=1e-5)
