"""The detection head, shared by all levels: entityness, centerness, localisation, kernels."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from entitybench.baselines.entity.config import Head as HeadConfig

_GROUPS = 32
_PRIOR = 0.01


class HeadOutputs(NamedTuple):
    """Outputs of L locations, in the order of `Grid`.

    Attributes:
        entityness: `(B, L, K)` logits; K is 1 but for class-specific models.
        centerness: `(B, L)` logits.
        distances: `(B, L, 4)` to the box's left, top, right and bottom, in strides, ≥ 0.
        kernels: `(B, L, D)` parameters of the dynamic mask head; D is 0 without masks.
    """

    entityness: Tensor
    centerness: Tensor
    distances: Tensor
    kernels: Tensor


class Head(nn.Module):
    """Two towers and four outputs.

    Args:
        channels: Of the pyramid.
        num_levels: Levels; each scales its distances by a parameter of its own.
        num_classes: 1, or the classes of a class-specific model.
        num_kernel_parameters: Of the dynamic mask head, 0 for none.
        config: Depths and switches.
    """

    def __init__(
        self,
        channels: int,
        num_levels: int,
        num_classes: int,
        num_kernel_parameters: int,
        config: HeadConfig,
    ) -> None:
        super().__init__()
        self.entity_tower = _tower(channels, config.tower_depth)
        self.box_tower = _tower(channels, config.tower_depth)
        self.entityness = nn.Conv2d(channels, num_classes, 3, 1, 1)
        self.centerness = nn.Conv2d(channels, 1, 3, 1, 1, bias=config.output_bias)
        self.distances = nn.Conv2d(channels, 4, 3, 1, 1, bias=config.output_bias)
        self.scales = nn.Parameter(torch.ones(num_levels))
        self.kernel = KernelBranch(channels, num_kernel_parameters, config)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        if self.entityness.bias is not None:
            nn.init.constant_(self.entityness.bias, -math.log((1 - _PRIOR) / _PRIOR))

    def forward(self, levels: Iterable[Tensor]) -> HeadOutputs:
        """Return the outputs of all locations."""
        parts = [
            self._level(features, scale)
            for features, scale in zip(levels, self.scales, strict=True)
        ]
        entityness, centerness, distances, kernels = (
            torch.cat([part.flatten(2) for part in kind], dim=2).transpose(1, 2)
            for kind in zip(*parts, strict=True)
        )
        return HeadOutputs(entityness, centerness[..., 0], distances, kernels)

    def _level(self, features: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        box = self.box_tower(features)
        return (
            self.entityness(self.entity_tower(features)),
            self.centerness(box),
            functional.relu(self.distances(box).float() * scale),
            self.kernel(box),
        )


class KernelBranch(nn.Module):
    """Generates the parameters of each location's dynamic kernels, from the box tower.

    Args:
        channels: In, and inside.
        num_parameters: Out; 0 builds nothing.
        config: Depth, and whether it sees coordinates.
    """

    def __init__(self, channels: int, num_parameters: int, config: HeadConfig) -> None:
        super().__init__()
        self._active = num_parameters > 0
        self._coordinates = config.kernel_coordinates and config.kernel_depth > 0
        if not self._active:
            return
        layers: list[nn.Module] = []
        for number in range(config.kernel_depth):
            extra = 2 if self._coordinates and number == 0 else 0
            layers += [
                nn.Conv2d(channels + extra, channels, 3, 1, 1, bias=False),
                nn.GroupNorm(_GROUPS, channels),
                nn.ReLU(),
            ]
        self.tower = nn.Sequential(*layers)
        self.output = nn.Conv2d(channels, num_parameters, 3, 1, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Map `(B, C, h, w)` to `(B, D, h, w)`."""
        if not self._active:
            return features[:, :0]
        if self._coordinates:
            features = torch.cat([features, coordinates(features)], dim=1)
        kernels: Tensor = self.output(self.tower(features))
        return kernels


def _tower(channels: int, depth: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [
            nn.Conv2d(channels, channels, 3, 1, 1),
            nn.GroupNorm(_GROUPS, channels),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers)


def coordinates(features: Tensor) -> Tensor:
    """Return `(B, 2, h, w)` coordinates from -1 to 1: down, then across."""
    batch, _, height, width = features.shape
    y = torch.linspace(-1, 1, height, device=features.device, dtype=features.dtype)
    x = torch.linspace(-1, 1, width, device=features.device, dtype=features.dtype)
    both = torch.stack([y[:, None].expand(height, width), x.expand(height, width)])
    return both.expand(batch, 2, height, width)
