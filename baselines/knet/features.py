"""The semantic pyramid: all levels at one stride, as features to place and to name entities."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

_GROUPS = 32
_LEVELS = (2, 3, 4, 5)
_LONGEST_WAVE = 10_000


class Unit(nn.Sequential):
    """Convolution without a bias, group norm, ReLU.

    Args:
        channels: In.
        out_channels: Out.
        size: Side of the kernel.
        stride: Between outputs.
    """

    def __init__(self, channels: int, out_channels: int, size: int, stride: int = 1) -> None:
        convolution = nn.Conv2d(channels, out_channels, size, stride, size // 2, bias=False)
        nn.init.normal_(convolution.weight, std=0.01)
        super().__init__(convolution, nn.GroupNorm(_GROUPS, out_channels), nn.ReLU())


class SemanticPyramid(nn.Module):
    """P2…P5, each convolved and doubled until it has the size of one of them, summed.

    P2 and P3 pass one convolution (P2's has stride 2 if the sum has P3's size), P4 two and P5
    three; P5 carries the position.

    Args:
        channels: In, inside and out.
        output_level: 2 or 3: which of them the sum is as large as.
    """

    def __init__(self, channels: int, output_level: int) -> None:
        super().__init__()
        self._output_level = output_level
        self.levels = nn.ModuleList(
            nn.ModuleList(_units(channels, level, output_level)) for level in _LEVELS
        )
        self.place = nn.Sequential(Unit(channels, channels, 1), Unit(channels, channels, 1))
        self.name = nn.Sequential(Unit(channels, channels, 1), Unit(channels, channels, 1))

    def forward(self, pyramid: Mapping[int, Tensor]) -> tuple[Tensor, Tensor]:
        """Return two `(B, channels, h, w)` maps: to place and to name entities."""
        summed: Tensor | None = None
        for level, units in zip(_LEVELS, self.levels, strict=True):
            features = pyramid[level]
            if level == _LEVELS[-1]:
                features = features + sine_positions(features)
            features = _doubled_between(features, units, level - self._output_level)  # type: ignore[arg-type]  # a list
            summed = features if summed is None else summed + features
        return self.place(summed), self.name(summed)


def _units(channels: int, level: int, output_level: int) -> list[Unit]:
    stride = 2 if level < output_level else 1
    return [Unit(channels, channels, 3, stride) for _ in range(max(1, level - _LEVELS[0]))]


def _doubled_between(features: Tensor, units: Sequence[nn.Module], times: int) -> Tensor:
    for number, unit in enumerate(units):
        features = unit(features)
        if number < times:
            features = doubled(features)
    return features


def doubled(features: Tensor) -> Tensor:
    """Return features with twice the sides, bilinear, corners not aligned."""
    return functional.interpolate(features, scale_factor=2.0, mode="bilinear", align_corners=False)


def sine_positions(features: Tensor) -> Tensor:
    """Return `(C, h, w)` sines and cosines of the place: half the channels for y, half for x.

    A place runs from just above 0 to 2π. Pairs of channels hold the sine and the cosine, at wave
    lengths that grow geometrically.
    """
    channels, height, width = features.shape[1:]
    half = channels // 2
    pair = torch.arange(half, device=features.device) // 2
    wave = float(_LONGEST_WAVE) ** (2 * pair / half)
    down, across = (_waves(length, wave) for length in (height, width))
    both = [
        down[:, None].expand(height, width, half),
        across[None].expand(height, width, half),
    ]
    return torch.cat(both, dim=-1).permute(2, 0, 1).to(features.dtype)


def _waves(length: int, wave: Tensor) -> Tensor:
    """Return `(length, half)`."""
    place = torch.arange(1, length + 1, device=wave.device) / (length + 1e-6) * 2 * math.pi
    angle = place[:, None] / wave
    even = torch.arange(len(wave), device=wave.device) % 2 == 0
    return torch.where(even, angle.sin(), angle.cos())
