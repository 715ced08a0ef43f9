"""How scenes are laid out: street, landscape, room, table top, house front."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise

from entitybench.converters.worlds import things
from entitybench.converters.worlds.backdrops import (
    BRICKS,
    PLASTER,
    curtains,
    door,
    facade_windows,
    ground,
    ground_material,
    hills,
    interior,
    mountains,
    sky,
    treeline,
    window,
)
from entitybench.converters.worlds.canvas import Pen, plain
from entitybench.converters.worlds.stage import Stage


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
    while steps[-1] > 0.045:
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
        stage.canvas.polygon(cornice), shade.tinted((0.2, 0.16, 0.15), 0.4), host, haze
    )
    wide = abs(quad[0][0] - quad[2][0])
    if wide > 0.07:
        columns = max(1, min(4, round(wide * 7)))
        facade_windows(stage, host, quad, columns, dice.whole(2, 4), "pane", haze)


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
        stage.later(t, partial(_fence, stage, x0, x1, eye + t, 0.75 * t))


def _fence(stage: Stage, left: float, right: float, foot: float, high: float) -> None:
    pitch = max(0.022, high * 0.35)
    patch = stage.canvas.pickets(left, foot - high, right, foot, pitch=pitch, share=0.42)
    stage.region(
        "fence", patch, stage.surface(["#e6e0d2", "#8a6a4a", "#4a4f54", "#b9a58a"], "grain", 0.1)
    )


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
        _rider(stage, x, y, size, haze)
    else:
        high = {"car": 0.9, "van": 1.3, "truck": 1.7, "bus": 1.7}[kind]
        stage.put(kind, x, y, size * high, haze=haze, flip=dice.sign())


def _rider(stage: Stage, x: float, y: float, size: float, haze: float = 0.0) -> None:
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
_HEIGHTS = {
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
    size = t * _HEIGHTS[name] * stage.habits.size * stage.dice.between(0.9, 1.1)
    stage.put(name, x, y, size, haze=haze, flip=stage.dice.sign())


def _on_pole(stage: Stage, name: str, x: float, y: float, t: float, haze: float) -> None:
    high = t * stage.dice.between(1.6, 2.2)
    stage.put("pole", x, y, high, haze=haze)
    painter = things.sign if name == "sign" else things.traffic_light
    size = t * (0.55 if name == "sign" else 0.75) * stage.habits.size
    stage.put(name, x, y - high + size * 0.75, size, painter=painter, haze=haze)


def landscape(stage: Stage) -> None:
    """Open country: mountains, water, meadow or beach, animals, boats, people."""
    dice, canvas = stage.dice, stage.canvas
    eye = stage.height * dice.between(0.32, 0.5)
    canvas.horizon = (stage.width / 2, eye)
    sky(stage, eye + 0.02)
    if dice.chance(0.5):
        mountains(stage, eye)
    elif dice.chance(0.5):
        hills(stage, eye)
    kind = dice.weighted([("meadow", 4), ("coast", 2.5), ("river", 2), ("farm", 2)])
    _COUNTRY[kind](stage, eye)
    stage.paint_queue()
    _air(stage, eye)


def _meadow(stage: Stage, eye: float) -> None:
    if stage.dice.chance(0.7):
        treeline(stage, eye + 0.01)
    ground(stage, "grass", eye)
    if stage.dice.chance(0.35):
        _path(stage, eye)
    _scatter(
        stage,
        eye,
        [
            ("tree", 3),
            ("person", 2),
            ("rock", 1),
            ("bush", 1.5),
            ("dog", 1),
            ("sheep", 2),
            ("ball", 0.7),
            ("conifer", 1.5),
            ("bench", 0.5),
        ],
    )
    _flock(stage, eye)


def _farm(stage: Stage, eye: float) -> None:
    treeline(stage, eye + 0.01)
    ground(stage, stage.dice.pick(["grass", "earth"]), eye)
    t = stage.dice.between(0.06, 0.12)
    x = stage.width * stage.dice.between(0.2, 0.8)
    stage.later(t, partial(_cottage, stage, x, eye + t, 0.16 + t))
    _scatter(
        stage,
        eye,
        [("tree", 2), ("person", 1.5), ("bush", 1.5), ("dog", 1), ("sheep", 2), ("conifer", 1)],
    )
    if stage.dice.chance(0.7):
        t = stage.dice.between(0.12, 0.2)
        stage.later(
            t, partial(_fence, stage, 0, stage.width * stage.dice.between(0.45, 1.0), eye + t, 0.09)
        )
    _flock(stage, eye)


def _cottage(stage: Stage, x: float, y: float, size: float) -> None:
    element = stage.canvas.element("house")
    pen = Pen(stage.canvas, element, x, y, size, haze=0.1)
    wall = stage.surface([*PLASTER, "#f0ead8"], "concrete", 0.06)
    roof = stage.surface(["#a4553f", "#7a4a3a", "#5f6468", "#8f5a40"], "shingles", 0.2)
    pen.shadow(0.1, 0, 0.95, 0.1)
    pen.box(-0.75, -0.6, 0.75, 0, wall)
    pen.polygon([(-0.9, -0.56), (0.9, -0.56), (0.62, -1.0), (-0.62, -1.0)], roof)
    pen.box(0.3, -1.1, 0.45, -0.85, plain("#8a5a48"))
    for place in (-0.45, 0.45):
        glass = pen.of(stage.canvas.element("window", host=element))
        glass.box(place - 0.15, -0.45, place + 0.15, -0.18, plain("#f0ece2"))
        glass.box(place - 0.12, -0.42, place + 0.12, -0.21, plain("#4f6478", down=-0.3))
    leaf = pen.of(stage.canvas.element("door", host=element))
    leaf.box(-0.11, -0.4, 0.11, 0, stage.surface(["#7a5236", "#3f5a4f", "#8a3f36"], "planks", 0.1))


def _coast(stage: Stage, eye: float) -> None:
    dice = stage.dice
    ground(stage, "sea", eye)
    boats = stage.number(1, 3)
    for _ in range(boats):
        t = dice.between(0.02, 0.12)
        stage.put("boat", dice.between(0.1, 0.9) * stage.width, eye + t, 0.09 + t * 0.9, haze=0.12)
    shore = eye + (stage.height - eye) * dice.between(0.35, 0.6)
    line = [shore + dice.between(-0.03, 0.03) for _ in range(6)]
    foam = [y - 0.015 for y in line]
    sea = stage.canvas.elements.index(next(e for e in stage.canvas.elements if e.name == "sea"))
    stage.canvas.paint(stage.canvas.below(foam, rough=0.008), plain("#eef3ee"), sea)
    stage.region("sand", stage.canvas.below(line, rough=0.006), ground_material(stage, "sand"))
    _scatter(
        stage,
        shore - 0.06,
        [("person", 4), ("umbrella", 2.5), ("ball", 1.5), ("rock", 1.5), ("dog", 1)],
    )


def _river(stage: Stage, eye: float) -> None:
    dice = stage.dice
    treeline(stage, eye + 0.01)
    ground(stage, "grass", eye)
    x0, x1 = dice.between(0.2, 0.8) * stage.width, dice.between(0.1, 0.9) * stage.width
    water = ground_material(stage, "river")
    half, base = dice.between(0.16, 0.3), stage.height - eye
    corners = [
        (x0 - 0.015, eye + 0.004),
        (x0 + 0.015, eye + 0.004),
        (x1 + half, eye + base + 0.01),
        (x1 - half, eye + base + 0.01),
    ]
    stage.region("river", stage.canvas.polygon(corners), water)
    t = dice.between(0.15, 0.5) * base
    if dice.chance(0.5):
        x = x0 + (x1 - x0) * t / base
        stage.later(t, partial(stage.put, "boat", x, eye + t, 0.1 + 0.5 * t))
    _scatter(
        stage,
        eye,
        [("tree", 3), ("rock", 2), ("bush", 2), ("person", 1.5), ("conifer", 2), ("dog", 0.6)],
    )


def _path(stage: Stage, eye: float) -> None:
    x = stage.width * stage.dice.between(0.3, 0.7)
    foot = stage.width * stage.dice.between(0.2, 0.8)
    corners = [
        (x - 0.01, eye + 0.003),
        (x + 0.01, eye + 0.003),
        (foot + 0.22, stage.height + 0.01),
        (foot - 0.22, stage.height + 0.01),
    ]
    stage.region("earth", stage.canvas.polygon(corners), ground_material(stage, "earth"))


_COUNTRY: dict[str, Callable[[Stage, float], None]] = {
    "meadow": _meadow,
    "coast": _coast,
    "river": _river,
    "farm": _farm,
}
_COUNTRY_HEIGHTS = {
    "tree": 0.5,
    "conifer": 0.48,
    "person": 0.3,
    "rock": 0.15,
    "bush": 0.17,
    "dog": 0.17,
    "sheep": 0.16,
    "ball": 0.09,
    "umbrella": 0.36,
    "bench": 0.15,
}


def _scatter(stage: Stage, eye: float, kinds: list[tuple[str, float]]) -> None:
    dice = stage.dice
    for _ in range(stage.number(2, 6)):
        name = dice.weighted(kinds)
        t = dice.between(0.06, max(0.1, (stage.height - eye) * 0.9))
        size = (
            _COUNTRY_HEIGHTS[name] * (0.35 + 1.5 * t) * dice.between(0.85, 1.15) * stage.habits.size
        )
        x = dice.between(0.04, 0.96) * stage.width
        painter = things.conifer if name == "conifer" else None
        word = "tree" if name == "conifer" else name
        stage.later(
            t,
            partial(
                stage.put,
                word,
                x,
                eye + t,
                size,
                painter=painter,
                haze=max(0.0, 0.25 - t),
                flip=dice.sign(),
            ),
        )


def _flock(stage: Stage, eye: float) -> None:
    """Queue a row of touching sheep, or a flock nobody counted."""
    dice = stage.dice
    t = dice.between(0.1, 0.3)
    x = dice.between(0.15, 0.6) * stage.width
    size = 0.14 * (0.35 + 1.5 * t) * stage.habits.size
    if dice.chance(stage.habits.crowds):
        stage.later(
            t,
            partial(
                stage.put,
                "sheep",
                x + 0.2,
                eye + t,
                size,
                painter=things.crowd_of_sheep,
                crowd=True,
            ),
        )
    elif dice.chance(0.3):
        for step in range(stage.number(2, 4)):
            foot = t + dice.between(-0.01, 0.01)
            stage.later(foot, partial(stage.put, "sheep", x + step * size * 1.05, eye + foot, size))


def _air(stage: Stage, eye: float) -> None:
    dice = stage.dice
    if dice.chance(0.25):
        for _ in range(dice.whole(1, 3)):
            stage.put(
                "kite" if dice.chance(0.5) else "bird",
                dice.between(0.1, 0.9) * stage.width,
                dice.between(0.1, 0.75) * eye,
                dice.between(0.04, 0.09),
            )


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
        ["#a7594f", "#8a6a4a", "#5f7f78", "#c9b48f", "#4c5d73"], "weave", 0.25, "#f0e2c0"
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
    wood = stage.surface(["#8f6540", "#6a4a34", "#d9d3c6", "#a97c50"], "planks", 0.1)
    pen.shadow(0.05, 0, 0.6, 0.06)
    pen.box(-0.5, -1.5, 0.5, 0, wood.tinted((0, 0, 0), 0.4))
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


def tabletop(stage: Stage) -> None:
    """Things on a table, close up."""
    dice, canvas = stage.dice, stage.canvas
    edge = stage.height * dice.between(0.28, 0.42)
    canvas.horizon = (stage.width / 2, edge - 0.25)
    wall = stage.surface(
        [*PLASTER, "#7f9a94", "#a9744f"], dice.pick(["concrete", "tiles", "bricks", "clouds"]), 0.07
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
    wood = stage.surface(["#b07f52", "#8a5c3a", "#d9c7a8", "#6a4630", "#c9b8a0"], "planks", 0.14)
    board = stage.region("table", canvas.box(0, edge, stage.width, stage.height), wood.receding())
    canvas.paint(
        canvas.box(0, edge, stage.width, edge + 0.008), wood.tinted((1, 1, 1), 0.35), board
    )
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
    tone = stage.surface(["#b0392f", "#2f6f5a", "#d9a53a", "#3f5f8a"], "stripes", 0.3, "#f6f0e4")
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
    heights = {**_HEIGHTS, "potted plant": 0.55, "car": 0.85, "tree": 2.4, "street lamp": 2.2}
    for _ in range(stage.number(1, 5)):
        name = dice.weighted(kinds)
        y = foot + (stage.height - foot) * dice.between(0.15, 0.9)
        near = (0.2 + 0.45 * (y - foot)) * stage.habits.size
        x = dice.between(0.06, 0.94) * stage.width
        if name == "rider":
            stage.later(y, partial(_rider, stage, x, y, near))
        elif name == "fence":
            stage.later(y, partial(_fence, stage, x - 0.3, x + 0.3, y, near * 0.6))
        else:
            stage.later(y, partial(stage.put, name, x, y, near * heights[name], flip=dice.sign()))
    if dice.chance(stage.habits.crowds * 0.6):
        x, y = dice.between(0.2, 0.8) * stage.width, foot + 0.05
        stage.later(
            y, partial(stage.put, "person", x, y, 0.22, painter=things.crowd_of_people, crowd=True)
        )


LAYOUTS: dict[str, Callable[[Stage], None]] = {
    "street": street,
    "landscape": landscape,
    "room": room,
    "tabletop": tabletop,
    "front": front,
}
