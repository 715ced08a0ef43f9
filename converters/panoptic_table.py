"""Releases in COCO's panoptic format: a JSON table and a folder of RGB PNGs.

COCO itself, and sources that were exported in its format.  The reader of one file is
`entitybench.formats.coco_panoptic`; here the files of a whole split are brought together, and
every way in which they can contradict one another is refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import TypeVar

from entitybench.archives import plain_name
from entitybench.converters.source import ConvertedImage, SetPlan, SourceImage
from entitybench.converters.source_tree import SourceTree
from entitybench.errors import FormatError, MissingDataError
from entitybench.formats.coco_panoptic import (
    PanopticAnnotation,
    PanopticTable,
    read_panoptic_table,
    read_panoptic_truth,
)
from entitybench.formats.coco_panoptic import PanopticImage as ImageEntry
from entitybench.formats.image_ids import ImageId

_WRAP = 1 << 16  # where a 16-bit count of zip members begins again
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class PanopticImage(SourceImage):
    """One image of the table.

    Attributes:
        shape: Height and width that the table promises.
        folder: The folder of the PNGs in the tree.
        annotation: Its segments and the name of its PNG.
    """

    shape: tuple[int, int]
    folder: str
    annotation: PanopticAnnotation


def plan_panoptic(
    tree: SourceTree,
    table_name: str,
    *,
    png_folders: Sequence[str],
    photographs: str,
    file_name: Callable[[str], str] = str,
) -> SetPlan[PanopticImage]:
    """Plan the conversion of one split.

    Args:
        tree: The files, archives mounted.
        table_name: The JSON.
        png_folders: Where the PNGs may be: the one that has most of them is taken.
        photographs: Their folder.
        file_name: Mends the table's name of a photograph.

    Raises:
        MissingDataError: PNGs or annotations are missing.
        FormatError: The table or the files contradict themselves or each other.
    """
    place = tree.place(table_name)
    table = read_panoptic_table(tree.read(table_name), place)
    _check_categories(table, place)
    entries = _entries(table, place)
    folder = _png_folder(tree, table, png_folders)
    categories = tuple(entry.category() for entry in table.categories)
    isthing = {category.id: category.isthing for category in categories}
    return SetPlan(
        tree=tree,
        images=[
            PanopticImage(
                id=PurePosixPath(entry.file_name).stem,
                file_name=file_name(entry.file_name),
                shape=(entry.height or 0, entry.width or 0),
                folder=folder,
                annotation=annotation,
            )
            for annotation, entry in zip(table.annotations, entries, strict=True)
        ],
        read=partial(read_image, tree, isthing),
        categories=categories,
        photographs=photographs,
    )


def read_image(
    tree: SourceTree, isthing: Mapping[int, bool | None], image: PanopticImage
) -> ConvertedImage:
    """Read one image; entities and crowds in the order of its segments.

    Raises:
        FormatError: The PNG is damaged, of another size or mode; it holds an id that the table
            does not list, or lacks one that it lists.
    """
    name = f"{image.folder}/{image.annotation.file_name}"
    # a PNG of noise is larger than its pixels, but not by much
    png = tree.read(name, limit=4 * image.shape[0] * image.shape[1] + (1 << 16))
    try:
        truth = read_panoptic_truth(png, image.annotation, shape=image.shape, isthing=isthing)
    except FormatError as error:
        raise error.at(tree.place(image.folder)) from error
    return ConvertedImage(truth.map, truth.entities, truth.crowds)


def _check_categories(table: PanopticTable, place: str) -> None:
    _refuse_twins((c.id for c in table.categories), "category id {} is listed twice", place)
    known = {category.id for category in table.categories}
    for index, annotation in enumerate(table.annotations):
        for number, segment in enumerate(annotation.segments_info):
            where = f"{place}: $.annotations[{index}].segments_info[{number}]"
            if segment.category_id not in known:
                msg = f"category {segment.category_id} is not in the table's `categories`"
                raise FormatError(msg, where=where)
            if not segment.id:
                msg = "segment id 0 means void, and cannot be listed"
                raise FormatError(msg, where=where)


def _entries(table: PanopticTable, place: str) -> list[ImageEntry]:
    """Return the entry in `images` of each annotation: joined by id, not by position."""
    for index, entry in enumerate(table.images):
        _check_entry(entry, f"{place}: $.images[{index}] (image {entry.id})")
    _refuse_twins((image.id for image in table.images), "image id {} is listed twice", place)
    _refuse_twins((a.file_name for a in table.annotations), "PNG `{}` is listed twice", place)
    images = {image.id: image for image in table.images}
    unknown = [a.image_id for a in table.annotations if a.image_id not in images]
    if unknown:
        msg = f"annotations of images that the table does not list: {len(unknown):,}"
        raise FormatError(msg, where=_images_at(place, unknown))
    annotated = {annotation.image_id for annotation in table.annotations}
    bare = [image.id for image in table.images if image.id not in annotated]
    if bare:
        msg = f"images without an annotation: {len(bare):,} of {len(images):,}"
        raise MissingDataError(msg, where=_images_at(place, bare))
    return [images[annotation.image_id] for annotation in table.annotations]


def _images_at(place: str, ids: Iterable[ImageId]) -> list[str]:
    return [f"{place}: image {image_id}" for image_id in ids]


def _refuse_twins(values: Iterable[_T], what: str, place: str) -> None:
    counts = Counter(values)
    twice = [value for value, count in counts.items() if count > 1]
    if twice:
        msg = what.format(twice[0])
        raise FormatError(msg, where=place)


def _check_entry(entry: ImageEntry, where: str) -> None:
    if not (entry.width and entry.height and entry.width > 0 and entry.height > 0):
        msg = "an image has no size"
        raise FormatError(msg, where=where)
    try:
        plain = plain_name(entry.file_name)
    except FormatError as error:
        raise error.at(where) from error
    if not plain:
        msg = "an image has no file name"
        raise FormatError(msg, where=where)


def _png_folder(tree: SourceTree, table: PanopticTable, candidates: Sequence[str]) -> str:
    """Return the folder of the PNGs: there must be exactly one for each annotation."""
    expected = {annotation.file_name for annotation in table.annotations}
    there = {
        folder: {name.removeprefix(f"{folder}/") for name in tree.names(folder, suffix=".png")}
        for folder in candidates
    }
    folder = max(candidates, key=lambda candidate: len(there[candidate] & expected))
    missing = sorted(expected - there[folder])
    if missing:
        msg = f"PNGs that are missing: {len(missing):,} of {len(expected):,}"
        places = [tree.place(f"{folder}/{name}") for name in missing]
        raise MissingDataError(msg, where=places, hint=_hint(missing, folder))
    strangers = sorted(there[folder] - expected)
    if strangers:
        msg = f"PNGs without an annotation: {len(strangers):,}, beside {len(expected):,} with one"
        raise FormatError(msg, where=[tree.place(f"{folder}/{name}") for name in strangers])
    return folder


def _hint(missing: Sequence[str], folder: str) -> str:
    if len(missing) % _WRAP == 0:
        return (
            f"exactly {len(missing):,} are missing: an unzip tool trusted the archive's 16-bit "
            "count; give `--source` the archive itself, or unpack it with `python -m zipfile -e`"
        )
    return f"the PNGs belong into `{folder}/`; the archive itself, not unpacked, will do as well"
