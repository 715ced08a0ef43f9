"""COCO's run-length text, as run counts.

COCO writes a mask as the lengths of alternating runs of 0 and 1 in *column-major* order,
beginning with 0.  The compressed text holds each length, from the third on as the
difference to the length two before, in little-endian groups of five bits: one printable
character a group, `48 + bits`, bit 6 meaning "more follows", the last group's top bit
being the sign.  (The format is that of the COCO API; this is an implementation of its own.)
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from entitybench.errors import FormatError

_MAX_GROUPS = 7  # 35 bits: more than an image can hold


def decode_counts(text: bytes | str) -> NDArray[np.int64]:
    """Turn compressed text into run counts.

    Raises:
        FormatError: A character outside `0…o`, an unfinished or too long last number, or a
            negative count.

    >>> decode_counts("52203")
    array([5, 2, 2, 2, 5])
    """
    raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    groups = np.frombuffer(raw, dtype=np.uint8).astype(np.int64) - 48
    if groups.size == 0:
        return groups
    if groups.min() < 0 or groups.max() > 63:
        msg = "RLE text holds a character that is not RLE"
        raise FormatError(msg)
    last = np.flatnonzero(groups < 32)
    first = np.concatenate(([0], last[:-1] + 1))
    if last.size == 0 or last[-1] != groups.size - 1:
        msg = "RLE text ends inside a number"
        raise FormatError(msg)
    width = last - first + 1
    if width.max() > _MAX_GROUPS:
        msg = "RLE text holds a number of more than 35 bits"
        raise FormatError(msg)
    place = np.arange(groups.size) - np.repeat(first, width)
    values = np.add.reduceat((groups & 31) << (5 * place), first)
    values -= np.where(groups[last] & 16, np.int64(1) << (5 * width), 0)
    return _undo_differences(values)


def _undo_differences(values: NDArray[np.int64]) -> NDArray[np.int64]:
    counts = values.copy()
    counts[1::2] = np.cumsum(values[1::2])
    counts[2::2] = np.cumsum(values[2::2])
    if counts.min() < 0:
        msg = "RLE text holds a negative count"
        raise FormatError(msg)
    return counts


def encode_counts(counts: Sequence[int] | NDArray[np.int64]) -> str:
    """Turn run counts into compressed text: the inverse of `decode_counts`.

    >>> encode_counts([5, 2, 2, 2, 5])
    '52203'
    """
    values = np.asarray(counts, dtype=np.int64)
    return encode_many(values, np.array([0, values.size]))[0]


def encode_many(counts: NDArray[np.int64], offsets: NDArray[np.int64]) -> list[str]:
    """Turn the run counts of many masks into their texts in one pass.

    Args:
        counts: `(M,)` int64 counts in `0…2^34 - 1`, mask by mask.
        offsets: `(K + 1,)` int64; mask k owns the counts `offsets[k]:offsets[k + 1]`.

    Returns:
        K texts.
    """
    sizes = np.diff(offsets)
    place = np.arange(counts.size) - np.repeat(offsets[:-1], sizes)
    later = np.flatnonzero(place >= 3)
    stored = counts.copy()
    stored[later] -= counts[later - 2]
    width = np.ones(counts.size, dtype=np.int64)
    for groups in range(1, _MAX_GROUPS):
        limit = np.int64(1) << (5 * groups - 1)
        width += (stored >= limit) | (stored < -limit)
    ends = np.concatenate(([0], np.cumsum(width)))
    group = np.arange(ends[-1]) - np.repeat(ends[:-1], width)
    bits = (np.repeat(stored, width) >> (5 * group)) & 31
    more = np.where(group < np.repeat(width, width) - 1, 32, 0)
    text = (bits + more + 48).astype(np.uint8).tobytes().decode("ascii")
    cuts = ends[offsets].tolist()
    return [text[begin:end] for begin, end in itertools.pairwise(cuts)]


def runs_of_counts(
    counts: NDArray[np.int64], num_pixels: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Turn run counts into starts and ends of the runs of 1 that have a pixel.

    Returns:
        Two `(R,)` int64 arrays, ascending and disjoint; an end is exclusive.

    Raises:
        FormatError: A count is negative, or the counts do not sum to `num_pixels`.
    """
    if counts.size and counts.min() < 0:
        msg = "RLE counts hold a negative number"
        raise FormatError(msg)
    # no count may pass the image's size, else a sum could wrap around to the right one
    if counts.size and counts.max() > num_pixels:
        msg = f"RLE counts hold {counts.max()}, the image has {num_pixels} pixels"
        raise FormatError(msg)
    total = int(counts.sum())
    if total != num_pixels:
        msg = f"RLE counts sum to {total}, the image has {num_pixels} pixels"
        raise FormatError(msg)
    bounds = np.cumsum(counts)
    ends = bounds[1::2]
    starts = bounds[0::2][: ends.size]
    real = ends > starts
    return starts[real], ends[real]


def counts_of_runs(
    starts: NDArray[np.int64], ends: NDArray[np.int64], num_pixels: int
) -> NDArray[np.int64]:
    """Turn disjoint ascending runs of 1 into run counts: the inverse of `runs_of_counts`.

    Runs that touch are joined, as COCO's own encoder does.
    """
    if starts.size == 0:
        return np.array([num_pixels], dtype=np.int64)
    gap = np.flatnonzero(starts[1:] > ends[:-1])
    bounds = np.empty(2 * gap.size + 2, dtype=np.int64)
    bounds[0::2] = starts[np.concatenate(([0], gap + 1))]
    bounds[1::2] = ends[np.concatenate((gap, [ends.size - 1]))]
    counts = np.diff(bounds, prepend=0, append=num_pixels)
    return counts[:-1] if counts[-1] == 0 else counts
