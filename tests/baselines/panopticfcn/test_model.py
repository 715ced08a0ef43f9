from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from entitybench.baselines.batch import Batch, Images
from entitybench.baselines.configuration import load_config, named_configs
from entitybench.baselines.model import Classes
from entitybench.baselines.panopticfcn.config import PanopticFCNConfig
from entitybench.baselines.panopticfcn.model import DenseOutputs, PanopticFCN
from entitybench.baselines.panopticfcn.targets import gaussian_radius
from entitybench.baselines.regions import measure
from entitybench.errors import FormatError, MissingDataError

PACKAGE = "entitybench.baselines.panopticfcn"
COCO = Classes(tuple(f"class {n}" for n in range(133)), (True,) * 80 + (False,) * 53)
MIXED = Classes(("sky", "dog", "sea", "cat", "road"), (False, True, False, True, False))


def config(name: str, *changes: str) -> PanopticFCNConfig:
    return load_config(PanopticFCNConfig, PACKAGE, name, changes)


def on_meta(name: str, classes: Classes = Classes(), *changes: str) -> PanopticFCN:  # noqa: B008  # immutable
    with torch.device("meta"):
        model = PanopticFCN(config(name, *changes), classes)
    return model.eval()


def num_parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


# --- size --------------------------------------------------------------------


def conv(channels: int, out: int, size: int = 3, *, bias: bool = True) -> int:
    return channels * out * size * size + (out if bias else 0)


def unit(channels: int, *, deform: bool = False) -> int:
    """A convolution to 256 channels with group norm; 27 numbers move and weigh the taps."""
    return conv(channels, 256, bias=False) + 2 * 256 + (conv(channels, 27) if deform else 0)


def released_size(things: int, regions: int) -> int:
    """Add up the layers of `PanopticFCN-R50-1x.yaml` as its code builds them."""
    backbone = 25_557_032 - (2048 * 1000 + 1000)  # ResNet-50 as published, without its classifier
    pyramid = sum(conv(c, 256, 1) for c in (256, 512, 1024, 2048)) + 6 * conv(256, 256)
    semantic = (1 + 1 + 2 + 3) * unit(256)
    position = 3 * unit(256, deform=True) + conv(256, things)
    kernel = unit(258) + 2 * unit(256) + conv(256, 256)
    encoder = conv(258, 64) + 2 * conv(64, 64)
    generators = conv(256, 64, 1)
    if regions:
        position, generators = position + conv(256, regions), 2 * generators
    return backbone + pyramid + semantic + position + kernel + encoder + generators


def test_parameter_counts_are_those_of_the_released_code() -> None:
    # 37.0 M
    assert num_parameters(on_meta("r50_1x", COCO)) == released_size(80, 54) == 37_052_631
    assert num_parameters(on_meta("r50_1x")) == released_size(1, 0) == 36_729_618


def decoder_gmacs(model: PanopticFCN, height: int, width: int) -> float:
    pixels = torch.empty(1, 3, height, width, device="meta")
    with torch.no_grad():
        levels = model.pyramid(model.backbone(pixels))
        counter = FlopCounterMode(display=False)
        with counter:
            for level in range(3, 8):
                model.position(levels[level])
                model.kernel(levels[level])
            model.encoder(model.semantic(levels))
    return counter.get_total_flops() / 2e9


