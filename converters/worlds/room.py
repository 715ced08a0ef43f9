"""The room: furniture along the walls and on the floor, small things on the furniture."""

from __future__ import annotations

from functools import partial

from entitybench.converters.worlds import things
from entitybench.converters.worlds.backdrops import curtains, door, interior, window
from entitybench.converters.worlds.materials import palette
from entitybench.converters.worlds.pen import Pen
from entitybench.converters.worlds.stage import Stage


def room(stage: Stage) -> None:
    """A room seen from its front side."""
    dice, canvas = stage.dice, stage.canvas
    w, h = stage.width, stage.height
    left, right = w * dice.between(-0.05, 0.2), w * dice.between(0.8, 1.05)
    top, foot = h * dice.between(0.0, 0.13), h * dice.between(0.58, 0.72)
    canvas.horizon = (w * dice.between(0.4, 0.6), top + (foot - top) * 0.5)
    interior(
        stage,
        ((left, top), (right, foot)),
        dice.weighted([("wooden floor", 3.0), ("tiled floor", 1.0)]),
    )
    metre = (foot - top) / 2.5
    _on_the_wall(stage, left, right, top, metre)
    if dice.chance(0.5):
        _rug(stage, foot)
    _along_the_wall(stage, left, right, foot, metre)
    _in_the_room(stage, foot, metre)
    stage.paint_queue()


def _on_the_wall(stage: Stage, left: float, right: float, top: float, metre: float) -> None:
    dice = stage.dice
    slots = dice.shuffled([0, 1, 2])[: dice.whole(2, 3)]
    pitch = (right - left) / 3
    same = dice.chance(0.5)
    for slot in slots:
        x = left + pitch * (slot + 0.5) + dice.between(-0.02, 0.02)
        kind = (
            "window"
            if same and slot != slots[0]
            else dice.weighted([("window", 3), ("painting", 3), ("clock", 1)])
        )
        if kind == "window":
            pen = Pen(stage.canvas, stage.canvas.element("window"), x, top + 1.55 * metre, metre)
            half, high = min(0.55, pitch / metre * 0.34), dice.between(1.0, 1.25)
            window(pen, stage, half, high)
            if dice.chance(0.4):
                curtains(stage, pen, half, high, separate=dice.chance(0.5))
        elif kind == "painting":
            stage.put(
                kind, x, top + dice.between(1.0, 1.3) * metre, metre * dice.between(0.55, 0.8)
            )
        else:
            stage.put(kind, x, top + 0.95 * metre, metre * 0.4)


def _rug(stage: Stage, foot: float) -> None:
    dice = stage.dice
    tone = stage.surface(
        palette("#a7594f #8a6a4a #5f7f78 #c9b48f #4c5d73"), "weave", 0.25, "#f0e2c0"
    )
    x, y = (
        dice.between(0.35, 0.65) * stage.width,
        foot + (stage.height - foot) * dice.between(0.45, 0.65),
    )
    rx, ry = dice.between(0.22, 0.36), (stage.height - foot) * dice.between(0.25, 0.4)
    if dice.chance(0.5):
        patch = stage.canvas.ellipse(x, y, rx, ry)
    else:
        patch = stage.canvas.polygon(
            [
                (x - rx * 0.8, y - ry),
                (x + rx * 0.8, y - ry),
                (x + rx * 1.1, y + ry),
                (x - rx * 1.1, y + ry),
            ]
        )
    stage.region("rug", patch, tone)


_WALL_PIECES = [
    ("cabinet", 2.0),
    ("sofa", 2.5),
    ("lamp", 1.2),
    ("potted plant", 1.5),
    ("door", 1.0),
    ("bookshelf", 1.5),
    ("bed", 1.0),
    ("chair", 1.0),
    ("television", 1.0),
]
_ROOM_HEIGHTS = {
    "sofa": 0.85,
    "lamp": 1.6,
    "potted plant": 1.05,
    "bed": 0.95,
    "chair": 0.95,
    "table": 0.72,
    "person": 1.65,
    "dog": 0.55,
    "ball": 0.25,
    "box": 0.45,
}


def _along_the_wall(stage: Stage, left: float, right: float, foot: float, metre: float) -> None:
    dice = stage.dice
    x = left + metre * dice.between(0.2, 0.7)
    for _ in range(stage.number(2, 3)):
        name = dice.weighted(_WALL_PIECES)
        half = metre * {
            "sofa": 1.05,
            "bed": 0.9,
            "bookshelf": 0.55,
            "cabinet": 0.5,
            "television": 0.55,
        }.get(name, 0.35)
        if x + half * 2 > right + 0.05:
            break
        _wall_piece(stage, name, x + half, foot, metre)
        x += half * 2 + metre * dice.between(0.05, 0.4)


