"""Writing an entity set as COCO instances: ground truth as annotations, predictions as results."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from entitybench.entity_set import EntityImage, EntitySet
from entitybench.formats.coco_image_ids import coco_ids
from entitybench.formats.coco_rle import encode_map
from entitybench.formats.image_ids import ImageId
from entitybench.formats.json_file import new_file, write_list, write_object

_CATEGORY = 1


def write_coco_instances(entity_set: EntitySet, out_file: Path) -> Path:
    """Write an entity set as one COCO JSON with compressed RLE, image by image.

    Ground truth becomes an instance file: annotation ids from 1, `area` in pixels, crowds with
    `iscrowd` 1. Predictions become a results list; it has no `bbox`, because COCO's evaluator
    would take a detection's area from the box and not from the mask. All are of one category,
    "entity", with id 1.

    Args:
        entity_set: The set.
        out_file: The JSON; an existing one is replaced when the new one is whole.

    Returns:
        The file.
    """
    image_id_of = coco_ids(entity_set.ids)
    out_file.parent.mkdir(parents=True, exist_ok=True)
    with new_file(out_file) as file:
        if entity_set.is_prediction:
            write_list(file, _results(entity_set, image_id_of))
        else:
            write_object(file, _truth(entity_set, image_id_of))
    return out_file


def _truth(
    entity_set: EntitySet, image_id_of: Callable[[str], ImageId]
) -> Iterator[tuple[str, object]]:
    header = entity_set.header
    yield "info", {"description": f"{header.name}, class-agnostic", "content": header.content_hash}
    yield "licenses", [{"id": 0, "name": header.licence or ""}]
    yield "images", image_entries(entity_set, image_id_of)
    yield "annotations", _annotations(entity_set, image_id_of)
    yield "categories", [{"id": _CATEGORY, "name": "entity", "supercategory": "entity"}]


def image_entries(
    entity_set: EntitySet, image_id_of: Callable[[str], ImageId]
) -> Iterator[dict[str, Any]]:
    """Yield the entries of COCO's `images`, from the table alone."""
    for row in entity_set.rows():
        yield {
            "id": image_id_of(row.id),
            "file_name": row.file_name,
            "width": row.width,
            "height": row.height,
        }


def _annotations(
    entity_set: EntitySet, image_id_of: Callable[[str], ImageId]
) -> Iterator[dict[str, Any]]:
    number = 0
    for image in entity_set:
        rows = [*image.row.entities, *image.row.crowd]
        for row, segmentation in zip(rows, _segmentations(image), strict=True):
            number += 1
            yield {
                "id": number,
                "image_id": image_id_of(image.id),
                "category_id": _CATEGORY,
                "iscrowd": int(row.id > len(image.row.entities)),
                "area": row.area,
                "bbox": row.bbox,
                "segmentation": segmentation,
            }


def _results(
    entity_set: EntitySet, image_id_of: Callable[[str], ImageId]
) -> Iterator[dict[str, Any]]:
    for image in entity_set:
        for row, segmentation in zip(image.row.entities, _segmentations(image), strict=True):
            yield {
                "image_id": image_id_of(image.id),
                "category_id": _CATEGORY,
                "score": row.score,
                "segmentation": segmentation,
            }


def _segmentations(image: EntityImage) -> Iterator[dict[str, Any]]:
    size = [image.row.height, image.row.width]
    for counts in encode_map(image.map):
        yield {"size": size, "counts": counts}
