"""Humans against humans: which images, which scores, which interval."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from entitybench.converters import convert
from entitybench.entity_set import open_path
from entitybench.entity_writer import EntityWriter
from entitybench.errors import MissingDataError
from entitybench.metrics.accumulation import accumulate
from entitybench.metrics.agreement import Agreement, human_agreement
from entitybench.metrics.benchmark import evaluate
from entitybench.metrics.bootstrap import draws
from entitybench.metrics.evaluation import ImagePair
from entitybench.metrics.evaluation import evaluate as evaluate_pairs
from entitybench.metrics.scores import summarize
from tests.pycocotools_oracle import coco_results, pycocotools_stats
from tests.small_releases import Files, bsds500, write

Drawing = NDArray[np.int64]
PAGE = Path(__file__).parents[2] / "docs" / "sources" / "bsds500.md"


def seen(rng: np.random.Generator, image: Drawing) -> Drawing:
    """What one more human sees: some pieces joined, a border moved."""
    new = np.where(rng.random(image.max() + 1) < 0.3, 1, np.arange(image.max() + 1))[image]
    moved = np.roll(new, rng.integers(-1, 2), axis=rng.integers(0, 2))
    joined: Drawing = np.unique(moved, return_inverse=True)[1].reshape(image.shape) + 1
    return joined


def release(seed: int, split: str, humans: list[int]) -> Files:
    rng = np.random.default_rng(seed)
    files: Files = {}
    for number, count in enumerate(humans, start=1):
        # sizes differ, so that few shares of the image are equal: the order of ties is no matter
        y, x = np.ogrid[: 31 + 3 * number, : 37 + 4 * number]
        points = rng.random((9, 2)) * (y.size, x.size)
        scene = np.stack([(y - v) ** 2 + (x - h) ** 2 for v, h in points]).argmin(axis=0) + 1
        files |= bsds500(number, [seen(rng, scene) for _ in range(count)], split=split)
    return files


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train and val; the third and fourth humans saw only some of the images."""
    root = tmp_path_factory.mktemp("bsds")
    files = release(1, "train", [4, 2, 3, 3, 2, 4, 3, 2]) | release(2, "val", [3, 2, 2, 3])
    write(root / "source", files)
    convert("bsds500", root / "source", root / "data")
    for human in (2, 3, 4):
        options = {"as_predictions": human}
        splits = ["train"] if human == 4 else None
        convert("bsds500", root / "source", root / "data", options=options, splits=splits)
    return root / "data"


def agree(data: Path, **options: Any) -> Agreement:
    return human_agreement(data, **{"resamples": 40, "min_images": 3, **options})


def test_pairs_have_the_images_of_both_humans(data: Path) -> None:
    agreement = agree(data)
    assert [(p.human, p.images, p.counts) for p in agreement.pairs] == [
        (1, 8 + 4, True),
        (2, 5 + 2, True),
        (3, 2, False),
    ]
    counted = [p.ap for p in agreement.pairs if p.counts]
    assert agreement.mean == pytest.approx(sum(counted) / 2)
    assert 0.05 < agreement.mean < 0.95
    assert agreement.interval.low < agreement.mean < agreement.interval.high
    first = agreement.pairs[0]
    sets = [open_path(data / f"bsds500_entity_{split}_a1") for split in ("train", "val")]
    assert first.truth == sum(s.header.num_entities for s in sets)


def test_a_pair_scores_as_the_command_line_does(data: Path) -> None:
    """The same sets, written as predictions and scored through files."""
    (pair, *_) = agree(data, splits=["val"], min_images=2).pairs
    predictions = data / "bsds500_entity_val_a2_as_predictions"
    result = evaluate(predictions, "bsds500_entity_val_a1", data=data)
    assert pair.ap == result.evaluation.scores.AP
    assert (pair.truth, pair.predicted) == (
        result.evaluation.counts.truth,
        result.evaluation.counts.predicted,
    )


def test_a_pair_scores_as_pycocotools_does(data: Path) -> None:
    (pair, *_) = agree(data, splits=["val"], min_images=2).pairs
    truth = open_path(data / "bsds500_entity_val_a1")
    predictions = open_path(data / "bsds500_entity_val_a2_as_predictions")
    assert pair.ap == pytest.approx(pycocotools_stats(truth, coco_results(predictions))[0])


