"""How things look: each function paints one, standing on the foot of its pen.

In a thing's own frame y points down, its foot is at 0 and its usual height is 1; how tall
that is in the scene is the pen's business.
"""

from __future__ import annotations

from collections.abc import Callable

from entitybench.converters.worlds.dice import Dice
from entitybench.converters.worlds.materials import Material, Palette, mix, palette, plain
from entitybench.converters.worlds.pen import Pen

_SKIN = palette("#f1c9a5 #e0ac7e #c68a5a #8d5a3a #5f3b26")
_HAIR = palette("#2b211b #4a3325 #7a5230 #b98f4e #8c8a88 #1d1a19")
_CLOTH = palette(
    "#c8443c #2f6db3 #e0b64a #3f8a5f #7d5a9e #e9e4da "
    "#35424f #d97b3f #5aa6b8 #b55a78 #8b9a46 #243a5e"
)
_TROUSERS = palette("#2c3a55 #3c3c40 #6b5a48 #4a5a6b #7a7468 #26292e")
_PAINT = palette(
    "#b8352e #2d5a94 #d8d9d6 #3a3d42 #8f959b #4f7a5a #d9a93c #7f2f3a #5c88a8 #e8e4dc #1f2c3f"
)
_LEAVES = palette("#4f7f3a #3f6e35 #6a8f3f #587a45 #7d9a48 #35603a")
_AUTUMN = palette("#b9772e #a8552c #c79a3a")
_BARK = palette("#6b4f3a #5a4636 #7d6650")
_WOOD = palette("#9a6b43 #7b5232 #b98a5c #5e3f2a #c7a27a")
_FABRIC = palette("#7f8fa3 #a7594f #c9b48f #5f7f78 #8a6a8f #4c5d73 #b9a06a #d7cfc2 #6f8a55")
_BOOKS = palette("#a33b35 #2f5d8a #d1b25a #3f7a5a #6f4a7f #d9d2c3 #33404d #c26a3a #7a8f9a #8a2f4a")
_GLASS = plain("#35475a", down=-0.35, across=0.15)
_RUBBER = plain("#232427", round=0.2)
_METAL = plain("#7d838a", across=0.3)
_STEEL = plain("#c9ced3", round=0.4)


def _colour(
    dice: Dice, colours: Palette, *, across: float = 0.0, down: float = 0.0, round: float = 0.0
) -> Material:
    return Material(dice.pick(colours), across=across, down=down, round=round)


def person(pen: Pen, dice: Dice) -> None:
    """Paint somebody who stands or walks."""
    skin, hair = _colour(dice, _SKIN, round=0.25), _colour(dice, _HAIR, round=0.3)
    cloth, legs = _colour(dice, _CLOTH, across=-0.12, round=0.15), _colour(dice, _TROUSERS)
    stride = dice.between(0.01, 0.1)
    pen.shadow(0.06, 0, 0.24, 0.05)
    for way in (-1, 1):
        pen.line(way * 0.05, -0.5, way * (0.05 + stride), -0.03, 0.1, legs)
        pen.ellipse(way * (0.05 + stride) + 0.02, -0.02, 0.06, 0.03, plain("#2a2624"))
    swing = dice.between(0.02, 0.1)
    for way in (-1, 1):
        pen.line(way * 0.13, -0.77, way * (0.15 + swing), -0.5, 0.07, cloth.lit(down=-0.2))
        pen.ellipse(way * (0.155 + swing), -0.47, 0.035, 0.04, skin)
    if dice.chance(0.25):
        pen.polygon([(-0.09, -0.7), (0.09, -0.7), (0.2, -0.3), (-0.2, -0.3)], cloth)
    pen.rounded(-0.15, -0.82, 0.15, -0.45, 0.07, cloth)
    pen.line(0, -0.85, 0, -0.78, 0.07, skin)
    pen.ellipse(0, -0.935, 0.085, 0.1, hair)
    pen.ellipse(0.012, -0.91, 0.066, 0.078, skin)


def crowd_of_people(pen: Pen, dice: Dice) -> None:
    """Paint a dense group, two rows deep."""
    for row in range(2):
        for place in range(5):
            x = (place - 2) * 0.3 + dice.between(-0.08, 0.08) + 0.12 * row
            foot = -0.1 + 0.1 * row
            _figure(pen, dice, x, foot)


def _figure(pen: Pen, dice: Dice, x: float, foot: float) -> None:
    cloth = _colour(dice, _CLOTH, across=-0.15, round=0.15)
    pen.box(x - 0.11, foot - 0.5, x + 0.11, foot, _colour(dice, _TROUSERS))
    pen.rounded(x - 0.15, foot - 0.84, x + 0.15, foot - 0.4, 0.07, cloth)
    pen.ellipse(x, foot - 0.93, 0.08, 0.095, _colour(dice, _HAIR, round=0.2))
    pen.ellipse(x + 0.01, foot - 0.905, 0.063, 0.072, _colour(dice, _SKIN, round=0.2))


