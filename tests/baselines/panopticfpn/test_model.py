from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from entitybench.baselines.batch import Batch
from entitybench.baselines.configuration import load_config, named_configs
from entitybench.baselines.model import Classes
from entitybench.baselines.panopticfpn.config import PanopticFPNConfig
from entitybench.baselines.panopticfpn.model import FAMILY, PanopticFPN
from entitybench.errors import FormatError

COCO = Classes(tuple(str(n) for n in range(133)), (True,) * 80 + (False,) * 53)
MIXED = Classes(("sky", "dog", "cat", "sea"), (False, True, True, False))
SMALL = (
    "backbone.name=tiny", "backbone.frozen_stages=0", "channels=32", "heads.channels=32",
    "heads.mask_channels=32", "semantic.channels=32", "proposals.per_level=50",
    "proposals.kept=40", "heads.per_image=16",
)  # fmt: skip

MakeBatch = Callable[..., Batch]


def build(name: str, classes: Classes | None = None, *changes: str) -> PanopticFPN:
    torch.manual_seed(0)
    config = load_config(PanopticFPNConfig, FAMILY.package, name, changes)
    return PanopticFPN(config, classes or Classes())


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def scenes(make_batch: MakeBatch) -> Batch:
    """A dog, a sea and a cat in the first image, a sky and a cat in the second; some void."""
    ids = torch.zeros(2, 64, 64, dtype=torch.int64)
    ids[:, 4:40, 8:60] = 1
    ids[:, 44:60, :50] = 2
    ids[0, 10:30, 20:40] = 3
    return replace(make_batch(ids), labels=torch.tensor([[1, 3, 2], [0, 2, 0]]))


# --- the architecture ----------------------------------------------------------


def test_parameters_are_those_of_torchvisions_mask_rcnn() -> None:
    """torchvision gives 44,401,393 for maskrcnn_resnet50_fpn, with 91 classes.

    One of them is the background, for which it too has a box and a mask; frozen batch norms,
    53,120 numbers, it does not count.
    """
    with torch.device("meta"):
        ninety = Classes(tuple(str(n) for n in range(90)), (True,) * 90)
        model = build("panopticfpn_r50_1x_specific", ninety)
    background = 4 * (1024 + 1) + (256 + 1)
    assert count(model) == 44_401_393 - background + 53_120


def test_parameters_of_the_panoptic_heads() -> None:
    with torch.device("meta"):
        model = build("panopticfpn_r50_1x_specific", COCO)
    assert count(model.proposal_head) == 256 * 256 * 9 + 256 + 15 * 257
    assert count(model.box_head) == 12_545 * 1024 + 1025 * 1024 + 1025 * (81 + 320)
    assert count(model.mask_head) == 4 * (256 * 256 * 9 + 256) + 256 * 256 * 4 + 256 + 257 * 80
    assert model.semantic is not None
    first, other = 256 * 128 * 9 + 256, 128 * 128 * 9 + 256
    assert count(model.semantic) == 4 * first + 3 * other + 129 * 54


