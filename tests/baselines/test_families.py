"""What every family of models promises, whatever is inside."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.utils.flop_counter import FlopCounterMode

from entitybench.baselines.batch import Batch
from entitybench.baselines.checkpoint import Card, card_config, load_model, save
from entitybench.baselines.configuration import load_config, named_configs
from entitybench.baselines.model import BaselineModel, Classes
from entitybench.baselines.prediction import Predictor
from entitybench.baselines.registry import FAMILIES, Family, family
from entitybench.baselines.run_log import read_log
from entitybench.baselines.training import Run, train
from entitybench.errors import FormatError, UnknownNameError
from entitybench.registry import open_union

ROOT = Path(__file__).resolve().parents[2]
READY = list(FAMILIES)
MODES = ("agnostic", "specific")
CLASSES = Classes(("sky", "tree", "dog"), (False, False, True))

SMALL = (
    "data.short_sides=[64]",
    "data.test_short_side=64",
    "schedule.batch=2",
    "schedule.warmup=0",
    "schedule.precision=float32",
)

MakeBatch = Callable[..., Batch]


def config_of(kind: Family, mode: str = "agnostic", *changes: str) -> Any:
    chosen = f"{kind.classes_key}={str(mode == 'specific').lower()}"
    return load_config(kind.config, kind.package, "tiny", [*SMALL, chosen, *changes])


def model_of(name: str, mode: str = "agnostic") -> BaselineModel:
    kind = family(name)
    torch.manual_seed(0)
    return kind.build(config_of(kind, mode), CLASSES if mode == "specific" else Classes())


def scenes(make_batch: MakeBatch, mode: str = "agnostic") -> Batch:
    """Two scenes of 64 pixels: three entities, two of them touching; one entity and a lot of void.

    One slot of three is empty in the second.
    """
    ids = torch.zeros(2, 64, 64, dtype=torch.int64)
    ids[0, :, :30], ids[0, :, 30:], ids[0, 20:44, 10:50] = 1, 2, 3
    ids[1, 8:40, 16:48] = 1
    batch = make_batch(ids)
    labels = torch.tensor([[0, 1, 2], [2, 0, 0]])
    return replace(batch, labels=labels * (mode == "specific"), things=labels == 2)


def test_families_are_found_by_their_place() -> None:
    """Adding one touches no list: its folder has a `model.py`."""
    expected = "detr entity knet mask2former maskformer panopticfcn panopticfpn"
    assert READY == expected.split()


@pytest.mark.parametrize("name", READY)
def test_every_family_says_what_it_is(name: str) -> None:
    kind = family(name)
    assert kind.name == name
    assert "tiny" in named_configs(kind.package)
    assert not kind.class_specific(config_of(kind))
    assert kind.class_specific(config_of(kind, "specific"))
    docs = ROOT / "docs"
    assert (docs / "models" / f"{name}.md").is_file() or name == "entity"


COCO = Classes(tuple(f"class {n}" for n in range(133)), (True,) * 80 + (False,) * 53)
PUBLISHED = {
    "ours, class-agnostic": ("entity", "entity_r50_1x"),
    "PanopticFCN": ("panopticfcn", "r50_1x"),
    "Panoptic FPN": ("panopticfpn", "panopticfpn_r50_1x_specific"),
    "K-Net": ("knet", "knet_r50_1x_specific"),
    "MaskFormer, simple pixel decoder": ("maskformer", "maskformer_r50"),
    "Mask2Former": ("mask2former", "mask2former_r50"),
    "DETR": ("detr", "detr_r50"),
}


@pytest.mark.parametrize("title", PUBLISHED)
def test_the_guide_tells_size_and_cost(title: str) -> None:
    text = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    text = text.partition("multiply-adds:")[2]
    [line] = [line for line in text.splitlines() if line.startswith(f"| {title} |")]
    parameters, cost = (cell.strip() for cell in line.split("|")[2:4])
    name, config = PUBLISHED[title]
    kind = family(name)
    with torch.device("cpu" if name == "detr" else "meta"):
        settings = load_config(kind.config, kind.package, config)
        model = kind.build(settings, Classes() if name == "entity" else COCO).eval()
    assert parameters == f"{sum(p.numel() for p in model.parameters()):,}"
    if name in ("detr", "panopticfpn"):
        return  # more than the dense part: their own tests count it
    model.to("meta").requires_grad_(requires_grad=False)
    pixels = torch.empty(1, 3, 800, 800, device="meta")
    backbone = model.get_submodule("backbone")
    costs = []
    for part in (model.dense, backbone):
        with FlopCounterMode(display=False) as counter:
            part(pixels)
        costs.append(counter.get_total_flops() / 2e9)
    assert cost == f"{costs[0] - costs[1]:.1f}"


@pytest.mark.parametrize("name", READY)
def test_every_configuration_is_valid(name: str) -> None:
    kind = family(name)
    for config in named_configs(kind.package):
        load_config(kind.config, kind.package, config)


@pytest.mark.parametrize("name", READY)
def test_an_unknown_key_is_refused(name: str) -> None:
    kind = family(name)
    with pytest.raises(UnknownNameError, match="schedule"):
        config_of(kind, "agnostic", "schedul.steps=3")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", READY)
def test_losses_are_finite_and_reach_every_parameter(
    name: str, mode: str, make_batch: MakeBatch
) -> None:
    model = model_of(name, mode).train()
    terms = model(scenes(make_batch, mode))
    assert all(term.ndim == 0 and torch.isfinite(term) for term in terms.values())
    torch.autograd.backward(torch.stack(list(terms.values())).sum())
    without = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", READY)
def test_without_entities_losses_stay_finite(name: str, mode: str, make_batch: MakeBatch) -> None:
    model = model_of(name, mode).train()
    terms = model(make_batch(torch.zeros(2, 64, 64, dtype=torch.int64), slots=1))
    total = torch.stack(list(terms.values())).sum()
    assert torch.isfinite(total)
    torch.autograd.backward(total)
    trained = [p for p in model.parameters() if p.requires_grad]
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in trained)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", READY)
def test_candidates_are_well_formed(name: str, mode: str, make_batch: MakeBatch) -> None:
    model = model_of(name, mode).eval()
    images = scenes(make_batch).images
    found = model.candidates(images)
    count, slots = found.scores.shape
    assert count == 2
    assert found.valid.dtype == torch.bool
    assert found.valid.shape == found.labels.shape == (count, slots)
    assert found.boxes.shape == (count, slots, 4)
    assert torch.all((found.scores >= 0) & (found.scores <= 1))
    assert torch.all(found.scores.diff(dim=1) <= 0)
    assert torch.all(found.labels[found.valid] < (len(CLASSES.names) if mode == "specific" else 1))
    assert found.masks.dtype == found.scores.dtype == torch.float32
    assert torch.all((found.masks >= 0) & (found.masks <= 1))
    height, width = found.masks.shape[2:]
    assert (height * found.stride, width * found.stride) == tuple(images.pixels.shape[2:])


@pytest.mark.parametrize("name", READY)
def test_candidates_of_an_image_do_not_depend_on_its_neighbours(
    name: str, make_batch: MakeBatch
) -> None:
    model = model_of(name).eval()
    both = scenes(make_batch).images
    alone = replace(both, pixels=both.pixels[1:], sizes=both.sizes[1:])
    together, single = model.candidates(both), model.candidates(alone)
    used = int(single.valid.sum())
    assert int(together.valid[1].sum()) == used
    torch.testing.assert_close(
        together.scores[1, :used], single.scores[0, :used], rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", READY)
def test_checkpoints_keep_the_model(
    name: str, mode: str, make_batch: MakeBatch, tmp_path: Path
) -> None:
    kind, model = family(name), model_of(name, mode).eval()
    classes = CLASSES if mode == "specific" else Classes()
    card = Card(name, card_config(config_of(kind, mode)), ("a",), ("b",), classes, 0, 7)
    save(tmp_path / "model.safetensors", model, card)
    again, there = load_model(tmp_path / "model.safetensors")
    assert (there.family, there.classes, there.step) == (name, classes, 7)
    asked = config_of(kind, mode)
    assert (again.config.data, again.config.schedule) == (asked.data, asked.schedule)
    images = scenes(make_batch).images
    mine, theirs = model.candidates(images), again.eval().candidates(images)
    assert torch.equal(mine.scores, theirs.scores)
    assert torch.equal(mine.masks, theirs.masks)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", READY)
def test_two_steps_of_training_and_a_prediction(
    name: str, mode: str, world: Path, tmp_path: Path
) -> None:
    kind = family(name)
    config = config_of(kind, mode, "schedule.steps=2")
    truth = open_union("coco_entity_train", world)
    model, card = load_model(train(Run(kind, config, truth, tmp_path, device="cpu")))
    assert bool(card.classes) == (mode == "specific")
    predictor = Predictor.of(model.eval(), config, card.classes)
    [found] = predictor.predict([Image.new("RGB", (61, 47), (90, 120, 30))])
    assert found.map.shape == (47, 61)
    assert len(found.scores) == len(found.labels) == found.map.num_entities
    assert len(predictor.provenance(found)) == (len(found.scores) if card.classes else 0)


@pytest.mark.parametrize("name", READY)
def test_more_entities_than_queries_are_refused(name: str, world: Path, tmp_path: Path) -> None:
    kind = family(name)
    if kind.build(config_of(kind), Classes()).capacity is None:
        pytest.skip("any number of entities")
    key = "kernels" if name == "knet" else "transformer"
    config = config_of(kind, "agnostic", f"{key}.queries=2", "data.most_entities=0")
    truth = open_union("coco_entity_train", world)
    with pytest.raises(FormatError, match="more entities than the model's 2 queries"):
        train(Run(kind, config, truth, tmp_path, device="cpu"))


@pytest.mark.parametrize("name", [name for name in READY if name != "entity"])
def test_weights_of_another_architecture_are_refused(name: str, tmp_path: Path) -> None:
    other = READY[READY.index(name) - 1]
    path, model = tmp_path / f"{other}.safetensors", model_of(name)
    save_file({n: t.contiguous() for n, t in model_of(other).state_dict().items()}, path)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    with pytest.raises(FormatError, match=f"are not in `{other}.safetensors`") as caught:
        model.load_published(path)
    assert caught.value.hint == "is it another model's file?"
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())


def test_entity_says_that_it_knows_no_published_weights(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="no format of published weights") as caught:
        model_of("entity").load_published(tmp_path / "weights.pth")
    assert "backbone.weights" in caught.value.hint


SCRIPT = """
import sys, torch
from pathlib import Path
torch.set_num_threads(1)
from entitybench.baselines.configuration import load_config
from entitybench.baselines.registry import family
from entitybench.baselines.training import Run, train
from entitybench.registry import open_union
name, world, out, *changes = sys.argv[1:]
kind = family(name)
config = load_config(kind.config, kind.package, 'tiny', changes)
train(Run(kind, config, open_union('coco_entity_train', world), Path(out), seed=5, device='cpu'))
"""
EXACT = {
    # what draws from torch's own generator differs between processes
    "detr": ["transformer.dropout=0.0"],
    "maskformer": ["transformer.dropout=0.0"],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", READY)
def test_two_processes_have_the_losses_of_one(name: str, world: Path, tmp_path: Path) -> None:
    # batch norm sees the images of one process: the equality is that of the losses
    changes = [
        *SMALL,
        *EXACT.get(name, []),
        "schedule.steps=3",
        "schedule.batch=4",
        "schedule.clip=0.0",
        "backbone.frozen_norm=true",
    ]
    kind = family(name)
    config = load_config(kind.config, kind.package, "tiny", changes)
    sets = open_union("coco_entity_train", world)
    train(Run(kind, config, sets, tmp_path / "one", seed=5, device="cpu"))
    script = tmp_path / "work.py"
    script.write_text(SCRIPT)
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2",
        "--master-port", str(20_000 + os.getpid() % 20_000), str(script), name, str(world),
        str(tmp_path / "two"), *changes,
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    one, two = (
        [row["loss"] for row in read_log(tmp_path / run / "log.csv")] for run in ("one", "two")
    )
    assert len(two) == 3
    assert two == pytest.approx(one, rel=1e-4)