def bicycle(pen: Pen, dice: Dice) -> None:
    """Paint a bicycle from its side: rings and bars, hardly any area."""
    frame = _colour(dice, _PAINT)
    pen.shadow(0, 0, 0.85, 0.06)
    for x in (-0.5, 0.5):
        pen.ring(x, -0.33, 0.33, 0.055, _RUBBER)
        pen.ellipse(x, -0.33, 0.05, 0.05, _METAL)
    joints = [(-0.5, -0.33), (-0.12, -0.33), (0.36, -0.75), (-0.24, -0.78), (0.5, -0.33)]
    bars = [(0, 1), (1, 2), (2, 3), (3, 1), (0, 3), (2, 4)]
    for first, second in bars:
        pen.line(*joints[first], *joints[second], 0.065, frame)
    pen.line(0.36, -0.75, 0.31, -0.95, 0.06, _METAL)
    pen.line(0.24, -0.95, 0.45, -0.92, 0.06, plain("#2a2a2c"))
    pen.rounded(-0.36, -0.88, -0.12, -0.8, 0.04, plain("#2a2a2c"))


def rider(pen: Pen, dice: Dice) -> None:
    """Paint somebody on the bicycle or motorcycle that was painted with the same pen."""
    skin, cloth = _colour(dice, _SKIN, round=0.2), _colour(dice, _CLOTH, across=-0.15)
    legs = _colour(dice, _TROUSERS)
    pen.line(-0.22, -0.85, 0.05, -0.58, 0.13, legs)
    pen.line(0.05, -0.58, -0.06, -0.28, 0.11, legs)
    pen.polygon([(-0.33, -0.85), (-0.1, -0.85), (0.2, -1.32), (0.02, -1.45)], cloth)
    pen.line(0.1, -1.33, 0.36, -0.97, 0.08, cloth.lit(down=-0.2))
    pen.ellipse(0.17, -1.55, 0.12, 0.14, skin)
    pen.ellipse(0.14, -1.61, 0.13, 0.1, _colour(dice, _PAINT, round=0.4))


def motorcycle(pen: Pen, dice: Dice) -> None:
    """Paint a motorcycle from its side."""
    body = _colour(dice, _PAINT, round=0.3)
    pen.shadow(0, 0, 0.9, 0.08)
    for x in (-0.52, 0.52):
        pen.ellipse(x, -0.28, 0.28, 0.28, _RUBBER)
        pen.ellipse(x, -0.28, 0.13, 0.13, _STEEL)
    pen.rounded(-0.3, -0.5, 0.25, -0.15, 0.1, plain("#54585d", round=0.3))
    pen.line(0.52, -0.28, 0.28, -0.85, 0.07, _STEEL)
    pen.ellipse(0.12, -0.62, 0.28, 0.15, body)
    pen.rounded(-0.75, -0.68, -0.08, -0.54, 0.06, plain("#242527"))
    pen.line(0.2, -0.9, 0.36, -0.84, 0.07, plain("#2a2a2c"))


def car(pen: Pen, dice: Dice) -> None:
    """Paint a car from its side, two and a half times as long as it is high."""
    body = _colour(dice, _PAINT, down=-0.3, round=0.08)
    back, front = dice.between(-0.95, -0.6), dice.between(0.35, 0.6)
    pen.shadow(0.08, -0.02, 1.35, 0.11)
    pen.polygon(
        [(back, -0.56), (back + 0.22, -0.98), (front - 0.3, -1.0), (front + 0.12, -0.56)], body
    )
    pen.polygon([(back + 0.12, -0.58), (back + 0.28, -0.9), (-0.14, -0.92), (-0.14, -0.58)], _GLASS)
    pen.polygon(
        [(-0.06, -0.58), (-0.06, -0.92), (front - 0.34, -0.92), (front - 0.02, -0.58)], _GLASS
    )
    pen.rounded(-1.22, -0.64, 1.24, -0.16, 0.17, body)
    pen.box(-1.16, -0.22, 1.18, -0.14, plain("#2b2d30"))
    pen.ellipse(1.16, -0.47, 0.07, 0.06, plain("#f4ecc8"))
    pen.ellipse(-1.17, -0.47, 0.05, 0.07, plain("#b3231f"))
    _wheels(pen, (-0.74, 0.76), 0.22)


def _wheels(pen: Pen, places: tuple[float, ...], radius: float) -> None:
    for x in places:
        pen.ellipse(x, -radius + 0.01, radius, radius, _RUBBER)
        pen.ellipse(x, -radius + 0.01, radius * 0.52, radius * 0.52, _STEEL)


def car_from_behind(pen: Pen, dice: Dice) -> None:
    """Paint a car from its front or back, as one sees it along a street."""
    body = _colour(dice, _PAINT, down=-0.25, round=0.1)
    behind = dice.chance(0.6)
    pen.shadow(0.04, -0.01, 0.68, 0.09)
    for x in (-0.42, 0.42):
        pen.rounded(x - 0.11, -0.26, x + 0.11, 0.0, 0.04, _RUBBER)
    pen.polygon([(-0.5, -0.58), (-0.36, -0.97), (0.36, -0.97), (0.5, -0.58)], body)
    pen.polygon([(-0.41, -0.6), (-0.31, -0.9), (0.31, -0.9), (0.41, -0.6)], _GLASS)
    pen.rounded(-0.58, -0.64, 0.58, -0.13, 0.12, body)
    lamp = plain("#c02a22") if behind else plain("#f6efd2", round=0.2)
    for x in (-0.44, 0.44):
        pen.rounded(x - 0.1, -0.52, x + 0.1, -0.4, 0.04, lamp)
    pen.box(-0.15, -0.34, 0.15, -0.25, plain("#ece9df"))
    pen.box(-0.52, -0.2, 0.52, -0.13, plain("#303236"))


