"""Writing a world as Cityscapes gtFine: instance, label and colour pictures, polygons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from entitybench.converters.worlds.archives import pack_zip
from entitybench.converters.worlds.dice import Dice
from entitybench.converters.worlds.files import save_labels, save_lossless, write_json
from entitybench.converters.worlds.scene import Scene
from entitybench.converters.worlds.vocabulary import CATEGORIES
from entitybench.entity_map import EntityMap

_FINE, _IMAGES = "gtFine", "leftImg8bit"
# no city of the real dataset, so that nobody takes a world for it
_CITIES = {"train": ("auenstadt", "bergheim", "kreuztal"), "val": ("marktfeld", "seehafen")}
_PER_INSTANCE = 1000
_CARAVAN = 29  # has instances, but no entities: it is not evaluated

# red, green, blue of the label pictures, by label id
_COLOURS = {
    1: (0, 0, 0),
    2: (0, 0, 0),
    5: (111, 74, 0),
    6: (81, 0, 81),
    7: (128, 64, 128),
    8: (244, 35, 232),
    11: (70, 70, 70),
    12: (102, 102, 156),
    13: (190, 153, 153),
    17: (153, 153, 153),
    19: (250, 170, 30),
    20: (220, 220, 0),
    21: (107, 142, 35),
    22: (152, 251, 152),
    23: (70, 130, 180),
    24: (220, 20, 60),
    25: (255, 0, 0),
    26: (0, 0, 142),
    27: (0, 0, 70),
    28: (0, 60, 100),
    29: (0, 0, 90),
    32: (0, 0, 230),
    33: (119, 11, 32),
}
_RGBA = np.array([(*_COLOURS.get(label, (0, 0, 0)), 255) for label in range(256)], np.uint8)


class _Object(msgspec.Struct, frozen=True):
    label: str
    polygon: tuple[tuple[int, int], ...]


class _Polygons(msgspec.Struct, frozen=True, rename="camel"):
    img_height: int
    img_width: int
    objects: tuple[_Object, ...]


def stem(split: str, index: int) -> str:
    """Return city, sequence and frame."""
    city = _CITIES[split][index % len(_CITIES[split])]
    return f"{city}_{index:06d}_000019"


def folders(split: str) -> tuple[str, ...]:
    """Return the folders of a split."""
    return tuple(f"{top}/{split}/{city}" for top in (_FINE, _IMAGES) for city in _CITIES[split])


def write_scene(root: Path, split: str, index: int, scene: Scene) -> None:
    """Write the photograph and the four label files of one scene."""
    name = stem(split, index)
    city = name.split("_", 1)[0]
    save_lossless(scene.image, root / _IMAGES / split / city / f"{name}_{_IMAGES}.png")
    fine = root / _FINE / split / city
    save_labels(_instance_ids(scene, index), fine / f"{name}_{_FINE}_instanceIds.png")
    save_labels(scene.classes, fine / f"{name}_{_FINE}_labelIds.png")
    save_labels(_RGBA[scene.classes], fine / f"{name}_{_FINE}_color.png")
    write_json(fine / f"{name}_{_FINE}_polygons.json", _polygons(scene))


def _instance_ids(scene: Scene, index: int) -> NDArray[np.uint16]:
    """Return class × 1000 + n for things, the bare class for stuff, groups and void.

    Some n are skipped, as in the original, where they belong to things that others hide.
    """
    dice, used = Dice(index), dict.fromkeys(range(256), 0)
    ids = np.zeros(len(scene.entities) + 1, dtype=np.uint16)
    for i, entity in enumerate(scene.entities, start=1):
        if entity.isthing:
            number = used[entity.category] + dice.chance(0.15)
            used[entity.category] = number + 1
            ids[i] = entity.category * _PER_INSTANCE + number
    classes = scene.classes.astype(np.uint16)
    classes[scene.classes == _CARAVAN] *= _PER_INSTANCE
    own = ids[np.where(scene.entity_map <= len(scene.entities), scene.entity_map, 0)]
    return np.where(own > 0, own, classes)


def _polygons(scene: Scene) -> _Polygons:
    """Return the boxes of all that is labelled, the rear first; groups by their own names."""
    height, width = scene.classes.shape
    names = {category.id: category.name for category in CATEGORIES["cityscapes"].values()}
    rows = [(e.isthing, e.category, names[e.category]) for e in scene.entities]
    rows += [(True, e.category, f"{names[e.category]}group") for e in scene.crowds]
    boxes = EntityMap.from_array(scene.entity_map).boxes.tolist()[1:]
    order = sorted(range(len(rows)), key=lambda i: rows[i][0])
    objects = [_Object(rows[i][2], _outline(boxes[i])) for i in order]
    for label in (2, 1):
        ys, xs = np.nonzero(scene.classes == label)
        if xs.size:
            x, y = int(xs.min()), int(ys.min())
            box = (x, y, int(xs.max()) - x + 1, int(ys.max()) - y + 1)
            objects.append(_Object(names[label], _outline(box)))
    return _Polygons(height, width, tuple(objects))


def _outline(box: Sequence[int]) -> tuple[tuple[int, int], ...]:
    x, y, width, height = box
    right, bottom = x + width - 1, y + height - 1
    return (x, y), (right, y), (right, bottom), (x, bottom)


def finish(root: Path, rows: Mapping[str, Sequence[None]]) -> None:
    """Remove the cities without a scene; there is no table to write."""
    for split in rows:
        for folder in folders(split):
            if not any((root / folder).iterdir()):
                (root / folder).rmdir()


def pack(root: Path, splits: Sequence[str]) -> None:
    """Replace the folders by the two archives of the release."""
    for folder in (_FINE, _IMAGES):
        pack_zip(root / f"{folder}_trainvaltest.zip", root, [folder])
