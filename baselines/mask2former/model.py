"""Mask2Former: queries that look only where they already see something.

Pixel decoder (deformable attention over three scales) and transformer decoder are transformers'
own, on one of our backbones. The loss is ours: it is normalised over all processes, and its
random points depend on the images alone.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, ClassVar

import torch
from torch import Tensor

from entitybench.baselines.batch import Batch
from entitybench.baselines.entity.config import Backbone
from entitybench.baselines.mask2former.points import (
    entropy_sums,
    random_points,
    sampled,
    truth_at,
    uncertain_points,
)
from entitybench.baselines.model import Classes
from entitybench.baselines.queries import (
    Inference,
    Labels,
    Loss,
    MaskQueryModel,
    Pairs,
    QueryOutputs,
    Transformer,
    dice_costs,
    encoder_rules,
    entropy_costs,
    thin_backbone,
)
from entitybench.baselines.registry import Family
from entitybench.baselines.renaming import Rule
from entitybench.baselines.settings import Data, Schedule


@dataclass(frozen=True, slots=True)
class PixelDecoder:
    """The pixel decoder.

    Attributes:
        width: Channels of its maps and of the mask features.
        layers: Of deformable attention.
        feedforward: Channels inside a layer.
    """

    width: int = 256
    layers: int = 6
    feedforward: int = 1024


@dataclass(frozen=True, slots=True)
class Points:
    """Where masks are compared with the truth.

    Attributes:
        number: Points of a mask.
        oversample: As many times more are drawn, for the most uncertain among them.
        importance: Share of the points that are the most uncertain ones; the rest is random.
    """

    number: int = 12544
    oversample: float = 3.0
    importance: float = 0.75


@dataclass(frozen=True, slots=True)
class Mask2FormerConfig:
    """The model, its data and its schedule.

    Attributes:
        classes: Whether classes are told apart.
        backbone: The encoder.
        pixel_decoder: The pixel decoder.
        transformer: The transformer decoder.
        loss: Weights.
        points: Where masks are compared.
        inference: From queries to an entity map.
        data: How photographs become batches.
        schedule: Optimiser, learning rate and precision.
        weights: A published model's file or folder, or nothing.
    """

    classes: Labels = field(default_factory=Labels)
    backbone: Backbone = field(default_factory=Backbone)
    pixel_decoder: PixelDecoder = field(default_factory=PixelDecoder)
    transformer: Transformer = field(default_factory=lambda: Transformer(decoder_layers=9))
    loss: Loss = field(default_factory=lambda: Loss(2.0, 5.0, 5.0, 0.1))
    points: Points = field(default_factory=Points)
    inference: Inference = field(default_factory=Inference)
    data: Data = field(default_factory=Data)
    schedule: Schedule = field(default_factory=Schedule)
    weights: str = ""


class Mask2Former(MaskQueryModel):
    """Mask2Former (Cheng et al. 2022).

    Args:
        config: Every choice.
        num_classes: 1 is class-agnostic.
    """

    rules: ClassVar[tuple[Rule, ...]] = (
        *encoder_rules("model.pixel_level_module.encoder."),
        (r"^model\.pixel_level_module\.decoder\.", "pixel_decoder."),
        (r"^model\.transformer_module\.", "transformer."),
    )

    def __init__(self, config: Mask2FormerConfig, num_classes: int = 1) -> None:
        queries = config.transformer.queries
        super().__init__(config.backbone, queries, num_classes, config.loss)
        self._points = config.points
        whole = _network(config, self.backbone.channels, num_classes)
        self.pixel_decoder = whole.model.pixel_level_module.decoder
        self.transformer = whole.model.transformer_module
        self.class_predictor = whole.class_predictor

    def dense(self, pixels: Tensor) -> QueryOutputs:
        """Run the network on normalised pixels; the first outputs are those before any layer."""
        decoded = self.pixel_decoder(self.backbone(pixels))
        seen = self.transformer(decoded.multi_scale_features, decoded.mask_features)
        logits = [self.class_predictor(h.transpose(0, 1)) for h in seen.intermediate_hidden_states]
        return QueryOutputs(logits, list(seen.masks_queries_logits))

    def mask_costs(self, masks: Tensor, batch: Batch, layer: int) -> tuple[Tensor, Tensor]:
        """Return the costs at random points, the same for all masks of an image."""
        points = random_points(_salted(batch.seeds, layer, 0), self._points.number)
        images = torch.arange(len(masks), device=masks.device)
        slots = torch.arange(batch.num_slots, device=masks.device).expand(len(masks), -1)
        truth = truth_at(batch.ids, images, slots, points)
        logits = sampled(masks, points)
        return entropy_costs(logits, truth), dice_costs(logits, truth)

    def mask_sums(
        self, masks: Tensor, batch: Batch, pairs: Pairs, layer: int
    ) -> tuple[Tensor, Tensor]:
        """Return the losses at points, most of them where the mask is uncertain."""
        logits = masks[pairs.image, pairs.query][:, None]
        seeds = _salted(batch.seeds[pairs.image], layer, pairs.slot + 1)
        with torch.no_grad():
            chosen = self._points
            points = uncertain_points(
                logits, seeds, chosen.number, chosen.oversample, chosen.importance
            )
            truth = truth_at(batch.ids, pairs.image, pairs.slot[:, None], points)[:, 0]
        return entropy_sums(sampled(logits, points)[:, 0], truth)


def _salted(seeds: Tensor, layer: int, slot: Tensor | int) -> Tensor:
    """Return a seed of its own for each layer and entity."""
    return seeds * 1_000_003 + layer * 65_537 + slot


def _network(config: Mask2FormerConfig, channels: tuple[int, ...], num_classes: int) -> Any:
    """Build transformers' model on a backbone that is thrown away."""
    library, chosen = import_module("transformers"), config.transformer
    with _quiet("transformers.models.mask2former.configuration_mask2former"):
        settings = library.Mask2FormerConfig(
            backbone_config=thin_backbone(channels),
            feature_size=config.pixel_decoder.width,
            mask_feature_size=config.pixel_decoder.width,
            encoder_layers=config.pixel_decoder.layers,
            encoder_feedforward_dim=config.pixel_decoder.feedforward,
            hidden_dim=chosen.width,
            num_attention_heads=chosen.heads,
            decoder_layers=chosen.decoder_layers + 1,  # its count has one that is not built
            dim_feedforward=chosen.feedforward,
            num_queries=chosen.queries,
            num_labels=num_classes,
        )
    return library.Mask2FormerForUniversalSegmentation(settings)


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Silence one logger: transformers doubts every backbone but Swin, and all of them work."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _build(config: Mask2FormerConfig, classes: Classes) -> Mask2Former:
    return Mask2Former(config, classes.count)


FAMILY = Family(
    name="mask2former",
    package="entitybench.baselines.mask2former",
    config=Mask2FormerConfig,
    build=_build,
    classes_key="classes.specific",
)