def van(pen: Pen, dice: Dice) -> None:
    """Paint a van from its side."""
    body = _colour(dice, palette("#e6e4de #d8c08a #7d9bb0 #b8352e #f0efe9"), down=-0.2)
    pen.shadow(0.05, -0.02, 0.95, 0.07)
    pen.rounded(-0.88, -1.0, 0.6, -0.12, 0.09, body)
    pen.polygon([(0.45, -0.95), (0.62, -0.95), (0.92, -0.5), (0.92, -0.14), (0.45, -0.14)], body)
    pen.polygon([(0.52, -0.88), (0.62, -0.88), (0.84, -0.53), (0.52, -0.53)], _GLASS)
    pen.box(-0.7, -0.85, 0.38, -0.56, _GLASS)
    pen.box(-0.88, -0.42, 0.9, -0.37, body.lit(down=-0.5).darker(0.25))
    _wheels(pen, (-0.55, 0.55), 0.16)


def truck(pen: Pen, dice: Dice) -> None:
    """Paint a lorry from its side."""
    load = _colour(dice, palette("#dcd8cc #3f6a94 #a8433a #6b8a5a #c7a24a"), down=-0.15)
    cab = _colour(dice, _PAINT, down=-0.2)
    pen.shadow(0.05, -0.02, 1.12, 0.06)
    pen.box(-1.0, -0.2, 0.95, -0.12, plain("#2e3034"))
    pen.box(-1.02, -1.0, 0.42, -0.2, Material(load.colour, "folds", 0.06, down=-0.15))
    pen.rounded(0.47, -0.78, 1.0, -0.12, 0.07, cab)
    pen.polygon([(0.62, -0.7), (0.88, -0.7), (0.97, -0.46), (0.62, -0.46)], _GLASS)
    _wheels(pen, (-0.72, -0.42, 0.72), 0.13)


def bus(pen: Pen, dice: Dice) -> None:
    """Paint a bus from its side."""
    body = _colour(dice, palette("#c8402f #e2b13c #2f6f9f #4f8a5f #e9e6dc"), down=-0.15)
    pen.shadow(0.05, -0.02, 1.35, 0.06)
    pen.rounded(-1.25, -1.0, 1.25, -0.1, 0.08, body)
    for place in range(6):
        x = -1.12 + place * 0.37
        pen.box(x, -0.86, x + 0.32, -0.52, _GLASS)
    pen.box(-1.25, -0.36, 1.25, -0.3, body.lighter(0.55))
    _wheels(pen, (-0.8, 0.82), 0.14)


def tree(pen: Pen, dice: Dice) -> None:
    """Paint a broad-leaved tree."""
    colours = _AUTUMN if dice.chance(0.12) else _LEAVES
    base = dice.pick(colours)
    leaf = Material(base, "leaves", 0.28, mix(base, (0.95, 0.93, 0.5), 0.45), round=0.22)
    pen.shadow(0.1, 0.0, 0.34, 0.06)
    bark = _colour(dice, _BARK, across=-0.35)
    pen.polygon([(-0.06, 0), (0.06, 0), (0.035, -0.5), (-0.035, -0.5)], bark)
    dark = leaf.tinted((0.05, 0.12, 0.1), 0.3)
    pen.ellipse(dice.between(-0.1, 0.1), -0.52, 0.3, 0.2, dark, rough=0.5)
    for _ in range(3):
        x, y = dice.between(-0.17, 0.17), dice.between(-0.76, -0.56)
        pen.ellipse(x, y, dice.between(0.18, 0.26), dice.between(0.15, 0.21), leaf, rough=0.5)
    pen.ellipse(-0.05, -0.8, 0.19, 0.15, leaf.tinted((1, 1, 0.7), 0.08), rough=0.5)


def conifer(pen: Pen, dice: Dice) -> None:
    """Paint a fir."""
    base = dice.pick(palette("#2f5a3f #3a6a48 #2a4f3f #456f4a"))
    needle = Material(base, "leaves", 0.25, mix(base, (0.8, 0.9, 0.6), 0.4), across=-0.25)
    pen.shadow(0.08, 0, 0.24, 0.05)
    pen.box(-0.03, -0.15, 0.03, 0, _colour(dice, _BARK))
    for step in range(4):
        y, half = -0.1 - step * 0.22, 0.27 - step * 0.055
        pen.polygon([(-half, y), (half, y), (0, y - 0.36)], needle.lit(down=0.25 - 0.05 * step))


def bush(pen: Pen, dice: Dice) -> None:
    """Paint a bush, wider than high."""
    base = dice.pick(_LEAVES)
    leaf = Material(base, "leaves", 0.3, mix(base, (0.95, 0.93, 0.5), 0.4), round=0.2, down=-0.1)
    pen.shadow(0.05, 0, 0.8, 0.12)
    for x in (-0.45, 0.42, 0.0):
        high = dice.between(0.3, 0.42)
        pen.ellipse(x, -high, dice.between(0.35, 0.5), high, leaf, rough=0.35)


