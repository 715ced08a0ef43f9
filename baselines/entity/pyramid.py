"""The feature pyramid: equal channels on every level, coarse ones added to fine ones."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from entitybench.baselines.entity.config import Pyramid as PyramidConfig


class Pyramid(nn.Module):
    """P2…P7 from the backbone's four maps; level l has stride 2ˡ.

    Args:
        channels: Of the backbone's maps, strides 4 to 32.
        config: Levels and channels.
    """

    def __init__(self, channels: Sequence[int], config: PyramidConfig) -> None:
        super().__init__()
        self._config = config
        self._used = range(config.lowest, min(config.highest, 5) + 1)
        width = config.channels
        self.lateral = nn.ModuleDict(
            {str(k): nn.Conv2d(channels[k - 2], width, 1) for k in self._used}
        )
        self.output = nn.ModuleDict({str(k): nn.Conv2d(width, width, 3, 1, 1) for k in self._used})
        first = channels[3] if config.sixth_from == "c5" else width
        self.extra = nn.ModuleDict(
            {
                str(k): nn.Conv2d(first if k == 6 else width, width, 3, 2, 1)
                for k in range(6, config.highest + 1)
            }
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.bias is not None:
                nn.init.kaiming_uniform_(module.weight, a=1)
                nn.init.zeros_(module.bias)

    def forward(self, maps: Sequence[Tensor]) -> dict[int, Tensor]:
        """Return level → `(B, channels, H/2ˡ, W/2ˡ)`."""
        levels: dict[int, Tensor] = {}
        above: Tensor | None = None
        for level in reversed(self._used):
            merged: Tensor = self.lateral[str(level)](maps[level - 2])
            if above is not None:
                merged = merged + functional.interpolate(above, scale_factor=2.0, mode="nearest")
            levels[level] = self.output[str(level)](merged)
            above = merged
        below = maps[3] if self._config.sixth_from == "c5" else levels[max(self._used)]
        for name, convolution in self.extra.items():
            below = convolution(below if name == "6" else functional.relu(below))
            levels[int(name)] = below
        return levels
