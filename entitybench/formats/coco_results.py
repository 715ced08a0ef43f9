"""COCO results JSON: a list of scored masks, each with the id of its image.

`[{"image_id", "segmentation", "score"}, …]`, or the same list as the `annotations` of an
object.  A segmentation is RLE, compressed or not, or polygons.  Category ids, boxes, areas and
the results' own ids are ignored: an entity has no class, and its area is that of its mask.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from entitybench.candidates import Candidates
from entitybench.formats.image_ids import ImageId, ImageIds
from entitybench.formats.json_file import decode_json, is_object, read_file
from entitybench.formats.missing_score import MissingScore, fill_scores, judge_scores
from entitybench.formats.predictions import ImageSize, Predictions


class _Result(msgspec.Struct, gc=False):
    image_id: ImageId
    segmentation: msgspec.Raw  # text of the file, decoded when its image is loaded
    score: float | None = None


class _Image(msgspec.Struct, gc=False):
    id: ImageId
    file_name: str = ""


class _Results(msgspec.Struct):
    annotations: list[_Result]
    images: list[_Image] = []  # msgspec copies it


@dataclass(frozen=True, slots=True)
class ResultsEntry:
    """The results of one image, in the order of the file.

    Attributes:
        image: The image.
        path: The file, for messages.
        places: Where in the file each result is.
        segmentations: The JSON text of each segmentation.
        scores: Each score, or None.
        rule: What stands in for None.
    """

    image: ImageSize
    path: str
    places: tuple[str, ...]
    segmentations: tuple[bytes, ...]
    scores: tuple[float | None, ...]
    rule: MissingScore

    def load(self) -> Candidates:
        """Decode the masks.

        Raises:
            FormatError: A segmentation is damaged, or of another size than the image.
        """
        names = [f"{self.path}: {place} (image {self.image.id})" for place in self.places]
        masks: list[Any] = [
            decode_json(text, object, name)
            for text, name in zip(self.segmentations, names, strict=True)
        ]
        unscored = [0.0] * len(masks)
        candidates = Candidates.from_coco(self.image.shape, masks, unscored, names=names)
        pixels = self.image.width * self.image.height
        return replace(
            candidates, scores=fill_scores(self.scores, candidates.areas, pixels, self.rule)
        )


class CocoResults(Predictions):
    """COCO results, grouped by image; masks stay text until their image is loaded.

    Args:
        path: The `.json` or `.json.gz`.
        image_ids: The ground truth's image ids.
        missing_score: What stands in for scores that are missing.
        data: The file's content where it was read before.

    Raises:
        FormatError: Not JSON, a result without an image id or segmentation, images that the
            ground truth does not know, or a score that is not in [0, 1].
        MissingDataError: Scores are missing and nothing stands in for them.
    """

    absent_means_empty = True

    def __init__(
        self,
        path: Path,
        image_ids: Collection[str],
        missing_score: MissingScore = MissingScore.ERROR,
        *,
        data: bytes | None = None,
    ) -> None:
        self._path = str(path)
        self._rule = missing_score
        table, self._prefix = _decode(read_file(path) if data is None else data, self._path)
        self._results = table.annotations
        self._of_image = self._group(table.images, ImageIds(image_ids))
        self.score_rule = judge_scores(
            [result.score for result in self._results],
            missing_score,
            self._path,
            lambda index: f"{self._path}: {self._place(index)}",
        )
        self.image_ids = frozenset(self._of_image)
        self.description = (
            f"COCO results JSON: {len(self._results):,} masks in {len(self._of_image):,} images"
        )

    def _place(self, index: int) -> str:
        return f"{self._prefix}[{index}]"

    def _group(self, images: list[_Image], ids: ImageIds) -> dict[str, list[int]]:
        """Return the indices of the results of each image, both in file order."""
        stems = {image.id: PurePosixPath(image.file_name).stem for image in images}
        found: dict[ImageId, str | None] = {}
        groups: dict[str, list[int]] = {}
        for index, result in enumerate(self._results):
            image_id = result.image_id
            if image_id not in found:
                found[image_id] = ids.find(image_id, stems.get(image_id, ""))
            known = found[image_id]
            if known is not None:
                groups.setdefault(known, []).append(index)
        ids.refuse((image_id for image_id, known in found.items() if known is None), self._path)
        return groups

    def entry(self, image: ImageSize) -> ResultsEntry:
        """Return the results of one image; none, if the file does not mention it."""
        indices = self._of_image.get(image.id, [])
        results = [self._results[index] for index in indices]
        return ResultsEntry(
            image,
            self._path,
            tuple(self._place(index) for index in indices),
            tuple(bytes(result.segmentation) for result in results),
            tuple(result.score for result in results),
            self._rule,
        )


def _decode(data: bytes, place: str) -> tuple[_Results, str]:
    """Decode either form, and return the path to its list."""
    if is_object(data):
        return decode_json(data, _Results, place), "$.annotations"
    return _Results(decode_json(data, list[_Result], place)), "$"
