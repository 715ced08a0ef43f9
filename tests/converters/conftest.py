"""Small releases in COCO's format, written without the code under test."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from entitybench.archives import close_archives
from tests.small_releases import zipped

Ids = NDArray[np.int64]
CATEGORIES = [
    {"id": 1, "name": "person", "isthing": 1, "supercategory": "person"},
    {"id": 200, "name": "rug-merged", "isthing": 0, "supercategory": "floor"},
]


def panoptic_png(ids: Ids) -> bytes:
    """Encode ids as R + 256 G + 65536 B."""
    rgb = np.stack([ids % 256, ids // 256 % 256, ids // 65_536], axis=-1).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "PNG")
    return file.getvalue()


@dataclass
class Split:
    """The table and the files of one split; tests spoil them before they are written."""

    table: dict[str, Any] = field(
        default_factory=lambda: {
            "info": {},
            "images": [],
            "annotations": [],
            "categories": [dict(category) for category in CATEGORIES],
        }
    )
    pngs: dict[str, bytes] = field(default_factory=dict)
    photographs: dict[str, bytes] = field(default_factory=dict)
    ids: dict[str, Ids] = field(default_factory=dict)

    def add(self, number: int, ids: Ids, *, crowds: tuple[int, ...] = ()) -> None:
        """Add an image; its segments are listed in descending order of their ids."""
        stem, (height, width) = f"{number:012}", ids.shape
        image = {"id": number, "file_name": f"{stem}.jpg", "width": width, "height": height}
        segments = [
            {"id": int(n), "category_id": 1 if n in crowds else 200, "iscrowd": int(n in crowds)}
            for n in np.unique(ids)[::-1]
            if n
        ]
        annotation = {"image_id": number, "file_name": f"{stem}.png", "segments_info": segments}
        self.table["images"].append(image)
        self.table["annotations"].insert(0, annotation)  # another order than that of the images
        self.ids[stem] = ids
        self.pngs[f"{stem}.png"] = panoptic_png(ids)

    def add_photograph(self, number: int, width: int, height: int, mode: str = "RGB") -> None:
        file = io.BytesIO()
        Image.new(mode, (width, height)).save(file, "JPEG")
        self.photographs[f"{number:012}.jpg"] = file.getvalue()

    def expected(self, stem: str) -> tuple[Ids, list[int], list[int]]:
        """Return the converted map, and the ids of entities and crowds, by plain loops."""
        number = int(stem)
        segments = next(
            a["segments_info"] for a in self.table["annotations"] if a["image_id"] == number
        )
        entities = [s["id"] for s in segments if not s["iscrowd"]]
        crowds = [s["id"] for s in segments if s["iscrowd"]]
        new = np.zeros_like(self.ids[stem])
        for place, segment_id in enumerate([*entities, *crowds], start=1):
            new[self.ids[stem] == segment_id] = place
        return new, entities, crowds


@dataclass
class Release:
    """A COCO release of some splits."""

    splits: dict[str, Split] = field(default_factory=dict)

    @property
    def val(self) -> Split:
        return self.splits["val"]

    def files(
        self,
        table: str = "annotations/panoptic_{split}2017.json",
        pngs: str = "annotations/panoptic_{split}2017/",
        photographs: str = "{split}2017/",
    ) -> dict[str, bytes]:
        """Return every file by its name, in the layout that the templates tell."""
        files: dict[str, bytes] = {}
        for name, split in self.splits.items():
            files[table.format(split=name)] = json.dumps(split.table).encode()
            folder = pngs.format(split=name)
            files |= {folder + png: data for png, data in split.pngs.items()}
            folder = photographs.format(split=name)
            files |= {folder + photograph: data for photograph, data in split.photographs.items()}
        return files

    def write(self, root: Path, **layout: str) -> Path:
        """Write it unpacked."""
        return write_files(root, self.files(**layout))

    def write_archives(self, root: Path, inner: int, outer: int) -> Path:
        """Write it as the official archives are: PNGs in zips inside a zip."""
        root.mkdir(parents=True, exist_ok=True)
        members: dict[str, bytes] = {}
        for name, split in self.splits.items():
            members[f"annotations/panoptic_{name}2017.json"] = json.dumps(split.table).encode()
            pngs = {f"panoptic_{name}2017/{png}": data for png, data in split.pngs.items()}
            litter = {f"__MACOSX/panoptic_{name}2017/._x.png": b"litter"}
            members[f"annotations/panoptic_{name}2017.zip"] = zipped(pngs | litter, inner)
            photographs = {f"{name}2017/{n}": data for n, data in split.photographs.items()}
            (root / f"{name}2017.zip").write_bytes(zipped(photographs, zipfile.ZIP_STORED))
        members["__MACOSX/annotations/._panoptic_val2017.json"] = b"litter"
        archive = root / "panoptic_annotations_trainval2017.zip"
        archive.write_bytes(zipped(members, outer))
        return root


def write_files(root: Path, files: dict[str, bytes]) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def scene(seed: int, shape: tuple[int, int] = (24, 32), most: int = 2**24 - 1) -> Ids:
    """Blocks of large ids, with void between."""
    random = np.random.default_rng(seed)
    ids = random.choice(np.arange(1, most, 997), size=7, replace=False)
    coarse = random.choice([0, *ids], size=(shape[0] // 4, shape[1] // 4))
    blocks: Ids = np.kron(coarse, np.ones((4, 4), dtype=np.int64)).astype(np.int64)
    return blocks


@pytest.fixture
def release() -> Release:
    """Three images of val with two photographs, two of train; one crowd."""
    made = Release({"train": Split(), "val": Split()})
    for number in (10_009, 9, 700):
        ids = scene(number)
        crowds = (int(ids.max()),) if number == 700 else ()
        made.val.add(number, ids, crowds=crowds)
    for number in (9, 700):
        made.val.add_photograph(number, 32, 24)
    for number in (5, 6):
        made.splits["train"].add(number, scene(number, (16, 8)))
    return made


@pytest.fixture(scope="session")
def new_release() -> Callable[[int], Release]:
    """Make a release of many small images of val."""

    def make(count: int) -> Release:
        split = Split()
        for number in range(1, count + 1):
            split.add(number, scene(number, (12, 16)))
        return Release({"val": split})

    return make


@pytest.fixture
def files_of() -> Callable[[Path], dict[str, bytes]]:
    """Read a folder: every file but `local.json`, which tells where a source was."""

    def read(folder: Path) -> dict[str, bytes]:
        return {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file() and path.name != "local.json"
        }

    return read


@pytest.fixture(autouse=True)
def _nothing_stays_open() -> Iterator[None]:
    yield
    close_archives()
