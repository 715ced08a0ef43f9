"""Broken bytes make the kernel refuse, and nothing else."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from entitybench import kernel
from tests.benchmarks.fuzz import TARGETS, little_memory, run

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(not kernel.is_active(), reason="the kernel is not active")


def test_a_few_seconds_of_fuzzing() -> None:
    counts = run(seconds=4, seed=1)
    assert len(counts) == len(TARGETS)
    for cases, refused in counts.values():
        assert 0 < refused < cases  # neither all broken nor all whole


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_fuzzing_notices_who_takes_too_much_memory() -> None:
    with little_memory(), pytest.raises(MemoryError):
        np.ones(1 << 31, dtype=np.uint8)
    assert len(np.empty(1 << 31, dtype=np.uint8)) == 1 << 31  # the limit is gone


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs gcc's sanitizers")
def test_the_sanitizers_find_nothing() -> None:
    if shutil.which("gcc") is None:
        pytest.skip("no gcc")
    script = ROOT / "tests" / "kernel_sanitizers.sh"
    done = subprocess.run(
        [script, "30", sys.executable], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
