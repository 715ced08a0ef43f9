"""A contact sheet: scenes of every world beside their true entity maps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from entitybench.converters.worlds.scene import Scene, make_scene
from entitybench.converters.worlds.vocabulary import WORLDS
from entitybench.map_png import PALETTE

_COLOURS = np.frombuffer(PALETTE, dtype=np.uint8).reshape(256, 3)
_PAPER, _INK, _VOID = (255, 255, 255), (60, 64, 72), (38, 40, 45)
_GAP, _CAPTION = 8, 26
_WANTED = {
    "coco": ("landscape", "street", "tabletop", "room", "landscape", "front", "tabletop", "street"),
    "ade20k": ("room", "street", "front", "room", "landscape", "room", "room", "front"),
    "cityscapes": ("street",) * 4,
}


def contact_sheet(*, size: int = 176, seed: int = 0) -> Image.Image:
    """Draw scenes of the three worlds in pairs: photograph, entity map.

    Voids are dark, crowds striped, borders white.

    Args:
        size: Side of a square scene in pixels.
        seed: Of the worlds; each layout shows its first ordinary scenes.
    """
    width = 8 * size + 5 * _GAP
    rows = {world: -(-len(_WANTED[world]) // _columns(world)) for world in WORLDS}
    height = sum(_CAPTION + count * (size + _GAP) for count in rows.values()) + _GAP
    sheet = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    top = 0
    for world in WORLDS:
        draw.text((_GAP, top + 6), world, fill=_INK, font=ImageFont.load_default(15))
        top += _CAPTION
        for place, scene in enumerate(_scenes(world, _WANTED[world], size, seed)):
            row, column = divmod(place, _columns(world))
            pair = np.concatenate([scene.image, coloured(scene)], axis=1)
            left = _GAP + column * (pair.shape[1] + _GAP * (4 // _columns(world)))
            sheet.paste(Image.fromarray(pair), (left, top + row * (size + _GAP)))
        top += rows[world] * (size + _GAP)
    return sheet


def _columns(world: str) -> int:
    return 2 if world == "cityscapes" else 4


def _scenes(world: str, layouts: Sequence[str], size: int, seed: int) -> Iterator[Scene]:
    """Yield, for each layout of the list, the next scene that has it and fills its place."""
    shape = (size, 2 * size if world == "cityscapes" else size)
    later: dict[str, int] = {}
    for layout in layouts:
        index = later.get(layout, 0)
        while True:
            scene = make_scene(world, split="val", index=index, size=size, seed=seed)
            index += 1
            if scene.layout == layout and scene.entity_map.shape == shape:
                break
        later[layout] = index
        yield scene


def coloured(scene: Scene) -> NDArray[np.uint8]:
    """Return `(H, W, 3)` uint8: the entity map in the toolkit's colours over the photograph."""
    ids = scene.entity_map
    picture = (_COLOURS[(ids - 1) % 255 + 1] // 3 * 2 + scene.image // 3).astype(np.uint8)
    picture[ids == 0] = _VOID
    rows, cols = np.indices(ids.shape)
    picture[(ids > len(scene.entities)) & ((rows + cols) // 4 % 2 == 0)] //= 2
    edge = np.zeros(ids.shape, dtype=bool)
    edge[:, :-1] |= ids[:, :-1] != ids[:, 1:]
    edge[:-1] |= ids[:-1] != ids[1:]
    picture[edge] = _PAPER
    return picture
