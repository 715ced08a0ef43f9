"""Scored masks that may still overlap, and the one way from them to an entity map.

Whatever comes from outside (RLE, polygons, mask stacks, query outputs) becomes
`Candidates`; `resolve` is the only border between them and an `EntityMap`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pycocotools import mask as coco_mask

from entitybench import kernel
from entitybench.entity_map import MAX_PIXELS, EntityMap
from entitybench.errors import FormatError, OverlapError
from entitybench.rle import decode_counts, runs_of_counts

_FARTHEST = 1_000_000  # polygons are traced step by step: a coordinate costs time and memory
_PAIRS_AT_ONCE = 1 << 22  # bounds the memory of the overlap report, not its result


class OverlapPolicy(StrEnum):
    """What `resolve` does with pixels that several candidates claim."""

    REJECT = "reject"
    RESOLVE = "resolve"


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """Scored masks of one image, as runs.

    Attributes:
        shape: Height and width in pixels.
        starts: `(R,)` int64 first pixel of each run, mask by mask.
        ends: `(R,)` int64 pixel behind each run.
        offsets: `(K + 1,)` int64; mask k owns the runs `offsets[k]:offsets[k + 1]`,
            which are ascending and disjoint.
        scores: `(K,)` float64.
        column_major: Whether pixels are counted down the columns, as COCO does.

    >>> two = Candidates.from_masks([[[1, 1, 0]], [[0, 1, 1]]], scores=[0.9, 0.8])
    >>> find_overlap(two)
    Overlap(pairs=[(0, 1)], pixels=[1])
    >>> resolve(two, OverlapPolicy.RESOLVE).map.to_array()
    array([[1, 1, 2]], dtype=int32)
    """

    shape: tuple[int, int]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    offsets: NDArray[np.int64]
    scores: NDArray[np.float64]
    column_major: bool = False

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def owners(self) -> NDArray[np.int64]:
        """`(R,)` int64 mask of each run."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    @property
    def areas(self) -> NDArray[np.int64]:
        """`(K,)` int64 pixels of each mask."""
        covered = np.concatenate(([0], np.cumsum(self.ends - self.starts)))
        areas: NDArray[np.int64] = covered[self.offsets[1:]] - covered[self.offsets[:-1]]
        return areas

    @classmethod
    def from_masks(cls, masks: ArrayLike, scores: ArrayLike) -> Candidates:
        """Take a mask stack.

        Args:
            masks: `(K, H, W)` booleans, or integers 0 and 1.
            scores: `(K,)` scores in [0, 1].

        Raises:
            FormatError: Wrong dimensions, other values than 0 and 1, or bad scores.
        """
        stack = np.asarray(masks)
        if stack.ndim != 3:
            msg = f"a mask stack has three dimensions, this has shape {stack.shape}"
            raise FormatError(msg)
        if stack.dtype.kind not in "biu" or (stack.dtype != bool and np.any((stack | 1) != 1)):
            msg = "a mask stack holds booleans, or integers 0 and 1"
            raise FormatError(msg)
        _, height, width = stack.shape
        return cls._gather((height, width), [_runs_of_mask(m) for m in stack], scores)

    @classmethod
    def from_coco(
        cls,
        shape: tuple[int, int],
        segmentations: Iterable[object],
        scores: ArrayLike,
        *,
        names: Sequence[str] = (),
    ) -> Candidates:
        """Take COCO segmentations: compressed or uncompressed RLE, or polygons.

        Args:
            shape: Height and width of the image; an RLE of another size is refused.
            segmentations: `{"size": [h, w], "counts": text or list}` or a list of polygons.
            scores: `(K,)` scores in [0, 1].
            names: What an error calls each segmentation; `segmentation k` unless given.

        Raises:
            FormatError: Names the segmentation that is at fault.
        """
        runs = []
        for index, segmentation in enumerate(segmentations):
            try:
                runs.append(_runs_of_segmentation(shape, segmentation))
            except FormatError as error:
                place = names[index] if names else f"segmentation {index}"
                raise error.at(place) from error
        return cls._gather(shape, runs, scores, column_major=True)

    @classmethod
    def _gather(
        cls,
        shape: tuple[int, int],
        runs: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]],
        scores: ArrayLike,
        *,
        column_major: bool = False,
    ) -> Candidates:
        if not 0 < shape[0] * shape[1] <= MAX_PIXELS:
            msg = f"an image of {shape[1]}×{shape[0]} pixels has no entity map"
            raise FormatError(msg)
        empty = np.zeros(0, dtype=np.int64)
        return cls(
            (int(shape[0]), int(shape[1])),
            np.concatenate([empty, *(starts for starts, _ in runs)]),
            np.concatenate([empty, *(ends for _, ends in runs)]),
            np.cumsum([0, *(len(starts) for starts, _ in runs)], dtype=np.int64),
            checked_scores(scores, len(runs)),
            column_major,
        )


