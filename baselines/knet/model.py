"""K-Net (Zhang and others, 2021): kernels that find an entity each, updated three times.

`docs/models/knet.md` tells what differs from the released code.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from entitybench.baselines.batch import Batch, Images
from entitybench.baselines.distributed import global_sum, share
from entitybench.baselines.entity.backbone import Backbone
from entitybench.baselines.entity.config import Pyramid as PyramidConfig
from entitybench.baselines.entity.losses import dice_loss, focal_sum
from entitybench.baselines.entity.overlap import suppressed
from entitybench.baselines.entity.pyramid import Pyramid
from entitybench.baselines.knet.config import KNetConfig
from entitybench.baselines.knet.features import SemanticPyramid, doubled
from entitybench.baselines.knet.matching import class_cost, mask_cost, match
from entitybench.baselines.knet.published import load_published, things_first
from entitybench.baselines.knet.update import PRIOR_LOGIT, KernelUpdate, Stage, gather_features
from entitybench.baselines.model import BaselineModel, Classes, MaskCandidates
from entitybench.baselines.pixels import PixelNorm
from entitybench.baselines.regions import measure
from entitybench.baselines.registry import Family
from entitybench.errors import FormatError


class DenseOutputs(NamedTuple):
    """Raw outputs: of the initial kernels, of each update, and the semantic map.

    Attributes:
        stages: The initial kernels first. N counts the queries, then the stuff classes.
        semantic: `(B, K, h, w)` logits, like the masks half as fine as the final ones.
    """

    stages: tuple[Stage, ...]
    semantic: Tensor


class Targets(NamedTuple):
    """What is to be found, at the masks' stride.

    Attributes:
        masks: `(B, G, h, w)` float32 0/1 of all slots.
        wanted: `(B, G)` bool: a query is to find this entity.
        labels: `(B, G)` int64 column among the classes that queries tell apart.
        stuff: `(B, S, h, w)` float32 0/1 of the stuff classes.
        classes: `(B, h, w)` int64 class of each pixel, -1 for void.
    """

    masks: Tensor
    wanted: Tensor
    labels: Tensor
    stuff: Tensor
    classes: Tensor


class KNet(BaselineModel):
    """K-Net.

    Args:
        config: Every choice.
        classes: None is class-agnostic: the queries find every entity alike. With classes they
            find the things, and each class of stuff has a kernel of its own.
    """

    def __init__(self, config: KNetConfig, classes: Classes) -> None:
        super().__init__()
        self.config, kernels = config, config.kernels
        self.classes = classes
        kinds = classes.things or (True,)
        self._is_thing = _buffer([bool(kind) for kind in kinds])
        self._things = _buffer([number for number, kind in enumerate(kinds) if kind])
        self._stuff = _buffer([number for number, kind in enumerate(kinds) if not kind])
        # of each class its place among the things; stuff, which no query is to find, has 0
        self._column = _buffer([sum(kinds[:n]) if kind else 0 for n, kind in enumerate(kinds)])
        self.normalised = PixelNorm(config.backbone.pixels)
        self.backbone = Backbone(config.backbone)
        levels = PyramidConfig(kernels.channels, lowest=2, highest=5)
        self.pyramid = Pyramid(self.backbone.channels, levels)
        self.features = SemanticPyramid(kernels.channels, kernels.level)
        self.initial = nn.Conv2d(kernels.channels, kernels.queries, 1, bias=False)
        self.semantic = nn.Conv2d(kernels.channels, classes.count, 1)
        self.updates = nn.ModuleList(
            KernelUpdate(kernels, classes.count, config.bank) for _ in range(kernels.stages)
        )
        nn.init.normal_(self.initial.weight, std=kernels.initial_deviation)
        nn.init.normal_(self.semantic.weight, std=0.01)
        nn.init.constant_(self.semantic.bias, PRIOR_LOGIT)  # type: ignore[arg-type]  # it has one

    @property
    def divisor(self) -> int:
        """Sides of the canvas must be multiples of it."""
        return 32

    @property
    def capacity(self) -> int:
        """Most entities of an image that the model can be trained on."""
        queries: int = self.config.kernels.queries
        return queries

    @property
    def mask_stride(self) -> int:
        """Pixels between the cells of a mask: half of the features'."""
        stride: int = 2 ** (self.config.kernels.level - 1)
        return stride

    def load_published(self, path: Path) -> Sequence[str]:
        """Load a released K-Net (`.pth` of MMDetection), by renaming.

        Raises:
            FormatError: The file is another model's, or the classes do not match.
        """
        return load_published(self, path, things_first(self._is_thing))

    def dense(self, pixels: Tensor) -> DenseOutputs:
        """Run everything on normalised pixels: there is no sampling in between."""
        place, name = self.features(self.pyramid(self.backbone(pixels)))
        semantic, masks = self.semantic(name), self.initial(place)
        features = place + name
        kernels = self.initial.weight.flatten(1) + gather_features(masks, features)
        masks = torch.cat([masks, semantic[:, self._stuff]], 1)
        stuff = self.semantic.weight.flatten(1)[self._stuff].expand(len(pixels), -1, -1)
        kernels = torch.cat([kernels, stuff.to(kernels.dtype)], 1)
        stages = [Stage(masks.new_zeros(*masks.shape[:2], 0), masks, {})]
        for update in self.updates:
            kernels, stage = update(features, kernels, stages[-1].masks)
            stages.append(stage)
        return DenseOutputs(tuple(stages), semantic)

    # --- training ----------------------------------------------------------------

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the losses of all stages; without entities they are finite."""
        outputs: DenseOutputs = self.run_dense(self.normalised(batch.images))
        with torch.no_grad():
            targets = self.targets(batch)
            matched = self.matches(outputs.stages, targets)
        terms: dict[str, Tensor] = {"semantic": self._semantic_loss(outputs.semantic, targets)}
        for number, (stage, slots) in enumerate(zip(outputs.stages, matched, strict=True)):
            for name, term in self._stage_losses(stage, slots, targets, number).items():
                terms[name] = terms[name] + term if name in terms else term
        return terms

    def targets(self, batch: Batch) -> Targets:
        """Sample the id map where the cells of the masks lie."""
        stride = self.mask_stride
        ids = batch.ids[:, stride // 2 :: stride, stride // 2 :: stride]
        slots = torch.arange(1, batch.num_slots + 1, device=ids.device)
        masks = (ids[:, None] == slots[:, None, None]).float()
        labels = batch.labels if self.classes else torch.zeros_like(batch.labels)
        present = measure(batch.ids, batch.num_slots).present
        named = (
            functional.pad(labels, (1, 0), value=-1).gather(1, ids.flatten(1)).reshape(ids.shape)
        )
        stuff = (named[:, None] == self._stuff[:, None, None]).float()
        wanted = present & self._is_thing[labels]
        return Targets(masks, wanted, self._column[labels], stuff, named)

    def matches(self, stages: Sequence[Stage], targets: Targets) -> list[Tensor]:
        """Return, for each stage, the `(B, N)` slot that each query answers for, or -1.

        The initial kernels are matched by their masks; each update by what the stage before it
        said, as released.
        """
        found: list[Tensor] = []
        for stage in stages[:-1]:
            queries = slice(0, self.config.kernels.queries)
            masks = doubled(stage.masks[:, queries].float())
            cost = mask_cost(masks, targets.masks, self.config.losses)
            if found:
                classes = stage.classes[:, queries][..., self._things]
                cost = cost + class_cost(classes, targets.labels, self.config.losses)
            found.append(match(cost, targets.wanted))
        return [found[0], *found]

    def _stage_losses(
        self, stage: Stage, slots: Tensor, targets: Targets, number: int
    ) -> dict[str, Tensor]:
        """Return the losses of one stage; the initial kernels, number 0, have no stuff."""
        weights, initial = self.config.losses, number == 0
        truth, there = self._truth(slots, targets, with_stuff=not initial)
        count = global_sum(there.sum().float()).clamp(min=1)
        masks = _enlarged(stage.masks[:, : there.shape[1]])
        terms = {
            "mask": weights.mask * share((_cross_entropy(masks, truth) * there).sum(), count),
            "dice": weights.dice * share((dice_loss(masks.sigmoid(), truth) * there).sum(), count),
        }
        if weights.rank:
            terms["rank"] = weights.rank * _rank_loss(masks, truth)
        if not initial:
            terms["entityness"] = self._class_loss(stage.classes, slots, targets, there, count)
            terms |= self._module_losses(stage, masks, truth, there, count)
        return terms

    def _truth(self, slots: Tensor, targets: Targets, *, with_stuff: bool) -> tuple[Tensor, Tensor]:
        """Return the `(B, N, h, w)` masks that kernels are to have, and `(B, N)` which have one."""
        index = slots.clamp(min=0)[..., None, None].expand(-1, -1, *targets.masks.shape[2:])
        truth, there = targets.masks.gather(1, index), slots >= 0
        if with_stuff:
            truth = torch.cat([truth, targets.stuff], 1)
            there = torch.cat([there, targets.stuff.flatten(2).any(2)], 1)
        return truth * there[..., None, None], there

    def _class_loss(
        self, logits: Tensor, slots: Tensor, targets: Targets, there: Tensor, count: Tensor
    ) -> Tensor:
        """Queries learn the things' columns, a stuff kernel its own class alone."""
        queries = slots.shape[1]
        logits = logits.float()
        label = targets.labels.gather(1, slots.clamp(min=0))
        columns = torch.arange(len(self._things), device=slots.device)
        wanted = (label[..., None] == columns) & (slots >= 0)[..., None]
        total = focal_sum(logits[:, :queries][..., self._things], wanted.float())
        own = logits[:, queries:][..., self._stuff].diagonal(dim1=1, dim2=2)
        total = total + focal_sum(own, there[:, queries:].float())
        weight: float = self.config.losses.entityness
        return weight * share(total, count)

    def _module_losses(
        self, stage: Stage, masks: Tensor, truth: Tensor, there: Tensor, count: Tensor
    ) -> dict[str, Tensor]:
        """Return the losses of the paper's two modules."""
        terms = {}
        for path, logits in stage.bank.items():
            weight = getattr(self.config.bank, path) * self.config.losses.dice
            dice = dice_loss(_enlarged(logits).sigmoid(), truth)
            terms[path] = weight * share((dice * there).sum(), count)
        overlap = self.config.overlap
        if overlap.activation != "none" and overlap.weight:
            terms["overlap"] = overlap.weight * share(
                _overlap_sum(masks, truth, there, overlap.activation), count
            )
        return terms

    def _semantic_loss(self, logits: Tensor, targets: Targets) -> Tensor:
        columns = torch.arange(self.classes.count, device=logits.device)
        wanted = (targets.classes[:, None] == columns[:, None, None]).float()
        count = global_sum((targets.classes >= 0).sum().float()).clamp(min=1)
        weight: float = self.config.losses.semantic
        return weight * share(focal_sum(_enlarged(logits), wanted), count)

    # --- prediction --------------------------------------------------------------

    @torch.no_grad()
    def candidates(self, images: Images) -> MaskCandidates:
        """Return the mask of every kernel, best first; masks may overlap."""
        outputs: DenseOutputs = self.run_dense(self.normalised(images))
        last = outputs.stages[-1]
        scores, labels = self._scores(last.classes.float().sigmoid())
        scores, order = scores.sort(dim=1, descending=True, stable=True)
        masks = _enlarged(last.masks).sigmoid()
        masks = masks.gather(1, order[..., None, None].expand_as(masks))
        boxes = mask_boxes(masks > 0.5) * self.mask_stride
        valid = torch.ones_like(scores, dtype=torch.bool)
        return MaskCandidates(
            scores, valid, boxes, labels.gather(1, order), masks, self.mask_stride
        )

    def _scores(self, probabilities: Tensor) -> tuple[Tensor, Tensor]:
        """Return `(B, N)` scores and classes: the likeliest thing, or the kernel's own stuff."""
        queries = self.config.kernels.queries
        score, column = probabilities[:, :queries][..., self._things].max(2)
        own = probabilities[:, queries:][..., self._stuff].diagonal(dim1=1, dim2=2)
        labels = torch.cat([self._things[column], self._stuff.expand_as(own)], 1)
        return torch.cat([score, own], 1), labels


