"""Stress scenes: rare pictures that break careless readers.

Every hundred scenes of a split hold each case of their world once, at places that depend on
the seed.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from entitybench.converters.worlds import things
from entitybench.converters.worlds.canvas import Element
from entitybench.converters.worlds.dice import Dice
from entitybench.converters.worlds.materials import Material, palette, plain
from entitybench.converters.worlds.pen import Pen
from entitybench.converters.worlds.stage import Stage
from entitybench.converters.worlds.vocabulary import WORLDS

PERIOD = 100  # scenes among which each case occurs once
_PURPOSE = 77  # sets this stream apart from those of the scenes

# gray and turned photographs do not exist in Cityscapes, nor crowds in ADE20K
CASES = {
    "coco": ("empty", "many", "packed", "pixels", "crowd only", "portrait", "gray", "turned"),
    "ade20k": ("empty", "many", "packed", "pixels", "covered", "portrait", "gray", "turned"),
    "cityscapes": ("empty", "many", "packed", "pixels", "crowd only"),
}


def stress_case(world: str, split: int, index: int, seed: int) -> str | None:
    """Return the case that a scene stands for; None for an ordinary one."""
    block, place = divmod(index, PERIOD)
    places = Dice(_PURPOSE, seed, WORLDS.index(world), split, block).shuffled(range(PERIOD))
    cases = CASES[world]
    return dict(zip(places, cases, strict=False)).get(place)


def empty(stage: Stage) -> None:
    """Nothing but fog: no entity, no crowd."""
    _fog(stage)


def crowd_only(stage: Stage) -> None:
    """A crowd in the fog: no entity, one crowd."""
    _fog(stage)
    foot = stage.height * stage.dice.between(0.7, 0.9)
    x = stage.width * stage.dice.between(0.3, 0.7)
    stage.put("person", x, foot, 0.5, painter=things.crowd_of_people, crowd=True)


def many(stage: Stage) -> None:
    """More than a hundred entities, more than a result of COCO may list."""
    _grid(stage, columns=15, rows=10)


def packed(stage: Stage) -> None:
    """More than 255 entities, more than eight bits can number."""
    _grid(stage, columns=21, rows=16)


PAINTERS: dict[str, Callable[[Stage], None]] = {
    "empty": empty,
    "crowd only": crowd_only,
    "many": many,
    "packed": packed,
}


def _fog(stage: Stage) -> None:
    fog = stage.surface(palette("#b9c0c4 #a9adb0 #c4c0b8"), "clouds", 0.08, "#e6e8ea")
    box = stage.canvas.box(0, 0, stage.width, stage.height)
    stage.region("fog", box, fog)


def _grid(stage: Stage, *, columns: int, rows: int) -> None:
    """Paint a market stall of touching fruit, or a car park from above."""
    everything = stage.canvas.box(0, 0, stage.width, stage.height)
    if stage.habits.outdoors:
        name, tone = "road", stage.surface(palette("#6c6d71 #5d5f64"), "asphalt", 0.1)
    else:
        # a rug is stuff in every world: it stays an entity beside 255 instances
        name, tone = "rug", stage.surface(palette("#7a5a44 #8a6a4a #5f6a58"), "weave", 0.2)
    stage.region(name, everything, tone)
    paint = _parked_car if stage.habits.outdoors else _fruit
    across, down = stage.width / columns, stage.height / rows
    for row in range(rows):
        for column in range(columns):
            x = (column + 0.5 + stage.dice.between(-0.1, 0.1)) * across
            y = (row + 0.5 + stage.dice.between(-0.1, 0.1)) * down
            paint(stage, x, y, across * 0.48, down * 0.46)


_FRUIT = (("apple", palette("#b8322c #8fae3f #c9523a")), ("orange", palette("#e58a2a #ea9c3a")))
_CARS = palette("#b8352e #2d5a94 #d8d9d6 #3a3d42 #8f959b #d9a93c #5c88a8 #e8e4dc")


def _fruit(stage: Stage, x: float, y: float, rx: float, ry: float) -> None:
    name, colours = stage.dice.pick(_FRUIT)
    patch = stage.canvas.ellipse(x, y, rx * 1.05, ry * 1.05)
    stage.region(name, patch, Material(stage.dice.pick(colours), "clouds", 0.1, round=0.4))


def _parked_car(stage: Stage, x: float, y: float, rx: float, ry: float) -> None:
    body = plain(stage.dice.pick(_CARS), across=-0.1)
    patch = stage.canvas.rounded(x - rx * 0.9, y - ry * 0.75, x + rx * 0.9, y + ry * 0.75, ry * 0.4)
    car = stage.region("car", patch, body)
    pen = Pen(stage.canvas, car, x, y, rx)
    high = 0.5 * ry / rx
    pen.box(-0.5, -high, -0.3, high, plain("#35475a"))
    pen.box(0.25, -high, 0.45, high, plain("#35475a"))


def specks(
    image: NDArray[np.uint8],
    owners: NDArray[np.int32],
    elements: list[Element],
    name: str,
    dice: Dice,
) -> None:
    """Put single pixels into a scene, each a thing of its own; changes its arguments.

    Args:
        image: `(H, W, 3)` uint8 photograph.
        owners: `(H, W)` int32 element of each pixel.
        elements: The elements, to which the new ones are appended.
        name: What the pixels are.
        dice: Where they lie: never side by side.
    """
    rows, cols = owners.shape
    cells = [(y, x) for y in range(1, rows - 2, 3) for x in range(1, cols - 2, 3)]
    for y, x in dice.shuffled(cells)[: dice.whole(6, 12)]:
        owners[y, x] = len(elements)
        elements.append(Element(name))
        image[y, x] = 24 if image[y, x].sum(dtype=np.int64) > 380 else 235


def uncoloured(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the photograph in gray, still with three equal channels."""
    weights = np.array([77, 150, 29], dtype=np.uint32)  # ITU-R 601 in 1/256
    gray = (image * weights).sum(axis=-1, dtype=np.uint32) >> 8
    return np.repeat(gray.astype(np.uint8)[..., None], 3, axis=-1)
