"""Whether the model can learn at all: a few scenes by heart, against what its stride allows."""

from __future__ import annotations

from pathlib import Path

import pytest

from entitybench.baselines.ceiling import ceiling
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

CHANGES = ("schedule.batch=8", "data.flip=0.0", "schedule.save_every=0")


def scenes(folder: Path, count: int, size: int, seed: int) -> EntitySet:
    make_world(folder / "coco", "coco", train=count, val=0, size=size, seed=seed)
    convert_source("coco", folder / "coco", folder / "data", splits=["train"])
    return open_entity_set("coco_entity_train", folder / "data")


def learned(truth: EntitySet, out: Path, *changes: str) -> tuple[float, float]:
    """Train on a set and return its AP_e on the same set, and the ceiling."""
    kind = family("entity")
    config = load_config(kind.config, kind.package, "tiny", [*CHANGES, *changes])
    path = train(Run(kind, config, [truth], out, seed=0, device="cpu"))
    model, _ = load_model(path)
    model.run_with(config.schedule)
    found = validate(Predictor.of(model.eval(), config), truth, len(truth))["AP"]
    return found, ceiling(truth, config.data, 2).AP


def test_the_loss_falls_on_two_scenes(tmp_path: Path) -> None:
    truth = scenes(tmp_path, 2, 64, seed=1)
    changes = (
        "schedule.steps=24", "schedule.batch=2", "schedule.warmup=4", "data.short_sides=[64]",
        "data.test_short_side=64", "pyramid.channels=32", "head.tower_depth=1",
    )  # fmt: skip
    learned(truth, tmp_path / "run", *changes)
    losses = [row["loss"] for row in read_log(tmp_path / "run" / "log.csv")]
    assert losses[-1] < 0.85 * losses[0]


@pytest.mark.slow
def test_eight_scenes_are_learned_by_heart(tmp_path: Path) -> None:
    truth = scenes(tmp_path, 8, 128, seed=1)
    found, best = learned(truth, tmp_path / "run", "schedule.steps=500")
    assert found >= 0.9 * best, f"AP_e {found:.3f}, the output stride allows {best:.3f}"
