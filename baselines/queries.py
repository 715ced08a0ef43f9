"""What models with queries share: the matching, their losses, candidates, published weights.

Such a model puts out a fixed number of queries, each a class (or nothing) and a mask. In
training, each entity is given to the one query that fits it best, all others learn that they are
nothing. Every loss is a sum over this process; who adds them up decides the normalisation.

Pixels of no entity (void, crowds, canvas) count as outside of every mask, as in the originals.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.nn import functional

from entitybench.baselines.batch import Batch, Images
from entitybench.baselines.distributed import global_sum, share
from entitybench.baselines.entity.backbone import Backbone
from entitybench.baselines.entity.config import Backbone as BackboneConfig
from entitybench.baselines.entity.losses import focal_sum
from entitybench.baselines.model import BaselineModel, MaskCandidates
from entitybench.baselines.pixels import PixelNorm
from entitybench.baselines.regions import measure
from entitybench.baselines.renaming import Rule, load_renamed
from entitybench.baselines.weights import State
from entitybench.errors import FormatError, MissingDataError

_LARGE = 1e9  # a cost that is not a number: taken only where nothing else is left
_STRIDE = 4  # of the masks of all three models
_FILES = ("model.safetensors", "pytorch_model.bin")


# --- configuration -----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Labels:
    """What a query is called.

    Attributes:
        specific: Whether classes are told apart; else there are entities and nothing.
    """

    specific: bool = False


@dataclass(frozen=True, slots=True)
class Transformer:
    """The decoder that turns queries into entities.

    Attributes:
        queries: How many; no image may have more entities in training.
        width: Channels.
        heads: Of each attention.
        decoder_layers: Layers.
        feedforward: Channels inside a layer.
    """

    queries: int = 100
    width: int = 256
    heads: int = 8
    decoder_layers: int = 6
    feedforward: int = 2048


@dataclass(frozen=True, slots=True)
class Loss:
    """Weights of the loss, and of the costs of the matching.

    Attributes:
        classification: Cross-entropy.
        mask: Focal loss or cross-entropy of the pixels of a mask.
        dice: Dice.
        nothing: Weight of a query that answers for no entity, within the classification.
    """

    classification: float = 1.0
    mask: float = 20.0
    dice: float = 1.0
    nothing: float = 0.1


@dataclass(frozen=True, slots=True)
class Inference:
    """From queries to an entity map. No query is dropped for its score.

    Attributes:
        rescore: Whether a score is multiplied by the mean mask probability of its pixels.
        least_side: Painted entities with a shorter box side are dropped.
    """

    rescore: bool = False
    least_side: int = 1


# --- matching ----------------------------------------------------------------


class Pairs(NamedTuple):
    """Which query answers for which entity; N pairs, ordered by image, then query.

    Attributes:
        image: `(N,)` int64.
        query: `(N,)` int64.
        slot: `(N,)` int64 slot of the entity.
    """

    image: Tensor
    query: Tensor
    slot: Tensor

    @property
    def rank(self) -> Tensor:
        """`(N,)` int64 number of each pair within its image."""
        return torch.arange(len(self.image), device=self.image.device) - torch.searchsorted(
            self.image, self.image
        )


def match(costs: Sequence[Tensor], present: Tensor) -> list[Pairs]:
    """Give each entity its own query so that the costs of an image add up to the least.

    Waits for the device, once for all layers.

    Args:
        costs: `(B, Q, G)` for each layer. NaN and infinite costs are taken last.
        present: `(B, G)` whether the slot holds an entity.

    Returns:
        The pairs of each layer. Of more than Q entities, Q have a pair.
    """
    table = torch.stack(list(costs)).nan_to_num(nan=_LARGE, posinf=_LARGE, neginf=_LARGE)
    numbers, exists = table.cpu().numpy(), present.cpu().numpy()
    return [_pairs(layer, exists, present.device) for layer in numbers]


def _pairs(costs: NDArray[np.float32], exists: NDArray[np.bool_], device: torch.device) -> Pairs:
    rows = []
    for image, slots in enumerate(exists):
        numbers = np.flatnonzero(slots)
        query, column = linear_sum_assignment(costs[image][:, numbers])
        rows.append(np.stack([np.full_like(query, image), query, numbers[column]]))
    image, query, slot = torch.from_numpy(np.concatenate(rows, axis=1)).to(device)
    return Pairs(image, query, slot)


def class_costs(logits: Tensor, labels: Tensor) -> Tensor:
    """Return `(B, Q, G)` minus the probabilities of the entities' classes.

    Args:
        logits: `(B, Q, C + 1)`; the last class is nothing.
        labels: `(B, G)`.
    """
    index = labels[:, None].expand(-1, logits.shape[1], -1)
    return -logits.softmax(-1).gather(2, index)


def focal_costs(logits: Tensor, truth: Tensor) -> Tensor:
    """Return the mean focal loss of every mask against every entity.

    Args:
        logits: `(B, Q, P)` at P places.
        truth: `(B, G, P)` float 0/1.

    Returns:
        `(B, Q, G)`; alpha .25, gamma 2.
    """
    inside = functional.softplus(-logits) * (1 - logits.sigmoid()) ** 2 * 0.25
    outside = functional.softplus(logits) * logits.sigmoid() ** 2 * 0.75
    return _either(inside, outside, truth)


def entropy_costs(logits: Tensor, truth: Tensor) -> Tensor:
    """Return the mean cross-entropy of every mask against every entity, as `focal_costs`."""
    return _either(functional.softplus(-logits), functional.softplus(logits), truth)


def _either(inside: Tensor, outside: Tensor, truth: Tensor) -> Tensor:
    own = truth.transpose(1, 2)
    return (torch.bmm(inside, own) + torch.bmm(outside, 1 - own)) / truth.shape[2]


def dice_costs(logits: Tensor, truth: Tensor) -> Tensor:
    """Return the Dice loss of every mask against every entity, as `focal_costs`."""
    probability = logits.sigmoid()
    shared = 2 * torch.bmm(probability, truth.transpose(1, 2))
    total = probability.sum(2)[:, :, None] + truth.sum(2)[:, None]
    return 1 - (shared + 1) / (total + 1)


# --- losses ------------------------------------------------------------------


def classification_sum(logits: Tensor, labels: Tensor, pairs: Pairs, nothing: float) -> Tensor:
    """Return the weighted cross-entropy of all queries.

    Args:
        logits: `(B, Q, C + 1)`; the last class is nothing.
        labels: `(B, G)`.
        pairs: Which query answers for what.
        nothing: Weight of the others.
    """
    last = logits.shape[2] - 1
    wanted = torch.full(logits.shape[:2], last, device=logits.device)
    wanted[pairs.image, pairs.query] = labels[pairs.image, pairs.slot]
    weights = torch.ones(last + 1, device=logits.device)
    weights[last] = nothing
    return functional.cross_entropy(
        logits.flatten(0, 1), wanted.flatten(), weights, reduction="sum"
    )


def smooth_dice(probabilities: Tensor, truth: Tensor) -> Tensor:
    """Return 1 - (2·shared + 1) / (total + 1) over the last dimension, DETR's Dice."""
    shared = 2 * (probabilities * truth).sum(-1)
    return 1 - (shared + 1) / (probabilities.sum(-1) + truth.sum(-1) + 1)


