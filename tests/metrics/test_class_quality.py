"""PQ by class against panopticapi's rules on dense masks, hotcoco's PQ, and numbers by hand."""

from __future__ import annotations

import contextlib
import io
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hotcoco.panoptic import pq_compute
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from entitybench.cli import entitybench
from entitybench.entity_map import EntityMap
from entitybench.entity_set import Category, Provenance
from entitybench.entity_writer import EntityWriter
from entitybench.errors import FormatError, MissingDataError
from entitybench.metrics import ImagePair, MatchRecords
from entitybench.metrics import evaluate as evaluate_pairs
from entitybench.metrics.benchmark import Benchmark, evaluate
from entitybench.metrics.bootstrap import draws, resample, score_names
from entitybench.metrics.class_quality import (
    ClassLabels,
    class_scores,
    class_sums,
    quality_by_class,
)
from entitybench.result import read_result

CLASSES = (
    Category(3, "cat", isthing=True),
    Category(5, "dog", isthing=True),
    Category(8, "sky", isthing=False),
    Category(9, "grass", isthing=False),
    Category(12, "stone"),
)
IDS = [c.id for c in CLASSES]


@dataclass(frozen=True)
class Labelled:
    """One image with the class, as a place among CLASSES, of everything in it."""

    pair: ImagePair
    truth: list[int]
    crowds: list[int]
    prediction: list[int]


def slow_sums(image: Labelled, least: float = 0.0) -> NDArray[np.float64]:
    """Write panopticapi's `pq_compute_single_core` out on dense masks: `(K, 4)`."""
    truth, found = image.pair.truth.to_array(), image.pair.prediction.to_array()
    scores = np.asarray(image.pair.scores)
    kept = [p for p in range(1, len(scores) + 1) if scores[p - 1] >= least]
    true_masks = merged([(c, truth == n) for n, c in enumerate(image.truth, start=1)])
    first_crowd = len(image.truth) + 1
    crowds = [(c, truth == n) for n, c in enumerate(image.crowds, start=first_crowd)]
    found_masks = merged([(image.prediction[p - 1], found == p) for p in kept])
    void = truth == 0
    sums = np.zeros((len(CLASSES), 4))
    matched_truth, matched_found = set(), set()
    for t, (true_class, true_mask) in enumerate(true_masks):
        for p, (found_class, found_mask) in enumerate(found_masks):
            if true_class != found_class:
                continue
            shared = (true_mask & found_mask).sum()
            union = true_mask.sum() + found_mask.sum() - shared - (found_mask & void).sum()
            if union and shared / union > 0.5:
                matched_truth.add(t)
                matched_found.add(p)
                sums[true_class] += [1, 0, 0, shared / union]
    for t, (true_class, _) in enumerate(true_masks):
        sums[true_class, 2] += t not in matched_truth
    for p, (found_class, found_mask) in enumerate(found_masks):
        if p not in matched_found:
            forgiven = void | np.any([m for c, m in crowds if c == found_class] or [False], axis=0)
            area = found_mask.sum()
            sums[found_class, 1] += not (area and (found_mask & forgiven).sum() / area > 0.5)
    return sums


def merged(masks: list[tuple[int, NDArray[np.bool_]]]) -> list[tuple[int, NDArray[np.bool_]]]:
    """Join the masks of one stuff class."""
    stuff: dict[int, NDArray[np.bool_]] = {}
    things = []
    for place, mask in masks:
        if CLASSES[place].isthing is False:
            stuff[place] = stuff.get(place, np.zeros_like(mask)) | mask
        else:
            things.append((place, mask))
    return things + list(stuff.items())


