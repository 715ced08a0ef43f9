"""Opening a PNG that may be anything: checked before it is believed."""

from __future__ import annotations

import io
import struct
from collections.abc import Collection

from PIL import Image, UnidentifiedImageError

from entitybench.errors import FormatError

_UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    IndexError,  # a PNG without image data
    struct.error,
    Image.DecompressionBombError,
)


def open_png(
    png: bytes, shape: tuple[int, int] | None, modes: Collection[str], wanted: str
) -> Image.Image:
    """Return a decoded PNG.

    Args:
        png: The file's content.
        shape: The height and width that it must have, if they are known; checked before any
            pixel is decompressed, so that no file claims more memory than its image.
        modes: The Pillow modes that will do.
        wanted: How a message calls them.

    Raises:
        FormatError: Not a PNG, truncated or damaged (checksums included, which decoding alone
            ignores), of another size or of another mode.
    """
    try:
        with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
            _check(image, shape, modes, wanted)
            image.verify()
        image = Image.open(io.BytesIO(png), formats=["PNG"])
        image.load()
    except UnidentifiedImageError as error:  # its own text holds a memory address
        msg = "not a PNG"
        raise FormatError(msg) from error
    except _UNREADABLE as error:
        msg = f"not a readable PNG ({error})"
        raise FormatError(msg) from error
    return image


def _check(
    image: Image.Image, shape: tuple[int, int] | None, modes: Collection[str], wanted: str
) -> None:
    if shape is not None and image.size != (shape[1], shape[0]):
        msg = f"the PNG is {image.width}×{image.height}, the image is {shape[1]}×{shape[0]}"
        raise FormatError(msg)
    if image.mode not in modes:
        msg = f"the PNG has mode {image.mode}, expected {wanted}"
        raise FormatError(msg)
