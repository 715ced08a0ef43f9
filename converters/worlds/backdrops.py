"""What scenes have behind their things: skies, grounds, walls, windows."""

from __future__ import annotations

from entitybench.converters.worlds.materials import Material, Point, mix, palette, plain, rgb
from entitybench.converters.worlds.pen import Pen
from entitybench.converters.worlds.stage import Stage

_SKIES = [
    ("#6fa3d6", "#dbe8ee"),
    ("#86b4dc", "#f0e6d6"),
    ("#a9bccb", "#e2e6e6"),
    ("#5c8fc7", "#cfe0ea"),
    ("#c9a6a0", "#f6d8ae"),
    ("#b7c3cc", "#dfe3e4"),
]
GRASS = palette("#6f9a45 #7fa64e #5f8a42 #8aa052")
ROADS = palette("#6c6d71 #5d5f64 #7b7a7a #66646a")
PAVING = palette("#a8a196 #b5ada1 #9a958e #b9ad9c")
EARTH = palette("#9a7a55 #8a6a4a #a88a62")
SAND = palette("#dcc697 #d4bb8a #e3d2a8")
WATER = palette("#4f86a6 #5b94ad #3f7596 #6a9fae")
PLASTER = palette("#d9cfbd #cdb79a #bfc4c0 #d8b59a #b9a58e #c9d0d4 #a9b3ad #e2d8c4 #c7a08a #b7a9b4")
BRICKS = palette("#a4553f #b3694a #8f4a3c #a0705a")
_INDOOR = palette("#e0d6c3 #c9d3d0 #d8c3ae #b9c4b2 #c4bccb #d9cdb0 #a9b8c2 #e4ddd2 #cfae9a")
_FLOORS = palette("#a97c50 #8f6540 #c09468 #7a5538")
_FLAGSTONES = (*PAVING, *palette("#d8d2c6"))
_CLOTHS = palette("#a7594f #c9b48f #5f7f78 #8a6a8f #4c5d73 #d7cfc2 #b9803f")


def sky(stage: Stage, bottom: float) -> int:
    """Paint the sky down to a height, with clouds that belong to it."""
    top, low = (rgb(code) for code in stage.dice.pick(_SKIES))
    canvas = stage.canvas
    canvas.haze = mix(low, rgb(stage.habits.haze), 0.5)
    element = canvas.element("sky")
    air = Material(mix(top, low, 0.5), "fade", 1.0, low)
    canvas.paint(canvas.box(0, 0, stage.width, bottom), air, element)
    for _ in range(stage.dice.whole(0, 4)):
        _cloud(stage, element, bottom)
    return element


def _cloud(stage: Stage, element: int, bottom: float) -> None:
    dice = stage.dice
    x, y = dice.between(0, stage.width), dice.between(0.02, bottom * 0.65)
    size = dice.between(0.06, 0.14)
    white = Material(mix((1, 1, 1), stage.canvas.haze, 0.25), "clouds", 0.1, down=-0.08)
    for step in range(3):
        patch = stage.canvas.ellipse(
            x + (step - 1) * size * 0.9,
            y + dice.between(-0.15, 0.15) * size,
            size * dice.between(0.7, 1.1),
            size * dice.between(0.25, 0.4),
            rough=0.45,
        )
        stage.canvas.paint(patch, white, element)


def skyline(stage: Stage, base: float, low: float, high: float, points: int) -> list[float]:
    """Return a jagged line of heights above a base, for `Canvas.below`."""
    return [base - stage.dice.between(low, high) for _ in range(points)]


def mountains(stage: Stage, base: float) -> None:
    """Paint a range, or two, the farther in more haze."""
    dice = stage.dice
    for far in range(dice.whole(1, 2), 0, -1):
        points = skyline(stage, base, 0.03, 0.13 + 0.1 * far, dice.whole(5, 9))
        tone = stage.surface(palette("#6a7a72 #7a7f86 #6f6a62 #5f7360"), "ridges", 0.12, down=-0.1)
        stage.region(
            "mountain",
            stage.canvas.below(points, bottom=base + 0.02, rough=0.02),
            tone,
            haze=0.2 + 0.22 * far,
        )


