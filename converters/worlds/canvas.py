"""The canvas: shapes are painted by number, then lit and textured all at once.

Painting writes the number of a *stroke* (one shape of one material) into an integer
picture of twice the size. Only `render` makes colours, for all pixels together, from a
table with one row per stroke. So a scene of three hundred things costs little more than
one of three, and the entity map is the same picture read through another table.

Lengths are in scene units: 1 is the side of a square scene. Only additions, products,
quotients and comparisons touch a pixel, which are the same on every processor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from entitybench.converters.worlds.dice import Dice
from entitybench.converters.worlds.textures import TEXTURES, texture_bank

RGB = tuple[float, float, float]
Point = tuple[float, float]
Mask = NDArray[np.bool_]
Floats = NDArray[np.float32]

OVERSAMPLING = 2
_SHADOW = np.uint16(0x8000)  # a flag beside the stroke's number; painting over it clears it
_NO_ELEMENT = -1


def rgb(code: str) -> RGB:
    """Read a colour such as `#80c0ff` into three numbers in [0, 1]."""
    red, green, blue = (int(code[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return red, green, blue


def mix(first: RGB, second: RGB, share: float) -> RGB:
    """Blend two colours; share 0 gives the first, 1 the second."""
    a, b, c = (x + (y - x) * share for x, y in zip(first, second, strict=True))
    return a, b, c


@dataclass(frozen=True, slots=True)
class Material:
    """What a surface looks like.

    Attributes:
        colour: Its middle colour.
        texture: A name in `TEXTURES`.
        contrast: How far the texture moves the colour, in [0, 1].
        other: The colour towards which the texture moves; None: lighter and darker.
        across: Change of light from the left to the right edge, in [-1, 1].
        down: Change of light from the top to the bottom edge.
        round: How much the edges darken, as on a ball.
        flat_ground: Whether the texture recedes to the horizon, as on a floor.
    """

    colour: RGB
    texture: str = "flat"
    contrast: float = 0.0
    other: RGB | None = None
    across: float = 0.0
    down: float = 0.0
    round: float = 0.0
    flat_ground: bool = False

    def lit(self, **light: float) -> Material:
        """Return it under other light (`across`, `down`, `round`)."""
        return replace(self, **light)  # type: ignore[arg-type]

    def receding(self) -> Material:
        """Return it with its texture laid on the ground, receding to the horizon."""
        return replace(self, flat_ground=True)

    def tinted(self, colour: RGB, share: float) -> Material:
        """Return it with its colour moved towards another."""
        return replace(self, colour=mix(self.colour, colour, share))


def plain(code: str, **light: float) -> Material:
    """Return a material without texture."""
    return Material(rgb(code), **light)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Patch:
    """Some pixels of the enlarged picture.

    Attributes:
        rows: Rows of its window.
        cols: Columns of its window.
        mask: `(h, w)` which pixels of the window; None for all.
        box: Left, top, right and bottom before clipping, in enlarged pixels.
    """

    rows: slice
    cols: slice
    mask: Mask | None
    box: tuple[float, float, float, float]

    def minus(self, other: Mask) -> Patch:
        """Return the patch without the pixels of a mask of the same window."""
        mine = ~other if self.mask is None else self.mask & ~other
        return replace(self, mask=mine)


@dataclass(frozen=True, slots=True)
class Element:
    """One thing or region of the scene, before anybody decided what counts as an entity.

    Attributes:
        name: A name of the shared world.
        host: Index of the element that owns this one where it is not annotated by itself.
        crowd: Whether it stands for several things at once.
    """

    name: str
    host: int = _NO_ELEMENT
    crowd: bool = False


@dataclass(frozen=True, slots=True)
class Weather:
    """The light and the camera of one scene.

    Attributes:
        warmth: In [-1, 1]: blue to orange.
        saturation: 1 leaves colours as they are.
        brightness: Factor on everything.
        ramp: Change of light over the picture, rightwards and downwards.
        shadow: Depth of the cast shadows, in [0, 1].
        haze: Colour of the far distance.
        noise: Amplitude of the sensor noise, in levels of 255.
        blur: Share of each pixel that comes from its neighbours, in [0, 1].
    """

    warmth: float = 0.0
    saturation: float = 1.0
    brightness: float = 1.0
    ramp: Point = (0.0, 0.0)
    shadow: float = 0.4
    haze: RGB = (0.8, 0.85, 0.9)
    noise: float = 3.0
    blur: float = 0.0


class Canvas:
    """A picture in the making.

    Args:
        height: Pixels of the final picture.
        width: Pixels of the final picture.
        unit: Pixels of one scene unit.
        dice: Where the offsets of the textures come from.
    """

    def __init__(self, height: int, width: int, unit: int, dice: Dice) -> None:
        self.height, self.width = height / unit, width / unit
        self.unit = unit
        self.elements: list[Element] = []
        self.haze: RGB = (0.8, 0.85, 0.9)
        self.horizon: Point = (self.width / 2, self.height / 2)
        self._dice = dice
        self._scale = unit * OVERSAMPLING
        self._strokes = np.zeros((height * OVERSAMPLING, width * OVERSAMPLING), dtype=np.uint16)
        self._ys = np.arange(self._strokes.shape[0], dtype=np.float32)[:, None] + np.float32(0.5)
        self._xs = np.arange(self._strokes.shape[1], dtype=np.float32)[None, :] + np.float32(0.5)
        self._colours: list[tuple[float, ...]] = [(0.0,) * 13]  # stroke 0: nothing painted
        self._surfaces: list[tuple[int, int, int, bool]] = [(0, 0, 0, False)]
        self._owners: list[int] = [_NO_ELEMENT]
        self._factor = max(1, round(unit / 128))
        self._bank = texture_bank(self._factor)

    def element(self, name: str, *, host: int = _NO_ELEMENT, crowd: bool = False) -> int:
        """Announce a thing or region; return its index, which `paint` takes."""
        self.elements.append(Element(name, host, crowd))
        return len(self.elements) - 1

    # shapes: each returns None where nothing of it is inside the picture

    def _window(self, x0: float, y0: float, x1: float, y1: float) -> Patch | None:
        box = (x0 * self._scale, y0 * self._scale, x1 * self._scale, y1 * self._scale)
        rows, cols = self._strokes.shape
        left, right = max(0, int(box[0] + 0.5)), min(cols, int(box[2] + 0.5))
        top, bottom = max(0, int(box[1] + 0.5)), min(rows, int(box[3] + 0.5))
        if right <= left or bottom <= top:
            return None
        return Patch(slice(top, bottom), slice(left, right), None, box)

    def box(self, x0: float, y0: float, x1: float, y1: float) -> Patch | None:
        """Return an upright rectangle."""
        return self._window(x0, y0, x1, y1)

    def ellipse(
        self, x: float, y: float, rx: float, ry: float, *, rough: float = 0.0
    ) -> Patch | None:
        """Return an ellipse; a rough one has the outline of a bush or a stone."""
        reach = 1 + rough * 0.6
        patch = self._window(x - rx * reach, y - ry * reach, x + rx * reach, y + ry * reach)
        if patch is None:
            return None
        dx = (self._xs[:, patch.cols] - x * self._scale) / (rx * self._scale)
        dy = (self._ys[patch.rows] - y * self._scale) / (ry * self._scale)
        distance = dx * dx + dy * dy
        if rough:
            distance += self._noise(patch) * np.float32(rough / 127)
        return replace(patch, mask=distance <= 1)

    def _noise(self, patch: Patch) -> NDArray[np.int8]:
        side = self._bank.shape[1]
        top, left = self._dice.whole(0, side - 1), self._dice.whole(0, side - 1)
        rows = np.arange(top + patch.rows.start, top + patch.rows.stop) % side
        cols = np.arange(left + patch.cols.start, left + patch.cols.stop) % side
        noise: NDArray[np.int8] = self._bank[TEXTURES["leaves"]][rows[:, None], cols]
        return noise

    def rounded(self, x0: float, y0: float, x1: float, y1: float, radius: float) -> Patch | None:
        """Return a rectangle with round corners."""
        patch = self._window(x0, y0, x1, y1)
        if patch is None:
            return None
        k, r = self._scale, radius * self._scale
        cx, cy, hx, hy = (x0 + x1) / 2 * k, (y0 + y1) / 2 * k, (x1 - x0) / 2 * k, (y1 - y0) / 2 * k
        dx = np.maximum(abs(self._xs[:, patch.cols] - np.float32(cx)) - np.float32(hx - r), 0)
        dy = np.maximum(abs(self._ys[patch.rows] - np.float32(cy)) - np.float32(hy - r), 0)
        return replace(patch, mask=dx * dx + dy * dy <= np.float32(r * r))

    def polygon(self, corners: Sequence[Point]) -> Patch | None:
        """Return a convex polygon; either way round."""
        xs, ys = [x for x, _ in corners], [y for _, y in corners]
        patch = self._window(min(xs), min(ys), max(xs), max(ys))
        if patch is None:
            return None
        turn = 1 if _signed_area(corners) > 0 else -1
        mask: Mask | None = None
        for (ax, ay), (bx, by) in zip(corners, [*corners[1:], corners[0]], strict=True):
            side = (self._ys[patch.rows] - ay * self._scale) * np.float32((bx - ax) * turn)
            side = side - (self._xs[:, patch.cols] - ax * self._scale) * np.float32(
                (by - ay) * turn
            )
            mask = side >= 0 if mask is None else mask & (side >= 0)
        return replace(patch, mask=mask)

    def line(self, ax: float, ay: float, bx: float, by: float, wide: float) -> Patch | None:
        """Return a straight bar from one point to another."""
        dx, dy = bx - ax, by - ay
        length = float(np.sqrt(dx * dx + dy * dy)) or 1.0
        nx, ny = -dy / length * wide / 2, dx / length * wide / 2
        corners = [(ax + nx, ay + ny), (bx + nx, by + ny), (bx - nx, by - ny), (ax - nx, ay - ny)]
        return self.polygon(corners)

    def below(
        self,
        top: Sequence[float],
        *,
        left: float = 0.0,
        right: float | None = None,
        rough: float = 0.0,
        bottom: float | None = None,
    ) -> Patch | None:
        """Return everything under a skyline of evenly spaced heights, joined by lines."""
        right = self.width if right is None else right
        bottom = self.height if bottom is None else bottom
        patch = self._window(left, min(top) - rough, right, bottom)
        if patch is None:
            return None
        place = (self._xs[0, patch.cols] / self._scale - left) / (right - left) * (len(top) - 1)
        first = np.clip(place.astype(np.intp), 0, len(top) - 2)
        heights = np.asarray(top, dtype=np.float32)
        edge = heights[first] + (heights[first + 1] - heights[first]) * (place - first)
        mask = self._ys[patch.rows] > edge * np.float32(self._scale) + (
            self._noise(patch) * np.float32(rough * self._scale / 127) if rough else 0
        )
        return replace(patch, mask=mask)

    def pickets(
        self, x0: float, y0: float, x1: float, y1: float, *, pitch: float, share: float
    ) -> Patch | None:
        """Return a fence that one can look through: pickets and two rails."""
        patch = self._window(x0, y0, x1, y1)
        if patch is None:
            return None
        x = (self._xs[:, patch.cols] / self._scale - x0) / pitch
        y = (self._ys[patch.rows] / self._scale - y0) / (y1 - y0)
        rail = (abs(y - 0.25) < 0.07) | (abs(y - 0.72) < 0.07)
        return replace(patch, mask=(x - np.floor(x) < share) | rail)

    # painting

    def paint(
        self, patch: Patch | None, material: Material, element: int, haze: float = 0.0
    ) -> None:
        """Put a material where the patch is, in front of all that is there."""
        if patch is None:
            return
        number = len(self._owners)
        self._owners.append(element)
        self._colours.append(
            _colour_row(material, patch.box, mix(material.colour, self.haze, haze), 1 - haze)
        )
        side = self._bank.shape[1]
        self._surfaces.append(
            (
                TEXTURES[material.texture],
                self._dice.whole(0, side - 1),
                self._dice.whole(0, side - 1),
                material.flat_ground,
            )
        )
        window = self._strokes[patch.rows, patch.cols]
        if patch.mask is None:
            window[...] = number
        else:
            window[patch.mask] = number

    def shade(self, patch: Patch | None) -> None:
        """Cast a shadow on what is there: its pixels darken, its labels stay."""
        if patch is None:
            return
        window = self._strokes[patch.rows, patch.cols]
        if patch.mask is None:
            window |= _SHADOW
        else:
            window[patch.mask] |= _SHADOW

    # results

    def owners(self) -> NDArray[np.int32]:
        """Return `(H, W)` int32: the element in front at each pixel, -1 for none."""
        strokes = self._strokes[::OVERSAMPLING, ::OVERSAMPLING] & ~_SHADOW
        result: NDArray[np.int32] = np.array(self._owners, dtype=np.int32)[strokes]
        return result

    def render(self, weather: Weather) -> NDArray[np.uint8]:
        """Return `(H, W, 3)` uint8: the photograph."""
        strokes = self._strokes & ~_SHADOW
        table = np.array(self._colours, dtype=np.float32)
        colour = _halved(table[:, :3][strokes])
        seen = strokes[::OVERSAMPLING, ::OVERSAMPLING]
        colour *= self._light(table, seen)[..., None]
        colour += table[:, 3:6][seen] * self._texture(seen)[..., None]
        shadow = _blurred(_halved((self._strokes >= _SHADOW).astype(np.float32)[..., None]), 1.0)
        colour *= 1 - np.float32(weather.shadow) * shadow
        return self._developed(colour, weather)

    def _light(self, table: Floats, seen: NDArray[np.uint16]) -> Floats:
        """Return the light that each stroke's own shape gives, 1 in its middle."""
        cx, cy, rx, ry, across, down, bulge = (table[:, i][seen] for i in range(6, 13))
        u = (self._xs[:, ::OVERSAMPLING] - cx) * rx
        v = (self._ys[::OVERSAMPLING] - cy) * ry
        # the light comes from the upper left, so a ball is brightest off its middle
        bright: Floats = 1 + across * u + down * v
        bright -= bulge * (
            (u + np.float32(0.3)) * (u + np.float32(0.3))
            + (v + np.float32(0.4)) * (v + np.float32(0.4))
            - np.float32(0.35)
        )
        return bright

    def _texture(self, seen: NDArray[np.uint16]) -> Floats:
        """Return the texture's value at each pixel, in [-1, 1]."""
        kind, top, left, recedes = (
            np.array(column)[seen] for column in zip(*self._surfaces, strict=True)
        )
        rows, cols = seen.shape
        grain = self._factor * 128 / self.unit
        y = np.broadcast_to(np.arange(rows)[:, None] * grain, seen.shape)
        x = np.broadcast_to(np.arange(cols)[None, :] * grain, seen.shape)
        if recedes.any():
            far_x, far_y = self._receding(rows, cols)
            y, x = np.where(recedes, far_y * grain, y), np.where(recedes, far_x * grain, x)
        side = self._bank.shape[1]
        value = self._bank[
            kind, (y.astype(np.int64) + top) % side, (x.astype(np.int64) + left) % side
        ]
        result: Floats = value * np.float32(1 / 127)
        return result

    def _receding(self, rows: int, cols: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return texture coordinates of a ground plane that ends at the horizon."""
        x0, y0 = self.horizon[0] * self.unit, self.horizon[1] * self.unit
        depth = np.maximum(np.arange(rows)[:, None] + 0.5 - y0, 1.5) / (
            self.height * self.unit - y0
        )
        y = np.broadcast_to(0.35 * self.unit / depth, (rows, cols))
        return y, (np.arange(cols)[None, :] + 0.5 - x0) / depth * 0.6 + 64 * self.unit

    def _developed(self, colour: Floats, weather: Weather) -> NDArray[np.uint8]:
        """Apply the camera: light over the picture, colour cast, blur, noise."""
        rows, cols = colour.shape[:2]
        y = np.arange(rows, dtype=np.float32)[:, None] / rows - np.float32(0.5)
        x = np.arange(cols, dtype=np.float32)[None, :] / cols - np.float32(0.5)
        light = np.float32(weather.brightness) * (
            1
            + np.float32(weather.ramp[0]) * x
            + np.float32(weather.ramp[1]) * y
            - np.float32(0.16) * (x * x + y * y)
        )
        warm = np.float32(0.06 * weather.warmth)
        colour *= light[..., None] * np.array([1 + warm, 1, 1 - warm], dtype=np.float32)
        grey = (
            colour[..., 0] * np.float32(0.3)
            + colour[..., 1] * np.float32(0.59)
            + colour[..., 2] * np.float32(0.11)
        )[..., None]
        colour = grey + (colour - grey) * np.float32(weather.saturation)
        if weather.blur:
            colour = _blurred(colour, weather.blur)
        colour = colour * 255 + self._sensor_noise(colour.shape, weather.noise)
        result: NDArray[np.uint8] = np.clip(colour + np.float32(0.5), 0, 255).astype(np.uint8)
        return result

    def _sensor_noise(self, shape: tuple[int, ...], amplitude: float) -> Floats:
        speckle = self._bank[TEXTURES["asphalt"]].ravel()
        start = self._dice.whole(0, speckle.size - 1)
        # a prime stride walks through the tile without showing its pattern
        index = (start + np.arange(int(np.prod(shape))) * 7919) % speckle.size
        result: Floats = (speckle[index] * np.float32(amplitude / 127)).reshape(shape)
        return result


def _signed_area(corners: Sequence[Point]) -> float:
    after = [*corners[1:], corners[0]]
    return sum(a[0] * b[1] - b[0] * a[1] for a, b in zip(corners, after, strict=True))


def _colour_row(
    material: Material, box: tuple[float, float, float, float], colour: RGB, clear: float
) -> tuple[float, ...]:
    other = material.other
    tint = (
        colour
        if other is None
        else tuple(b - a for a, b in zip(material.colour, other, strict=True))
    )
    reach = material.contrast * clear
    x0, y0, x1, y1 = box
    shape = ((x0 + x1) / 2, (y0 + y1) / 2, 2 / max(x1 - x0, 1e-3), 2 / max(y1 - y0, 1e-3))
    light = (material.across * clear, material.down * clear, material.round * clear)
    return (*colour, *(part * reach for part in tint), *shape, *light)


def _halved(picture: Floats) -> Floats:
    """Return the means of 2×2 pixels."""
    total = picture[::2, ::2] + picture[::2, 1::2]
    total += picture[1::2, ::2]
    total += picture[1::2, 1::2]
    total *= np.float32(0.25)
    return total


def _blurred(picture: Floats, share: float) -> Floats:
    """Mix each pixel with its neighbours by the weights 1 2 1, down and across."""
    soft = np.pad(picture, ((1, 1), (0, 0), (0, 0)), mode="edge")
    soft = (soft[:-2] + soft[2:]) * np.float32(0.25) + picture * np.float32(0.5)
    wide = np.pad(soft, ((0, 0), (1, 1), (0, 0)), mode="edge")
    soft = (wide[:, :-2] + wide[:, 2:]) * np.float32(0.25) + soft * np.float32(0.5)
    return picture + (soft - picture) * np.float32(share)


class Pen:
    """Paints one element in its own frame.

    Args:
        canvas: The picture.
        element: Index of the element.
        x: Where its foot stands, in scene units.
        y: Where its foot stands.
        size: Scene units of one unit of the frame; y points down, the foot is at 0.
        flip: -1 mirrors it.
        haze: How far away it is, in [0, 1].
    """

    __slots__ = ("_canvas", "_element", "_haze", "_size", "_turn", "_x", "_y")

    def __init__(
        self,
        canvas: Canvas,
        element: int,
        x: float,
        y: float,
        size: float,
        *,
        flip: int = 1,
        haze: float = 0.0,
    ) -> None:
        self._canvas, self._element, self._haze = canvas, element, haze
        self._x, self._y, self._size, self._turn = x, y, size, flip

    def of(self, element: int) -> Self:
        """Return a pen in the same frame for another element."""
        return type(self)(
            self._canvas, element, self._x, self._y, self._size, flip=self._turn, haze=self._haze
        )

    def moved(self, x: float, y: float) -> Self:
        """Return a pen of the same element whose foot stands elsewhere in the scene."""
        return type(self)(
            self._canvas, self._element, x, y, self._size, flip=self._turn, haze=self._haze
        )

    def place(self, x: float, y: float) -> Point:
        """Return a point of the frame in scene units."""
        return self._x + x * self._size * self._turn, self._y + y * self._size

    def _box(self, x0: float, y0: float, x1: float, y1: float) -> tuple[float, float, float, float]:
        (ax, ay), (bx, by) = self.place(x0, y0), self.place(x1, y1)
        return min(ax, bx), min(ay, by), max(ax, bx), max(ay, by)

    def _paint(self, patch: Patch | None, material: Material) -> None:
        self._canvas.paint(patch, material, self._element, self._haze)

    def box(self, x0: float, y0: float, x1: float, y1: float, material: Material) -> None:
        """Paint an upright rectangle."""
        self._paint(self._canvas.box(*self._box(x0, y0, x1, y1)), material)

    def rounded(
        self, x0: float, y0: float, x1: float, y1: float, radius: float, material: Material
    ) -> None:
        """Paint a rectangle with round corners."""
        box = self._box(x0, y0, x1, y1)
        self._paint(self._canvas.rounded(*box, radius * self._size), material)

    def ellipse(
        self, x: float, y: float, rx: float, ry: float, material: Material, *, rough: float = 0.0
    ) -> None:
        """Paint an ellipse."""
        at = self.place(x, y)
        patch = self._canvas.ellipse(*at, rx * self._size, ry * self._size, rough=rough)
        self._paint(patch, material)

    def ring(self, x: float, y: float, radius: float, wide: float, material: Material) -> None:
        """Paint a thin circle, such as a wheel."""
        at, k = self.place(x, y), self._canvas.unit * OVERSAMPLING
        patch = self._canvas.ellipse(*at, radius * self._size, radius * self._size)
        if patch is None or patch.mask is None:
            return
        inner = max((radius - wide) * self._size, 0.25 / k)
        rows = np.arange(patch.rows.start, patch.rows.stop, dtype=np.float32)[:, None] + np.float32(
            0.5
        )
        cols = np.arange(patch.cols.start, patch.cols.stop, dtype=np.float32)[None, :] + np.float32(
            0.5
        )
        dx, dy = (cols - at[0] * k) / (inner * k), (rows - at[1] * k) / (inner * k)
        self._paint(patch.minus(dx * dx + dy * dy <= 1), material)

    def polygon(self, corners: Sequence[Point], material: Material) -> None:
        """Paint a convex polygon."""
        self._paint(self._canvas.polygon([self.place(x, y) for x, y in corners]), material)

    def line(
        self, ax: float, ay: float, bx: float, by: float, wide: float, material: Material
    ) -> None:
        """Paint a straight bar."""
        ends = (*self.place(ax, ay), *self.place(bx, by))
        self._paint(self._canvas.line(*ends, wide * self._size), material)

    def shadow(self, x: float, y: float, rx: float, ry: float) -> None:
        """Cast a round shadow on what is there already."""
        self._canvas.shade(
            self._canvas.ellipse(*self.place(x, y), rx * self._size, ry * self._size)
        )
