"""Results with classes: COCO results JSON, and detectron2's `instances_predictions.pth`.

`coco_results` ignores classes, which is right for scoring. Here they are kept, so that
duplicates can be removed within each class or across all of them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from entitybench.candidates import Candidates
from entitybench.errors import FormatError
from entitybench.formats.duplicates import KEEP, DuplicateRule, Duplicates, remove_duplicates
from entitybench.formats.image_ids import ImageId, ImageIds
from entitybench.formats.json_file import decode_json, is_object, read_file
from entitybench.formats.missing_score import MissingScore, fill_scores, judge_scores
from entitybench.formats.predictions import ImageSize, Predictions, refuse_absent
from entitybench.formats.torch_file import load_torch, plain


class LabelledResult(msgspec.Struct, frozen=True):
    """One scored mask of an image, and its class."""

    image_id: ImageId
    segmentation: Any
    score: float | None = None
    category_id: int | None = None


class _Table(msgspec.Struct):
    annotations: list[LabelledResult]


class _Instances(msgspec.Struct):
    """The results of one image, as detectron2's file groups them."""

    image_id: ImageId
    instances: list[LabelledResult]


@dataclass(frozen=True, slots=True)
class LabelledEntry:
    """The results of one image, in the order of the file."""

    image: ImageSize
    path: str
    results: tuple[LabelledResult, ...]
    rule: MissingScore
    duplicates: Duplicates

    def load(self) -> Candidates:
        """Decode the masks and remove duplicates.

        Raises:
            FormatError: A segmentation is damaged, or of another size than the image.
        """
        masks = [result.segmentation for result in self.results]
        names = [f"{self.path}: mask {k} of image {self.image.id}" for k in range(len(masks))]
        bare = Candidates.from_coco(self.image.shape, masks, [0.0] * len(masks), names=names)
        pixels = self.image.width * self.image.height
        given = [result.score for result in self.results]
        scored = replace(bare, scores=fill_scores(given, bare.areas, pixels, self.rule))
        labels = [-1 if r.category_id is None else r.category_id for r in self.results]
        return remove_duplicates(scored, self.duplicates, np.array(labels, dtype=np.int64))


class LabelledResults(Predictions):
    """Results with classes, grouped by image.

    Make one with `open_coco` or `open_detectron2`.

    Args:
        path: The file, for messages.
        of_image: The results of each image.
        missing_score: What stands in for scores that are missing.
        duplicates: How duplicates are removed.

    Raises:
        FormatError: A score is not in [0, 1]; a class is missing where the rule needs it.
        MissingDataError: Scores are missing and nothing stands in for them.
    """

    def __init__(
        self,
        path: Path,
        of_image: Mapping[str, Sequence[LabelledResult]],
        missing_score: MissingScore,
        duplicates: Duplicates,
    ) -> None:
        self._path, self._of_image = str(path), of_image
        self._rule, self._duplicates = missing_score, duplicates
        named = [(image_id, k) for image_id, rows in of_image.items() for k in range(len(rows))]
        results = [of_image[image_id][k] for image_id, k in named]
        self.score_rule = self._judge(results, named)
        self.image_ids = frozenset(of_image)
        self.num_classes = len({result.category_id for result in results} - {None})
        self.description = (
            f"{len(results):,} masks of {self.num_classes:,} classes in {len(of_image):,} images"
        )

    def _judge(self, results: Sequence[LabelledResult], named: Sequence[tuple[str, int]]) -> str:
        def place(index: int) -> str:
            return f"{self._path}: mask {named[index][1]} of image {named[index][0]}"

        rule = judge_scores([r.score for r in results], self._rule, self._path, place)
        bare = [k for k, result in enumerate(results) if result.category_id is None]
        if bare and self._duplicates.rule is DuplicateRule.PER_CLASS:
            msg = f"{len(bare):,} of {len(results):,} masks have no `category_id`"
            hint = "`--duplicates per-class` needs it; `agnostic` does not"
            raise FormatError(msg, where=[place(k) for k in bare[:4]], hint=hint)
        return rule

    def entry(self, image: ImageSize) -> LabelledEntry:
        """Return the results of one image, not decoded yet."""
        if not self.absent_means_empty:
            refuse_absent(self, image, self._path)
        results = tuple(self._of_image.get(image.id, ()))
        return LabelledEntry(image, self._path, results, self._rule, self._duplicates)


def open_coco(
    path: Path,
    image_ids: Collection[str],
    missing_score: MissingScore = MissingScore.ERROR,
    duplicates: Duplicates = KEEP,
) -> LabelledResults:
    """Open COCO results JSON with its classes; `image_id` is a number or a file stem.

    Raises:
        FormatError: As in `LabelledResults`; not results, or images that the ground truth does
            not know.
        MissingDataError: As in `LabelledResults`.
    """
    data, place = read_file(path), str(path)
    if is_object(data):
        results = decode_json(data, _Table, place).annotations
    else:
        results = decode_json(data, list[LabelledResult], place)
    groups: dict[ImageId, list[LabelledResult]] = {}
    for result in results:
        groups.setdefault(result.image_id, []).append(result)
    images = (_Instances(image_id, rows) for image_id, rows in groups.items())
    of_image = _matched(images, ImageIds(image_ids), place)
    reader = LabelledResults(path, of_image, missing_score, duplicates)
    reader.absent_means_empty = True
    reader.description = f"COCO results JSON: {reader.description}"
    return reader


def open_detectron2(
    path: Path,
    image_ids: Collection[str],
    missing_score: MissingScore = MissingScore.ERROR,
    duplicates: Duplicates = KEEP,
) -> LabelledResults:
    """Open `instances_predictions.pth`, which detectron2's COCO evaluator leaves behind.

    It is a list of `{"image_id", "instances": [COCO results]}`.

    Raises:
        FormatError: As in `LabelledResults`; the file holds other objects or code (`proposals`
            are such), an image is listed twice, or the ground truth does not know it.
        MissingDataError: As in `LabelledResults`.
    """
    try:
        images = msgspec.convert(plain(load_torch(path)), list[_Instances])
    except msgspec.ValidationError as error:
        msg = f"not detectron2's list of images with their `instances`: {error}"
        raise FormatError(msg, where=str(path)) from error
    of_image = _matched(images, ImageIds(image_ids), str(path))
    reader = LabelledResults(path, of_image, missing_score, duplicates)
    reader.description = f"detectron2 instances: {reader.description}"
    return reader


def _matched(
    images: Iterable[_Instances], ids: ImageIds, place: str
) -> dict[str, list[LabelledResult]]:
    named = ((image.image_id, image) for image in images)
    found = ids.match(named, place, where=lambda image: f"{place}: image {image.image_id}")
    return {known: image.instances for known, image in found.items()}
