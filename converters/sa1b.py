"""SA-1B: masks without classes, over and inside each other (`docs/sources/sa1b.md`)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath

import msgspec

from entitybench.converters.layering import Z_ORDER_OPTION, Annotation, ZOrder, lay_out
from entitybench.converters.source import (
    ConvertedImage,
    Options,
    SetPlan,
    Source,
    SourceImage,
)
from entitybench.converters.source_tree import SourceTree
from entitybench.entity_set import Provenance
from entitybench.errors import FormatError
from entitybench.formats.json_file import decode_json

SPLIT = "train"  # the release knows no splits: all of it is for training
_NAME = re.compile(r"(.*/)?sa_\d+\.json")
_ARCHIVE = re.compile(r"sa_\d{6}\.tar")
_MOST_BYTES = 1 << 28  # of one image's JSON


@dataclass(frozen=True, slots=True)
class Sa1bImage(SourceImage):
    """One image.

    Attributes:
        table: Its JSON.
    """

    table: str


class _Image(msgspec.Struct):
    width: int
    height: int
    file_name: str


class _Row(msgspec.Struct):
    id: int
    segmentation: msgspec.Raw


class _Table(msgspec.Struct):
    image: _Image
    annotations: list[_Row]


def find(tree: SourceTree) -> list[str]:
    """Tell whether the release, or some of its archives, are in a tree."""
    return [SPLIT] if _tables(_mounted(tree)) else []


def plan(tree: SourceTree, split: str, options: Options) -> list[SetPlan[Sa1bImage]]:
    """Plan the one set."""
    mounted = _mounted(tree)
    return [
        SetPlan(
            tree=mounted,
            images=[
                Sa1bImage(PurePosixPath(name).stem, f"{name.removesuffix('.json')}.jpg", name)
                for name in _tables(mounted)
            ],
            read=partial(read_image, mounted, ZOrder.of(options)),
            photographs=".",
        )
    ]


def _mounted(tree: SourceTree) -> SourceTree:
    return tree.with_archives(*filter(_ARCHIVE.fullmatch, tree.names(suffix=".tar")))


def _tables(tree: SourceTree) -> list[str]:
    return [name for name in tree.names(suffix=".json") if _NAME.fullmatch(name)]


def read_image(tree: SourceTree, z_order: ZOrder | None, image: Sa1bImage) -> ConvertedImage:
    """Lay out the masks of one image.

    Raises:
        OverlapError: They overlap, as nearly all do, and no z-order is declared.
        FormatError: The JSON is damaged, or of another image than its name says.
    """
    place = tree.place(image.table)
    table = decode_json(tree.read(image.table, _MOST_BYTES), _Table, place)
    if PurePosixPath(table.image.file_name).stem != image.id:
        msg = f"the file is about `{table.image.file_name}`, its name says `{image.id}`"
        raise FormatError(msg, where=place)
    annotations = [
        Annotation(msgspec.json.decode(row.segmentation), Provenance(row.id))
        for row in table.annotations
    ]
    return lay_out((table.image.height, table.image.width), annotations, z_order, place)


SOURCE = Source(
    name="sa1b",
    title="SA-1B",
    licence="SA-1B Dataset Research License: research only",
    splits={SPLIT: 0},
    find=find,
    plan=plan,
    expected="`sa_223750.json` and its like, or the archives `sa_000000.tar` … that hold them",
    hint="https://ai.meta.com/datasets/segment-anything-downloads/ gives links to the archives",
    options=Z_ORDER_OPTION,
)