def rock(pen: Pen, dice: Dice) -> None:
    """Paint a boulder."""
    grey = dice.pick(palette("#8a857c #77746f #9a9184 #6d6a6c"))
    stone = Material(grey, "ridges", 0.14, round=0.3, down=-0.25)
    pen.shadow(0.1, -0.03, 0.85, 0.16)
    pen.ellipse(0, -0.42, 0.75, 0.48, stone, rough=0.35)


def pole(pen: Pen, dice: Dice) -> None:
    """Paint a bare pole: four per cent as wide as high."""
    pen.line(
        0, 0, 0, -1, 0.035, _colour(dice, palette("#6f7479 #4d5358 #8d8f8c #7a6a55"), across=-0.4)
    )


def street_lamp(pen: Pen, dice: Dice) -> None:
    """Paint a street lamp with its arm."""
    steel = _colour(dice, palette("#4f5459 #3d4246 #6d7276"), across=-0.3)
    pen.line(0, 0, 0, -0.97, 0.03, steel)
    pen.line(-0.005, -0.97, 0.2, -1.0, 0.025, steel)
    pen.rounded(0.14, -1.02, 0.3, -0.97, 0.02, plain("#f3ead0"))


def traffic_light(pen: Pen, dice: Dice) -> None:
    """Paint the housing of a traffic light; the pole is another element."""
    pen.rounded(-0.2, -1, 0.2, 0, 0.12, plain("#26282a", across=-0.2))
    lit = dice.whole(0, 2)
    for place, (bright, dim) in enumerate(
        [("#ff4a3a", "#5a2422"), ("#ffc23a", "#57471f"), ("#4fe08a", "#1f4a33")]
    ):
        pen.ellipse(
            0, -0.81 + place * 0.31, 0.12, 0.12, plain(bright if place == lit else dim, round=0.2)
        )


def sign(pen: Pen, dice: Dice) -> None:
    """Paint the plate of a traffic sign, one unit across."""
    kind = dice.whole(0, 3)
    if kind == 0:
        pen.ellipse(0, -0.5, 0.5, 0.5, plain("#c7352d"))
        pen.ellipse(0, -0.5, 0.36, 0.36, plain("#f2efe8"))
    elif kind == 1:
        pen.polygon([(-0.55, 0), (0.55, 0), (0, -1)], plain("#c7352d"))
        pen.polygon([(-0.32, -0.12), (0.32, -0.12), (0, -0.72)], plain("#f2efe8"))
    elif kind == 2:
        pen.rounded(-0.5, -1, 0.5, 0, 0.1, plain("#2f66b0"))
        pen.polygon([(-0.25, -0.2), (0.25, -0.2), (0, -0.8)], plain("#f2f2ee"))
    else:
        corners = [
            (-0.2, 0),
            (0.2, 0),
            (0.5, -0.3),
            (0.5, -0.7),
            (0.2, -1),
            (-0.2, -1),
            (-0.5, -0.7),
            (-0.5, -0.3),
        ]
        pen.polygon(corners, plain("#c22f2a"))
        pen.box(-0.32, -0.6, 0.32, -0.4, plain("#f4f0ea"))


def bench(pen: Pen, dice: Dice) -> None:
    """Paint a park bench, twice as wide as high."""
    wood = Material(dice.pick(_WOOD), "planks", 0.1)
    pen.shadow(0.05, 0, 1.1, 0.1)
    for x in (-0.8, 0.8):
        pen.line(x, -0.9, x, 0, 0.09, plain("#3a3c40"))
    for y in (-0.98, -0.76, -0.5):
        pen.box(-1, y, 1, y + 0.15, wood)
    pen.polygon([(-1, -0.5), (1, -0.5), (1.08, -0.38), (-1.08, -0.38)], wood.lighter(0.12))


def trash_can(pen: Pen, dice: Dice) -> None:
    """Paint a litter bin."""
    body = _colour(dice, palette("#4a5a50 #5a5d61 #3f5a78 #7a6a4a"), across=-0.35)
    pen.shadow(0.06, 0, 0.42, 0.07)
    pen.polygon([(-0.28, 0), (0.28, 0), (0.34, -0.85), (-0.34, -0.85)], body)
    pen.rounded(-0.38, -1, 0.38, -0.82, 0.08, body.lighter(0.15))


def hydrant(pen: Pen, dice: Dice) -> None:
    """Paint a fire hydrant."""
    red = _colour(dice, palette("#c0392f #d9a53a #3f73a8"), across=-0.3)
    pen.shadow(0.06, 0, 0.38, 0.07)
    pen.box(-0.28, -0.1, 0.28, 0, red)
    pen.rounded(-0.2, -0.85, 0.2, -0.05, 0.05, red)
    pen.rounded(-0.38, -0.65, 0.38, -0.48, 0.05, red.lighter(0.1))
    pen.ellipse(0, -0.86, 0.2, 0.14, red.lit(round=0.3))


def umbrella(pen: Pen, dice: Dice) -> None:
    """Paint a parasol, open."""
    first, second = dice.pick(_CLOTH), dice.pick(palette("#f2ead8 #f0d9a8"))
    pen.shadow(0.1, 0, 0.5, 0.07)
    pen.line(0, 0, 0, -0.95, 0.03, plain("#d8d2c4"))
    for step, code in enumerate([first, second, first, second]):
        x = -0.6 + step * 0.3
        pen.polygon(
            [(x, -0.66), (x + 0.3, -0.66), (0.02, -1.0), (-0.02, -1.0)],
            plain(code, across=-0.15, down=-0.1),
        )


