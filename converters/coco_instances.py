"""COCO instance JSON: EntitySeg, LVIS, COCO's own instances (`docs/sources/coco-instances.md`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import msgspec

from entitybench.archives import plain_name
from entitybench.converters.layering import Z_ORDER_OPTION, Annotation, ZOrder, lay_out
from entitybench.converters.source import (
    ConvertedImage,
    Options,
    SetPlan,
    Source,
    SourceImage,
)
from entitybench.converters.source_tree import SourceTree
from entitybench.entity_set import Category, Provenance
from entitybench.errors import FormatError
from entitybench.formats.coco_instances import ImageInfo, stem_of
from entitybench.formats.image_ids import ImageId
from entitybench.formats.json_file import decode_json

SPLITS = {"train": 0, "val": 0, "test": 0}  # each release has its own numbers
_MOST_BYTES = 1 << 36  # of one table; its polygons or RLE are held in memory, once


@dataclass(frozen=True, slots=True)
class _Family:
    """Tables of one release, by the form of their names.

    Attributes:
        stem: What the set's name begins with.
        table: The table's stem, `{split}` standing for the split.
        photographs: Where the photographs may be.
        suffix: What tells the release's tables of one split apart.
        part_of: The table that holds this one's images too, if there is one.
    """

    stem: str
    table: str
    photographs: tuple[str, ...]
    suffix: str = ""
    part_of: str = ""


_WHOLE = "entityv2_010203_entity_{split}"
_BATCHES = {"01": "entity_01_11580", "02": "entity_02_11598", "03": "entity_03_10049"}
_FAMILIES = (
    _Family("entityseg", _WHOLE, ("images",)),
    _Family("entityseg", f"{_WHOLE}_lr", ("images_lr",), "lr"),
    *(
        _Family("entityseg", f"entityv2_{batch}_entity_{{split}}", ("images",), batch, _WHOLE)
        for batch in _BATCHES
    ),
    _Family("lvis", "lvis_v1_{split}", ("images", ".")),
    _Family("coco_instances", "instances_{split}2017", ("{split}2017", "images/{split}2017")),
    _Family(
        "coco_instances", "instances_{split}2014", ("{split}2014", "images/{split}2014"), "2014"
    ),
    _Family("coco_instances", "instances_{split}", ("{split}", "images/{split}", "images")),
)
_FOLDERS = ("", "annotations/", "annotations/entity_segmentation/", "entity_segmentation/")
_ARCHIVES = ("annotations_trainval2017.zip", "annotations_trainval2014.zip")


# --- the table ---------------------------------------------------------------


class _Image(ImageInfo, gc=False):
    coco_url: str = ""  # LVIS has this in place of a file name

    def photograph(self) -> str:
        """Return the photograph's name, below the folder of photographs."""
        return self.file_name or "/".join(self.coco_url.split("/")[-2:])


class _Row(msgspec.Struct, frozen=True, gc=False):
    image_id: ImageId
    segmentation: msgspec.Raw
    id: int | str
    category_id: int | None = None
    iscrowd: int | bool = 0


class _CategoryRow(msgspec.Struct, frozen=True, gc=False):
    id: int
    name: str = ""
    supercategory: str | None = None
    isthing: int | bool | None = None
    type: Literal["thing", "stuff"] | None = None  # as EntitySeg says it

    def category(self) -> Category:
        """Return it as an entity set keeps it."""
        isthing = None if self.isthing is None else bool(self.isthing)
        if self.type is not None:
            isthing = self.type == "thing"
        return Category(self.id, self.name, isthing, self.supercategory)


class _Table(msgspec.Struct):
    images: list[_Image]
    annotations: list[_Row]
    categories: list[_CategoryRow] = []


@dataclass(frozen=True, slots=True)
class InstanceImage(SourceImage):
    """One image of the table.

    Attributes:
        shape: Height and width.
        place: The table and the image, for messages.
        rows: Its annotations, not decoded yet.
    """

    shape: tuple[int, int]
    place: str
    rows: tuple[_Row, ...]


# --- the source --------------------------------------------------------------


def find(tree: SourceTree) -> list[str]:
    """Tell which splits are in a tree."""
    return [split for split in SPLITS if _tables(_mounted(tree, split), split)]


