"""Every choice of PanopticFCN, with the released code's as the default where it has one.

`docs/models/panopticfcn.md` tells where it differs and why.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from entitybench.baselines.entity.config import Backbone
from entitybench.baselines.settings import Data, Schedule


@dataclass(frozen=True, slots=True)
class Levels:
    """The feature pyramid: P2 on, P6 and P7 from P5.

    Attributes:
        channels: Of every level.
        highest: Last level, 5 or more.
    """

    channels: int = 256
    highest: int = 7


@dataclass(frozen=True, slots=True)
class Head:
    """Positions and kernels, shared by all levels.

    Attributes:
        channels: Inside, and of a kernel before its generator.
        depth: Convolutions of each tower.
        deform: Whether the position tower's convolutions are deformable.
        first_level: First pyramid level that is searched; the last is the pyramid's.
        sizes: Greatest √(box area) that the first level answers for, in its strides. The next
            levels double it, the last has no bound. Each level starts at a quarter of its
            greatest, so that neighbours overlap.
        class_specific: Whether things and stuff are told apart, and their classes.
    """

    channels: int = 256
    depth: int = 3
    deform: bool = True
    first_level: int = 3
    sizes: float = 8.0
    class_specific: bool = False


@dataclass(frozen=True, slots=True)
class Features:
    """The fine map that kernels are applied to, at stride 4.

    Attributes:
        semantic_channels: Of the sum of P2 to P5.
        channels: Out, and of a generated kernel.
        depth: Convolutions of the encoder.
        deform: Whether they are deformable (the released Star configurations).
    """

    semantic_channels: int = 256
    channels: int = 64
    depth: int = 3
    deform: bool = False


@dataclass(frozen=True, slots=True)
class Training:
    """Targets and losses.

    Attributes:
        positives: Locations of each entity and level that learn its mask.
        per_image: Most pairs of entity and level whose masks are trained, drawn at random from
            each image; 0 takes all. Bounds the memory.
        position_weight: Of the two position losses.
        mask_weight: Of the two Dice losses.
    """

    positives: int = 7
    per_image: int = 0
    position_weight: float = 1.0
    mask_weight: float = 3.0


@dataclass(frozen=True, slots=True)
class Inference:
    """From maps to candidates.

    The thresholds are the released code's: what scores less would find little, and its kernels
    would be averaged into better ones. 50 per level became 100.

    Attributes:
        threshold: Least centre score, exclusive.
        per_level: Most centres of a level.
        similar: Kernels of a greater or equal cosine are one entity, and averaged.
        fusion: Whether only kernels of the same class are fused, or all (class-specific models).
        region_threshold: Least mean score of a stuff class on a level, exclusive.
        most: Entities of an image.
    """

    threshold: float = 0.05
    per_level: int = 100
    similar: float = 0.9
    fusion: Literal["apart", "together"] = "apart"
    region_threshold: float = 0.05
    most: int = 100


@dataclass(frozen=True, slots=True)
class PanopticFCNConfig:
    """PanopticFCN, its data and its schedule.

    Attributes:
        weights: A file with the weights of the whole model, as the released code writes it.
        swapped_mean: Whether the mean of red is taken from blue and the reverse, as the released
            configurations do. Their weights expect it.
    """

    backbone: Backbone = field(default_factory=Backbone)
    pyramid: Levels = field(default_factory=Levels)
    head: Head = field(default_factory=Head)
    features: Features = field(default_factory=Features)
    training: Training = field(default_factory=Training)
    inference: Inference = field(default_factory=Inference)
    data: Data = field(default_factory=Data)
    schedule: Schedule = field(default_factory=Schedule)
    weights: str = ""
    swapped_mean: bool = False
