"""One update of the kernels: gather, mix, attend, and convolve anew (K-Net, section 3.2)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from entitybench.baselines.knet.config import Bank, Kernels

PRIOR_LOGIT = -math.log(99)  # of a class that is there once in a hundred


class Stage(NamedTuple):
    """What one stage says.

    Attributes:
        classes: `(B, N, K)` logits; K is 0 for the initial kernels.
        masks: `(B, N, h, w)` logits at the features' stride.
        bank: Path → `(B, N, h, w)` logits of the bank's paths, in training alone.
    """

    classes: Tensor
    masks: Tensor
    bank: dict[str, Tensor]


def gather_features(masks: Tensor, features: Tensor) -> Tensor:
    """Add up the features inside each mask (equation 3).

    Args:
        masks: `(B, N, h, w)` logits; a pixel is inside above 0.
        features: `(B, C, h, w)`.

    Returns:
        `(B, N, C)` sums.
    """
    inside = (masks > 0).to(features.dtype)
    return torch.bmm(inside.flatten(2), features.flatten(2).transpose(1, 2))


class AdaptiveUpdate(nn.Module):
    """Mixes each kernel with the features of its mask by two learned gates (equations 4 to 6).

    Args:
        channels: Of kernels and features.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.of_features = nn.Linear(channels, 2 * channels)
        self.of_kernels = nn.Linear(channels, 2 * channels)
        self.feature_gate = nn.Linear(channels, channels)
        self.kernel_gate = nn.Linear(channels, channels)
        self.feature_gate_norm = nn.LayerNorm(channels)
        self.kernel_gate_norm = nn.LayerNorm(channels)
        self.feature_norm = nn.LayerNorm(channels)
        self.kernel_norm = nn.LayerNorm(channels)
        self.out = nn.Linear(channels, channels)
        self.out_norm = nn.LayerNorm(channels)

    def forward(self, features: Tensor, kernels: Tensor) -> Tensor:
        """Map `(B, N, C)` features and kernels to new kernels."""
        feature_in, feature_out = self.of_features(features).chunk(2, -1)
        kernel_in, kernel_out = self.of_kernels(kernels).chunk(2, -1)
        both = feature_in * kernel_in
        feature_gate = self.feature_gate_norm(self.feature_gate(both)).sigmoid()
        kernel_gate = self.kernel_gate_norm(self.kernel_gate(both)).sigmoid()
        mixed = feature_gate * self.feature_norm(feature_out)
        mixed = mixed + kernel_gate * self.kernel_norm(kernel_out)
        return functional.relu(self.out_norm(self.out(mixed)))


class KernelUpdate(nn.Module):
    """A stage: new kernels, their classes and their masks.

    Args:
        config: Sizes.
        num_classes: 1 is class-agnostic.
        bank: Which static paths are trained beside the dynamic kernel.
    """

    def __init__(self, config: Kernels, num_classes: int, bank: Bank) -> None:
        super().__init__()
        channels = config.channels
        self.transform = nn.Conv2d(channels, channels, 1)
        self.update = AdaptiveUpdate(channels)
        self.attention = nn.MultiheadAttention(channels, config.heads, batch_first=True)
        self.attention_norm = nn.LayerNorm(channels)
        self.expand = nn.Linear(channels, config.feedforward)
        self.contract = nn.Linear(config.feedforward, channels)
        self.feedforward_norm = nn.LayerNorm(channels)
        self.class_hidden = _hidden(channels)
        self.mask_hidden = _hidden(channels)
        self.classes = nn.Linear(channels, num_classes)
        self.kernels = nn.Linear(channels, channels)
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)
        nn.init.constant_(self.classes.bias, PRIOR_LOGIT)
        self.bank = StaticKernels(channels, bank)

    def forward(self, features: Tensor, kernels: Tensor, masks: Tensor) -> tuple[Tensor, Stage]:
        """Update.

        Args:
            features: `(B, C, h, w)`.
            kernels: `(B, N, C)`.
            masks: `(B, N, h, w)` logits of the stage before.

        Returns:
            `(B, N, C)` kernels for the next stage, and what this one says.
        """
        features = self.transform(features)
        kernels = self.update(gather_features(masks, features), kernels)
        kernels = self.attention_norm(kernels + self._attend(kernels))
        kernels = self.feedforward_norm(
            kernels + self.contract(functional.relu(self.expand(kernels)))
        )
        dynamic = self.kernels(self.mask_hidden(kernels))
        classes = self.classes(self.class_hidden(kernels))
        bank = self.bank(features, dynamic) if self.training else {}
        return kernels, Stage(classes, convolve(dynamic, features), bank)

    def _attend(self, kernels: Tensor) -> Tensor:
        attended: Tensor = self.attention(kernels, kernels, kernels, need_weights=False)[0]
        return attended


class StaticKernels(nn.Module):
    """The bank: static kernels that all entities of all images share, for training alone.

    K-Net's mask head is one layer, the product of a dynamic kernel k and the features F, summed
    over channels. Seen as two layers, a product of each channel and a sum, one of them can be
    static: *static first* replaces F by `relu(W * F)`, *static last* replaces the plain sum by one
    with a 3×3 kernel for each channel, `Σ_c w_c * (k_c F_c)`. As convolutions are linear the
    latter is k times `w_c * F_c`, which is computed once per image.

    Args:
        channels: Of the features.
        bank: λ of the paths; static kernels exist only where one needs them.
    """

    def __init__(self, channels: int, bank: Bank) -> None:
        super().__init__()
        self.layers = nn.ModuleDict()
        if bank.static_first:
            self.layers["static_first"] = nn.Conv2d(channels, channels, 3, 1, 1)
        if bank.static_last:
            self.layers["static_last"] = nn.Conv2d(
                channels, channels, 3, 1, 1, groups=channels, bias=False
            )
        for layer in self.layers.values():
            nn.init.normal_(layer.weight, std=0.01)  # type: ignore[arg-type]  # convolutions
        if bank.static_first:
            nn.init.zeros_(self.layers["static_first"].bias)  # type: ignore[arg-type]  # a parameter

    def forward(self, features: Tensor, kernels: Tensor) -> dict[str, Tensor]:
        """Return path → `(B, N, h, w)` logits."""
        paths = {}
        for name, layer in self.layers.items():
            seen = layer(features)
            paths[name] = convolve(
                kernels, functional.relu(seen) if name == "static_first" else seen
            )
        return paths


def convolve(kernels: Tensor, features: Tensor) -> Tensor:
    """Return `(B, N, h, w)` products of `(B, N, C)` kernels and `(B, C, h, w)` features."""
    product = torch.bmm(kernels, features.flatten(2))
    return product.reshape(*product.shape[:2], *features.shape[2:])


def _hidden(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(channels, channels, bias=False), nn.LayerNorm(channels), nn.ReLU()
    )
