"""Training through the shared path: both ways, again and again the same, and by heart."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from entitybench.baselines.ceiling import ceiling
from entitybench.baselines.checkpoint import load_model, read_card
from entitybench.baselines.configuration import load_config
from entitybench.baselines.prediction import Predictor
from entitybench.baselines.registry import family
from entitybench.baselines.run_log import read_log
from entitybench.baselines.training import Progress, Run, train
from entitybench.baselines.validation import validate
from entitybench.converters.conversion import convert_source
from entitybench.converters.worlds import make_world
from entitybench.entity_set import EntitySet
from entitybench.registry import open_entity_set

SMALL = (
    "data.short_sides=[64]", "data.test_short_side=64", "schedule.batch=2", "schedule.warmup=2",
    "pyramid.channels=32", "head.channels=32", "head.depth=1", "features.semantic_channels=32",
    "features.depth=1",
)  # fmt: skip


def make_run(truth: EntitySet, out: Path, *changes: str) -> Run:
    kind = family("panopticfcn")
    config = load_config(kind.config, kind.package, "tiny", changes)
    return Run(kind, config, [truth], out, seed=0, device="cpu")


def score(run: Run, path: Path, truth: EntitySet) -> float:
    """Return the AP_e of a trained model."""
    model, card = load_model(path)
    model.run_with(run.schedule)
    predictor = Predictor.of(model.eval(), run.config, card.classes)
    return validate(predictor, truth, len(truth))["AP"]


@pytest.mark.parametrize("specific", ["false", "true"])
def test_killed_and_resumed_gives_the_same_weights(
    specific: str, world: Path, tmp_path: Path
) -> None:
    truth = open_entity_set("coco_entity_train", world)
    changes = [*SMALL, f"head.class_specific={specific}", "schedule.save_every=1"]
    changes += ["schedule.steps=2", "schedule.precision=float32"]
    whole = train(make_run(truth, tmp_path / "whole", *changes))

    def kill(progress: Progress) -> None:
        if progress.step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(make_run(truth, tmp_path / "cut", *changes), kill)
    assert read_card(tmp_path / "cut" / "checkpoint.safetensors").step == 1
    cut = train(make_run(truth, tmp_path / "cut", *changes))
    (ours, card), (theirs, _) = load_model(cut), load_model(whole)
    assert len(card.classes.names) == (len(truth.header.categories) if specific == "true" else 0)
    pairs = zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True)
    assert all(torch.equal(mine, other) for (_, mine), other in pairs)
    config = make_run(truth, tmp_path / "none", *changes).config
    predictor = Predictor.of(ours.eval(), config, card.classes)
    [found] = predictor.predict([Image.new("RGB", (64, 48))])
    assert found.map.shape == (48, 64)
    assert len(predictor.provenance(found)) == (len(found.scores) if specific == "true" else 0)


def scenes(folder: Path, count: int, size: int, seed: int) -> EntitySet:
    make_world(folder / "coco", "coco", train=count, val=0, size=size, seed=seed)
    convert_source("coco", folder / "coco", folder / "data", splits=["train"])
    return open_entity_set("coco_entity_train", folder / "data")


@pytest.mark.parametrize("specific", ["false", "true"])
def test_the_loss_falls_on_two_scenes(specific: str, tmp_path: Path) -> None:
    truth = scenes(tmp_path, 2, 64, seed=1)
    changes = (*SMALL, f"head.class_specific={specific}", "schedule.steps=40", "data.flip=0.0")
    train(make_run(truth, tmp_path / "run", *changes, "schedule.save_every=0"))
    losses = [row["loss"] for row in read_log(tmp_path / "run" / "log.csv")]
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.slow
@pytest.mark.parametrize("specific", ["false", "true"])
def test_eight_scenes_are_learned_by_heart(specific: str, tmp_path: Path) -> None:
    truth = scenes(tmp_path, 8, 128, seed=1)
    changes = (f"head.class_specific={specific}", "data.flip=0.0", "schedule.save_every=0")
    run = make_run(truth, tmp_path / "run", *changes, "schedule.steps=500")
    found = score(run, train(run), truth)
    untrained = make_run(truth, tmp_path / "untrained", *changes, "schedule.steps=0")
    nothing = score(untrained, train(untrained), truth)
    best = ceiling(truth, run.config.data, 4).AP
    assert nothing < 0.01
    assert found >= 0.5 * best, f"AP_e {found:.3f}, the output stride allows {best:.3f}"
    losses = [row["loss"] for row in read_log(run.out / "log.csv")]
    assert losses[-1] < 0.35 * losses[0]
