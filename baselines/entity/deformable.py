"""Modulated deformable convolution (DCNv2) in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


def deformable_columns(
    features: Tensor, offsets: Tensor, size: int, stride: int, padding: int
) -> Tensor:
    """Sample the inputs of every tap of a square kernel at displaced positions.

    Args:
        features: `(B, C, H, W)`; zero beyond its border, bilinear between pixels.
        offsets: `(B, 2·size², h, w)` displacements in pixels: y then x of each tap.
        size: Side of the kernel.
        stride: Between outputs.
        padding: On each side.

    Returns:
        `(B, C, size², h, w)` sampled inputs.
    """
    batch, _, height, width = features.shape
    rows, columns = offsets.shape[-2:]
    device = features.device
    taps = torch.arange(size * size, device=device)
    y = torch.arange(rows, device=device)[:, None] * stride - padding
    x = torch.arange(columns, device=device)[None, :] * stride - padding
    precise = torch.promote_types(offsets.dtype, torch.float32)
    moved = offsets.reshape(batch, size * size, 2, rows, columns).to(precise)
    y = y + (taps // size)[:, None, None] + moved[:, :, 0]
    x = x + (taps % size)[:, None, None] + moved[:, :, 1]
    grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1)
    grid = grid.reshape(batch, size * size * rows, columns, 2).to(features.dtype)
    sampled = functional.grid_sample(
        features, grid, mode="bilinear", padding_mode="zeros", align_corners=False
    )
    return sampled.reshape(batch, -1, size * size, rows, columns)


class ModulatedDeformConv(nn.Module):
    """A square convolution whose taps move and are weighed, by a convolution of its own.

    Starts as half the plain convolution: no displacement, every weight sigmoid(0).

    Args:
        channels: In.
        out_channels: Out.
        size: Side of the kernel.
        stride: Between outputs.
        padding: On each side.
    """

    def __init__(
        self, channels: int, out_channels: int, size: int = 3, stride: int = 1, padding: int = 1
    ) -> None:
        super().__init__()
        self.size, self.stride, self.padding = size, stride, padding
        self.weight = nn.Parameter(torch.empty(out_channels, channels, size, size))
        self.offset = nn.Conv2d(channels, 3 * size * size, size, stride, padding)
        nn.init.kaiming_uniform_(self.weight, nonlinearity="relu")
        nn.init.zeros_(self.offset.weight)
        if self.offset.bias is not None:
            nn.init.zeros_(self.offset.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Convolve `(B, C, H, W)`."""
        taps = self.size * self.size
        moves, strength = self.offset(features).split([2 * taps, taps], dim=1)
        columns = deformable_columns(features, moves, self.size, self.stride, self.padding)
        columns = columns * strength.sigmoid()[:, None].to(columns.dtype)
        return torch.einsum("bckhw,ock->bohw", columns, self.weight.flatten(2).to(columns.dtype))