def hills(stage: Stage, base: float) -> None:
    """Paint a soft hill behind the meadow."""
    points = skyline(stage, base, 0.02, 0.12, 5)
    tone = stage.surface(palette("#7f9a5a #6f8f58 #8f9a5f"), "blades", 0.15, down=-0.1)
    stage.region("hill", stage.canvas.below(points, bottom=base + 0.02, rough=0.01), tone, haze=0.3)


def treeline(stage: Stage, base: float, haze: float = 0.3) -> None:
    """Paint a wood in the distance."""
    points = skyline(stage, base, 0.04, 0.1, 14)
    tone = stage.surface(palette("#4f7346 #5a7a4a #476b50"), "leaves", 0.22, "#d8e0a0", down=-0.15)
    stage.region(
        "tree", stage.canvas.below(points, bottom=base + 0.015, rough=0.035), tone, haze=haze
    )


def ground(stage: Stage, name: str, top: float) -> int:
    """Paint the ground from a height to the bottom of the picture."""
    tone = ground_material(stage, name)
    return stage.region(name, stage.canvas.box(0, top, stage.width, stage.height), tone)


def ground_material(stage: Stage, name: str) -> Material:
    """Return how a kind of ground looks."""
    surfaces = {
        "grass": lambda: stage.surface(GRASS, "blades", 0.3, "#e6e08a", down=0.08),
        "road": lambda: stage.surface(ROADS, "asphalt", 0.1, down=0.08),
        "sidewalk": lambda: stage.surface(PAVING, "tiles", 0.12, down=0.08),
        "earth": lambda: stage.surface(EARTH, "concrete", 0.2, down=0.08),
        "sand": lambda: stage.surface(SAND, "grain", 0.12, down=0.08),
        "sea": lambda: stage.surface(WATER, "waves", 0.16, "#e6f2f2", down=0.08),
        "river": lambda: stage.surface(WATER, "waves", 0.16, "#d8e6d8", down=0.08),
        "wooden floor": lambda: stage.surface(_FLOORS, "planks", 0.16, down=0.08),
        "tiled floor": lambda: stage.surface(_FLAGSTONES, "tiles", 0.16, down=0.08),
    }
    material = surfaces[name]()
    return material.receding() if name in _RECEDING else material


_RECEDING = {"sidewalk", "wooden floor", "tiled floor", "earth"}


def window(pen: Pen, stage: Stage, half: float, high: float) -> None:
    """Paint a window: a frame and two by two panes, standing on the pen's foot."""
    dice = stage.dice
    frame = plain(dice.pick(palette("#f2efe8 #e4ddd0 #6a4a34 #d9d6d0")))
    top, low = dice.pick(palette("#7fa3bf #55708a #9fc0d6 #3f5468")), rgb("#dbe6ea")
    pen.box(-half, -high, half, 0, frame)
    rim = 0.12 * half
    for x0, x1 in ((-half + rim, -rim / 2), (rim / 2, half - rim)):
        for y0, y1 in ((-high + rim, -high * 0.5 - rim / 2), (-high * 0.5 + rim / 2, -rim)):
            glass = Material(
                mix(top, low, 0.25 + 0.5 * (y0 + high) / high),
                "clouds",
                0.12,
                across=0.18,
                down=-0.1,
            )
            pen.box(x0, y0, x1, y1, glass)
    pen.box(-half * 1.08, -rim * 0.6, half * 1.08, rim * 0.5, frame.darker(0.12))


def curtains(stage: Stage, pen: Pen, half: float, high: float, *, separate: bool) -> None:
    """Hang a pair of curtains around a window, as one element or as two."""
    tone = stage.surface(_CLOTHS, "folds", 0.3, down=-0.12)
    element = stage.canvas.element("curtain")
    for way in (-1, 1):
        hung = pen.of(element)
        hung.polygon(
            [
                (way * half * 0.72, -high * 1.1),
                (way * half * 1.5, -high * 1.1),
                (way * half * 1.55, 0.18),
                (way * half * 0.95, 0.18),
            ],
            tone,
        )
        if separate:
            element = stage.canvas.element("curtain")