def slow_means(sums: NDArray[np.float64], among: Sequence[int]) -> tuple[float, float, float]:
    """Write panopticapi's `pq_average` out."""
    pq, sq, rq, n = 0.0, 0.0, 0.0, 0
    for matched, spurious, missed, iou in sums[list(among)]:
        if matched + spurious + missed:
            n += 1
            pq += iou / (matched + 0.5 * spurious + 0.5 * missed)
            sq += iou / matched if matched else 0.0
            rq += matched / (matched + 0.5 * spurious + 0.5 * missed)
    return (pq / n, sq / n, rq / n) if n else (math.nan,) * 3


def random_image(random: np.random.Generator, number: int) -> Labelled:
    """Blocks, so that shares of exactly one half occur; crowds with and without a class."""
    block = np.ones(random.integers(1, 4, 2), dtype=int)
    truth = np.kron(random.integers(0, 8, random.integers(1, 6, 2)), block)
    moved = np.where(random.random(truth.shape) < 0.6, truth, np.roll(truth, 1, axis=1))
    found = np.where(random.random(truth.shape) < 0.2, random.integers(0, 9, truth.shape), moved)
    crowds = [c for c in (6, 7) if (truth == c).any()]
    true_map = EntityMap.from_array(truth, crowds=crowds)
    found_map = EntityMap.from_array(found, entities=[e for e in range(1, 9) if e != 4], void=None)
    of_truth = random.integers(0, len(CLASSES), 9)
    labels = np.where(random.random(9) < 0.8, of_truth, random.integers(0, len(CLASSES), 9))
    values = [v for v in np.unique(truth).tolist() if v and v not in crowds]
    return Labelled(
        ImagePair(str(number), true_map, found_map, random.random(7).round(1)),
        [int(of_truth[v]) for v in values],
        [int(of_truth[c]) if random.random() < 0.8 else -1 for c in crowds],
        [int(labels[e]) for e in range(1, 9) if e != 4],
    )


def labels_of(images: Sequence[Labelled]) -> ClassLabels:
    def joined(name: str) -> NDArray[np.int64]:
        return np.array([c for image in images for c in getattr(image, name)], dtype=np.int64)

    return ClassLabels(CLASSES, joined("truth"), joined("crowds"), joined("prediction"))


def with_sums(images: Sequence[Labelled], least: float = 0.0) -> MatchRecords:
    records = evaluate_pairs([image.pair for image in images]).records
    return replace(records, classes=class_sums(records, labels_of(images), least))


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 6), st.sampled_from([0.0, 0.3, 0.75]))
def test_it_is_that_of_the_rules(seed: int, count: int, least: float) -> None:
    random = np.random.default_rng(seed)
    images = [random_image(random, number) for number in range(count)]
    sums = with_sums(images, least).classes
    assert sums is not None
    slow = sum((slow_sums(image, least) for image in images), np.zeros((len(CLASSES), 4)))
    np.testing.assert_allclose(sums.pooled(), slow, rtol=1e-13)
    ours = class_scores(sums)
    for origin, among in {"": range(5), "thing": (0, 1), "stuff": (2, 3)}.items():
        means = slow_means(slow, among)
        for name, value in zip(("PQ", "SQ", "RQ"), means, strict=True):
            np.testing.assert_allclose(ours[f"{name}c{origin}"], value, rtol=1e-13)


