"""The main job: predictions in any format against named ground truth."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from entitybench.cli import main
from entitybench.entity_map import EntityMap
from entitybench.entity_set import EntitySet, Model
from entitybench.entity_writer import EntityWriter
from entitybench.errors import (
    ConflictError,
    FormatError,
    MissingDataError,
    OverlapError,
)
from entitybench.metrics import STRICT, ImagePair, MatchRecords, Protocol
from entitybench.metrics.benchmark import evaluate
from entitybench.perturbation import Perturbation, perturb
from entitybench.registry import open_entity_set
from entitybench.result import read_result
from entitybench.signature import MetricSignature
from tests.pycocotools_oracle import coco_results, pycocotools_stats

HOW = Perturbation(0.2, 0.2, 0.2, 1, 0.3)


def make_truth(path: Path, count: int = 6, seed: int = 0) -> EntitySet:
    rng = np.random.default_rng(seed)
    with EntityWriter(path, kind="ground_truth", source="made") as writer:
        for number in range(count):
            ids = np.kron(rng.integers(0, 7, (6, 7)), np.ones((9, 9), dtype=int))
            crowds = [6] if (ids == 6).any() else []
            writer.add(f"{number:06}", EntityMap.from_array(ids, crowds=crowds))
    return open_entity_set(path)


def make_predictions(path: Path, truth: EntitySet, seed: int = 1, **more: Any) -> Path:
    with EntityWriter(path, model=more.pop("model", "mine"), **more) as writer:
        for number, image in enumerate(truth):
            writer.add(image.id, *perturb(image.map, np.random.default_rng([seed, number]), HOW))
    return path


@pytest.fixture
def truth(tmp_path: Path) -> EntitySet:
    return make_truth(tmp_path / "data" / "made_entity_val")


@pytest.fixture
def data(truth: EntitySet) -> Path:
    return truth.path.parent


def as_set(predictions: EntitySet, path: Path) -> Path:
    return predictions.path


def as_results(predictions: EntitySet, path: Path) -> Path:
    path.with_suffix(".json").write_text(json.dumps(coco_results(predictions)))
    return path.with_suffix(".json")


def as_panoptic(predictions: EntitySet, path: Path) -> Path:
    assert main(["export", "coco-panoptic", str(predictions.path), "-o", str(path)]) == 0
    return path / "annotations"


def as_exported_results(predictions: EntitySet, path: Path) -> Path:
    out = path.with_suffix(".json")
    assert main(["export", "coco-instances", str(predictions.path), "-o", str(out)]) == 0
    return out


def as_masks(predictions: EntitySet, path: Path) -> Path:
    path.mkdir()
    for image in predictions:
        numbers = np.arange(1, image.map.num_entities + 1)
        masks = image.map.to_array()[None] == numbers[:, None, None]
        assert image.scores is not None
        np.savez_compressed(path / f"{image.id}.npz", masks=masks, scores=image.scores)
    return path


FORMATS = [as_set, as_results, as_panoptic, as_exported_results, as_masks]


@pytest.mark.parametrize("write", FORMATS)
def test_every_format_scores_what_pycocotools_says(
    tmp_path: Path, truth: EntitySet, data: Path, write: Callable[[EntitySet, Path], Path]
) -> None:
    own = open_entity_set(make_predictions(tmp_path / "own", truth))
    path = write(own, tmp_path / "theirs")
    scores = evaluate(path, "made_entity_val", data=data).evaluation.scores
    stats = pycocotools_stats(truth, coco_results(own))
    ours = np.array(list(scores.as_dict().values()))
    assert np.array_equal(np.where(np.isnan(ours), -1, ours), stats)


def test_truth_against_itself_is_perfect_in_both_protocols(truth: EntitySet, data: Path) -> None:
    for name in ("strict", "official"):
        done = evaluate(truth.path, "made_entity_val", data=data, protocol=Protocol.named(name))
        assert pytest.approx(1, abs=1e-12) == done.evaluation.scores.AP
        assert done.evaluation.scores.AR100 == 1
        assert "truth" in done.recognised[0]


def test_a_union_pools_its_images(tmp_path: Path, truth: EntitySet, data: Path) -> None:
    second = make_truth(data / "other_entity_val", 4, seed=9)
    make_predictions(tmp_path / "p" / "made_entity_val", truth)
    make_predictions(tmp_path / "p" / "other_entity_val", second, seed=5)
    done = evaluate(tmp_path / "p", "made_entity_val+other_entity_val", data=data)
    parts = [
        evaluate(tmp_path / "p", name, data=data)
        for name in ("made_entity_val", "other_entity_val")
    ]
    merged = MatchRecords.merge([part.evaluation.records for part in parts])
    assert len(merged) == 10
    signature = MetricSignature.parse(done.result.signature.metric)
    assert signature.num_images == 10
    assert done.result.ground_truth.name == "made_entity_val+other_entity_val"
    again = type(done.evaluation).of(merged).scores.as_dict()
    np.testing.assert_array_equal([*again.values()], [*done.evaluation.scores.as_dict().values()])


def test_pycocotools_scores_a_union_as_one_set(
    tmp_path: Path, truth: EntitySet, data: Path, coco_reference: Any
) -> None:
    pairs = []
    for first, own in ((0, truth), (1000, make_truth(data / "other_entity_val", 4, seed=9))):
        found = make_predictions(tmp_path / "p" / own.header.name, own, seed=first)
        for image in own:
            made = open_entity_set(found)[image.id]
            assert made.scores is not None
            name = f"{first + int(image.id)}"
            pairs.append(ImagePair(name, image.map, made.map, made.scores))
    done = evaluate(tmp_path / "p", "made_entity_val+other_entity_val", data=data)
    ours = [*done.evaluation.scores.as_dict().values()]
    np.testing.assert_array_equal(np.nan_to_num(ours, nan=-1), coco_reference(pairs, STRICT).stats)


def test_a_union_needs_a_set_per_name(tmp_path: Path, truth: EntitySet, data: Path) -> None:
    make_truth(data / "other_entity_val", 2)
    make_predictions(tmp_path / "p" / "made_entity_val", truth)
    with pytest.raises(MissingDataError, match="no predictions for `other_entity_val`"):
        evaluate(tmp_path / "p", "made_entity_val+other_entity_val", data=data)


def test_a_union_comes_from_one_model(tmp_path: Path, truth: EntitySet, data: Path) -> None:
    other = make_truth(data / "other_entity_val", 2)
    make_predictions(tmp_path / "p" / "made_entity_val", truth)
    make_predictions(tmp_path / "p" / "other_entity_val", other, model="another")
    with pytest.raises(ConflictError, match="different models"):
        evaluate(tmp_path / "p", "made_entity_val+other_entity_val", data=data)


def test_missing_images_are_an_error_or_empty(tmp_path: Path, truth: EntitySet, data: Path) -> None:
    with EntityWriter(tmp_path / "p", model="m") as writer:
        writer.add("000001", truth["000001"].map.to_array() % 6, np.full(5, 0.5))
    with pytest.raises(MissingDataError, match="miss 5 of 6 images") as caught:
        evaluate(tmp_path / "p", "made_entity_val", data=data)
    assert "000000" in str(caught.value)
    assert "--missing empty" in str(caught.value)
    done = evaluate(tmp_path / "p", "made_entity_val", data=data, missing="empty")
    assert done.evaluation.counts.images_without_predictions == 5
    assert done.evaluation.counts.images == 6


def test_unknown_images_are_refused(tmp_path: Path, truth: EntitySet, data: Path) -> None:
    with EntityWriter(tmp_path / "p", model="m") as writer:
        writer.add("999", [[1]], [0.5])
    with pytest.raises(FormatError, match="unknown") as caught:
        evaluate(tmp_path / "p", "made_entity_val", data=data)
    assert "999" in str(caught.value)


def test_another_size_is_refused_with_the_image(
    tmp_path: Path, truth: EntitySet, data: Path
) -> None:
    with EntityWriter(tmp_path / "p", model="m") as writer:
        for image_id in truth.ids:
            writer.add(image_id, [[1]], [0.5])
    with pytest.raises(FormatError) as caught:
        evaluate(tmp_path / "p", "made_entity_val", data=data)
    assert "000000" in str(caught.value)
    assert "1×1" in str(caught.value)


def overlapping(truth: EntitySet) -> list[dict[str, Any]]:
    """In image 1, two masks that share a block of 2 × 3 pixels."""
    row = truth.image_row("000001")
    masks = np.zeros((2, row.height, row.width), dtype=np.uint8)
    masks[0, :10, :10] = 1
    masks[1, 8:20, 7:20] = 1
    results = []
    for mask, score in zip(masks, (0.9, 0.8), strict=True):
        rle = coco_mask.encode(np.asfortranarray(mask))
        results.append(
            {
                "image_id": 1,
                "segmentation": {"size": rle["size"], "counts": rle["counts"].decode()},
                "score": score,
            }
        )
    return results


def test_overlap_is_refused_with_pairs_and_pixels(
    tmp_path: Path, truth: EntitySet, data: Path
) -> None:
    path = tmp_path / "overlap.json"
    path.write_text(json.dumps(overlapping(truth)))
    with pytest.raises(OverlapError, match="predictions overlap in 1 of 6 images") as caught:
        evaluate(path, "made_entity_val", data=data)
    assert "000001: entities 1 and 2 share 6 pixels" in str(caught.value)
    done = evaluate(path, "made_entity_val", data=data, overlap="resolve")
    assert done.result.signature.prediction == "scores:model|overlap:resolved-in-1"
    areas = done.evaluation.records.areas.tolist()
    assert areas == [100, 12 * 13 - 6]


def test_predictions_as_ground_truth_are_refused(
    tmp_path: Path, truth: EntitySet, data: Path
) -> None:
    make_predictions(data / "p", truth)
    with pytest.raises(FormatError, match="holds predictions"):
        evaluate(data / "p", "p", data=data)


def test_model_and_threshold_reach_the_result(tmp_path: Path, truth: EntitySet, data: Path) -> None:
    block = Model("theirs", ("made_entity_train",), "https://example.org", "model", 0.05, 2)
    make_predictions(tmp_path / "p", truth, model=block)
    result = evaluate(tmp_path / "p", "made_entity_val", data=data).result
    assert result.model.name == "theirs"
    assert result.model.trained_on == ("made_entity_train",)
    assert result.signature.prediction == "scores:model|overlap:resolved-in-2|thresholded:0.05"


def test_eval_prints_the_table_and_the_signature_and_writes_the_result(
    tmp_path: Path,
    truth: EntitySet,
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make_predictions(tmp_path / "preds" / "made_entity_val", truth)
    monkeypatch.chdir(tmp_path)
    arguments = ["eval", "preds/", "--gt", "made_entity_val", "--data", str(data)]
    assert main([*arguments, "-j", "2"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].split() == [
        *("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100"),
        *("PQ", "SQ", "RQ"),
    ]
    assert out[1].split()[0] == "mine"
    assert out[2].startswith("APe|metric:1|gt:made_entity_val@")
    assert out[3] == "scores:model|overlap:none"
    result = read_result(Path("results/mine/made_entity_val.json"))
    direct = evaluate("preds", "made_entity_val", data=data).evaluation
    assert result.score("AP") == pytest.approx(direct.scores.AP, abs=1e-15)
    records = MatchRecords.load(Path("results/mine/made_entity_val.matches.npz"))
    again = type(direct).of(records).scores.as_dict()
    np.testing.assert_array_equal([*again.values()], [*direct.scores.as_dict().values()])
    assert main([*arguments, "--json", "-q"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["scores"]["AP"] == result.scores["AP"]
    assert printed["path"] == "results/mine/made_entity_val.json"


def test_no_path_comes_from_a_models_name(
    tmp_path: Path, truth: EntitySet, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_predictions(tmp_path / "preds", truth, model="../../../escaped")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert (
        main(["eval", "../preds", "--gt", "made_entity_val", "--data", str(data), "-j", "1"]) == 0
    )
    written = [p.relative_to(tmp_path / "here") for p in tmp_path.rglob("made_entity_val.json")]
    assert [p.parts[0] for p in written] == ["results"]
