"""Plain PNG files read by the kernel: inflate, undo the row filters, nothing else.

Entity maps are 8-bit palette or 16-bit gray, label pictures of the sources also 8-bit gray or
RGB, none of them interlaced. Pillow reads them too, but spends more on everything around the
pixels than on these. Whatever is not plain, or wrong, is left to
Pillow, which knows the rest of PNG and says what is wrong.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Collection
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from entitybench import kernel
from entitybench.errors import FormatError


def _inflater() -> ModuleType:
    """The `fast` extra where it is installed: the same streams, two to three times faster."""
    try:
        from isal import isal_zlib
    except ImportError:
        return zlib
    module: ModuleType = isal_zlib
    return module


_INFLATER = _inflater()
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# bit depth and colour type of what Pillow calls its modes
_MODES = {(8, 3): "P", (8, 0): "L", (16, 0): "I;16", (8, 2): "RGB"}
_SIZES = {"P": 1, "L": 1, "I;16": 2, "RGB": 3}
_KNOWN = {b"PLTE", b"tRNS", b"pHYs", b"gAMA", b"tEXt", b"tIME", b"sRGB"}


def read_plain(png: bytes, shape: tuple[int, int]) -> NDArray[np.uint8] | NDArray[np.uint16] | None:
    """Read an 8-bit palette or 16-bit gray image.

    Args:
        png: The file's bytes.
        shape: The height and width it must have; nothing larger is ever unpacked.

    Returns:
        `(H, W)` ids, or None: not plain, of another size, or damaged.
    """
    return read_values(png, shape, ("P", "I;16"))


def read_values(
    png: bytes, shape: tuple[int, int] | None, modes: Collection[str]
) -> NDArray[Any] | None:
    """Read a plain image of one of some kinds.

    Args:
        png: The file's bytes.
        shape: The height and width it must have, if known; nothing larger is ever unpacked.
        modes: The Pillow modes that will do, of `P`, `L`, `I;16` and `RGB`.

    Returns:
        `(H, W)` uint8, uint16 of `I;16`, uint32 R + 256 G + 65536 B of `RGB`; or None: not
        plain, of another size or mode, or damaged.
    """
    chunks = _chunks(png)
    if chunks is None:
        return None
    header, data = chunks
    width, height, depth, colour, *rest = struct.unpack(">IIBBBBB", header)
    mode = _MODES.get((depth, colour), "")
    if any(rest) or mode not in modes or not _admitted((height, width), shape):
        return None
    size = _SIZES[mode]
    raw = _inflate(data, height * (width * size + 1))
    if raw is None:
        return None
    try:
        rows = kernel.unfilter(raw, height, width * size, size)
    except FormatError:
        return None
    return _values(rows, mode)


def _admitted(found: tuple[int, int], wanted: tuple[int, int] | None) -> bool:
    """Tell whether a size is the wanted one; where none is, whether Pillow would take it."""
    if wanted is not None:
        return found == wanted
    most = Image.MAX_IMAGE_PIXELS
    return found[0] * found[1] > 0 and (most is None or found[0] * found[1] <= most)


def _values(rows: NDArray[np.uint8], mode: str) -> NDArray[Any]:
    if mode == "I;16":
        return rows.view(">u2").astype(np.uint16)
    if mode != "RGB":
        return rows
    channels = rows.reshape(rows.shape[0], -1, 3)
    values = channels[..., 2].astype(np.uint32)
    for channel in (1, 0):
        values <<= np.uint32(8)
        values |= channels[..., channel]
    return values


def _chunks(png: bytes) -> tuple[bytes, bytes] | None:
    """Return the header and the joined image data, all checksums right; else None."""
    view = memoryview(png)
    if png[:8] != _SIGNATURE:
        return None
    at, header, data = 8, b"", []
    while at + 12 <= len(png):
        length, kind = struct.unpack_from(">I4s", png, at)
        end = at + 8 + length
        if end + 4 > len(png) or zlib.crc32(view[at + 4 : end]) != _word(png, end):
            return None
        if kind == b"IHDR" and length == 13 and not header:
            header = png[at + 8 : end]
        elif kind == b"IDAT":
            data.append(view[at + 8 : end])
        elif kind == b"IEND":
            return (header, b"".join(data)) if header and data else None
        elif kind not in _KNOWN:
            return None
        at = end + 4
    return None


def _word(png: bytes, at: int) -> int:
    return int.from_bytes(png[at : at + 4], "big")


def _inflate(data: bytes, size: int) -> bytes | None:
    """Unpack exactly `size` bytes; None where there are fewer, more, or the stream is broken."""
    stream = _INFLATER.decompressobj()
    try:
        raw: bytes = stream.decompress(data, size + 1)
    except _INFLATER.error:
        return None
    return raw if len(raw) == size and stream.eof else None
