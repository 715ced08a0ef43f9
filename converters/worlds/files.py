"""What the three writers share: photographs, label pictures, the truth beside them."""

from __future__ import annotations

import zlib
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from entitybench.converters.worlds.annotation import SceneEntity
from entitybench.converters.worlds.scene import Scene
from entitybench.map_png import PALETTE

TRUTH = "truth"
_ORIENTATION = 0x0112  # the EXIF tag


class TruthEntity(msgspec.Struct, frozen=True):
    """One entity or crowd of the truth: its name in the shared world and its source class."""

    name: str
    category_id: int
    isthing: bool


class TruthRow(msgspec.Struct, frozen=True):
    """One line of `truth/<split>.jsonl`.

    Attributes:
        id: The image's stem.
        width: In pixels.
        height: In pixels.
        layout: What kind of scene it is.
        entities: What the ids `1…N` of the map are.
        crowds: What the ids `N+1…N+C` are.
    """

    id: str
    width: int
    height: int
    layout: str
    entities: tuple[TruthEntity, ...]
    crowds: tuple[TruthEntity, ...]


def write_truth(root: Path, split: str, stem: str, scene: Scene) -> TruthRow:
    """Write `truth/<split>/<stem>.png` and return the line that belongs to it.

    The map is an 8-bit palette picture up to 255 ids, else 16-bit gray; 0 is void.
    """
    ids = scene.entity_map
    small = len(scene.entities) + len(scene.crowds) <= 255
    picture = Image.fromarray(ids.astype(np.uint8 if small else np.uint16))
    if small:
        picture.putpalette(PALETTE)
    save_picture(picture, root / TRUTH / split / f"{stem}.png")
    height, width = ids.shape
    return TruthRow(stem, width, height, scene.layout, _told(scene.entities), _told(scene.crowds))


def _told(entities: tuple[SceneEntity, ...]) -> tuple[TruthEntity, ...]:
    return tuple(TruthEntity(e.name, e.category, e.isthing) for e in entities)


def write_lines(path: Path, rows: list[TruthRow]) -> None:
    """Write one JSON object a line."""
    path.write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))


def write_json(path: Path, value: object) -> None:
    """Write one JSON value."""
    path.write_bytes(msgspec.json.encode(value))


def save_picture(picture: Image.Image, path: Path) -> None:
    """Write a label picture as PNG."""
    # for flat labels, runs alone make smaller files than looking for repeats
    picture.save(path, format="PNG", compress_level=1, compress_type=zlib.Z_RLE)


def save_labels(labels: NDArray[np.generic], path: Path) -> None:
    """Write `(H, W)` uint8 or uint16 labels, or `(H, W, 3|4)` uint8 colours, as PNG."""
    save_picture(Image.fromarray(labels), path)


def save_lossless(photograph: NDArray[np.uint8], path: Path) -> None:
    """Write an `(H, W, 3)` uint8 photograph as PNG."""
    # sensor noise repeats nothing: looking for repeats takes twice the time and saves no byte
    picture = Image.fromarray(photograph)
    picture.save(path, format="PNG", compress_level=1, compress_type=zlib.Z_HUFFMAN_ONLY)


def save_photograph(scene: Scene, path: Path, *, quality: int) -> None:
    """Write a photograph as JPEG: gray or with an EXIF orientation where the scene says so."""
    picture = Image.fromarray(scene.image)
    if scene.gray:
        picture = picture.convert("L")
    exif = Image.Exif()
    if scene.orientation != 1:
        exif[_ORIENTATION] = scene.orientation
    picture.save(path, format="JPEG", quality=quality, exif=exif)
