from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from entitybench.baselines.checkpoint import read_card
from entitybench.commands.predict_command import command as predict
from entitybench.commands.train_command import command as train
from entitybench.errors import FormatError, UnknownNameError
from entitybench.registry import open_entity_set
from tests.pycocotools_oracle import pycocotools_box_stats

SMALL = [
    "--set", "data.short_sides=[64]", "--set", "data.test_short_side=64",
    "--set", "schedule.batch=2", "--set", "schedule.validate_images=1",
    "--set", "pyramid.channels=32", "--set", "head.tower_depth=1",
    "--set", "inference.threshold=0.005",
]  # fmt: skip


def call(command: object, *arguments: str) -> Result:
    result = CliRunner().invoke(command, list(arguments))  # type: ignore[arg-type]
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture(scope="module")
def run(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "mine"
    result = call(
        train, "--on", "coco_entity_train", "--data", str(world), "--out", str(out),
        "--steps", "1", "--device", "cpu", "-j", "1", "--json", *SMALL,
    )  # fmt: skip
    assert result.exit_code == 0
    told = json.loads(result.stdout)
    assert told["model"] == str(out / "model.safetensors")
    assert told["step"] == 1
    assert "AP_e" in result.stderr  # the split `val` was found by itself
    return out


def test_train_then_predict_a_set(run: Path, world: Path, tmp_path: Path) -> None:
    arguments = [
        "--model", str(run), "--on", "coco_entity_val+ade20k_entity_val", "--data", str(world),
        "--out", str(tmp_path), "--device", "cpu", "-j", "1", "--batch", "2",
    ]  # fmt: skip
    assert call(predict, *arguments).exit_code == 0
    made = open_entity_set(tmp_path / "ade20k_entity_val")
    assert made.header.model is not None
    assert made.header.model.name == "mine"
    assert made.header.model.trained_on == ("coco_entity_train",)
    assert call(predict, *arguments, "--quiet").exit_code == 0  # all is there
    with pytest.raises(FormatError, match="cannot change"):
        call(predict, *arguments, "--set", "overlap.weight=1")


def test_photographs_get_panels(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(folder / "a.png")
    out = tmp_path / "out"
    assert call(
        predict, "--model", str(run / "model.safetensors"), "--images", str(folder),
        "--out", str(out), "--device", "cpu",
    ).exit_code == 0  # fmt: skip
    assert open_entity_set(out / "entities").ids == ("a",)
    with Image.open(out / "panels" / "a.png") as panel:
        assert panel.width > 2 * panel.height


def test_a_detector_writes_boxes_that_pycocotools_scores_alike(world: Path, tmp_path: Path) -> None:
    out = tmp_path / "fcos"
    call(
        train, "--on", "coco_entity_train", "--data", str(world), "--out", str(out), "--steps", "1",
        "--set", "mask.enabled=false", "--set", "overlap.activation=none", "--device", "cpu",
        "--quiet", *SMALL,
    )  # fmt: skip
    result = call(
        predict, "--model", str(out), "--on", "coco_entity_val", "--data", str(world),
        "--out", str(tmp_path), "--device", "cpu", "--json",
    )  # fmt: skip
    [told] = json.loads(result.stdout)["detections"]
    truth = open_entity_set("coco_entity_val", world)
    results = json.loads(Path(told["path"]).read_text())
    assert len(results) > 20
    expected = pycocotools_box_stats(truth, results)[0]
    assert told["APb"] == pytest.approx(100 * expected, abs=1e-9)


def test_epochs_become_steps(world: Path, tmp_path: Path) -> None:
    call(
        train, "--on", "coco_entity_train", "--data", str(world), "--out", str(tmp_path / "x"),
        "--epochs", "0.17", "--device", "cpu", "--quiet", "--validate", "coco_entity_val", *SMALL,
    )  # fmt: skip
    assert read_card(tmp_path / "x" / "model.safetensors").step == 1


def test_mistakes_on_the_command_line(world: Path, tmp_path: Path) -> None:
    common = ["--on", "coco_entity_train", "--data", str(world), "--out", str(tmp_path / "x")]
    assert call(train, *common, "--steps", "1", "--epochs", "1").exit_code == 2
    with pytest.raises(UnknownNameError, match="did you mean `tiny`"):
        call(train, *common, "--config", "tinyy")
    with pytest.raises(UnknownNameError, match="did you mean `rate`"):
        call(train, *common, "--set", "schedule.rat=1")
    assert call(predict, "--model", "x", "--out", "y").exit_code == 2
