"""Every choice of K-Net, with the released panoptic configuration as the default."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from entitybench.baselines.entity.config import Backbone, Overlap
from entitybench.baselines.settings import Data, Schedule


@dataclass(frozen=True, slots=True)
class Kernels:
    """The kernels and the heads that update them.

    Attributes:
        queries: Learned kernels, each of which finds one entity at most (in class-specific
            models: one thing). A stuff class has one kernel of its own beside them.
        stages: Updates, one head each.
        level: Pyramid level whose size the features have; masks are twice as fine.
        channels: Of features and kernels.
        heads: Of the attention among kernels.
        feedforward: Channels inside the feed-forward part.
        initial_deviation: Of the learned kernels before training.
        class_specific: Whether there are classes.
    """

    queries: int = 100
    stages: int = 3
    level: Literal[2, 3] = 3
    channels: int = 256
    heads: int = 8
    feedforward: int = 2048
    initial_deviation: float = 1.0
    class_specific: bool = False


@dataclass(frozen=True, slots=True)
class Losses:
    """Weights of the losses, the same at every stage; the matching costs use the first three.

    Attributes:
        entityness: Focal loss of a kernel's class.
        mask: Cross-entropy of a matched kernel's mask.
        dice: Dice loss of the same.
        rank: Cross-entropy over all kernels at each pixel of an entity. The paper does not name
            it; the released panoptic configuration has it.
        semantic: Focal loss of the semantic map that the stuff kernels start from.
    """

    entityness: float = 2.0
    mask: float = 1.0
    dice: float = 4.0
    rank: float = 0.1
    semantic: float = 1.0


@dataclass(frozen=True, slots=True)
class Bank:
    """The global kernel bank around K-Net's only dynamic layer; 0 leaves a path out.

    Attributes:
        static_first: λ of the path that convolves the features with static 3×3 kernels, then
            with the dynamic kernel (01).
        static_last: λ of the path that multiplies the features by the dynamic kernel, then sums
            with static 3×3 kernels (10).
    """

    static_first: float = 0.0
    static_last: float = 0.0


@dataclass(frozen=True, slots=True)
class Inference:
    """From outputs to an entity map.

    Attributes:
        rescore: Whether a score is multiplied by the mean mask probability of its pixels.
        least_side: Painted entities with a shorter box side are dropped.
    """

    rescore: bool = False
    least_side: int = 1


@dataclass(frozen=True, slots=True)
class KNetConfig:
    """K-Net, its data and its schedule.

    Attributes:
        weights: A file with a whole published model, or nothing.
    """

    backbone: Backbone = field(
        default_factory=lambda: Backbone(stride_in_1x1=False, pixels="imagenet")
    )
    kernels: Kernels = field(default_factory=Kernels)
    losses: Losses = field(default_factory=Losses)
    bank: Bank = field(default_factory=Bank)
    overlap: Overlap = field(default_factory=lambda: Overlap(activation="none"))
    inference: Inference = field(default_factory=Inference)
    data: Data = field(default_factory=Data)
    schedule: Schedule = field(default_factory=Schedule)
    weights: str = ""
