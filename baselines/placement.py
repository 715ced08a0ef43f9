"""Where each photograph lies on its canvas: resizing, jitter, crop and mirror as numbers.

Drawing these numbers costs nothing and depends on a seed alone; `augmentation` applies them on
the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from entitybench.baselines.settings import Data


@dataclass(frozen=True, slots=True)
class Placement:
    """How one photograph is resized and cut.

    Attributes:
        resized: Height and width of the whole photograph after resizing.
        corner: Row and column of the resized photograph at the canvas's first pixel.
        visible: Height and width of what lies on the canvas.
        mirrored: Whether the visible part is mirrored left to right.
        contrast: Factor around middle gray.
        brightness: Added, in gray levels.
        seed: For what else is drawn at random from this image.
    """

    resized: tuple[int, int]
    corner: tuple[int, int]
    visible: tuple[int, int]
    mirrored: bool
    contrast: float
    brightness: float
    seed: int


def resized_to(size: tuple[int, int], short_side: int, longest: int) -> tuple[int, int]:
    """Return height and width with a given shorter side, or less where the longer is bounded.

    >>> resized_to((480, 640), 800, 1333), resized_to((400, 1000), 800, 1333)
    ((800, 1067), (533, 1333))
    """
    scale = min(short_side / min(size), longest / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def whole_placement(size: tuple[int, int], data: Data) -> Placement:
    """Return the placement at prediction: resized, whole, as it is."""
    resized = resized_to(size, data.test_short_side, data.longest)
    return Placement(resized, (0, 0), resized, False, 1.0, 0.0, 0)


def draw_placement(size: tuple[int, int], data: Data, seed: Sequence[int]) -> Placement:
    """Draw a placement for training; the seed determines it."""
    rng = np.random.default_rng(seed)
    short = int(rng.choice(data.short_sides))
    factor = rng.uniform(*data.jitter)
    height, width = resized_to(size, short, data.longest)
    resized = max(1, round(height * factor)), max(1, round(width * factor))
    visible = (min(resized[0], data.crop), min(resized[1], data.crop)) if data.crop else resized
    corner = (
        int(rng.integers(resized[0] - visible[0] + 1)),
        int(rng.integers(resized[1] - visible[1] + 1)),
    )
    return Placement(
        resized,
        corner,
        visible,
        bool(rng.random() < data.flip),
        1 + data.colour * rng.uniform(-1, 1),
        128 * data.colour * rng.uniform(-1, 1),
        int(rng.integers(1 << 62)),
    )


def canvas_for(placements: Sequence[Placement], data: Data, divisor: int) -> tuple[int, int]:
    """Return height and width of the canvas that a batch shares."""
    if data.crop:
        wanted = data.crop, data.crop
    else:
        heights, widths = zip(*(p.visible for p in placements), strict=True)
        wanted = max(heights), max(widths)
        if data.fixed_canvas:
            short = round(max(data.short_sides) * data.jitter[1])
            long = round(data.longest * data.jitter[1])
            upright = wanted[0] > wanted[1]
            wanted = (long, short) if upright else (short, long)
    return _rounded_up(wanted[0], divisor), _rounded_up(wanted[1], divisor)


def _rounded_up(value: int, divisor: int) -> int:
    return -(-value // divisor) * divisor