def test_cost_of_the_decoder_at_800_by_800() -> None:
    cells = sum(math.ceil(800 / 2**level) ** 2 for level in range(3, 8))
    towers = 9 * (3 * 256 * 256 + 256) + 9 * (258 * 256 + 3 * 256 * 256)
    finest = 200 * 200
    # P2 and P3 one convolution each, at strides 4 and 8; P4 two; P5 three
    semantic = 9 * 256 * 256 * finest * (1 + 1 / 4 + (1 / 4 + 1 / 16) + (1 / 4 + 1 / 16 + 1 / 64))
    encoder = 9 * (258 * 64 + 2 * 64 * 64) * finest
    expected = (towers * cells + semantic + encoder) / 1e9
    plain = decoder_gmacs(on_meta("r50_1x", Classes(), "head.deform=false"), 800, 800)
    assert plain == pytest.approx(expected, rel=1e-6)
    assert plain == pytest.approx(108.68, abs=0.01)
    assert decoder_gmacs(on_meta("r50_1x"), 800, 800) == pytest.approx(111.17, abs=0.01)
    assert decoder_gmacs(on_meta("r50_1x", COCO), 800, 800) == pytest.approx(115.26, abs=0.01)


@pytest.mark.parametrize("name", named_configs(PACKAGE))
@pytest.mark.parametrize("classes", [Classes(), COCO])
def test_shapes_at_800_by_1333(name: str, classes: Classes) -> None:
    model = on_meta(name, classes)
    outputs = model.dense(torch.empty(2, 3, 800, 1344, device="meta"))
    first = 4 if name == "tiny" else 8
    assert [tuple(m.shape) for m in outputs.centres] == [
        (2, 80 if classes else 1, math.ceil(800 / s), math.ceil(1344 / s))
        for s in (first, 2 * first, 4 * first, 8 * first, 16 * first)[: len(model.strides)]
    ]
    assert {m.shape[1] for m in outputs.regions} == {54 if classes else 0}
    channels = {"tiny": 32, "star_r50_1x": 256, "star_r50_3x": 256}.get(name, 64)
    assert outputs.features.shape == (2, channels, 200, 336)


# --- losses ------------------------------------------------------------------


def scene_ids() -> torch.Tensor:
    ids = torch.zeros(2, 64, 96, dtype=torch.int64)
    ids[:, :20] = 3
    ids[:, 4:40, 8:60] = 1
    ids[0, 30:60, 50:90] = 2
    ids[1, 50:, 80:] = 4
    return ids


def mixed_batch(make_batch: Callable[..., Batch]) -> Batch:
    batch = make_batch(scene_ids(), 5)
    labels = torch.tensor([[1, 3, 0, 0, 0], [3, 0, 0, 2, 0]])
    return replace(batch, labels=labels, things=labels % 2 == 1)


