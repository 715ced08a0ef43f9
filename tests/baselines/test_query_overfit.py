"""Whether the models with queries can learn at all: a few scenes by heart."""

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

FAMILIES = ("detr", "maskformer", "mask2former")
# How many times the loss falls, and AP_e. DETR's boxes come first: its masks are not there yet.
# Some of Mask2Former's loss is that of queries which have not seen the image, and stays.
LEARNED = [("detr", 10, 0.0), ("maskformer", 10, 0.2), ("mask2former", 4, 0.2)]
CHANGES = (
    "schedule.batch=2",
    "schedule.precision=float32",
    "schedule.warmup=10",
    "schedule.save_every=0",
    "schedule.rate=5e-4",
    "data.short_sides=[64]",
    "data.test_short_side=64",
    "data.flip=0.0",
)


def two_scenes(folder: Path) -> EntitySet:
    make_world(folder / "coco", "coco", train=2, val=0, size=64, seed=1)
    convert_source("coco", folder / "coco", folder / "data", splits=["train"])
    return open_entity_set("coco_entity_train", folder / "data")


def learned(name: str, truth: EntitySet, out: Path, *changes: str) -> tuple[list[float], float]:
    """Train on a set; return the losses, and AP_e on the same set."""
    kind = family(name)
    config = load_config(kind.config, kind.package, "tiny", [*CHANGES, *changes])
    model, _ = load_model(train(Run(kind, config, [truth], out, seed=0, device="cpu")))
    losses = [row["loss"] for row in read_log(out / "log.csv")]
    return losses, validate(Predictor.of(model.eval(), config), truth, len(truth))["AP"]


@pytest.mark.parametrize("name", FAMILIES)
def test_the_loss_falls_on_two_scenes(name: str, tmp_path: Path) -> None:
    losses, _ = learned(name, two_scenes(tmp_path), tmp_path / "run", "schedule.steps=40")
    assert losses[-1] < 0.85 * losses[0]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "times", "score"), LEARNED)
def test_two_scenes_are_learned_by_heart(
    name: str, times: float, score: float, tmp_path: Path
) -> None:
    truth = two_scenes(tmp_path)
    losses, found = learned(name, truth, tmp_path / "run", "schedule.steps=400")
    assert losses[-1] < losses[0] / times
    assert found >= score
