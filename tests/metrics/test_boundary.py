"""Boundary AP against a dense implementation of the definition, and against faster-coco-eval."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from entitybench.cli import main
from entitybench.entity_map import EntityMap
from entitybench.entity_set import EntitySet
from entitybench.entity_writer import EntityWriter
from entitybench.metrics import (
    OFFICIAL,
    STRICT,
    Evaluation,
    ImageKey,
    MatchRecords,
    Protocol,
    contingency,
    match,
    truth_sizes,
)
from entitybench.metrics.boundary import (
    boundaries,
    boundary_contingency,
    boundary_width,
    match_boundaries,
)
from entitybench.perturbation import Perturbation, perturb
from entitybench.registry import open_entity_set
from entitybench.result import read_result
from entitybench.signature import MetricSignature
from tests.pycocotools_oracle import coco_results, coco_truth

COUNT = 5
HOW = Perturbation(0.1, 0.1, 0.1, 2, 0.1)


def dense_boundary(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The published definition, pixel by pixel: what d erosions with a 3 × 3 square take away."""
    height, width = mask.shape
    d = max(1, round(0.02 * float(np.sqrt(height**2 + width**2))))
    found = np.zeros_like(mask)
    for y, x in np.argwhere(mask).tolist():
        leaves = y < d or x < d or y + d >= height or x + d >= width
        found[y, x] = leaves or not mask[y - d : y + d + 1, x - d : x + d + 1].all()
    return found


def coco_mask_of(annotation: dict[str, Any]) -> NDArray[np.bool_]:
    return np.asarray(coco_mask.decode(annotation["segmentation"])).astype(bool)


def iou_of(found: NDArray[np.bool_], truth: NDArray[np.bool_], *, crowd: bool) -> float:
    shared = int((found & truth).sum())
    union = int(found.sum() if crowd else (found | truth).sum())
    return shared / union if union else 0.0


class SlowBoundaryEval(COCOeval):  # type: ignore[misc]
    """pycocotools with the IoU of the Boundary IoU paper, from dense masks."""

    def computeIoU(self, image: int, category: int) -> Any:
        truth, found = self._gts[image, category], self._dts[image, category]
        order = np.argsort([-d["score"] for d in found], kind="stable")[:100]
        rows = [[self._closeness(found[i], true) for true in truth] for i in order]
        return np.array(rows).reshape(len(order), len(truth)) if rows and truth else []

    @staticmethod
    def _closeness(found: dict[str, Any], truth: dict[str, Any]) -> float:
        masks = coco_mask_of(found), coco_mask_of(truth)
        crowd = bool(truth["iscrowd"])
        by_mask = iou_of(*masks, crowd=crowd)
        if crowd or not by_mask:
            return by_mask
        return min(by_mask, iou_of(*map(dense_boundary, masks), crowd=False))


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A truth with crowds and void, and predictions."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ENTITYBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ENTITYBENCH_NO_PROGRESS", "1")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    truth = EntityWriter(tmp_path / "data" / "made_val", kind="ground_truth")
    mine = EntityWriter(tmp_path / "preds", model="mine")
    with truth, mine:
        for number in range(COUNT):
            random = np.random.default_rng(number)
            ids = np.kron(random.integers(0, 7, (5, 6)), np.ones((11, 13), dtype=int))
            made = EntityMap.from_array(ids, crowds=[6] if (ids == 6).any() else [])
            truth.add(f"{number}", made)
            mine.add(f"{number}", *perturb(made, random, HOW))
    return tmp_path


def opened(folder: Path) -> tuple[EntitySet, EntitySet]:
    return open_entity_set("made_val", folder / "data"), open_entity_set(folder / "preds")


def matched(folder: Path, protocol: Protocol = STRICT) -> MatchRecords:
    truth, predictions = opened(folder)
    done = []
    for image in truth:
        found = predictions[image.id]
        assert found.scores is not None
        sizes = truth_sizes(image.map, protocol)
        matches = match_boundaries(image.map, found.map, found.scores, sizes, protocol)
        done.append((ImageKey("", image.id), matches))
    return MatchRecords.gather(protocol, done)


def run(*more: str) -> int:
    return main(
        ["eval", "preds", "--gt", "made_val", "--data", "data", "-o", "r.json", "-j", "1", *more]
    )


@pytest.mark.parametrize(
    ("shape", "width"),
    [((480, 640), 16), ((1, 1), 1), ((1, 74), 1), ((1, 75), 2), ((30, 40), 1), ((1024, 2048), 46)],
)
def test_width_of_a_boundary(shape: tuple[int, int], width: int) -> None:
    assert boundary_width(shape) == width


def test_halves_are_rounded_to_even() -> None:
    assert boundary_width((35, 120)) == 2  # a diagonal of 125: 2.5 pixels
    assert boundary_width((105, 140)) == 4  # 175: 3.5


@pytest.mark.parametrize("seed", range(25))
def test_boundaries_are_those_of_the_definition(seed: int) -> None:
    random = np.random.default_rng(seed)
    height, width = random.integers(1, 150, 2).tolist()
    block = int(random.integers(1, 12))
    ids = np.kron(random.integers(0, 5, (150, 150)), np.ones((block, block), dtype=int))
    ids = ids[:height, :width]
    made = EntityMap.from_array(ids, entities=[1, 2, 3], crowds=[4])
    found = boundaries(made)
    assert (found.num_entities, found.num_crowds) == (3, 1)
    for number in range(1, 5):
        np.testing.assert_array_equal(found.to_array().T == number, dense_boundary(ids == number))