@pytest.mark.parametrize(
    ("name", "expected"), [("panopticfpn_r50_1x", 96.94), ("panopticfpn_r50_1x_specific", 118.19)]
)
def test_cost_after_the_pyramid_at_800_pixels(name: str, expected: float) -> None:
    """Proposals of five levels, 1,000 boxes and 100 masks; and stuff, where there are classes."""
    with torch.device("meta"):
        model = build(name, COCO if name.endswith("_specific") else None).eval()
        levels = tuple(torch.empty(1, 256, 800 // s, 800 // s) for s in (4, 8, 16, 32))
        boxes, masks = torch.empty(1000, 256, 7, 7), torch.empty(100, 256, 14, 14)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.proposal_head([*levels, levels[-1][:, :, ::2, ::2]])
        model.box_head(boxes)
        model.mask_head(masks)
        if model.semantic is not None:
            model.semantic(levels)
    assert counter.get_total_flops() / 2e9 == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("name", [n for n in named_configs(FAMILY.package) if "r18" not in n])
def test_every_parameter_is_trained(name: str, make_batch: MakeBatch) -> None:
    model = build(name, MIXED if name.endswith("_specific") else None, *SMALL).train()
    batch = scenes(make_batch)
    if not name.endswith("_specific"):
        batch = replace(batch, labels=torch.zeros_like(batch.labels))
    terms = model(batch)
    torch.autograd.backward(torch.stack(list(terms.values())).sum())
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
    assert ("semantic" in terms) == name.endswith("_specific")
    assert all(float(term.detach()) > 0 for term in terms.values())


def test_without_things_only_background_is_learned(make_batch: MakeBatch) -> None:
    model = build("tiny_specific", MIXED, *SMALL).train()
    batch = replace(scenes(make_batch), labels=torch.tensor([[0, 3, 0], [0, 3, 0]]))
    terms = model(batch)
    assert all(torch.isfinite(term) for term in terms.values())
    for name in ("proposal", "box", "mask"):
        assert float(terms[name].detach()) == 0
    for name in ("objectness", "class", "semantic"):
        assert float(terms[name].detach()) > 0


def test_the_semantic_loss_counts_things_as_one_class(make_batch: MakeBatch) -> None:
    model = build("tiny_specific", MIXED, *SMALL)
    batch = scenes(make_batch)
    logits = torch.randn(2, 3, 16, 16)
    total, cells = 0.0, 0
    layer = {0: 1, 1: 0, 2: 0, 3: 2}  # sky, things, things, sea
    for b in range(2):
        for y in range(16):
            for x in range(16):
                entity = int(batch.ids[b, 4 * y + 2, 4 * x + 2])
                if entity:
                    label = layer[int(batch.labels[b, entity - 1])]
                    total -= float(logits[b, :, y, x].log_softmax(0)[label])
                    cells += 1
    outputs = model.dense(model.normalised(batch.images))._replace(semantic=logits)
    assert float(model._semantic_loss(outputs, batch)) == pytest.approx(total / cells, rel=1e-5)


# --- prediction ----------------------------------------------------------------


def test_sure_things_and_stuff_do_not_overlap(make_batch: MakeBatch) -> None:
    model = build("tiny_specific", MIXED, *SMALL, "inference.stuff_area=0.0",
                  "inference.sure=0.0", "inference.threshold=0.0").eval()  # fmt: skip
    found = model.candidates(scenes(make_batch).images)
    assert torch.all(found.scores.diff(dim=1) <= 0)
    stuff = ((found.labels == 0) | (found.labels == 3)) & found.valid
    masks = (found.masks > 0.5) & found.valid[..., None, None]
    things = (masks & ~stuff[..., None, None]).any(1)
    assert not (masks & stuff[..., None, None] & things[:, None]).any()
    assert (masks & stuff[..., None, None]).sum(1).max() <= 1


def test_no_detection_leaves_stuff_alone(make_batch: MakeBatch) -> None:
    images = scenes(make_batch).images
    changes = (*SMALL, "inference.threshold=1.0", "inference.stuff_area=0.0")
    found = build("tiny_specific", MIXED, *changes).eval().candidates(images)
    assert set(found.labels[found.valid].tolist()) <= {0, 3}
    nothing = build("tiny", None, *changes).eval().candidates(images)
    assert not nothing.valid.any()


def test_classes_without_a_thing_are_refused() -> None:
    config = load_config(PanopticFPNConfig, FAMILY.package, "tiny_specific")
    with pytest.raises(FormatError, match="none of the classes"):
        FAMILY.build(config, Classes(("sky",), (False,)))


# --- published weights ---------------------------------------------------------


def detectron2(things: int, stuff: int) -> dict[str, tuple[int, ...]]:
    """detectron2's names of the heads; width 32, and the tiny backbone's own names."""
    width = 32
    shapes: dict[str, tuple[int, ...]] = {}

    def layer(name: str, *shape: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = shape, (shape[0],)

    for level, channels in zip((2, 3, 4, 5), (32, 64, 128, 192), strict=True):
        layer(f"backbone.fpn_lateral{level}", width, channels, 1, 1)
        layer(f"backbone.fpn_output{level}", width, width, 3, 3)
    layer("proposal_generator.rpn_head.conv", width, width, 3, 3)
    layer("proposal_generator.rpn_head.objectness_logits", 3, width, 1, 1)
    layer("proposal_generator.rpn_head.anchor_deltas", 12, width, 1, 1)
    layer("roi_heads.box_head.fc1", 32, width * 49)
    layer("roi_heads.box_head.fc2", 32, 32)
    layer("roi_heads.box_predictor.cls_score", things + 1, 32)
    layer("roi_heads.box_predictor.bbox_pred", 4 * things, 32)
    for number in (1, 2):
        layer(f"roi_heads.mask_head.mask_fcn{number}", 32, 32, 3, 3)
    layer("roi_heads.mask_head.deconv", 32, 32, 2, 2)
    layer("roi_heads.mask_head.predictor", things, 32, 1, 1)
    for level, places in ((2, (0,)), (3, (0,)), (4, (0, 2)), (5, (0, 2, 4))):
        for place in places:
            shapes[f"sem_seg_head.p{level}.{place}.weight"] = (32, 32, 3, 3)
            layer(f"sem_seg_head.p{level}.{place}.norm", 32)
    layer("sem_seg_head.predictor", 1 + stuff, 32, 1, 1)
    return shapes


def write(path: Path, model: PanopticFPN, things: int, stuff: int) -> dict[str, Tensor]:
    torch.manual_seed(1)
    state = {name: torch.randn(shape) for name, shape in detectron2(things, stuff).items()}
    body = model.backbone.body.state_dict()
    state |= {f"backbone.bottom_up.{name}": torch.randn_like(value.float())
              for name, value in body.items() if not name.endswith("tracked")}  # fmt: skip
    torch.save({"model": state}, path)
    return state


def test_detectron2s_weights_load_whole(tmp_path: Path) -> None:
    model, path = build("tiny_specific", MIXED, *SMALL), tmp_path / "model.pth"
    state = write(path, model, 2, 2)
    assert model.load_published(path) == []
    mine = model.state_dict()
    for ours, theirs in (
        ("semantic.levels.3.2.0.weight", "sem_seg_head.p5.4.weight"),
        ("semantic.levels.2.1.1.bias", "sem_seg_head.p4.2.norm.bias"),
        ("mask_head.tower.1.weight", "roi_heads.mask_head.mask_fcn2.weight"),
        ("box_head.changes.bias", "roi_heads.box_predictor.bbox_pred.bias"),
        ("proposal_head.changes.weight", "proposal_generator.rpn_head.anchor_deltas.weight"),
        ("pyramid.output.4.bias", "backbone.fpn_output4.bias"),
        ("backbone.body.stem.weight", "backbone.bottom_up.stem.weight"),
    ):
        assert torch.equal(mine[ours], state[theirs]), ours


def test_other_classes_and_other_models_are_refused(tmp_path: Path) -> None:
    model, path = build("tiny_specific", MIXED, *SMALL), tmp_path / "model.pth"
    write(path, model, 3, 2)
    with pytest.raises(FormatError, match="other classes"):
        model.load_published(path)
    with pytest.raises(FormatError, match="other classes"):
        build("tiny", None, *SMALL).load_published(path)
    with pytest.raises(FormatError, match="weights of the model are not in"):
        build("tiny_specific", MIXED, *SMALL, "heads.mask_depth=4").load_published(path)


# --- learning ------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tiny", "tiny_specific"])
def test_two_scenes_are_learned(name: str, make_batch: MakeBatch) -> None:
    model = build(name, MIXED if name.endswith("_specific") else None, *SMALL).train()
    batch = scenes(make_batch)
    if not name.endswith("_specific"):
        batch = replace(batch, labels=torch.zeros_like(batch.labels))
    # the entities can be told from their colour
    colours = torch.tensor([[20.0, 20, 20], [220, 40, 40], [40, 200, 60], [60, 60, 230]])
    pixels = colours[batch.ids].permute(0, 3, 1, 2)
    batch = replace(batch, images=replace(batch.images, pixels=pixels))
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3)
    losses = []
    for _ in range(40):
        total = torch.stack(list(model(batch).values())).sum()
        torch.autograd.backward(total)
        optimiser.step()
        optimiser.zero_grad()
        losses.append(float(total.detach()))
    assert losses[-1] < 0.6 * losses[0]
    found = model.eval().candidates(batch.images)
    masks = (found.masks[0] > 0.5) & found.valid[0, :, None, None]
    truth = functional.one_hot(batch.ids[0, 2::4, 2::4], 4).permute(2, 0, 1)[1:].bool()
    shared = (masks[:, None] & truth).sum((2, 3))
    union = (masks[:, None] | truth).sum((2, 3))
    assert float((shared / union).amax(0).max()) > 0.5
