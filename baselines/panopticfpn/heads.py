"""The four heads on the pyramid: proposals, boxes, masks and the semantic branch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from entitybench.baselines.panopticfpn.boxes import RATIOS
from entitybench.baselines.panopticfpn.config import Heads

BOX_CELLS = 7
MASK_CELLS = 14
MASK_SIDE = 28
_GROUPS = 32


class ProposalHead(nn.Module):
    """Whether an anchor holds anything, and how it is to change; shared by all levels.

    Args:
        channels: Of the pyramid.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, 1, 1)
        self.objectness = nn.Conv2d(channels, len(RATIOS), 1)
        self.changes = nn.Conv2d(channels, 4 * len(RATIOS), 1)
        for layer in (self.conv, self.objectness, self.changes):
            _normal(layer, 0.01)

    def forward(self, levels: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return `(B, A)` logits and `(B, A, 4)` changes, in the order of the anchors."""
        logits, changes = [], []
        for features in levels:
            hidden = functional.relu(self.conv(features))
            logits.append(self.objectness(hidden).permute(0, 2, 3, 1).flatten(1))
            changes.append(self.changes(hidden).permute(0, 2, 3, 1).reshape(len(hidden), -1, 4))
        return torch.cat(logits, 1), torch.cat(changes, 1)


class BoxHead(nn.Module):
    """The class of a region, and how its box is to change.

    Args:
        channels: Of the pyramid.
        config: Width.
        num_classes: Classes; one more says that there is nothing.
    """

    def __init__(self, channels: int, config: Heads, num_classes: int) -> None:
        super().__init__()
        self.first = nn.Linear(channels * BOX_CELLS**2, config.channels)
        self.second = nn.Linear(config.channels, config.channels)
        self.classes = nn.Linear(config.channels, num_classes + 1)
        self.changes = nn.Linear(config.channels, 4 * num_classes)
        for layer in (self.first, self.second):
            nn.init.kaiming_uniform_(layer.weight, a=1)
            nn.init.zeros_(layer.bias)
        _normal(self.classes, 0.01)
        _normal(self.changes, 0.001)

    def forward(self, regions: Tensor) -> tuple[Tensor, Tensor]:
        """Map `(N, C, 7, 7)` to `(N, K + 1)` logits, nothing last, and `(N, K, 4)` changes."""
        hidden = functional.relu(self.first(regions.flatten(1)))
        hidden = functional.relu(self.second(hidden))
        changes: Tensor = self.changes(hidden)
        return self.classes(hidden), changes.reshape(len(hidden), -1, 4)


class MaskHead(nn.Module):
    """The mask of a region for each class.

    Args:
        channels: Of the pyramid.
        config: Width and depth.
        num_classes: Classes.
    """

    def __init__(self, channels: int, config: Heads, num_classes: int) -> None:
        super().__init__()
        width = config.mask_channels
        before = [channels, *[width] * (config.mask_depth - 1)]
        self.tower = nn.ModuleList(nn.Conv2d(c, width, 3, 1, 1) for c in before)
        self.enlarge = nn.ConvTranspose2d(width, width, 2, 2)
        self.masks = nn.Conv2d(width, num_classes, 1)
        for layer in (*self.tower, self.enlarge):
            _msra(layer)
        _normal(self.masks, 0.001)

    def forward(self, regions: Tensor) -> Tensor:
        """Map `(N, C, 14, 14)` to `(N, K, 28, 28)` logits."""
        for layer in self.tower:
            regions = functional.relu(layer(regions))
        masks: Tensor = self.masks(functional.relu(self.enlarge(regions)))
        return masks


class SemanticHead(nn.Module):
    """P2…P5, each convolved and doubled until it has stride 4, summed, one map per class.

    Args:
        channels: Of the pyramid.
        width: Inside.
        num_classes: Maps.
    """

    def __init__(self, channels: int, width: int, num_classes: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList()
        for depth in (1, 1, 2, 3):
            before = [channels, *[width] * (depth - 1)]
            self.levels.append(nn.ModuleList(_unit(c, width) for c in before))
        self.classes = nn.Conv2d(width, num_classes, 1)
        _msra(self.classes)

    def forward(self, pyramid: Sequence[Tensor]) -> Tensor:
        """Return `(B, K, H/4, W/4)` logits from P2…P5."""
        summed: Tensor | None = None
        for number, (features, units) in enumerate(zip(pyramid, self.levels, strict=True)):
            for unit in units:  # type: ignore[attr-defined]  # a list
                features = unit(features)
                if number:
                    features = functional.interpolate(
                        features, scale_factor=2.0, mode="bilinear", align_corners=False
                    )
            summed = features if summed is None else summed + features
        logits: Tensor = self.classes(summed)
        return logits


def _unit(channels: int, width: int) -> nn.Sequential:
    convolution = nn.Conv2d(channels, width, 3, 1, 1, bias=False)
    _msra(convolution)
    return nn.Sequential(convolution, nn.GroupNorm(_GROUPS, width), nn.ReLU())


def _normal(layer: nn.Conv2d | nn.Linear, deviation: float) -> None:
    nn.init.normal_(layer.weight, std=deviation)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def _msra(layer: nn.Module) -> None:
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")  # type: ignore[arg-type]  # a convolution
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)  # type: ignore[arg-type]  # a parameter