def plan(tree: SourceTree, split: str, options: Options) -> list[SetPlan[InstanceImage]]:
    """Plan a set for each table of one split."""
    mounted, z_order = _mounted(tree, split), ZOrder.of(options)
    tables = _tables(mounted, split)
    return [_plan(mounted, split, tables[family], family, z_order) for family in tables]


def _mounted(tree: SourceTree, split: str) -> SourceTree:
    names = (*_ARCHIVES, f"lvis_v1_{split}.json.zip", f"{split}2017.zip", f"{split}2014.zip")
    return tree.with_archives(*names, *(f"annotations/{name}" for name in names))


def _tables(tree: SourceTree, split: str) -> dict[_Family, str]:
    """Return the tables of a split; batches are left out where the whole is there."""
    found: dict[_Family, str] = {}
    for family in _FAMILIES:
        names = [f"{folder}{family.table.format(split=split)}.json" for folder in _FOLDERS]
        name = next((name for name in names if name in tree), None)
        if name is not None and family.part_of not in {other.table for other in found}:
            found[family] = name
    return found


def _plan(
    tree: SourceTree, split: str, name: str, family: _Family, z_order: ZOrder | None
) -> SetPlan[InstanceImage]:
    place = tree.place(name)
    table = decode_json(tree.read(name, limit=_MOST_BYTES), _Table, place)
    categories = tuple(row.category() for row in table.categories)
    isthing = {category.id: category.isthing for category in categories}
    folders = [folder.format(split=split) for folder in family.photographs]
    return SetPlan(
        tree=tree,
        images=_images(table, isthing, place),
        read=partial(read_image, isthing, z_order),
        categories=categories,
        photographs=next(filter(tree.has_folder, folders), folders[-1]),
        stem=family.stem,
        suffix=family.suffix,
    )


def _images(table: _Table, isthing: Mapping[int, bool | None], place: str) -> list[InstanceImage]:
    rows: dict[ImageId, list[_Row]] = {image.id: [] for image in table.images}
    if len(rows) < len(table.images):
        msg = f"images that are listed twice: {len(table.images) - len(rows):,}"
        raise FormatError(msg, where=place)
    for index, row in enumerate(table.annotations):
        where = f"{place}: $.annotations[{index}]"
        if row.image_id not in rows:
            msg = f"image {row.image_id} is not in the table's `images`"
            raise FormatError(msg, where=where)
        if row.category_id is not None and isthing and row.category_id not in isthing:
            msg = f"category {row.category_id} is not in the table's `categories`"
            raise FormatError(msg, where=where)
        rows[row.image_id].append(row)
    return [_image(image, tuple(rows[image.id]), place) for image in table.images]


def _image(image: _Image, rows: tuple[_Row, ...], place: str) -> InstanceImage:
    where = f"{place}: image {image.id}"
    try:
        file_name = plain_name(image.photograph())
    except FormatError as error:
        raise error.at(where) from error
    if image.width <= 0 or image.height <= 0:
        msg = f"the image is {image.width}×{image.height}"
        raise FormatError(msg, where=where)
    image_id = stem_of(ImageInfo(image.id, image.width, image.height, file_name))
    return InstanceImage(image_id, file_name, (image.height, image.width), where, rows)


def read_image(
    isthing: Mapping[int, bool | None], z_order: ZOrder | None, image: InstanceImage
) -> ConvertedImage:
    """Lay out the annotations of one image.

    Raises:
        OverlapError: They overlap and no z-order is declared.
        FormatError: A segmentation is damaged.
    """
    annotations = [
        Annotation(msgspec.json.decode(row.segmentation), _origin(row, isthing), bool(row.iscrowd))
        for row in image.rows
    ]
    return lay_out(image.shape, annotations, z_order, image.place)


def _origin(row: _Row, isthing: Mapping[int, bool | None]) -> Provenance:
    category = row.category_id
    return Provenance(row.id, category, None if category is None else isthing.get(category))


SOURCE = Source(
    name="coco-instances",
    title="COCO instance JSON",
    licence="the release's own; see docs/sources/coco-instances.md",
    splits=SPLITS,
    find=find,
    plan=plan,
    expected="`entityv2_010203_entity_val.json`, `lvis_v1_val.json`, `instances_val2017.json` or "
    "`instances_val.json`, or the like of another split, here or in `annotations/`",
    hint="a table of another name becomes `instances_<split>.json`",
    options=Z_ORDER_OPTION,
)