def test_boundary_of_a_square_by_hand() -> None:
    """A square of 20 in an image of diagonal 100 (d = 2) loses its inner 16."""
    ids = np.zeros((60, 80), dtype=int)
    ids[10:30, 10:30] = 1
    shifted = np.roll(ids, 2, axis=1)
    truth, prediction = EntityMap.from_array(ids), EntityMap.from_array(shifted)
    table = boundary_contingency(truth, prediction)
    assert table.truth_areas[1] == table.prediction_areas[1] == 400 - 256
    # the left bands lie side by side; of the upper and lower one 18 columns are shared
    upper_and_lower = 2 * 2 * 18
    assert table.to_array()[1, 1] == upper_and_lower
    one = np.array([1])
    assert table.iou(one, one)[0] == upper_and_lower / (2 * 144 - upper_and_lower)
    assert contingency(truth, prediction).iou(one, one)[0] == 360 / 440
    matches = match_boundaries(truth, prediction, [0.5], truth_sizes(truth, STRICT), STRICT)
    assert matches.matched[0, 0] == 0
    assert matches.best_ious[0] == pytest.approx(1 / 3)
    by_mask = match(contingency(truth, prediction), [0.5], truth_sizes(truth, STRICT), STRICT)
    assert by_mask.matched[0, 0] == 0b1111111


def test_boundaries_at_the_edge_of_the_image_count() -> None:
    assert (boundaries(EntityMap.from_array(np.ones((9, 30), int))).to_array() == 1).sum() == 74


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools
def test_scores_are_those_of_dense_masks(workplace: Path) -> None:
    truth, predictions = opened(workplace)
    with contextlib.redirect_stdout(io.StringIO()):
        ground = COCO()
        ground.dataset = coco_truth(truth)
        ground.createIndex()
        slow = SlowBoundaryEval(ground, ground.loadRes(coco_results(predictions)), "segm")
        slow.evaluate()
        slow.accumulate()
        slow.summarize()
    ours = Evaluation.of(matched(workplace))
    np.testing.assert_array_equal(
        np.nan_to_num([*ours.scores.as_dict().values()], nan=-1), slow.stats
    )
    precision = ours.curves.with_coco_sentinels()[0]
    np.testing.assert_array_equal(precision, slow.eval["precision"][:, :, 0])
    assert run("--quiet") == 0
    assert 0 < ours.scores.AP < Evaluation.of(MatchRecords.load(Path("r.matches.npz"))).scores.AP


def test_scores_are_those_of_faster_coco_eval(workplace: Path) -> None:
    peer = pytest.importorskip("faster_coco_eval")
    truth, predictions = opened(workplace)
    plain = coco_truth(truth)
    for annotation in plain["annotations"]:
        counts = annotation["segmentation"]["counts"]
        annotation["segmentation"]["counts"] = counts.decode()
    evaluator: Any = importlib.import_module("faster_coco_eval").COCOeval_faster
    with contextlib.redirect_stdout(io.StringIO()):
        ground = peer.COCO(plain)
        found = ground.loadRes(coco_results(predictions))
        theirs = evaluator(ground, found, "boundary", print_function=lambda _: None)
        theirs.evaluate()
        theirs.accumulate()
        theirs.summarize()
    ours = np.array([*Evaluation.of(matched(workplace)).scores.as_dict().values()])
    np.testing.assert_allclose(np.nan_to_num(ours, nan=-1), theirs.stats[:12], atol=1e-12)


def test_the_command_adds_a_row_and_a_result(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--boundary", "--bootstrap", "8", "--explain") == 0
    told = capsys.readouterr().out
    assert "mine, boundary" in told
    result, whole = read_result(Path("r.boundary.json")), read_result(Path("r.json"))
    expected = Evaluation.of(matched(workplace)).scores
    assert result.score("AP") == pytest.approx(expected.AP)
    assert "|dets:100|boundary:0.02" in result.signature.metric
    assert result.metric.differences(whole.metric) == ["boundary"]
    assert MetricSignature.parse(result.signature.metric) == result.metric
    assert set(result.intervals) == set(result.scores)
    assert "PQ" not in result.scores
    assert run("--boundary", "--json") == 0
    told_json = json.loads(capsys.readouterr().out)
    assert told_json["boundary"]["scores"]["AP"] == pytest.approx(100 * expected.AP)
    assert "subsets" not in told_json


def test_masks_are_scored_as_without(workplace: Path) -> None:
    assert run() == 0
    alone = Path("r.json").read_bytes(), Path("r.matches.npz").read_bytes()
    assert run("--boundary") == 0
    assert (Path("r.json").read_bytes(), Path("r.matches.npz").read_bytes()) == alone


def test_parts_merge_to_one_run(workplace: Path) -> None:
    assert run("--boundary", "--quiet") == 0
    whole = Path("r.boundary.json").read_bytes()
    for part in (1, 2):
        assert run("--boundary", "--quiet", "--shard", f"{part}/2") == 0
    Path("r.boundary.json").unlink()
    assert main(["merge", *map(str, Path().glob("r.*part-*.json"))]) == 0
    assert Path("r.boundary.json").read_bytes() == whole


def test_maps_are_needed(workplace: Path) -> None:
    assert run("--boundary", "--quick") == 2


def test_official_sizes_are_those_of_masks(workplace: Path) -> None:
    by_boundary = matched(workplace, OFFICIAL)
    assert run("--quiet", "--protocol", "official") == 0
    np.testing.assert_array_equal(
        by_boundary.truth_sizes, MatchRecords.load(Path("r.matches.npz")).truth_sizes
    )