def total(terms: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.stack(list(terms.values())).sum()


def slow_focal(logits: torch.Tensor, targets: torch.Tensor) -> float:
    loss = 0.0
    for logit, target in zip(logits.double().flatten(), targets.double().flatten(), strict=True):
        p, t = 1 / (1 + math.exp(-float(logit))), float(target)
        right = p * t + (1 - p) * (1 - t)
        cross = -(t * math.log(p) + (1 - t) * math.log(1 - p))
        loss += (0.25 * t + 0.75 * (1 - t)) * (1 - right) ** 2 * cross
    return loss


def slow_dice(found: torch.Tensor, truth: torch.Tensor) -> float:
    shared, squares = (found * truth).sum(), (found**2).sum() + (truth**2).sum()
    return float(1 - 2 * shared / squares)


def resized(mask: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    return functional.interpolate(mask[None, None], size=shape, mode="bilinear")[0, 0]


KIND = {1: 0, 3: 1}  # classes of things in `MIXED`, and their channels
REGION = {0: 1, 1: 0, 2: 2, 3: 0, 4: 3}


def slow_target(center: list[int], sides: list[float], shape: tuple[int, ...]) -> torch.Tensor:
    """Draw one entity's Gaussian; centre and sides are in cells."""
    (x, y), here = center, torch.zeros(shape)
    radius = int(gaussian_radius(torch.tensor(sides[0]), torch.tensor(sides[1])))
    for i in range(max(0, y - radius), min(shape[0], y + radius + 1)):
        for j in range(max(0, x - radius), min(shape[1], x + radius + 1)):
            squares = (i - y) ** 2 + (j - x) ** 2
            here[i, j] = math.exp(-squares / (2 * ((2 * radius + 1) / 3) ** 2))
    return here


class SlowLosses:
    """Goes image by image, level by level and entity by entity, as the released code is told."""

    def __init__(self, model: PanopticFCN, outputs: DenseOutputs, batch: Batch) -> None:
        self.model, self.outputs, self.batch = model, outputs, batch
        self.sums = dict.fromkeys(("centres", "mask", "regions", "stuff_mask"), 0.0)
        self.pairs = self.stuff_pairs = 0
        for image in range(len(batch.ids)):
            for level in range(len(model.strides)):
                self.add_things(image, level)
                self.add_stuff(image, level)

    def terms(self) -> dict[str, float]:
        sums = self.sums
        return {
            "centres": sums["centres"] / self.pairs,
            "mask": 3 * sums["mask"] / self.pairs,
            "regions": sums["regions"] / len(self.batch.ids),
            "stuff_mask": 3 * sums["stuff_mask"] / self.stuff_pairs,
        }

    def truth(self, image: int, entities: list[int]) -> torch.Tensor:
        own = torch.zeros(64, 96)
        for entity in entities:
            own += self.batch.ids[image] == entity + 1
        return resized(own, (16, 24))

    def dice(self, image: int, kernel: torch.Tensor, truth: torch.Tensor) -> float:
        features = self.outputs.features[image]
        return slow_dice(torch.einsum("c,chw->hw", kernel, features).sigmoid(), truth)

    def add_things(self, image: int, level: int) -> None:
        stride, regions = self.model.strides[level], measure(self.batch.ids, 5)
        logits = self.outputs.centres[level][image]
        target = torch.zeros_like(logits)
        for entity, label in enumerate(self.batch.labels[image].tolist()):
            if label not in KIND or not regions.present[image, entity]:
                continue
            x0, y0, x1, y1 = regions.boxes[image, entity].tolist()
            size = math.sqrt((x1 - x0) * (y1 - y0))
            low = 0 if level == 0 else 2 * stride
            high = 8 * stride if level < len(self.model.strides) - 1 else math.inf
            if low <= size <= high:
                centre = [int(c // stride) for c in regions.centres[image, entity].tolist()]
                sides = [(x1 - x0) / stride, (y1 - y0) / stride]
                place = target[KIND[label]]
                place[:] = torch.maximum(place, slow_target(centre, sides, tuple(place.shape)))
                self.add_thing(image, level, entity, logits[KIND[label]].sigmoid())
        self.sums["centres"] += slow_focal(logits, target)

    def add_thing(self, image: int, level: int, entity: int, scores: torch.Tensor) -> None:
        self.pairs += 1
        truth = self.truth(image, [entity])
        inside = resized(truth, tuple(scores.shape)) > 0.1
        places = [(int(i), int(j)) for i, j in torch.nonzero(inside).tolist()]
        places = sorted(places, key=lambda p: -float(scores[p]))[:7]
        whole = max(sum(float(scores[p]) for p in places), 1e-8)
        for i, j in places:
            kernel = self.model.thing_generator(self.outputs.kernels[level][image, :, i, j])
            self.sums["mask"] += float(scores[i, j]) / whole * self.dice(image, kernel, truth)

    def add_stuff(self, image: int, level: int) -> None:
        labels, generator = self.batch.labels[image].tolist(), self.model.stuff_generator
        assert generator is not None
        logits = self.outputs.regions[level][image]
        for number in range(4):
            truth = self.truth(image, [g for g in range(5) if REGION[labels[g]] == number])
            target = resized(truth, tuple(logits.shape[1:]))
            target = target * (target >= 0.5)
            self.sums["regions"] += slow_focal(logits[number], target) / target.numel()
            if target.any():
                self.stuff_pairs += 1
                mean = (self.outputs.kernels[level][image] * (target > 0)).mean((1, 2))
                self.sums["stuff_mask"] += self.dice(image, generator(mean), truth)


def test_losses_are_those_of_loops(
    make_batch: Callable[..., Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = PanopticFCN(config("tiny"), MIXED).train()
    generators = model.thing_generator, model.stuff_generator
    for generator in generators:  # masks that differ
        assert generator is not None
        nn.init.normal_(generator.weight, std=1.0)
    batch = mixed_batch(make_batch)
    outputs = model._outputs(batch.images)
    monkeypatch.setattr(model, "_outputs", lambda _: outputs)
    with torch.no_grad():
        found = {name: float(term) for name, term in model.losses(batch).items()}
        expected = SlowLosses(model, outputs, batch).terms()
    assert found == pytest.approx(expected, rel=1e-4)


SMALL = ("pyramid.channels=32", "head.channels=32", "features.semantic_channels=32")


@pytest.mark.parametrize("classes", [Classes(), MIXED])
@pytest.mark.parametrize("name", ["tiny", "small_r18", "r50_1x", "star_r50_1x"])
def test_every_parameter_is_trained(
    name: str, classes: Classes, make_batch: Callable[..., Batch]
) -> None:
    torch.manual_seed(0)
    changes = SMALL if name == "tiny" else (*SMALL, "backbone.name=tiny")
    model = PanopticFCN(config(name, *changes), classes).train()
    batch = mixed_batch(make_batch) if classes else make_batch(scene_ids())
    terms = model(batch)
    torch.autograd.backward(total(terms))
    idle = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert idle == []  # several processes would wait for it
    assert all(torch.isfinite(t) for t in terms.values())
    assert set(terms) == ({"centres", "mask"} | ({"regions", "stuff_mask"} if classes else set()))


@pytest.mark.parametrize("classes", [Classes(), MIXED])
@pytest.mark.parametrize("empty", ["all", "one", "things", "stuff"])
def test_images_without_entities(
    classes: Classes, empty: str, make_batch: Callable[..., Batch]
) -> None:
    torch.manual_seed(0)
    model = PanopticFCN(config("tiny", *SMALL), classes).train()
    ids = scene_ids()
    if empty in ("all", "one"):
        ids[0 if empty == "one" else slice(None)] = 0
    batch = make_batch(ids, 5)
    kind = 1 if empty == "stuff" else 0  # all are things, or all are stuff
    if classes:
        batch = replace(batch, labels=torch.full_like(batch.labels, kind))
    terms = model(batch)
    torch.autograd.backward(total(terms))
    assert all(torch.isfinite(t) for t in terms.values())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    if empty == "all":
        assert terms["mask"] == 0
    if classes and empty == "things":
        assert terms["mask"] == 0 < terms["stuff_mask"]


def test_drawn_pairs_bound_the_masks(
    make_batch: Callable[..., Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = PanopticFCN(config("tiny", *SMALL, "training.per_image=1"), Classes()).train()
    shapes: list[tuple[int, ...]] = []
    dice = model._dice

    def watched(*arguments: Any) -> torch.Tensor:
        found = dice(*arguments)
        shapes.append(tuple(found.shape))
        return found

    monkeypatch.setattr(model, "_dice", watched)
    model.losses(make_batch(scene_ids()))
    assert shapes == [(2, 1, 7)]


# --- prediction --------------------------------------------------------------


def drawn_outputs(model: PanopticFCN) -> DenseOutputs:
    """Maps that hold a dog at the left, a cat at the right and a road below.

    Feature d is +9 inside region d and -9 outside; kernel d picks feature d.
    """
    features = torch.full((1, 32, 16, 24), -9.0)
    features[0, 0, 2:6, 2:6] = 9
    features[0, 1, 2:6, 14:20] = 9
    features[0, 2, 10:, :] = 9
    centres = [torch.full((1, 2, 64 // s, 96 // s), -9.0) for s in model.strides]
    regions = [torch.full((1, 4, 64 // s, 96 // s), -9.0) for s in model.strides]
    kernels = [torch.zeros(1, 32, 64 // s, 96 // s) for s in model.strides]
    for channel, row, column in ((0, 4, 4), (1, 4, 17)):
        centres[0][0, channel, row, column] = 3.0
        kernels[0][0, channel, row, column] = 1
    regions[1][0, 0] = -3.0  # all things
    regions[1][0, 3, 5:, :] = 2.0
    kernels[1][0, 2, 5:, :] = 1
    return DenseOutputs(tuple(centres), tuple(regions), tuple(kernels), features)


def test_things_and_stuff_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    changes = ("head.channels=32", "inference.threshold=0.05")
    model = PanopticFCN(config("tiny", *changes), MIXED).eval()
    for generator in (model.thing_generator, model.stuff_generator):
        assert generator is not None
        generator.weight.data = torch.eye(32)[:, :, None, None]
        generator.bias.data.zero_()  # type: ignore[union-attr]
    monkeypatch.setattr(model, "_outputs", lambda _: drawn_outputs(model))
    found = model.candidates(Images(torch.zeros(1, 3, 64, 96), torch.tensor([[64, 96]])))
    assert found.valid.tolist() == [[True] * 3]
    assert found.labels[0].tolist() == [4, 1, 3]  # road, dog, cat
    sigmoid = [1 / (1 + math.exp(-v)) for v in (3.0, -9.0, 2.0, 9.0)]
    centre = (sigmoid[0] + (sigmoid[0] + 8 * sigmoid[1]) / 9) / 2
    # the road's kernel is 3/8 of one: its share of the level's cells
    road = sigmoid[2] / (1 + math.exp(-9 * 3 / 8))
    expected = [road, centre * sigmoid[3], centre * sigmoid[3]]
    assert found.scores[0].tolist() == pytest.approx(expected, rel=1e-5)
    boxes = [[0, 40, 96, 64], [8, 8, 24, 24], [56, 8, 80, 24]]
    assert found.boxes[0].tolist() == boxes
    assert (found.masks[0] > 0.5).sum((1, 2)).tolist() == [6 * 24, 16, 24]
    assert (found.stride, found.first_cell) == (4, 1.5)


@pytest.mark.parametrize("classes", [Classes(), MIXED])
def test_a_batch_gives_what_its_images_give(classes: Classes) -> None:
    torch.manual_seed(0)
    model = PanopticFCN(config("tiny", "inference.most=20"), classes).eval()
    nn.init.normal_(model.position.centres.weight, std=0.3)
    nn.init.normal_(model.kernel.output.weight, std=0.3)
    nn.init.normal_(model.thing_generator.weight, std=0.3)
    pixels = torch.rand(3, 3, 64, 96) * 255
    sizes = torch.tensor([[64, 96], [64, 90], [40, 96]])
    together = model.candidates(Images(pixels, sizes))
    assert together.valid.all()
    for number in range(3):
        part = slice(number, number + 1)
        alone = model.candidates(Images(pixels[part], sizes[part]))
        torch.testing.assert_close(together.scores[part], alone.scores, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(together.masks[part], alone.masks, atol=1e-4, rtol=1e-3)
        assert torch.equal(together.labels[part], alone.labels)
    assert torch.all(together.scores[:, 1:] <= together.scores[:, :-1])
    assert len(set(together.labels.flatten().tolist())) > 1 or not classes


@pytest.mark.parametrize("classes", [Classes(), MIXED])
def test_nothing_is_found(classes: Classes) -> None:
    torch.manual_seed(0)
    changes = ("inference.threshold=0.99", "inference.region_threshold=0.99")
    model = PanopticFCN(config("tiny", *changes), classes).eval()
    found = model.candidates(Images(torch.rand(2, 3, 64, 64), torch.tensor([[64, 64]] * 2)))
    assert not found.valid.any()
    assert found.masks.shape[:2] == found.scores.shape


def test_classes_of_things_alone_need_no_branch_for_stuff() -> None:
    model = PanopticFCN(config("tiny"), Classes(("dog", "cat"), (True, True)))
    assert (model.num_centres, model.num_regions, model.stuff_generator) == (2, 0, None)
    with pytest.raises(FormatError, match="none") as caught:
        PanopticFCN(config("tiny"), Classes(("sky",), (False,)))
    assert "--classes agnostic" in caught.value.hint


def test_the_released_mean_is_of_the_other_order() -> None:
    pixels = torch.tensor([200.0, 150.0, 100.0])[:, None, None].expand(1, 3, 32, 32)
    images = Images(pixels, torch.tensor([[32, 32]]))
    own = PanopticFCN(config("tiny", "backbone.pixels=caffe")).normalised(images)
    released = PanopticFCN(config("tiny", "backbone.pixels=caffe", "swapped_mean=true"))
    # blue, green, red
    assert own[0, :, 0, 0].tolist() == pytest.approx([100 - 103.53, 150 - 116.28, 200 - 123.675])
    assert released.normalised(images)[0, :, 0, 0].tolist() == pytest.approx(
        [100 - 123.675, 150 - 116.28, 200 - 103.53]
    )


def test_the_dense_part_captures_in_one_graph() -> None:
    model = PanopticFCN(config("tiny", "head.deform=true"), MIXED).eval()
    captured = torch.compile(model.dense, backend="eager", fullgraph=True)
    pixels = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(captured(pixels).features, model.dense(pixels).features)


# --- published weights -------------------------------------------------------


def released_state(*, star: bool = False) -> dict[str, torch.Tensor]:
    """The names and shapes that the released code's modules have in detectron2."""
    state: dict[str, torch.Tensor] = {}

    def add(name: str, *shape: int) -> None:
        state[name] = torch.full(shape, float(len(state)))

    def layer(name: str, channels: int, out: int, size: int = 3, norm: str = "") -> None:
        add(f"{name}.weight", out, channels, size, size)
        if not norm:
            add(f"{name}.bias", out)
        for part in {"GN": ("weight", "bias")}.get(norm, ()):
            add(f"{name}.norm.{part}", out)
        if norm == "FrozenBN":
            for part in ("weight", "bias", "running_mean", "running_var"):
                add(f"{name}.norm.{part}", out)

    def deformed(name: str, channels: int, out: int, norm: str = "") -> None:
        layer(f"{name}.offset_mask_conv", channels, 27)
        layer(f"{name}.dcnv2", channels, out, norm=norm)

    stem = "backbone.bottom_up"
    layer(f"{stem}.stem.conv1", 3, 64, 7, "FrozenBN")
    before = 64
    for stage, depth in enumerate((3, 4, 6, 3), start=2):
        width = 64 * 2 ** (stage - 2)
        for block in range(depth):
            name = f"{stem}.res{stage}.{block}"
            if block == 0:
                layer(f"{name}.shortcut", before, 4 * width, 1, "FrozenBN")
            layer(f"{name}.conv1", before, width, 1, "FrozenBN")
            layer(f"{name}.conv2", width, width, 3, "FrozenBN")
            layer(f"{name}.conv3", width, 4 * width, 1, "FrozenBN")
            before = 4 * width
        layer(f"backbone.fpn_lateral{stage}", before, 256, 1)
        layer(f"backbone.fpn_output{stage}", 256, 256)
    for level in (6, 7):
        layer(f"backbone.top_block.p{level}", 256, 256)
    for level, places in {2: (0,), 3: (0,), 4: (0, 2), 5: (0, 2, 4)}.items():
        for place in places:  # up-sampling layers count
            layer(f"semantic_fpn.p{level}.{place}", 256, 256, norm="GN")
    for number in (1, 2, 3):
        deformed(f"position_head.position_head.position_head_head_{number}", 256, 256, "GN")
        kernels = 258 if number == 1 else 256
        layer(f"kernel_head.kernel_head.kernel_head_head_{number}", kernels, 256, norm="GN")
        name = f"feature_encoder.encode_head.encode_head_head_{number}"
        out = 256 if star else 64
        (deformed if star else layer)(name, 258 if number == 1 else out, out)
    layer("position_head.out_inst", 256, 80)
    layer("position_head.out_sem", 256, 54)
    layer("kernel_head.out_conv", 256, 256)
    for kind in ("thing", "stuff"):
        layer(f"{kind}_generator.embed_extractor", 256, 256 if star else 64, 1)
    return state


@pytest.mark.parametrize("star", [False, True])
def test_released_weights_are_loaded(star: bool, tmp_path: Path) -> None:
    state = released_state(star=star)
    path = tmp_path / "model_final.pth"
    torch.save({"model": state, "iteration": 89_999}, path)
    model = PanopticFCN(config("star_r50_1x" if star else "r50_1x"), COCO)
    assert list(model.load_published(path)) == []
    mine = {n: t for n, t in model.state_dict().items() if not n.endswith("num_batches_tracked")}
    assert len(mine) == len(state)
    assert sorted(float(t.double().sum()) for t in mine.values()) == pytest.approx(
        sorted(float(t.double().sum()) for t in state.values())
    )  # every tensor is somewhere
    unit_name = "position_head.position_head.position_head_head_2"
    pairs = {
        "position.tower.1.convolution.weight": f"{unit_name}.dcnv2.weight",
        "position.tower.1.convolution.offset.bias": f"{unit_name}.offset_mask_conv.bias",
        "position.tower.1.norm.bias": f"{unit_name}.dcnv2.norm.bias",
        "semantic.branches.5.2.norm.weight": "semantic_fpn.p5.4.norm.weight",
        "semantic.branches.4.1.convolution.weight": "semantic_fpn.p4.2.weight",
        "kernel.tower.0.convolution.weight": ("kernel_head.kernel_head.kernel_head_head_1.weight"),
        "encoder.tower.2.bias": "feature_encoder.encode_head.encode_head_head_3"
        + (".dcnv2.bias" if star else ".bias"),
        "position.regions.bias": "position_head.out_sem.bias",
        "position.centres.weight": "position_head.out_inst.weight",
        "thing_generator.weight": "thing_generator.embed_extractor.weight",
        "stuff_generator.bias": "stuff_generator.embed_extractor.bias",
        "pyramid.extra.7.weight": "backbone.top_block.p7.weight",
        "pyramid.lateral.3.bias": "backbone.fpn_lateral3.bias",
        "backbone.body.encoder.stages.1.layers.0.layer.0.convolution.weight": (
            "backbone.bottom_up.res3.0.conv1.weight"
        ),
    }
    for ours, theirs in pairs.items():
        assert torch.equal(mine[ours], state[theirs]), ours


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model_final.pth"
    torch.save({"model": released_state()}, path)
    with pytest.raises(FormatError, match="other classes") as caught:
        on_meta("r50_1x").load_published(path)
    assert any("80" in place for place in caught.value.where)
    with pytest.raises(FormatError, match="other classes"):
        on_meta("r50_1x", MIXED).load_published(path)
    with pytest.raises(FormatError, match="another shape"):
        on_meta("r50_1x", COCO, "features.channels=128").load_published(path)
    with pytest.raises(FormatError, match="are not in") as caught:
        on_meta("tiny", COCO).load_published(path)
    assert "another model" in caught.value.hint
    with pytest.raises(FormatError, match="are not in"):
        on_meta("star_r50_1x", COCO).load_published(path)
    with pytest.raises(MissingDataError):
        on_meta("tiny", COCO).load_published(tmp_path / "absent.pth")
