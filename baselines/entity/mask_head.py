"""The dynamic mask head and the global kernel bank (paper, section 5.2).

Three layers turn the mask features and the coordinates relative to a location into that
location's mask. Each layer is *dynamic*, a 1×1 convolution whose weights the location's kernel
holds, or *static*, a 3×3 convolution that all locations share: seven paths, all but the
entirely static one. Only the dynamic path is needed for prediction.

Relative coordinates are never laid out per location: `W·(c - p)/s = W·c/s - W·p/s`, so the first
layer of all locations of an image is one matrix product on shared inputs, and a shared
convolution plus a rank-3 correction where it is static.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from entitybench.baselines.entity.config import Bank

NUM_LAYERS = 3
NUM_PATHS = 7
DYNAMIC_PATH = 7
REACH = 8  # strides of a location's level that make one unit of relative coordinates

Kinds = tuple[bool, ...]  # of the first layers, in the order in which they are applied


def path_kinds(path: int, order: str = "applied") -> Kinds:
    """Return which layers of a path are dynamic, from the first applied to the last.

    >>> path_kinds(4)
    (True, False, False)
    >>> path_kinds(4, "typeset")
    (False, False, True)
    """
    kinds = tuple(bool(path >> bit & 1) for bit in (2, 1, 0))
    return kinds if order == "applied" else kinds[::-1]


def num_kernel_parameters(channels: int) -> int:
    """Return the parameters of one location's three dynamic layers.

    >>> num_kernel_parameters(8)
    169
    """
    return sum(w + b for w, b in _layer_sizes(channels))


def _layer_sizes(channels: int) -> list[tuple[int, int]]:
    """Weights and biases of each dynamic layer."""
    return [
        ((channels + 2) * channels, channels),
        (channels * channels, channels),
        (channels, 1),
    ]


class MaskHead(nn.Module):
    """The seven paths.

    Args:
        channels: Mask features.
        bank: Which paths are trained. Static kernels exist only where one needs them.
    """

    def __init__(self, channels: int, bank: Bank) -> None:
        super().__init__()
        self.channels = channels
        self.paths = tuple(r for r in range(1, NUM_PATHS + 1) if bank.weights[r - 1])
        self._order = bank.order
        self.static = nn.ModuleList()
        if any(not all(path_kinds(r, bank.order)) for r in self.paths):
            size = bank.static_size
            widths = [(channels + 2, channels), (channels, channels), (channels, 1)]
            self.static.extend(nn.Conv2d(a, b, size, padding=size // 2) for a, b in widths)
        for layer in self.static:  # a list of modules does not know that they are convolutions
            nn.init.normal_(layer.weight, std=0.01)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(
        self,
        features: Tensor,
        kernels: Tensor,
        points: Tensor,
        strides: Tensor,
        feature_stride: int,
        paths: Sequence[int] = (DYNAMIC_PATH,),
    ) -> dict[int, Tensor]:
        """Return path → `(B, K, h, w)` mask logits.

        Args:
            features: `(B, C, h, w)` mask features.
            kernels: `(B, K, D)` parameters of K locations of each image.
            points: `(B, K, 2)` x and y of those locations, in pixels.
            strides: `(B, K)` strides of their levels.
            feature_stride: Pixels between mask features.
            paths: Which, by the numbers of the paper.
        """
        inputs = _Inputs.of(features, points, strides, feature_stride)
        weights, biases = _split(kernels, self.channels)
        done: dict[Kinds, Tensor] = {}
        masks: dict[int, Tensor] = {}
        for path in paths:
            kinds = path_kinds(path, self._order)
            for depth in range(1, NUM_LAYERS + 1):
                if kinds[:depth] not in done:
                    before = None if depth == 1 else done[kinds[: depth - 1]]
                    done[kinds[:depth]] = self._layer(
                        inputs, before, kinds[:depth], weights, biases
                    )
            masks[path] = done[kinds][:, :, 0]
        return masks

    def _layer(
        self,
        inputs: _Inputs,
        before: Tensor | None,
        kinds: Kinds,
        weights: list[Tensor],
        biases: list[Tensor],
    ) -> Tensor:
        """Apply one layer; `(B, K, channels, h, w)`, after ReLU but for the last."""
        depth = len(kinds) - 1
        if before is None:
            dynamic = kinds[0]
            out = (
                inputs.dynamic(weights[0], biases[0]) if dynamic else inputs.static(self.static[0])
            )
        elif kinds[-1]:
            out = _dynamic(before, weights[depth], biases[depth])
        else:
            out = _static(before, self.static[depth])
        return out if depth == NUM_LAYERS - 1 else functional.relu(out)


class _Inputs:
    """Mask features with coordinates, shared by the locations of an image."""

    def __init__(self, shared: Tensor, centres: Tensor, scale: Tensor) -> None:
        self.shared = shared  # (B, 2 + C, h, w): x, y in feature strides, then features
        self.centres = centres  # (B, K, 2): x, y in feature strides
        self.scale = scale  # (B, K): feature strides per unit of relative coordinates

    @classmethod
    def of(cls, features: Tensor, points: Tensor, strides: Tensor, feature_stride: int) -> _Inputs:
        batch, _, height, width = features.shape
        device = features.device
        # position of feature (i, j): (i·s + s//2, j·s + s//2), here in units of s
        half = (feature_stride // 2) / feature_stride
        x = (torch.arange(width, device=device) + half).expand(height, width)
        y = (torch.arange(height, device=device) + half)[:, None].expand(height, width)
        place = torch.stack([x, y]).expand(batch, 2, height, width)
        shared = torch.cat([place, features.float()], dim=1)
        return cls(
            shared, points.float() / feature_stride, REACH * strides.float() / feature_stride
        )

    def dynamic(self, weight: Tensor, bias: Tensor) -> Tensor:
        """Apply `(B, K, out, 2 + C)` weights to (centre - place)/scale and features."""
        to_place = weight[..., :2] / self.scale[..., None, None]
        folded = bias + (to_place * self.centres[:, :, None, :]).sum(-1)
        batch, count, out, _ = weight.shape
        matrix = torch.cat([-to_place, weight[..., 2:]], dim=-1).reshape(batch, count * out, -1)
        product = torch.bmm(matrix, self.shared.flatten(2))
        height, width = self.shared.shape[-2:]
        product = product.reshape(batch, count, out, height * width) + folded[..., None]
        return product.reshape(batch, count, out, height, width)

    def static(self, layer: nn.Module) -> Tensor:
        """Convolve with shared weights: once per image, then three maps per location."""
        weight, bias = _parameters(layer)
        padding = weight.shape[-1] // 2
        height, width = self.shared.shape[-2:]
        ones = self.shared.new_ones(1, 1, height, width)
        # zero padding is part of a convolution, so the constant coordinates are convolved too
        across = functional.conv2d(ones, weight[:, :1], padding=padding)
        down = functional.conv2d(ones, weight[:, 1:2], padding=padding)
        place = functional.conv2d(self.shared[:1, :2], weight[:, :2], padding=padding)
        image = functional.conv2d(self.shared[:, 2:], weight[:, 2:], bias, padding=padding)
        centre = self.centres[..., None, None, None]
        scale = self.scale[..., None, None, None]
        relative = centre[:, :, 0] * across + centre[:, :, 1] * down - place
        return image[:, None] + relative / scale


def _split(kernels: Tensor, channels: int) -> tuple[list[Tensor], list[Tensor]]:
    """Cut kernels into weights and biases: all weights come first, then all biases."""
    sizes = _layer_sizes(channels)
    lengths = [w for w, _ in sizes] + [b for _, b in sizes]
    parts = torch.split(kernels.float(), lengths, dim=-1)
    weights = [
        part.reshape(*part.shape[:-1], bias, part.shape[-1] // bias)
        for part, (_, bias) in zip(parts[:NUM_LAYERS], sizes, strict=True)
    ]
    return weights, list(parts[NUM_LAYERS:])


def _dynamic(before: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    batch, count, channels, height, width = before.shape
    flat = before.reshape(batch * count, channels, height * width)
    out = torch.baddbmm(bias.reshape(batch * count, -1, 1), weight.flatten(0, 1), flat)
    return out.reshape(batch, count, -1, height, width)


def _static(before: Tensor, layer: nn.Module) -> Tensor:
    weight, bias = _parameters(layer)
    out = functional.conv2d(before.flatten(0, 1), weight, bias, padding=weight.shape[-1] // 2)
    return out.reshape(*before.shape[:2], *out.shape[1:])


def _parameters(layer: nn.Module) -> tuple[Tensor, Tensor]:
    weight, bias = layer.weight, layer.bias
    if not (isinstance(weight, Tensor) and isinstance(bias, Tensor)):
        msg = "a static kernel has a weight and a bias"
        raise TypeError(msg)
    return weight, bias
