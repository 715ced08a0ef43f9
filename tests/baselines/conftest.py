"""What the tests of models share: one thread, and a small batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from entitybench.baselines.batch import Batch, Images
from entitybench.converters.conversion import convert_source
from entitybench.converters.worlds import make_world


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def make_batch() -> Callable[[torch.Tensor], Batch]:
    """Make a batch of noise around given id maps; slots as many as ids."""

    def make(ids: torch.Tensor, slots: int = 0) -> Batch:
        count, height, width = ids.shape
        slots = slots or int(ids.max())
        generator = torch.Generator().manual_seed(0)
        pixels = torch.rand(count, 3, height, width, generator=generator) * 255
        sizes = torch.tensor([[height, width]] * count)
        return Batch(
            Images(pixels, sizes),
            ids,
            torch.zeros(count, slots, dtype=torch.bool),
            torch.zeros(count, slots, dtype=torch.int64),
            torch.arange(count),
        )

    return make


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with two generated sets of a dozen small scenes, and their photographs."""
    root = tmp_path_factory.mktemp("world")
    for name in ("coco", "ade20k"):
        make_world(root / name, name, train=12, val=4, size=64, seed=3)
        convert_source(name, root / name, root / "data")
    return root / "data"
