"""The reference model: encoder, pyramid, head, mask branch, mask head, and their losses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from entitybench.baselines.batch import Batch, Images
from entitybench.baselines.distributed import global_sum, share
from entitybench.baselines.entity.assignment import Assignment, Samples, assign, choose
from entitybench.baselines.entity.backbone import Backbone
from entitybench.baselines.entity.config import EntityConfig
from entitybench.baselines.entity.grid import Grid, make_grid
from entitybench.baselines.entity.head import Head, HeadOutputs
from entitybench.baselines.entity.inference import Detections, detect
from entitybench.baselines.entity.losses import dice_loss, focal_sum, giou_loss
from entitybench.baselines.entity.mask_branch import MaskBranch, aligned_upsample
from entitybench.baselines.entity.mask_head import DYNAMIC_PATH, MaskHead, num_kernel_parameters
from entitybench.baselines.entity.overlap import clusters, membership, representatives, suppressed
from entitybench.baselines.entity.pyramid import Pyramid
from entitybench.baselines.model import BaselineModel, Classes, MaskCandidates
from entitybench.baselines.pixels import PixelNorm
from entitybench.baselines.registry import Family


class DenseOutputs(NamedTuple):
    """Raw outputs of the dense part.

    Attributes:
        head: Of all locations.
        mask_features: `(B, C, h, w)`; of no size for a detector.
    """

    head: HeadOutputs
    mask_features: Tensor


class EntityModel(BaselineModel):
    """The paper's model.

    Args:
        config: Every choice.
        num_classes: 1 is class-agnostic.
    """

    def __init__(self, config: EntityConfig, num_classes: int = 1) -> None:
        super().__init__()
        self.config = config
        self.backbone = Backbone(config.backbone, config.pyramid.lowest)
        self.pyramid = Pyramid(self.backbone.channels, config.pyramid)
        self._levels = range(config.head.first_level, config.pyramid.highest + 1)
        channels, mask = config.pyramid.channels, config.mask
        kernels = num_kernel_parameters(mask.channels) if mask.enabled else 0
        self.head = Head(channels, len(self._levels), num_classes, kernels, config.head)
        self.mask_branch = MaskBranch(channels, mask) if mask.enabled else None
        self.mask_head = MaskHead(mask.channels, config.bank) if mask.enabled else None
        self.normalised = PixelNorm(config.backbone.pixels)

    @property
    def divisor(self) -> int:
        """Sides of the canvas must be multiples of it."""
        return 32

    @property
    def finds_masks(self) -> bool:
        """False for the detector of Table 1."""
        return self.mask_head is not None

    def dense(self, pixels: Tensor) -> DenseOutputs:
        """Run encoder, pyramid, head and mask branch on normalised pixels."""
        levels = self.pyramid(self.backbone(pixels))
        head = self.head([levels[level] for level in self._levels])
        if self.mask_branch is None:
            return DenseOutputs(head, pixels[:, :0, :0, :0])
        return DenseOutputs(head, self.mask_branch(levels))

    def grid_of(self, pixels: Tensor) -> Grid:
        """Return the locations of images on this canvas."""
        height, width = pixels.shape[-2:]
        shapes = tuple(_side_lengths(height, width, level) for level in self._levels)
        return make_grid(shapes, self._levels[0], self.config.head.sizes, pixels.device)

    # --- training ----------------------------------------------------------------

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the terms of equation 5, weighted; zero positives give a finite loss."""
        outputs: DenseOutputs = self.run_dense(self.normalised(batch.images))
        grid = self.grid_of(batch.images.pixels)
        with torch.no_grad():
            targets = assign(batch, grid, self.config.sampling)
            samples = choose(targets, batch.seeds, self.config.sampling)
            counts = _counts(targets, samples, batch)
        terms = self._detection_losses(outputs.head, targets, batch, counts)
        if self.mask_head is not None:
            terms |= self._mask_losses(self.mask_head, outputs, grid, samples, batch, counts)
        return terms

    def _detection_losses(
        self, head: HeadOutputs, targets: Assignment, batch: Batch, counts: _Counts
    ) -> dict[str, Tensor]:
        logits = head.entityness.float()
        label = batch.labels.gather(1, targets.entity)
        classes = torch.arange(logits.shape[2], device=logits.device)
        wanted = targets.positive[..., None] & (label[..., None] == classes)
        positive = targets.positive[..., None]
        distances = torch.where(positive, head.distances.float(), 1.0)
        wanted_distances = torch.where(positive, targets.distances, 1.0)
        boxes = giou_loss(distances, wanted_distances) * targets.centerness
        centerness = nn.functional.binary_cross_entropy_with_logits(
            head.centerness.float(), targets.centerness, targets.positive.float(), reduction="sum"
        )
        return {
            "entityness": share(focal_sum(logits, wanted.float()), counts.positives),
            "localisation": share(boxes.sum(), counts.centerness),
            "centerness": share(centerness, counts.positives),
        }

    def _mask_losses(
        self,
        mask_head: MaskHead,
        outputs: DenseOutputs,
        grid: Grid,
        samples: Samples,
        batch: Batch,
        counts: _Counts,
    ) -> dict[str, Tensor]:
        config = self.config
        competes = config.overlap.activation != "none" and config.overlap.weight > 0
        paths = sorted({*mask_head.paths, *([DYNAMIC_PATH] if competes else [])})
        logits = self._masks(mask_head, outputs, grid, samples.index, paths)
        truth = self._mask_truth(batch.ids)
        own = truth[:, None] == (samples.entity + 1)[..., None, None]
        mask = torch.zeros((), device=truth.device)
        for path in mask_head.paths:
            dice = dice_loss(self._enlarged(logits[path]).sigmoid(), own)
            mask = mask + config.bank.weights[path - 1] * (dice * samples.valid).sum()
        terms = {"mask": share(mask, counts.samples)}
        if competes:
            overlap = self._overlap_sum(logits[DYNAMIC_PATH], samples, truth, batch.num_slots)
            terms["overlap"] = config.overlap.weight * share(overlap, counts.entities)
        return terms

    def _masks(
        self,
        mask_head: MaskHead,
        outputs: DenseOutputs,
        grid: Grid,
        index: Tensor,
        paths: Sequence[int],
    ) -> dict[int, Tensor]:
        kernels = outputs.head.kernels
        chosen = kernels.gather(1, index[..., None].expand(-1, -1, kernels.shape[2]))
        points, strides = grid.points[index], grid.strides[index]
        stride = 2**self.config.mask.level
        masks: dict[int, Tensor] = mask_head(
            outputs.mask_features, chosen, points, strides, stride, paths
        )
        return masks

    def _enlarged(self, logits: Tensor) -> Tensor:
        return aligned_upsample(logits, self.config.mask.upsample)

    @property
    def mask_stride(self) -> int:
        """Pixels between the cells of a mask."""
        stride: int = 2**self.config.mask.level // self.config.mask.upsample
        return stride

    def _mask_truth(self, ids: Tensor) -> Tensor:
        """Sample the id map where the cells of the masks lie."""
        stride = self.mask_stride
        return ids[:, stride // 2 :: stride, stride // 2 :: stride]

    def _overlap_sum(self, logits: Tensor, samples: Samples, truth: Tensor, slots: int) -> Tensor:
        cluster, entity = clusters(samples.entity, samples.valid, slots)
        mean, count = representatives(logits, cluster, samples.valid, entity.shape[1])
        mean, has_kernel = self._enlarged(mean), count > 0
        own = truth[:, None] == (entity + 1)[..., None, None]
        owned = truth[:, None] > 0
        kind = self.config.overlap.activation
        total = torch.zeros((), device=truth.device)
        activations = ["softmax", "sigmoid"] if kind == "both" else [kind]
        for activation in activations:
            dice = dice_loss(suppressed(mean, has_kernel, owned, activation), own)
            total = total + (dice * has_kernel).sum() / len(activations)
        return total

    # --- prediction --------------------------------------------------------------

    @torch.no_grad()
    def candidates(self, images: Images) -> MaskCandidates:
        """Return the entities of each image, best first; masks may overlap."""
        outputs: DenseOutputs = self.run_dense(self.normalised(images))
        grid = self.grid_of(images.pixels)
        found = detect(outputs.head, grid, self.config.inference)
        if self.mask_head is None:
            masks = found.scores.new_zeros(*found.scores.shape, 0, 0)
        else:
            masks = self._probabilities(self.mask_head, outputs, grid, found)
        return MaskCandidates(
            found.scores, found.valid, found.boxes, found.labels, masks, self.mask_stride
        )

    def _probabilities(
        self, mask_head: MaskHead, outputs: DenseOutputs, grid: Grid, found: Detections
    ) -> Tensor:
        every = self.config.inference.paths == "all"
        paths = mask_head.paths if every else (DYNAMIC_PATH,)
        logits = self._masks(mask_head, outputs, grid, found.index, paths)
        return torch.stack([self._enlarged(logits[p]).sigmoid() for p in paths]).mean(0)


class _Counts(NamedTuple):
    """What the sums are divided by, over all processes; never zero."""

    positives: Tensor
    centerness: Tensor
    samples: Tensor
    entities: Tensor


def _counts(targets: Assignment, samples: Samples, batch: Batch) -> _Counts:
    member = membership(samples.entity, samples.valid, batch.num_slots)
    values = torch.stack(
        [
            targets.positive.sum().float(),
            targets.centerness.sum(),
            samples.valid.sum().float(),
            member.any(1).sum().float(),
        ]
    )
    positives, centerness, masks, entities = global_sum(values).unbind()
    return _Counts(
        positives.clamp(min=1),
        centerness.clamp(min=1e-6),
        masks.clamp(min=1),
        entities.clamp(min=1),
    )


def _side_lengths(height: int, width: int, level: int) -> tuple[int, int]:
    """Return the sides of a level's map: halved and rounded up, level by level."""
    scale = 2**level
    return -(-height // scale), -(-width // scale)


def _build(config: EntityConfig, classes: Classes) -> EntityModel:
    return EntityModel(config, classes.count)


FAMILY = Family(
    name="entity",
    package="entitybench.baselines.entity",
    config=EntityConfig,
    build=_build,
    classes_key="head.class_specific",
)
