"""Open country: meadow, farm, coast and river."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from entitybench.converters.worlds import things
from entitybench.converters.worlds.backdrops import (
    PLASTER,
    fence,
    ground,
    ground_material,
    hills,
    mountains,
    sky,
    treeline,
)
from entitybench.converters.worlds.materials import palette, plain
from entitybench.converters.worlds.pen import Pen
from entitybench.converters.worlds.stage import Stage


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
            t, partial(fence, stage, 0, stage.width * stage.dice.between(0.45, 1.0), eye + t, 0.09)
        )
    _flock(stage, eye)


def _cottage(stage: Stage, x: float, y: float, size: float) -> None:
    element = stage.canvas.element("house")
    pen = Pen(stage.canvas, element, x, y, size, haze=0.1)
    wall = stage.surface((*PLASTER, *palette("#f0ead8")), "concrete", 0.06)
    roof = stage.surface(palette("#a4553f #7a4a3a #5f6468 #8f5a40"), "shingles", 0.2)
    pen.shadow(0.1, 0, 0.95, 0.1)
    pen.box(-0.75, -0.6, 0.75, 0, wall)
    pen.polygon([(-0.9, -0.56), (0.9, -0.56), (0.62, -1.0), (-0.62, -1.0)], roof)
    pen.box(0.3, -1.1, 0.45, -0.85, plain("#8a5a48"))
    for place in (-0.45, 0.45):
        glass = pen.of(stage.canvas.element("window", host=element))
        glass.box(place - 0.15, -0.45, place + 0.15, -0.18, plain("#f0ece2"))
        glass.box(place - 0.12, -0.42, place + 0.12, -0.21, plain("#4f6478", down=-0.3))
    leaf = pen.of(stage.canvas.element("door", host=element))
    leaf.box(-0.11, -0.4, 0.11, 0, stage.surface(palette("#7a5236 #3f5a4f #8a3f36"), "planks", 0.1))


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
