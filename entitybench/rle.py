"""COCO's run-length text, as run counts.

COCO writes a mask as the lengths of alternating runs of 0 and 1 in *column-major* order,
beginning with 0.  The compressed text holds each length, from the third on as the
difference to the length two before, in little-endian groups of five bits: one printable
character a group, `48 + bits`, bit 6 meaning "more follows", the last group's top bit
being the sign.  (The format is that of the COCO API; this is an implementation of its own.)
"""

from __future__ import annotations

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
    raw = text.encode("utf-8") if isinstance(text, str) else text
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
    stored = values.copy()
    stored[3:] -= values[1:-2]
    text = bytearray()
    for value in stored.tolist():
        text += _number(value)
    return text.decode("ascii")


def _number(value: int) -> bytes:
    text = bytearray()
    while True:
        group = value & 31
        value >>= 5
        done = value == (-1 if group & 16 else 0)
        text.append(48 + (group if done else group | 32))
        if done:
            return bytes(text)


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
