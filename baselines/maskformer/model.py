"""MaskFormer: queries over one coarse map, masks as products with fine features.

Pixel decoder and transformer decoder are transformers' own, on one of our backbones. The loss is
ours: it is normalised over all processes, and can let entities compete for pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, ClassVar

import torch
from torch import Tensor

from entitybench.baselines.batch import Batch
from entitybench.baselines.distributed import share
from entitybench.baselines.entity.config import Backbone, Overlap
from entitybench.baselines.entity.losses import dice_loss
from entitybench.baselines.entity.overlap import suppressed
from entitybench.baselines.model import Classes
from entitybench.baselines.queries import (
    Counts,
    Inference,
    Labels,
    Loss,
    MaskQueryModel,
    Pairs,
    QueryOutputs,
    Transformer,
    dice_costs,
    draw_as_original,
    encoder_rules,
    enlarged,
    focal_costs,
    own_pixels,
    pixel_sums,
    thin_backbone,
)
from entitybench.baselines.registry import Family
from entitybench.baselines.renaming import Rule
from entitybench.baselines.settings import Data, Schedule


@dataclass(frozen=True, slots=True)
class Decoder(Transformer):
    """The transformer decoder.

    Attributes:
        dropout: Within its layers.
    """

    dropout: float = 0.1


@dataclass(frozen=True, slots=True)
class MaskFormerConfig:
    """The model, its data and its schedule.

    Attributes:
        classes: Whether classes are told apart.
        backbone: The encoder.
        features: Channels of the pixel decoder and of the mask features.
        transformer: The transformer decoder.
        loss: Weights.
        overlap: The paper's overlap suppression on top (section 6.2); `none` is MaskFormer.
        inference: From queries to an entity map.
        data: How photographs become batches.
        schedule: Optimiser, learning rate and precision.
        weights: A published model's file or folder, or nothing.
    """

    classes: Labels = field(default_factory=Labels)
    backbone: Backbone = field(default_factory=Backbone)
    features: int = 256
    transformer: Decoder = field(default_factory=Decoder)
    loss: Loss = field(default_factory=Loss)
    overlap: Overlap = field(default_factory=lambda: Overlap(activation="none", weight=1.0))
    inference: Inference = field(default_factory=Inference)
    data: Data = field(default_factory=Data)
    schedule: Schedule = field(default_factory=Schedule)
    weights: str = ""


class MaskFormer(MaskQueryModel):
    """MaskFormer with the simple pixel decoder (Cheng et al. 2021).

    Args:
        config: Every choice.
        num_classes: 1 is class-agnostic.
    """

    rules: ClassVar[tuple[Rule, ...]] = (
        *encoder_rules("model.pixel_level_module.encoder."),
        (r"^model\.pixel_level_module\.decoder\.", "pixel_decoder."),
        (r"^model\.transformer_module\.", "transformer."),
        # earlier names of transformers
        (r"(^transformer\..*)\.out_proj\.", r"\1.o_proj."),
        (r"(^transformer\..*\.layers\.\d+)\.(fc[12])\.", r"\1.mlp.\2."),
    )

    def __init__(self, config: MaskFormerConfig, num_classes: int = 1) -> None:
        queries = config.transformer.queries
        super().__init__(config.backbone, queries, num_classes, config.loss)
        self._overlap = config.overlap
        whole = _network(config, self.backbone.channels, num_classes)
        self.pixel_decoder = whole.model.pixel_level_module.decoder
        self.transformer = whole.model.transformer_module
        self.class_predictor = whole.class_predictor
        self.mask_embedder = whole.mask_embedder
        draw_as_original(
            [self.transformer.decoder],
            self.transformer.queries_embedder,
            [self.class_predictor, self.mask_embedder],
        )

    def dense(self, pixels: Tensor) -> QueryOutputs:
        """Run the network on normalised pixels."""
        maps = self.backbone(pixels)
        features = self.pixel_decoder(maps).last_hidden_state
        decoded = self.transformer(maps[-1], output_hidden_states=True)
        norm = self.transformer.decoder.layernorm
        # the first is what goes in, the last is normalised already
        hidden = [*map(norm, decoded.hidden_states[1:-1]), decoded.last_hidden_state]
        logits = [self.class_predictor(queries) for queries in hidden]
        masks = [
            torch.einsum("bqc,bchw->bqhw", self.mask_embedder(queries), features)
            for queries in hidden
        ]
        return QueryOutputs(logits, masks)

    def mask_costs(self, masks: Tensor, batch: Batch, layer: int) -> tuple[Tensor, Tensor]:
        """Return the costs of all cells, against the pixels at their corners."""
        flat, truth = masks.flatten(2), _coarse(batch, masks.shape[-2:]).flatten(2)
        return focal_costs(flat, truth), dice_costs(flat, truth)

    def mask_sums(
        self, masks: Tensor, batch: Batch, pairs: Pairs, layer: int
    ) -> tuple[Tensor, Tensor]:
        """Return the losses of all pixels."""
        logits = enlarged(masks[pairs.image, pairs.query], batch.ids.shape[1:])
        return pixel_sums(logits, own_pixels(batch.ids, pairs))

    def further_terms(
        self, masks: Tensor, batch: Batch, pairs: Pairs, counts: Counts
    ) -> dict[str, Tensor]:
        """Return the overlap suppression of the last layer, if it is wanted."""
        kind, weight = self._overlap.activation, self._overlap.weight
        if kind == "none" or not weight:
            return {}
        total = overlap_sum(masks, batch, pairs, kind)
        return {"overlap": weight * share(total, counts.entities)}


def overlap_sum(masks: Tensor, batch: Batch, pairs: Pairs, kind: str) -> Tensor:
    """Return the summed Dice of each image's entities after they competed for its pixels.

    An entity has one query, so that there is nothing to average (equation 3 of the paper).

    Args:
        masks: `(B, Q, h, w)` logits.
        batch: The truth.
        pairs: Which query answers for what.
        kind: `softmax`, `sigmoid`, or `both` with half the weight each.
    """
    logits = enlarged(masks[pairs.image, pairs.query], batch.ids.shape[1:])
    most = int(torch.bincount(pairs.image, minlength=1).max())
    place = pairs.image, pairs.rank
    shape = len(masks), max(1, most), *batch.ids.shape[1:]
    rivals = logits.new_zeros(shape).index_put(place, logits)
    own = torch.zeros(shape, dtype=torch.bool, device=logits.device)
    own[place] = own_pixels(batch.ids, pairs) > 0
    takes_part = torch.zeros(shape[:2], dtype=torch.bool, device=logits.device)
    takes_part[place] = True
    owned = batch.ids[:, None] > 0
    kinds = ("softmax", "sigmoid") if kind == "both" else (kind,)
    dice = [dice_loss(suppressed(rivals, takes_part, owned, one), own) for one in kinds]
    return (torch.stack(dice).mean(0) * takes_part).sum()


def _coarse(batch: Batch, size: tuple[int, ...]) -> Tensor:
    """Return `(B, G, h, w)` float masks of the entities at the first pixel of each cell."""
    step = batch.ids.shape[1] // size[0]
    slots = torch.arange(1, batch.num_slots + 1, device=batch.ids.device)
    return (batch.ids[:, None, ::step, ::step] == slots[:, None, None]).float()


def _network(config: MaskFormerConfig, channels: tuple[int, ...], num_classes: int) -> Any:
    """Build transformers' model on a backbone that is thrown away."""
    library, chosen = import_module("transformers"), config.transformer
    backbone = thin_backbone(channels)
    decoder = library.DetrConfig(
        backbone_config=backbone,
        use_timm_backbone=False,
        num_queries=chosen.queries,
        d_model=chosen.width,
        decoder_layers=chosen.decoder_layers,
        decoder_attention_heads=chosen.heads,
        decoder_ffn_dim=chosen.feedforward,
        dropout=chosen.dropout,
    )
    return library.MaskFormerForInstanceSegmentation(
        library.MaskFormerConfig(
            backbone_config=backbone,
            decoder_config=decoder,
            fpn_feature_size=config.features,
            mask_feature_size=config.features,
            num_labels=num_classes,
        )
    )


def _build(config: MaskFormerConfig, classes: Classes) -> MaskFormer:
    return MaskFormer(config, classes.count)


FAMILY = Family(
    name="maskformer",
    package="entitybench.baselines.maskformer",
    config=MaskFormerConfig,
    build=_build,
    classes_key="classes.specific",
)
