"""Entity maps as PNG files: the pixel value is the id, and any viewer shows colours.

Up to 255 ids: 8-bit palette.  Beyond: 16-bit gray.  Beyond 65,535: an error.  Pillow writes
palette images with PNG filter *None*, which makes them both smaller and three to four times
faster to read than gray ones.
"""

from __future__ import annotations

import colorsys
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from entitybench import kernel
from entitybench.entity_map import EntityMap, find_runs
from entitybench.errors import FormatError
from entitybench.png import open_png
from entitybench.png_rows import read_plain

MAX_IDS = 65_535
_GOLDEN = 0.6180339887498949  # successive hues are as far apart as they can be


def _colour(index: int) -> tuple[int, int, int]:
    if index == 0:
        return 0, 0, 0
    hue = (index * _GOLDEN) % 1.0
    saturation = (0.55, 0.75, 0.45)[index % 3]
    value = (0.98, 0.86, 0.78, 0.92)[index % 4]
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


PALETTE: bytes = bytes(channel for index in range(256) for channel in _colour(index))
"""256 RGB colours, the same in every file; index 0, void, is black."""


def encode_map(entity_map: EntityMap) -> bytes:
    """Return the map as a PNG file.

    Raises:
        FormatError: The map holds more than 65,535 ids.
    """
    if entity_map.num_ids > MAX_IDS:
        msg = f"{entity_map.num_ids:,} ids do not fit into a 16-bit map (at most {MAX_IDS:,})"
        raise FormatError(msg)
    dense = entity_map.to_array()
    if entity_map.num_ids <= 255:
        image = Image.fromarray(dense.astype(np.uint8))
        image.putpalette(PALETTE)
    else:
        image = Image.fromarray(dense.astype(np.uint16))
    file = io.BytesIO()
    image.save(file, format="PNG", bits=8)
    return file.getvalue()


def decode_ids(png: bytes, shape: tuple[int, int]) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Read the ids from a PNG file.

    Args:
        png: The file's bytes.
        shape: The height and width that the image must have; checked before any pixel is
            decompressed.

    Returns:
        `(H, W)` uint8 or uint16 ids.

    Raises:
        FormatError: Not a PNG, truncated, of another size or of another mode.
    """
    if kernel.is_active():
        plain = read_plain(png, shape)
        if plain is not None:
            return plain
    image = open_png(png, shape, ("P", "I;16"), "8-bit palette or 16-bit gray")
    return np.asarray(image)


def decode_map(png: bytes, shape: tuple[int, int], num_entities: int, num_crowds: int) -> EntityMap:
    """Read a map whose ids already are `0…N+C`.

    Raises:
        FormatError: As in `decode_ids`; or an id beyond N + C.
    """
    ids = decode_ids(png, shape)
    flat = ids.ravel()
    starts = find_runs(flat)
    run_ids = flat[starts].astype(np.int32)
    if run_ids.max() > num_entities + num_crowds:  # the one thing that can be wrong
        return EntityMap.from_runs(shape, starts, run_ids, num_entities, num_crowds)
    return EntityMap(shape, num_entities, num_crowds, starts.astype(np.int32), run_ids)
