"""COCO results JSON in columns: what the compiled kernel matches without a Python object a mask.

The file is `CocoResults`' own; this reader takes it where the kernel is active and everything in
it is plain. Whatever is not (missing scores, an error) is `CocoResults`' to read.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from entitybench import kernel
from entitybench.compiled_truth import Masks
from entitybench.errors import FormatError
from entitybench.formats.coco_results import ResultsEntry
from entitybench.formats.image_ids import ImageId, ImageIds
from entitybench.formats.json_rows import (
    HAS_IMAGE,
    HAS_SCORE,
    HAS_SEGMENTATION,
    HAS_SIZE,
    IMAGE_ESCAPED,
    IMAGE_IS_TEXT,
    MappedText,
    NotPlainError,
    Rows,
    fit_masks,
    is_list,
    lacks,
    scan_list,
    scan_members,
    scan_whole_list,
)
from entitybench.formats.missing_score import MissingScore
from entitybench.formats.predictions import ImageSize, Predictions

_T = TypeVar("_T", bound=np.generic)
_NEEDED = HAS_IMAGE | HAS_SCORE | HAS_SEGMENTATION | HAS_SIZE
_COLUMNS = ("score", "text", "text_size", "kind", "height", "width")


class ScannedResults(Predictions):
    """COCO results, grouped by image; masks stay text in the file.

    Args:
        path: The `.json`.
        image_ids: The ground truth's image ids.

    Attributes:
        text: The file.
        scores: `(K,)` float64 in [0, 1], in file order; so are the following.
        offsets: `(K,)` int64 place of each RLE text.
        lengths: `(K,)` uint32 bytes of it.
        kinds: `(K,)` uint8 `kernel.SEGMENT_…`.
        shapes: `(K, 2)` uint32 height and width that the RLE states; polygons state none.

    Raises:
        NotPlainError: `CocoResults` should read this file.
        FormatError: Not JSON, or images that the ground truth does not know.
    """

    absent_means_empty = True
    score_rule = "model"

    def __init__(self, path: Path, image_ids: Collection[str]) -> None:
        self.text = MappedText.of(path)
        self._path = str(path)
        self._prefix = "$" if is_list(self.text) else "$.annotations"
        columns = _Columns(self.text)
        _scan(self.text, columns.take)
        self.scores = columns.joined("score", np.float64)
        self.offsets = columns.joined("text", np.int64)
        self.lengths = columns.joined("text_size", np.uint32)
        self.kinds = columns.joined("kind", np.uint8)
        self.shapes = np.stack([columns.joined(n, np.uint32) for n in ("height", "width")], axis=1)
        _refuse_odd(self.scores)
        self._of_image = _group(columns.images, ImageIds(image_ids), self._path)
        self.image_ids = frozenset(self._of_image)
        self.description = (
            f"COCO results JSON: {len(self.scores):,} masks in {len(self._of_image):,} images"
        )

    def masks_of(self, image_ids: Collection[str], shapes: NDArray[np.uint32]) -> Masks:
        """Return the masks image by image.

        Args:
            image_ids: I images.
            shapes: `(I, 2)` height and width of each.

        Raises:
            NotPlainError: A mask has another size than its image, or polygons are damaged.
        """
        none = np.zeros(0, dtype=np.int64)
        groups = [self._of_image.get(image_id, none) for image_id in image_ids]
        counts = np.array([len(group) for group in groups], dtype=np.int64)
        order = np.concatenate([none, *groups])
        masks = Masks(
            self.text.view,
            b"",
            self.offsets[order],
            self.lengths[order],
            self.kinds[order],
            self.scores[order],
            np.concatenate(([0], np.cumsum(counts))),
        )
        return fit_masks(masks, self.shapes[order], np.repeat(shapes, counts, axis=0))

    def entry(self, image: ImageSize) -> ResultsEntry:
        """Return the results of one image; none, if the file does not mention it."""
        indices = self._of_image.get(image.id, np.zeros(0, dtype=np.int64)).tolist()
        return ResultsEntry(
            image,
            self._path,
            tuple(f"{self._prefix}[{index}]" for index in indices),
            tuple(self._segmentation(index) for index in indices),
            tuple(self.scores[indices].tolist()),
            MissingScore.ERROR,
        )

    def _segmentation(self, index: int) -> bytes:
        start = int(self.offsets[index])
        counts = self.text.view[start : start + int(self.lengths[index])]
        if self.kinds[index] == kernel.SEGMENT_POLYGONS:
            return counts
        if self.kinds[index] != kernel.SEGMENT_LIST:
            counts = b'"%s"' % counts
        return b'{"size":[%d,%d],"counts":%s}' % (*self.shapes[index].tolist(), counts)


def _refuse_odd(scores: NDArray[np.float64]) -> None:
    if not np.all((scores >= 0) & (scores <= 1)):
        msg = "a score that is not in [0, 1]"
        raise NotPlainError(msg)


Image = tuple[ImageId, int]  # an id, and how many rows in a row have it


class _Columns:
    """Collects what is needed of the rows."""

    def __init__(self, text: MappedText) -> None:
        self.images: list[Image] = []
        self._text = text
        self._parts: dict[str, list[NDArray[Any]]] = {name: [] for name in _COLUMNS}

    def take(self, rows: Rows) -> None:
        if np.any(lacks(rows, _NEEDED)):
            msg = "a row without image id, score, or mask"
            raise NotPlainError(msg)
        self.images += _images(self._text, rows)
        for name, parts in self._parts.items():
            parts.append(rows[name].copy())

    def joined(self, name: str, dtype: type[_T]) -> NDArray[_T]:
        return np.concatenate([np.zeros(0, dtype), *self._parts[name]])


def _scan(text: MappedText, take: Callable[[Rows], None]) -> None:
    if is_list(text):
        scan_whole_list(text, take)
        return
    lists = 0

    def annotations(position: int) -> int:
        nonlocal lists
        lists += 1
        return scan_list(text, position, take)

    scan_members(text, {"annotations": annotations, "images": _refuse_images})
    if lists != 1:
        msg = "no `annotations`, or several"
        raise NotPlainError(msg)


def _refuse_images(_: int) -> int:
    msg = "file names that may decide image ids"
    raise NotPlainError(msg)


def _images(text: MappedText, rows: NDArray[np.void]) -> list[Image]:
    if not np.any(rows["present"] & IMAGE_IS_TEXT):
        ids = rows["image"]
        heads = np.flatnonzero(np.diff(ids, prepend=ids[:1] - 1))
        sizes = np.diff(heads, append=len(ids))
        return list(zip(ids[heads].tolist(), sizes.tolist(), strict=True))
    return [(_image_id(text, row), 1) for row in rows]


def _image_id(text: MappedText, row: np.void) -> ImageId:
    start, present = int(row["image"]), int(row["present"])
    if not present & IMAGE_IS_TEXT:
        return start
    raw = text.view[start : start + int(row["image_size"])]
    if present & IMAGE_ESCAPED:
        return msgspec.json.decode(b'"%s"' % raw, type=str)
    return raw.decode("utf-8", "surrogateescape")


def _group(images: list[Image], ids: ImageIds, place: str) -> dict[str, NDArray[np.int64]]:
    """Return the rows of each image of the ground truth, in file order."""
    known: dict[ImageId, str | None] = {}
    parts: dict[str, list[NDArray[np.int64]]] = {}
    first = 0
    for image_id, size in images:
        if image_id not in known:
            known[image_id] = ids.find(image_id)
        stem = known[image_id]
        if stem is not None:
            parts.setdefault(stem, []).append(np.arange(first, first + size))
        first += size
    ids.refuse((image_id for image_id, stem in known.items() if stem is None), place)
    return {
        stem: pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
        for stem, pieces in parts.items()
    }


def scan_results(path: Path, image_ids: Collection[str]) -> ScannedResults | None:
    """Scan a results file, or return None where the careful readers should have it.

    Args:
        path: Any predictions.
        image_ids: The ground truth's image ids.
    """
    if not (kernel.is_active() and path.suffix == ".json" and path.is_file()):
        return None
    try:
        return ScannedResults(path, image_ids)
    except FormatError:  # the careful readers know why, or know better
        return None
