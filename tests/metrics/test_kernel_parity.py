"""The kernel, from RLE and from maps, gives pycocotools' bits on small adversarial images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from entitybench import kernel
from tests.benchmarks.parity import check


@pytest.mark.skipif(not kernel.is_active(), reason="the kernel is not active")
@pytest.mark.parametrize("seed", range(13))
def test_same_bits_as_pycocotools(seed: int, tmp_path: Path) -> None:
    for number in range(2):  # sets of `IMAGES_PER_SET`: more than a thousand images in all
        check(np.random.default_rng([seed, number]), tmp_path, with_numpy=number == 0)
