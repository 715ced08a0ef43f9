"""Whether K-Net can learn at all: a few scenes by heart."""

from __future__ import annotations

from pathlib import Path

import pytest

from entitybench.baselines.checkpoint import load_model
from entitybench.baselines.configuration import load_config
from entitybench.baselines.prediction import Predictor
from entitybench.baselines.registry import family
from entitybench.baselines.run_log import read_log
from entitybench.baselines.training import Run, train
from entitybench.baselines.validation import validate
from entitybench.converters.conversion import convert_source
from entitybench.converters.worlds import make_world
from entitybench.entity_set import EntitySet
from entitybench.registry import open_entity_set

CHANGES = ("data.flip=0.0", "schedule.save_every=0", "schedule.precision=float32")


def scenes(folder: Path, count: int, size: int) -> EntitySet:
    make_world(folder / "coco", "coco", train=count, val=0, size=size, seed=1)
    convert_source("coco", folder / "coco", folder / "data", splits=["train"])
    return open_entity_set("coco_entity_train", folder / "data")


def learned(name: str, truth: EntitySet, out: Path, *changes: str) -> float:
    """Train on a set and return AP_e on the same set."""
    kind = family("knet")
    config = load_config(kind.config, kind.package, name, [*CHANGES, *changes])
    model, card = load_model(train(Run(kind, config, [truth], out, device="cpu")))
    model.run_with(config.schedule)
    predictor = Predictor.of(model.eval(), config, card.classes)
    return validate(predictor, truth, len(truth))["AP"]


@pytest.mark.parametrize("name", ["tiny", "tiny_specific", "tiny_both"])
def test_the_loss_falls_on_two_scenes(name: str, tmp_path: Path) -> None:
    truth = scenes(tmp_path, 2, 64)
    changes = (
        "schedule.steps=30", "schedule.batch=2", "schedule.warmup=4", "data.short_sides=[64]",
        "data.test_short_side=64", "kernels.channels=32",
    )  # fmt: skip
    learned(name, truth, tmp_path / "run", *changes)
    losses = [row["loss"] for row in read_log(tmp_path / "run" / "log.csv")]
    assert losses[-1] < 0.6 * losses[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tiny", "tiny_specific"])
def test_eight_scenes_are_learned_by_heart(name: str, tmp_path: Path) -> None:
    truth = scenes(tmp_path, 8, 128)
    untrained = learned(name, truth, tmp_path / "before", "schedule.steps=0")
    found = learned(name, truth, tmp_path / "run", "schedule.steps=400")
    assert untrained < 0.02
    assert found > 0.3
