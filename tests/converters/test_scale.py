"""Conversions at full size: many images in flat memory, large maps, many regions."""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

from entitybench.converters import convert
from entitybench.entity_set import open_path
from entitybench.errors import FormatError

Release = Any  # tests/converters/conftest.py: tests cannot import one another
NewRelease = Callable[[int], Release]
_T = TypeVar("_T")

PAGE = 4096
TRAIN = 118_287  # images of COCO train: more than a zip's 16-bit count can tell
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def resident() -> int:
    """Return the bytes of memory that this process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


class Gauge:
    """A progress bar that reads the memory instead."""

    def __init__(self) -> None:
        self.samples: list[int] = []

    def __call__(self, items: Iterable[_T], *, total: int, unit: str, label: str) -> Iterator[_T]:
        for number, item in enumerate(items):
            if number % max(1, total // 50) == 0:
                self.samples.append(resident())
            yield item

    def growth(self) -> int:
        """Return how much was added after the first fifth."""
        settled = self.samples[: len(self.samples) // 5]
        return max(self.samples) - max(settled)


def nested_zips(root: Path, release: Release, count: int) -> Path:
    """Write a release of many images from one of few, as the official archive nests them."""
    images, annotations = release.val.table["images"], release.val.table["annotations"]
    of_image = {annotation["image_id"]: annotation for annotation in annotations}
    table: dict[str, Any] = {**release.val.table, "images": [], "annotations": []}
    root.mkdir(parents=True)
    inner = root / "inner.zip"
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_STORED) as archive:
        for number in range(1, count + 1):
            image = images[number % len(images)]
            stem, annotation = f"{number:012}", of_image[image["id"]]
            table["images"].append({**image, "id": number, "file_name": f"{stem}.jpg"})
            name = {"image_id": number, "file_name": f"{stem}.png"}
            table["annotations"].append({**annotation, **name})
            png = release.val.pngs[annotation["file_name"]]
            archive.writestr(f"panoptic_val2017/{stem}.png", png)
    outer = root / "panoptic_annotations_trainval2017.zip"
    with zipfile.ZipFile(outer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("annotations/panoptic_val2017.json", json.dumps(table))
        archive.write(inner, "annotations/panoptic_val2017.zip")
    inner.unlink()
    return root


def converted_in_flat_memory(root: Path, out: Path, count: int, most: int) -> None:
    gauge = Gauge()
    (summary,) = convert("coco", root, out, progress=gauge)
    assert summary.images == count
    written = open_path(summary.path)
    assert sum(1 for _ in written.rows()) == count
    last = written[f"{count:012}"]
    assert last.map.num_entities == len(last.row.entities) > 0
    assert gauge.growth() < most, f"{gauge.growth() / 1e6:.1f} MB"


@linux
def test_memory_does_not_grow_with_the_images(new_release: NewRelease, tmp_path: Path) -> None:
    root = nested_zips(tmp_path / "coco", new_release(5), 3_000)
    converted_in_flat_memory(root, tmp_path / "out", 3_000, 12_000_000)


@linux
@pytest.mark.slow
def test_all_of_coco_train_in_flat_memory(new_release: NewRelease, tmp_path: Path) -> None:
    """What stays of an image is its id, the name of its map and its digest: 0.4 KB."""
    root = nested_zips(tmp_path / "coco", new_release(5), TRAIN)
    converted_in_flat_memory(root, tmp_path / "out", TRAIN, 64_000_000)


def street(seed: int, shape: tuple[int, int] = (1024, 2048)) -> Any:
    """A map as large as Cityscapes': blocks of 60 ids, with ragged edges."""
    random = np.random.default_rng(seed)
    ids = random.choice(np.arange(1, 2**24, 9973), size=60, replace=False)
    coarse = random.choice([0, *ids], size=(shape[0] // 32, shape[1] // 32))
    fine = np.kron(coarse, np.ones((32, 32), dtype=np.int64)).astype(np.int64)
    shifts = random.integers(-3, 4, shape[0])
    rows = [np.roll(row, shift) for row, shift in zip(fine, shifts, strict=True)]
    return np.stack(rows)


def large_maps_keep_every_pixel(
    release: Release, tmp_path: Path, numbers: Iterable[int], jobs: int
) -> None:
    for number in numbers:
        release.val.add(number, street(number))
    root = release.write(tmp_path / "coco")
    (summary,) = convert("coco", root, tmp_path / "out", splits=["val"], jobs=jobs)
    written = open_path(summary.path)
    for number in numbers:
        stem = f"{number:012}"
        expected, entities, _ = release.val.expected(stem)
        assert np.array_equal(written[stem].map.to_array(), expected)
        assert [row.source_id for row in written[stem].row.entities] == entities


def test_a_map_of_2048_by_1024(release: Release, tmp_path: Path) -> None:
    large_maps_keep_every_pixel(release, tmp_path, [1], jobs=1)


@pytest.mark.slow
def test_many_maps_of_2048_by_1024(release: Release, tmp_path: Path) -> None:
    large_maps_keep_every_pixel(release, tmp_path, range(100, 130), jobs=2)


def test_an_image_of_300_regions_is_kept_in_16_bits(release: Release, tmp_path: Path) -> None:
    ids = np.zeros((40, 320), dtype=np.int64)
    ids[4:, :300] = np.arange(1, 301) * 55_001 % 2**24
    release.val.add(1, ids, crowds=(int(ids[10, 299]),))
    root = release.write(tmp_path / "coco")
    (summary,) = convert("coco", root, tmp_path / "out", splits=["val"])
    image = open_path(summary.path)["000000000001"]
    expected, _, _ = release.val.expected("000000000001")
    assert np.array_equal(image.map.to_array(), expected)
    assert (image.map.num_entities, image.map.num_crowds) == (299, 1)
    assert image.store.read(image.row.map)[24:26] == bytes([16, 0])  # 16 bits, gray


@pytest.mark.parametrize(("regions", "fits"), [(65_535, True), (65_536, False), (70_000, False)])
def test_as_many_regions_as_16_bits_can_tell(
    release: Release, tmp_path: Path, regions: int, fits: bool
) -> None:
    ids = np.zeros(250 * 300, dtype=np.int64)
    ids[:regions] = np.arange(1, regions + 1)
    release.val.add(1, ids.reshape(250, 300))
    root = release.write(tmp_path / "coco")
    if fits:
        (summary,) = convert("coco", root, tmp_path / "out", splits=["val"])
        written = open_path(summary.path)["000000000001"]
        assert np.all(written.map.areas == [250 * 300 - regions, *[1] * regions])
        return
    with pytest.raises(FormatError) as caught:
        convert("coco", root, tmp_path / "out", splits=["val"])
    assert str(caught.value) == (
        f"{regions:,} ids do not fit into a 16-bit map (at most 65,535)\n  --> image 000000000001"
    )
    assert not (tmp_path / "out" / "coco_entity_val" / "entity_set.json").exists()
