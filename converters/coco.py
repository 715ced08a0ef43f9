"""COCO panoptic 2017: 133 classes, things and stuff, crowds (`docs/sources/coco.md`)."""

from __future__ import annotations

from itertools import product

from entitybench.converters.panoptic_table import PanopticImage, plan_panoptic
from entitybench.converters.source import Options, SetPlan, Source
from entitybench.converters.source_tree import SourceTree

SPLITS = {"train": 118_287, "val": 5_000}
_OUTER = "panoptic_annotations_trainval2017.zip"


def find(tree: SourceTree) -> list[str]:
    """Tell which splits are in a tree."""
    return [split for split in SPLITS if _table(_mounted(tree, split), split) is not None]


def plan(tree: SourceTree, split: str, options: Options) -> list[SetPlan[PanopticImage]]:
    """Plan the set of one split."""
    mounted = _mounted(tree, split)
    table = _table(mounted, split) or ""
    stem = table.rpartition("/")[2].removesuffix(".json")
    folders = [f"annotations/{stem}", stem, f"annotations/{stem}/{stem}", f"{stem}/{stem}"]
    photographs = [f"{top}{name}" for top, name in product(("", "images/"), _stems(split))]
    return [
        plan_panoptic(
            mounted,
            table,
            png_folders=folders,
            photographs=next(filter(mounted.has_folder, photographs), photographs[0]),
        )
    ]


def _stems(split: str) -> tuple[str, str]:
    return f"{split}2017", split


def _mounted(tree: SourceTree, split: str) -> SourceTree:
    tops = ("", "annotations/")
    return tree.with_archives(
        *(f"{top}{_OUTER}" for top in tops),
        *(f"{top}panoptic_{split}2017.zip" for top in tops),
        f"{split}2017.zip",
        f"images/{split}2017.zip",
    )


def _table(tree: SourceTree, split: str) -> str | None:
    names = (f"{top}panoptic_{s}.json" for top, s in product(("annotations/", ""), _stems(split)))
    return next((name for name in names if name in tree), None)


SOURCE = Source(
    name="coco",
    title="COCO panoptic 2017",
    licence="annotations CC BY 4.0; each photograph under its own Flickr licence",
    splits=SPLITS,
    find=find,
    plan=plan,
    expected="`annotations/panoptic_val2017.json` and `annotations/panoptic_val2017/` "
    f"(or the archive in its place), or `{_OUTER}`; photographs, if any, in `val2017/` or "
    "`val2017.zip`",
    hint=f"http://images.cocodataset.org/annotations/{_OUTER} needs no registration; "
    "pass its folder with `--source`",
)
