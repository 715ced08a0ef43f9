"""Mapillary Vistas 1.2 and 2.0 (`docs/sources/mapillary.md`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import PurePosixPath
from typing import Any

import msgspec
import numpy as np

from entitybench.converters.labels import LabelRuns, read_labels
from entitybench.converters.panoptic_table import plan_panoptic
from entitybench.converters.source import (
    ConvertedImage,
    Options,
    SetPlan,
    Source,
    SourceImage,
)
from entitybench.converters.source_tree import SourceTree
from entitybench.entity_set import Category, Provenance
from entitybench.errors import FormatError, MissingDataError
from entitybench.formats.json_file import decode_json

SPLITS = {"train": 18_000, "val": 2_000}
_FOLDERS = {"train": ("training", "train"), "val": ("validation", "val")}
_ARCHIVES = (
    "mapillary-vistas-dataset_public_v2.0.zip",
    "mapillary-vistas-dataset_public_v1.2.zip",
    "mapillary-vistas-dataset_public_v1.1.zip",
)
_PANOPTIC = ("panoptic_2020.json", "panoptic_2018.json")
_CLASS = 256  # an instance map holds class × 256 + instance


@dataclass(frozen=True, slots=True)
class _Release:
    """The truth of one split in one version.

    Attributes:
        version: `v1.2` or `v2.0`.
        folder: What holds `panoptic/` and `instances/`.
        photographs: Where the photographs are.
        config: Where the classes of `instances/` may be listed.
    """

    version: str
    folder: str
    photographs: str
    config: tuple[str, ...]

    def table(self, tree: SourceTree) -> str | None:
        """Return the panoptic table, if it is there."""
        names = (f"{self.folder}/panoptic/{name}" for name in _PANOPTIC)
        return next((name for name in names if name in tree), None)


@dataclass(frozen=True, slots=True)
class InstanceMapImage(SourceImage):
    """One image.

    Attributes:
        png: Its instance map.
    """

    png: str


class _Label(msgspec.Struct):
    name: str
    instances: bool
    evaluate: bool = True


class _Config(msgspec.Struct):
    labels: list[_Label]


def find(tree: SourceTree) -> list[str]:
    """Tell which splits are in a tree."""
    mounted = tree.with_archives(*_ARCHIVES)
    return [split for split in SPLITS if any(_releases(mounted, split))]


def plan(tree: SourceTree, split: str, options: Options) -> list[SetPlan[Any]]:
    """Plan a set for each version that is there."""
    mounted = tree.with_archives(*_ARCHIVES)
    return [_plan(mounted, release) for release in _releases(mounted, split)]


def _releases(tree: SourceTree, split: str) -> Iterator[_Release]:
    for version, top in product(("v1.2", "v2.0"), _FOLDERS[split]):
        config = (f"config_{version}.json", "config.json")
        # version 1.2 was first released alone, its folders directly in that of the split
        folders = [f"{top}/{version}", top] if version == "v1.2" else [f"{top}/{version}"]
        for folder in folders:
            release = _Release(version, folder, f"{top}/images", config)
            if release.table(tree) or tree.has_folder(f"{folder}/instances"):
                yield release
                break


def _plan(tree: SourceTree, release: _Release) -> SetPlan[Any]:
    table = release.table(tree)
    if table is None:
        return _plan_instances(tree, release)
    folder = table.rpartition("/")[0]
    planned = plan_panoptic(tree, table, png_folders=[folder], photographs=release.photographs)
    return replace(planned, suffix=release.version)


# --- instance maps, where the panoptic table is not there --------------------


def _plan_instances(tree: SourceTree, release: _Release) -> SetPlan[InstanceMapImage]:
    config = next((name for name in release.config if name in tree), None)
    if config is None:
        wanted = " nor ".join(f"`{name}`" for name in release.config)
        msg = f"neither a panoptic table, nor {wanted} to tell the classes of the instance maps"
        raise MissingDataError(msg, where=tree.place(f"{release.folder}/instances"))
    labels = decode_json(tree.read(config), _Config, tree.place(config)).labels
    names = [
        PurePosixPath(name) for name in tree.names(f"{release.folder}/instances", suffix=".png")
    ]
    return SetPlan(
        tree=tree,
        images=[InstanceMapImage(name.stem, f"{name.stem}.jpg", str(name)) for name in names],
        read=partial(read_instances, tree, tuple(labels)),
        categories=tuple(
            Category(number, label.name, label.instances)
            for number, label in enumerate(labels, start=1)  # as the panoptic table counts them
        ),
        photographs=release.photographs,
        suffix=release.version,
    )


def read_instances(
    tree: SourceTree, labels: Sequence[_Label], image: InstanceMapImage
) -> ConvertedImage:
    """Read one instance map: entities in ascending order of class and instance.

    A class without instances is one entity, whatever its pixels say; a class that is not
    evaluated is void. Groups cannot be told from single things here.

    Raises:
        FormatError: The map is damaged, not of 16 bits, or holds a class that nobody lists.
    """
    values = read_labels(tree, image.png, ("I;16",), "16-bit gray")
    runs = LabelRuns.of(values)
    classes, instances = np.divmod(runs.labels.astype(np.int64), _CLASS)
    if classes.max() >= len(labels):
        msg = f"class {classes.max()} is not one of the {len(labels)} that are listed"
        raise FormatError(msg, where=tree.place(image.png))
    numbers: dict[tuple[int, int], int] = {}
    ids = [
        numbers.setdefault((index, number * labels[index].instances), len(numbers) + 1)
        if labels[index].evaluate
        else 0
        for index, number in zip(classes.tolist(), instances.tolist(), strict=True)
    ]
    origins = tuple(
        Provenance(index * _CLASS + number, index + 1, labels[index].instances)
        for index, number in numbers
    )
    return ConvertedImage(runs.entity_map(ids, len(numbers)), origins)


SOURCE = Source(
    name="mapillary",
    title="Mapillary Vistas",
    licence="Mapillary Vistas Dataset Research Use License: non-commercial research",
    splits=SPLITS,
    find=find,
    plan=plan,
    expected="`training/v2.0/panoptic/` (or `instances/` and `config_v2.0.json`) and the same of "
    "`validation/`, of v1.2 or both; photographs, if any, in `training/images/`; or the archive",
    hint="https://www.mapillary.com/dataset/vistas wants a registration",
    withheld={"test": "its truth is not published"},
)