def ball(pen: Pen, dice: Dice) -> None:
    """Paint a ball, one unit across."""
    colour = _colour(dice, palette("#d8452f #e9b23a #f0eee6 #3f7fc0 #6fae4a"), round=0.5)
    pen.shadow(0.15, -0.02, 0.55, 0.13)
    pen.ellipse(0, -0.5, 0.5, 0.5, colour)
    if dice.chance(0.6):
        pen.ellipse(-0.02, -0.5, 0.16, 0.47, colour.lighter(0.45))


def kite(pen: Pen, dice: Dice) -> None:
    """Paint a kite and its tail."""
    first, second = dice.pick(_CLOTH), dice.pick(_CLOTH)
    pen.line(0, 0, dice.between(-0.3, 0.3), 0.75, 0.03, plain("#4a4a4a"))
    pen.polygon([(0, 0), (-0.36, -0.6), (0, -1)], plain(first))
    pen.polygon([(0, 0), (0.36, -0.6), (0, -1)], plain(second))


def boat(pen: Pen, dice: Dice) -> None:
    """Paint a sailing or rowing boat."""
    hull = _colour(dice, palette("#f0ebe0 #a8443a #3a5a7a #7a5236"), down=-0.35)
    if dice.chance(0.7):
        pen.line(0, -0.2, 0, -1.0, 0.03, plain("#6b5540"))
        pen.polygon([(0.03, -0.97), (0.03, -0.28), (0.5, -0.28)], plain("#f6f1e4", across=-0.2))
        pen.polygon(
            [(-0.03, -0.85), (-0.03, -0.28), (-0.36, -0.28)], plain(dice.pick(_CLOTH), across=0.2)
        )
    else:
        pen.rounded(-0.25, -0.42, 0.3, -0.2, 0.05, plain("#ece8dc"))
    pen.polygon([(-0.62, -0.22), (0.66, -0.22), (0.48, 0.02), (-0.46, 0.02)], hull)
    pen.shadow(0, 0.06, 0.55, 0.05)


def dog(pen: Pen, dice: Dice) -> None:
    """Paint a dog from its side."""
    coat = _colour(dice, palette("#8a5f3a #3c322c #c9a672 #e4ddd0 #6b5a4c"), round=0.2, down=-0.2)
    pen.shadow(0.05, 0, 0.65, 0.08)
    for x in (-0.42, -0.28, 0.26, 0.4):
        pen.line(x, -0.45, x, 0, 0.1, coat.lit(down=-0.3))
    pen.line(-0.48, -0.62, -0.75, -0.9, 0.08, coat)
    pen.rounded(-0.55, -0.78, 0.48, -0.38, 0.18, coat)
    pen.ellipse(0.6, -0.82, 0.2, 0.18, coat)
    pen.ellipse(0.78, -0.76, 0.12, 0.08, coat)
    pen.ellipse(0.5, -0.84, 0.08, 0.16, coat.darker(0.35))


def sheep(pen: Pen, dice: Dice) -> None:
    """Paint a sheep from its side."""
    wool = _colour(dice, palette("#ece6d6 #e0d6c0 #f2eee4 #cfc4ae"))
    face = _colour(dice, palette("#3a3431 #d9ccb4 #5a4f48"))
    pen.shadow(0.05, 0, 0.62, 0.1)
    for x in (-0.35, -0.2, 0.2, 0.35):
        pen.line(x, -0.4, x, 0, 0.09, face)
    fleece = Material(wool.colour, "leaves", 0.1, round=0.25, down=-0.1)
    pen.ellipse(0, -0.6, 0.56, 0.36, fleece, rough=0.2)
    pen.ellipse(0.58, -0.74, 0.15, 0.19, face.lit(round=0.3))


def crowd_of_sheep(pen: Pen, dice: Dice) -> None:
    """Paint a flock."""
    for row in range(2):
        for place in range(4):
            x = (place - 1.5) * 0.95 + 0.4 * row + dice.between(-0.1, 0.1)
            sheep(pen.moved(x, -0.25 + 0.25 * row), dice)


def bird(pen: Pen, dice: Dice) -> None:
    """Paint a bird on the wing."""
    tone = _colour(dice, palette("#3a3c42 #e8e6e0 #6a5a4c"))
    up = dice.between(0.1, 0.5)
    pen.polygon([(-1, -0.5 - up), (-0.1, -0.5), (0.05, -0.3)], tone)
    pen.polygon([(1, -0.5 - up), (0.15, -0.5), (0, -0.3)], tone)
    pen.ellipse(0.05, -0.4, 0.3, 0.13, tone.darker(0.15))


def chair(pen: Pen, dice: Dice) -> None:
    """Paint a chair; its legs are thin."""
    wood, seat = _colour(dice, _WOOD, across=-0.2), _colour(dice, _FABRIC + _WOOD)
    pen.shadow(0.05, 0, 0.42, 0.07)
    for x in (-0.28, 0.3):
        pen.line(x, -0.42, x * 1.08, 0, 0.065, wood)
    for x in (-0.2, 0.2):
        pen.line(x, -0.42, x * 1.1, -0.08, 0.055, wood.darker(0.25))
    pen.rounded(-0.28, -1.0, 0.28, -0.5, 0.07, wood)
    pen.rounded(-0.2, -0.93, 0.2, -0.56, 0.05, seat.lit(down=-0.15))
    pen.polygon([(-0.3, -0.5), (0.3, -0.5), (0.37, -0.4), (-0.37, -0.4)], seat.lighter(0.1))


