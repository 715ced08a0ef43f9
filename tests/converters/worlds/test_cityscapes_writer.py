"""Cityscapes: the files to the letter, and the official script makes the truth of them."""

from __future__ import annotations

import contextlib
import io
import json
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from entitybench.converters.cityscapes import _CITIES as REAL_CITIES
from entitybench.converters.worlds.cityscapes_writer import _CITIES, _COLOURS
from entitybench.converters.worlds.vocabulary import CATEGORIES

Reader = Callable[[Path, str], Iterator[Any]]
Maker = Callable[[str], Path]

THINGS = {24, 25, 26, 27, 28, 31, 32, 33}
EVALUATED = THINGS | {7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23}


def picture(root: Path, split: str, stem: str, kind: str) -> Image.Image:
    city = stem.split("_")[0]
    with Image.open(root / "gtFine" / split / city / f"{stem}_gtFine_{kind}.png") as opened:
        opened.load()
        return opened


def test_no_city_is_a_real_one() -> None:
    ours = [city for cities in _CITIES.values() for city in cities]
    assert len(ours) == len(set(ours)) == 5
    assert not set(ours) & {city for cities in REAL_CITIES.values() for city in cities}


@pytest.mark.parametrize("split", ["train", "val"])
def test_instance_ids_hold_the_truth(world: Maker, truths: Reader, split: str) -> None:
    root = world("cityscapes")
    for truth in truths(root, split):
        opened = picture(root, split, truth.stem, "instanceIds")
        assert opened.mode == "I;16"
        values = np.array(opened).astype(int)
        classes = np.where(values >= 1000, values // 1000, values)
        present = [v for v in np.unique(values) if (v // 1000 or v) in EVALUATED]
        entities = [v for v in present if v >= 1000 or v not in THINGS]
        crowds = [v for v in present if v < 1000 and v in THINGS]
        table = np.zeros(values.max() + 1, dtype=int)
        table[entities] = np.arange(1, len(entities) + 1)
        table[crowds] = np.arange(len(entities) + 1, len(entities) + len(crowds) + 1)
        np.testing.assert_array_equal(table[values], truth.ids)
        assert [v // 1000 or v for v in entities] == [e["category_id"] for e in truth.entities]
        assert crowds == [e["category_id"] for e in truth.crowds]
        labels = picture(root, split, truth.stem, "labelIds")
        assert labels.mode == "L"
        np.testing.assert_array_equal(np.array(labels), classes)


def test_the_official_script_makes_the_truth(world: Maker, truths: Reader, tmp_path: Path) -> None:
    script = pytest.importorskip("cityscapesscripts.preparation.createPanopticImgs")
    root = world("cityscapes")
    with contextlib.redirect_stdout(io.StringIO()):
        script.convert2panoptic(str(root / "gtFine"), str(tmp_path), setNames=["train"])
    table = json.loads((tmp_path / "cityscapes_panoptic_train.json").read_text())
    segments = {a["image_id"]: a["segments_info"] for a in table["annotations"]}
    for truth in truths(root, "train"):
        name = f"cityscapes_panoptic_train/{truth.stem}_gtFine_panoptic.png"
        with Image.open(tmp_path / name) as opened:
            channels = np.array(opened).astype(int)
        ids = channels[..., 0] + 256 * channels[..., 1]
        rebuilt = np.zeros_like(ids)
        own = segments[truth.stem]
        order = [s for s in own if not s["iscrowd"]] + [s for s in own if s["iscrowd"]]
        for number, segment in enumerate(order, start=1):
            rebuilt[ids == segment["id"]] = number
        np.testing.assert_array_equal(rebuilt, truth.ids)


def test_names_ids_and_colours_are_the_official_ones() -> None:
    labels = pytest.importorskip("cityscapesscripts.helpers.labels")
    official = {label.id: label for label in labels.labels}
    for category in CATEGORIES["cityscapes"].values():
        label = official[category.id]
        assert (label.name, label.category) == (category.name, category.supercategory)
        assert tuple(label.color) == _COLOURS.get(category.id, (0, 0, 0))
        if category.isthing:
            assert label.hasInstances
            assert not label.ignoreInEval


def test_colour_pictures_show_the_labels(world: Maker, truths: Reader) -> None:
    root = world("cityscapes")
    truth = next(iter(truths(root, "val")))
    colour = picture(root, "val", truth.stem, "color")
    assert colour.mode == "RGBA"
    labels = np.array(picture(root, "val", truth.stem, "labelIds"))
    (road,) = np.unique(np.array(colour)[labels == 7], axis=0)
    assert list(road) == [128, 64, 128, 255]


def test_names_and_photographs(world: Maker, truths: Reader) -> None:
    root = world("cityscapes")
    cities = set()
    for truth in truths(root, "train"):
        assert re.fullmatch(r"[a-z]+_\d{6}_\d{6}", truth.stem)
        city = truth.stem.split("_")[0]
        cities.add(city)
        path = root / "leftImg8bit" / "train" / city / f"{truth.stem}_leftImg8bit.png"
        with Image.open(path) as photograph:
            assert photograph.mode == "RGB"
            assert photograph.size == (128, 64)
    assert len(cities) > 1


def test_polygons_name_what_is_labelled(world: Maker, truths: Reader) -> None:
    root = world("cityscapes")
    names = {c.id: c.name for c in CATEGORIES["cityscapes"].values()}
    groups = 0
    for truth in truths(root, "train"):
        city = truth.stem.split("_")[0]
        path = root / "gtFine" / "train" / city / f"{truth.stem}_gtFine_polygons.json"
        table = json.loads(path.read_text("utf-8"))
        assert (table["imgHeight"], table["imgWidth"]) == (64, 128)
        labels = [o["label"] for o in table["objects"]]
        groups += sum(label.endswith("group") for label in labels)
        wanted = sorted(
            [names[e["category_id"]] for e in truth.entities]
            + [f"{names[e['category_id']]}group" for e in truth.crowds]
        )
        own = [label for label in labels if label not in ("ego vehicle", "rectification border")]
        assert sorted(own) == wanted
        for entry in table["objects"]:
            corners = np.array(entry["polygon"])
            assert (corners >= 0).all()
            assert (corners < [128, 64]).all()
    assert groups > 10


def test_void_classes_and_ignored_vehicles_are_there(world: Maker, truths: Reader) -> None:
    root = world("cityscapes")
    values: set[int] = set()
    for truth in truths(root, "train"):
        values |= set(np.unique(np.array(picture(root, "train", truth.stem, "instanceIds"))))
    assert {0, 1, 2, 4} <= values
    assert 29_000 in values
    assert not {v for v in values if 0 < v < 24} - set(CATEGORIES["cityscapes"])


def test_archives_hold_the_files_of_the_folders(world: Maker) -> None:
    folders, archives = world("cityscapes"), world("cityscapes+archives")
    for top in ("gtFine", "leftImg8bit"):
        with zipfile.ZipFile(archives / f"{top}_trainvaltest.zip") as pack:
            on_disk = sorted(
                path.relative_to(folders).as_posix()
                for path in (folders / top).rglob("*")
                if path.is_file()
            )
            assert sorted(pack.namelist()) == on_disk
            name = pack.namelist()[-1]
            assert pack.read(name) == (folders / name).read_bytes()
