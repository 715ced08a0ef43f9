"""Invented scenes whose maps cost an evaluator what COCO's cost.

A scene is a truth map (warped Voronoi "stuff" under noisy blobs, some void, some crowds) and
a prediction made from it: displaced by noise, split by a second Voronoi diagram, merged,
dropped, with extra blobs.  Boundaries are as rough as real annotations, so that the numbers
of runs and of RLE characters are those of COCO and of a model run on it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# width, height, share: COCO's own mix, mean 277,000 pixels
SIZES = (
    ((640, 480), 0.34),
    ((640, 427), 0.22),
    ((480, 640), 0.13),
    ((427, 640), 0.08),
    ((500, 375), 0.08),
    ((640, 425), 0.05),
    ((375, 500), 0.05),
    ((640, 360), 0.03),
    ((612, 612), 0.02),
)
MIN_AREA = 12  # pixels; smaller scraps become void

Labels = NDArray[np.int32]
Field = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Scene:
    """One image of the benchmark set.

    Attributes:
        truth: `(H, W)` int32; 0 void, `1…N` entities, `N+1…N+C` crowds.
        num_crowds: C.
        prediction: `(H, W)` int32; 0 void, `1…P`.
        scores: `(P,)` float64 in [0, 1].
    """

    truth: Labels
    num_crowds: int
    prediction: Labels
    scores: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a scene is made of; the default has COCO's statistics.

    Attributes:
        size: Width and height in pixels; None draws from `SIZES`.
        entities: About how many true entities, small where they are many, and no end of predicted
            ones; None for COCO's spread and at most 100 predictions.
    """

    size: tuple[int, int] | None = None
    entities: int | None = None


def make_scene(seed: int, index: int, recipe: Recipe | None = None) -> Scene:
    """Draw scene `index` of the set `seed`; the same arguments give the same scene."""
    chosen = recipe or Recipe()
    rng = np.random.default_rng([seed, index])
    width, height = chosen.size or _draw_size(rng)
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    truth, num_crowds = _truth(rng, x, y, chosen.entities)
    prediction = _prediction(rng, x, y, truth, 100 if chosen.entities is None else None)
    scores = _scores(rng, truth, prediction)
    if index % 2:
        scores = scores.round(3)  # ties
    if rng.random() < 0.01:
        truth, num_crowds = np.zeros_like(truth), 0
    if rng.random() < 0.004:
        prediction, scores = np.zeros_like(prediction), scores[:0]
    return Scene(truth, num_crowds, prediction, scores)


def _draw_size(rng: np.random.Generator) -> tuple[int, int]:
    shares = np.array([share for _, share in SIZES])
    return SIZES[rng.choice(len(SIZES), p=shares / shares.sum())][0]


def _noise(rng: np.random.Generator, shape: tuple[int, int], cell: int, amplitude: float) -> Field:
    """Smooth noise: normal values on a grid of `cell` pixels, interpolated between."""
    rows, columns = shape[0] // cell + 2, shape[1] // cell + 2
    grid = rng.standard_normal((rows, columns), dtype=np.float32) * np.float32(amplitude)
    return _blend(shape[0], cell, rows) @ grid @ _blend(shape[1], cell, columns).T


def _blend(pixels: int, cell: int, nodes: int) -> Field:
    """`(pixels, nodes)` linear interpolation weights."""
    place = np.arange(pixels) / cell
    node = place.astype(int)
    weights = np.zeros((pixels, nodes), dtype=np.float32)
    weights[np.arange(pixels), node] = 1 - (place - node)
    weights[np.arange(pixels), node + 1] = place - node
    return weights


def _warp(
    rng: np.random.Generator, x: Field, y: Field, octaves: tuple[tuple[int, float], ...]
) -> tuple[Field, Field]:
    dx, dy = np.zeros_like(x), np.zeros_like(y)
    for cell, amplitude in octaves:
        dx += _noise(rng, (x.shape[0], x.shape[1]), cell, amplitude)
        dy += _noise(rng, (x.shape[0], x.shape[1]), cell, amplitude)
    return x + dx, y + dy


def _voronoi(rng: np.random.Generator, x: Field, y: Field, cells: int) -> Labels:
    """`(H, W)` nearest of `cells` random seeds, from 0."""
    height, width = x.shape
    seeds = rng.random((cells, 2), dtype=np.float32) * np.array([width, height], dtype=np.float32)
    best = np.full(x.shape, np.inf, dtype=np.float32)
    owner = np.zeros(x.shape, dtype=np.int32)
    for number, (sx, sy) in enumerate(seeds):
        distance = (x - sx) ** 2 + (y - sy) ** 2
        nearer = distance < best
        best[nearer] = distance[nearer]
        owner[nearer] = number
    return owner


