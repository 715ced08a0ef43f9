"""What every model family shares in its configuration: data and schedule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol


@dataclass(frozen=True, slots=True)
class Data:
    """How photographs become batches.

    Attributes:
        short_sides: The shorter side is drawn from these, in pixels.
        test_short_side: The shorter side at prediction.
        longest: Longest side; a longer image is reduced further.
        jitter: The resized image is scaled further by a factor drawn from this range.
        crop: Side of a square canvas that jittered images are cropped or padded to; 0 takes the
            batch's largest image.
        divisor: Canvas sides are multiples of it.
        flip: Probability of a mirror image.
        colour: Strength of random brightness and contrast, 0 for none.
        subset: Which entities are trained on; the others become void.
        balance: Shares of a union's sets: by `size`, or `equal`.
        budget: Images of an epoch, pre-sampled (the paper's 138,497); 0 takes all.
        most_entities: Images with more entities are not trained on; 0 takes all. For models with
            a limit.
        group: Whether batches hold images of one orientation.
        fixed_canvas: Whether every canvas has the greatest size there can be, so that the shapes
            of a run are two (one for each orientation).
    """

    short_sides: tuple[int, ...] = (640, 672, 704, 736, 768, 800)
    test_short_side: int = 800
    longest: int = 1333
    jitter: tuple[float, float] = (1.0, 1.0)
    crop: int = 0
    divisor: int = 32
    flip: float = 0.5
    colour: float = 0.0
    subset: Literal["all", "things", "stuff"] = "all"
    balance: Literal["size", "equal"] = "size"
    budget: int = 0
    most_entities: int = 0
    group: bool = True
    fixed_canvas: bool = False


@dataclass(frozen=True, slots=True)
class Schedule:
    """Optimiser, learning rate and precision.

    Attributes:
        steps: Optimiser steps.
        batch: Images of a step, over all devices.
        optimiser: `sgd` has momentum 0.9.
        rate: Learning rate.
        backbone_rate: That of the backbone, as a multiple.
        decay: Weight decay.
        warmup: Steps of linear warm-up, from a thousandth of the rate.
        shape: `steps` falls to a tenth at each drop, `cosine` and `poly` (power 0.9) to zero at the
            end.
        drops: Where the rate falls, as fractions of all steps.
        clip: Largest norm of the gradient; 0 is no limit.
        precision: Of the dense part under autocast; losses are float32. A CPU that has no
            bfloat16 of its own computes in float32 all the same.
        channels_last: Memory format of the dense part.
        compile: Whether the dense part goes through `torch.compile`.
        log_every: Steps between lines of the log; the loss is looked at (which waits for the
            device) only then and before a checkpoint.
        save_every: Steps between checkpoints; 0 saves at the end alone.
        validate_every: Steps between validations; 0 validates at the end alone.
        validate_images: Images of a validation.
    """

    steps: int = 90_000
    batch: int = 16
    optimiser: Literal["sgd", "adamw"] = "sgd"
    rate: float = 0.01
    backbone_rate: float = 1.0
    decay: float = 1e-4
    warmup: int = 1500
    shape: Literal["steps", "cosine", "poly"] = "steps"
    drops: tuple[float, ...] = (0.666667, 0.888889)
    clip: float = 0.0
    precision: Literal["float32", "bfloat16"] = "float32"
    channels_last: bool = True
    compile: bool = False
    log_every: int = 20
    save_every: int = 2000
    validate_every: int = 0
    validate_images: int = 200


class FamilyConfig(Protocol):
    """What the shared code needs to know of a family's configuration."""

    @property
    def data(self) -> Data:
        """How photographs become batches."""

    @property
    def schedule(self) -> Schedule:
        """Optimiser, learning rate and precision."""
