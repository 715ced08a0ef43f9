"""PanopticFCN: every entity is a kernel, read at its centre or over its region.

Li et al., Fully Convolutional Networks for Panoptic Segmentation, CVPR 2021.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from entitybench.baselines.batch import Batch, Images
from entitybench.baselines.distributed import global_sum, share
from entitybench.baselines.entity.backbone import Backbone
from entitybench.baselines.entity.config import Pyramid as PyramidConfig
from entitybench.baselines.entity.losses import focal_sum
from entitybench.baselines.entity.pyramid import Pyramid
from entitybench.baselines.model import BaselineModel, Classes, MaskCandidates
from entitybench.baselines.panopticfcn.config import PanopticFCNConfig
from entitybench.baselines.panopticfcn.heads import (
    FeatureEncoder,
    Generator,
    KernelHead,
    PositionHead,
    SemanticPyramid,
)
from entitybench.baselines.panopticfcn.inference import (
    Found,
    find_centres,
    find_regions,
    fuse,
    fuse_regions,
    mask_boxes,
    mask_scores,
    mean_kernel,
)
from entitybench.baselines.panopticfcn.published import CLASS_LAYERS, RULES
from entitybench.baselines.panopticfcn.targets import (
    Chosen,
    best_places,
    centre_map,
    choose,
    dice_losses,
    region_map,
    shares,
    suits,
)
from entitybench.baselines.pixels import PixelNorm
from entitybench.baselines.regions import measure
from entitybench.baselines.registry import Family
from entitybench.baselines.renaming import load_renamed
from entitybench.errors import FormatError

_STRIDE = 4  # of the masks
_OFFSET = 1.5  # of their first cell: each stands for the middle of its pixels
_SMALL = 1e-8


class DenseOutputs(NamedTuple):
    """Raw outputs of the dense part; a tuple has one map per level.

    Attributes:
        centres: `(B, centres, h, w)` logits.
        regions: `(B, regions, h, w)` logits; without a channel for an agnostic model.
        kernels: `(B, C, h, w)`, before the generators.
        features: `(B, D, H/4, W/4)` that kernels are applied to.
    """

    centres: tuple[Tensor, ...]
    regions: tuple[Tensor, ...]
    kernels: tuple[Tensor, ...]
    features: Tensor


class PanopticFCN(BaselineModel):
    """PanopticFCN.

    Args:
        config: Every choice.
        classes: None makes all entities things of one class, without the branch for stuff.

    Raises:
        FormatError: There are classes, but none of things.
    """

    def __init__(self, config: PanopticFCNConfig, classes: Classes = Classes()) -> None:  # noqa: B008  # immutable
        super().__init__()
        self.config = config
        centre, region = _channels(classes)
        self._channel_of = nn.Buffer(torch.tensor(centre), persistent=False)
        self._region_of = nn.Buffer(torch.tensor(region), persistent=False)
        self.num_centres = max(centre) + 1
        self.num_regions = max(region) + 1 if any(region) else 0
        head, features = config.head, config.features
        self.backbone = Backbone(config.backbone)
        channels, highest = config.pyramid.channels, config.pyramid.highest
        levels = PyramidConfig(channels=channels, lowest=2, highest=highest, sixth_from="p5")
        self.pyramid = Pyramid(self.backbone.channels, levels)
        self.semantic = SemanticPyramid(channels, features.semantic_channels)
        self.position = PositionHead(channels, self.num_centres, self.num_regions, head)
        self.kernel = KernelHead(channels, head)
        self.encoder = FeatureEncoder(features)
        self.thing_generator = Generator(head.channels, features.channels)
        self.stuff_generator = (
            Generator(head.channels, features.channels) if self.num_regions else None
        )
        self._levels = range(head.first_level, config.pyramid.highest + 1)
        self._pixels = PixelNorm(config.backbone.pixels)

    @property
    def divisor(self) -> int:
        """Sides of the canvas must be multiples of it."""
        return 32

    @property
    def strides(self) -> list[int]:
        """Pixels between the cells of each level."""
        return [2**level for level in self._levels]

    def normalised(self, images: Images) -> Tensor:
        """Return normalised pixels in the backbone's channel order, zero around each image."""
        if self.config.swapped_mean:
            swapped: Tensor = self._pixels(Images(images.pixels.flip(1), images.sizes))
            return swapped.flip(1)
        pixels: Tensor = self._pixels(images)
        return pixels

    def dense(self, pixels: Tensor) -> DenseOutputs:
        """Run everything up to the maps on normalised pixels."""
        levels = self.pyramid(self.backbone(pixels))
        searched = [levels[level] for level in self._levels]
        centres, regions = zip(*(self.position(level) for level in searched), strict=True)
        kernels = tuple(self.kernel(level) for level in searched)
        return DenseOutputs(centres, regions, kernels, self.encoder(self.semantic(levels)))

    def _outputs(self, images: Images) -> DenseOutputs:
        dense: DenseOutputs = self.run_dense(self.normalised(images))
        centres, regions, kernels = (tuple(m.float() for m in maps) for maps in dense[:3])
        return DenseOutputs(centres, regions, kernels, dense.features.float())

    def load_published(self, path: Path) -> Sequence[str]:
        """Load a `.pth` of the released code; a class-specific model alone can.

        Its classes are in COCO's order, things and stuff, as those of `coco_entity_train`.
        """
        return load_renamed(self, path, RULES, class_layers=CLASS_LAYERS)

    # --- training ----------------------------------------------------------------

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the weighted terms; zero entities give a finite loss."""
        outputs = self._outputs(batch.images)
        terms = self._thing_losses(outputs, batch)
        if self.stuff_generator is not None:
            terms |= self._stuff_losses(self.stuff_generator, outputs, batch)
        return terms

    def _thing_losses(self, outputs: DenseOutputs, batch: Batch) -> dict[str, Tensor]:
        config = self.config.training
        channel = self._channel_of[batch.labels]
        regions = measure(batch.ids, batch.num_slots)
        member = suits(regions, self.strides, self.config.head.sizes) & (channel >= 0)[:, None]
        channel = channel.clamp(min=0)
        masks = shares(batch.ids, batch.num_slots)
        loss, scores, places = torch.zeros((), device=masks.device), [], []
        first = 0
        for level, logits in enumerate(outputs.centres):
            shape = (logits.shape[2], logits.shape[3])
            target = centre_map(
                regions, member[:, level], channel, self.num_centres, self.strides[level], shape
            )
            loss = loss + focal_sum(logits, target)
            best, inside = best_places(logits, masks, channel, config.positives)
            scores.append(best)
            places.append(inside + first)
            first += shape[0] * shape[1]
        chosen = choose(member.flatten(1), batch.seeds, config.per_image)
        weights = chosen.pick(torch.cat(scores, 1))
        kernels = self._kernels_at(outputs, chosen.pick(torch.cat(places, 1)))
        dice = self._dice(outputs.features, kernels, chosen, masks)
        weights = weights / weights.sum(2, keepdim=True).clamp(min=_SMALL)
        dice = (dice * weights).sum(2) * chosen.valid
        counts = _counts(member.sum(), chosen.valid.sum())
        return {
            "centres": config.position_weight * share(loss, counts[0]),
            "mask": config.mask_weight * share(dice.sum(), counts[1]),
        }

    def _kernels_at(self, outputs: DenseOutputs, places: Tensor) -> Tensor:
        """Return the `(B, K, P, D)` kernels at `(B, K, P)` places, counted over all levels."""
        every = torch.cat([m.flatten(2) for m in outputs.kernels], 2).transpose(1, 2)
        rows = places.flatten(1)[..., None].expand(-1, -1, every.shape[2])
        kernels: Tensor = self.thing_generator(every.gather(1, rows))
        return kernels.reshape(*places.shape, kernels.shape[2])

    def _dice(self, features: Tensor, kernels: Tensor, chosen: Chosen, masks: Tensor) -> Tensor:
        """Return the `(B, K, P)` Dice losses of the masks of P kernels of each chosen pair."""
        found = _apply(kernels.flatten(1, 2), features).sigmoid()
        found = found.reshape(*kernels.shape[:3], *found.shape[2:])
        number = chosen.index % masks.shape[1]
        wanted = number[..., None, None].expand(-1, -1, *masks.shape[2:])
        return dice_losses(found, masks.gather(1, wanted)[:, :, None])

    def _stuff_losses(
        self, generator: nn.Module, outputs: DenseOutputs, batch: Batch
    ) -> dict[str, Tensor]:
        config = self.config.training
        table = nn.functional.pad(self._region_of[batch.labels] + 1, (1, 0))  # 0 stays void
        classes = table.gather(1, batch.ids.flatten(1)).reshape(batch.ids.shape)
        masks = shares(classes, self.num_regions)
        loss, kernels, member = torch.zeros((), device=masks.device), [], []
        for logits, values in zip(outputs.regions, outputs.kernels, strict=True):
            target = region_map(masks, (logits.shape[2], logits.shape[3]))
            loss = loss + focal_sum(logits, target) / target[0, 0].numel()
            kernels.append(mean_kernel((target > 0).float(), values))
            member.append((target > 0).any(3).any(2))
        chosen = choose(torch.cat(member, 1), batch.seeds, config.per_image)
        picked = generator(chosen.pick(torch.cat(kernels, 1)))[:, :, None]
        dice = self._dice(outputs.features, picked, chosen, masks)[:, :, 0] * chosen.valid
        images = torch.tensor(len(masks), device=masks.device)
        counts = _counts(images, chosen.valid.sum())
        return {
            "regions": config.position_weight * share(loss, counts[0]),
            "stuff_mask": config.mask_weight * share(dice.sum(), counts[1]),
        }

    # --- prediction --------------------------------------------------------------

    @torch.no_grad()
    def candidates(self, images: Images) -> MaskCandidates:
        """Return things and stuff of each image, best first; masks may overlap."""
        outputs = self._outputs(images)
        scores, labels, masks = self._masks(outputs, self._things(outputs), self._channel_of)
        if self.stuff_generator is not None:
            stuff = self._masks(
                outputs, self._stuff(self.stuff_generator, outputs), self._region_of
            )
            scores, labels, masks = (
                torch.cat(pair, 1) for pair in zip((scores, labels, masks), stuff, strict=True)
            )
        most = min(self.config.inference.most, scores.shape[1])
        scores, order = scores.topk(most, dim=1)
        masks = masks.gather(1, order[..., None, None].expand(-1, -1, *masks.shape[2:]))
        return MaskCandidates(
            scores,
            scores > 0,
            mask_boxes(masks, _STRIDE),
            labels.gather(1, order),
            masks,
            _STRIDE,
            _OFFSET,
        )

    def _things(self, outputs: DenseOutputs) -> Found:
        config = self.config.inference
        found = find_centres(outputs.centres, outputs.kernels, config.per_level, config.threshold)
        kernels = self.thing_generator(found.kernels)
        return fuse(found._replace(kernels=kernels), config.similar, apart=config.fusion == "apart")

    def _stuff(self, generator: nn.Module, outputs: DenseOutputs) -> Found:
        threshold = self.config.inference.region_threshold
        pairs = zip(outputs.regions, outputs.kernels, strict=True)
        found = [find_regions(*pair, threshold) for pair in pairs]
        kernels = generator(torch.stack([level.kernels for level in found], 1))
        return fuse_regions(torch.stack([level.scores for level in found], 1), kernels)

    def _masks(
        self, outputs: DenseOutputs, found: Found, number_of: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return scores, labels and masks; a score is multiplied by its mask's."""
        best = found.best(found.scores.shape[1])
        masks = _apply(best.kernels, outputs.features).sigmoid()
        labels = (best.numbers[..., None] == number_of).long().argmax(2)
        return best.scores * mask_scores(masks), labels, masks


