"""The street: houses or a park on both sides, traffic, people, what stands at the kerb."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

from entitybench.converters.worlds import things
from entitybench.converters.worlds.backdrops import (
    BRICKS,
    PLASTER,
    fence,
    ground,
    ground_material,
    sky,
    treeline,
)
from entitybench.converters.worlds.materials import palette, plain
from entitybench.converters.worlds.stage import Stage

_GLASS = palette("#46586a #5a6f80 #38485a #7f95a3")


def street(stage: Stage) -> None:
    """A street towards the horizon, with houses or a park on each side."""
    dice, canvas = stage.dice, stage.canvas
    eye = stage.height * dice.between(0.38, 0.5)
    vanish = stage.width * dice.between(0.4, 0.6)
    canvas.horizon = (vanish, eye)
    sky(stage, eye + 0.02)
    treeline(stage, eye + 0.012, haze=0.45)
    wide = dice.between(0.9, 1.5) * (1.3 if stage.width > 1.5 * stage.height else 1.0)
    kerb = wide + dice.between(0.45, 0.8)
    ground(stage, "sidewalk", eye + 0.01)
    for way in (-1, 1):
        _roadside(stage, way, kerb)
    _carriageway(stage, wide)
    _traffic(stage, wide)
    _pavement_life(stage, wide, kerb)
    stage.paint_queue()


def _roadside(stage: Stage, way: int, kerb: float) -> None:
    if stage.dice.chance(0.7):
        _row_of_houses(stage, way, kerb)
    else:
        _park(stage, way, kerb)


def _row_of_houses(stage: Stage, way: int, kerb: float) -> None:
    """Paint houses from the far to the near; t is the depth below the horizon at their feet."""
    vanish, eye = stage.canvas.horizon
    room = vanish if way < 0 else stage.width - vanish
    steps = [1.7 * room / kerb]
    while steps[-1] > 0.07:
        steps.append(steps[-1] * stage.dice.between(0.42, 0.68))
    for near, far in reversed(list(pairwise(steps))):
        tall = stage.dice.between(2.2, 5.5)
        quad = [
            (vanish + way * kerb * near, eye + near),
            (vanish + way * kerb * near, eye - tall * near),
            (vanish + way * kerb * far, eye - tall * far),
            (vanish + way * kerb * far, eye + far),
        ]
        _house_in_row(stage, way, quad, haze=max(0.0, 0.42 - 2.2 * near))


def _house_in_row(stage: Stage, way: int, quad: list[tuple[float, float]], haze: float) -> None:
    dice = stage.dice
    brick = dice.chance(0.3)
    wall = stage.surface(BRICKS if brick else PLASTER, "bricks" if brick else "concrete", 0.1)
    name = "house" if dice.chance(0.2) else "building"
    shade = wall.tinted((0, 0, 0), 0.16 if way < 0 else 0.02)
    host = stage.region(name, stage.canvas.polygon(quad), shade, haze=haze)
    cornice = [
        quad[1],
        quad[2],
        (quad[2][0], quad[2][1] + 0.12 * (quad[3][1] - quad[2][1])),
        (quad[1][0], quad[1][1] + 0.06 * (quad[0][1] - quad[1][1])),
    ]
    stage.canvas.paint(
        stage.canvas.polygon(cornice), shade.tinted((0.2, 0.16, 0.15), 0.4), host, haze=haze
    )
    wide = abs(quad[0][0] - quad[2][0])
    if wide > 0.04:
        columns = max(1, min(5, round(wide * 8)))
        panes = stage.canvas.element("pane", host=host)
        glass = stage.surface(_GLASS, "clouds", 0.25, "#e6eef0")
        patch = stage.canvas.windows(quad, columns, dice.whole(3, 5))
        stage.canvas.paint(patch, glass, panes, haze=haze)


def _park(stage: Stage, way: int, kerb: float) -> None:
    vanish, eye = stage.canvas.horizon
    out = 12.0
    lawn = stage.canvas.polygon(
        [
            (vanish, eye + 0.005),
            (vanish + way * kerb * 1.6, eye + 1.6),
            (vanish + way * kerb * out, eye + 1.6),
            (vanish + way * kerb * out, eye + 0.005),
        ]
    )
    stage.region("grass", lawn, ground_material(stage, "grass"))
    for _ in range(stage.number(2, 4)):
        t = stage.dice.between(0.06, 0.4)
        x = vanish + way * (kerb + stage.dice.between(0.3, 1.2)) * t
        name = stage.dice.pick(["tree", "tree", "bush"])
        size = t * (stage.dice.between(3, 4.5) if name == "tree" else 1.1)
        stage.later(t, partial(stage.put, name, x, eye + t, size, haze=max(0.0, 0.3 - 2 * t)))
    if stage.dice.chance(0.45):
        t = stage.dice.between(0.1, 0.25)
        x0, x1 = sorted((vanish + way * kerb * t, vanish + way * 4 * kerb * t))
        stage.later(t, partial(fence, stage, x0, x1, eye + t, 0.75 * t))


def _carriageway(stage: Stage, wide: float) -> None:
    vanish, eye = stage.canvas.horizon
    canvas = stage.canvas
    tip, base = 0.006, stage.height - eye + 0.02
    corners = [
        (vanish - wide * tip, eye + tip),
        (vanish + wide * tip, eye + tip),
        (vanish + wide * base, eye + base),
        (vanish - wide * base, eye + base),
    ]
    road = stage.region("road", canvas.polygon(corners), ground_material(stage, "road"))
    paint = plain("#e4e0d2")
    t = base
    while t > 0.03:
        near, far = t, t * 0.72
        dash = [
            (vanish - 0.045 * near, eye + near),
            (vanish + 0.045 * near, eye + near),
            (vanish + 0.045 * far, eye + far),
            (vanish - 0.045 * far, eye + far),
        ]
        canvas.paint(canvas.polygon(dash), paint, road)
        t *= 0.52


def _traffic(stage: Stage, wide: float) -> None:
    """Queue parked rows of touching cars, and what drives."""
    dice, (vanish, eye) = stage.dice, stage.canvas.horizon
    reach = (stage.height - eye) * 0.95
    for way in (-1, 1):
        if dice.chance(0.55):
            t = dice.between(0.35, 0.9) * reach
            for _ in range(stage.number(1, 3)):
                x = vanish + way * (wide - 0.32) * t
                stage.later(t, partial(_vehicle_behind, stage, x, eye + t, t))
                t *= dice.between(0.68, 0.8)
    for _ in range(stage.number(0, 2)):
        t = reach * dice.between(0.12, 0.75)
        x = vanish + dice.between(-0.6, 0.6) * wide * t
        stage.later(t, partial(_moving, stage, x, eye + t, t))


def _vehicle_behind(stage: Stage, x: float, y: float, t: float) -> None:
    size = t * 0.92 * stage.habits.size
    stage.put("car", x, y, size, painter=things.car_from_behind, haze=max(0.0, 0.3 - 1.5 * t))


def _moving(stage: Stage, x: float, y: float, t: float) -> None:
    dice = stage.dice
    haze = max(0.0, 0.3 - 1.5 * t)
    kind = dice.weighted(
        [("behind", 4), ("car", 2), ("van", 1), ("truck", 0.8), ("bus", 0.9), ("rider", 2)]
    )
    size = t * stage.habits.size
    if kind == "behind":
        _vehicle_behind(stage, x, y, t)
    elif kind == "rider":
        rider(stage, x, y, size, haze)
    else:
        high = {"car": 0.9, "van": 1.3, "truck": 1.7, "bus": 1.7}[kind]
        stage.put(kind, x, y, size * high, haze=haze, flip=dice.sign())


def rider(stage: Stage, x: float, y: float, size: float, haze: float = 0.0) -> None:
    """Paint a bicycle or motorcycle and, as an element of its own, who rides it."""
    dice = stage.dice
    name = dice.weighted([("bicycle", 3), ("motorcycle", 1)])
    pen = stage.put(name, x, y, size * 0.72, haze=haze, flip=dice.sign())
    things.rider(pen.of(stage.canvas.element("rider")), dice)


def _pavement_life(stage: Stage, wide: float, kerb: float) -> None:
    dice, (vanish, eye) = stage.dice, stage.canvas.horizon
    reach = (stage.height - eye) * 0.9
    for _ in range(stage.number(2, 6)):
        way = dice.sign()
        t = reach * dice.between(0.12, 0.8)
        x = vanish + way * (wide + dice.between(0.08, kerb - wide)) * t
        stage.later(t, partial(_by_the_road, stage, x, eye + t, t))
    if dice.chance(stage.habits.crowds):
        t = reach * dice.between(0.12, 0.28)
        x = vanish + dice.sign() * kerb * t
        stage.later(
            t,
            partial(
                stage.put,
                "person",
                x,
                eye + t,
                t * 1.1,
                painter=things.crowd_of_people,
                crowd=True,
                haze=0.15,
            ),
        )


_ROADSIDE = [
    ("person", 5.0),
    ("street lamp", 1.0),
    ("tree", 1.0),
    ("sign", 1.5),
    ("traffic light", 1.2),
    ("bicycle", 1.0),
    ("bench", 0.6),
    ("trash can", 0.7),
    ("hydrant", 0.6),
    ("pole", 0.8),
    ("dog", 0.4),
]
ROADSIDE_HEIGHTS = {
    "person": 1.12,
    "street lamp": 3.2,
    "tree": 3.4,
    "bicycle": 0.7,
    "bench": 0.6,
    "trash can": 0.6,
    "hydrant": 0.55,
    "pole": 2.6,
    "dog": 0.45,
}


def _by_the_road(stage: Stage, x: float, y: float, t: float) -> None:
    name = stage.dice.weighted(_ROADSIDE)
    haze = max(0.0, 0.25 - 1.5 * t)
    if name in ("sign", "traffic light"):
        _on_pole(stage, name, x, y, t, haze)
        return
    size = t * ROADSIDE_HEIGHTS[name] * stage.habits.size * stage.dice.between(0.9, 1.1)
    stage.put(name, x, y, size, haze=haze, flip=stage.dice.sign())


def _on_pole(stage: Stage, name: str, x: float, y: float, t: float, haze: float) -> None:
    high = t * stage.dice.between(1.6, 2.2)
    stage.put("pole", x, y, high, haze=haze)
    painter = things.sign if name == "sign" else things.traffic_light
    size = t * (0.55 if name == "sign" else 0.75) * stage.habits.size
    stage.put(name, x, y - high + size * 0.75, size, painter=painter, haze=haze)
