from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from entitybench.baselines.checkpoint import load_model, read_card
from entitybench.baselines.configuration import load_config
from entitybench.baselines.optimiser import make_optimiser, rate_at
from entitybench.baselines.registry import family
from entitybench.baselines.run_log import read_log
from entitybench.baselines.settings import Schedule
from entitybench.baselines.training import NonFiniteLossError, Progress, Run, train
from entitybench.errors import ConflictError, FormatError, UnknownNameError
from entitybench.registry import open_union

SMALL = (
    "data.short_sides=[64]",
    "data.test_short_side=64",
    "schedule.batch=2",
    "schedule.precision=float32",
    "schedule.warmup=2",
    "schedule.save_every=2",
    "schedule.validate_images=2",
    "mask.norm=group",
    "mask.branch_channels=32",
    "mask.branch_depth=1",
    "pyramid.channels=32",
    "head.tower_depth=1",
    "sampling.per_image=8",
)


def make_run(world: Path, out: Path, *changes: str, on: str = "coco_entity_train") -> Run:
    kind = family("entity")
    config = load_config(kind.config, kind.package, "tiny", [*SMALL, *changes])
    return Run(kind, config, open_union(on, world), out, seed=5, device="cpu")


def losses(folder: Path) -> list[tuple[float, float]]:
    return [(row["step"], row["loss"]) for row in read_log(folder / "log.csv")]


