"""A family of one's own: one file and its configuration, and every command takes it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from entitybench.baselines.registry import FAMILIES
from entitybench.cli import entitybench

MODEL = '''
"""All of an image is one entity; what is learned is its score."""

from dataclasses import dataclass, field

import torch
from torch import nn

from entitybench.baselines.entity.config import Inference
from entitybench.baselines.model import BaselineModel, MaskCandidates
from entitybench.baselines.registry import Family
from entitybench.baselines.settings import Data, Schedule


@dataclass(frozen=True, slots=True)
class Head:
    class_specific: bool = False


@dataclass(frozen=True, slots=True)
class Config:
    head: Head = field(default_factory=Head)
    inference: Inference = field(default_factory=Inference)
    data: Data = field(default_factory=Data)
    schedule: Schedule = field(default_factory=Schedule)


class Whole(BaselineModel):
    divisor = 32

    def __init__(self, classes):
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(classes.count))

    def dense(self, pixels):
        return self.logits.expand(len(pixels), -1)

    def losses(self, batch):
        best = self.run_dense(batch.images.pixels).amax(1)
        return {"score": nn.functional.softplus(-best).mean()}

    def candidates(self, images):
        score, label = self.run_dense(images.pixels).sigmoid().max(1, keepdim=True)
        height, width = images.pixels.shape[-2:]
        masks = torch.ones(len(score), 1, height // 4, width // 4)
        sides = images.sizes.flip(1).float()[:, None]
        boxes = torch.cat([torch.zeros_like(sides), sides], dim=2)
        return MaskCandidates(score, score > 0, boxes, label, masks, 4)


FAMILY = Family("whole", "whole", Config, lambda config, classes: Whole(classes),
                "head.class_specific")
'''
CONFIG = """
[data]
short_sides = [64]
test_short_side = 64
[schedule]
steps = 3
batch = 2
warmup = 0
optimiser = "adamw"
rate = 0.1
"""


@pytest.mark.parametrize("classes", ["agnostic", "specific"])
def test_one_file_and_its_configuration_are_enough(
    classes: str, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "whole"
    (package / "configs").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "model.py").write_text(MODEL)
    (package / "configs" / "tiny.toml").write_text(CONFIG)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(FAMILIES, "whole", "whole.model")

    def run(*arguments: str) -> str:
        common = ["--data", str(world), "-j", "1", "--json", "--quiet"]
        result = CliRunner().invoke(entitybench, [*arguments, *common], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout

    out, preds = tmp_path / "run", tmp_path / "preds"
    run("train", "--model", "whole", "--classes", classes, "--on", "coco_entity_train",
        "--out", str(out), "--device", "cpu")  # fmt: skip
    run("predict", "--model", str(out), "--on", "coco_entity_val", "--out", str(preds),
        "--device", "cpu")  # fmt: skip
    told = json.loads(run("eval", str(preds), "--gt", "coco_entity_val"))
    assert told["scores"]["AP"] >= 0
    assert (out / "curves.png").is_file()
