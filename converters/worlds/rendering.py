"""From the numbers on a canvas to a photograph: colours, textures, light, camera.

Pictures are kept as three planes here, `(3, H, W)`: one number per pixel then meets whole rows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from entitybench.converters.worlds.canvas import OVERSAMPLING, SHADOW, Canvas, Floats
from entitybench.converters.worlds.dice import Dice
from entitybench.converters.worlds.materials import Weather
from entitybench.converters.worlds.textures import TEXTURES

Indices = NDArray[np.intp]

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
    seen = (canvas.numbers[::OVERSAMPLING, ::OVERSAMPLING] & ~SHADOW).astype(np.intp)
    u, v = _places(canvas, seen)
    colour *= _light(canvas, seen, u, v)
    texture = _textures(canvas, seen, v)
    tints = np.array(canvas.strokes.colours, dtype=np.float32)[:, 3:]
    for plane, tint in zip(colour, tints.T.copy(), strict=True):
        plane += tint.take(seen) * texture
    colour *= 1 - np.float32(weather.shadow) * _blurred(shadow, 1.0)
    return _developed(colour, weather, canvas, dice)


def _flat_colours(canvas: Canvas) -> tuple[Floats, Floats]:
    """Return `(3, H, W)` colours and `(H, W)` shadows in [0, 1], each a mean of four pixels.

    The three colours and the shadow of a pixel travel as four lanes of one integer, so that
    one look-up and one addition do for all.
    """
    table = np.array(canvas.strokes.colours)[:, :3] * _LEVELS + 0.5
    lanes = np.clip(table, 0, _LEVELS).astype(np.uint64)
    packed = lanes[:, 0] | lanes[:, 1] << _GREEN | lanes[:, 2] << _BLUE
    # the second half of the table serves the numbers that carry the flag of a shadow
    both = np.zeros(int(SHADOW) + len(packed), dtype=np.uint64)
    both[: len(packed)] = packed
    both[int(SHADOW) :] = packed | np.uint64(1) << _DARK
    pixels = both.take(canvas.numbers)
    rows = pixels[::2] + pixels[1::2]
    sums = rows[:, ::2] + rows[:, 1::2]
    colour = np.empty((3, *sums.shape), dtype=np.float32)
    for plane, lane in zip(colour, (_RED, _GREEN, _BLUE), strict=True):
        plane[...] = sums >> lane & _LANE
    colour *= np.float32(1 / (4 * _LEVELS))
    return colour, (sums >> _DARK).astype(np.float32) * np.float32(0.25)


def _places(canvas: Canvas, seen: Indices) -> tuple[Floats, Floats]:
    """Return where each pixel lies in its stroke's box: -1…1 rightwards and downwards."""
    cx, cy, rx, ry = np.array(canvas.strokes.shapes, dtype=np.float32)[:, :4].T.copy()
    rows, cols = seen.shape
    k, half = np.float32(OVERSAMPLING), np.float32(0.5)
    u: Floats = np.arange(cols, dtype=np.float32)[None, :] * k + half - cx.take(seen)
    v: Floats = np.arange(rows, dtype=np.float32)[:, None] * k + half - cy.take(seen)
    u *= rx.take(seen)
    v *= ry.take(seen)
    return u, v


def _light(canvas: Canvas, seen: Indices, u: Floats, v: Floats) -> Floats:
    """Return the light that each stroke's own shape gives, 1 in its middle."""
    across, down, bulge = np.array(canvas.strokes.shapes, dtype=np.float32)[:, 4:].T.copy()
    # the sun stands at the upper left, so a ball is brightest off its middle
    a, b = u + np.float32(0.3), v + np.float32(0.4)
    light: Floats = 1 + across.take(seen) * u
    light += down.take(seen) * v
    light -= bulge.take(seen) * (a * a + b * b - np.float32(0.35))
    return light