def door(pen: Pen, stage: Stage) -> None:
    """Paint a door, 0.45 units wide and one high."""
    leaf = stage.surface(palette("#7a5236 #3f5a4f #8a3f36 #d9d2c4 #4a5a70"), "planks", 0.05)
    pen.box(-0.25, -1.03, 0.25, 0, plain("#e4ddcf"))
    pen.box(-0.21, -1.0, 0.21, 0, leaf)
    for y in (-0.92, -0.46):
        for x in (-0.16, 0.02):
            pen.box(x, y, x + 0.14, y + 0.36, leaf.lighter(0.12))
    pen.ellipse(0.16, -0.5, 0.025, 0.025, plain("#d9b96a"))


def interior(stage: Stage, corners: tuple[Point, Point], name: str) -> None:
    """Paint walls, ceiling and floor of a room whose back wall has these two corners.

    Args:
        stage: Where.
        corners: Upper left and lower right corner of the back wall.
        name: The kind of floor.
    """
    (left, top), (right, foot) = corners
    canvas, dice = stage.canvas, stage.dice
    vx, vy = canvas.horizon
    out = 4.0
    a, b = (
        (vx + (left - vx) * out, vy + (top - vy) * out),
        (vx + (right - vx) * out, vy + (top - vy) * out),
    )
    c, d = (
        (vx + (right - vx) * out, vy + (foot - vy) * out),
        (vx + (left - vx) * out, vy + (foot - vy) * out),
    )
    base = dice.pick(_INDOOR)
    wall = canvas.element("wall")
    paper = Material(base, dice.pick(["concrete", "grain", "stripes", "clouds"]), 0.05)
    canvas.paint(canvas.box(left, top, right, foot), paper, wall)
    canvas.paint(canvas.polygon([a, (left, top), (left, foot), d]), paper.darker(0.14), wall)
    canvas.paint(canvas.polygon([b, (right, top), (right, foot), c]), paper.lighter(0.12), wall)
    ceiling = Material(mix(base, (1, 1, 1), 0.6), "concrete", 0.03)
    stage.region("ceiling", canvas.polygon([a, b, (right, top), (left, top)]), ceiling)
    stage.region(
        name, canvas.polygon([d, c, (right, foot), (left, foot)]), ground_material(stage, name)
    )


def fence(stage: Stage, left: float, right: float, foot: float, high: float) -> None:
    """Paint a fence that one can look through, `high` scene units high."""
    pitch = max(0.022, high * 0.35)
    patch = stage.canvas.pickets(left, foot - high, right, foot, pitch=pitch, share=0.42)
    stage.region(
        "fence", patch, stage.surface(palette("#e6e0d2 #8a6a4a #4a4f54 #b9a58a"), "grain", 0.1)
    )


def camera_car(stage: Stage) -> None:
    """Paint what a camera on a car always sees: its own bonnet and the rim of the lens."""
    canvas, dice = stage.canvas, stage.dice
    bonnet = canvas.element("camera car")
    x, y = stage.width * dice.between(0.47, 0.53), stage.height * dice.between(1.12, 1.18)
    paint = plain("#3a3d40", down=-0.3, round=0.15)
    canvas.paint(canvas.ellipse(x, y, stage.width * 0.46, 0.24), paint, bonnet)
    glint = plain("#6f7478", down=-0.4)
    canvas.paint(canvas.ellipse(x - 0.04, y - 0.03, stage.width * 0.36, 0.17), glint, bonnet)
    rim = canvas.element("frame")
    wide = dice.between(0.006, 0.02)
    for box in (
        (0, 0, wide, stage.height),
        (stage.width - wide, 0, stage.width, stage.height),
        (0, stage.height - wide / 2, stage.width, stage.height),
    ):
        canvas.paint(canvas.box(*box), plain("#1a1b1c"), rim)
