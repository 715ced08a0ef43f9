from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from entitybench.baselines.sampling import Epochs, shares
from entitybench.baselines.settings import Data


def epochs(sizes: list[int], batch: int = 4, seed: int = 0, **data: object) -> Epochs:
    upright = np.arange(sum(sizes)) % 3 == 0
    settings = {"group": False, **data}
    return Epochs(sizes, upright, batch, Data(**settings), seed)  # type: ignore[arg-type]


def drawn(of: Epochs, epoch: int) -> list[int]:
    steps = range(epoch * of.steps_per_epoch, (epoch + 1) * of.steps_per_epoch)
    return [draw.image for step in steps for draw in of.step(step)]


def test_the_papers_budget() -> None:
    """138,497 images whatever is trained on: COCO alone repeats some, the union takes all."""
    assert shares([118_287, 20_210], "size", 138_497) == [118_287, 20_210]
    assert shares([20_210], "size", 138_497) == [138_497]
    of = Epochs([20_210], np.zeros(20_210, bool), 1, Data(group=False, budget=138_497), 0)
    counts = Counter(of._pool.tolist())
    assert sum(counts.values()) == 138_497
    assert set(counts.values()) == {6, 7}


def test_an_epoch_shows_every_image_once() -> None:
    of = epochs([8, 4])
    assert of.steps_per_epoch == 3
    assert sorted(drawn(of, 0)) == sorted(drawn(of, 5)) == list(range(12))
    assert drawn(of, 0) != drawn(of, 1)
    assert of.step(7)[0].epoch == 2


def test_equal_balance_gives_each_set_its_share() -> None:
    counts = Counter(image >= 30 for image in drawn(epochs([30, 10], balance="equal"), 0))
    assert counts == {False: 20, True: 20}


def test_steps_depend_on_the_seed_alone() -> None:
    forward, backward = epochs([20]), epochs([20])
    there = [forward.step(k) for k in range(12)]
    back = [backward.step(k) for k in reversed(range(12))]
    assert there == back[::-1]
    assert there != [epochs([20], seed=1).step(k) for k in range(12)]


@pytest.mark.parametrize("epoch", [0, 1, 2])
def test_grouped_batches_hold_one_orientation(epoch: int) -> None:
    of = epochs([50], group=True)
    assert of.steps_per_epoch == 12
    mixed = 0
    for step in range(epoch * 12, (epoch + 1) * 12):
        kinds = {draw.image % 3 == 0 for draw in of.step(step)}
        mixed += len(kinds) == 2
    assert mixed <= 1
    assert len(set(drawn(of, epoch))) == 48


def test_a_handful_of_images_makes_a_batch() -> None:
    of = epochs([3], batch=8)
    assert of.steps_per_epoch == 1
    assert Counter(drawn(of, 0)) in ({0: 3, 1: 3, 2: 2}, {0: 3, 1: 2, 2: 3}, {0: 2, 1: 3, 2: 3})