def _textures(canvas: Canvas, seen: Indices, v: Floats) -> Floats:
    """Return the value of each pixel's texture, in [-1, 1]."""
    kinds, tops, lefts, flats = np.array(canvas.strokes.surfaces, dtype=np.int32).T.copy()
    side = canvas.bank.shape[1]
    step = (side // 2) / canvas.unit  # a tile spans two scene units
    rows, cols = seen.shape
    y = (np.arange(rows) * step).astype(np.int32)[:, None]
    x = (np.arange(cols) * step).astype(np.int32)[None, :]
    if flats.any():
        recedes = flats.take(seen) > 0
        far_y, far_x = _ground_plane(canvas, rows, cols, step)
        y, x = np.where(recedes, far_y, y), np.where(recedes, far_x, x)
    # a side is a power of two, so `&` is the remainder
    index = y + tops.take(seen) & side - 1
    index += kinds.take(seen) * side
    index *= side
    index += x + lefts.take(seen) & side - 1
    values: Floats = canvas.bank.ravel().take(index) * np.float32(1 / 127)
    fades = (kinds == TEXTURES["fade"]).take(seen)
    values[fades] = v[fades]
    return values


def _ground_plane(
    canvas: Canvas, rows: int, cols: int, step: float
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return texture coordinates of a plane that ends at the horizon."""
    x0, y0 = canvas.horizon[0] * canvas.unit, canvas.horizon[1] * canvas.unit
    below = np.maximum(np.arange(rows)[:, None] + 0.5 - y0, 1.5) / (rows - y0)
    y = (0.35 * canvas.unit * step / below).astype(np.int32)
    x = (np.arange(cols)[None, :] + 0.5 - x0) * (0.6 * step / below)
    return y, np.floor(x).astype(np.int32)


def _developed(colour: Floats, weather: Weather, canvas: Canvas, dice: Dice) -> NDArray[np.uint8]:
    """Apply the camera: light over the picture, colour cast, blur, noise."""
    light = np.float32(weather.brightness) * _fall_off(colour.shape[1:], weather)
    warm = 0.06 * weather.warmth
    for plane, cast in zip(colour, (1 + warm, 1.0, 1 - warm), strict=True):
        plane *= light * np.float32(cast)
    gray = colour[0] * np.float32(0.3)
    gray += colour[1] * np.float32(0.59)
    gray += colour[2] * np.float32(0.11)
    colour -= gray
    colour *= np.float32(weather.saturation)
    colour += gray
    if weather.blur:
        colour = np.stack([_blurred(plane, weather.blur) for plane in colour])
    colour *= 255
    colour += _sensor_noise(canvas, colour.shape, weather.noise, dice)
    colour += np.float32(0.5)
    np.clip(colour, 0, 255, out=colour)
    return np.ascontiguousarray(colour.astype(np.uint8).transpose(1, 2, 0))


def _fall_off(shape: tuple[int, ...], weather: Weather) -> Floats:
    """Return the light over the picture: a ramp, and darker corners."""
    rows, cols = shape
    y = np.arange(rows, dtype=np.float32)[:, None] / np.float32(rows) - np.float32(0.5)
    x = np.arange(cols, dtype=np.float32)[None, :] / np.float32(cols) - np.float32(0.5)
    right, down, corner = (np.float32(value) for value in (*weather.ramp, 0.16))
    light: Floats = (1 + down * y - corner * y * y) + (right * x - corner * x * x)
    return light


def _sensor_noise(canvas: Canvas, shape: tuple[int, ...], amplitude: float, dice: Dice) -> Floats:
    """Return noise of an amplitude in levels: a stretch of the roughest texture tile."""
    speckle = canvas.bank[TEXTURES["speckle"]].ravel()
    start = dice.whole(0, speckle.size - 1)
    noise = np.resize(np.roll(speckle, -start), shape).astype(np.float32)
    noise *= np.float32(amplitude / 127)
    return noise


def _blurred(plane: Floats, share: float) -> Floats:
    """Mix each pixel with its neighbours by the weights 1 2 1, down and across."""
    half, quarter = np.float32(0.5), np.float32(0.25)
    soft = plane * half
    soft[1:-1] += (plane[:-2] + plane[2:]) * quarter
    soft[0] += (plane[0] + plane[1]) * quarter
    soft[-1] += (plane[-1] + plane[-2]) * quarter
    wide = soft * half
    wide[:, 1:-1] += (soft[:, :-2] + soft[:, 2:]) * quarter
    wide[:, 0] += (soft[:, 0] + soft[:, 1]) * quarter
    wide[:, -1] += (soft[:, -1] + soft[:, -2]) * quarter
    return plane + (wide - plane) * np.float32(share)
