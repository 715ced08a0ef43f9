"""Panoptic FPN (Kirillov and others, 2019): Mask R-CNN for things, a semantic branch for stuff.

`docs/models/panopticfpn.md` tells what differs from detectron2's.
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
from entitybench.baselines.entity.pyramid import Pyramid
from entitybench.baselines.model import BaselineModel, Classes, MaskCandidates
from entitybench.baselines.panopticfpn.boxes import encode, make_anchors
from entitybench.baselines.panopticfpn.config import PanopticFPNConfig
from entitybench.baselines.panopticfpn.detection import (
    BOX_SCALE,
    PROPOSAL_SCALE,
    Found,
    detect,
    propose,
)
from entitybench.baselines.panopticfpn.fusion import paste, stuff_regions, visible_things
from entitybench.baselines.panopticfpn.heads import (
    BOX_CELLS,
    MASK_CELLS,
    MASK_SIDE,
    BoxHead,
    MaskHead,
    ProposalHead,
    SemanticHead,
)
from entitybench.baselines.panopticfpn.published import CLASS_LAYERS, RULES
from entitybench.baselines.panopticfpn.roi_align import level_of, roi_align
from entitybench.baselines.panopticfpn.targets import (
    assign_anchors,
    assign_proposals,
    draw,
    mask_targets,
)
from entitybench.baselines.pixels import PixelNorm
from entitybench.baselines.regions import measure
from entitybench.baselines.registry import Family
from entitybench.baselines.renaming import load_renamed
from entitybench.errors import FormatError

_STRIDE = 4  # of the semantic map and of the pasted masks


class DenseOutputs(NamedTuple):
    """Raw outputs of the part with a fixed graph.

    Attributes:
        levels: P2…P5.
        objectness: `(B, A)` logits.
        changes: `(B, A, 4)` of the anchors.
        semantic: `(B, 1 + S, h, w)` logits at stride 4, all things first; S is 0 without stuff.
    """

    levels: tuple[Tensor, ...]
    objectness: Tensor
    changes: Tensor
    semantic: Tensor


class _Entities(NamedTuple):
    """The entities that Mask R-CNN is to find.

    Attributes:
        boxes: `(B, G, 4)`.
        wanted: `(B, G)` bool.
        column: `(B, G)` int64 class among those of things.
    """

    boxes: Tensor
    wanted: Tensor
    column: Tensor


class PanopticFPN(BaselineModel):
    """Panoptic FPN.

    Args:
        config: Every choice.
        classes: None is class-agnostic: Mask R-CNN with one class finds every entity alike, and
            there is no semantic branch. The paper has no such row.
    """

    def __init__(self, config: PanopticFPNConfig, classes: Classes) -> None:
        super().__init__()
        self.config = config
        kinds = classes.things or (True,)
        things = [number for number, kind in enumerate(kinds) if kind]
        stuff = [number for number, kind in enumerate(kinds) if not kind]
        self._things, self._stuff = _places(things), _places(stuff)
        # of each class its place among things, or among stuff from 1 on; elsewhere 0
        self._column = _places([things.index(c) if c in things else 0 for c in range(len(kinds))])
        self._layer = _places([stuff.index(c) + 1 if c in stuff else 0 for c in range(len(kinds))])
        self.normalised = PixelNorm(config.backbone.pixels)
        self.backbone = Backbone(config.backbone)
        levels = PyramidConfig(config.channels, lowest=2, highest=5)
        self.pyramid = Pyramid(self.backbone.channels, levels)
        self.proposal_head = ProposalHead(config.channels)
        self.box_head = BoxHead(config.channels, config.heads, len(things))
        self.mask_head = MaskHead(config.channels, config.heads, len(things))
        self.semantic = (
            SemanticHead(config.channels, config.semantic.channels, 1 + len(stuff))
            if stuff
            else None
        )

    @property
    def divisor(self) -> int:
        """Sides of the canvas must be multiples of it."""
        return 32

    def load_published(self, path: Path) -> Sequence[str]:
        """Load detectron2's Panoptic FPN or Mask R-CNN, by renaming.

        Raises:
            FormatError: The file is another model's, or the classes do not match.
        """
        return load_renamed(self, path, RULES, class_layers=CLASS_LAYERS)

    def dense(self, pixels: Tensor) -> DenseOutputs:
        """Run encoder, pyramid, proposal head and semantic branch on normalised pixels."""
        pyramid = self.pyramid(self.backbone(pixels))
        levels = tuple(pyramid[level] for level in range(2, 6))
        sixth = levels[-1][:, :, ::2, ::2]
        objectness, changes = self.proposal_head([*levels, sixth])
        semantic = pixels[:, :0, :0, :0] if self.semantic is None else self.semantic(levels)
        return DenseOutputs(levels, objectness, changes, semantic)

    def _anchors(self, outputs: DenseOutputs) -> tuple[Tensor, list[int]]:
        """Return the `(A, 4)` anchors and how many each level has."""
        shapes = [(int(m.shape[2]), int(m.shape[3])) for m in outputs.levels]
        shapes.append((-(-shapes[-1][0] // 2), -(-shapes[-1][1] // 2)))
        device = outputs.objectness.device
        anchors = make_anchors(tuple(shapes), self.config.proposals.anchor, device)
        cells = sum(h * w for h, w in shapes)
        return anchors, [len(anchors) // cells * h * w for h, w in shapes]

    def _box_outputs(self, levels: Sequence[Tensor], boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Return `(B, N, K + 1)` logits and `(B, N, K, 4)` changes of proposals."""
        regions = self._regions(levels, boxes, BOX_CELLS)
        with self._autocast(boxes.device.type):
            logits, changes = self.box_head(regions.flatten(0, 1))
        batch, count = boxes.shape[:2]
        return (
            logits.float().reshape(batch, count, -1),
            changes.float().reshape(batch, count, -1, 4),
        )

    def _mask_outputs(self, levels: Sequence[Tensor], boxes: Tensor, column: Tensor) -> Tensor:
        """Return the `(B, N, 28, 28)` logits of each box's class."""
        regions = self._regions(levels, boxes, MASK_CELLS)
        with self._autocast(boxes.device.type):
            masks = self.mask_head(regions.flatten(0, 1))
        index = column.flatten()[:, None, None, None].expand(-1, 1, *masks.shape[2:])
        own: Tensor = masks.gather(1, index)[:, 0].float()
        return own.reshape(*boxes.shape[:2], *own.shape[1:])

    def _regions(self, levels: Sequence[Tensor], boxes: Tensor, size: int) -> Tensor:
        level = level_of(boxes, self.config.heads.canonical, len(levels))
        return roi_align(levels, boxes, level, size)

    # --- training ----------------------------------------------------------------

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the losses of both stages and of the semantic branch."""
        outputs: DenseOutputs = self.run_dense(self.normalised(batch.images))
        regions = measure(batch.ids, batch.num_slots)
        is_thing = (self._layer == 0)[batch.labels]
        wanted = regions.present & is_thing
        entities = _Entities(regions.boxes, wanted, self._column[batch.labels])
        terms = self._proposal_losses(outputs, entities, batch)
        terms |= self._region_losses(outputs, entities, batch)
        if self.semantic is not None:
            terms["semantic"] = self.config.semantic.weight * self._semantic_loss(outputs, batch)
        return terms

    def _proposal_losses(
        self, outputs: DenseOutputs, entities: _Entities, batch: Batch
    ) -> dict[str, Tensor]:
        config = self.config.proposals
        anchors, _ = self._anchors(outputs)
        entity, positive, negative = assign_anchors(
            anchors, entities.boxes, entities.wanted, config.foreground, config.background
        )
        drawn = draw(positive, negative, batch.seeds, config.per_image, 0.5)
        logits = outputs.objectness.float().gather(1, drawn.place)
        objectness = functional.binary_cross_entropy_with_logits(
            logits, drawn.positive.float(), reduction="none"
        )
        fore = drawn.place[:, : drawn.slots]
        targets = encode(
            anchors[fore], _of_entities(entities.boxes, entity.gather(1, fore)), PROPOSAL_SCALE
        )
        found = _rows(outputs.changes.float(), fore)
        count = global_sum(found.new_tensor(float(len(found) * config.per_image)))
        return {
            "objectness": share((objectness * drawn.valid).sum(), count),
            "proposal": share(_distance(found, targets, drawn.positive[:, : drawn.slots]), count),
        }

    def _region_losses(
        self, outputs: DenseOutputs, entities: _Entities, batch: Batch
    ) -> dict[str, Tensor]:
        config = self.config.heads
        with torch.no_grad():
            proposals, valid = self._proposals(outputs, batch.images, entities)
            entity, positive, negative = assign_proposals(
                proposals, valid, entities.boxes, entities.wanted, config.foreground
            )
            # other keys than the anchors': an image's first proposals are no first anchors
            drawn = draw(positive, negative, ~batch.seeds, config.per_image, config.positive)
        boxes = _rows(proposals, drawn.place)
        entity = entity.gather(1, drawn.place)
        column = entities.column.gather(1, entity) if batch.num_slots else entity
        logits, changes = self._box_outputs(outputs.levels, boxes)
        count = global_sum(drawn.valid.sum().float()).clamp(min=1)
        label = torch.where(drawn.positive, column, len(self._things))
        classes = functional.cross_entropy(logits.flatten(0, 1), label.flatten(), reduction="none")
        fore = slice(0, drawn.slots)
        own = column[:, fore, None, None].expand(-1, -1, 1, 4)
        change = changes[:, fore].gather(2, own)[:, :, 0]
        targets = encode(
            _nonempty(boxes[:, fore]), _of_entities(entities.boxes, entity[:, fore]), BOX_SCALE
        )
        return {
            "class": share((classes * drawn.valid.flatten()).sum(), count),
            "box": share(_distance(change, targets, drawn.positive[:, fore]), count),
            "mask": self._mask_loss(
                outputs, boxes[:, fore], entity[:, fore], column[:, fore], drawn.positive[:, fore],
                batch,
            ),
        }  # fmt: skip

    def _mask_loss(
        self,
        outputs: DenseOutputs,
        boxes: Tensor,
        entity: Tensor,
        column: Tensor,
        positive: Tensor,
        batch: Batch,
    ) -> Tensor:
        logits = self._mask_outputs(outputs.levels, boxes, column)
        truth = mask_targets(batch.ids, boxes, entity, MASK_SIDE)
        every = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
        count = global_sum(positive.sum().float()).clamp(min=1)
        return share((every.mean((2, 3)) * positive).sum(), count)

    def _semantic_loss(self, outputs: DenseOutputs, batch: Batch) -> Tensor:
        half = _STRIDE // 2
        ids = batch.ids[:, half::_STRIDE, half::_STRIDE]
        layer = functional.pad(self._layer[batch.labels], (1, 0), value=-1)
        truth = layer.gather(1, ids.flatten(1)).reshape(ids.shape)
        every = functional.cross_entropy(
            outputs.semantic.float(), truth, ignore_index=-1, reduction="none"
        )
        return share(every.sum(), global_sum((truth >= 0).sum().float()).clamp(min=1))

    def _proposals(
        self, outputs: DenseOutputs, images: Images, entities: _Entities | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return `(B, N, 4)` proposals, the entities' own boxes among them in training."""
        anchors, lengths = self._anchors(outputs)
        boxes, valid = propose(
            outputs.objectness.float(),
            outputs.changes.float(),
            anchors,
            lengths,
            images.sizes,
            self.config.proposals,
            training=self.training,
        )
        if entities is None:
            return boxes, valid
        return torch.cat([boxes, entities.boxes], 1), torch.cat([valid, entities.wanted], 1)

    # --- prediction --------------------------------------------------------------

    @torch.no_grad()
    def candidates(self, images: Images) -> MaskCandidates:
        """Return things and stuff, best first; sure things do not overlap stuff."""
        outputs: DenseOutputs = self.run_dense(self.normalised(images))
        found = self._detections(outputs, images)
        height, width = images.pixels.shape[-2:]
        logits = self._mask_outputs(outputs.levels, found.boxes, found.labels)
        masks = paste(logits.sigmoid(), found.boxes, height // _STRIDE, width // _STRIDE, _STRIDE)
        valid = visible_things(masks > 0.5, found.valid, self.config.inference.hidden)
        found = found._replace(labels=self._things[found.labels], valid=valid)
        if self.semantic is not None:
            found, masks = self._with_stuff(outputs, found, masks, images)
        scores = found.scores.masked_fill(~found.valid, 0.0)
        scores, order = scores.sort(dim=1, descending=True, stable=True)
        return MaskCandidates(
            scores,
            found.valid.gather(1, order),
            _rows(found.boxes, order),
            found.labels.gather(1, order),
            masks.gather(1, order[..., None, None].expand_as(masks)),
            _STRIDE,
        )

    def _detections(self, outputs: DenseOutputs, images: Images) -> Found:
        proposals, valid = self._proposals(outputs, images)
        logits, changes = self._box_outputs(outputs.levels, proposals)
        return detect(logits, changes, proposals, valid, images.sizes, self.config.inference)

    def _with_stuff(
        self, outputs: DenseOutputs, found: Found, masks: Tensor, images: Images
    ) -> tuple[Found, Tensor]:
        """Add a candidate for each stuff class, in what sure things leave over."""
        half, config = _STRIDE // 2, self.config.inference
        sure = found.valid & (found.scores >= config.sure)
        taken = ((masks > 0.5) & sure[..., None, None]).any(1)
        inside = images.inside[:, 0, half::_STRIDE, half::_STRIDE]
        regions, scores, enough = stuff_regions(outputs.semantic, taken, inside, _STRIDE, config)
        height, width = images.pixels.shape[-2:]
        canvas = scores.new_tensor([0.0, 0.0, width, height]).expand(*scores.shape, 4)
        together = Found(
            torch.cat([found.boxes, canvas], 1),
            torch.cat([found.scores, scores], 1),
            torch.cat([found.labels, self._stuff.expand_as(scores)], 1),
            torch.cat([found.valid, enough], 1),
        )
        return together, torch.cat([masks, regions.to(masks.dtype)], 1)


def _places(values: Sequence[int]) -> nn.Buffer:
    return nn.Buffer(torch.tensor(values, dtype=torch.int64), persistent=False)


def _rows(rows: Tensor, index: Tensor) -> Tensor:
    return rows.gather(1, index[..., None].expand(-1, -1, rows.shape[2]))


def _of_entities(boxes: Tensor, entity: Tensor) -> Tensor:
    """Return the box of each entity named; of unit size where there is none."""
    if not boxes.shape[1]:
        return _nonempty(boxes.new_zeros(*entity.shape, 4))
    return _nonempty(_rows(boxes, entity))


def _nonempty(boxes: Tensor) -> Tensor:
    """Give boxes without extent, which no loss counts, a finite logarithm."""
    return torch.cat([boxes[..., :2], torch.maximum(boxes[..., 2:], boxes[..., :2] + 1e-3)], -1)


def _distance(found: Tensor, targets: Tensor, positive: Tensor) -> Tensor:
    """Return the summed absolute distance where there is something to find."""
    targets = torch.where(positive[..., None], targets, found.detach())
    return (found - targets).abs().sum()


def _build(config: PanopticFPNConfig, classes: Classes) -> PanopticFPN:
    if classes and not any(classes.things):
        msg = "Mask R-CNN finds things, and none of the classes is one"
        raise FormatError(msg, hint="train it class-agnostic")
    return PanopticFPN(config, classes)


FAMILY = Family(
    name="panopticfpn",
    package="entitybench.baselines.panopticfpn",
    config=PanopticFPNConfig,
    build=_build,
    classes_key="heads.class_specific",
)
