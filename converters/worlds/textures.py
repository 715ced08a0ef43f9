"""The texture bank: periodic fields that every scene cuts its surfaces from.

Making noise per scene would cost more than everything else together, so each process
makes one set of tiles per resolution and scenes look at them through random offsets.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from entitybench.converters.worlds.dice import Dice

Field = NDArray[np.float64]  # (S, S), roughly in [-1, 1], periodic in both directions

TILE = 256  # pixels of a tile at the finest scale of a 128-pixel scene
_KEY = 20261122  # the bank is the same in every world


@functools.cache
def texture_bank(factor: int) -> NDArray[np.int8]:
    """Return all tiles at one resolution.

    Args:
        factor: Tiles are `256 × factor` pixels wide, for scenes of about `128 × factor`.

    Returns:
        `(len(TEXTURES), S, S)` int8, -127…127 for -1…1; the first is flat. Read-only.
    """
    side = TILE * factor
    tiles = np.zeros((len(TEXTURES), side, side), dtype=np.int8)
    for index, make in enumerate(_MAKERS.values()):
        field = make(Dice(_KEY, index), side)
        tiles[index] = np.rint(np.clip(field, -1, 1) * 127)
    tiles.flags.writeable = False
    return tiles


def value_noise(dice: Dice, side: int, cells_y: int, cells_x: int) -> Field:
    """Return periodic smooth noise: random values on a lattice, joined by smoothsteps.

    Args:
        dice: Where the values come from.
        side: Width and height in pixels.
        cells_y: Lattice cells down the tile.
        cells_x: Lattice cells across the tile.
    """
    lattice = dice.uniform(cells_y, cells_x) * 2 - 1
    y0, y1, ty = _cells(side, cells_y)
    x0, x1, tx = _cells(side, cells_x)
    rows = lattice[y0] * (1 - ty[:, None]) + lattice[y1] * ty[:, None]
    field: Field = rows[:, x0] * (1 - tx) + rows[:, x1] * tx
    return field


def _cells(side: int, cells: int) -> tuple[NDArray[np.intp], NDArray[np.intp], Field]:
    place = np.arange(side) * (cells / side)
    first = place.astype(np.intp)
    t = place - first
    return first % cells, (first + 1) % cells, t * t * (3 - 2 * t)


def fractal(
    dice: Dice, side: int, cells_y: int, cells_x: int, octaves: int, fade: float = 0.55
) -> Field:
    """Return fractional Brownian motion: octaves of noise, each finer and weaker."""
    total = np.zeros((side, side))
    weight = 1.0
    for octave in range(octaves):
        finer_y, finer_x = cells_y << octave, cells_x << octave
        if max(finer_y, finer_x) > side:
            break
        total += weight * value_noise(dice, side, finer_y, finer_x)
        weight *= fade
    return total


def _flat(dice: Dice, side: int) -> Field:
    return np.zeros((side, side))


def _clouds(dice: Dice, side: int) -> Field:
    return fractal(dice, side, 5, 5, 5) * 0.8


def _grain(dice: Dice, side: int) -> Field:
    return fractal(dice, side, 24, 24, 4, fade=0.7) * 0.8


def _leaves(dice: Dice, side: int) -> Field:
    clumps = value_noise(dice, side, 14, 14)
    leaves = value_noise(dice, side, 48, 48)
    return 0.55 * clumps + 0.75 * leaves


def _blades(dice: Dice, side: int) -> Field:
    meadow = value_noise(dice, side, 6, 6)
    return 0.4 * meadow + 0.5 * fractal(dice, side, 20, 60, 2, fade=0.8)


def _waves(dice: Dice, side: int) -> Field:
    return fractal(dice, side, 30, 7, 3, fade=0.6) * 0.9


def _planks(dice: Dice, side: int) -> Field:
    """Boards that run across, eight to the tile, each of its own shade."""
    y = np.arange(side)
    board = y * 16 // side
    shade = (dice.uniform(16) * 2 - 1)[board]
    groove = y % (side // 16) < max(1, side // 256)
    fibre = fractal(dice, side, 90, 5, 2, fade=0.6)
    return np.where(groove[:, None], -1.0, 0.45 * shade[:, None] + 0.35 * fibre)


def _bricks(dice: Dice, side: int) -> Field:
    y, x = np.arange(side)[:, None], np.arange(side)[None, :]
    high, wide, seam = side // 32, side // 16, max(1, side // 256)
    course = y // high
    shifted = (x + (course % 2) * (wide // 2)) % side
    brick = (dice.uniform(32, 16) * 2 - 1)[course, shifted // wide]
    mortar = (y % high < seam) | (shifted % wide < seam)
    return np.where(mortar, 0.9, 0.45 * brick - 0.25) + 0.12 * _grain(dice, side)


def _tiles(dice: Dice, side: int) -> Field:
    y, x = np.arange(side)[:, None], np.arange(side)[None, :]
    pitch, seam = side // 16, max(1, side // 128)
    shade = (dice.uniform(16, 16) * 2 - 1)[y // pitch, x // pitch]
    joint = (y % pitch < seam) | (x % pitch < seam)
    return np.where(joint, -0.9, 0.35 * shade + 0.15) + 0.1 * _clouds(dice, side)


def _stripes(dice: Dice, side: int) -> Field:
    x = np.arange(side) * 32 // side % 4
    bands = np.array([0.8, -0.2, 0.3, -0.6])[x]
    return np.broadcast_to(bands, (side, side)) * 0.8


def _folds(dice: Dice, side: int) -> Field:
    """Cloth that hangs: soft waves across, hardly any change downwards."""
    return 0.9 * value_noise(dice, side, 2, 40) + 0.3 * value_noise(dice, side, 2, 90)


def _hand(dice: Dice, side: int) -> Field:
    """How far an annotator's hand strays, in shares of its reach."""
    return 1.5 * value_noise(dice, side, 22, 22)


