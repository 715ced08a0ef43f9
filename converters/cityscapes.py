"""Cityscapes, fine annotations: `gtFine`, or a panoptic export (`docs/sources/cityscapes.md`)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from entitybench.converters.labels import LabelRuns, read_labels
from entitybench.converters.panoptic_table import PanopticImage, plan_panoptic
from entitybench.converters.panoptic_table import read_image as read_panoptic
from entitybench.converters.source import ConvertedImage, Options, SetPlan, Source, SourceImage
from entitybench.converters.source_tree import SourceTree
from entitybench.entity_set import Category, Provenance
from entitybench.errors import FormatError, MissingDataError

SPLITS = {"train": 2_975, "val": 500}
_FINE, _PHOTOGRAPHS = "gtFine", "leftImg8bit"
_IDS, _LABELS = "_gtFine_instanceIds.png", "_gtFine_labelIds.png"
_PER_CLASS = 1000  # an instance is class × 1000 + number

# label id, name, supercategory, in the order of the official train ids
_STUFF = (
    (7, "road", "flat"),
    (8, "sidewalk", "flat"),
    (11, "building", "construction"),
    (12, "wall", "construction"),
    (13, "fence", "construction"),
    (17, "pole", "object"),
    (19, "traffic light", "object"),
    (20, "traffic sign", "object"),
    (21, "vegetation", "nature"),
    (22, "terrain", "nature"),
    (23, "sky", "sky"),
)
_THINGS = (
    (24, "person", "human"),
    (25, "rider", "human"),
    (26, "car", "vehicle"),
    (27, "truck", "vehicle"),
    (28, "bus", "vehicle"),
    (31, "train", "vehicle"),
    (32, "motorcycle", "vehicle"),
    (33, "bicycle", "vehicle"),
)
CATEGORIES = (
    *(Category(i, name, isthing=False, supercategory=kind) for i, name, kind in _STUFF),
    *(Category(i, name, isthing=True, supercategory=kind) for i, name, kind in _THINGS),
)
_THING_IDS = frozenset(i for i, *_ in _THINGS)
_TRAIN_IDS = {category.id: number for number, category in enumerate(CATEGORIES)}
_CLASSES = range(34)  # 0…33: those that are not among the 19 are void
_WITH_INSTANCES = range(24, 34)
_CAMERA = frozenset({0, 1, 2, 3, 4})  # what a dummy of the test split holds

# where a release has no folders of splits, the city tells the split
_CITIES = {
    "train": (
        *("aachen", "bochum", "bremen", "cologne", "darmstadt", "dusseldorf", "erfurt"),
        *("hamburg", "hanover", "jena", "krefeld", "monchengladbach", "strasbourg"),
        *("stuttgart", "tubingen", "ulm", "weimar", "zurich"),
    ),
    "val": ("frankfurt", "lindau", "munster"),
}


@dataclass(frozen=True, slots=True)
class FineImage(SourceImage):
    """One image.

    Attributes:
        instances: Its `instanceIds.png`.
    """

    instances: str


def find(tree: SourceTree) -> list[str]:
    """Tell which splits are in a tree."""
    mounted = _mounted(tree)
    return [
        split for split in SPLITS if _fine_files(mounted, split, _IDS)[1] or _table(mounted, split)
    ]


def plan(tree: SourceTree, split: str, options: Options) -> list[SetPlan[Any]]:
    """Plan the set of one split: from its origin rather than from what was made of it.

    Raises:
        MissingDataError: Images have labels, but no instances; or an export lacks files.
        FormatError: An export contradicts itself, or holds what the official one does not.
    """
    mounted = _mounted(tree)
    base, names = _fine_files(mounted, split, _IDS)
    if not names:
        return [_plan_export(mounted, split)]
    labelled = _fine_files(mounted, split, _LABELS)[1]
    bare = sorted(
        {n.removesuffix(_LABELS) for n in labelled} - {n.removesuffix(_IDS) for n in names}
    )
    if bare:
        msg = f"images with labels but without instances: {len(bare):,}"
        raise MissingDataError(msg, where=[mounted.place(name + _IDS) for name in bare])
    return [
        SetPlan(
            tree=mounted,
            images=[_fine_image(base, name) for name in names],
            read=partial(read_image, mounted),
            categories=CATEGORIES,
            photographs=_PHOTOGRAPHS + base.removeprefix(_FINE),
        )
    ]


# --- gtFine --------------------------------------------------------------------


def _mounted(tree: SourceTree) -> SourceTree:
    return tree.with_archives(*(f"{top}_trainvaltest.zip" for top in (_FINE, _PHOTOGRAPHS)))


def _fine_files(tree: SourceTree, split: str, suffix: str) -> tuple[str, list[str]]:
    """Return the folder of a split and the files in it, or below it in folders of cities."""
    folder = f"{_FINE}/{split}"
    names = tree.names(folder, suffix=suffix)
    if names:
        return folder, names
    flat = (name for name in tree.names(_FINE, suffix=suffix) if name.count("/") == 1)
    return _FINE, [name for name in flat if _city(PurePosixPath(name).name) in _CITIES[split]]


def _city(image_id: str) -> str:
    return image_id.partition("_")[0]


def _fine_image(base: str, name: str) -> FineImage:
    below = name.removeprefix(f"{base}/").removesuffix(_IDS)
    return FineImage(PurePosixPath(below).name, f"{below}_{_PHOTOGRAPHS}.png", name)


def read_image(tree: SourceTree, image: FineImage) -> ConvertedImage:
    """Read one image; entities, then crowds, in the order of their numbers.

    Raises:
        FormatError: The picture is damaged or of another mode, or it holds a number that stands
            for no class.
    """
    runs = LabelRuns.of(read_labels(tree, image.instances, ("I;16", "I", "L"), "16-bit gray"))
    numbers = runs.labels.astype(np.int64)
    try:
        classes = _classes_of(numbers)
    except FormatError as error:
        raise error.at(tree.place(image.instances)) from error
    is_crowd = (numbers < _PER_CLASS) & np.isin(classes, list(_THING_IDS))
    is_entity = ~is_crowd & np.isin(classes, list(_TRAIN_IDS))
    entities, crowds = numbers[is_entity].tolist(), numbers[is_crowd].tolist()
    ids = np.zeros(len(numbers), dtype=np.int64)
    ids[is_entity] = np.arange(len(entities)) + 1
    ids[is_crowd] = np.arange(len(crowds)) + len(entities) + 1
    return ConvertedImage(
        runs.entity_map(ids, len(entities), len(crowds)),
        tuple(map(_origin, entities)),
        tuple(map(_origin, crowds)),
        warnings=(_DUMMY,) if _CAMERA.issuperset(numbers.tolist()) else (),
    )


def _classes_of(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the class of each number.

    Raises:
        FormatError: There is no such class, or it has no instances.
    """
    classes: NDArray[np.int64] = np.where(numbers < _PER_CLASS, numbers, numbers // _PER_CLASS)
    known = np.isin(classes, list(_CLASSES))
    known &= (numbers < _PER_CLASS) | np.isin(classes, list(_WITH_INSTANCES))
    if not known.all():
        msg = f"number {numbers[~known][0]} stands for no class, and for no instance of one"
        raise FormatError(msg)
    return classes


def _class_of(number: int) -> int:
    return number if number < _PER_CLASS else number // _PER_CLASS


def _origin(number: int) -> Provenance:
    category = _class_of(number)
    return Provenance(number, category, isthing=category in _THING_IDS)


# --- exports -------------------------------------------------------------------


def _table(tree: SourceTree, split: str) -> str | None:
    """Return the table of an export: with ids or, if that is all there is, with train ids."""
    stems = (f"cityscapes_panoptic_{split}{kind}.json" for kind in ("", "_trainId"))
    names = (f"{top}{stem}" for stem in stems for top in ("", f"{_FINE}/"))
    return next((name for name in names if name in tree), None)


def _plan_export(tree: SourceTree, split: str) -> SetPlan[PanopticImage]:
    table = _table(tree, split) or ""
    photographs = f"{_PHOTOGRAPHS}/{split}"
    folder = table.removesuffix(".json")
    exported = plan_panoptic(tree, table, png_folders=[folder], photographs=photographs)
    for image in exported.images:
        _check_segments(image, tree.place(table))
    images = [_renamed(image) for image in exported.images]
    return replace(exported, images=images, read=partial(read_export, tree), categories=CATEGORIES)


def _check_segments(image: PanopticImage, place: str) -> None:
    """Refuse what the official script does not write: then it is unclear what a number means."""
    for segment in image.annotation.segments_info:
        category = _class_of(segment.id)
        is_crowd = segment.id < _PER_CLASS and category in _THING_IDS
        same = segment.category_id in (category, _TRAIN_IDS.get(category))
        if category not in _TRAIN_IDS or not same or bool(segment.iscrowd) != is_crowd:
            told = f"category {segment.category_id} and iscrowd {int(segment.iscrowd)}"
            msg = f"segment {segment.id} with {told} is not one that the official export holds"
            where = f"{place}: image {image.annotation.image_id}"
            raise FormatError(msg, where=where, hint=_NUMBERS)


def _renamed(image: PanopticImage) -> PanopticImage:
    """Name the photograph as it is: exports tell `…_gtFine_leftImg8bit.png`, which is nowhere."""
    image_id = str(image.annotation.image_id)
    file_name = f"{_city(image_id)}/{image_id}_{_PHOTOGRAPHS}.png"
    return replace(image, id=image_id, file_name=file_name)


def read_export(tree: SourceTree, image: PanopticImage) -> ConvertedImage:
    """Read one image; entities and crowds in the order of its segments.

    Raises:
        FormatError: As in `panoptic_table.read_image`.
    """
    done = read_panoptic(tree, {}, image)
    segments = image.annotation.segments_info
    entities = (_origin(segment.id) for segment in segments if not segment.iscrowd)
    crowds = (_origin(segment.id) for segment in segments if segment.iscrowd)
    return replace(done, entities=tuple(entities), crowds=tuple(crowds))


_NUMBERS = "numbers are those of `instanceIds.png`: 7…33, or class × 1000 + instance"
_DUMMY = "nothing is labelled but what the camera hides: a dummy of the test split?"

SOURCE = Source(
    name="cityscapes",
    title="Cityscapes (fine annotations)",
    licence="Cityscapes terms: non-commercial, no redistribution of data or of what is made of it",
    splits=SPLITS,
    find=find,
    plan=plan,
    expected=f"`{_FINE}/<split>/<city>/<image>{_IDS}`, or `{_FINE}_trainvaltest.zip`, or "
    "`cityscapes_panoptic_<split>.json` and its folder; photographs, if any, in "
    f"`{_PHOTOGRAPHS}/` or `{_PHOTOGRAPHS}_trainvaltest.zip`",
    hint="needs a registration at https://www.cityscapes-dataset.com; pass the folder of the "
    "archives with `--source`",
    withheld={
        "test": "its truth is not published; `gtFine/test` holds dummies in which nothing is "
        "labelled but what the camera hides"
    },
)
