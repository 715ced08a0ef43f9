"""Writing a world as ADE20K: SceneParse150 classes and the instances of the 2017 challenge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from entitybench.converters.ade20k_classes import THINGS
from entitybench.converters.worlds.archives import pack_tar, pack_zip
from entitybench.converters.worlds.files import save_labels, save_photograph
from entitybench.converters.worlds.scene import Scene
from entitybench.converters.worlds.vocabulary import CATEGORIES

ROOT = "ADEChallengeData2016"
INSTANCES = "annotations_instance"
_FOLDERS = {"train": "training", "val": "validation"}
_CLASSES = 150
_QUALITY = 92


@dataclass(frozen=True, slots=True)
class Ade20kRow:
    """What one scene adds to the tables of the release.

    Attributes:
        name: The image's stem.
        layout: What kind of scene it is.
        pixels: Pixels of each class, 0…150.
    """

    name: str
    layout: str
    pixels: tuple[int, ...]


def stem(split: str, index: int) -> str:
    """Return the name of an image; they count from 1."""
    return f"ADE_{split}_{index + 1:08d}"


def folders(split: str) -> tuple[str, ...]:
    """Return the folders of a split."""
    kinds = ("images", "annotations", INSTANCES)
    return tuple(f"{ROOT}/{kind}/{_FOLDERS[split]}" for kind in kinds)


def write_scene(root: Path, split: str, index: int, scene: Scene) -> Ade20kRow:
    """Write the photograph, the semantic and the instance picture of one scene."""
    name, folder = stem(split, index), _FOLDERS[split]
    base = root / ROOT
    save_photograph(scene, base / "images" / folder / f"{name}.jpg", quality=_QUALITY)
    save_labels(scene.classes, base / "annotations" / folder / f"{name}.png")
    things = [i for i, entity in enumerate(scene.entities, start=1) if entity.isthing]
    table = np.zeros((len(scene.entities) + 1, 3), dtype=np.uint8)
    for number, i in enumerate(things, start=1):
        # red: category of the instance maps; green: instance; blue is not used
        table[i, :2] = THINGS.index(scene.entities[i - 1].category) + 1, number
    save_labels(table[scene.entity_map], base / INSTANCES / folder / f"{name}.png")
    pixels = np.bincount(scene.classes.ravel(), minlength=_CLASSES + 1)
    return Ade20kRow(name, scene.layout, tuple(pixels.tolist()))


def finish(root: Path, rows: Mapping[str, Sequence[Ade20kRow]]) -> None:
    """Write `objectInfo150.txt` for the classes that worlds know, and `sceneCategories.txt`."""
    base = root / ROOT
    pixels = {split: _stacked(own) for split, own in rows.items()}
    ratio = sum(counts.sum(axis=0) for counts in pixels.values()) / sum(
        int(counts.sum()) for counts in pixels.values()
    )
    seen = {split: np.count_nonzero(counts, axis=0) for split, counts in pixels.items()}
    lines = ["Idx\tRatio\tTrain\tVal\tName"]
    for category in CATEGORIES["ade20k"].values():
        train, val = (int(seen[s][category.id]) if s in seen else 0 for s in ("train", "val"))
        lines.append(f"{category.id}\t{ratio[category.id]:.4f}\t{train}\t{val}\t{category.name}")
    (base / "objectInfo150.txt").write_text("\n".join(lines) + "\n", "utf-8")
    scenes = [
        f"{row.name} {row.layout.replace(' ', '_')}\n" for own in rows.values() for row in own
    ]
    (base / "sceneCategories.txt").write_text("".join(scenes), "utf-8")


def _stacked(rows: Sequence[Ade20kRow]) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    return np.array([row.pixels for row in rows], dtype=np.int64).reshape(-1, _CLASSES + 1)


def pack(root: Path, splits: Sequence[str]) -> None:
    """Replace the folders by the two archives; the instances are in one of their own."""
    (root / ROOT / INSTANCES).rename(root / INSTANCES)
    pack_tar(root / f"{INSTANCES}.tar", root, [INSTANCES])
    pack_zip(root / f"{ROOT}.zip", root, [ROOT])