def sofa(pen: Pen, dice: Dice) -> None:
    """Paint a sofa, two and a half times as wide as high."""
    cloth = Material(dice.pick(_FABRIC), "grain", 0.1, down=-0.15)
    dark = cloth.darker(0.18)
    pen.shadow(0.05, 0, 1.35, 0.1)
    for x in (-1.05, 1.05):
        pen.box(x - 0.05, -0.12, x + 0.05, 0, plain("#3a2c22"))
    pen.rounded(-1.08, -1.0, 1.08, -0.3, 0.14, cloth)
    for left in (-1.0, 0.02):
        pen.rounded(left, -0.92, left + 0.98, -0.45, 0.1, cloth.lighter(0.06))
    pen.rounded(-1.05, -0.5, 1.05, -0.1, 0.08, dark)
    pen.rounded(-1.0, -0.54, 1.0, -0.34, 0.08, cloth.lighter(0.12))
    for x in (-1.12, 1.12):
        pen.rounded(x - 0.16, -0.68, x + 0.16, -0.08, 0.12, cloth.lit(round=0.15))


def cushion(pen: Pen, dice: Dice) -> None:
    """Paint a cushion, one unit across."""
    base = dice.pick(_CLOTH)
    pen.shadow(0.06, -0.05, 0.5, 0.2)
    pen.rounded(-0.48, -0.95, 0.48, -0.02, 0.22, Material(base, "weave", 0.14, round=0.22))


def bed(pen: Pen, dice: Dice) -> None:
    """Paint a bed seen from its foot end, a little from above."""
    wood, sheet = _colour(dice, _WOOD, down=-0.2), _colour(dice, palette("#ece8de #dfe5ea #e8dccb"))
    cover = Material(dice.pick(_FABRIC), "folds", 0.12, down=-0.2)
    pen.shadow(0.05, 0.02, 1.1, 0.12)
    pen.rounded(-0.82, -1.0, 0.82, -0.4, 0.1, wood)
    pen.polygon([(-0.78, -0.7), (0.78, -0.7), (1.0, -0.12), (-1.0, -0.12)], sheet)
    for x in (-0.38, 0.38):
        pen.rounded(
            x - 0.3,
            -0.82,
            x + 0.3,
            -0.6,
            0.1,
            sheet.lighter(0.4).lit(round=0.12, down=-0.1),
        )
    pen.polygon([(-0.83, -0.56), (0.83, -0.56), (1.03, -0.14), (-1.03, -0.14)], cover)
    pen.box(-1.03, -0.15, 1.03, 0, cover.darker(0.25))


def table(pen: Pen, dice: Dice) -> None:
    """Paint a table, two units wide; its top lies between -1 and -0.78."""
    wood = Material(dice.pick(_WOOD), "planks", 0.12)
    pen.shadow(0.05, 0, 1.0, 0.1)
    for x, foot in ((-0.72, -0.14), (0.72, -0.14), (-0.88, 0.0), (0.88, 0.0)):
        pen.line(x, -0.72, x, foot, 0.09, wood.darker(0.2).lit(across=-0.3))
    pen.box(-1.0, -0.79, 1.0, -0.68, wood.darker(0.12))
    pen.polygon([(-0.84, -1.0), (0.84, -1.0), (1.02, -0.78), (-1.02, -0.78)], wood.lighter(0.1))


def lamp(pen: Pen, dice: Dice) -> None:
    """Paint a standard lamp."""
    pen.shadow(0.05, 0, 0.2, 0.04)
    pen.ellipse(0, -0.015, 0.13, 0.03, plain("#4a4038"))
    pen.line(0, -0.7, 0, -0.01, 0.03, plain("#5a4f44"))
    shade = _colour(dice, palette("#f3dfb0 #f0d2a0 #e9e2d2 #d99a6a"), down=0.1, round=0.12)
    pen.polygon([(-0.2, -0.68), (0.2, -0.68), (0.12, -1), (-0.12, -1)], shade)


def cabinet(pen: Pen, dice: Dice) -> None:
    """Paint a chest or cupboard as wide as high."""
    wood = Material(dice.pick((*_WOOD, *palette("#d9d3c6 #8a9aa0"))), "planks", 0.08, down=-0.12)
    pen.shadow(0.06, 0, 0.58, 0.06)
    pen.box(-0.5, -1.0, 0.5, 0, wood)
    pen.box(-0.54, -1.04, 0.54, -0.96, wood.lighter(0.15))
    rows = dice.whole(2, 3)
    for row in range(rows):
        top = -0.92 + row * 0.88 / rows
        for left in (-0.46, 0.02):
            pen.box(left, top, left + 0.44, top + 0.8 / rows, wood.lighter(0.09))
            pen.ellipse(left + 0.22, top + 0.4 / rows, 0.03, 0.03, _STEEL)


