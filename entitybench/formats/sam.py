"""SAM's automatic mask generator: one JSON per image, masks that may lie inside one another.

`<image id>.json` holds a list of `{"segmentation", "predicted_iou", "stability_score", …}`, as
`amg.py --convert-to-rle` writes it, or that list as the `annotations` of an object, as SA-1B.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from entitybench.candidates import Candidates
from entitybench.formats.image_ids import ImageIds
from entitybench.formats.json_file import decode_json, is_object, read_file
from entitybench.formats.predictions import ImageSize, Predictions, refuse_absent

_KNEE = 0.999  # scores up to here stay as they are
_GLANCE = 1 << 22  # bytes in which the first mask of a file must end


class SamScore(StrEnum):
    """Which of SAM's numbers is the score."""

    PREDICTED_IOU = "predicted-iou"
    STABILITY = "stability-score"


class _Mask(msgspec.Struct, gc=False):
    segmentation: Any
    predicted_iou: float
    stability_score: float


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
    """The masks of one image: its file."""

    image: ImageSize
    path: Path
    score: SamScore

    def load(self) -> Candidates:
        """Decode the masks.

        Raises:
            FormatError: Not SAM's JSON, a mask of another size than the image or damaged, or a
                score that is not a number.
        """
        data, place = read_file(self.path), str(self.path)
        if is_object(data):
            masks, prefix = decode_json(data, _File, place).annotations, "$.annotations"
        else:
            masks, prefix = decode_json(data, list[_Mask], place), "$"
        names = [f"{place}: {prefix}[{k}] (image {self.image.id})" for k in range(len(masks))]
        return Candidates.from_coco(
            self.image.shape, [m.segmentation for m in masks], self._scores(masks), names=names
        )

    def _scores(self, masks: Sequence[_Mask]) -> NDArray[np.float64]:
        if self.score is SamScore.STABILITY:
            return bounded(np.array([m.stability_score for m in masks], dtype=np.float64))
        return bounded(np.array([m.predicted_iou for m in masks], dtype=np.float64))


class SamMasks(Predictions):
    """A folder of SAM's JSON files, or one.

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
        files = json_files(path)
        named = ((stem(file), file) for file in files)
        self._of_image = ImageIds(image_ids).match(named, self._path, where=str)
        self.score_rule = str(score)
        self.image_ids = frozenset(self._of_image)
        self.description = f"SAM masks: {len(files):,} JSON files, scored by {score}"

    def entry(self, image: ImageSize) -> SamEntry:
        """Return the masks of one image, not decoded yet."""
        refuse_absent(self, image, self._path)
        return SamEntry(image, self._of_image[image.id], self._score)


def stem(file: Path) -> str:
    """Return the image id that a file's name tells."""
    return file.name.removesuffix(".gz").removesuffix(".json")


def json_files(path: Path) -> list[Path]:
    """Return the `.json` and `.json.gz` files at a path, in order of their names."""
    files = path.iterdir() if path.is_dir() else [path]
    return sorted(f for f in files if f.name.endswith((".json", ".json.gz")) and f.is_file())


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
