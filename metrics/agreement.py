"""How well humans agree, scored as models are: human k + 1 against human k.

Where several humans segmented an image without any score, what one of them saw is taken as the
prediction and another as the truth; the score of an entity is its share of the image.  That is
the level at which a model can no longer be told from one more human.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from entitybench.entity_set import EntitySet
from entitybench.errors import MissingDataError
from entitybench.metrics.bootstrap import DEFAULT_LEVEL, Interval, draws, interval
from entitybench.metrics.evaluation import Evaluation, ImagePair, evaluate
from entitybench.metrics.protocol import STRICT, Protocol
from entitybench.metrics.ranking import RankedColumn, area_column
from entitybench.metrics.records import ImageKey
from entitybench.registry import known_sets, open_entity_set

MIN_IMAGES = 30


@dataclass(frozen=True, slots=True)
class PairAgreement:
    """Human k + 1, as predictions, against human k.

    Attributes:
        human: k, from 1.
        images: Images that both segmented.
        truth: Entities of human k in them.
        predicted: Entities of human k + 1.
        ap: AP_e as a fraction; NaN where there is no true entity.
        interval: Of the bootstrap over images.
        counts: Whether the pair has images enough to enter the mean.
    """

    human: int
    images: int
    truth: int
    predicted: int
    ap: float
    interval: Interval
    counts: bool


@dataclass(frozen=True, slots=True)
class Agreement:
    """Agreement of all pairs of neighbours.

    Attributes:
        pairs: In the order of k.
        mean: Mean AP_e of the pairs that count, as a fraction.
        interval: Of the mean: each resample draws images once, for all pairs.
    """

    pairs: tuple[PairAgreement, ...]
    mean: float
    interval: Interval

    def __str__(self) -> str:
        """Return a table in points."""
        head = "humans     images  truth  predicted   APe  interval"
        rows = [
            f"a{p.human + 1} on a{p.human} {p.images:>8} {p.truth:>6,} {p.predicted:>10,} "
            f"{100 * p.ap:>5.1f}  {_points(p.interval)}{'' if p.counts else '  (not in the mean)'}"
            for p in self.pairs
        ]
        told = f"{self.interval.level:.0%}, {self.interval.resamples:,} resamples"
        mean = f"mean {100 * self.mean:.1f} {_points(self.interval)} ({told})"
        return "\n".join([head, *rows, mean])


def _points(ends: Interval) -> str:
    return f"[{100 * ends.low:.1f}, {100 * ends.high:.1f}]"


def human_agreement(
    data: str | os.PathLike[str] | None = None,
    *,
    source: str = "bsds500",
    splits: Sequence[str] = ("train", "val"),
    protocol: Protocol = STRICT,
    resamples: int = 1000,
    seed: int = 0,
    level: float = DEFAULT_LEVEL,
    min_images: int = MIN_IMAGES,
) -> Agreement:
    """Score each human against the one before, on the images that both segmented.

    Humans have no identity across images: the k-th of one image and the k-th of another may be
    different persons.  Splits are pooled.

    Args:
        data: The data root with the sets `<source>_entity_<split>_a1`, `…_a2`, ….
        source: What the sets' names begin with.
        splits: Which splits.
        protocol: Crowd, void and size rule.
        resamples: Of the bootstrap over images.
        seed: Of its draws.
        level: Of the intervals, in (0, 1).
        min_images: Pairs with fewer images are shown, but do not enter the mean.

    Raises:
        MissingDataError: A split does not have two humans, or no pair has images enough.
    """
    humans = [_humans(data, f"{source}_entity_{split}") for split in splits]
    most = max(map(len, humans), default=0)
    done = [
        evaluate((p for split in humans for p in _pairs(split, k)), protocol)
        for k in range(1, most)
    ]
    counted = [len(evaluation.records) >= min_images for evaluation in done]
    if not any(counted):
        msg = f"no two humans share {min_images} images of {', '.join(splits)}"
        raise MissingDataError(msg)
    samples = _samples(done, resamples, seed)
    pairs = tuple(
        _pair(k, evaluation, interval(values, level, seed), counts=counts)
        for k, (evaluation, values, counts) in enumerate(
            zip(done, samples, counted, strict=True), start=1
        )
    )
    mean = float(np.mean([pair.ap for pair in pairs if pair.counts]))
    return Agreement(pairs, mean, interval(samples[counted].mean(axis=0), level, seed))


def _humans(data: str | os.PathLike[str] | None, stem: str) -> list[EntitySet]:
    """Open the sets of a split, the first human's first."""
    known = known_sets(data)
    names = [f"{stem}_a{k}" for k in range(1, len(known) + 1)]
    found = [open_entity_set(known[name]) for name in names if name in known]
    if len(found) < 2 or [s.header.name for s in found] != names[: len(found)]:
        msg = f"`{stem}_a1`, `{stem}_a2`, … are not all there"
        raise MissingDataError(msg, hint="`entitybench convert bsds500` makes them")
    return found


def _pairs(humans: Sequence[EntitySet], k: int) -> Iterator[ImagePair]:
    """Yield the images that humans k and k + 1 of a split both segmented."""
    if k >= len(humans):
        return
    truths, predictions = humans[k - 1], humans[k]
    shared = set(truths.ids)
    split = truths.header.name.rpartition("_a")[0]  # so that pairs share the keys of images
    for image in predictions:
        if image.id in shared:
            shape = image.map.shape
            shares = image.map.areas[1 : image.map.num_entities + 1] / (shape[0] * shape[1])
            yield ImagePair(image.id, truths[image.id].map, image.map, shares, set_name=split)


def _samples(done: Sequence[Evaluation], resamples: int, seed: int) -> NDArray[np.float64]:
    """Return `(K, resamples)` AP_e of each pair in each draw of the images of all pairs."""
    every: list[ImageKey] = sorted({key for e in done for key in e.records.images})
    place = {key: index for index, key in enumerate(every)}
    owned = [np.array([place[key] for key in e.records.images]) for e in done]
    ranked = [RankedColumn(e.records, area_column(e.records)) for e in done]
    samples = [
        [
            column.average_precision(weights[images]).mean()
            for column, images in zip(ranked, owned, strict=True)
        ]
        for block in draws(len(every), resamples, seed)
        for weights in block
    ]
    return np.array(samples, dtype=np.float64).reshape(resamples, len(done)).T


def _pair(k: int, evaluation: Evaluation, ends: Interval, *, counts: bool) -> PairAgreement:
    counted = evaluation.counts
    ap = evaluation.scores.AP
    return PairAgreement(k, counted.images, counted.truth, counted.predicted, ap, ends, counts)
