"""The object for training loops agrees with `evaluate`, however its images arrive."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from entitybench.entity_map import EntityMap
from entitybench.errors import ConflictError, FormatError
from entitybench.metrics import OFFICIAL, STRICT, Evaluation, ImagePair, Protocol, evaluate
from entitybench.metrics.online import EntityAP

Image = tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]


def images(seed: int = 0, count: int = 6) -> list[Image]:
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        truth = np.kron(rng.integers(0, 5, (3, 4)), np.ones((4, 3), dtype=np.int64))
        prediction = np.roll(truth, int(rng.integers(0, 3)), axis=1)
        made.append((prediction, rng.random(4).round(1), truth))
    return made


def expected(
    made: list[Image], protocol: Protocol = STRICT, crowds: tuple[int, ...] = ()
) -> Evaluation:
    return evaluate(
        [
            ImagePair(
                str(i),
                EntityMap.from_array(truth, crowds=crowds),
                EntityMap.from_array(prediction, entities=range(1, 5)),
                scores,
            )
            for i, (prediction, scores, truth) in enumerate(made)
        ],
        protocol,
    )


def assert_same(a: Evaluation, b: Evaluation) -> None:
    for name in ("precision", "recall", "scores"):
        left, right = getattr(a.curves, name), getattr(b.curves, name)
        np.testing.assert_array_equal(left, right, strict=True)
    assert a.counts == b.counts


@pytest.mark.parametrize("protocol", [STRICT, OFFICIAL])
def test_images_one_by_one(protocol: Protocol) -> None:
    metric = EntityAP(protocol)
    for image in images():
        metric.update(*image)
    assert_same(metric.compute(), expected(images(), protocol))


def test_shards_add_up() -> None:
    shards = [EntityAP(), EntityAP(), EntityAP()]
    for i, image in enumerate(images()):
        shards[i % 3].update(*image, image_id=str(i))
    shards[0].merge(shards[2])
    shards[0].merge(shards[1].records)
    assert_same(shards[0].compute(), expected(images()))
    assert len(shards[0]) == 6
    shards[0].reset()
    assert len(shards[0]) == 0


def test_an_image_in_two_shards_is_refused() -> None:
    one, two = EntityAP(), EntityAP()
    one.update(*images()[0])
    two.update(*images()[0])
    one.merge(two)
    with pytest.raises(ConflictError):
        one.compute()


def test_crowds_and_maps() -> None:
    metric = EntityAP()
    for prediction, scores, truth in images(3):
        entity_map = EntityMap.from_array(prediction, entities=range(1, 5))
        metric.update(entity_map, scores, truth, crowds=[2])
    assert_same(metric.compute(), expected(images(3), crowds=(2,)))


def test_an_id_without_a_score_is_refused() -> None:
    with pytest.raises(FormatError):
        EntityAP().update(np.array([[1, 2]]), [0.5], np.array([[1, 1]]))


class Elsewhere:
    """A tensor on a device, as far as the metric can see: only `cpu()` gives its numbers."""

    class device:
        type = "cuda"

    fetched: list[tuple[int, ...]]

    def __init__(self, values: NDArray[Any], fetched: list[tuple[int, ...]]) -> None:
        self._values, self.fetched = values, fetched
        self.shape = values.shape

    def _like(self, values: Any) -> Any:
        return Elsewhere(np.asarray(values), self.fetched)

    def reshape(self, *shape: int) -> Any:
        return self._like(self._values.reshape(*shape))

    def long(self) -> Any:
        return self._like(self._values.astype(np.int64))

    def bincount(self, minlength: int) -> Any:
        return self._like(np.bincount(self._values, minlength=minlength))

    def max(self) -> int:
        return int(self._values.max())

    def min(self) -> int:
        return int(self._values.min())

    def __mul__(self, other: int) -> Any:
        return self._like(self._values * other)

    def __add__(self, other: Any) -> Any:
        return self._like(self._values + other._values)

    def cpu(self) -> NDArray[Any]:
        self.fetched.append(self.shape)
        return self._values


def test_on_a_device_only_the_table_comes_back() -> None:
    metric, fetched = EntityAP(), list[tuple[int, ...]]()
    for prediction, scores, truth in images(5):
        tensors: list[Any] = [Elsewhere(prediction, fetched), Elsewhere(truth, fetched)]
        metric.update(tensors[0], scores, tensors[1], crowds=[3])
    assert_same(metric.compute(), expected(images(5), crowds=(3,)))
    assert max(shape[0] for shape in fetched) <= 25
    assert all(len(shape) == 1 for shape in fetched)


def test_torch_tensors() -> None:
    torch = pytest.importorskip("torch")
    metric = EntityAP()
    for arrays in images(7):
        metric.update(*(torch.from_numpy(array) for array in arrays))
    assert_same(metric.compute(), expected(images(7)))
