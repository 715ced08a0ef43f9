"""From the numbers on a canvas to a photograph: colours, textures, light, camera."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from entitybench.converters.worlds.canvas import OVERSAMPLING, SHADOW, Canvas, Floats
from entitybench.converters.worlds.dice import Dice
from entitybench.converters.worlds.materials import Weather
from entitybench.converters.worlds.textures import TEXTURES

_LEVELS = 16383  # of a colour in its 16-bit lane: the sum of four pixels still fits
_RED, _GREEN, _BLUE, _DARK = (np.uint64(16 * lane) for lane in range(4))
_LANE = np.uint64(0xFFFF)


def render(canvas: Canvas, weather: Weather, dice: Dice) -> NDArray[np.uint8]:
    """Return `(H, W, 3)` uint8: the photograph of a canvas.

    Args:
        canvas: What was painted.
        weather: The light and the camera.
        dice: Where the sensor noise comes from.
    """
    colour, shadow = _flat_colours(canvas)
    seen = canvas.numbers[::OVERSAMPLING, ::OVERSAMPLING] & ~SHADOW
    shapes = np.array(canvas.strokes.shapes, dtype=np.float32).take(seen, axis=0)
    u, v = _places(canvas, shapes)
    colour *= _light(shapes, u, v)[..., None]
    tint = np.array(canvas.strokes.colours, dtype=np.float32)[:, 3:].take(seen, axis=0)
    colour += tint * _textures(canvas, seen, v)[..., None]
    colour *= 1 - np.float32(weather.shadow) * _blurred(shadow[..., None], 1.0)
    return _developed(colour, weather, canvas, dice)


def _flat_colours(canvas: Canvas) -> tuple[Floats, Floats]:
    """Return `(H, W, 3)` colours and `(H, W)` shadows in [0, 1], each a mean of four pixels.

    The three colours and the shadow of a pixel travel as four lanes of one integer, so that
    one look-up and one addition do for all.
    """
    numbers = canvas.numbers
    table = np.array(canvas.strokes.colours)[:, :3] * _LEVELS + 0.5
    lanes = np.clip(table, 0, _LEVELS).astype(np.uint64)
    packed = lanes[:, 0] | lanes[:, 1] << _GREEN | lanes[:, 2] << _BLUE
    pixels = packed.take(numbers & ~SHADOW)
    pixels += (numbers >> np.uint16(15)).astype(np.uint64) << _DARK
    sums = pixels[::2, ::2] + pixels[::2, 1::2] + pixels[1::2, ::2] + pixels[1::2, 1::2]
    colour = np.empty((*sums.shape, 3), dtype=np.float32)
    for channel, lane in enumerate((_RED, _GREEN, _BLUE)):
        colour[..., channel] = sums >> lane & _LANE
    colour *= np.float32(1 / (4 * _LEVELS))
    return colour, (sums >> _DARK).astype(np.float32) * np.float32(0.25)


def _places(canvas: Canvas, shapes: Floats) -> tuple[Floats, Floats]:
    """Return where each pixel lies in its stroke's box: -1…1 rightwards and downwards."""
    rows, cols = shapes.shape[:2]
    k, half = np.float32(OVERSAMPLING), np.float32(0.5)
    x = np.arange(cols, dtype=np.float32)[None, :] * k + half
    y = np.arange(rows, dtype=np.float32)[:, None] * k + half
    u: Floats = (x - shapes[..., 0]) * shapes[..., 2]
    v: Floats = (y - shapes[..., 1]) * shapes[..., 3]
    return u, v


def _light(shapes: Floats, u: Floats, v: Floats) -> Floats:
    """Return the light that each stroke's own shape gives, 1 in its middle."""
    # the sun stands at the upper left, so a ball is brightest off its middle
    a, b = u + np.float32(0.3), v + np.float32(0.4)
    light = (
        1
        + shapes[..., 4] * u
        + shapes[..., 5] * v
        - shapes[..., 6] * (a * a + b * b - np.float32(0.35))
    )
    return light.astype(np.float32, copy=False)