def checked_scores(scores: ArrayLike, count: int) -> NDArray[np.float64]:
    """Return the scores as `(count,)` float64.

    Raises:
        FormatError: Another number of scores, or one that is not in [0, 1].
    """
    values = np.asarray(scores, dtype=np.float64)
    if values.shape != (count,):
        msg = f"{count} entities need {count} scores, got shape {values.shape}"
        raise FormatError(msg)
    bad = np.flatnonzero(~((values >= 0) & (values <= 1)))
    if bad.size:
        msg = f"score {values[bad[0]]} of entity {bad[0] + 1} is not in [0, 1]"
        raise FormatError(
            msg,
            hint="a score is a confidence; apply a sigmoid or divide by the largest",
        )
    return values


def _runs_of_mask(mask: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    steps = np.diff(mask.ravel().astype(np.int8), prepend=0, append=0)
    return np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)


def _runs_of_segmentation(
    shape: tuple[int, int], segmentation: object
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    if kernel.is_active() and isinstance(segmentation, Mapping):
        runs = _runs_compiled(shape, segmentation)
        if runs is not None:
            return runs
    if isinstance(segmentation, list):
        counts = decode_counts(polygon_text(shape, segmentation))
    elif isinstance(segmentation, Mapping):
        counts = _rle_counts(shape, segmentation)
    else:
        msg = f"a segmentation is RLE or polygons, not {type(segmentation).__name__}"
        raise FormatError(msg)
    return runs_of_counts(counts, shape[0] * shape[1])


def _runs_compiled(
    shape: tuple[int, int], rle: Mapping[str, Any]
) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Decode compressed text of the right size; None where something is not plain."""
    size, counts = rle.get("size"), rle.get("counts")
    if not (isinstance(counts, str) and counts.isascii() and size == [*shape]):
        return None
    try:
        runs = kernel.mask_runs(counts.encode("ascii"), shape[0] * shape[1]).astype(np.int64)
    except FormatError:  # the twin says it in full
        return None
    return np.ascontiguousarray(runs[:, 0]), np.ascontiguousarray(runs[:, 1])


def _rle_counts(shape: tuple[int, int], rle: Mapping[str, Any]) -> NDArray[np.int64]:
    size = rle.get("size")
    if not isinstance(size, list | tuple) or tuple(size) != tuple(shape):
        msg = f"RLE size {size} is not the image's [{shape[0]}, {shape[1]}] (height, width)"
        raise FormatError(msg)
    counts = rle.get("counts")
    if isinstance(counts, str | bytes):
        return decode_counts(counts)
    if isinstance(counts, list) and all(type(c) is int and abs(c) <= MAX_PIXELS for c in counts):
        return np.asarray(counts, dtype=np.int64)
    msg = "RLE `counts` is neither text nor a list of integers that fit an image"
    raise FormatError(msg)


def polygon_text(shape: tuple[int, int], polygons: Sequence[Any]) -> bytes:
    """Return the RLE text of what polygons cover together, as pycocotools draws them.

    Args:
        shape: Height and width of the image.
        polygons: Lists x1, y1, x2, y2, … in pixels.

    Raises:
        FormatError: There is no polygon, or one has no three points, or wild coordinates.
    """
    for polygon in polygons:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            msg = "a polygon is a list x1, y1, x2, y2, … of three points or more"
            raise FormatError(msg)
        if not all(isinstance(c, int | float) and abs(c) <= _FARTHEST for c in polygon):
            msg = f"a polygon holds a coordinate that is not a number within ±{_FARTHEST:,}"
            raise FormatError(msg)
    if not polygons:
        msg = "a segmentation without polygons"
        raise FormatError(msg)
    merged: dict[str, Any] = coco_mask.merge(coco_mask.frPyObjects(polygons, *shape))
    text: bytes = merged["counts"]
    return text


@dataclass(frozen=True, slots=True)
class Overlap:
    """Which candidates share pixels.

    Attributes:
        pairs: Indices (a, b) with a < b, ascending.
        pixels: How many pixels each pair shares.
    """

    pairs: list[tuple[int, int]]
    pixels: list[int]

    def __bool__(self) -> bool:
        return bool(self.pairs)

    def places(self, image: str) -> list[str]:
        """Name each pair for an error message; entities count from 1."""
        prefix = f"{image}: " if image else ""
        return [
            f"{prefix}entities {a + 1} and {b + 1} share {shared} pixel{'s' * (shared != 1)}"
            for (a, b), shared in zip(self.pairs, self.pixels, strict=True)
        ]


def find_overlap(candidates: Candidates) -> Overlap:
    """Find every pair of candidates that shares pixels, exactly.

    Runs are sorted by their start. Where none begins before its predecessor's end, nothing
    overlaps; else each run is paired with just those that begin inside it. Time is linear in
    the runs (but for the sort) plus the shared stretches; no mask is ever drawn.
    """
    order = np.argsort(candidates.starts, kind="stable")
    starts, ends = candidates.starts[order], candidates.ends[order]
    if not np.any(starts[1:] < ends[:-1]):
        return Overlap([], [])
    owners, count = candidates.owners[order], len(candidates)
    shared: dict[int, int] = {}
    for left, right in _touching(starts, ends):
        pixels = np.minimum(ends[left], ends[right]) - starts[right]
        low, high = np.sort(np.stack([owners[left], owners[right]]), axis=0)
        keys, inverse = np.unique(low * count + high, return_inverse=True)
        sums = np.bincount(inverse, weights=pixels).astype(np.int64)
        for key, total in zip(keys.tolist(), sums.tolist(), strict=True):
            shared[key] = shared.get(key, 0) + total
    keys_in_order = sorted(shared)
    return Overlap([divmod(k, count) for k in keys_in_order], [shared[k] for k in keys_in_order])


def _touching(
    starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield index pairs of runs (in order of start) where the second begins inside the first."""
    index = np.arange(starts.size)
    followers = np.searchsorted(starts, ends, side="left") - index - 1
    total = np.cumsum(followers)
    begin = 0
    while begin < starts.size:
        done = total[begin - 1] if begin else 0
        stop = max(begin + 1, int(np.searchsorted(total, done + _PAIRS_AT_ONCE, side="right")))
        part = followers[begin:stop]
        left = np.repeat(index[begin:stop], part)
        nth = np.arange(left.size) - np.repeat(np.cumsum(part) - part, part)
        yield left, left + 1 + nth
        begin = stop


@dataclass(frozen=True, slots=True)
class Resolution:
    """An entity map made from candidates, and what it took.

    Attributes:
        map: Entities `1…N` in the candidates' order; no crowds.
        scores: `(N,)` float64.
        kept: `(N,)` int64 candidate of each entity, ascending.
        overlap: What overlapped before.
        num_emptied: Candidates that lost all their pixels to others and were dropped.
    """

    map: EntityMap
    scores: NDArray[np.float64]
    kept: NDArray[np.int64]
    overlap: Overlap
    num_emptied: int


def resolve(
    candidates: Candidates, policy: OverlapPolicy = OverlapPolicy.REJECT, image: str = ""
) -> Resolution:
    """Turn candidates into an entity map.

    A mask that was empty from the start is legal and stays (COCO counts it as a false
    positive); one that loses all its pixels to others is dropped and counted.

    Args:
        candidates: The masks.
        policy: `REJECT` refuses shared pixels. `RESOLVE` gives each pixel to the highest
            score that claims it, ties to the earlier candidate (the painter's algorithm of
            the paper's released code).
        image: The image's name, for the message.

    Raises:
        OverlapError: Pixels are shared and the policy is `REJECT`; names every pair.
    """
    overlap = find_overlap(candidates)
    if overlap and policy is OverlapPolicy.REJECT:
        msg = "predictions overlap"
        raise OverlapError(
            msg,
            where=overlap.places(image),
            hint="AP_e allows no overlap; `--overlap resolve` gives shared pixels to the "
            "higher score and records it in the signature",
        )
    dense = _paint(candidates)
    painted = np.bincount(dense.ravel(), minlength=len(candidates) + 1)[1:]
    kept = np.flatnonzero((painted > 0) | (candidates.areas == 0))
    entity_map = EntityMap.from_array(dense, entities=(kept + 1).tolist())
    return Resolution(
        entity_map, candidates.scores[kept], kept, overlap, len(candidates) - kept.size
    )


def _paint(candidates: Candidates) -> NDArray[np.int32]:
    """Draw all masks into one array of candidate index + 1, the best score last."""
    height, width = candidates.shape
    best_first = np.argsort(-candidates.scores, kind="stable")
    flat = _draw(candidates, best_first, height * width)
    if candidates.column_major:
        return np.ascontiguousarray(flat.reshape(width, height).T)
    return flat.reshape(height, width)


def _draw(
    candidates: Candidates, best_first: NDArray[np.int64], num_pixels: int
) -> NDArray[np.int32]:
    if kernel.is_active():
        runs = candidates.starts, candidates.ends, candidates.offsets
        return kernel.draw_masks(*runs, best_first, num_pixels)
    flat = np.zeros(num_pixels, dtype=np.int32)
    for k in best_first[::-1]:
        own = slice(candidates.offsets[k], candidates.offsets[k + 1])
        flat[_pixels(candidates.starts[own], candidates.ends[own])] = k + 1
    return flat


def _pixels(starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.int64]:
    lengths = ends - starts
    first = np.repeat(starts - (np.cumsum(lengths) - lengths), lengths)
    pixels: NDArray[np.int64] = first + np.arange(first.size)
    return pixels
