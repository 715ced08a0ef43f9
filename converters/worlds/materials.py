"""Colours, surfaces and the light on a whole scene."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

RGB = tuple[float, float, float]
Palette = tuple[RGB, ...]
Point = tuple[float, float]


@functools.cache
def rgb(code: str) -> RGB:
    """Read a colour such as `#80c0ff` into three numbers in [0, 1]."""
    red, green, blue = (int(code[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return red, green, blue


@functools.cache
def palette(codes: str) -> Palette:
    """Read colours that are separated by blanks."""
    return tuple(rgb(code) for code in codes.split())


def mix(first: RGB, second: RGB, share: float) -> RGB:
    """Blend two colours; share 0 gives the first, 1 the second."""
    return (
        first[0] + (second[0] - first[0]) * share,
        first[1] + (second[1] - first[1]) * share,
        first[2] + (second[2] - first[2]) * share,
    )


@dataclass(frozen=True, slots=True)
class Material:
    """What a surface looks like.

    Attributes:
        colour: Its middle colour, each part in [0, 1].
        texture: A name in `TEXTURES`.
        contrast: How far the texture moves the colour, in [0, 1].
        other: The colour towards which the texture moves; None: lighter and darker.
        across: Change of light from the middle to the right edge, in [-1, 1].
        down: Change of light from the middle to the bottom edge.
        round: How much the edges darken, as on a ball.
        recedes: Whether the texture recedes to the horizon, as on a floor.
    """

    colour: RGB
    texture: str = "flat"
    contrast: float = 0.0
    other: RGB | None = None
    across: float = 0.0
    down: float = 0.0
    round: float = 0.0
    recedes: bool = False

    def lit(
        self,
        *,
        across: float | None = None,
        down: float | None = None,
        round: float | None = None,
    ) -> Material:
        """Return it under other light; what is not given stays."""
        return replace(
            self,
            across=self.across if across is None else across,
            down=self.down if down is None else down,
            round=self.round if round is None else round,
        )

    def receding(self) -> Material:
        """Return it with its texture laid on the ground, receding to the horizon."""
        return replace(self, recedes=True)

    def tinted(self, colour: RGB, share: float) -> Material:
        """Return it with its colour moved towards another."""
        return replace(self, colour=mix(self.colour, colour, share))

    def darker(self, share: float) -> Material:
        """Return it with a share of black."""
        return self.tinted((0.0, 0.0, 0.0), share)

    def lighter(self, share: float) -> Material:
        """Return it with a share of white."""
        return self.tinted((1.0, 1.0, 1.0), share)


def plain(
    colour: str | RGB, *, across: float = 0.0, down: float = 0.0, round: float = 0.0
) -> Material:
    """Return a material without texture, of a colour such as `#80c0ff` or its three parts."""
    parts = rgb(colour) if isinstance(colour, str) else colour
    return Material(parts, across=across, down=down, round=round)


@dataclass(frozen=True, slots=True)
class Weather:
    """The light and the camera of one scene.

    Attributes:
        warmth: In [-1, 1]: blue to orange.
        saturation: 1 leaves colours as they are, 0 takes them away.
        brightness: Factor on everything.
        ramp: Change of light over the picture, rightwards and downwards.
        shadow: Depth of the cast shadows, in [0, 1].
        noise: Amplitude of the sensor noise, in levels of 255.
        blur: Share of each pixel that comes from its neighbours, in [0, 1].
    """

    warmth: float
    saturation: float
    brightness: float
    ramp: Point
    shadow: float
    noise: float
    blur: float
