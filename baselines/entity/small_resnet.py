"""The `tiny` backbone: a residual network that trains from scratch in minutes on a CPU."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

WIDTHS = (32, 64, 128, 192)


class SmallBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut.

    Args:
        channels: In.
        out_channels: Out.
        stride: Of the first convolution.
    """

    def __init__(self, channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, out_channels, 3, stride, 1, bias=False)
        self.first_norm = nn.BatchNorm2d(out_channels)
        self.second = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(out_channels)
        self.shortcut = nn.Conv2d(channels, out_channels, 1, stride, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """Map `(B, C, H, W)` to its stride."""
        inner = functional.relu(self.first_norm(self.first(features)))
        inner = self.second_norm(self.second(inner))
        return functional.relu(inner + self.shortcut(features))


class SmallResNet(nn.Module):
    """One block per stage, 32 to 192 channels, strides 4 to 32."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, WIDTHS[0], 3, 2, 1, bias=False)
        self.stem_norm = nn.BatchNorm2d(WIDTHS[0])
        before = (WIDTHS[0], *WIDTHS[:-1])
        self.stages = nn.ModuleList(
            SmallBlock(channels, width, 2) for channels, width in zip(before, WIDTHS, strict=True)
        )

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Return four maps at strides 4, 8, 16 and 32."""
        features = functional.relu(self.stem_norm(self.stem(pixels)))
        maps = []
        for stage in self.stages:
            features = stage(features)
            maps.append(features)
        return maps
