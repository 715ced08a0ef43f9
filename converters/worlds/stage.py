"""The stage: a canvas, the dice and the habits of one world, for the layouts to use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from entitybench.converters.worlds.canvas import NOBODY, Canvas, Patch
from entitybench.converters.worlds.dice import Dice
from entitybench.converters.worlds.habits import Habits
from entitybench.converters.worlds.materials import Material, Palette, mix, rgb
from entitybench.converters.worlds.pen import Pen
from entitybench.converters.worlds.things import THINGS, Painter


@dataclass(slots=True)
class Stage:
    """What a layout works with.

    Attributes:
        canvas: Where it paints.
        dice: What it decides by.
        habits: The world's habits.
    """

    canvas: Canvas
    dice: Dice
    habits: Habits
    _queue: list[tuple[float, Callable[[], object]]] = field(default_factory=list)

    @property
    def width(self) -> float:
        """Width of the scene in scene units."""
        return self.canvas.width

    @property
    def height(self) -> float:
        """Height of the scene in scene units."""
        return self.canvas.height

    def number(self, low: int, high: int) -> int:
        """Return how many of something, scaled by the world's plenty."""
        wanted = self.dice.between(low, high + 1) * self.habits.plenty
        return int(wanted)

    def region(
        self, name: str, patch: Patch | None, material: Material, *, haze: float = 0.0
    ) -> int:
        """Paint a region as an element of its own; return the element."""
        element = self.canvas.element(name)
        self.canvas.paint(patch, material, element, haze=haze)
        return element

    def put(
        self,
        name: str,
        x: float,
        y: float,
        size: float,
        *,
        painter: Painter | None = None,
        host: int = NOBODY,
        crowd: bool = False,
        haze: float = 0.0,
        flip: int = 1,
    ) -> Pen:
        """Paint a thing that stands at a point; return its pen."""
        element = self.canvas.element(name, host=host, crowd=crowd)
        pen = Pen(self.canvas, element, x, y, size, flip=flip, haze=haze)
        (painter or THINGS[name])(pen, self.dice)
        return pen

    def later(self, depth: float, paint: Callable[[], object]) -> None:
        """Queue something to paint; what is deeper (smaller) comes first."""
        self._queue.append((depth, paint))

    def paint_queue(self) -> None:
        """Paint what was queued, from the far to the near."""
        for _, paint in sorted(self._queue, key=lambda entry: entry[0]):
            paint()
        self._queue.clear()

    def surface(
        self,
        colours: Palette,
        texture: str,
        contrast: float,
        other: str = "",
        down: float = 0.0,
    ) -> Material:
        """Return a material of one of the colours."""
        base = self.dice.pick(colours)
        towards = mix(base, rgb(other), 0.6) if other else None
        return Material(base, texture, contrast, towards, down=down)
