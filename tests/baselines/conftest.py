"""What the tests of models share: one thread, and a small batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

from entitybench.baselines.batch import Batch, Images


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
