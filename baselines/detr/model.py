"""DETR with its panoptic mask head: queries that are boxes first, and masks from attention.

Encoder, decoder and mask head are transformers' own, on one of our backbones. The loss is ours:
it is normalised over all processes, and only matched queries go through the mask head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from entitybench.baselines.batch import Batch, Images
from entitybench.baselines.detr.boxes import box_costs, corners, generalised_iou, normalised_boxes
from entitybench.baselines.detr.original import RULES, coco_rows, split_attention
from entitybench.baselines.distributed import share
from entitybench.baselines.entity.config import Backbone
from entitybench.baselines.model import Classes, MaskCandidates
from entitybench.baselines.queries import (
    Counts,
    Inference,
    Labels,
    Pairs,
    QueryModel,
    Transformer,
    candidates_of,
    class_costs,
    classification_sum,
    draw_as_original,
    enlarged,
    match,
    own_pixels,
    pixel_sums,
    thin_backbone,
)
from entitybench.baselines.regions import measure
from entitybench.baselines.registry import Family
from entitybench.baselines.renaming import Rule
from entitybench.baselines.settings import Data, Schedule
from entitybench.baselines.weights import State


@dataclass(frozen=True, slots=True)
class EncoderDecoder(Transformer):
    """The transformer.

    Attributes:
        encoder_layers: Layers over the backbone's last map.
        dropout: Within all layers.
    """

    encoder_layers: int = 6
    dropout: float = 0.1


@dataclass(frozen=True, slots=True)
class Loss:
    """Weights of the loss; the first three are the costs of the matching as well.

    Attributes:
        classification: Cross-entropy.
        boxes: L1 distance of boxes in units of the image.
        giou: One minus the generalised IoU of boxes.
        mask: Focal loss of pixels, after the last layer.
        dice: Dice, after the last layer.
        nothing: Weight of a query that answers for no entity, within the classification.
    """

    classification: float = 1.0
    boxes: float = 5.0
    giou: float = 2.0
    mask: float = 1.0
    dice: float = 1.0
    nothing: float = 0.1


@dataclass(frozen=True, slots=True)
class DetrConfig:
    """The model, its data and its schedule.

    Attributes:
        classes: Whether classes are told apart.
        backbone: The encoder.
        transformer: Encoder and decoder.
        loss: Weights.
        inference: From queries to an entity map.
        data: How photographs become batches.
        schedule: Optimiser, learning rate and precision.
        weights: A published model's file or folder, or nothing.
    """

    classes: Labels = field(default_factory=Labels)
    backbone: Backbone = field(default_factory=Backbone)
    transformer: EncoderDecoder = field(default_factory=EncoderDecoder)
    loss: Loss = field(default_factory=Loss)
    inference: Inference = field(default_factory=Inference)
    data: Data = field(default_factory=Data)
    schedule: Schedule = field(default_factory=Schedule)
    weights: str = ""


class DetrOutputs(NamedTuple):
    """Raw outputs; the lists have one entry for each decoder layer, of which the last counts.

    Attributes:
        logits: `(B, Q, C + 1)` each; the last class is nothing.
        boxes: `(B, Q, 4)` each: centre and size in units of the image.
        queries: `(B, Q, D)` after the last layer: what masks are made of.
        memory: `(B, D, h, w)` output of the encoder.
        projected: `(B, D, h, w)` its input.
        maps: The backbone's maps at strides 16, 8 and 4.
        inside: `(B, h, w)` bool: where an image is.
    """

    logits: list[Tensor]
    boxes: list[Tensor]
    queries: Tensor
    memory: Tensor
    projected: Tensor
    maps: list[Tensor]
    inside: Tensor


class Detr(QueryModel):
    """DETR for panoptic segmentation (Carion et al. 2020).

    Args:
        config: Every choice.
        num_classes: 1 is class-agnostic.
    """

    rules: ClassVar[tuple[Rule, ...]] = RULES
    class_layer: ClassVar[str] = "class_labels_classifier."

    def __init__(self, config: DetrConfig, num_classes: int = 1) -> None:
        super().__init__(config.backbone, config.transformer.queries, num_classes)
        self._loss = config.loss
        whole = _network(config, self.backbone.channels, num_classes)
        inner = whole.detr.model
        self.position_embedding = inner.position_embedding
        self.query_position_embeddings = inner.query_position_embeddings
        self.input_projection = inner.input_projection
        self.encoder = inner.encoder
        self.decoder = inner.decoder
        self.class_labels_classifier = whole.detr.class_labels_classifier
        self.bbox_predictor = whole.detr.bbox_predictor
        self.bbox_attention = whole.bbox_attention
        self.mask_head = whole.mask_head
        draw_as_original(
            [self.encoder, self.decoder],
            self.query_position_embeddings,
            [self.input_projection, self.class_labels_classifier, self.bbox_predictor],
        )

    def prepared(self, state: State) -> State:
        """Return a file's weights, with our classes and without joint attention weights."""
        return split_attention(coco_rows(state, self.num_classes + 1))

    # --- the network -------------------------------------------------------------

    def pixels_of(self, images: Images) -> Tensor:
        """Return `(B, 4, H, W)`: normalised pixels, and where the images are."""
        return torch.cat([self.normalised(images), images.inside.float()], dim=1)

    def dense(self, pixels: Tensor) -> DetrOutputs:
        """Run all but the mask head on what `pixels_of` gives."""
        maps = self.backbone(pixels[:, :3])
        inside = functional.interpolate(pixels[:, 3:], size=maps[-1].shape[-2:])[:, 0] > 0
        projected = self.input_projection(maps[-1])
        places = self.position_embedding(
            shape=projected.shape, device=pixels.device, dtype=pixels.dtype, mask=inside
        )
        places, allowed = places.flatten(2).transpose(1, 2), inside.flatten(1)
        memory = self.encoder(
            inputs_embeds=projected.flatten(2).transpose(1, 2),
            attention_mask=allowed,
            spatial_position_embeddings=places,
        ).last_hidden_state
        queries = self.query_position_embeddings.weight.expand(len(pixels), -1, -1)
        decoded = self.decoder(
            inputs_embeds=torch.zeros_like(queries),
            spatial_position_embeddings=places,
            object_queries_position_embeddings=queries,
            encoder_hidden_states=memory,
            encoder_attention_mask=allowed,
            output_hidden_states=True,
        )
        # the first is what goes in, the last is normalised already
        between = map(self.decoder.layernorm, decoded.hidden_states[1:-1])
        hidden = [*between, decoded.last_hidden_state]
        return DetrOutputs(
            [self.class_labels_classifier(layer) for layer in hidden],
            [self.bbox_predictor(layer).float().sigmoid() for layer in hidden],
            hidden[-1],
            memory.transpose(1, 2).reshape(projected.shape),
            projected,
            maps[2::-1],
            inside,
        )

    def masks(self, outputs: DetrOutputs, queries: Tensor) -> Tensor:
        """Return the `(B, K, h, w)` float32 mask logits of some `(B, K, D)` queries, stride 4."""
        with self._autocast(queries.device.type):
            never = torch.finfo(outputs.memory.dtype).min
            outside = torch.where(outputs.inside, 0.0, never)[:, None, None]
            attention = self.bbox_attention(queries, outputs.memory, attention_mask=outside)
            masks: Tensor = self.mask_head(outputs.projected, attention, outputs.maps)
        return masks.float().reshape(*queries.shape[:2], *masks.shape[2:])

    # --- training ----------------------------------------------------------------

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the terms, weighted; classes and boxes are sums over the layers."""
        outputs: DetrOutputs = self.run_dense(self.pixels_of(batch.images))
        logits = [layer.float() for layer in outputs.logits]
        weights = self._loss
        with torch.no_grad():
            regions = measure(batch.ids, batch.num_slots)
            truth = normalised_boxes(regions.boxes, batch.images.sizes)
            layers = zip(logits, outputs.boxes, strict=True)
            costs = [self._costs(one, boxes, batch.labels, truth) for one, boxes in layers]
            matches = match(costs, regions.present)
            queries = len(truth) * self._queries
            counts = Counts.of(matches[-1], queries, weights.nothing)
        sums = [
            _layer_sums(one, boxes, batch.labels, truth, pairs, weights.nothing)
            for one, boxes, pairs in zip(logits, outputs.boxes, matches, strict=True)
        ]
        classes, distance, giou = torch.stack(sums).sum(0)
        pixels, dice = self._mask_sums(outputs, batch, matches[-1])
        return {
            "classification": weights.classification * share(classes, counts.queries),
            "boxes": weights.boxes * share(distance, counts.entities),
            "giou": weights.giou * share(giou, counts.entities),
            "mask": weights.mask * share(pixels, counts.entities),
            "dice": weights.dice * share(dice, counts.entities),
        }

    def _costs(self, logits: Tensor, boxes: Tensor, labels: Tensor, truth: Tensor) -> Tensor:
        distance, giou = box_costs(boxes, truth)
        weights = self._loss
        classes = weights.classification * class_costs(logits, labels)
        return classes + weights.boxes * distance + weights.giou * giou

    def _mask_sums(self, outputs: DetrOutputs, batch: Batch, pairs: Pairs) -> tuple[Tensor, Tensor]:
        """Run the mask head on the matched queries: no other has a loss."""
        rank = pairs.rank
        most = int(rank.max()) + 1 if len(rank) else 1
        chosen = pairs.query.new_zeros(len(batch.ids), most).index_put(
            (pairs.image, rank), pairs.query
        )
        width = outputs.queries.shape[2]
        queries = outputs.queries.gather(1, chosen[..., None].expand(-1, -1, width))
        masks = self.masks(outputs, queries)[pairs.image, rank]
        logits = enlarged(masks, batch.ids.shape[1:])
        return pixel_sums(logits, own_pixels(batch.ids, pairs))

    # --- prediction --------------------------------------------------------------

    @torch.no_grad()
    def candidates(self, images: Images) -> MaskCandidates:
        """Return all queries, best first; masks may overlap."""
        outputs: DetrOutputs = self.run_dense(self.pixels_of(images))
        masks = self.masks(outputs, outputs.queries)
        scale = images.sizes.flip(1).repeat(1, 2)[:, None]  # width, height, width, height
        return candidates_of(outputs.logits[-1], masks, corners(outputs.boxes[-1]) * scale)


def _layer_sums(
    logits: Tensor, boxes: Tensor, labels: Tensor, truth: Tensor, pairs: Pairs, nothing: float
) -> Tensor:
    """Return the summed cross-entropy, L1 distance and 1 - GIoU of one layer."""
    mine, theirs = boxes[pairs.image, pairs.query], truth[pairs.image, pairs.slot]
    giou = 1 - generalised_iou(corners(mine), corners(theirs))
    classes = classification_sum(logits, labels, pairs, nothing)
    return torch.stack([classes, (mine - theirs).abs().sum(), giou.sum()])


def _network(config: DetrConfig, channels: Sequence[int], num_classes: int) -> Any:
    """Build transformers' model on a backbone that is thrown away."""
    library, chosen = import_module("transformers"), config.transformer
    return library.DetrForSegmentation(
        library.DetrConfig(
            backbone_config=thin_backbone(channels),
            use_timm_backbone=False,
            num_queries=chosen.queries,
            d_model=chosen.width,
            encoder_layers=chosen.encoder_layers,
            decoder_layers=chosen.decoder_layers,
            encoder_attention_heads=chosen.heads,
            decoder_attention_heads=chosen.heads,
            encoder_ffn_dim=chosen.feedforward,
            decoder_ffn_dim=chosen.feedforward,
            dropout=chosen.dropout,
            num_labels=num_classes,
        )
    )


def _build(config: DetrConfig, classes: Classes) -> Detr:
    return Detr(config, classes.count)


FAMILY = Family(
    name="detr",
    package="entitybench.baselines.detr",
    config=DetrConfig,
    build=_build,
    classes_key="classes.specific",
)
