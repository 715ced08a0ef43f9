"""The table top: kitchen things close up, often twins that touch."""

from __future__ import annotations

from entitybench.converters.worlds import things
from entitybench.converters.worlds.backdrops import PLASTER, window
from entitybench.converters.worlds.materials import palette
from entitybench.converters.worlds.pen import Pen
from entitybench.converters.worlds.stage import Stage

_WALLS = (*PLASTER, *palette("#7f9a94 #a9744f"))


def tabletop(stage: Stage) -> None:
    """Things on a table, close up."""
    dice, canvas = stage.dice, stage.canvas
    edge = stage.height * dice.between(0.28, 0.42)
    canvas.horizon = (stage.width / 2, edge - 0.25)
    wall = stage.surface(
        _WALLS,
        dice.pick(["concrete", "tiles", "bricks", "clouds"]),
        0.07,
    )
    name = "brick wall" if wall.texture == "bricks" else "wall"
    stage.region(name, canvas.box(0, 0, stage.width, edge + 0.01), wall.lit(down=-0.15))
    if dice.chance(0.3):
        pen = Pen(
            canvas,
            canvas.element("window"),
            stage.width * dice.between(0.25, 0.75),
            edge - 0.04,
            0.3,
        )
        window(pen, stage, 0.6, 1.1)
    wood = stage.surface(palette("#b07f52 #8a5c3a #d9c7a8 #6a4630 #c9b8a0"), "planks", 0.14)
    board = canvas.box(0, edge, stage.width, stage.height)
    table = stage.region("table", board, wood.receding())
    canvas.paint(canvas.box(0, edge, stage.width, edge + 0.008), wood.lighter(0.35), table)
    rows = dice.whole(2, 3)
    for row in range(rows):
        y = edge + (stage.height - edge) * (row + dice.between(0.25, 0.75)) / rows
        _table_row(stage, y, 0.2 + 0.16 * (y - edge))


_FOOD = [
    ("apple", 2.0),
    ("orange", 2.0),
    ("bowl", 1.5),
    ("cup", 2.0),
    ("bottle", 2.0),
    ("vase", 1.2),
    ("lying book", 1.2),
]
_TABLE_HEIGHTS = {
    "apple": 0.55,
    "orange": 0.55,
    "bowl": 0.5,
    "cup": 0.62,
    "bottle": 1.45,
    "vase": 1.2,
    "lying book": 0.6,
}


def _table_row(stage: Stage, y: float, size: float) -> None:
    """Put a few things in a row; often twins that touch."""
    dice = stage.dice
    size *= stage.habits.size
    x = dice.between(0.05, 0.4) * stage.width
    twins = dice.chance(0.45)
    name = dice.weighted(_FOOD)
    for _ in range(stage.number(1, 4)):
        if x > stage.width * 0.97:
            break
        name = name if twins else dice.weighted(_FOOD)
        _on_table(stage, name, x, y + dice.between(-0.012, 0.012), size * _TABLE_HEIGHTS[name])
        wide = {"bowl": 1.05, "cup": 0.6, "bottle": 0.62, "vase": 0.75, "lying book": 1.2}.get(
            name, 0.55
        )
        x += size * (wide if twins else wide + dice.between(0.1, 0.7))


def _on_table(stage: Stage, name: str, x: float, y: float, size: float) -> None:
    dice = stage.dice
    if name == "lying book":
        for step in range(dice.whole(1, 3)):
            stage.put(
                "book",
                x + dice.between(-0.02, 0.02),
                y - step * size * 0.35,
                size,
                painter=things.lying_book,
            )
    elif name == "bowl":
        element = stage.canvas.element("bowl")
        pen = Pen(stage.canvas, element, x, y, size)
        for step in range(dice.whole(0, 3)):
            at = pen.place(-0.55 + 0.5 * step, -0.55)
            stage.put(dice.pick(["apple", "orange"]), *at, size * 0.75)
        things.bowl(pen, dice)
    else:
        pen = stage.put(name, x, y, size, flip=dice.sign())
        if name == "vase" and dice.chance(0.7):
            things.flowers(pen.of(stage.canvas.element("flower")), dice)