@pytest.mark.parametrize(("log_every", "logged"), [(1, [1, 2, 3, 4, 5]), (3, [2, 3, 4, 5])])
def test_killed_and_resumed_gives_the_same_losses(
    log_every: int, logged: list[int], world: Path, tmp_path: Path
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    changes = ["schedule.steps=5", f"schedule.log_every={log_every}"]
    train(make_run(world, whole, *changes))

    def kill(progress: Progress) -> None:
        if progress.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(make_run(world, cut, *changes), kill)
    assert read_card(cut / "checkpoint.safetensors").step == 2
    assert not (cut / "model.safetensors").exists()
    train(make_run(world, cut, *changes))
    assert losses(cut) == losses(whole)
    assert [step for step, _ in losses(cut)] == logged
    ours, theirs = (load_model(f / "model.safetensors")[0].state_dict() for f in (whole, cut))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert (whole / "curves.png").stat().st_size > 1000


def test_a_finished_run_is_there_and_another_is_refused(world: Path, tmp_path: Path) -> None:
    run = make_run(world, tmp_path / "run", "schedule.steps=1")
    path = train(run)
    before = path.stat().st_mtime_ns
    assert train(run) == path
    assert path.stat().st_mtime_ns == before
    other = make_run(world, tmp_path / "run", "schedule.steps=1", "overlap.weight=1.0")
    with pytest.raises(ConflictError, match="other choices") as caught:
        train(other)
    assert any("overlap.weight" in place for place in caught.value.where)
    train(replace(other, overwrite=True))
    assert read_card(path).config["overlap"]["weight"] == 1.0


def test_an_untrained_model_is_a_run_like_any_other(world: Path, tmp_path: Path) -> None:
    path = train(make_run(world, tmp_path, "schedule.steps=0"))
    assert read_card(path).step == 0
    assert train(make_run(world, tmp_path, "schedule.steps=0")) == path
    with pytest.raises(ConflictError, match="other choices"):
        train(make_run(world, tmp_path, "schedule.steps=1"))


def test_a_union_of_worlds_trains_and_is_validated(world: Path, tmp_path: Path) -> None:
    names = "coco_entity_train+ade20k_entity_train"
    run = make_run(world, tmp_path, "schedule.steps=2", "data.balance=equal", on=names)
    run = replace(run, validation=open_union("coco_entity_val", world)[0])
    train(run)
    assert read_card(tmp_path / "model.safetensors").trained_on == tuple(names.split("+"))
    [row] = read_log(tmp_path / "validation.csv")
    assert row["step"] == 2
    assert 0 <= row["AP"] <= 1


def test_class_specific_training_knows_its_classes(world: Path, tmp_path: Path) -> None:
    run = make_run(world, tmp_path, "schedule.steps=1", "head.class_specific=true")
    model, card = load_model(train(run))
    assert len(card.classes.names) == card.classes.count > 20
    head = model.get_submodule("head.entityness")
    assert isinstance(head, torch.nn.Conv2d)
    assert head.out_channels == card.classes.count


def test_a_loss_that_is_not_finite_stops_and_keeps_its_batch(world: Path, tmp_path: Path) -> None:
    run = make_run(
        world, tmp_path, "schedule.steps=9", "schedule.rate=1e30", "schedule.clip=0.0",
        "schedule.warmup=0", "schedule.optimiser=sgd", "schedule.log_every=50",
    )  # fmt: skip
    with pytest.raises(NonFiniteLossError, match="not finite") as caught:
        train(run)
    assert "schedule.rate" in caught.value.hint
    [path] = tmp_path.glob("nonfinite-step-*.safetensors")
    with safe_open(path, framework="pt") as file:
        assert file.get_tensor("pixels").dtype == torch.uint8
        assert len(json.loads(file.metadata()["images"])) == 2
    assert not (tmp_path / "model.safetensors").exists()
    assert not (tmp_path / "checkpoint.safetensors").exists()  # due after the step that failed


def test_checkpoints_hold_no_pickle(world: Path, tmp_path: Path) -> None:
    train(make_run(world, tmp_path, "schedule.steps=1"))
    assert {p.name for p in tmp_path.iterdir()} == {
        "checkpoint.safetensors", "model.safetensors", "log.csv", "curves.png",
    }  # fmt: skip
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes((tmp_path / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(FormatError):
        read_card(broken)


def test_two_processes_have_the_losses_of_one(world: Path, tmp_path: Path) -> None:
    # batch norm sees the images of one process: the equality is that of the losses
    changes = [
        "schedule.steps=3",
        "schedule.batch=4",
        "schedule.clip=0.0",
        "backbone.frozen_norm=true",
    ]
    train(make_run(world, tmp_path / "one", *changes))
    script = tmp_path / "work.py"
    script.write_text(
        "import sys, torch\n"
        "from pathlib import Path\n"
        "torch.set_num_threads(1)\n"
        "from entitybench.baselines.configuration import load_config\n"
        "from entitybench.baselines.registry import family\n"
        "from entitybench.baselines.training import Run, train\n"
        "from entitybench.registry import open_union\n"
        "world, out, *changes = sys.argv[1:]\n"
        "kind = family('entity')\n"
        "config = load_config(kind.config, kind.package, 'tiny', changes)\n"
        "sets = open_union('coco_entity_train', world)\n"
        "train(Run(kind, config, sets, Path(out), seed=5, device='cpu'))\n"
    )
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2",
        "--master-port", str(20_000 + os.getpid() % 20_000), str(script), str(world),
        str(tmp_path / "two"), *SMALL, *changes,
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    one, two = (losses(tmp_path / name) for name in ("one", "two"))
    assert [step for step, _ in two] == [1, 2, 3]
    for (_, expected), (_, found) in zip(one, two, strict=True):
        assert found == pytest.approx(expected, rel=2e-5)


def test_an_unknown_family_is_told() -> None:
    with pytest.raises(UnknownNameError, match="did you mean `entity`"):
        family("entty")


def test_learning_rates() -> None:
    three = Schedule(steps=270_000, drops=(0.666667, 0.925926))
    assert rate_at(three, 179_999) == pytest.approx(0.01)
    assert rate_at(three, 180_000) == pytest.approx(0.001)
    assert rate_at(three, 250_000) == pytest.approx(0.0001)
    cosine = Schedule(steps=100, warmup=0, rate=1.0, shape="cosine")
    assert rate_at(cosine, 50) == pytest.approx(0.5)
    assert rate_at(cosine, 0) == 1.0
    poly = Schedule(steps=1000, warmup=0, rate=1.0, shape="poly")
    assert rate_at(poly, 0) == 1.0
    assert rate_at(poly, 900) == pytest.approx(0.125893, abs=1e-6)  # 0.1 ** 0.9
    assert rate_at(poly, 1000) == 0.0


def test_norms_do_not_decay() -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.GroupNorm(2, 4))
    sgd = make_optimiser(model, Schedule())
    assert [len(g["params"]) for g in sgd.param_groups] == [2, 2]
    adam = make_optimiser(model, Schedule(optimiser="adamw"))
    assert [len(g["params"]) for g in adam.param_groups] == [1, 3]
    assert [g["weight_decay"] for g in adam.param_groups] == [1e-4, 0.0]
