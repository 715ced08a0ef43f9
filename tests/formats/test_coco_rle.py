"""All masks of a map as run-length text in one pass, against pycocotools one by one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from entitybench.entity_map import EntityMap
from entitybench.formats.coco_panoptic import read_panoptic_png
from entitybench.formats.coco_rle import encode_map

Rle = Callable[[Any], dict[str, Any]]


def expected(entity_map: EntityMap, rle: Rle) -> list[str]:
    dense = entity_map.to_array()
    return [rle(dense == number)["counts"] for number in range(1, entity_map.num_ids + 1)]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(st.integers(0, 2**32))
def test_every_text_is_that_of_pycocotools(rle: Rle, seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width, count = (int(n) for n in rng.integers(1, 12, 3))
    array = rng.integers(int(rng.integers(0, 2)), count + 1, (height, width))
    if rng.random() < 0.5:
        array = np.kron(array, np.ones((7, 5), dtype=int))
    ids = list(range(1, count + 3))  # the last two have no pixel
    entity_map = EntityMap.from_array(array, entities=ids[:-1], crowds=ids[-1:])
    assert encode_map(entity_map) == expected(entity_map, rle)


def test_nothing_one_pixel_and_everything(rle: Rle) -> None:
    assert encode_map(EntityMap.from_array(np.zeros((3, 4), int))) == []
    for array, entities in [([[0]], [1]), ([[1]], [1]), ([[1] * 5] * 9, [1]), ([[0, 2]], [1, 2])]:
        entity_map = EntityMap.from_array(array, entities=entities)
        assert encode_map(entity_map) == expected(entity_map, rle)


def test_thousands_of_entities(rle: Rle) -> None:
    ids = np.random.default_rng(0).integers(0, 3000, (100, 120))
    entity_map = EntityMap.from_array(ids)
    assert encode_map(entity_map) == expected(entity_map, rle)


def test_real_maps(realdata: Path, rle: Rle) -> None:
    root = realdata / "coco_panoptic" / "assembled_official_layout" / "annotations"
    pngs = sorted(root.glob("*/*.png"))
    assert pngs
    for png in pngs:
        entity_map = EntityMap.from_array(read_panoptic_png(png))
        assert encode_map(entity_map) == expected(entity_map, rle)
