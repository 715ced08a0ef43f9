"""The house front: one wall with many windows, and life on the pavement before it."""

from __future__ import annotations

from functools import partial

from entitybench.converters.worlds import things
from entitybench.converters.worlds.backdrops import (
    BRICKS,
    PLASTER,
    door,
    fence,
    ground,
    ground_material,
    sky,
    window,
)
from entitybench.converters.worlds.materials import palette, plain
from entitybench.converters.worlds.pen import Pen
from entitybench.converters.worlds.stage import Stage
from entitybench.converters.worlds.street import ROADSIDE_HEIGHTS, rider

_HEIGHTS = {**ROADSIDE_HEIGHTS, "potted plant": 0.55, "car": 0.85, "tree": 2.4, "street lamp": 2.2}


def front(stage: Stage) -> None:
    """A house front: windows on a wall, a pavement before it, people."""
    dice, canvas = stage.dice, stage.canvas
    foot = stage.height * dice.between(0.68, 0.8)
    canvas.horizon = (stage.width / 2, foot - 0.35)
    brick = dice.chance(0.5)
    wall = stage.surface(BRICKS if brick else PLASTER, "bricks" if brick else "concrete", 0.13)
    roof = stage.height * dice.between(-0.2, 0.16)
    if roof > 0.02:
        sky(stage, roof + 0.02)
    host = stage.region(
        "building", canvas.box(0, max(0.0, roof), stage.width, foot), wall.lit(down=-0.08)
    )
    if roof > 0.02:
        eaves = plain("#e0d8c8") if brick else plain("#8a6a58")
        canvas.paint(canvas.box(0, roof, stage.width, roof + 0.025), eaves, host)
    _front_openings(stage, host, max(0.02, roof + 0.03), foot)
    ground(stage, "sidewalk", foot)
    if dice.chance(0.5):
        kerb = foot + (stage.height - foot) * dice.between(0.4, 0.6)
        stage.region(
            "road", canvas.box(0, kerb, stage.width, stage.height), ground_material(stage, "road")
        )
    _before_the_house(stage, foot)
    stage.paint_queue()


def _front_openings(stage: Stage, host: int, top: float, foot: float) -> None:
    dice = stage.dice
    columns, floors = dice.whole(3, 4), dice.whole(2, 3)
    pitch_x, pitch_y = stage.width / columns, (foot - top) / floors
    way_in = dice.whole(0, columns - 1)
    for floor in range(floors):
        for column in range(columns):
            x, sill = (column + 0.5) * pitch_x, top + (floor + 0.85) * pitch_y
            if floor == floors - 1 and column == way_in:
                pen = Pen(
                    stage.canvas, stage.canvas.element("door", host=host), x, foot, pitch_y * 0.88
                )
                door(pen, stage)
                if dice.chance(0.5):
                    _awning(stage, host, x, foot - pitch_y * 0.86, pitch_x * 0.45)
            else:
                pen = Pen(stage.canvas, stage.canvas.element("window", host=host), x, sill, pitch_y)
                window(pen, stage, min(0.36, pitch_x / pitch_y * 0.34), 0.66)


def _awning(stage: Stage, host: int, x: float, y: float, half: float) -> None:
    element = stage.canvas.element("awning", host=host)
    tone = stage.surface(palette("#b0392f #2f6f5a #d9a53a #3f5f8a"), "stripes", 0.3, "#f6f0e4")
    patch = stage.canvas.polygon(
        [
            (x - half * 0.8, y - 0.05),
            (x + half * 0.8, y - 0.05),
            (x + half, y + 0.03),
            (x - half, y + 0.03),
        ]
    )
    stage.canvas.paint(patch, tone, element)


def _before_the_house(stage: Stage, foot: float) -> None:
    dice = stage.dice
    kinds = [
        ("person", 4.0),
        ("bicycle", 1.5),
        ("potted plant", 1.2),
        ("bench", 1.0),
        ("car", 1.2),
        ("street lamp", 0.8),
        ("tree", 0.8),
        ("dog", 0.7),
        ("rider", 0.8),
        ("trash can", 0.7),
        ("fence", 0.6),
    ]
    for _ in range(stage.number(1, 5)):
        name = dice.weighted(kinds)
        y = foot + (stage.height - foot) * dice.between(0.15, 0.9)
        near = (0.2 + 0.45 * (y - foot)) * stage.habits.size
        x = dice.between(0.06, 0.94) * stage.width
        if name == "rider":
            stage.later(y, partial(rider, stage, x, y, near))
        elif name == "fence":
            stage.later(y, partial(fence, stage, x - 0.3, x + 0.3, y, near * 0.6))
        else:
            stage.later(y, partial(stage.put, name, x, y, near * _HEIGHTS[name], flip=dice.sign()))
    if dice.chance(stage.habits.crowds * 0.6):
        x, y = dice.between(0.2, 0.8) * stage.width, foot + 0.05
        stage.later(
            y, partial(stage.put, "person", x, y, 0.22, painter=things.crowd_of_people, crowd=True)
        )
