"""The converters read the worlds and find the truth that lies beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from entitybench.converters.conversion import convert_source
from entitybench.converters.source import known_sources
from entitybench.converters.worlds import WORLDS
from entitybench.photographs import GENERATED
from entitybench.registry import open_entity_set

SOURCES = sorted(set(WORLDS) & set(known_sources()))


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("form", ["folders", "archives"])
def test_the_converter_finds_the_truth(
    world: Callable[[str], Path],
    truths: Callable[[Path, str], Iterator[Any]],
    source: str,
    form: str,
    tmp_path: Path,
) -> None:
    root = world(source if form == "folders" else f"{source}+archives")
    convert_source(source, root, tmp_path)
    for split in ("train", "val"):
        converted = open_entity_set(f"{source}_entity_{split}", tmp_path)
        assert converted.header.licence == GENERATED
        wanted = list(truths(root, split))
        assert set(converted.ids) == {truth.stem for truth in wanted}
        for truth in wanted:
            image = converted[truth.stem]
            np.testing.assert_array_equal(image.map.to_array(), truth.ids, err_msg=truth.stem)
            for told, rows in (
                (truth.entities, image.row.entities),
                (truth.crowds, image.row.crowd),
            ):
                assert [row.isthing for row in rows] == [entity["isthing"] for entity in told]


def test_photographs_are_found(world: Callable[[str], Path], tmp_path: Path) -> None:
    for source in SOURCES:
        (summary,) = convert_source(source, world(source), tmp_path, splits=["val"])
        assert (summary.images, summary.photographs_absent) == (12, 0)
