"""From elements to entities: applying the convention of a world."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from entitybench.converters.worlds.canvas import Element
from entitybench.converters.worlds.dice import Dice
from entitybench.converters.worlds.vocabulary import CONVENTIONS, Kind, Label

_NEVER_FORGOTTEN = 0.15  # of the picture: nobody overlooks so much
_MOST_INSTANCES = 255  # of ADE20K: instance ids have eight bits


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
class Annotation:
    """The truth about one scene.

    Attributes:
        entity_map: `(H, W)` int32: 0 void, `1…N` entities, `N+1…N+C` crowds.
        entities: What the ids `1…N` are.
        crowds: What the ids `N+1…N+C` are.
        classes: `(H, W)` uint8 category of each pixel in the source's own ids, also where
            the entity map says void and the source still knows a class; 0 where it does not.
    """

    entity_map: NDArray[np.int32]
    entities: tuple[SceneEntity, ...]
    crowds: tuple[SceneEntity, ...]
    classes: NDArray[np.uint8]


class _Group(NamedTuple):
    """Elements that are one entity together."""

    kind: str  # "stuff", "thing" or "crowd"
    category: int
    element: int  # a thing's own; -1 for what is merged


def annotate(
    owners: NDArray[np.int32],
    elements: Sequence[Element],
    world: str,
    dice: Dice,
    *,
    smallest: int,
    forgotten: float,
) -> Annotation:
    """Apply a world's convention: which elements are entities, together or apart, or void.

    Args:
        owners: `(H, W)` int32 element of each pixel, -1 for none.
        elements: The elements.
        world: Whose convention.
        dice: Orders the entities of `coco`.
        smallest: Pixels that an entity must show; what shows fewer is void.
        forgotten: Probability that an entity is left out all the same, unless it is large.
    """
    labels = [_label(elements, i, CONVENTIONS[world]) for i in range(len(elements))]
    groups = [_group(world, elements[i], i, label) for i, label in enumerate(labels)]
    numbers = {group: n for n, group in enumerate(dict.fromkeys(g for g in groups if g), start=1)}
    raw = np.array([0, *(numbers[g] if g else 0 for g in groups)], dtype=np.int32)[owners + 1]
    areas = np.bincount(raw.ravel(), minlength=len(numbers) + 1)
    large = owners.size * _NEVER_FORGOTTEN
    seen = [
        group
        for group, number in numbers.items()
        if areas[number] >= smallest and not (dice.chance(forgotten) and areas[number] < large)
    ]
    order = _ordered(seen, world, dice)
    final = np.zeros(len(numbers) + 1, dtype=np.int32)
    final[[numbers[group] for group in order]] = np.arange(1, len(order) + 1)
    overlooked = set(numbers) - set(seen)
    known = [
        0 if g in overlooked else label.category for g, label in zip(groups, labels, strict=True)
    ]
    names = {group: elements[i].name for i, group in reversed(list(enumerate(groups)))}
    rows = tuple(SceneEntity(names[g], g.category, g.kind != "stuff") for g in order)
    split = sum(group.kind != "crowd" for group in order)
    classes = np.array([0, *known], dtype=np.uint8)[owners + 1]
    return Annotation(final[raw], rows[:split], rows[split:], classes)


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
    else:
        del things[_MOST_INSTANCES:]
    return stuff + things + crowds
