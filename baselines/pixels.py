"""What backbones expect of pixels."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from entitybench.baselines.batch import Images

# of red, green and blue
_MEAN = (123.675, 116.28, 103.53)
_DEVIATION = {"caffe": (1.0, 1.0, 1.0), "imagenet": (58.395, 57.12, 57.375)}


class PixelNorm(nn.Module):
    """Brings photographs into the form that a backbone was trained on.

    Args:
        kind: `caffe` is BGR minus the mean, `imagenet` is RGB in units of the deviation.
    """

    def __init__(self, kind: Literal["caffe", "imagenet"]) -> None:
        super().__init__()
        self._reverse = kind == "caffe"
        self._mean = nn.Buffer(torch.tensor(_MEAN)[:, None, None], persistent=False)
        deviation = torch.tensor(_DEVIATION[kind])[:, None, None]
        self._deviation = nn.Buffer(deviation, persistent=False)

    def forward(self, images: Images) -> Tensor:
        """Return normalised `(B, 3, H, W)` pixels, zero around each image."""
        pixels = (images.pixels - self._mean) / self._deviation * images.inside
        return pixels.flip(1) if self._reverse else pixels