def test_the_interval_is_that_of_resampled_images(data: Path) -> None:
    """Each draw scored anew from the maps, image by image."""
    resamples, seed, level = 25, 5, 0.8
    agreement = agree(data, splits=["train"], resamples=resamples, seed=seed, level=level)
    truths, predictions = (
        [open_path(data / f"bsds500_entity_train_a{k}") for k in humans]
        for humans in ((1, 2, 3), (2, 3, 4))
    )
    samples = np.array(
        [
            [
                score_anew(truth, prediction, dict(zip(truths[0].ids, weights, strict=True)))
                for truth, prediction in zip(truths, predictions, strict=True)
            ]
            for block in draws(len(truths[0]), resamples, seed)
            for weights in block
        ]
    )
    tails = [(1 - level) / 2, (1 + level) / 2]
    for index, pair in enumerate(agreement.pairs):
        ends = np.nanquantile(samples[:, index], tails)
        assert (pair.interval.low, pair.interval.high) == pytest.approx(tuple(ends))
    ends = np.quantile(samples[:, :2].mean(axis=1), tails)
    assert (agreement.interval.low, agreement.interval.high) == pytest.approx(tuple(ends))


def score_anew(truth: Any, prediction: Any, weights: dict[str, float]) -> float:
    """Score copies of images as images of their own."""
    pairs = []
    for image_id in prediction.ids:
        drawn = prediction[image_id].map
        shares = drawn.areas[1:] / drawn.to_array().size
        for copy in range(int(weights[image_id])):
            name = f"{image_id}{copy:02}"
            pairs.append(ImagePair(name, truth[image_id].map, drawn, shares))
    return summarize(accumulate(evaluate_pairs(pairs).records)).AP


def test_the_same_seed_gives_the_same_interval(data: Path) -> None:
    assert agree(data, seed=3) == agree(data, seed=3)
    assert agree(data, seed=3).interval != agree(data, seed=4).interval


def test_humans_of_one_mind_agree(tmp_path: Path) -> None:
    scene = np.kron([[1, 2], [3, 4]], np.ones((3, 3), dtype=int))
    files = {k: v for n in range(1, 5) for k, v in bsds500(n, [scene, scene]).items()}
    convert("bsds500", write(tmp_path / "source", files), tmp_path / "data")
    agreement = human_agreement(tmp_path / "data", splits=["val"], resamples=9, min_images=4)
    assert agreement.mean == pytest.approx(1)
    assert agreement.interval.low == pytest.approx(1)


def test_the_table_is_in_points(data: Path) -> None:
    agreement = agree(data, splits=["train"])
    lines = str(agreement).splitlines()
    assert len(lines) == 1 + 3 + 1
    assert lines[1].split()[:4] == ["a2", "on", "a1", "8"]
    assert f"{100 * agreement.pairs[0].ap:.1f}" in lines[1]
    assert lines[3].endswith("(not in the mean)")
    assert lines[4].startswith(f"mean {100 * agreement.mean:.1f} [")
    assert lines[4].endswith("(95%, 40 resamples)")


def test_what_is_missing_is_told(data: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"`bsds500_entity_test_a1`, .* not all there"):
        agree(data, splits=["test"])
    with pytest.raises(MissingDataError, match="no two humans share 13 images of train, val"):
        agree(data, min_images=13)
    with EntityWriter(tmp_path / "x_entity_val_a2", kind="ground_truth", source="x") as writer:
        writer.add("1", [[1]])
    with pytest.raises(MissingDataError):
        agree(tmp_path, source="x", splits=["val"])


def test_an_empty_draw_leaves_a_pair_out(data: Path) -> None:
    """Two images of eight are missed by some draws of all: undefined there, not 0."""
    agreement = agree(data, splits=["train"], resamples=60, min_images=2)
    assert agreement.pairs[2].counts
    assert not math.isnan(agreement.interval.low)


@pytest.mark.slow
def test_real_humans_agree_as_the_page_says(
    realdata: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """All of train and val, by the lines of the page; one pair by pycocotools too."""
    convert("bsds500", realdata / "bsds500", tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    code, output = (
        block.partition("\n")[2] for block in PAGE.read_text("utf-8").split("```")[5:8:2]
    )
    exec(compile(code, str(PAGE), "exec"), {})
    assert capsys.readouterr().out == output
    options = {"as_predictions": 2}
    convert("bsds500", realdata / "bsds500", "data", options=options, splits=["val"])
    (val, *_) = human_agreement(splits=["val"], resamples=1).pairs
    predictions = open_path(Path("data/bsds500_entity_val_a2_as_predictions"))
    stats = pycocotools_stats(
        open_path(Path("data/bsds500_entity_val_a1")), coco_results(predictions)
    )
    assert val.ap == pytest.approx(stats[0], abs=1e-12)