def _paint_blob(
    rng: np.random.Generator, labels: Labels, x: Field, y: Field, radius: float, value: int
) -> None:
    height, width = labels.shape
    cx, cy = rng.random() * width, rng.random() * height
    rx, ry = radius * rng.uniform(0.6, 1.6), radius * rng.uniform(0.6, 1.6)
    reach = 1.3 * max(rx, ry) + 20
    rows = slice(max(0, int(cy - reach)), max(0, int(cy + reach)))
    columns = slice(max(0, int(cx - reach)), max(0, int(cx + reach)))
    dx, dy = (x[rows, columns] - cx) / rx, (y[rows, columns] - cy) / ry
    labels[rows, columns][dx * dx + dy * dy < 1] = value


def _truth(
    rng: np.random.Generator, x: Field, y: Field, entities: int | None
) -> tuple[Labels, int]:
    wx, wy = _warp(rng, x, y, ((120, 25), (30, 7), (8, 2.4), (3, 0.8)))
    many = float(entities) if entities else min(42.0, rng.lognormal(2.18, 0.52))
    stuff = max(1, round(many * 0.45))
    labels = _voronoi(rng, wx, wy, stuff + 2)
    labels[labels == stuff] = 0 if stuff > 1 else 1  # one entity in two parts
    labels = np.where(labels == stuff + 1, 0, labels + 1).astype(np.int32)  # one void cell
    side = float(np.sqrt(labels.size))
    side *= float(np.sqrt(10 / entities)) if entities else 1  # else blobs would hide one another
    crowd_ids = []
    for value in range(stuff + 1, stuff + 1 + round(many * 0.66)):
        radius = min(0.3 * side, float(rng.lognormal(np.log(side * 0.055), 0.8)))
        _paint_blob(rng, labels, wx, wy, radius, value)
        if rng.random() < 0.02:
            crowd_ids.append(value)
    return _renumbered(labels, crowd_ids)


def _renumbered(labels: Labels, crowd_ids: list[int]) -> tuple[Labels, int]:
    """Drop scraps, then number entities first and crowds last, without gaps."""
    areas = np.bincount(labels.ravel())
    kept = [v for v in np.flatnonzero(areas >= MIN_AREA).tolist() if v]
    crowds = [v for v in kept if v in crowd_ids]
    order = [v for v in kept if v not in crowd_ids] + crowds
    table = np.zeros(areas.size, dtype=np.int32)
    table[order] = np.arange(1, len(order) + 1)
    return table[labels], len(crowds)


def _prediction(
    rng: np.random.Generator, x: Field, y: Field, truth: Labels, most: int | None
) -> Labels:
    height, width = truth.shape
    wx, wy = _warp(rng, x, y, ((60, 3.5), (15, 2.0), (5, 1.15)))
    seen = truth[
        np.clip(wy.round().astype(np.int32), 0, height - 1),
        np.clip(wx.round().astype(np.int32), 0, width - 1),
    ]
    num_true = int(truth.max())
    cells = max(2, round(rng.lognormal(2.25, 0.42)))
    parts = _voronoi(rng, wx, wy, cells)
    split = rng.random(num_true + 1) < 0.36
    merged = np.where(rng.random(num_true + 1) < 0.10, rng.integers(0, num_true + 1), -1)
    owner = np.where(merged >= 0, merged, np.arange(num_true + 1))[seen]
    labels = (owner * cells + np.where(split[owner], parts, 0)).astype(np.int32)
    labels[(seen == 0) & (parts % 2 == 0)] = 0
    next_label = int(labels.max()) + 1
    for value in range(next_label, next_label + int(rng.poisson(rng.lognormal(2.55, 0.5)))):
        _paint_blob(rng, labels, wx, wy, float(rng.lognormal(2.6, 0.6)), value)
    dropped = rng.random(int(labels.max()) + 1) < 0.08
    return _shuffled(rng, np.where(dropped[labels], 0, labels).astype(np.int32), most)


def _shuffled(rng: np.random.Generator, labels: Labels, most: int | None) -> Labels:
    areas = np.bincount(labels.ravel())
    kept = np.flatnonzero(areas >= MIN_AREA)
    kept = rng.permutation(kept[kept > 0])[:most]
    table = np.zeros(areas.size, dtype=np.int32)
    table[kept] = np.arange(1, kept.size + 1)
    return table[labels]


def _scores(rng: np.random.Generator, truth: Labels, prediction: Labels) -> NDArray[np.float64]:
    """Return the best IoU of each predicted entity, with noise."""
    rows, columns = int(truth.max()) + 1, int(prediction.max()) + 1
    pairs = np.bincount(truth.ravel() * columns + prediction.ravel(), minlength=rows * columns)
    shared = pairs.reshape(rows, columns)
    union = shared.sum(axis=1)[:, None] + shared.sum(axis=0)[None] - shared
    best = (shared[1:, 1:] / union[1:, 1:]).max(axis=0, initial=0.0)
    noisy = 0.75 * best + 0.15 + rng.normal(0.0, 0.12, best.size)
    scores: NDArray[np.float64] = np.clip(noisy, 0.001, 0.999)
    return scores