def painting(pen: Pen, dice: Dice) -> None:
    """Paint a picture in its frame, one unit across."""
    high = dice.between(0.6, 1.1)
    pen.shadow(0.05, -high / 2 + 0.08, 0.53, high / 2)
    pen.box(-0.5, -high, 0.5, 0, _colour(dice, palette("#6b4a2c #2e2a27 #b89552 #e4ded2")))
    sky, land = (
        dice.pick(palette("#9fc3d8 #e6c9a0 #c7b3c9 #efe3c8")),
        dice.pick(palette("#6a7f5a #8a6a52 #4f6a80")),
    )
    pen.box(-0.42, -high + 0.08, 0.42, -0.08, Material(sky, "clouds", 0.18))
    pen.box(-0.42, -high * 0.45, 0.42, -0.08, Material(land, "grain", 0.25))


def television(pen: Pen, dice: Dice) -> None:
    """Paint a flat screen on its stand."""
    pen.box(-0.2, -0.08, 0.2, 0, plain("#2a2b2e"))
    pen.rounded(-0.8, -1.0, 0.8, -0.08, 0.04, plain("#1f2023"))
    glow = dice.pick(palette("#31506e #2a3038 #56704f #6d5a48"))
    pen.box(-0.75, -0.95, 0.75, -0.14, Material(glow, "clouds", 0.25, across=-0.2))


def clock(pen: Pen, dice: Dice) -> None:
    """Paint a wall clock."""
    pen.shadow(0.05, -0.45, 0.52, 0.52)
    pen.ellipse(0, -0.5, 0.5, 0.5, _colour(dice, palette("#2e2c2b #8a5f3a #b0392f")))
    pen.ellipse(0, -0.5, 0.4, 0.4, plain("#f4f0e6"))
    pen.line(0, -0.5, dice.between(-0.2, 0.2), -0.78, 0.06, plain("#26241f"))
    pen.line(0, -0.5, 0.22, dice.between(-0.6, -0.4), 0.07, plain("#26241f"))


def book(pen: Pen, dice: Dice) -> None:
    """Paint the spine of a book, a fifth as wide as high."""
    spine = _colour(dice, _BOOKS, across=-0.3)
    wide = 0.11
    pen.box(-wide, -1.0, wide, 0, spine)
    pen.box(-wide, -0.82, wide, -0.74, spine.tinted((1, 0.95, 0.8), 0.55))


def lying_book(pen: Pen, dice: Dice) -> None:
    """Paint a closed book that lies flat, a fifth as high as wide."""
    cover = _colour(dice, _BOOKS, down=-0.2)
    pen.shadow(0.06, 0, 1.02, 0.12)
    pen.rounded(-1.0, -0.36, 1.0, 0, 0.05, cover)
    pen.box(-0.92, -0.28, 1.0, -0.08, plain("#efe8d6", down=-0.2))


def vase(pen: Pen, dice: Dice) -> None:
    """Paint a vase."""
    glaze = _colour(dice, palette("#3f6f94 #b9583a #d9cdb4 #5f8a72 #7a4a6a"), round=0.35)
    pen.shadow(0.06, -0.01, 0.36, 0.06)
    pen.ellipse(0, -0.38, 0.32, 0.38, glaze)
    pen.polygon(
        [(-0.12, -0.65), (0.12, -0.65), (0.2, -1.0), (-0.2, -1.0)],
        glaze.lit(round=0.1, across=-0.3),
    )


def flowers(pen: Pen, dice: Dice) -> None:
    """Paint a bunch of flowers, to stand in a vase that ends at -1."""
    tones = dice.pick(
        [
            palette("#d8455f #e98aa0"),
            palette("#e9b23a #f0d27a"),
            palette("#8a6ab8 #c0a6dc"),
            palette("#f2efe6 #e6d9c0"),
        ]
    )
    for step in range(5):
        x = -0.3 + 0.15 * step + dice.between(-0.05, 0.05)
        pen.line(0, -0.95, x, -1.35, 0.04, plain("#4f7a42"))
    for step in range(7):
        x = -0.36 + 0.12 * step
        pen.ellipse(
            x,
            -1.4 + dice.between(-0.16, 0.16),
            0.14,
            0.13,
            plain(dice.pick(tones), round=0.35),
            rough=0.3,
        )


def bottle(pen: Pen, dice: Dice) -> None:
    """Paint a bottle."""
    glass = _colour(dice, palette("#3f6b45 #6b4a2c #8fb3b0 #7a2f35 #c9d6d2 #46618a"), across=-0.35)
    pen.shadow(0.06, -0.01, 0.26, 0.05)
    pen.rounded(-0.16, -0.66, 0.16, 0, 0.05, glass)
    pen.polygon([(-0.16, -0.62), (0.16, -0.62), (0.055, -0.78), (-0.055, -0.78)], glass)
    pen.box(-0.055, -0.98, 0.055, -0.75, glass)
    pen.box(-0.065, -1.0, 0.065, -0.92, plain("#2d2a28"))
    pen.box(-0.16, -0.5, 0.16, -0.2, _colour(dice, palette("#f0e9d6 #e6d3a0 #d8e0dc"), across=-0.3))
    pen.box(-0.11, -0.62, -0.07, -0.05, glass.lighter(0.45))


