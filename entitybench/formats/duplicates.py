"""Masks that say the same entity twice, and the rules that remove them.

A model trained with classes may find one region under two labels. Its own post-processing looks
for duplicates within a class; a class-agnostic benchmark sees both. A good part of the published
gap between class-specific and class-agnostic training is that switch, so both can be imported.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from entitybench.candidates import Candidates, find_overlap
from entitybench.errors import FormatError
from entitybench.formats.predictions import Entry, ImageSize, Predictions


class DuplicateRule(StrEnum):
    """Among which masks duplicates are looked for.

    * `KEEP`: nowhere; the masks are taken as they are.
    * `PER_CLASS`: among those of one class, as a class-specific model does.
    * `AGNOSTIC`: among all.
    """

    KEEP = "keep"
    PER_CLASS = "per-class"
    AGNOSTIC = "agnostic"


@dataclass(frozen=True, slots=True)
class Duplicates:
    """How duplicates are removed.

    Attributes:
        rule: Among which masks.
        iou: A mask is a duplicate of a better one if their IoU is above this.
    """

    rule: DuplicateRule = DuplicateRule.KEEP
    iou: float = 0.6


KEEP = Duplicates()


def remove_duplicates(
    candidates: Candidates, duplicates: Duplicates, labels: NDArray[np.int64] | None = None
) -> Candidates:
    """Drop each mask that a better one, itself kept, says already.

    Args:
        candidates: The masks; ties of the score go to the earlier one.
        duplicates: The rule, and the mask IoU above which two masks are one.
        labels: `(K,)` class of each mask, for `PER_CLASS`.

    >>> twice = Candidates.from_masks([[[1, 1, 1]], [[1, 1, 1]], [[0, 0, 1]]], [0.5, 0.9, 0.7])
    >>> remove_duplicates(twice, Duplicates(DuplicateRule.AGNOSTIC)).scores
    array([0.9, 0.7])
    """
    if duplicates.rule is DuplicateRule.KEEP:
        return candidates
    rivals: dict[int, list[int]] = {}
    for a, b in _duplicate_pairs(candidates, duplicates.iou):
        if duplicates.rule is DuplicateRule.AGNOSTIC or labels is None or labels[a] == labels[b]:
            rivals.setdefault(a, []).append(b)
            rivals.setdefault(b, []).append(a)
    dropped: set[int] = set()
    for k in np.argsort(-candidates.scores, kind="stable").tolist():
        if k not in dropped:
            dropped.update(rivals.get(k, ()))
    kept = [k for k in range(len(candidates)) if k not in dropped]
    return take(candidates, np.array(kept, dtype=np.int64))


def _duplicate_pairs(candidates: Candidates, iou: float) -> list[tuple[int, int]]:
    overlap, areas = find_overlap(candidates), candidates.areas
    return [
        (a, b)
        for (a, b), shared in zip(overlap.pairs, overlap.pixels, strict=True)
        if shared > iou * (areas[a] + areas[b] - shared)
    ]


def take(candidates: Candidates, indices: NDArray[np.int64]) -> Candidates:
    """Return the masks of some indices, in their order; one may be taken several times."""
    sizes = np.diff(candidates.offsets)[indices]
    offsets = np.concatenate(([0], np.cumsum(sizes))).astype(np.int64)
    runs = np.repeat(candidates.offsets[indices] - offsets[:-1], sizes) + np.arange(offsets[-1])
    return Candidates(
        candidates.shape,
        candidates.starts[runs],
        candidates.ends[runs],
        offsets,
        candidates.scores[indices],
        candidates.column_major,
    )


@dataclass(frozen=True, slots=True)
class WithoutDuplicatesEntry:
    """The predictions of one image, from which duplicates are removed when they are loaded."""

    entry: Entry
    duplicates: Duplicates

    def load(self) -> Candidates:
        """Decode the masks and drop the duplicates.

        Raises:
            FormatError: The format's entities cannot overlap, so that none is a duplicate.
        """
        loaded = self.entry.load()
        if isinstance(loaded, Candidates):
            return remove_duplicates(loaded, self.duplicates)
        msg = "entities of a flat map do not overlap: there are no duplicates to remove"
        raise FormatError(msg, hint="leave `--duplicates` out")


class WithoutDuplicates(Predictions):
    """Predictions of a format without classes, from which duplicates are removed.

    Args:
        predictions: The predictions.
        duplicates: The rule; not `PER_CLASS`.

    Raises:
        FormatError: The rule needs classes.
    """

    def __init__(self, predictions: Predictions, duplicates: Duplicates) -> None:
        if duplicates.rule is DuplicateRule.PER_CLASS:
            msg = f"`--duplicates per-class` needs classes: {predictions.description}"
            raise FormatError(msg, hint="`--duplicates agnostic` needs none")
        self._inner = predictions
        self._duplicates = duplicates
        self.description = predictions.description
        self.score_rule = predictions.score_rule
        self.image_ids = predictions.image_ids
        self.absent_means_empty = predictions.absent_means_empty
        self.model = predictions.model

    def entry(self, image: ImageSize) -> WithoutDuplicatesEntry:
        """Return the predictions of one image, not decoded yet."""
        return WithoutDuplicatesEntry(self._inner.entry(image), self._duplicates)
