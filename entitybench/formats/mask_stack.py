"""Mask stacks: one `.npz` or `.npy` file per image, named after it.

* `masks` `(N, H, W)` booleans or 0 and 1, and `scores` `(N,)`; masks may overlap. Optional
  `probabilities` `(N, H, W)` in [0, 1] serve `--missing-score mean-prob`.
* or `ids` `(H, W)` integers, 0 void, and `scores` `(N,)` in ascending order of the ids.
* an `.npy` is `masks` or `ids`, by its dimensions, without scores.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from entitybench.candidates import Candidates, checked_scores
from entitybench.entity_map import EntityMap
from entitybench.errors import FormatError
from entitybench.formats.image_ids import ImageIds
from entitybench.formats.missing_score import MissingScore, fill_scores, score_rule
from entitybench.formats.npy_stream import NpyStream, array_names, open_arrays
from entitybench.formats.predictions import (
    ImageSize,
    Predictions,
    ScoredMap,
    refuse_absent,
    refuse_size,
)

SUFFIXES = (".npz", ".npy")
_AT_ONCE = 1 << 24  # mask pixels in memory at a time


@dataclass(frozen=True, slots=True)
class StackEntry:
    """The predictions of one image: its file."""

    image: ImageSize
    path: Path
    rule: MissingScore

    def load(self) -> Candidates | ScoredMap:
        """Decode the file, a few masks at a time.

        Raises:
            FormatError: Damaged, of another size than the image, arrays that are missing or of
                another kind; a wrong number of scores, or one that is not in [0, 1].
        """
        with open_arrays(self.path) as arrays:
            if "masks" in arrays or (self._single(arrays) and len(arrays[""].shape) == 3):
                return self._candidates(arrays)
            return self._map(arrays)

    def _single(self, arrays: Mapping[str, NpyStream]) -> bool:
        if "" not in arrays:
            return False
        if len(arrays[""].shape) not in (2, 3):
            msg = f"masks are (N, H, W) and ids (H, W), this array is {arrays[''].shape}"
            raise FormatError(msg)
        return True

    def _candidates(self, arrays: Mapping[str, NpyStream]) -> Candidates:
        masks = arrays.get("masks") or arrays[""]
        self._check(masks, "masks", "biu", 3)
        scores = _scores(arrays, masks.shape[0])
        probabilities = arrays.get("probabilities") if self.rule is MissingScore.MEAN_PROB else None
        if scores is None and probabilities is not None:
            self._check(probabilities, "probabilities", "f", 3)
            if probabilities.shape != masks.shape:
                msg = f"probabilities are {probabilities.shape}, masks are {masks.shape}"
                raise FormatError(msg)
            candidates, scores = _with_means(masks, probabilities)
        else:
            candidates = join_masks(
                self.image.shape, [Candidates.from_masks(*b) for b in _blocks(masks)]
            )
        return replace(candidates, scores=self._filled(scores, candidates.areas))

    def _map(self, arrays: Mapping[str, NpyStream]) -> ScoredMap:
        ids = arrays.get("ids") or arrays[""]
        self._check(ids, "ids", "iu", 2)
        values = ids.read_all()
        if values.size and values.min() < 0:
            msg = f"ids hold {values.min()}; 0 is void, entities are positive"
            raise FormatError(msg)
        entity_map = EntityMap.from_array(values)
        scores = _scores(arrays, entity_map.num_entities)
        return ScoredMap(entity_map, self._filled(scores, entity_map.areas[1:]))

    def _check(self, array: NpyStream, name: str, kinds: str, dimensions: int) -> None:
        if len(array.shape) != dimensions:
            msg = f"`{name}` has shape {array.shape}, expected {dimensions} dimensions"
            raise FormatError(msg)
        if array.dtype.kind not in kinds:
            names = {"biu": "booleans or integers 0 and 1", "iu": "integers", "f": "floats"}
            msg = f"`{name}` holds {array.dtype}, expected {names[kinds]}"
            raise FormatError(msg)
        refuse_size(array.shape[-2:], self.image, f"`{name}`")

    def _filled(
        self, scores: NDArray[np.float64] | None, areas: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        if scores is not None:
            return scores
        pixels = self.image.width * self.image.height
        return fill_scores([None] * len(areas), areas, pixels, self.rule)


class MaskStacks(Predictions):
    """A folder of mask stacks, or one.

    Args:
        path: The folder, or a single file.
        image_ids: The ground truth's image ids.
        missing_score: What stands in for scores that are missing.

    Raises:
        FormatError: Files that the ground truth does not know, two for one image, or one that
            holds other arrays.
        MissingDataError: Scores are missing and nothing stands in for them.
    """

    def __init__(
        self,
        path: Path,
        image_ids: Collection[str],
        missing_score: MissingScore = MissingScore.ERROR,
    ) -> None:
        self._path = str(path)
        self._rule = missing_score
        files = stack_files(path)
        stems = ((file.stem, file) for file in files)
        self._of_image = ImageIds(image_ids).match(stems, self._path, where=str)
        names = [_checked_names(file) for file in files]
        unscored = [arrays for arrays in names if "scores" not in arrays]
        self.score_rule = score_rule(
            len(unscored),
            len(files),
            missing_score,
            self._path,
            noun="mask stacks",
            probabilities=all("probabilities" in arrays for arrays in unscored),
        )
        self.image_ids = frozenset(self._of_image)
        self.description = f"mask stacks: {len(files):,} files"

    def entry(self, image: ImageSize) -> StackEntry:
        """Return the predictions of one image, not decoded yet."""
        refuse_absent(self, image, self._path)
        return StackEntry(image, self._of_image[image.id], self._rule)


def stack_files(path: Path) -> list[Path]:
    """Return the mask stacks at a path, in order of their names."""
    files = path.iterdir() if path.is_dir() else [path]
    return sorted(file for file in files if file.suffix in SUFFIXES and file.is_file())


def _checked_names(file: Path) -> frozenset[str]:
    names = array_names(file)
    if len(names & {"", "masks", "ids"}) != 1:
        msg = "a mask stack holds either `masks` or `ids`"
        there = ", ".join(sorted(names)) or "nothing"
        raise FormatError(msg, where=str(file), hint=f"it holds {there}")
    return names


def _scores(arrays: Mapping[str, NpyStream], count: int) -> NDArray[np.float64] | None:
    if "scores" not in arrays:
        return None
    stream = arrays["scores"]
    if stream.shape != (count,) or stream.dtype.kind not in "fiu":
        msg = f"{count} entities need {count} scores, `scores` is {stream.dtype} {stream.shape}"
        raise FormatError(msg)
    return checked_scores(stream.read_all(), count)


def _blocks(masks: NpyStream) -> Iterator[tuple[NDArray[Any], NDArray[np.float64]]]:
    """Yield a few masks at a time, with scores of zero."""
    count, height, width = masks.shape
    at_once = max(1, _AT_ONCE // (height * width))
    for begin in range(0, count, at_once):
        block = masks.read(min(at_once, count - begin))
        if block.dtype == bool:
            block = block.view(np.uint8)  # a damaged file may hold bytes beyond 0 and 1
        yield block, np.zeros(len(block))


def _with_means(
    masks: NpyStream, probabilities: NpyStream
) -> tuple[Candidates, NDArray[np.float64]]:
    """Return the masks, and the mean probability inside each; 0 for an empty mask."""
    parts, means = [], [np.zeros(0)]
    for block, zeros in _blocks(masks):
        parts.append(Candidates.from_masks(block, zeros))
        inside = probabilities.read(len(block)).astype(np.float64)
        if not np.all((inside >= 0) & (inside <= 1)):
            msg = "`probabilities` holds a value that is not in [0, 1]"
            raise FormatError(msg)
        areas = parts[-1].areas
        means.append((inside * (block != 0)).sum(axis=(1, 2)) / np.maximum(areas, 1))
    height, width = masks.shape[1:]
    return join_masks((height, width), parts), np.concatenate(means)


def join_masks(shape: tuple[int, int], parts: Sequence[Candidates]) -> Candidates:
    """Put blocks of masks of one image, row by row, one behind the other."""
    none = Candidates.from_masks(np.zeros((0, *shape), dtype=bool), [])
    every = [none, *parts]
    runs = np.cumsum([0, *(len(part.starts) for part in every[:-1])])
    offsets = [part.offsets[1:] + first for part, first in zip(every, runs, strict=True)]
    return Candidates(
        shape,
        np.concatenate([part.starts for part in every]),
        np.concatenate([part.ends for part in every]),
        np.concatenate([[0], *offsets]).astype(np.int64),
        np.concatenate([part.scores for part in every]),
    )
