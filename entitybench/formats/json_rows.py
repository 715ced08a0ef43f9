"""Rows of COCO's large JSON lists, scanned straight into columns by the compiled kernel.

Only for the kernel: without it the same files are read by `msgspec`. What the scan finds odd it
refuses; callers then turn to the careful reader, which knows the words.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from entitybench import kernel
from entitybench.candidates import polygon_text
from entitybench.compiled_truth import Masks
from entitybench.errors import FormatError, MissingDataError
from entitybench.mapped_memory import View, release

ROW = np.dtype(
    [
        ("image", np.int64),
        ("score", np.float64),
        ("area", np.float64),
        ("id", np.int64),
        ("text", np.int64),
        ("text_size", np.uint32),
        ("height", np.uint32),
        ("width", np.uint32),
        ("image_size", np.uint32),
        ("present", np.uint32),
        ("kind", np.uint8),
        ("is_crowd", np.uint8),
        ("unused", np.uint16),
    ]
)
"""One row as the kernel writes it; `image` is a number, or the offset of a string."""

HAS_IMAGE, HAS_SCORE, HAS_SEGMENTATION, HAS_SIZE, HAS_AREA, HAS_CROWD, HAS_ID = (
    1 << bit for bit in range(7)
)
IMAGE_IS_TEXT, IMAGE_ESCAPED, SCORE_INEXACT, AREA_INEXACT = (1 << bit for bit in range(7, 11))

_ROWS_AT_ONCE = 1 << 14
_NUMBER_BYTES = b"+-.0123456789eE"
_SPACES = (b" ", b"\t", b"\n", b"\r")


class NotPlainError(FormatError):
    """The file may be right, but is not as plain as the scan wants it: read it with care."""


@dataclass(frozen=True, slots=True)
class MappedText:
    """A file in memory that the system may drop again.

    Attributes:
        path: The file, for messages.
        view: Its bytes.
    """

    path: str
    view: View

    @classmethod
    def of(cls, path: Path) -> MappedText:
        """Map a file.

        Raises:
            MissingDataError: There is no such file.
            FormatError: It is empty.
        """
        try:
            with path.open("rb") as file:
                return cls(str(path), mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except FileNotFoundError as error:
            msg = f"no file `{path}`"
            raise MissingDataError(msg) from error
        except ValueError as error:
            msg = "the file is empty"
            raise FormatError(msg, where=str(path)) from error

    def __len__(self) -> int:
        return len(self.view)

    def refuse(self, status: int, position: int) -> FormatError:
        """Return the error for what the kernel found at a byte."""
        return FormatError(
            f"not JSON: {kernel.refusal(status).what} (byte {position:,})", where=self.path
        )


Rows = NDArray[np.void]
Reader = Callable[[int], int]
"""Reads a value from its first byte on and returns the position behind it."""


def scan_list(text: MappedText, position: int, take: Callable[[Rows], None]) -> int:
    """Scan a list of objects piece by piece.

    Args:
        text: The file.
        position: Of the `[`.
        take: Called with arrays of `ROW`; each is written over by the next.

    Returns:
        The position behind the `]`.

    Raises:
        FormatError: Not JSON, with the byte; or a known key has a value of the wrong type.
    """
    rows = np.empty(_ROWS_AT_ONCE, dtype=ROW)
    position, done = _expect(text, position, b"["), False
    while not done:
        began = position
        count, position, done, status = kernel.scan_rows(text.view, position, rows)
        if status:
            raise text.refuse(status, position)
        found = rows[:count]
        _settle(text.view, found, "score", SCORE_INEXACT)
        _settle(text.view, found, "area", AREA_INEXACT)
        take(found)
        release(text.view, began, position)
    return position


def _settle(text: View, rows: NDArray[np.void], name: str, inexact: int) -> None:
    """Convert the few numbers that the kernel leaves to Python."""
    for index in np.flatnonzero(rows["present"] & inexact):
        start = int(rows[name][index])
        piece = text[start : start + 4096]
        digits = piece[: len(piece) - len(piece.lstrip(_NUMBER_BYTES))]
        rows[name][index] = float(digits)


def lacks(rows: Rows, needed: int) -> NDArray[np.bool_]:
    """Tell which rows lack a member of `needed`; polygons need no size."""
    missing = needed & ~rows["present"]
    missing[rows["kind"] == kernel.SEGMENT_POLYGONS] &= ~np.uint32(HAS_SIZE)
    found: NDArray[np.bool_] = missing != 0
    return found


def fit_masks(masks: Masks, stated: NDArray[np.uint32], shapes: NDArray[np.uint32]) -> Masks:
    """Check the sizes of RLE, and put RLE in the place of polygons.

    Args:
        masks: K masks.
        stated: `(K, 2)` height and width that each states; polygons state none.
        shapes: `(K, 2)` height and width of each mask's image.

    Raises:
        NotPlainError: RLE has another size than its image, or polygons are none.
    """
    if np.any((stated != shapes)[masks.kinds != kernel.SEGMENT_POLYGONS]):
        msg = "a mask has another size than its image"
        raise NotPlainError(msg)
    return _traced(masks, shapes)


def _traced(masks: Masks, shapes: NDArray[np.uint32]) -> Masks:
    offsets, lengths, kinds = masks.offsets.copy(), masks.lengths.copy(), masks.kinds.copy()
    extra = bytearray(masks.extra)
    for mask in np.flatnonzero(kinds == kernel.SEGMENT_POLYGONS).tolist():
        text = masks.text[offsets[mask] : offsets[mask] + lengths[mask]]
        height, width = shapes[mask].tolist()
        try:
            traced = polygon_text((height, width), msgspec.json.decode(text, type=list))
        except (FormatError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise NotPlainError(str(error)) from error
        offsets[mask], lengths[mask] = -1 - len(extra), len(traced)
        kinds[mask] = kernel.SEGMENT_TEXT
        extra += traced
    return replace(masks, extra=bytes(extra), offsets=offsets, lengths=lengths, kinds=kinds)


def is_list(text: MappedText) -> bool:
    """Tell whether the text begins as a list."""
    start = skip_space(text, 0)
    return text.view[start : start + 1] == b"["


def scan_whole_list(text: MappedText, take: Callable[[Rows], None]) -> None:
    """Scan a file that is a list of objects, as `scan_list` does."""
    _expect_end(text, scan_list(text, 0, take))


def scan_members(text: MappedText, readers: Mapping[str, Reader]) -> None:
    """Walk the members of the object that the text is.

    Args:
        text: The file.
        readers: By key, what reads the value; other values are checked and skipped.

    Raises:
        FormatError: Not JSON, or no object.
    """
    position = skip_space(text, _expect(text, 0, b"{"))
    if text.view[position : position + 1] == b"}":
        _expect_end(text, position + 1)
        return
    while True:
        key, value = _key(text, skip_space(text, position))
        end = readers[key](value) if key in readers else skip_value(text, value)
        position = skip_space(text, end)
        if text.view[position : position + 1] != b",":
            _expect_end(text, _expect(text, position, b"}"))
            return
        position += 1


def _key(text: MappedText, position: int) -> tuple[str, int]:
    """Return a key and the position of its value."""
    end = skip_value(text, position)
    try:
        key = msgspec.json.decode(text.view[position:end], type=str)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise text.refuse(10, position) from error
    return key, skip_space(text, _expect(text, end, b":"))


def skip_value(text: MappedText, position: int) -> int:
    """Return the position behind a value, whatever it is.

    Raises:
        FormatError: It is not JSON.
    """
    end, status = kernel.skip_value(text.view, position)
    if status:
        raise text.refuse(status, end)
    return end


def _expect(text: MappedText, position: int, wanted: bytes) -> int:
    position = skip_space(text, position)
    if text.view[position : position + 1] != wanted:
        raise text.refuse(10, position)
    return position + 1


def _expect_end(text: MappedText, position: int) -> None:
    position = skip_space(text, position)
    if position != len(text):
        raise text.refuse(10, position)


def skip_space(text: MappedText, position: int) -> int:
    """Return the position of the next character that is no space."""
    while text.view[position : position + 1] in _SPACES:
        position += 1
    return position