def _textures(canvas: Canvas, seen: NDArray[np.uint16], v: Floats) -> Floats:
    """Return the value of each pixel's texture, in [-1, 1]."""
    surfaces = np.array(canvas.strokes.surfaces, dtype=np.int64)
    kind, top, left, recedes = (surfaces[:, column].take(seen) for column in range(4))
    side = canvas.bank.shape[1]
    step = (side // 2) / canvas.unit  # a tile spans two scene units
    rows, cols = seen.shape
    y = (np.arange(rows) * step).astype(np.int64)[:, None]
    x = (np.arange(cols) * step).astype(np.int64)[None, :]
    if recedes.any():
        far_y, far_x = _ground_plane(canvas, rows, cols, step)
        y, x = np.where(recedes, far_y, y), np.where(recedes, far_x, x)
    values = canvas.bank[kind, (y + top) % side, (x + left) % side] * np.float32(1 / 127)
    fades: Floats = np.where(kind == TEXTURES["fade"], v, values)
    return fades


def _ground_plane(
    canvas: Canvas, rows: int, cols: int, step: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return texture coordinates of a plane that ends at the horizon."""
    x0, y0 = canvas.horizon[0] * canvas.unit, canvas.horizon[1] * canvas.unit
    below = np.maximum(np.arange(rows)[:, None] + 0.5 - y0, 1.5) / (rows - y0)
    y = (0.35 * canvas.unit * step / below).astype(np.int64)
    x = (np.arange(cols)[None, :] + 0.5 - x0) * (0.6 * step) / below
    return y, np.floor(x).astype(np.int64)


def _developed(colour: Floats, weather: Weather, canvas: Canvas, dice: Dice) -> NDArray[np.uint8]:
    """Apply the camera: light over the picture, colour cast, blur, noise."""
    rows, cols = colour.shape[:2]
    half = np.float32(0.5)
    y = np.arange(rows, dtype=np.float32)[:, None] / np.float32(rows) - half
    x = np.arange(cols, dtype=np.float32)[None, :] / np.float32(cols) - half
    corners = np.float32(0.16) * (x * x + y * y)
    ramp = np.float32(weather.ramp[0]) * x + np.float32(weather.ramp[1]) * y
    light = np.float32(weather.brightness) * (1 + ramp - corners)
    warm = np.float32(0.06 * weather.warmth)
    colour *= light[..., None] * np.array([1 + warm, 1, 1 - warm], dtype=np.float32)
    gray = (
        colour[..., 0] * np.float32(0.3)
        + colour[..., 1] * np.float32(0.59)
        + colour[..., 2] * np.float32(0.11)
    )[..., None]
    colour = gray + (colour - gray) * np.float32(weather.saturation)
    if weather.blur:
        colour = _blurred(colour, weather.blur)
    colour = colour * 255 + _sensor_noise(canvas, colour.shape, weather.noise, dice)
    picture: NDArray[np.uint8] = np.clip(colour + half, 0, 255).astype(np.uint8)
    return picture


def _sensor_noise(canvas: Canvas, shape: tuple[int, ...], amplitude: float, dice: Dice) -> Floats:
    """Return noise of an amplitude in levels: a stretch of the roughest texture tile."""
    speckle = canvas.bank[TEXTURES["speckle"]].ravel()
    count = int(np.prod(shape))
    start = dice.whole(0, speckle.size - 1)
    stretch = np.resize(np.roll(speckle, -start), count).reshape(shape)
    return stretch * np.float32(amplitude / 127)


def _blurred(picture: Floats, share: float) -> Floats:
    """Mix each pixel with its neighbours by the weights 1 2 1, down and across."""
    half, quarter = np.float32(0.5), np.float32(0.25)
    soft = picture * half
    soft[1:-1] += (picture[:-2] + picture[2:]) * quarter
    soft[0] += (picture[0] + picture[1]) * quarter
    soft[-1] += (picture[-1] + picture[-2]) * quarter
    wide = soft * half
    wide[:, 1:-1] += (soft[:, :-2] + soft[:, 2:]) * quarter
    wide[:, 0] += (soft[:, 0] + soft[:, 1]) * quarter
    wide[:, -1] += (soft[:, -1] + soft[:, -2]) * quarter
    return picture + (wide - picture) * np.float32(share)
