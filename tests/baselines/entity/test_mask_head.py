from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from entitybench.baselines.entity.config import Bank
from entitybench.baselines.entity.mask_branch import aligned_upsample
from entitybench.baselines.entity.mask_head import MaskHead, path_kinds

CHANNELS, STRIDE = 8, 8


def slow_path(head: MaskHead, features: torch.Tensor, kernel: torch.Tensor, point: torch.Tensor,
              level_stride: float, kinds: tuple[bool, ...]) -> torch.Tensor:  # fmt: skip
    """One location, one path: lay out relative coordinates, then convolve three times."""
    height, width = features.shape[-2:]
    x = torch.arange(width) * STRIDE + STRIDE // 2
    y = torch.arange(height) * STRIDE + STRIDE // 2
    scale = 8 * level_stride
    dx = ((point[0] - x) / scale).expand(height, width)
    dy = ((point[1] - y) / scale)[:, None].expand(height, width)
    value = torch.cat([torch.stack([dx, dy]), features])[None]
    w0, w1, w2 = kernel[:80], kernel[80:144], kernel[144:152]
    b0, b1, b2 = kernel[152:160], kernel[160:168], kernel[168:]
    dynamic = [(w0.view(8, 10), b0), (w1.view(8, 8), b1), (w2.view(1, 8), b2)]
    for number, is_dynamic in enumerate(kinds):
        if is_dynamic:
            weight, bias = dynamic[number]
            value = functional.conv2d(value, weight[..., None, None], bias)
        else:
            layer = head.static[number]
            assert isinstance(layer, torch.nn.Conv2d)
            value = layer(value)
        if number < 2:
            value = functional.relu(value)
    return value[0, 0]


def test_every_path_equals_the_unfactorised_head() -> None:
    torch.manual_seed(0)
    head = MaskHead(CHANNELS, Bank())
    for layer in head.static:
        assert isinstance(layer, torch.nn.Conv2d)
        assert layer.bias is not None
        torch.nn.init.normal_(layer.weight, std=0.3)
        torch.nn.init.normal_(layer.bias)
    features = torch.randn(2, CHANNELS, 9, 13)
    kernels = torch.randn(2, 3, 169) * 0.5
    points = torch.rand(2, 3, 2) * 80
    strides = torch.tensor([[8.0, 16, 32], [64, 128, 8]])
    masks = head(features, kernels, points, strides, STRIDE, range(1, 8))
    assert sorted(masks) == [1, 2, 3, 4, 5, 6, 7]
    for path, found in masks.items():
        kinds = tuple(c == "1" for c in f"{path:03b}")
        for b in range(2):
            for k in range(3):
                expected = slow_path(
                    head, features[b], kernels[b, k], points[b, k], float(strides[b, k]), kinds
                )
                torch.testing.assert_close(found[b, k], expected, rtol=1e-4, atol=2e-5)


def test_static_kernels_have_1385_parameters_and_exist_only_where_needed() -> None:
    assert sum(p.numel() for p in MaskHead(8, Bank()).parameters()) == 1385
    last_only = Bank(weights=(0, 0, 0, 0, 0, 0, 1))
    assert list(MaskHead(8, last_only).parameters()) == []


def test_paths_are_named_as_in_the_paper() -> None:
    assert [path_kinds(r) for r in (1, 6, 7)] == [
        (False, False, True),
        (True, True, False),
        (True, True, True),
    ]
    assert path_kinds(1, "typeset") == (True, False, False)


@pytest.mark.parametrize("factor", [2, 4])
def test_aligned_upsample_reads_where_cells_lie(factor: int) -> None:
    coarse = torch.randn(1, 1, 5, 7)
    fine = aligned_upsample(coarse, factor)
    assert fine.shape == (1, 1, 5 * factor, 7 * factor)

    def read(row: float, column: float) -> float:
        row, column = min(max(row, 0), 4), min(max(column, 0), 6)
        r, c = min(int(row), 3), min(int(column), 5)
        p, q = row - r, column - c
        v = coarse[0, 0]
        upper = v[r, c] * (1 - q) + v[r, c + 1] * q
        lower = v[r + 1, c] * (1 - q) + v[r + 1, c + 1] * q
        return float(upper * (1 - p) + lower * p)

    for y in range(5 * factor):
        for x in range(7 * factor):
            expected = read((y - factor // 2) / factor, (x - factor // 2) / factor)
            assert fine[0, 0, y, x].item() == pytest.approx(expected, abs=1e-5)


def test_gradients_of_the_factorised_head() -> None:
    torch.manual_seed(1)
    head = MaskHead(2, Bank(weights=(1, 0, 0, 0, 0, 0, 1)))
    features = torch.randn(1, 2, 3, 3, requires_grad=True)
    kernels = torch.randn(1, 2, 4 * 2 + 4 + 2 + 2 + 2 + 1, requires_grad=True)
    points, strides = torch.rand(1, 2, 2) * 20, torch.tensor([[8.0, 16]])
    masks = head(features, kernels, points, strides, STRIDE, (1, 7))
    loss = sum(m.square().sum() for m in masks.values())
    assert isinstance(loss, torch.Tensor)
    analytic = torch.autograd.grad(loss, kernels)[0]
    step = 1e-2
    for place in (0, 5, 12, 18):
        moved = []
        for sign in (1, -1):
            shifted = kernels.detach().clone()
            shifted[0, 0, place] += sign * step
            out = head(features.detach(), shifted, points, strides, STRIDE, (1, 7))
            moved.append(sum(float(m.detach().square().sum()) for m in out.values()))
        numeric = (moved[0] - moved[1]) / (2 * step)
        assert analytic[0, 0, place].item() == pytest.approx(numeric, rel=0.02, abs=2e-3)
