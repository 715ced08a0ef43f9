"""Writing an entity set as COCO panoptic: a JSON and RGB PNGs in the official layout."""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from entitybench.entity_map import EntityMap
from entitybench.entity_set import EntityImage, EntityRow, EntitySet
from entitybench.errors import ConflictError
from entitybench.formats.coco_image_ids import coco_ids
from entitybench.formats.coco_instances_export import image_entries
from entitybench.formats.image_ids import ImageId
from entitybench.formats.json_file import new_file, write_object


def write_coco_panoptic(entity_set: EntitySet, out_dir: Path, *, overwrite: bool = False) -> Path:
    """Write an entity set as COCO panoptic, image by image.

    `annotations/panoptic_<name>.json` and `annotations/panoptic_<name>/<image id>.png`. Segment
    ids are those of the entity map, crowds have `iscrowd` 1, predictions keep their `score`. The
    category is the entity's own where the set knows its classes, else "entity". An entity
    without a pixel, legal among predictions, stays in the list.

    Args:
        entity_set: The set.
        out_dir: The folder to write into.
        overwrite: Replace an export of this name.

    Returns:
        The JSON, which is written last.

    Raises:
        ConflictError: An export of this name is there.
    """
    name = "panoptic_" + re.sub(r"[^A-Za-z0-9._-]", "_", entity_set.header.name)
    table = out_dir / "annotations" / f"{name}.json"
    folder, unfinished = table.with_suffix(""), table.with_suffix(".unfinished")
    if (table.exists() or folder.exists()) and not overwrite:
        msg = f"`{table}` or its folder is already there"
        raise ConflictError(msg, hint="`--overwrite` replaces both")
    with _fresh_folder(unfinished), new_file(table) as file:
        write_object(file, _members(entity_set, unfinished))
        if folder.exists():
            shutil.rmtree(folder)
        unfinished.rename(folder)
    return table


@contextmanager
def _fresh_folder(folder: Path) -> Iterator[None]:
    """Make an empty folder; if the block fails, nothing of it stays."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def encode_panoptic_png(entity_map: EntityMap) -> bytes:
    """Return a map as a panoptic PNG: 8-bit RGB, id = R + 256 G + 65536 B."""
    height, width = entity_map.shape
    ids = entity_map.to_array().astype("<u4")
    rgb = ids.view(np.uint8).reshape(height, width, 4)[:, :, :3]
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(rgb)).save(file, format="PNG")
    return file.getvalue()


def _members(entity_set: EntitySet, folder: Path) -> Iterator[tuple[str, object]]:
    header = entity_set.header
    image_id_of = coco_ids(entity_set.ids)
    yield "info", {"description": header.name, "content": header.content_hash}
    yield "licenses", [{"id": 0, "name": header.licence or ""}]
    yield "images", image_entries(entity_set, image_id_of)
    yield "annotations", _annotations(entity_set, folder, image_id_of)
    yield "categories", _categories(entity_set)


def _entity_category(entity_set: EntitySet) -> int:
    """The id of the class of entities that have none of their own."""
    return 1 + max((category.id for category in entity_set.header.categories), default=0)


def _categories(entity_set: EntitySet) -> list[dict[str, Any]]:
    own = [
        {
            "id": category.id,
            "name": category.name,
            "supercategory": category.supercategory or category.name,
            "isthing": int(category.isthing is not False),
        }
        for category in entity_set.header.categories
    ]
    number = _entity_category(entity_set)
    return [*own, {"id": number, "name": "entity", "supercategory": "entity", "isthing": 1}]


def _annotations(
    entity_set: EntitySet, folder: Path, image_id_of: Callable[[str], ImageId]
) -> Iterator[dict[str, Any]]:
    known = {category.id for category in entity_set.header.categories}
    fallback = _entity_category(entity_set)
    for image in entity_set:
        png = encode_panoptic_png(image.map)  # checks that the map's name is a plain one
        name = PurePosixPath(image.row.map).name
        (folder / name).write_bytes(png)
        yield {
            "image_id": image_id_of(image.id),
            "file_name": name,
            "segments_info": [
                _segment(row, row.category_id if row.category_id in known else fallback, image)
                for row in [*image.row.entities, *image.row.crowd]
            ],
        }


def _segment(row: EntityRow, category_id: int | None, image: EntityImage) -> dict[str, Any]:
    segment = {
        "id": row.id,
        "category_id": category_id,
        "iscrowd": int(row.id > len(image.row.entities)),
        "bbox": row.bbox,
        "area": row.area,
    }
    return segment if row.score is None else segment | {"score": row.score}