def cup(pen: Pen, dice: Dice) -> None:
    """Paint a cup with its handle."""
    china = _colour(dice, palette("#f1ece2 #c85a45 #4f7f9f #e3b84f #6f9a7a"), across=-0.3)
    pen.shadow(0.06, -0.01, 0.5, 0.09)
    pen.ring(0.42, -0.5, 0.26, 0.09, china)
    pen.polygon([(-0.32, 0), (0.32, 0), (0.42, -0.9), (-0.42, -0.9)], china)
    pen.ellipse(0, -0.9, 0.42, 0.11, china.lighter(0.2))
    pen.ellipse(0, -0.89, 0.35, 0.08, plain(dice.pick(palette("#5a3a26 #8a5a34 #c9a06a"))))


def bowl(pen: Pen, dice: Dice) -> None:
    """Paint a bowl, twice as wide as high."""
    china = _colour(
        dice, palette("#e9e2d2 #5f7f94 #b5654a #7f9a6a #d8b25a"), round=0.15, across=-0.2
    )
    pen.shadow(0.08, -0.02, 0.9, 0.12)
    pen.ellipse(0, -0.66, 1.0, 0.3, china.darker(0.3))
    pen.polygon(
        [(-1.0, -0.66), (1.0, -0.66), (0.86, -0.34), (0.45, 0), (-0.45, 0), (-0.86, -0.34)], china
    )


def _fruit(pen: Pen, dice: Dice, colours: Palette) -> None:
    base = dice.pick(colours)
    pen.shadow(0.1, -0.04, 0.52, 0.14)
    pen.ellipse(
        0,
        -0.5,
        0.5,
        0.48,
        Material(base, "clouds", 0.12, mix(base, (1, 0.9, 0.4), 0.5), round=0.38),
    )
    pen.ellipse(-0.17, -0.68, 0.1, 0.07, Material(mix(base, (1, 1, 1), 0.6)))


def apple(pen: Pen, dice: Dice) -> None:
    """Paint an apple, one unit across."""
    _fruit(pen, dice, palette("#b8322c #8fae3f #c9523a #a62a35"))
    pen.line(0, -0.9, 0.06, -1.06, 0.06, plain("#4a3524"))


def orange(pen: Pen, dice: Dice) -> None:
    """Paint an orange, one unit across."""
    _fruit(pen, dice, palette("#e58a2a #ea9c3a #dd7a22"))


def potted_plant(pen: Pen, dice: Dice) -> None:
    """Paint a house plant in its pot."""
    base = dice.pick(palette("#4f8a4a #3f7a52 #6a9a4f"))
    leaf = Material(base, "leaves", 0.15, mix(base, (0.9, 1, 0.6), 0.4), across=-0.2)
    pen.shadow(0.06, 0, 0.3, 0.05)
    for step in range(7):
        x = -0.42 + 0.14 * step
        y = -0.62 - 0.35 * (1 - (x / 0.5) * (x / 0.5)) + dice.between(-0.08, 0.08)
        pen.polygon(
            [(-0.04, -0.3), (0.04, -0.3), (x * 0.8 + 0.1, (y - 0.3) / 2 - 0.06), (x, y)], leaf
        )
    pot = _colour(dice, palette("#b5623f #d9cfc0 #6a6f76 #8a4a34"), across=-0.35)
    pen.polygon([(-0.16, 0), (0.16, 0), (0.23, -0.34), (-0.23, -0.34)], pot)
    pen.box(-0.25, -0.4, 0.25, -0.32, pot.lighter(0.1))


def carton(pen: Pen, dice: Dice) -> None:
    """Paint a cardboard box."""
    card = _colour(dice, palette("#b98e5c #a87d4e #c9a276"), down=-0.12)
    pen.shadow(0.08, 0, 0.62, 0.08)
    pen.box(-0.5, -0.8, 0.5, 0, card)
    pen.polygon([(-0.5, -0.8), (0.5, -0.8), (0.62, -1.0), (-0.38, -1.0)], card.lighter(0.15))
    pen.polygon([(0.5, -0.8), (0.62, -1.0), (0.62, -0.2), (0.5, 0)], card.darker(0.22))
    pen.box(-0.06, -0.8, 0.06, 0, card.tinted((1, 0.95, 0.8), 0.35))


Painter = Callable[[Pen, Dice], None]

THINGS: dict[str, Painter] = {
    "apple": apple,
    "ball": ball,
    "bed": bed,
    "bench": bench,
    "bicycle": bicycle,
    "bird": bird,
    "boat": boat,
    "book": book,
    "bottle": bottle,
    "bowl": bowl,
    "box": carton,
    "bus": bus,
    "bush": bush,
    "cabinet": cabinet,
    "car": car,
    "chair": chair,
    "clock": clock,
    "cup": cup,
    "cushion": cushion,
    "dog": dog,
    "hydrant": hydrant,
    "kite": kite,
    "lamp": lamp,
    "motorcycle": motorcycle,
    "orange": orange,
    "painting": painting,
    "person": person,
    "pole": pole,
    "potted plant": potted_plant,
    "rock": rock,
    "sheep": sheep,
    "sofa": sofa,
    "street lamp": street_lamp,
    "table": table,
    "television": television,
    "trash can": trash_can,
    "tree": tree,
    "truck": truck,
    "umbrella": umbrella,
    "van": van,
    "vase": vase,
}