def _wall_piece(stage: Stage, name: str, x: float, foot: float, metre: float) -> None:
    dice = stage.dice
    y = foot + metre * 0.06
    if name == "door":
        door(Pen(stage.canvas, stage.canvas.element("door"), x, foot + 0.004, metre * 1.9), stage)
    elif name == "bookshelf":
        _bookshelf(stage, x, y, metre)
    elif name in ("cabinet", "television"):
        high = metre * dice.between(0.65, 1.0)
        stage.put("cabinet", x, y, high)
        if name == "television":
            stage.put("television", x, y - high * 1.04, metre * 0.55)
        elif dice.chance(0.7):
            _small_things(stage, x - high * 0.3, x + high * 0.3, y - high * 1.0, metre * 0.42)
    else:
        stage.put(name, x, y, metre * _ROOM_HEIGHTS[name], flip=dice.sign())
        if name == "sofa":
            for step in range(dice.whole(0, 3)):
                stage.put("cushion", x + (step - 1) * metre * 0.55, y - metre * 0.36, metre * 0.42)


def _bookshelf(stage: Stage, x: float, foot: float, metre: float) -> None:
    """Paint a shelf with rows of touching books."""
    dice = stage.dice
    element = stage.canvas.element("shelf")
    pen = Pen(stage.canvas, element, x, foot, metre)
    wood = stage.surface(palette("#8f6540 #6a4a34 #d9d3c6 #a97c50"), "planks", 0.1)
    pen.shadow(0.05, 0, 0.6, 0.06)
    pen.box(-0.5, -1.5, 0.5, 0, wood.darker(0.4))
    for x0, y0, x1, y1 in (
        (-0.5, -1.5, -0.44, 0),
        (0.44, -1.5, 0.5, 0),
        (-0.5, -1.5, 0.5, -1.44),
        (-0.5, -1.0, 0.5, -0.94),
        (-0.5, -0.52, 0.5, -0.46),
        (-0.5, -0.06, 0.5, 0),
    ):
        pen.box(x0, y0, x1, y1, wood)
    for board in (-1.0, -0.52, -0.06)[: max(1, stage.number(1, 2))]:
        place = -0.4
        for _ in range(stage.number(2, 5)):
            high = dice.between(0.3, 0.4)
            if place > 0.36:
                break
            stage.put("book", *pen.place(place, board), metre * high)
            place += high * 0.23


_SMALL = [
    ("vase", 2.0),
    ("book", 1.5),
    ("bottle", 1.5),
    ("cup", 1.0),
    ("potted plant", 1.0),
    ("clock", 0.6),
    ("box", 0.7),
]


def _small_things(stage: Stage, left: float, right: float, y: float, size: float) -> None:
    dice = stage.dice
    x = left
    while x < right:
        name = dice.weighted(_SMALL)
        scale = size * {"cup": 0.55, "box": 0.6, "potted plant": 1.3, "clock": 0.7}.get(name, 1.0)
        pen = stage.put(name, x, y, scale * dice.between(0.85, 1.1))
        if name == "vase" and dice.chance(0.6):
            things.flowers(pen.of(stage.canvas.element("flower")), dice)
        x += size * dice.between(0.6, 1.3)


def _in_the_room(stage: Stage, foot: float, metre: float) -> None:
    """Queue what stands on the floor, bigger towards the viewer."""
    dice, eye = stage.dice, stage.canvas.horizon[1]
    kinds = [
        ("table", 2.0),
        ("chair", 3.0),
        ("person", 1.4),
        ("dog", 0.7),
        ("ball", 0.6),
        ("box", 1.0),
        ("potted plant", 0.6),
    ]
    for _ in range(stage.number(1, 3)):
        y = foot + (stage.height - foot) * dice.between(0.2, 0.85)
        near = metre * (y - eye) / (foot - eye) * stage.habits.size
        name = dice.weighted(kinds)
        x = dice.between(0.1, 0.9) * stage.width
        stage.later(y, partial(_floor_piece, stage, name, x, y, near))


def _floor_piece(stage: Stage, name: str, x: float, y: float, near: float) -> None:
    size = near * _ROOM_HEIGHTS[name]
    if name != "table":
        stage.put(name, x, y, size, flip=stage.dice.sign())
        return
    way = stage.dice.sign()
    if stage.dice.chance(0.5):
        stage.put("chair", x - way * size * 0.9, y - size * 0.18, near * 0.95)
    stage.put("table", x, y, size)
    _small_things(stage, x - size * 0.6, x + size * 0.6, y - size * 0.85, near * 0.4)
