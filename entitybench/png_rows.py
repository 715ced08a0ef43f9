"""Plain PNG files read by the kernel: checksums, inflate, row filters, nothing else.

Entity maps are 8-bit palette or 16-bit gray, label pictures of the sources also 8-bit gray or
RGB, none of them interlaced. Pillow reads them too, but spends more on everything around the
pixels than on these. Whatever is not plain, or wrong, is left to Pillow, which knows the rest of
PNG and says what is wrong.
"""

from __future__ import annotations

import struct
from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from entitybench import kernel

_HEADER = struct.Struct(">8sI4sIIBB")  # signature, length, name, width, height, depth, colour
# what Pillow calls its modes, by bit depth, colour type and bytes of a pixel
_MODES = {(8, 3, 1): "P", (8, 0, 1): "L", (16, 0, 2): "I;16", (8, 2, 3): "RGB"}


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
    if len(png) < _HEADER.size:
        return None
    *_, width, height, depth, colour = _HEADER.unpack_from(png)
    for kind, mode in _MODES.items():
        if kind[:2] == (depth, colour) and mode in modes and _admitted((height, width), shape):
            rows = kernel.read_png(png, (height, width), kind)
            return None if rows is None else _values(rows, mode)
    return None


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
