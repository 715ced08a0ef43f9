from __future__ import annotations

import math

import torch
from torch.nn import functional

from entitybench.baselines.entity.deformable import ModulatedDeformConv, deformable_columns


def read(image: torch.Tensor, y: float, x: float) -> float:
    """Bilinear, zero outside."""
    total = 0.0
    for row in (math.floor(y), math.floor(y) + 1):
        for column in (math.floor(x), math.floor(x) + 1):
            if 0 <= row < image.shape[0] and 0 <= column < image.shape[1]:
                weight = (1 - abs(y - row)) * (1 - abs(x - column))
                total += weight * float(image[row, column])
    return total


def test_equals_the_loop() -> None:
    torch.manual_seed(0)
    for stride in (1, 2):
        conv = ModulatedDeformConv(2, 3, 3, stride, 1).double()
        torch.nn.init.normal_(conv.offset.weight, std=0.5)
        features = torch.randn(1, 2, 6, 7, dtype=torch.float64)
        found = conv(features).detach()
        weights = conv.weight.detach()
        control = functional.conv2d(
            features, conv.offset.weight, conv.offset.bias, stride=stride, padding=1
        )[0].detach()
        for i in range(found.shape[2]):
            for j in range(found.shape[3]):
                for out in range(3):
                    expected = 0.0
                    for tap in range(9):
                        y = i * stride - 1 + tap // 3 + float(control[2 * tap, i, j])
                        x = j * stride - 1 + tap % 3 + float(control[2 * tap + 1, i, j])
                        strength = 1 / (1 + math.exp(-float(control[18 + tap, i, j])))
                        for channel in range(2):
                            weight = float(weights[out, channel, tap // 3, tap % 3])
                            expected += weight * strength * read(features[0, channel], y, x)
                    assert abs(float(found[0, out, i, j]) - expected) < 1e-9


def test_starts_as_half_the_plain_convolution() -> None:
    conv = ModulatedDeformConv(3, 4)
    features = torch.randn(2, 3, 5, 6)
    plain = functional.conv2d(features, conv.weight, padding=1)
    torch.testing.assert_close(conv(features), plain / 2, rtol=1e-4, atol=1e-4)


def test_gradients() -> None:
    torch.manual_seed(2)
    features = torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    offsets = torch.randn(1, 18, 4, 4, dtype=torch.float64).mul(0.4).add(0.1).requires_grad_()

    def columns(f: torch.Tensor, o: torch.Tensor) -> torch.Tensor:
        return deformable_columns(f, o, 3, 1, 1)

    assert torch.autograd.gradcheck(columns, (features, offsets))
