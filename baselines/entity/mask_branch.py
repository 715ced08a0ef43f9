"""The mask branch: fine features that all entities of an image share."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from entitybench.baselines.entity.config import Mask as MaskConfig

_GROUPS = 32


class MaskBranch(nn.Module):
    """A few pyramid levels, summed at the finest and refined.

    Args:
        channels: Of the pyramid.
        config: Levels, channels and norm.
    """

    def __init__(self, channels: int, config: MaskConfig) -> None:
        super().__init__()
        self._levels = range(config.level, config.level + config.levels)
        inner = config.branch_channels
        self.refine = nn.ModuleDict(
            {str(k): _unit(channels, inner, config.norm) for k in self._levels}
        )
        tower = [_unit(inner, inner, config.norm) for _ in range(config.branch_depth)]
        self.tower = nn.Sequential(*tower, nn.Conv2d(inner, config.channels, 1))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, levels: Mapping[int, Tensor]) -> Tensor:
        """Return `(B, channels, h, w)` mask features."""
        first, *rest = self._levels
        merged: Tensor = self.refine[str(first)](levels[first])
        for level in rest:
            coarse = self.refine[str(level)](levels[level])
            merged = merged + aligned_upsample(coarse, 2 ** (level - first))
        features: Tensor = self.tower(merged)
        return features


def _unit(channels: int, out_channels: int, norm: str) -> nn.Sequential:
    layer: nn.Module = nn.BatchNorm2d(out_channels)
    if norm == "group":
        layer = nn.GroupNorm(_GROUPS, out_channels)
    return nn.Sequential(nn.Conv2d(channels, out_channels, 3, 1, 1, bias=False), layer, nn.ReLU())


def aligned_upsample(features: Tensor, factor: int) -> Tensor:
    """Enlarge so that coarse cell i lies at fine position `factor·i + factor//2`.

    That is where the locations of a level lie, so nothing shifts between levels. Between cells
    it is bilinear; beyond the outermost cells their value is repeated.

    Args:
        features: `(..., h, w)`.
        factor: 1, or even.
    """
    if factor == 1:
        return features
    return _along(_along(features, factor, -1), factor, -2)


def _along(features: Tensor, factor: int, dim: int) -> Tensor:
    length = features.shape[dim]
    last = features.narrow(dim, length - 1, 1)
    before = torch.cat([features.narrow(dim, 0, 1), features.narrow(dim, 0, length - 1)], dim)
    after = torch.cat([features.narrow(dim, 1, length - 1), last], dim)
    phases = []
    for position in range(factor):
        shift = (position - factor // 2) / factor
        other = before if shift < 0 else after
        phases.append(torch.lerp(features, other, abs(shift)) if shift else features)
    return torch.stack(phases, dim % features.dim() + 1).flatten(
        dim % features.dim(), dim % features.dim() + 1
    )
