"""Worlds on disk, made once, and the truth beside them, read without the code under test."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from entitybench.converters.worlds import make_world

TRAIN, VAL, SIZE, SEED = 100, 12, 64, 2
Maker = Callable[[str], Path]


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Maker:
    """Return the folder of a world of 100 + 12 scenes, as folders or, on demand, as archives."""
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            kind, _, form = name.partition("+")
            made[name] = tmp_path_factory.mktemp("worlds") / kind
            make_world(
                made[name],
                kind,
                train=TRAIN,
                val=VAL,
                size=SIZE,
                seed=SEED,
                archives=form == "archives",
            )
        return made[name]

    return make


@dataclass
class Truth:
    """One line and one map of `truth/`."""

    stem: str
    row: dict[str, Any]
    ids: NDArray[np.int64]

    @property
    def entities(self) -> list[dict[str, Any]]:
        return list(self.row["entities"])

    @property
    def crowds(self) -> list[dict[str, Any]]:
        return list(self.row["crowds"])


@pytest.fixture(scope="session")
def truths() -> Callable[[Path, str], Iterator[Truth]]:
    """Return what reads the truth of a split."""

    def read(root: Path, split: str) -> Iterator[Truth]:
        for line in (root / "truth" / f"{split}.jsonl").read_text("utf-8").splitlines():
            row = json.loads(line)
            with Image.open(root / "truth" / split / f"{row['id']}.png") as picture:
                assert picture.size == (row["width"], row["height"])
                yield Truth(row["id"], row, np.array(picture).astype(np.int64))

    return read
