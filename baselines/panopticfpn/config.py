"""Every choice of Panoptic FPN, with detectron2's configuration as the default."""

from __future__ import annotations

from dataclasses import dataclass, field

from entitybench.baselines.entity.config import Backbone
from entitybench.baselines.settings import Data, Schedule


@dataclass(frozen=True, slots=True)
class Proposals:
    """The region proposal network.

    Attributes:
        anchor: Side of a square anchor, in strides of its level.
        foreground: Anchors that share at least this with an entity's box are trained to find it,
            and the best ones of each entity.
        background: Anchors that share less with every entity are trained to find nothing.
        per_image: Anchors drawn for training, half of them foreground at most.
        per_level: Best anchors of a level before suppression, in training.
        per_level_test: The same, at prediction.
        nms_iou: Boxes of a level that share more are duplicates.
        kept: Proposals of an image.
    """

    anchor: float = 8.0
    foreground: float = 0.7
    background: float = 0.3
    per_image: int = 256
    per_level: int = 2000
    per_level_test: int = 1000
    nms_iou: float = 0.7
    kept: int = 1000


@dataclass(frozen=True, slots=True)
class Heads:
    """The heads that look at one region each.

    Attributes:
        foreground: Least IoU of a proposal with the box that it is trained on.
        per_image: Proposals drawn for training.
        positive: Largest share of foreground among them.
        canonical: Side of a box that is looked at on P4; half of it on P3, and so on.
        channels: Of the box head.
        mask_channels: Of the mask head.
        mask_depth: Convolutions of the mask head.
        class_specific: Whether there are classes. Then Mask R-CNN finds the things, and a
            semantic branch the stuff; else Mask R-CNN finds all entities alike.
    """

    foreground: float = 0.5
    per_image: int = 512
    positive: float = 0.25
    canonical: float = 224.0
    channels: int = 1024
    mask_channels: int = 256
    mask_depth: int = 4
    class_specific: bool = False


@dataclass(frozen=True, slots=True)
class Semantic:
    """The semantic branch: stuff classes, and one class for all things.

    Attributes:
        channels: Inside the branch.
        weight: Of its loss.
    """

    channels: int = 128
    weight: float = 0.5


@dataclass(frozen=True, slots=True)
class Inference:
    """From outputs to an entity map.

    Attributes:
        threshold: Least score of a detection.
        before_nms: Most candidates of an image before suppression.
        nms_iou: Boxes of a class that share more are duplicates.
        most: Detections of an image.
        hidden: A detection that better ones cover by more than this share is dropped.
        sure: Stuff gives way to detections of at least this score; below, the better score wins.
        stuff_area: Least pixels of a stuff region in an image of 640×480; in others in proportion.
        rescore: Whether a score is multiplied by the mean mask probability of its pixels.
        least_side: Painted entities with a shorter box side are dropped.
    """

    threshold: float = 0.05
    before_nms: int = 2000
    nms_iou: float = 0.5
    most: int = 100
    hidden: float = 0.5
    sure: float = 0.5
    stuff_area: float = 4096.0
    rescore: bool = False
    least_side: int = 1


@dataclass(frozen=True, slots=True)
class PanopticFPNConfig:
    """Panoptic FPN, its data and its schedule.

    Attributes:
        channels: Of the feature pyramid.
        weights: A file with a whole published model, or nothing.
    """

    backbone: Backbone = field(default_factory=Backbone)
    channels: int = 256
    proposals: Proposals = field(default_factory=Proposals)
    heads: Heads = field(default_factory=Heads)
    semantic: Semantic = field(default_factory=Semantic)
    inference: Inference = field(default_factory=Inference)
    data: Data = field(default_factory=Data)
    schedule: Schedule = field(default_factory=Schedule)
    weights: str = ""
