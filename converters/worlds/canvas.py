"""The canvas: shapes are painted by number; colours come later, for all pixels at once.

Painting writes the number of a *stroke* (one shape of one material) into an integer picture
of twice the size. `rendering` makes the photograph from it, with a table that has one row per
stroke; the entity map is the same picture read through another table. So a scene of three
hundred things costs little more than one of three.

Lengths are in scene units: 1 is the side of a square scene. Only additions, products,
quotients and comparisons decide about a pixel, and those are the same on every processor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from entitybench.converters.worlds.dice import Dice
from entitybench.converters.worlds.materials import RGB, Material, Point, mix
from entitybench.converters.worlds.textures import TEXTURES, texture_bank

Mask = NDArray[np.bool_]
Floats = NDArray[np.float32]
Box = tuple[float, float, float, float]

OVERSAMPLING = 2
SHADOW = np.uint16(0x8000)  # a flag beside the stroke's number; painting over it clears it
NOBODY = -1


@dataclass(frozen=True, slots=True)
class Patch:
    """Some pixels of the enlarged picture.

    Attributes:
        rows: Rows of its window.
        cols: Columns of its window.
        box: Left, top, right and bottom before clipping, in enlarged pixels.
        mask: `(h, w)` which pixels of the window; None for all.
    """

    rows: slice
    cols: slice
    box: Box
    mask: Mask | None = None

    def only(self, mask: Mask) -> Patch:
        """Return the pixels of a mask of the same window."""
        return Patch(self.rows, self.cols, self.box, mask)


@dataclass(frozen=True, slots=True)
class Element:
    """One thing or region of the scene, before anybody decided what counts as an entity.

    Attributes:
        name: A name of the shared world.
        host: Index of the element that owns this one where it is not annotated by itself.
        crowd: Whether it stands for several things at once.
    """

    name: str
    host: int = NOBODY
    crowd: bool = False


@dataclass(slots=True)
class Strokes:
    """The table of strokes; row 0 stands for pixels nobody painted.

    Attributes:
        colours: Colour, and how far a texture of 1 moves it: 6 numbers.
        shapes: Middle x and y, 2 / width, 2 / height in enlarged pixels, then the light
            across, down and round: 7 numbers.
        surfaces: Texture, its offset down and across, and whether it recedes.
        owners: Element.
    """

    colours: list[tuple[float, ...]] = field(default_factory=lambda: [(0.0,) * 6])
    shapes: list[tuple[float, ...]] = field(default_factory=lambda: [(0.0,) * 7])
    surfaces: list[tuple[int, int, int, bool]] = field(default_factory=lambda: [(0, 0, 0, False)])
    owners: list[int] = field(default_factory=lambda: [NOBODY])

    def add(self, material: Material, box: Box, haze: RGB, far: float) -> None:
        """Append the looks of a stroke whose distance takes a share of the haze."""
        colour, near = mix(material.colour, haze, far), 1 - far
        tint, reach = material.colour, material.contrast * near
        if material.other is not None:
            a, b = material.colour, material.other
            tint = (b[0] - a[0], b[1] - a[1], b[2] - a[2])
        self.colours.append((*colour, tint[0] * reach, tint[1] * reach, tint[2] * reach))
        x0, y0, x1, y1 = box
        wide, high = max(x1 - x0, 1e-3), max(y1 - y0, 1e-3)
        light = (material.across * near, material.down * near, material.round * near)
        self.shapes.append(((x0 + x1) / 2, (y0 + y1) / 2, 2 / wide, 2 / high, *light))


class Canvas:
    """A picture in the making.

    Args:
        height: Pixels of the final picture.
        width: Pixels of the final picture.
        unit: Pixels of one scene unit.
        dice: Where the offsets of the textures come from.

    Attributes:
        height: In scene units.
        width: In scene units.
        unit: Pixels of one scene unit.
        numbers: `(2H, 2W)` uint16 stroke of each enlarged pixel, with the flag `SHADOW`.
        strokes: The table of strokes.
        elements: What was announced, in order.
        haze: Colour of the distance.
        horizon: Where receding textures vanish, in scene units.
    """

    def __init__(self, height: int, width: int, unit: int, dice: Dice) -> None:
        self.height, self.width = height / unit, width / unit
        self.unit = unit
        self.numbers = np.zeros((height * OVERSAMPLING, width * OVERSAMPLING), dtype=np.uint16)
        self.strokes = Strokes()
        self.elements: list[Element] = []
        self.haze: RGB = (0.8, 0.85, 0.9)
        self.horizon: Point = (self.width / 2, self.height / 2)
        self.scale = unit * OVERSAMPLING
        self.bank = texture_bank(max(1, round(unit / 128)))
        self._dice = dice
        half = np.float32(0.5)
        self._ys = np.arange(self.numbers.shape[0], dtype=np.float32)[:, None] + half
        self._xs = np.arange(self.numbers.shape[1], dtype=np.float32)[None, :] + half

    def element(self, name: str, *, host: int = NOBODY, crowd: bool = False) -> int:
        """Announce a thing or region; return its index, which `paint` takes."""
        self.elements.append(Element(name, host, crowd))
        return len(self.elements) - 1

    def owners(self) -> NDArray[np.int32]:
        """Return `(H, W)` int32: the element in front at each pixel, -1 for none."""
        table = np.array(self.strokes.owners, dtype=np.int32)
        owners: NDArray[np.int32] = table[self.numbers[::OVERSAMPLING, ::OVERSAMPLING] & ~SHADOW]
        return owners

    def paint(
        self, patch: Patch | None, material: Material, element: int, *, haze: float = 0.0
    ) -> None:
        """Put a material where the patch is, in front of all that is there."""
        if patch is None:
            return
        number = len(self.strokes.owners)
        self.strokes.owners.append(element)
        self.strokes.add(material, patch.box, self.haze, haze)
        self.strokes.surfaces.append(self._surface(material))
        window = self.numbers[patch.rows, patch.cols]
        if patch.mask is None:
            window[...] = number
        else:
            window[patch.mask] = number

    def _surface(self, material: Material) -> tuple[int, int, int, bool]:
        if not material.contrast:
            return 0, 0, 0, False
        offset = self._dice.whole(0, self.bank.shape[1] - 1), self._dice.whole(0, 255)
        return TEXTURES[material.texture], *offset, material.recedes

    def shade(self, patch: Patch | None) -> None:
        """Cast a shadow on what is there: its pixels darken, its labels stay."""
        if patch is None:
            return
        window = self.numbers[patch.rows, patch.cols]
        if patch.mask is None:
            window |= SHADOW
        else:
            window[patch.mask] |= SHADOW

    # Shapes. Each returns None where nothing of it is inside the picture.

    def box(self, x0: float, y0: float, x1: float, y1: float) -> Patch | None:
        """Return an upright rectangle."""
        k = self.scale
        box = (x0 * k, y0 * k, x1 * k, y1 * k)
        rows, cols = self.numbers.shape
        left, right = max(0, int(box[0] + 0.5)), min(cols, int(box[2] + 0.5))
        top, bottom = max(0, int(box[1] + 0.5)), min(rows, int(box[3] + 0.5))
        if right <= left or bottom <= top:
            return None
        return Patch(slice(top, bottom), slice(left, right), box)

    def ellipse(
        self, x: float, y: float, rx: float, ry: float, *, rough: float = 0.0
    ) -> Patch | None:
        """Return an ellipse; a rough one has the outline of a bush or a stone."""
        reach = 1 + rough * 0.6
        patch = self.box(x - rx * reach, y - ry * reach, x + rx * reach, y + ry * reach)
        if patch is None:
            return None
        k = self.scale
        dx = (self._xs[:, patch.cols] - x * k) / (rx * k)
        dy = (self._ys[patch.rows] - y * k) / (ry * k)
        distance = dx * dx + dy * dy
        if rough:
            distance += self._noise(patch) * np.float32(rough / 127)
        return patch.only(distance <= 1)

    def ring(self, x: float, y: float, radius: float, wide: float) -> Patch | None:
        """Return a circle's outline, at least half a final pixel wide."""
        patch = self.ellipse(x, y, radius, radius)
        if patch is None or patch.mask is None:
            return patch
        k = self.scale
        hole = max(0.0, min(radius - wide, radius - 1 / k)) * k
        dx, dy = self._xs[:, patch.cols] - x * k, self._ys[patch.rows] - y * k
        return patch.only(patch.mask & (dx * dx + dy * dy >= np.float32(hole * hole)))

    def rounded(self, x0: float, y0: float, x1: float, y1: float, radius: float) -> Patch | None:
        """Return a rectangle with round corners."""
        patch = self.box(x0, y0, x1, y1)
        if patch is None:
            return None
        k, r = self.scale, radius * self.scale
        cx, cy, hx, hy = (x0 + x1) / 2 * k, (y0 + y1) / 2 * k, (x1 - x0) / 2 * k, (y1 - y0) / 2 * k
        dx = np.maximum(abs(self._xs[:, patch.cols] - cx) - (hx - r), 0)
        dy = np.maximum(abs(self._ys[patch.rows] - cy) - (hy - r), 0)
        return patch.only(dx * dx + dy * dy <= np.float32(r * r))

    def polygon(self, corners: Sequence[Point]) -> Patch | None:
        """Return a convex polygon; either way round."""
        xs, ys = [x for x, _ in corners], [y for _, y in corners]
        patch = self.box(min(xs), min(ys), max(xs), max(ys))
        if patch is None:
            return None
        k = self.scale
        turn = 1.0 if _signed_area(corners) > 0 else -1.0
        x, y = self._xs[:, patch.cols], self._ys[patch.rows]
        left: Floats | None = None
        right: Floats | None = None
        for (ax, ay), (bx, by) in zip(corners, [*corners[1:], corners[0]], strict=True):
            if by == ay:
                continue
            slope = (bx - ax) / (by - ay)
            edge = y * np.float32(slope)
            edge += np.float32((ax - slope * ay) * k)
            if turn * (by - ay) > 0:
                right = edge if right is None else np.minimum(right, edge)
            else:
                left = edge if left is None else np.maximum(left, edge)
        if left is None or right is None:
            return None
        return patch.only((x >= left) & (x <= right))

    def line(self, ax: float, ay: float, bx: float, by: float, wide: float) -> Patch | None:
        """Return a straight bar from one point to another."""
        dx, dy = bx - ax, by - ay
        length = float(np.sqrt(dx * dx + dy * dy)) or 1.0
        # thinner than one enlarged pixel it would have gaps
        half = max(wide / 2, 0.5 / self.scale)
        nx, ny = -dy / length * half, dx / length * half
        corners = [(ax + nx, ay + ny), (bx + nx, by + ny), (bx - nx, by - ny), (ax - nx, ay - ny)]
        return self.polygon(corners)

    def below(
        self, tops: Sequence[float], *, bottom: float | None = None, rough: float = 0.0
    ) -> Patch | None:
        """Return everything under a skyline, from edge to edge of the picture.

        Args:
            tops: Heights at even steps from left to right, joined by lines.
            bottom: Where it ends; None: at the bottom of the picture.
            rough: Amplitude of the noise on the skyline.
        """
        foot = self.height if bottom is None else bottom
        patch = self.box(0, min(tops) - rough, self.width, foot)
        if patch is None:
            return None
        place = self._xs[0] * np.float32((len(tops) - 1) / self.numbers.shape[1])
        first = np.clip(place.astype(np.intp), 0, len(tops) - 2)
        heights = np.asarray(tops, dtype=np.float32) * np.float32(self.scale)
        edge: Floats = heights[first] + (heights[first + 1] - heights[first]) * (place - first)
        if rough:
            edge = edge + self._noise(patch) * np.float32(rough * self.scale / 127)
        return patch.only(self._ys[patch.rows] > edge)

    def pickets(
        self, x0: float, y0: float, x1: float, y1: float, *, pitch: float, share: float
    ) -> Patch | None:
        """Return a fence that one can look through: pickets and two rails.

        Args:
            x0: Left.
            y0: Top.
            x1: Right.
            y1: Bottom.
            pitch: From picket to picket.
            share: Width of a picket, as a share of the pitch.
        """
        patch = self.box(x0, y0, x1, y1)
        if patch is None:
            return None
        x = (self._xs[:, patch.cols] / np.float32(self.scale) - x0) / pitch
        y = (self._ys[patch.rows] / np.float32(self.scale) - y0) / (y1 - y0)
        rail = (abs(y - np.float32(0.25)) < 0.07) | (abs(y - np.float32(0.72)) < 0.07)
        return patch.only((x - np.floor(x) < share) | rail)

    def windows(self, wall: Sequence[Point], columns: int, floors: int) -> Patch | None:
        """Return the windows of a wall that recedes.

        Args:
            wall: Near foot, near top, far top, far foot; the sides are upright.
            columns: Windows per floor.
            floors: Floors.
        """
        (x0, foot0), (_, top0), (x1, top1), (_, foot1) = wall
        patch = self.polygon(wall)
        if patch is None or patch.mask is None:
            return patch
        share = (self._xs[:, patch.cols] / np.float32(self.scale) - x0) / (x1 - x0)
        foot, top = foot0 + (foot1 - foot0) * share, top0 + (top1 - top0) * share
        near, far = foot0 - top0, foot1 - top1
        # a wall's height shrinks with the distance: even steps of depth are even in 1 / height
        depth = share
        if near != far:
            depth = (1 / (foot - top) - 1 / near) / (1 / far - 1 / near)
        along = depth * columns
        up = (foot * self.scale - self._ys[patch.rows]) * (floors / ((foot - top) * self.scale))
        along, up = along - np.floor(along), up - np.floor(up)
        mask = (abs(along - np.float32(0.5)) < 0.24) & (abs(up - np.float32(0.56)) < 0.25)
        return patch.only(mask & patch.mask)

    def _noise(self, patch: Patch) -> NDArray[np.int8]:
        side = self.bank.shape[1]
        top, left = self._dice.whole(0, side - 1), self._dice.whole(0, side - 1)
        rows = np.arange(top + patch.rows.start, top + patch.rows.stop) % side
        cols = np.arange(left + patch.cols.start, left + patch.cols.stop) % side
        noise: NDArray[np.int8] = self.bank[TEXTURES["leaves"]][rows[:, None], cols]
        return noise


def _signed_area(corners: Sequence[Point]) -> float:
    after = [*corners[1:], corners[0]]
    return sum(a[0] * b[1] - b[0] * a[1] for a, b in zip(corners, after, strict=True))