def enlarged(masks: Tensor, size: Sequence[int]) -> Tensor:
    """Return `(N, H, W)` logits of every pixel from `(N, h, w)`, bilinear."""
    if not len(masks):  # which `interpolate` refuses
        return masks.sum((1, 2))[:, None, None].expand(0, *size)
    size = [int(side) for side in size]
    return functional.interpolate(masks[:, None], size=size, mode="bilinear")[:, 0]


def own_pixels(ids: Tensor, pairs: Pairs) -> Tensor:
    """Return the `(N, H, W)` float masks of the pairs' entities."""
    return (ids[pairs.image] == (pairs.slot + 1)[:, None, None]).float()


def pixel_sums(logits: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Return the summed focal loss (a mean over pixels) and the summed Dice of N masks.

    Args:
        logits: `(N, H, W)`.
        truth: `(N, H, W)` float 0/1.
    """
    pixels = logits.shape[1] * logits.shape[2]
    dice = smooth_dice(logits.sigmoid().flatten(1), truth.flatten(1))
    return focal_sum(logits, truth) / pixels, dice.sum()


class Counts(NamedTuple):
    """What sums are divided by, over all processes; never zero.

    Attributes:
        entities: Entities.
        queries: Queries, each with its weight in the classification.
    """

    entities: Tensor
    queries: Tensor

    @classmethod
    def of(cls, pairs: Pairs, queries: int, nothing: float) -> Counts:
        """Count.

        Args:
            pairs: Of any layer.
            queries: Queries of all images of this process.
            nothing: Weight of a query that answers for no entity.
        """
        found = len(pairs.image)
        weights = found + nothing * (queries - found)
        sums = torch.tensor([float(found), weights], device=pairs.image.device)
        entities, weighted = global_sum(sums).unbind()
        return cls(entities.clamp(min=1), weighted.clamp(min=1e-6))


# --- models ------------------------------------------------------------------


def thin_backbone(channels: Sequence[int]) -> Any:
    """Return the configuration of the least backbone with these channels.

    transformers builds a model with its backbone; ours takes its place.
    """
    library = import_module("transformers")
    return library.ResNetConfig(
        embedding_size=8,
        hidden_sizes=list(channels),
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )


class QueryModel(BaselineModel):
    """A model with queries on one of our backbones.

    Args:
        backbone: The encoder.
        queries: How many.
        num_classes: 1 is class-agnostic.

    Attributes:
        rules: From the names in transformers' files of this kind of model to ours.
        class_layer: What the names of the classifier begin with.
    """

    rules: ClassVar[tuple[Rule, ...]]
    class_layer: ClassVar[str] = "class_predictor."

    def __init__(self, backbone: BackboneConfig, queries: int, num_classes: int) -> None:
        super().__init__()
        self.backbone = Backbone(backbone)
        self.normalised = PixelNorm(backbone.pixels)
        self.num_classes = num_classes
        self._settings = backbone
        self._queries = queries

    @property
    def divisor(self) -> int:
        """Sides of the canvas must be multiples of it."""
        return 32

    @property
    def capacity(self) -> int:
        """Most entities of an image that the model can be trained on."""
        return self._queries

    def load_published(self, path: Path) -> Sequence[str]:
        """Load transformers' weights of this kind of model: a file, or a folder that holds one.

        Returns:
            Names in the file that this model has no use for.

        Raises:
            MissingDataError: No such file.
            FormatError: Weights are missing or of another shape, the classes do not match, or
                the configuration strides or normalises in another way than the file expects.
        """
        path = find_weights(path)
        check_flavour(path, self._settings)
        return load_renamed(
            self, path, self.rules, class_layers=[self.class_layer], prepare=self.prepared
        )

    def prepared(self, state: State) -> State:
        """Return a file's weights, cut as this model has them."""
        return state


def encoder_rules(prefix: str) -> tuple[Rule, ...]:
    """Return the rules that leave a backbone's own names, known elsewhere, of those of a file.

    Args:
        prefix: What the names of the backbone begin with.
    """
    start = "^" + re.escape(prefix)
    # an earlier Swin lacks the part that its maps now belong to
    return ((start + r"(?:model\.)?(?=embeddings\.|encoder\.layers\.)", "swin."), (start, ""))


def find_weights(path: Path) -> Path:
    """Return the file of weights at a path: the file, or the one in a model's folder.

    Raises:
        MissingDataError: The folder holds none.
    """
    if not path.is_dir():
        return path
    for name in _FILES:
        if (path / name).is_file():
            return path / name
    msg = f"no weights in `{path}`"
    raise MissingDataError(msg, hint=f"a folder holds {' or '.join(f'`{n}`' for n in _FILES)}")


def check_flavour(path: Path, settings: BackboneConfig) -> None:
    """Refuse another stride or other pixels: the weights would load, and score badly.

    Raises:
        FormatError: The configuration is not that of the published models.
    """
    wrong = []
    if settings.pixels != "imagenet":
        wrong.append("--set backbone.pixels=imagenet")
    if settings.stride_in_1x1 and settings.name.startswith("r"):
        wrong.append("--set backbone.stride_in_1x1=false")
    if wrong:
        msg = f"`{path.name}` was trained on other pixels or strides than the configuration has"
        raise FormatError(msg, where=str(path), hint=f"`{' '.join(wrong)}`")


def candidates_of(logits: Tensor, masks: Tensor, boxes: Tensor | None = None) -> MaskCandidates:
    """Return all queries, best first; a query's class is its likeliest but nothing.

    Args:
        logits: `(B, Q, C + 1)`; the last class is nothing.
        masks: `(B, Q, h, w)` logits.
        boxes: `(B, Q, 4)` x0, y0, x1, y1 on the canvas; those of the masks unless given.
    """
    score, label = logits.float().softmax(-1)[..., :-1].max(-1)
    score, order = score.sort(dim=1, descending=True, stable=True)
    probability = masks.float().sigmoid()
    boxes = _boxes(probability) if boxes is None else boxes
    index = order[..., None]
    return MaskCandidates(
        score,
        torch.ones_like(score, dtype=torch.bool),
        boxes.gather(1, index.expand(-1, -1, 4)),
        label.gather(1, order),
        probability.gather(1, index[..., None].expand(-1, -1, *masks.shape[2:])),
        _STRIDE,
        (_STRIDE - 1) / 2,
    )


def _boxes(masks: Tensor) -> Tensor:
    """Return the `(B, K, 4)` boxes of probabilities above .5; zeros where there are none."""
    inside = masks > 0.5
    sides = []
    for along in (inside.any(2), inside.any(3)):
        first = along.float().argmax(2)
        last = along.shape[2] - along.flip(2).float().argmax(2)
        sides.append(torch.stack([first, last], -1) * along.any(2)[..., None] * _STRIDE)
    (x0, x1), (y0, y1) = (side.float().unbind(-1) for side in sides)
    return torch.stack([x0, y0, x1, y1], -1)


def draw_as_original(
    transformers: Sequence[nn.Module], queries: nn.Embedding, heads: Sequence[nn.Module]
) -> None:
    """Draw first weights as DETR does, in place of transformers' own: all N(0, 0.02).

    Queries that nearly agree take long to tell apart, and small weights long to grow.

    Args:
        transformers: Get Xavier's uniform weights.
        queries: Get N(0, 1).
        heads: Linear maps and convolutions among them get torch's default.
    """
    for module in transformers:
        for parameter in module.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)
    nn.init.normal_(queries.weight)
    for head in heads:
        for layer in head.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d):
                layer.reset_parameters()