def mask_boxes(masks: Tensor) -> Tensor:
    """Return `(..., 4)` float32 x0, y0, x1, y1 of `(..., h, w)` bool masks, in cells.

    Far sides are exclusive; an empty mask has zeros.
    """
    sides = []
    for dim in (-2, -1):  # reduced over rows: columns that are touched
        touched = masks.any(dim)
        length = touched.shape[-1]
        first = touched.int().argmax(-1)
        last = length - touched.flip(-1).int().argmax(-1)
        sides.append(torch.stack([first, last], -1) * touched.any(-1, keepdim=True))
    return torch.stack(sides, -1).flatten(-2).float()


def _buffer(values: Sequence[int]) -> nn.Buffer:
    kind = torch.bool if values and isinstance(values[0], bool) else torch.int64
    return nn.Buffer(torch.tensor(values, dtype=kind), persistent=False)


def _enlarged(logits: Tensor) -> Tensor:
    return doubled(logits.float())


def _cross_entropy(logits: Tensor, truth: Tensor) -> Tensor:
    """Return the `(B, N)` mean over the pixels."""
    every = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    return every.mean((-2, -1))


def _rank_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Return the mean cross-entropy, over pixels with an owner, of which kernel owns them."""
    owned = truth.any(1)
    owner = truth.argmax(1)
    surprise = functional.cross_entropy(logits, owner, reduction="none")
    count = global_sum(owned.sum().float()).clamp(min=1)
    return share((surprise * owned).sum(), count)


def _overlap_sum(logits: Tensor, truth: Tensor, there: Tensor, activation: str) -> Tensor:
    """Let the matched kernels of each image compete, and add up their Dice losses."""
    owned = truth.any(1, keepdim=True)
    total = torch.zeros((), device=logits.device)
    activations = ["softmax", "sigmoid"] if activation == "both" else [activation]
    for one in activations:
        dice = dice_loss(suppressed(logits, there, owned, one), truth)
        total = total + (dice * there).sum() / len(activations)
    return total


def _build(config: KNetConfig, classes: Classes) -> KNet:
    if classes and not any(classes.things):
        msg = "K-Net's queries find things, and none of the classes is one"
        raise FormatError(msg, hint="train it class-agnostic")
    return KNet(config, classes)


FAMILY = Family(
    name="knet",
    package="entitybench.baselines.knet",
    config=KNetConfig,
    build=_build,
    classes_key="kernels.class_specific",
)
