from __future__ import annotations

import math

import pytest
import torch

from entitybench.baselines.entity.losses import dice_loss, focal_sum, giou_loss


def test_focal_by_hand() -> None:
    p = 1 / (1 + math.exp(-0.3))
    expected = -0.25 * (1 - p) ** 2 * math.log(p) - 0.75 * p**2 * math.log(1 - p)
    logits, targets = torch.tensor([0.3, 0.3]), torch.tensor([1.0, 0.0])
    assert float(focal_sum(logits, targets)) == pytest.approx(expected, rel=1e-5)


def test_giou_by_hand() -> None:
    # boxes around (0, 0): [-1, -1, 3, 1] of area 8 and [-1, -1, 1, 3] of area 8, sharing 4
    a, b = torch.tensor([1.0, 1, 3, 1]), torch.tensor([1.0, 1, 1, 3])
    iou = (4 + 1) / (12 + 1)
    assert float(giou_loss(a, b)) == pytest.approx(1 - (iou - (16 - 12) / 16), rel=1e-6)
    assert float(giou_loss(a, a)) == 0.0


@pytest.mark.parametrize("loss", [focal_sum, dice_loss])
def test_gradients(loss: object) -> None:
    torch.manual_seed(0)
    targets = (torch.rand(2, 3, 3) > 0.5).double()
    start = torch.randn(2, 3, 3, dtype=torch.float64, requires_grad=True)

    def run(x: torch.Tensor) -> torch.Tensor:
        assert callable(loss)
        value = loss(x if loss is focal_sum else x.sigmoid(), targets)
        assert isinstance(value, torch.Tensor)
        return value

    assert torch.autograd.gradcheck(run, (start,))


def test_giou_gradients() -> None:
    torch.manual_seed(0)
    start = (torch.rand(4, 4, dtype=torch.float64) * 5 + 0.5).requires_grad_()
    targets = torch.rand(4, 4, dtype=torch.float64) * 5 + 0.5
    assert torch.autograd.gradcheck(lambda x: giou_loss(x, targets), (start,))
