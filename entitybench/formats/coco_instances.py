"""Flat COCO instance JSON as ground truth: entities without classes, as they are annotated.

`{"images", "annotations"}` with RLE or polygons. Everything annotated is an entity; `iscrowd`
makes it a crowd. AP_e needs entities that do not overlap, so truth that does is refused.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import IO

import msgspec
import numpy as np
from numpy.typing import NDArray

from entitybench.compiled_truth import ENTRY, Masks, compile_masks
from entitybench.formats.image_ids import ImageId
from entitybench.formats.json_rows import (
    HAS_AREA,
    HAS_IMAGE,
    HAS_SEGMENTATION,
    HAS_SIZE,
    IMAGE_IS_TEXT,
    ROW,
    MappedText,
    NotPlainError,
    Rows,
    fit_masks,
    lacks,
    scan_list,
    scan_members,
    skip_value,
)


class ImageInfo(msgspec.Struct, gc=False):
    """One row of `images`."""

    id: ImageId
    width: int
    height: int
    file_name: str = ""


def stem_of(image: ImageInfo) -> str:
    """Return the image's id in entitybench: the file stem where it has the id's value.

    >>> stem_of(ImageInfo(139, 640, 426, "000000000139.jpg"))
    '000000000139'
    >>> stem_of(ImageInfo(7, 640, 426, "street.jpg"))
    '7'
    """
    stem = PurePosixPath(image.file_name).stem
    if isinstance(image.id, str):
        return image.id
    decimal = stem.isascii() and stem.isdecimal() and len(stem) <= 40
    return stem if decimal and int(stem) == image.id else str(image.id)


_NEEDED = HAS_IMAGE | HAS_SEGMENTATION | HAS_SIZE | HAS_AREA


def compile_instances(path: Path, file: IO[bytes]) -> None:
    """Compile instance JSON straight from its text.

    Raises:
        NotPlainError: `InstanceTruth` should read this file.
        MaskError: A mask is damaged, or masks of one image overlap.
        FormatError: Not JSON.
    """
    text = MappedText.of(path)
    images, rows = _scan(text)
    place = _places(images, rows)
    is_crowd = rows["is_crowd"] != 0
    order = np.lexsort((is_crowd, place))
    rows, place, is_crowd = rows[order], place[order], is_crowd[order]
    entries = np.zeros(len(images), dtype=ENTRY)
    entries["height"] = [image.height for image in images]
    entries["width"] = [image.width for image in images]
    entries["num_entities"] = np.bincount(place[~is_crowd], minlength=len(images))
    entries["num_crowds"] = np.bincount(place[is_crowd], minlength=len(images))
    annotated = np.zeros(len(rows) + len(images))
    annotated[np.arange(len(rows)) + place + 1] = rows["area"]
    counts = np.bincount(place, minlength=len(images))
    masks = Masks(
        text.view,
        b"",
        rows["text"].copy(),
        rows["text_size"].copy(),
        rows["kind"].copy(),
        np.zeros(len(rows)),
        np.concatenate(([0], np.cumsum(counts))),
    )
    masks = fit_masks(masks, _shapes(rows), _shapes(entries[place]))
    compile_masks([stem_of(image) for image in images], entries, masks, annotated, file)


def _shapes(rows: NDArray[np.void]) -> NDArray[np.uint32]:
    return np.stack([rows["height"], rows["width"]], axis=1)


def _places(images: list[ImageInfo], rows: Rows) -> NDArray[np.int64]:
    """Return the position among the images of each row's image."""
    if not all(isinstance(image.id, int) and abs(image.id) < 2**62 for image in images):
        msg = "image ids that are no integers"
        raise NotPlainError(msg)
    numbers = np.array([image.id for image in images], dtype=np.int64)
    if not len(images) or len(np.unique(numbers)) < len(images):
        msg = "no images, or an image listed twice"
        raise NotPlainError(msg)
    order = np.argsort(numbers, kind="stable")
    found = np.searchsorted(numbers[order], rows["image"]).clip(max=len(images) - 1)
    places: NDArray[np.int64] = order[found]
    if np.any(numbers[places] != rows["image"]):
        msg = "annotations of images that `images` does not list"
        raise NotPlainError(msg)
    return places


def _scan(text: MappedText) -> tuple[list[ImageInfo], Rows]:
    images: list[ImageInfo] = []
    parts: list[Rows] = [np.zeros(0, dtype=ROW)]

    def take_images(position: int) -> int:
        end = skip_value(text, position)
        try:
            images.extend(msgspec.json.decode(text.view[position:end], type=list[ImageInfo]))
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise NotPlainError(str(error)) from error
        return end

    def take_annotations(position: int) -> int:
        return scan_list(text, position, take)

    def take(rows: Rows) -> None:
        by_name = rows["present"] & IMAGE_IS_TEXT != 0
        if np.any(lacks(rows, _NEEDED) | by_name | ~np.isfinite(rows["area"])):
            msg = "a row without image id, mask or area"
            raise NotPlainError(msg)
        parts.append(rows.copy())

    scan_members(text, {"images": take_images, "annotations": take_annotations})
    return images, np.concatenate(parts)
