"""The layers of PanopticFCN behind the feature pyramid."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from entitybench.baselines.entity.deformable import ModulatedDeformConv
from entitybench.baselines.entity.head import coordinates
from entitybench.baselines.panopticfcn.config import Features as FeaturesConfig
from entitybench.baselines.panopticfcn.config import Head as HeadConfig

_GROUPS = 32
_FINEST, _COARSEST = 2, 5
_BIAS = -2.19  # a sigmoid of about 0.1


class Unit(nn.Module):
    """A 3×3 convolution and ReLU, with group norm or with a bias.

    Args:
        channels: In.
        out_channels: Out.
        norm: Whether it has a norm, and then no bias.
        deform: Whether its taps move.
    """

    def __init__(
        self, channels: int, out_channels: int, *, norm: bool = True, deform: bool = False
    ) -> None:
        super().__init__()
        self.convolution: nn.Module
        if deform:
            self.convolution = ModulatedDeformConv(channels, out_channels)
        else:
            self.convolution = nn.Conv2d(channels, out_channels, 3, 1, 1, bias=False)
        self.norm = nn.GroupNorm(_GROUPS, out_channels) if norm else None
        self.bias = None if norm else nn.Parameter(torch.zeros(out_channels))

    def forward(self, features: Tensor) -> Tensor:
        """Map `(B, C, h, w)` to `(B, out_channels, h, w)`."""
        features = self.convolution(features)
        if self.norm is not None:
            features = self.norm(features)
        if self.bias is not None:
            features = features + self.bias.to(features.dtype)[:, None, None]
        return functional.relu(features)


def _tower(
    channels: int, inner: int, depth: int, *, norm: bool = True, deform: bool = False
) -> nn.Sequential:
    before = (channels, *[inner] * (depth - 1))
    return nn.Sequential(*(Unit(c, inner, norm=norm, deform=deform) for c in before))


def _with_coordinates(features: Tensor) -> Tensor:
    return torch.cat([features, coordinates(features)], dim=1)


class SemanticPyramid(nn.Module):
    """P2 to P5, each brought to stride 4 by convolutions and doublings, and summed.

    Args:
        channels: Of the pyramid.
        out_channels: Out.
    """

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.branches = nn.ModuleDict(
            {
                str(level): _tower(channels, out_channels, max(1, level - _FINEST))
                for level in range(_FINEST, _COARSEST + 1)
            }
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, levels: Mapping[int, Tensor]) -> Tensor:
        """Return `(B, out_channels, H/4, W/4)`."""
        total: Tensor | None = None
        for name, branch in self.branches.items():
            part = levels[int(name)]
            for unit in branch.children():
                part = unit(part)
                if int(name) > _FINEST:
                    part = functional.interpolate(part, scale_factor=2.0, mode="bilinear")
            total = part if total is None else total + part
        if total is None:
            msg = "there is no level to sum"
            raise ValueError(msg)
        return total


class PositionHead(nn.Module):
    """Where things have their centres, and where stuff lies.

    Args:
        channels: Of the pyramid.
        num_centres: Channels of the centre map: classes of things, 1 for an agnostic model.
        num_regions: Channels of the region map: all things, then classes of stuff; 0 for none.
        config: Depth and switches.
    """

    def __init__(
        self, channels: int, num_centres: int, num_regions: int, config: HeadConfig
    ) -> None:
        super().__init__()
        inner = config.channels
        self.tower = _tower(channels, inner, config.depth, deform=config.deform)
        self.centres = nn.Conv2d(inner, num_centres, 3, 1, 1)
        self.regions = nn.Conv2d(inner, num_regions, 3, 1, 1) if num_regions else None
        for output in (self.centres, self.regions):
            if output is not None and output.bias is not None:
                nn.init.normal_(output.weight, std=0.01)
                nn.init.constant_(output.bias, _BIAS)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits `(B, centres, h, w)` and `(B, regions, h, w)`."""
        features = self.tower(features)
        centres: Tensor = self.centres(features)
        regions = centres[:, :0] if self.regions is None else self.regions(features)
        return centres, regions


class KernelHead(nn.Module):
    """What an entity looks like, at every location; it sees coordinates.

    Args:
        channels: Of the pyramid.
        config: Depth and channels.
    """

    def __init__(self, channels: int, config: HeadConfig) -> None:
        super().__init__()
        self.tower = _tower(channels + 2, config.channels, config.depth)
        self.output = nn.Conv2d(config.channels, config.channels, 3, 1, 1)
        nn.init.normal_(self.output.weight, std=0.01)
        if self.output.bias is not None:
            nn.init.zeros_(self.output.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Map `(B, C, h, w)` to `(B, channels, h, w)`."""
        kernels: Tensor = self.output(self.tower(_with_coordinates(features)))
        return kernels


class FeatureEncoder(nn.Module):
    """From the semantic pyramid to the map that kernels are applied to; it sees coordinates.

    Args:
        config: Channels, depth and switches.
    """

    def __init__(self, config: FeaturesConfig) -> None:
        super().__init__()
        self.tower = _tower(
            config.semantic_channels + 2,
            config.channels,
            config.depth,
            norm=False,
            deform=config.deform,
        )

    def forward(self, features: Tensor) -> Tensor:
        """Map `(B, C, h, w)` to `(B, channels, h, w)`."""
        encoded: Tensor = self.tower(_with_coordinates(features))
        return encoded


class Generator(nn.Conv2d):
    """From what a location says of an entity to the kernel of a 1×1 convolution.

    Args:
        channels: In.
        out_channels: Out.
    """

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__(channels, out_channels, 1)
        nn.init.normal_(self.weight, std=0.01)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, values: Tensor) -> Tensor:
        """Map `(..., channels)` to `(..., out_channels)`."""
        return functional.linear(values, self.weight.flatten(1), self.bias)
