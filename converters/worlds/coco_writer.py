"""Writing a world as COCO panoptic 2017: JSON, RGB id pictures and JPEG photographs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from entitybench.converters.worlds.annotation import SceneEntity
from entitybench.converters.worlds.archives import pack_zip
from entitybench.converters.worlds.dice import Dice
from entitybench.converters.worlds.files import save_labels, save_photograph, write_json
from entitybench.converters.worlds.scene import Scene
from entitybench.converters.worlds.vocabulary import CATEGORIES
from entitybench.entity_map import EntityMap

_QUALITY = 92
_LICENCES = ({"url": "", "id": 1, "name": "Generated; no rights reserved"},)


class _Segment(msgspec.Struct, frozen=True):
    area: int
    category_id: int
    iscrowd: int
    id: int
    bbox: tuple[int, int, int, int]


class _Annotation(msgspec.Struct, frozen=True):
    segments_info: tuple[_Segment, ...]
    file_name: str
    image_id: int


class _Image(msgspec.Struct, frozen=True):
    license: int
    file_name: str
    coco_url: str
    height: int
    width: int
    date_captured: str
    flickr_url: str
    id: int


class CocoRow(msgspec.Struct, frozen=True):
    """What one scene adds to the JSON file."""

    image: _Image
    annotation: _Annotation


def stem(split: str, index: int) -> str:
    """Return the name of an image: twelve digits, with gaps, as COCO has them."""
    return f"{_image_id(split, index):012d}"


def _image_id(split: str, index: int) -> int:
    return 37 * index + (9 if split == "train" else 23)  # the two can never be equal


def folders(split: str) -> tuple[str, ...]:
    """Return the folders of a split."""
    return f"{split}2017", f"annotations/panoptic_{split}2017"


def write_scene(root: Path, split: str, index: int, scene: Scene) -> CocoRow:
    """Write the photograph and the id picture of one scene."""
    name = stem(split, index)
    save_photograph(scene, root / f"{split}2017" / f"{name}.jpg", quality=_QUALITY)
    rows = (*scene.entities, *scene.crowds)
    ids = _segment_ids(len(rows), _image_id(split, index))
    table = np.array([0, *ids], dtype=np.uint32)[scene.entity_map]
    colours = np.stack([table & 255, table >> 8 & 255, table >> 16], axis=-1).astype(np.uint8)
    save_labels(colours, root / "annotations" / f"panoptic_{split}2017" / f"{name}.png")
    height, width = scene.entity_map.shape
    image = _Image(
        1, f"{name}.jpg", "", height, width, "2017-01-01 00:00:00", "", _image_id(split, index)
    )
    segments = _segments(scene.entity_map, rows, ids, len(scene.entities))
    return CocoRow(image, _Annotation(_mixed(segments), f"{name}.png", image.id))


def _mixed(segments: list[_Segment]) -> tuple[_Segment, ...]:
    """Put crowds between the entities, as the original does; entities keep their order."""
    crowds = [segment for segment in segments if segment.iscrowd]
    entities = [segment for segment in segments if not segment.iscrowd]
    middle = len(entities) // 2
    return (*entities[:middle], *crowds, *entities[middle:])


def _segment_ids(count: int, image_id: int) -> list[int]:
    """Return distinct random ids: 24 bits as those of the original, one of them small."""
    dice = Dice(image_id)
    ids = dict.fromkeys([dice.whole(1, 255)])
    while len(ids) < count:
        ids[dice.whole(256, 2**24 - 1)] = None
    return dice.shuffled(list(ids)[:count])


def _segments(
    entity_map: NDArray[np.int32],
    rows: Sequence[SceneEntity],
    ids: Sequence[int],
    num_entities: int,
) -> list[_Segment]:
    compiled = EntityMap.from_array(entity_map)
    areas, boxes = compiled.areas.tolist(), compiled.boxes.tolist()
    return [
        _Segment(areas[i], row.category, int(i > num_entities), ids[i - 1], tuple(boxes[i]))
        for i, row in enumerate(rows, start=1)
    ]


def finish(root: Path, rows: Mapping[str, Sequence[CocoRow]]) -> None:
    """Write `annotations/panoptic_{train,val}2017.json`."""
    for split, own in rows.items():
        images = [row.image for row in own]
        # in another order than the images: they belong together by id, not by place
        annotations = [row.annotation for row in reversed(own)]
        write_json(
            root / "annotations" / f"panoptic_{split}2017.json",
            {
                "info": {
                    "description": "A generated world in the format of COCO 2018 Panoptic",
                    "url": "",
                    "version": "1.0",
                    "year": 2018,
                    "contributor": "entitybench",
                    "date_created": "2018-06-01 00:00:00.0",
                },
                "licenses": _LICENCES,
                "images": images,
                "annotations": annotations,
                "categories": [
                    {
                        "supercategory": c.supercategory,
                        "isthing": int(c.isthing),
                        "id": c.id,
                        "name": c.name,
                    }
                    for c in CATEGORIES["coco"].values()
                ],
            },
        )


def pack(root: Path, splits: Sequence[str]) -> None:
    """Replace the folders by the archives of the release, id pictures as zips in a zip."""
    for split in splits:
        inner = f"panoptic_{split}2017"
        pack_zip(root / "annotations" / f"{inner}.zip", root / "annotations", [inner])
        pack_zip(root / f"{split}2017.zip", root, [f"{split}2017"])
    pack_zip(root / "panoptic_annotations_trainval2017.zip", root, ["annotations"])
