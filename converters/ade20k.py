"""ADE20K, the SceneParse150 challenge data with its instances (`docs/sources/ade20k.md`).

Two pictures an image, merged as the public panoptic recipe does: stuff classes are painted from the
semantic one, then things over them from the instance one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from entitybench.converters.ade20k_classes import CATEGORIES, THINGS
from entitybench.converters.labels import LabelRuns, read_labels
from entitybench.converters.source import ConvertedImage, Options, SetPlan, Source, SourceImage
from entitybench.converters.source_tree import SourceTree
from entitybench.entity_set import Provenance
from entitybench.errors import FormatError, MissingDataError

SPLITS = {"train": 20_210, "val": 2_000}
_FOLDERS = {"train": "training", "val": "validation"}
_TOP, _INSTANCES = "ADEChallengeData2016", "annotations_instance"
_STUFF = frozenset(range(1, len(CATEGORIES) + 1)) - frozenset(THINGS)


@dataclass(frozen=True, slots=True)
class AdeImage(SourceImage):
    """One image.

    Attributes:
        semantic: Its classes: gray, 0 void.
        instances: Its instances: red the category, green the instance.
    """

    semantic: str
    instances: str


@dataclass(frozen=True, slots=True, eq=False)
class Merged:
    """What a pair of pictures becomes, in terms of its distinct labels.

    Attributes:
        ids: `(V,)` the entity of each label; 0 is void.
        entities: Where each entity came from.
        warnings: What is odd, a line each.
    """

    ids: NDArray[np.int64]
    entities: tuple[Provenance, ...]
    warnings: tuple[str, ...]


Merge = Callable[[NDArray[np.integer], NDArray[np.int64]], Merged]


def find(tree: SourceTree) -> list[str]:
    """Tell which splits are in a tree."""
    mounted = _mounted(tree)
    return [split for split in SPLITS if _top(mounted, split) is not None]


def plan(tree: SourceTree, split: str, options: Options) -> list[SetPlan[AdeImage]]:
    """Plan the set of one split.

    Raises:
        MissingDataError: Instances, or classes, of images are missing.
    """
    mounted = _mounted(tree)
    top, folder = _top(mounted, split) or "", _FOLDERS[split]
    semantic, photographs = f"{top}annotations/{folder}", f"{top}images/{folder}"
    instances = _instance_folder(mounted, top, folder)
    stems = _stems(mounted, semantic, ".png")
    _same_images(mounted, stems, semantic, instances)
    _annotated(mounted, stems, semantic, photographs)
    return [
        SetPlan(
            tree=mounted,
            images=[
                AdeImage(stem, f"{stem}.jpg", f"{semantic}/{stem}.png", f"{instances}/{stem}.png")
                for stem in stems
            ],
            read=partial(read_image, mounted, MERGES[str(options["profile"])]),
            categories=CATEGORIES,
            photographs=photographs,
        )
    ]


def read_image(tree: SourceTree, merge: Merge, image: AdeImage) -> ConvertedImage:
    """Read one image: stuff in the order of its classes, then things in that of their numbers.

    Raises:
        FormatError: A picture is damaged, of another mode, or of another size than the other; it
            holds a class or category that there is not.
    """
    semantic = read_labels(tree, image.semantic, ("L",), "8-bit gray")
    instances = read_labels(tree, image.instances, ("RGB",), "8-bit RGB", semantic.shape)
    # what lies in blue has no meaning: a label is class, category and instance, a byte each
    runs = LabelRuns.of((instances & np.uint32(0xFFFF)) << np.uint32(8) | semantic)
    try:
        merged = merge(runs.labels, runs.areas)
    except FormatError as error:
        raise error.at(tree.place(image.instances)) from error
    entity_map = runs.entity_map(merged.ids, len(merged.entities))
    return ConvertedImage(entity_map, merged.entities, warnings=merged.warnings)


def merge_raw(labels: NDArray[np.integer], areas: NDArray[np.int64]) -> Merged:
    """Merge as the public recipe does: things win, things without an instance are void.

    Args:
        labels: `(V,)` class + 256 · category + 65536 · instance.
        areas: `(V,)` pixels of each.

    Raises:
        FormatError: A class beyond 150, or an instance whose category is not one of the 100.
    """
    classes, categories, instances = (labels >> shift & 0xFF for shift in (0, 8, 16))
    _check_classes(classes)
    owners, warnings = _owners(categories, instances, areas)
    stuff = np.isin(classes, list(_STUFF)) & (instances == 0)
    # one number for what a label belongs to: void, stuff by class, then things by instance
    keys = np.where(instances > 0, 256 + instances, np.where(stuff, classes, 0))
    present = [int(key) for key in np.unique(keys) if key]
    stray = int(areas[(instances == 0) & (categories > 0)].sum())
    if stray:
        warnings.append(f"pixels with a category, but without an instance: {stray:,}")
    origins = (
        Provenance(key - 256, owners[key - 256], isthing=True)
        if key > 256
        else Provenance(key, key, isthing=False)
        for key in present
    )
    ids = np.searchsorted([0, *present], keys)
    return Merged(ids, tuple(origins), tuple(warnings))


def _check_classes(classes: NDArray[np.integer]) -> None:
    if classes.max(initial=0) > len(CATEGORIES):
        msg = f"class {classes.max()} in the semantic picture; there are {len(CATEGORIES)}"
        raise FormatError(msg)


def _owners(
    categories: NDArray[np.integer], instances: NDArray[np.integer], areas: NDArray[np.int64]
) -> tuple[dict[int, int], list[str]]:
    """Return the class of each instance: that of most of its pixels, the lower one if tied."""
    table = np.zeros((256, 256), dtype=np.int64)  # instance, category
    np.add.at(table, (instances, categories), areas)
    owners, warnings = {}, []
    for instance in np.flatnonzero(table[1:].any(axis=1)) + 1:
        pixels = table[instance]
        known = np.flatnonzero(pixels)
        if known[0] == 0 or known[-1] > len(THINGS):
            wrong = known[0] and known[-1]
            msg = f"instance {instance} has category {wrong}; they count from 1 to {len(THINGS)}"
            raise FormatError(msg)
        if len(known) > 1:
            named = ", ".join(map(str, known))
            warnings.append(f"instance {instance} has several categories: {named}")
        owners[int(instance)] = THINGS[int(np.argmax(pixels)) - 1]
    return owners, warnings


MERGES: Mapping[str, Merge] = {"raw": merge_raw}
"""The profiles. Another one is another way to merge."""


# --- the files -----------------------------------------------------------------


def _mounted(tree: SourceTree) -> SourceTree:
    archives = (f"{_TOP}.zip", f"{_INSTANCES}.tar", f"{_TOP}/{_INSTANCES}.tar")
    return tree.with_archives(*archives)


def _top(tree: SourceTree, split: str) -> str | None:
    """Return where the release is in a tree: its classes tell, photographs may be absent."""
    tops = (f"{_TOP}/", "")
    return next((t for t in tops if tree.has_folder(f"{t}annotations/{_FOLDERS[split]}")), None)


def _stems(tree: SourceTree, folder: str, suffix: str) -> list[str]:
    return [PurePosixPath(name).stem for name in tree.names(folder, suffix=suffix)]


def _instance_folder(tree: SourceTree, top: str, folder: str) -> str:
    candidates = [f"{top}{_INSTANCES}/{folder}", f"{_INSTANCES}/{folder}"]
    there = next(filter(tree.has_folder, candidates), None)
    if there is None:
        msg = f"no `{_INSTANCES}/{folder}`: without instances there are no entities of things"
        raise MissingDataError(msg, where=tree.place(candidates[0]), hint=_HINT)
    return there


def _same_images(tree: SourceTree, stems: Sequence[str], semantic: str, instances: str) -> None:
    """Refuse a split in which a picture has no counterpart."""
    others = set(_stems(tree, instances, ".png"))
    for folder, missing in (
        (instances, sorted(set(stems) - others)),
        (semantic, sorted(others - set(stems))),
    ):
        if missing:
            msg = f"annotations that are missing: {len(missing):,} of {len(others | {*stems}):,}"
            where = [tree.place(f"{folder}/{stem}.png") for stem in missing]
            raise MissingDataError(msg, where=where, hint=_HINT)


def _annotated(tree: SourceTree, stems: Sequence[str], semantic: str, photographs: str) -> None:
    """Refuse a split in which a photograph has no annotation."""
    bare = sorted(set(_stems(tree, photographs, ".jpg")) - set(stems))
    if bare:
        msg = f"photographs without an annotation: {len(bare):,}"
        where = [tree.place(f"{semantic}/{stem}.png") for stem in bare]
        raise MissingDataError(msg, where=where, hint=_HINT)


_HINT = (
    f"`{_TOP}.zip` and `{_INSTANCES}.tar` belong together: side by side as they are, or unpacked "
    f"into one folder; `entitybench convert ade20k --download-only` fetches both"
)

SOURCE = Source(
    name="ade20k",
    title="ADE20K (SceneParse150)",
    licence="annotations BSD-3; photographs for non-commercial research and education only",
    splits=SPLITS,
    find=find,
    plan=plan,
    expected=f"`{_TOP}/` with `images/`, `annotations/` and `{_INSTANCES}/`, each with `training/` "
    f"and `validation/`; or `{_TOP}.zip` and `{_INSTANCES}.tar`",
    hint=_HINT,
    profiles=tuple(MERGES),
    withheld={"test": "its annotations have never been published"},
)
