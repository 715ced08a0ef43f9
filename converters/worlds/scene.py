"""One scene: the photograph, its true entity map, and what the entities are."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from entitybench.converters.worlds.annotation import SceneEntity, annotate
from entitybench.converters.worlds.backdrops import camera_car
from entitybench.converters.worlds.canvas import Canvas
from entitybench.converters.worlds.dice import Dice
from entitybench.converters.worlds.habits import HABITS, Habits
from entitybench.converters.worlds.layouts import LAYOUTS
from entitybench.converters.worlds.materials import Weather
from entitybench.converters.worlds.rendering import render
from entitybench.converters.worlds.stage import Stage
from entitybench.converters.worlds.stress import PAINTERS, specks, stress_case, uncoloured
from entitybench.converters.worlds.textures import TEXTURES
from entitybench.converters.worlds.vocabulary import WORLDS
from entitybench.errors import UnknownNameError

SPLITS = ("train", "val")
_SMALLEST = 4  # pixels: what shows less of itself is left out by the annotators
_SPECK = {"coco": "bird", "ade20k": "bird", "cityscapes": "person"}


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """What the generator makes of one index.

    Attributes:
        image: `(H, W, 3)` uint8 photograph.
        entity_map: `(H, W)` int32 truth: 0 void, `1…N` entities, `N+1…N+C` crowds.
        entities: What the ids `1…N` are.
        crowds: What the ids `N+1…N+C` are.
        classes: `(H, W)` uint8 category of each pixel in the source's own ids, also where
            the entity map says void and the source still knows a class; 0 where it does not.
        layout: Name of the layout or stress case.
        gray: Whether the photograph is stored without colour.
        orientation: EXIF orientation to store; annotations follow the stored pixels, so a
            reader must not turn the picture.
    """

    image: NDArray[np.uint8]
    entity_map: NDArray[np.int32]
    entities: tuple[SceneEntity, ...]
    crowds: tuple[SceneEntity, ...]
    classes: NDArray[np.uint8]
    layout: str
    gray: bool = False
    orientation: int = 1


def make_scene(world: str, *, split: str, index: int, size: int, seed: int) -> Scene:
    """Make one scene; the same arguments always give the same bits.

    Args:
        world: `coco`, `ade20k` or `cityscapes`.
        split: `train` or `val`; they never share a scene.
        index: Number of the scene in its split, from 0.
        size: Side of a square scene in pixels; other shapes fit in that square, except in
            `cityscapes`, which is twice as wide as high.
        seed: Any non-negative integer.

    Raises:
        UnknownNameError: No such world or split.
    """
    for kind, name, known in (("world", world, WORLDS), ("split", split, SPLITS)):
        if name not in known:
            raise UnknownNameError.of(kind, name, known)
    dice = Dice(seed, WORLDS.index(world), SPLITS.index(split), index)
    case = stress_case(world, SPLITS.index(split), index, seed)
    height, width = _shape(world, size, dice, case)
    stage = Stage(Canvas(height, width, size, dice), dice, HABITS[world])
    layout = _painted(stage, case)
    owners = _as_drawn(stage, size)
    image = render(stage.canvas, _weather(stage.habits, dice), dice)
    if case == "pixels":
        specks(image, owners, stage.canvas.elements, _SPECK[world], dice)
    truth = annotate(
        owners,
        stage.canvas.elements,
        world,
        dice,
        smallest=1 if case == "pixels" else _SMALLEST,
        forgotten=0.0 if case else stage.habits.forgotten,
    )
    scene = Scene(image, truth.entity_map, truth.entities, truth.crowds, truth.classes, layout)
    return _finished(scene, case)


def _shape(world: str, size: int, dice: Dice, case: str | None) -> tuple[int, int]:
    if world == "cityscapes":
        return size, 2 * size
    short = size * 3 // 4
    shapes = [((size, size), 0.74), ((short, size), 0.2), ((size, short), 0.06)]
    shape = dice.weighted(shapes)
    if case in PAINTERS:
        return size, size
    return (size, short) if case == "portrait" else shape


def _painted(stage: Stage, case: str | None) -> str:
    """Paint the scene; return the name of its layout or case."""
    layout = stage.dice.weighted(stage.habits.layouts)
    PAINTERS.get(case or "", LAYOUTS[layout])(stage)
    if stage.habits.outdoors and case not in PAINTERS:
        camera_car(stage)
    return case or layout


def _as_drawn(stage: Stage, size: int) -> NDArray[np.int32]:
    """Return the owner of each pixel, with the unsteady hand of the annotators."""
    owners = stage.canvas.owners()
    reach = stage.habits.jitter * size / 128
    if not reach:
        return owners
    rows, cols = owners.shape
    hand = stage.canvas.bank[TEXTURES["hand"]]
    y, x = np.arange(rows)[:, None], np.arange(cols)[None, :]
    start = stage.dice.whole(0, hand.shape[0] - 1)
    down = _shift(hand[(y + start) % len(hand), x % len(hand)], reach)
    right = _shift(hand[y % len(hand), (x + start) % len(hand)], reach)
    drawn: NDArray[np.int32] = owners[
        np.clip(y + down, 0, rows - 1), np.clip(x + right, 0, cols - 1)
    ]
    return drawn


def _shift(noise: NDArray[np.int8], reach: float) -> NDArray[np.int64]:
    shift: NDArray[np.int64] = np.rint(noise * (reach / 127)).astype(np.int64)
    return shift


def _weather(habits: Habits, dice: Dice) -> Weather:
    return Weather(
        warmth=dice.between(*habits.warmth),
        saturation=dice.between(*habits.saturation),
        brightness=dice.between(0.88, 1.08),
        ramp=(dice.between(-0.25, 0.25), dice.between(-0.12, 0.12)),
        shadow=dice.between(0.25, 0.5),
        noise=dice.between(*habits.noise),
        blur=dice.between(0.0, 0.5),
    )


def _finished(scene: Scene, case: str | None) -> Scene:
    """Apply what a stress case does to a finished scene."""
    if case == "gray":
        return replace(scene, image=uncoloured(scene.image), gray=True)
    if case == "turned":
        return replace(scene, orientation=6)
    if case == "covered":
        return replace(scene, classes=_covered(scene))
    return scene


def _covered(scene: Scene) -> NDArray[np.uint8]:
    """Return classes that say "grandstand" under the largest thing.

    In ADE20K the semantic and the instance map may disagree; things win, and a stuff region
    that one of them covers whole is no entity.
    """
    things = [i for i, entity in enumerate(scene.entities, start=1) if entity.isthing]
    areas = np.bincount(scene.entity_map.ravel(), minlength=len(scene.entities) + 1)
    largest = max(things, key=lambda i: int(areas[i]), default=0)
    hidden = (scene.entity_map == largest) & (largest > 0)
    return np.where(hidden, np.uint8(_GRANDSTAND), scene.classes)


_GRANDSTAND = 52  # a stuff class of SceneParse150 that no scene shows