class QueryOutputs(NamedTuple):
    """Raw outputs, one entry for each layer that is trained; the last one counts.

    Attributes:
        logits: `(B, Q, C + 1)` each; the last class is nothing.
        masks: `(B, Q, h, w)` logits each, at stride 4.
    """

    logits: list[Tensor]
    masks: list[Tensor]


class MaskQueryModel(QueryModel):
    """A model whose queries are matched and trained by class and mask alone, layer by layer.

    Args:
        backbone: The encoder.
        queries: How many.
        num_classes: 1 is class-agnostic.
        loss: Weights.
    """

    def __init__(
        self, backbone: BackboneConfig, queries: int, num_classes: int, loss: Loss
    ) -> None:
        super().__init__(backbone, queries, num_classes)
        self._loss = loss

    @abstractmethod
    def dense(self, pixels: Tensor) -> QueryOutputs:
        """Run the network on normalised pixels."""

    @abstractmethod
    def mask_costs(self, masks: Tensor, batch: Batch, layer: int) -> tuple[Tensor, Tensor]:
        """Return two `(B, Q, G)` costs of `(B, Q, h, w)` logits: pixels and Dice."""

    @abstractmethod
    def mask_sums(
        self, masks: Tensor, batch: Batch, pairs: Pairs, layer: int
    ) -> tuple[Tensor, Tensor]:
        """Return two sums over the pairs of `(B, Q, h, w)` logits: pixels and Dice."""

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the terms, weighted, each a sum over the layers; finite without entities."""
        outputs: QueryOutputs = self.run_dense(self.normalised(batch.images))
        logits, masks = ([layer.float() for layer in layers] for layers in outputs)
        return self.losses_of(logits, masks, batch)

    def losses_of(
        self, logits: Sequence[Tensor], masks: Sequence[Tensor], batch: Batch
    ) -> dict[str, Tensor]:
        """Return the terms from the float32 outputs of each layer."""
        weights = self._loss
        with torch.no_grad():
            present = measure(batch.ids, batch.num_slots).present
            layers = enumerate(zip(logits, masks, strict=True))
            costs = [self._costs(*outputs, batch, layer) for layer, outputs in layers]
            matches = match(costs, present)
            queries = present.shape[0] * self._queries
            counts = Counts.of(matches[-1], queries, weights.nothing)
        sums = []
        for layer, pairs in enumerate(matches):
            pixels, dice = self.mask_sums(masks[layer], batch, pairs, layer)
            classes = classification_sum(logits[layer], batch.labels, pairs, weights.nothing)
            sums.append(torch.stack([classes, pixels, dice]))
        classes, pixels, dice = torch.stack(sums).sum(0)
        return {
            "classification": weights.classification * share(classes, counts.queries),
            "mask": weights.mask * share(pixels, counts.entities),
            "dice": weights.dice * share(dice, counts.entities),
            **self.further_terms(masks[-1], batch, matches[-1], counts),
        }

    def further_terms(
        self, masks: Tensor, batch: Batch, pairs: Pairs, counts: Counts
    ) -> dict[str, Tensor]:
        """Return what a model adds to the loss, from the last layer."""
        return {}

    def _costs(self, logits: Tensor, masks: Tensor, batch: Batch, layer: int) -> Tensor:
        pixels, dice = self.mask_costs(masks, batch, layer)
        weights = self._loss
        classes = class_costs(logits, batch.labels)
        return weights.classification * classes + weights.mask * pixels + weights.dice * dice

    @torch.no_grad()
    def candidates(self, images: Images) -> MaskCandidates:
        """Return all queries, best first; masks may overlap."""
        outputs: QueryOutputs = self.run_dense(self.normalised(images))
        return candidates_of(outputs.logits[-1], outputs.masks[-1])
