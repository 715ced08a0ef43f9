"""A pen paints one element in a frame of its own."""

from __future__ import annotations

from collections.abc import Sequence

from entitybench.converters.worlds.canvas import Box, Canvas, Patch
from entitybench.converters.worlds.materials import Material, Point


class Pen:
    """Paints one element that stands somewhere in the scene.

    In the frame y points down and the foot is at 0.

    Args:
        canvas: The picture.
        element: Index of the element.
        x: Where the foot is, in scene units.
        y: Where the foot is.
        size: Scene units of one unit of the frame.
        flip: -1 mirrors it.
        haze: How far away it is, in [0, 1].
    """

    __slots__ = ("_canvas", "_element", "_flip", "_haze", "_size", "_x", "_y")

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
        self._x, self._y, self._size, self._flip = x, y, size, flip

    def of(self, element: int) -> Pen:
        """Return a pen in the same frame for another element."""
        place = (self._x, self._y, self._size)
        return Pen(self._canvas, element, *place, flip=self._flip, haze=self._haze)

    def moved(self, x: float, y: float) -> Pen:
        """Return a pen of the same element whose foot is at a point of this frame."""
        place = self.place(x, y)
        return Pen(
            self._canvas, self._element, *place, self._size, flip=self._flip, haze=self._haze
        )

    def place(self, x: float, y: float) -> Point:
        """Return a point of the frame in scene units."""
        return self._x + x * self._size * self._flip, self._y + y * self._size

    def _box(self, x0: float, y0: float, x1: float, y1: float) -> Box:
        (ax, ay), (bx, by) = self.place(x0, y0), self.place(x1, y1)
        return min(ax, bx), min(ay, by), max(ax, bx), max(ay, by)

    def _paint(self, patch: Patch | None, material: Material) -> None:
        self._canvas.paint(patch, material, self._element, haze=self._haze)

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
        radii = (rx * self._size, ry * self._size)
        self._paint(self._canvas.ellipse(*self.place(x, y), *radii, rough=rough), material)

    def ring(self, x: float, y: float, radius: float, wide: float, material: Material) -> None:
        """Paint a circle's outline, such as a wheel."""
        sizes = (radius * self._size, wide * self._size)
        self._paint(self._canvas.ring(*self.place(x, y), *sizes), material)

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
        radii = (rx * self._size, ry * self._size)
        self._canvas.shade(self._canvas.ellipse(*self.place(x, y), *radii))
