"""Parity with pycocotools on many adversarial images: `python -m tests.benchmarks.parity`.

Maps of a few pixels, where IoUs of exactly 1/2, 3/5, 3/4, … are the rule, ties of scores are
many, masks are empty, crowds are half of everything, and images have more than 100 predictions.
Each set is scored by pycocotools from its RLE, and by the kernel in three ways: from the same
RLE, from the maps, and with NumPy alone (a share of them). Arrays must agree to the bit.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from entitybench import kernel
from entitybench.compiled_truth import (
    Masks,
    PixelOrder,
    TruthImage,
    compile_maps,
    open_compiled,
)
from entitybench.entity_map import EntityMap
from entitybench.metrics import STRICT, Curves, ImagePair, accumulate, evaluate
from entitybench.metrics.fused import match_masks

Labels = NDArray[np.int64]
IMAGES_PER_SET = 40


def an_image(random: np.random.Generator) -> tuple[Labels, int, Labels, NDArray[np.float64]]:
    """Return true labels, the number of crowds, predicted labels and scores."""
    shape = (int(random.integers(1, 5)), int(random.integers(2, 41)))
    fate = random.random()
    if fate < 0.45:  # bars of a few pixels
        truth, prediction = (_bars(random, shape) for _ in "ab")
    elif fate < 0.6:  # halves and doubles
        bars = np.repeat(np.arange(1, shape[1] // 4 + 2), 4)[: shape[1]]
        halves = np.repeat(np.arange(1, shape[1] // 2 + 2), 2)[: shape[1]]
        pair = (bars, halves) if random.random() < 0.5 else (halves, bars)
        truth, prediction = (np.tile(row, (shape[0], 1)) for row in pair)
    elif fate < 0.65:  # more than 100 predictions
        shape = (12, 12)
        truth, prediction = random.permutation(144).reshape(shape), random.permutation(144)
        prediction = prediction.reshape(shape) * (random.random(shape) < 0.95)
    else:
        most = int(random.integers(1, 8))
        truth, prediction = (random.integers(0, most, shape) for _ in "ab")
    truth, prediction = truth.astype(np.int64), prediction.astype(np.int64)
    num_predicted = int(prediction.max()) + int(random.integers(0, 2))
    scores = random.random(num_predicted).round(int(random.choice([1, 2, 16])))
    num_true = int(truth.max())
    num_crowds = int(random.integers(0, num_true + 1)) if random.random() < 0.4 else 0
    return truth, num_crowds, prediction, scores


def _bars(random: np.random.Generator, shape: tuple[int, int]) -> Labels:
    row = np.repeat(np.arange(shape[1]), random.integers(1, 6, shape[1]))[: shape[1]]
    return np.tile(row.astype(np.int64), (shape[0], 1))


def _rle(mask: NDArray[np.bool_]) -> dict[str, Any]:
    found: dict[str, Any] = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return found


def a_set(random: np.random.Generator) -> tuple[list[ImagePair], list[Any], list[Any]]:
    """Return pairs of maps, and the same as COCO annotations and results."""
    pairs: list[ImagePair] = []
    annotations: list[Any] = []
    results: list[Any] = []
    for number in range(1, IMAGES_PER_SET + 1):
        truth, num_crowds, prediction, scores = an_image(random)
        num_true = int(truth.max())
        ids = range(1, num_true + 1)
        entities = ids[: num_true - num_crowds]
        true_map = EntityMap.from_array(truth, entities=entities, crowds=ids[len(entities) :])
        sizes = random.choice([10.0, 1024.0, 1024.5, 9216.0, 9217.0], len(entities))
        predicted = EntityMap.from_array(prediction, entities=range(1, len(scores) + 1))
        pairs.append(ImagePair(str(number), true_map, predicted, scores, sizes))
        for i in ids:
            area = float(sizes[i - 1]) if i <= len(entities) else 7.0
            row = {"id": len(annotations) + 1, "image_id": number, "category_id": 1, "area": area}
            crowd = int(i > len(entities))
            annotations.append({**row, "iscrowd": crowd, "segmentation": _rle(truth == i)})
        results += [
            {
                "image_id": number,
                "category_id": 1,
                "segmentation": _rle(prediction == i),
                "score": score,
            }
            for i, score in enumerate(scores.tolist(), start=1)
        ]
    return pairs, annotations, results


def by_pycocotools(annotations: list[Any], results: list[Any]) -> list[NDArray[np.float64]]:
    """Return precision, recall and scores."""
    coco = COCO()
    images = [{"id": n, "height": 1, "width": 1} for n in range(1, IMAGES_PER_SET + 1)]
    coco.dataset = {"images": images, "annotations": annotations, "categories": [{"id": 1}]}
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        found = COCOeval(coco, coco.loadRes(results), "segm")
        found.evaluate()
        found.accumulate()
    arrays = [found.eval[name] for name in ("precision", "recall", "scores")]
    return [arrays[0][:, :, 0], arrays[1][:, 0], arrays[2][:, :, 0]]


def by_text(pairs: list[ImagePair], results: list[Any], folder: Path) -> Curves:
    """Score the RLE with the kernel."""
    path = folder / "truth.runs"
    path.unlink(missing_ok=True)
    with path.open("wb") as file:
        images = (_true_image(pair) for pair in pairs)
        compile_maps(images, PixelOrder.COLUMNS, file)
    texts = [r["segmentation"]["counts"] for r in results]
    lengths = np.array([len(t) for t in texts], dtype=np.uint32)
    counts = np.bincount([r["image_id"] for r in results], minlength=len(pairs) + 1)[1:]
    masks = Masks(
        b"".join(texts),
        b"",
        np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))[:-1],
        lengths,
        np.full(len(texts), kernel.SEGMENT_TEXT, dtype=np.uint8),
        np.array([r["score"] for r in results]),
        np.concatenate(([0], np.cumsum(counts))),
    )
    done = match_masks(open_compiled(path), masks, STRICT.with_annotated_sizes())
    if done.left:
        msg = f"overlap where there is none: {sorted(done.left)}"
        raise AssertionError(msg)
    return accumulate(done.records)


def _true_image(pair: ImagePair) -> TruthImage:
    crowds = np.zeros(pair.truth.num_crowds)
    sizes = np.asarray(pair.annotated_sizes, dtype=np.float64)
    return TruthImage(pair.image_id, pair.truth, np.concatenate((sizes, crowds)))


def check(random: np.random.Generator, folder: Path, *, with_numpy: bool) -> None:
    """Score one set in every way.

    Raises:
        AssertionError: An array differs.
    """
    pairs, annotations, results = a_set(random)
    expected = by_pycocotools(annotations, results)
    protocol = STRICT.with_annotated_sizes()
    found = {"text": by_text(pairs, results, folder), "maps": evaluate(pairs, protocol).curves}
    if with_numpy:
        kernel._active = False
        found["numpy"] = evaluate(pairs, protocol).curves
        kernel._active = True
    for way, curves in found.items():
        for name, ours, theirs in zip("prs", curves.with_coco_sentinels(), expected, strict=True):
            np.testing.assert_array_equal(ours, theirs, err_msg=f"{way} {name}")


@click.command()
@click.option("--images", default=100_000, show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(images: int, seed: int) -> None:
    """Compare on that many images; a difference ends the process."""
    if not kernel.is_active():
        raise click.ClickException(kernel.describe())
    sets = -(-images // IMAGES_PER_SET)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(sets):
            random = np.random.default_rng([seed, number])
            check(random, Path(folder), with_numpy=number % 10 == 0)
    click.echo(f"{sets * IMAGES_PER_SET:,} images in {sets:,} sets: every bit equal")


if __name__ == "__main__":
    main()
