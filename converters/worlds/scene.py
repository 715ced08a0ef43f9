"""One scene: the photograph, its true entity map, and what the entities are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from entitybench.converters.worlds.canvas import Canvas, Element, Weather, rgb
from entitybench.converters.worlds.dice import Dice
from entitybench.converters.worlds.layouts import LAYOUTS
from entitybench.converters.worlds.stage import Habits, Stage
from entitybench.converters.worlds.vocabulary import CONVENTIONS, WORLDS, Kind, Label
from entitybench.errors import UnknownNameError

SPLITS = ("train", "val")
_SMALLEST = 4  # pixels: what shows less of itself is left out by the annotators

HABITS = {
    "coco": Habits(
        layouts=(("landscape", 30), ("street", 18), ("room", 22), ("tabletop", 20), ("front", 10)),
        plenty=0.95,
        size=1.1,
        crowds=0.14,
        jitter=0.0,
        saturation=(0.9, 1.2),
        warmth=(-0.6, 0.8),
        noise=(2, 7),
        haze="#c9d9e6",
    ),
    "ade20k": Habits(
        layouts=(("room", 55), ("street", 16), ("landscape", 15), ("front", 14)),
        plenty=1.25,
        size=0.9,
        crowds=0.1,
        jitter=1.0,
        saturation=(0.8, 1.1),
        warmth=(-0.2, 1.0),
        noise=(1, 5),
        haze="#d9dce0",
    ),
    "cityscapes": Habits(
        layouts=(("street", 100),),
        plenty=1.35,
        size=1.15,
        crowds=0.4,
        jitter=0.0,
        saturation=(0.55, 0.8),
        warmth=(-0.9, -0.1),
        noise=(2, 5),
        haze="#c3cdc9",
    ),
}


@dataclass(frozen=True, slots=True)
class SceneEntity:
    """One entity or crowd under the convention of its world.

    Attributes:
        name: Its name in the shared world; for stuff, of its first part.
        category: The source's category id.
        isthing: Whether the convention counts it as a thing.
    """

    name: str
    category: int
    isthing: bool


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
    habits = HABITS[world]
    height, width = _shape(world, size, dice)
    stage = Stage(Canvas(height, width, size, dice), dice, habits)
    layout = dice.weighted(habits.layouts)
    LAYOUTS[layout](stage)
    owners = stage.canvas.owners()
    image = stage.canvas.render(_weather(habits, dice))
    return annotate(image, owners, stage.canvas.elements, world, dice, layout)


def _shape(world: str, size: int, dice: Dice) -> tuple[int, int]:
    if world == "cityscapes":
        return size, 2 * size
    short = size * 3 // 4
    return dice.weighted([((size, size), 0.74), ((short, size), 0.2), ((size, short), 0.06)])


def _weather(habits: Habits, dice: Dice) -> Weather:
    return Weather(
        warmth=dice.between(*habits.warmth),
        saturation=dice.between(*habits.saturation),
        brightness=dice.between(0.88, 1.08),
        ramp=(dice.between(-0.25, 0.25), dice.between(-0.12, 0.12)),
        shadow=dice.between(0.25, 0.5),
        haze=rgb(habits.haze),
        noise=dice.between(*habits.noise),
        blur=dice.between(0.0, 0.5),
    )


class _Group(NamedTuple):
    """Elements that are one entity together."""

    kind: str  # "stuff", "thing" or "crowd"
    category: int
    element: int  # a thing's own; -1 for what is merged


def annotate(
    image: NDArray[np.uint8],
    owners: NDArray[np.int32],
    elements: Sequence[Element],
    world: str,
    dice: Dice,
    layout: str,
) -> Scene:
    """Apply a world's convention: which elements are entities, together or apart, or void.

    Args:
        image: `(H, W, 3)` uint8 photograph.
        owners: `(H, W)` int32 element of each pixel, -1 for none.
        elements: The elements.
        world: Whose convention.
        dice: Orders the entities of `coco`.
        layout: Passed on.
    """
    labels = [_label(elements, i, CONVENTIONS[world]) for i in range(len(elements))]
    groups = [_group(world, elements[i], i, label) for i, label in enumerate(labels)]
    members = {group: number for number, group in enumerate(dict.fromkeys(groups)) if group}
    table = np.array([0, *(members[g] + 1 if g else 0 for g in groups)], dtype=np.int32)
    raw = table[owners + 1]
    areas = np.bincount(raw.ravel(), minlength=len(groups) + 2)
    seen = [group for group, number in members.items() if areas[number + 1] >= _SMALLEST]
    order = _ordered(seen, world, dice)
    final = np.zeros(len(groups) + 2, dtype=np.int32)
    for new, group in enumerate(order, start=1):
        final[members[group] + 1] = new
    classes = np.array([0, *(label.category for label in labels)], dtype=np.uint8)[owners + 1]
    names = {group: elements[i].name for i, group in reversed(list(enumerate(groups)))}
    rows = [SceneEntity(names[g], g.category, g.kind != "stuff") for g in order]
    split = sum(group.kind != "crowd" for group in order)
    return Scene(image, final[raw], tuple(rows[:split]), tuple(rows[split:]), classes, layout)


def _label(elements: Sequence[Element], index: int, convention: Mapping[str, Label]) -> Label:
    """Return the label of an element, or of what it is mounted on."""
    element = elements[index]
    label = convention[element.name]
    if label.kind is not Kind.HOST:
        return label
    return _label(elements, element.host, convention) if element.host >= 0 else _UNLABELLED


_UNLABELLED = Label(Kind.VOID)


def _group(world: str, element: Element, index: int, label: Label) -> _Group | None:
    if label.kind is Kind.VOID:
        return None
    if label.kind is Kind.STUFF or element.crowd:
        # ADE20K knows no crowds: the class is there, the instance is not
        crowd = label.kind is Kind.THING
        return (
            None
            if crowd and world == "ade20k"
            else _Group("crowd" if crowd else "stuff", label.category, -1)
        )
    return _Group("thing", label.category, index)


def _ordered(groups: list[_Group], world: str, dice: Dice) -> list[_Group]:
    """Return entities, then crowds, in the order in which the source lists them."""
    crowds = sorted(group for group in groups if group.kind == "crowd")
    stuff = sorted(group for group in groups if group.kind == "stuff")
    things = [group for group in groups if group.kind == "thing"]
    if world == "coco":
        return dice.shuffled([*stuff, *things]) + crowds
    if world == "cityscapes":
        things.sort()
    return stuff + things[: _MOST_INSTANCES[world]] + crowds


_MOST_INSTANCES = {"ade20k": 255, "cityscapes": 65535}