def _speckle(dice: Dice, side: int) -> Field:
    return dice.uniform(side, side) * 2 - 1


def _asphalt(dice: Dice, side: int) -> Field:
    speckle = dice.uniform(side // 2, side // 2).repeat(2, axis=0).repeat(2, axis=1) * 2 - 1
    return 0.55 * speckle + 0.45 * _clouds(dice, side)


def _weave(dice: Dice, side: int) -> Field:
    y, x = np.arange(side)[:, None] * 64 // side, np.arange(side)[None, :] * 64 // side
    diamonds = (abs(y % 8 - 4) + abs(x % 8 - 4)) % 4
    return (diamonds - 1.5) / 2 + 0.2 * _grain(dice, side)


def _ridges(dice: Dice, side: int) -> Field:
    """Rock and far mountains: creases where the noise changes its sign."""
    return 0.9 - 2.4 * abs(fractal(dice, side, 7, 7, 4))


def _shingles(dice: Dice, side: int) -> Field:
    y = np.arange(side)
    row = side // 48
    slope = (y % row) / row
    return 0.9 - 1.4 * slope[:, None] + 0.3 * value_noise(dice, side, 48, 64)


def _concrete(dice: Dice, side: int) -> Field:
    return 0.6 * _clouds(dice, side) + 0.35 * _grain(dice, side)


_MAKERS: dict[str, Callable[[Dice, int], Field]] = {
    "flat": _flat,
    "fade": _flat,  # not a tile: the renderer puts the place in the stroke, -1 top, 1 bottom
    "clouds": _clouds,
    "grain": _grain,
    "leaves": _leaves,
    "blades": _blades,
    "waves": _waves,
    "planks": _planks,
    "bricks": _bricks,
    "tiles": _tiles,
    "stripes": _stripes,
    "folds": _folds,
    "asphalt": _asphalt,
    "weave": _weave,
    "ridges": _ridges,
    "shingles": _shingles,
    "concrete": _concrete,
    "speckle": _speckle,
    "hand": _hand,
}
TEXTURES = {name: index for index, name in enumerate(_MAKERS)}
