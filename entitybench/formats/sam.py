"""SAM's automatic mask generator: masks of an image that may lie inside one another.

* `<image id>.json` holds a list of `{"segmentation", "predicted_iou", "stability_score", …}`, as
  `amg.py --convert-to-rle` writes it, or that list as the `annotations` of an object, as SA-1B.
* `<image id>/` holds `0.png`, `1.png`, … and a table `metadata.csv`, as `amg.py` writes it else.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from entitybench.candidates import Candidates
from entitybench.errors import FormatError
from entitybench.formats.image_ids import ImageIds
from entitybench.formats.json_file import decode_json, is_object, read_file
from entitybench.formats.mask_stack import join_masks
from entitybench.formats.predictions import ImageSize, Predictions, refuse_absent
from entitybench.png import open_png

METADATA = "metadata.csv"
_KNEE = 0.999  # scores up to here stay as they are
_GLANCE = 1 << 22  # bytes in which the first mask of a file must end


class SamScore(StrEnum):
    """Which of SAM's numbers is the score."""

    PREDICTED_IOU = "predicted-iou"
    STABILITY = "stability-score"


class _Scores(msgspec.Struct, gc=False):
    predicted_iou: float
    stability_score: float


class _Mask(_Scores, gc=False):
    segmentation: Any


class _Line(_Scores, gc=False):
    """One line of `metadata.csv`."""

    id: Annotated[int, msgspec.Meta(ge=0)]


class _File(msgspec.Struct):
    annotations: list[_Mask]


def bounded(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return scores in [0, 1] in the same order.

    SAM estimates an IoU by regression, which may pass 1. What is above 0.999 is squeezed into
    the rest of the interval; cutting it at 1 would tie the best masks with one another.

    >>> bounded(np.array([-0.1, 0.95, 1.0, 1.04])).round(5)
    array([0.     , 0.95   , 0.9995 , 0.99998])
    """
    rest = 1 - _KNEE
    above = np.maximum(scores - _KNEE, 0)
    squeezed = 1 - rest * rest / (above + rest)
    return np.where(scores <= _KNEE, np.maximum(scores, 0), squeezed)


@dataclass(frozen=True, slots=True)
class SamEntry:
    """The masks of one image: its file, or its folder."""

    image: ImageSize
    path: Path
    score: SamScore

    def load(self) -> Candidates:
        """Decode the masks.

        Raises:
            FormatError: Not SAM's JSON or table, a mask that is missing, damaged, or of another
                size than the image, or a score that is not a number.
        """
        return self._of_folder() if self.path.is_dir() else self._of_json()

    def _of_folder(self) -> Candidates:
        lines = _read_lines(self.path / METADATA)
        masks = [_read_mask(self.path / f"{line.id}.png", self.image.shape) for line in lines]
        return replace(join_masks(self.image.shape, masks), scores=self._scores(lines))

    def _of_json(self) -> Candidates:
        data, place = read_file(self.path), str(self.path)
        if is_object(data):
            masks, prefix = decode_json(data, _File, place).annotations, "$.annotations"
        else:
            masks, prefix = decode_json(data, list[_Mask], place), "$"
        names = [f"{place}: {prefix}[{k}] (image {self.image.id})" for k in range(len(masks))]
        return Candidates.from_coco(
            self.image.shape, [m.segmentation for m in masks], self._scores(masks), names=names
        )

    def _scores(self, masks: Sequence[_Scores]) -> NDArray[np.float64]:
        if self.score is SamScore.STABILITY:
            return bounded(np.array([m.stability_score for m in masks], dtype=np.float64))
        return bounded(np.array([m.predicted_iou for m in masks], dtype=np.float64))


class SamMasks(Predictions):
    """A folder of SAM's JSON files or of its folders of PNGs, or one of them.

    Args:
        path: The folder, or a single file.
        image_ids: The ground truth's image ids.
        score: Which number is the score.

    Raises:
        FormatError: Files that the ground truth does not know, or two for one image.
    """

    always_thresholded = True

    def __init__(
        self, path: Path, image_ids: Collection[str], score: SamScore = SamScore.PREDICTED_IOU
    ) -> None:
        self._path, self._score = str(path), score
        files, folders = json_files(path), mask_folders(path)
        named = [*((stem(file), file) for file in files), *((f.name, f) for f in folders)]
        self._of_image = ImageIds(image_ids).match(named, self._path, where=str)
        self.score_rule = str(score)
        self.image_ids = frozenset(self._of_image)
        counts = ((len(files), "JSON files"), (len(folders), "folders of PNGs"))
        found = " and ".join(f"{count:,} {what}" for count, what in counts if count)
        self.description = f"SAM masks: {found or 'nothing'}, scored by {score}"

    def entry(self, image: ImageSize) -> SamEntry:
        """Return the masks of one image, not decoded yet."""
        refuse_absent(self, image, self._path)
        return SamEntry(image, self._of_image[image.id], self._score)


def _read_lines(path: Path) -> list[_Line]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return msgspec.convert(list(csv.DictReader(file)), list[_Line], strict=False)
    except (ValueError, csv.Error) as error:  # msgspec's too: its ValidationError is one
        msg = f"not SAM's table of masks: {error}"
        raise FormatError(msg, where=str(path)) from error


def _read_mask(path: Path, shape: tuple[int, int]) -> Candidates:
    try:
        picture = open_png(path.read_bytes(), shape, ("L", "1"), "8-bit gray")
    except FileNotFoundError as error:
        msg = f"no mask `{path.name}`, which `{METADATA}` lists"
        raise FormatError(msg, where=str(path)) from error
    except FormatError as error:
        raise error.at(str(path)) from error
    return Candidates.from_masks(np.asarray(picture)[None] != 0, [0.0])


def stem(file: Path) -> str:
    """Return the image id that a file's name tells."""
    return file.name.removesuffix(".gz").removesuffix(".json")


def json_files(path: Path) -> list[Path]:
    """Return the `.json` and `.json.gz` files at a path, in order of their names."""
    files = path.iterdir() if path.is_dir() else [path]
    return sorted(f for f in files if f.name.endswith((".json", ".json.gz")) and f.is_file())


def mask_folders(path: Path) -> list[Path]:
    """Return the folders of PNGs with SAM's table at a path, or the path if it is one."""
    folders = [path, *path.iterdir()] if path.is_dir() else []
    return sorted(folder for folder in folders if _has_table(folder))


def _has_table(folder: Path) -> bool:
    try:
        with (folder / METADATA).open("rb") as file:
            return b"predicted_iou" in file.readline(_GLANCE)
    except OSError:
        return False


def is_sam(data: bytes) -> bool:
    """Tell whether JSON holds SAM's masks, by the first of them."""
    text = data[:_GLANCE].decode("utf-8", errors="replace")
    begin = text.find('"annotations"') if is_object(data) else 0
    begin = text.find("{", max(begin, 0))
    if begin < 0:
        return False
    try:
        first, _ = json.JSONDecoder().raw_decode(text, begin)
    except (ValueError, RecursionError):
        return False
    return isinstance(first, dict) and {"segmentation", "predicted_iou"} <= set(first)