def _apply(kernels: Tensor, features: Tensor) -> Tensor:
    """Return the `(B, K, h, w)` logits of `(B, K, D)` kernels on `(B, D, h, w)` features."""
    return torch.bmm(kernels, features.flatten(2)).reshape(*kernels.shape[:2], *features.shape[2:])


def _counts(*values: Tensor) -> Tensor:
    """Return what sums are divided by, over all processes; never zero."""
    return global_sum(torch.stack([v.float() for v in values])).clamp(min=1)


def _channels(classes: Classes) -> tuple[list[int], list[int]]:
    """Return the channel of the centre and of the region map of each class.

    Stuff has no centre, and -1 for it. All things share region 0; without stuff every class has
    it, and there is no region map.
    """
    if not classes:
        return [0], [0]
    if not any(classes.things):
        msg = "a class-specific PanopticFCN needs classes of things, and there is none"
        raise FormatError(msg, where=f"{len(classes.names)} classes", hint="`--classes agnostic`")
    things, stuff = count(), count(1)
    centre = [next(things) if thing else -1 for thing in classes.things]
    return centre, [0 if thing else next(stuff) for thing in classes.things]


def _build(config: PanopticFCNConfig, classes: Classes) -> PanopticFCN:
    return PanopticFCN(config, classes)


FAMILY = Family(
    name="panopticfcn",
    package="entitybench.baselines.panopticfcn",
    config=PanopticFCNConfig,
    build=_build,
    classes_key="head.class_specific",
)