def test_images_and_parts_are_cut_and_joined(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    images = [random_image(random, number) for number in range(9)]
    whole = with_sums(images)
    parts = [whole.take([0, 1, 5]), whole.take([2, 3, 4, 6, 7, 8])]
    for made in (MatchRecords.merge(parts), saved(whole, tmp_path / "x.npz")):
        assert made.classes is not None
        for name, column in made.classes.columns().items():
            np.testing.assert_array_equal(column, whole.classes.columns()[name], strict=True)  # type: ignore[union-attr]
    few = [images[i] for i in (0, 1, 5)]
    slow = sum((slow_sums(image) for image in few), np.zeros((len(CLASSES), 4)))
    np.testing.assert_allclose(parts[0].classes.pooled(), slow)  # type: ignore[union-attr]
    assert MatchRecords.merge([parts[0], replace(parts[1], classes=None)]).classes is None
    renamed = replace(parts[1].classes, names=tuple("abcde"))  # type: ignore[type-var]
    assert MatchRecords.merge([parts[0], replace(parts[1], classes=renamed)]).classes is None


def test_resamples_are_scores_of_the_images_drawn() -> None:
    random = np.random.default_rng(11)
    records = with_sums([random_image(random, number) for number in range(7)])
    names = ["PQc", "SQc", "RQcstuff", "PQcthing"]
    assert set(names) <= set(score_names(records))
    samples = resample(records, 40, 5, names)
    for n, (weights,) in enumerate(np.concatenate(list(draws(7, 40, 5)))[:, None]):
        chosen = records.take(np.repeat(np.arange(7), weights.astype(int)))
        assert chosen.classes is not None
        drawn = class_scores(chosen.classes)
        for name in names:
            np.testing.assert_allclose(samples[name][n], drawn[name], rtol=1e-12)
    assert not {"PQc"} & set(score_names(replace(records, classes=None)))


def saved(records: MatchRecords, path: Path) -> MatchRecords:
    records.save(path)
    return MatchRecords.load(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: replace(s, class_rows=s.class_rows + 9), "classes without a name"),
        (lambda s: replace(s, class_rows=s.class_rows * 0), "do not ascend"),
        (lambda s: replace(s, class_offsets=s.class_offsets + 1), "class_offsets"),
        (lambda s: replace(s, class_sums=-s.class_sums), "counts that are none"),
        (lambda s: replace(s, class_sums=s.class_sums + np.eye(4)[3] * 9), "one half"),
        (lambda s: replace(s, things=()), "as many origins"),
        (lambda s: replace(s, class_sums=s.class_sums[:1]), "class_sums"),
    ],
)
def test_damaged_sums_are_refused(change: Callable[[Any], Any], said: str, tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    records = with_sums([random_image(random, number) for number in range(4)])
    with pytest.raises(FormatError, match=said):
        saved(replace(records, classes=change(records.classes)), tmp_path / "x.npz")


def test_sums_without_tables_are_refused(paint: Callable[..., EntityMap]) -> None:
    one = paint((4, 4), (0, 0, 4, 4))
    records = evaluate_pairs([ImagePair("1", one, one, [1.0])]).records
    none = np.zeros(0, dtype=np.int64)
    with pytest.raises(MissingDataError, match="no contingency tables"):
        class_sums(replace(records, tables=None), ClassLabels(CLASSES, none, none, none))


class TestByHand:
    """100 × 10 pixels, so that a row is one percent."""

    def test_three_classes(self, paint: Callable[..., EntityMap]) -> None:
        """Cats: one found at IoU .8, one taken for a dog. The sky is found in two pieces.

        cat: 1 matched, 1 missed: PQ .8 / 1.5; dog: 1 spurious: PQ 0; sky: PQ 1.
        """
        truth = paint((100, 10), (0, 0, 10, 10), (10, 0, 10, 10), (20, 0, 80, 10))
        found = paint((100, 10), (0, 0, 8, 10), (10, 0, 10, 10), (20, 0, 30, 10), (50, 0, 50, 10))
        image = Labelled(ImagePair("1", truth, found, [1.0] * 4), [0, 0, 2], [], [0, 1, 2, 2])
        sums = with_sums([image]).classes
        assert sums is not None
        rows = {row.name: row for row in quality_by_class(sums)}
        assert list(rows) == ["cat", "dog", "sky"]
        assert (rows["cat"].matched, rows["cat"].spurious, rows["cat"].missed) == (1, 0, 1)
        assert rows["cat"].PQ == pytest.approx(0.8 / 1.5)
        assert (rows["dog"].PQ, rows["dog"].SQ, rows["dog"].spurious) == (0, 0, 1)
        assert (rows["sky"].PQ, rows["sky"].isthing) == (1, False)
        scores = class_scores(sums)
        assert scores["PQc"] == pytest.approx((0.8 / 1.5 + 0 + 1) / 3)
        assert scores["SQc"] == pytest.approx((0.8 + 0 + 1) / 3)
        assert scores["RQc"] == pytest.approx((1 / 1.5 + 0 + 1) / 3)
        assert scores["PQcthing"] == pytest.approx(0.8 / 1.5 / 2)
        assert scores["PQcstuff"] == 1

    @pytest.mark.parametrize(("found_class", "spurious"), [(0, 0), (1, 1)])
    def test_a_crowd_forgives_its_own_class_alone(
        self, paint: Callable[..., EntityMap], found_class: int, spurious: int
    ) -> None:
        truth = paint((100, 10), (0, 0, 10, 10), crowds=[(10, 0, 90, 10)])
        found = paint((100, 10), (50, 0, 50, 10))
        image = Labelled(ImagePair("1", truth, found, [1.0]), [0], [0], [found_class])
        sums = with_sums([image]).classes
        assert sums is not None
        assert sums.pooled()[:, 1].sum() == spurious

    def test_what_scores_too_little_is_void(self, paint: Callable[..., EntityMap]) -> None:
        """The score itself still counts; a spurious entity below it does not."""
        truth = paint((100, 10), (0, 0, 50, 10))
        found = paint((100, 10), (0, 0, 50, 10), (50, 0, 50, 10))
        image = Labelled(ImagePair("1", truth, found, [0.5, 0.4]), [0], [], [0, 1])
        kept = with_sums([image], 0.5).classes
        everything = with_sums([image], 0.0).classes
        assert kept is not None
        assert everything is not None
        assert class_scores(kept)["PQc"] == 1
        assert class_scores(everything)["PQc"] == 1  # half and half in void: dropped
        covered = paint((100, 10), (0, 0, 50, 10), (50, 0, 50, 10))
        image = replace(image, pair=replace(image.pair, truth=covered), truth=[0, 0])
        least = with_sums([image], 0.5).classes
        all_of_them = with_sums([image], 0.0).classes
        assert least is not None
        assert all_of_them is not None
        assert class_scores(least)["PQc"] == pytest.approx(1 / 1.5)  # cat alone occurs
        assert class_scores(all_of_them)["PQc"] == pytest.approx((1 / 1.5 + 0) / 2)

    def test_beyond_the_best_hundred_the_hundredth_decides(self) -> None:
        ids = np.arange(1, 131).reshape(13, 10).repeat(2, axis=0)
        whole = EntityMap.from_array(ids)
        scores = np.linspace(1, 0.5, 130)
        image = Labelled(ImagePair("1", whole, whole, scores), [0] * 130, [], [0] * 130)
        hundredth = float(scores[99])
        for least, found in ((0.0, 130), (hundredth, 130), (hundredth + 1e-3, 99)):
            sums = with_sums([image], least).classes
            assert sums is not None
            assert sums.pooled()[0, 0] == found

    def test_nothing_at_all(self, paint: Callable[..., EntityMap]) -> None:
        empty = Labelled(ImagePair("1", paint((4, 4)), paint((4, 4)), []), [], [], [])
        for images in ([], [empty]):
            sums = with_sums(images).classes
            assert sums is not None
            assert quality_by_class(sums) == []
            assert all(math.isnan(value) for value in class_scores(sums).values())


# --- sets and files ------------------------------------------------------------------------------


def write_set(
    path: Path,
    maps: dict[str, NDArray[np.int_]],
    labels: dict[str, list[int | None]],
    categories: Sequence[Category],
    *,
    predictions: bool = False,
) -> Path:
    """Write maps of ids 1…N with their category ids."""
    kind: Any = {"model": "mine"} if predictions else {"kind": "ground_truth"}
    with EntityWriter(path, categories=categories, **kind) as writer:
        for image_id, ids in maps.items():
            scores = np.linspace(0.9, 0.3, ids.max()) if predictions else None
            rows = [Provenance(category_id=c) for c in labels[image_id]]
            writer.add(image_id, EntityMap.from_array(ids), scores, entities=rows)
    return path


MAP = np.array([[1, 1, 2, 2], [3, 3, 3, 3]])
RENUMBERED = [Category(1, "sky", isthing=False), Category(2, "cat", isthing=True)]


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    return write_set(tmp_path / "x_val", {"1": MAP}, {"1": [3, 3, 8]}, CLASSES)


def found_by(
    tmp_path: Path, labels: Sequence[int | None], categories: Sequence[Category] = RENUMBERED
) -> Path:
    path = tmp_path / "found"
    return write_set(path, {"1": MAP}, {"1": list(labels)}, categories, predictions=True)


class TestSets:
    def test_classes_are_matched_by_name(self, truth: Path, tmp_path: Path) -> None:
        done = evaluate(found_by(tmp_path, [2, 2, 1]), str(truth))
        assert done.result.score("PQc") == 1
        wrong = evaluate(found_by(tmp_path / "other", [2, 1, 1]), str(truth))
        assert wrong.result.score("AP") == 1  # labels never change AP_e
        # a cat missed: 1 / 1.5; the sky, merged with it: IoU 4 / 6
        assert wrong.result.score("PQc") == pytest.approx((1 / 1.5 + 4 / 6) / 2)

    def test_the_signature_says_so(self, truth: Path, tmp_path: Path) -> None:
        done = evaluate(found_by(tmp_path, [2, 2, 1]), str(truth), class_threshold=0.35)
        other = write_set(tmp_path / "y_val", {"1": MAP}, {"1": [3, 3, 9]}, CLASSES)
        again = evaluate(tmp_path / "found", str(other))
        prediction, others = done.result.prediction, again.result.prediction
        assert str(prediction) == (
            f"scores:model|overlap:none|classes:{prediction.classes}|class-threshold:0.35"
        )
        assert prediction.classes.startswith("5@")
        assert prediction.classes != others.classes  # the content hash is the same
        assert done.result.ground_truth.sha256 == again.result.ground_truth.sha256

    def test_a_threshold(self, truth: Path, tmp_path: Path) -> None:
        """Scores are .9, .6 and .3: the sky is lost."""
        done = evaluate(found_by(tmp_path, [2, 2, 1]), str(truth), class_threshold=0.5)
        assert done.result.score("PQc") == 0.5
        assert done.result.score("PQ") == 1

    @pytest.mark.parametrize(
        ("labels", "categories", "said"),
        [
            ([2, 2, 4], [*RENUMBERED, Category(4, "ufo")], "does not know the predicted `ufo`"),
            ([2, 2, 7], RENUMBERED, "does not know the predicted `7`"),
            ([2, 2, None], RENUMBERED, "predictions of 1 are of no class"),
        ],
    )
    def test_what_stands_in_the_way_is_said(
        self,
        truth: Path,
        tmp_path: Path,
        labels: list[int | None],
        categories: list[Category],
        said: str,
    ) -> None:
        done = evaluate(found_by(tmp_path, labels, categories), str(truth))
        assert said in done.recognised[-1]
        assert "PQc" not in done.result.scores
        assert done.result.prediction.classes == ""
        assert done.result.score("AP") == 1

    def test_a_truth_without_classes(self, tmp_path: Path) -> None:
        bare = write_set(tmp_path / "x", {"1": MAP}, {"1": [None] * 3}, [])
        done = evaluate(found_by(tmp_path, [2, 2, 1]), str(bare))
        assert done.recognised[-1] == "no PQ by class: the ground truth has no classes"

    def test_a_truth_that_leaves_one_out(self, tmp_path: Path) -> None:
        holes = write_set(tmp_path / "x", {"1": MAP}, {"1": [3, None, 8]}, CLASSES)
        done = evaluate(found_by(tmp_path, [2, 2, 1]), str(holes))
        assert "true entities of image 1 are of no class" in done.recognised[-1]

    def test_two_classes_of_one_name(self, tmp_path: Path) -> None:
        twice = [Category(3, "cat"), Category(8, "cat")]
        path = write_set(tmp_path / "x", {"1": MAP}, {"1": [3, 3, 8]}, twice)
        done = evaluate(found_by(tmp_path, [2, 2, 1]), str(path))
        assert "two classes of the ground truth have one name" in done.recognised[-1]

    def test_agnostic_predictions_say_nothing(self, truth: Path, tmp_path: Path) -> None:
        done = evaluate(found_by(tmp_path, [None] * 3, []), str(truth))
        assert len(done.recognised) == 1
        assert "PQc" not in done.result.scores

    def test_a_union_of_other_classes(self, truth: Path, tmp_path: Path) -> None:
        other = write_set(tmp_path / "y_val", {"1": MAP}, {"1": [3, 3, 8]}, CLASSES[:3])
        same = write_set(tmp_path / "z_val", {"2": MAP}, {"2": [3, 5, 8]}, CLASSES)
        preds = tmp_path / "preds"
        for name, image_id in (("x_val", "1"), ("y_val", "1"), ("z_val", "2")):
            labels: dict[str, list[int | None]] = {image_id: [2, 2, 1]}
            write_set(preds / name, {image_id: MAP}, labels, RENUMBERED, predictions=True)
        mixed = evaluate(preds, f"{truth}+{other}")
        assert "different classes" in mixed.recognised[-1]
        pooled = evaluate(preds, f"{truth}+{same}")
        # 3 of 4 cats are cats, the dog is missed, the sky is found twice
        assert pooled.result.score("PQc") == pytest.approx((3 / 3.5 + 0 + 1) / 3)

    def test_parts_merge_to_the_whole(self, tmp_path: Path) -> None:
        from entitybench.metrics.merging import merge_results

        names = [str(n) for n in range(5)]
        maps = dict.fromkeys(names, MAP)
        write_set(tmp_path / "x_val", maps, {n: [3, 3, 8] for n in names}, CLASSES)
        of_found: dict[str, list[int | None]] = {n: [2, 2 if n == "3" else 1, 1] for n in names}
        found = write_set(tmp_path / "found", maps, of_found, RENUMBERED, predictions=True)
        run = [str(found), "--gt", str(tmp_path / "x_val"), "--class-threshold", "0.4"]
        whole = told("eval", *run, "--json", "-o", str(tmp_path / "whole.json"))
        for shard in ("1/2", "2/2"):
            told("eval", *run, "--json", "--shard", shard, "-o", str(tmp_path / "r.json"))
        parts = sorted(tmp_path.glob("r.part-*.json"))
        joined = merge_results(parts)[0].result
        assert joined.scores == whole["scores"]
        assert joined.signature.prediction == whole["signature"]["prediction"]


def told(*arguments: str) -> dict[str, Any]:
    done = CliRunner().invoke(entitybench, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    made: dict[str, Any] = json.loads(done.stdout)
    return made


def test_the_command_shows_a_row(truth: Path, tmp_path: Path) -> None:
    run = ["eval", str(found_by(tmp_path, [2, 1, 1])), "--gt", str(truth)]
    run += ["-o", str(tmp_path / "r.json"), "--explain"]
    shown = CliRunner().invoke(entitybench, run, catch_exceptions=False).stdout
    by_class = next(line for line in shown.splitlines() if "by class" in line)
    assert by_class.split() == ["by", "class", "66.7", "83.3", "83.3"]
    rows = {line.split()[0]: line.split()[1:] for line in shown.splitlines()[-2:]}
    assert rows["cat"] == ["thing", "66.7", "100.0", "66.7", "1", "0", "1"]
    assert rows["sky"] == ["stuff", "66.7", "66.7", "100.0", "1", "0", "0"]
    classes = told(*run, "--json")["explanation"]["classes"]
    assert [(row["name"], row["missed"]) for row in classes] == [("cat", 1), ("sky", 0)]


def test_the_row_has_intervals_of_its_own(truth: Path, tmp_path: Path) -> None:
    run = ["eval", str(found_by(tmp_path, [2, 1, 1])), "--gt", str(truth), "--bootstrap", "9"]
    run += ["-o", str(tmp_path / "r.json")]
    lines = CliRunner().invoke(entitybench, run, catch_exceptions=False).stdout.splitlines()
    place = next(n for n, line in enumerate(lines) if "by class" in line)
    found = read_result(tmp_path / "r.json").intervals
    names = ("PQc", "SQc", "RQc")
    for line, end in zip(lines[place + 1 : place + 3], ("low", "high"), strict=True):
        assert line.split()[1:] == ["%", *(f"{getattr(found[name], end):.1f}" for name in names)]


# --- panoptic files, and another implementation --------------------------------------------------


def write_panoptic(
    folder: Path, maps: Sequence[NDArray[np.int_]], images: Sequence[Any], *, truth: bool
) -> Path:
    """Write COCO panoptic files; segment ids are the map's."""
    name = "truth" if truth else "found"
    (folder / name).mkdir(parents=True)
    annotations = []
    for number, (ids, rows) in enumerate(zip(maps, images, strict=True), start=1):
        rgb = np.stack([ids, ids * 0, ids * 0], axis=2).astype(np.uint8)
        Image.fromarray(rgb).save(folder / name / f"{number}.png")
        segments = [
            {"id": i, "category_id": c, "iscrowd": crowd, "area": int((ids == i).sum())}
            | ({} if truth else {"score": 0.5})
            for i, (c, crowd) in rows.items()
        ]
        entry = {"image_id": number, "file_name": f"{number}.png", "segments_info": segments}
        annotations.append(entry)
    height, width = maps[0].shape
    sizes = [
        {"id": n, "file_name": f"{n}.jpg", "height": height, "width": width}
        for n in range(1, len(maps) + 1)
    ]
    table = {"images": sizes, "annotations": annotations}
    if truth:
        table["categories"] = [
            {"id": c.id, "name": c.name, "isthing": int(bool(c.isthing))} for c in CLASSES
        ]
    path = folder / f"{name}.json"
    path.write_text(json.dumps(table))
    return path


def random_files(folder: Path, seed: int, count: int = 8) -> tuple[Path, Path]:
    """Write random class maps: one segment for each stuff class, at most one crowd a class."""
    random = np.random.default_rng(seed)
    maps: tuple[list[Any], list[Any]] = [], []
    images: tuple[list[Any], list[Any]] = [], []
    for _ in range(count):
        truth = np.kron(random.integers(0, 9, (5, 6)), np.ones((6, 6), dtype=int))
        found = np.where(random.random(truth.shape) < 0.1, 0, np.roll(truth, 1, axis=1))
        classes = {1: 3, 2: 3, 3: 5, 4: 5, 5: 8, 6: 9, 7: 3, 8: 5}
        swapped = {e: c for e, c in classes.items() if (found == e).any()}
        if random.random() < 0.5 and 1 in swapped:
            swapped[1] = 5  # a cat taken for a dog
        held = {e: (c, int(e > 6)) for e, c in classes.items() if (truth == e).any()}
        for ids, rows, m, i in zip(
            (truth, found),
            (held, {e: (c, 0) for e, c in swapped.items()}),
            maps,
            images,
            strict=True,
        ):
            m.append(ids)
            i.append(rows)
    return (
        write_panoptic(folder, maps[0], images[0], truth=True),
        write_panoptic(folder, maps[1], images[1], truth=False),
    )


@pytest.mark.parametrize("seed", range(6))
def test_panoptic_files_score_as_with_hotcoco(seed: int, tmp_path: Path) -> None:
    truth, found = random_files(tmp_path, seed)
    done = evaluate(found, str(truth))
    with contextlib.redirect_stdout(io.StringIO()):
        reference = pq_compute(
            str(truth), str(found), str(tmp_path / "truth"), str(tmp_path / "found")
        )
    assert "matched by id" in done.recognised[-1]
    for group, key in (("All", ""), ("Things", "thing"), ("Stuff", "stuff")):
        for name in ("pq", "sq", "rq"):
            ours = done.result.score(f"{name.upper()}c{key}")
            assert ours == pytest.approx(reference[group][name], rel=1e-12), (group, name)


@pytest.mark.parametrize("names", [False, True])
def test_imported_panoptic_files_keep_their_classes(tmp_path: Path, names: bool) -> None:
    """Through `import` the number is the same; without names the ids are the truth's."""
    truth, found = random_files(tmp_path, 4)
    direct = evaluate(found, str(truth)).result
    table = json.loads(truth.read_text())
    if names:
        renumbered = json.loads(found.read_text())
        renumbered["categories"] = [{**c, "id": c["id"] + 100} for c in table["categories"]]
        for annotation in renumbered["annotations"]:
            for segment in annotation["segments_info"]:
                segment["category_id"] += 100
        found.write_text(json.dumps(renumbered))
    gt = converted(tmp_path / "x_val", truth)
    out = tmp_path / "imported"
    told("import", str(found), "--gt", str(gt), "--model", "mine", "--out", str(out), "--json")
    done = evaluate(out, str(gt)).result
    assert done.score("PQc") == direct.score("PQc")
    assert len(done.prediction.classes) > 0


def converted(path: Path, truth: Path) -> Path:
    """Write panoptic files of ground truth as an entity set, without a converter."""
    table = json.loads(truth.read_text())
    with EntityWriter(path, kind="ground_truth", categories=CLASSES) as writer:
        for annotation in table["annotations"]:
            ids = np.array(Image.open(truth.with_suffix("") / annotation["file_name"]))[..., 0]
            rows = sorted(annotation["segments_info"], key=lambda s: s["iscrowd"])
            entities = [s for s in rows if not s["iscrowd"]]
            crowds = [s for s in rows if s["iscrowd"]]
            made = EntityMap.from_array(
                ids, entities=[s["id"] for s in entities], crowds=[s["id"] for s in crowds]
            )
            writer.add(
                str(annotation["image_id"]),
                made,
                entities=[Provenance(category_id=s["category_id"]) for s in entities],
                crowds=[Provenance(category_id=s["category_id"]) for s in crowds],
            )
    return path


def test_panopticapi_itself(tmp_path: Path) -> None:
    """Whoever has it installed gets the check for free."""
    evaluation = pytest.importorskip("panopticapi.evaluation")
    truth, found = random_files(tmp_path, 7)
    with contextlib.redirect_stdout(io.StringIO()):
        reference = evaluation.pq_compute(
            str(truth), str(found), str(tmp_path / "truth"), str(tmp_path / "found")
        )
    done = evaluate(found, str(truth))
    assert done.result.score("PQc") == pytest.approx(reference["All"]["pq"], rel=1e-12)


def test_segments_of_one_category_are_not_labelled(tmp_path: Path) -> None:
    truth, found = random_files(tmp_path, 0)
    table = json.loads(found.read_text())
    for annotation in table["annotations"]:
        for segment in annotation["segments_info"]:
            segment["category_id"] = 3
    found.write_text(json.dumps(table))
    done: Benchmark = evaluate(found, str(truth))
    assert "PQc" not in done.result.scores
    assert len(done.recognised) == 1
