"""The released weights' names, written down from its configuration, with random numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from entitybench.baselines.configuration import load_config
from entitybench.baselines.knet.config import KNetConfig
from entitybench.baselines.knet.model import FAMILY, KNet
from entitybench.baselines.knet.published import things_first
from entitybench.baselines.model import Classes
from entitybench.errors import FormatError

CLASSES = Classes(("sky", "dog", "sea", "cat", "cow"), (False, True, False, True, True))
UPDATES, QUERIES, WIDTH, HIDDEN = 2, 6, 32, 16
CHANGES = (
    "backbone.name=r18", f"kernels.stages={UPDATES}", f"kernels.queries={QUERIES}",
    f"kernels.channels={WIDTH}", f"kernels.feedforward={HIDDEN}",
)  # fmt: skip


def build(classes: Classes = CLASSES, *changes: str) -> KNet:
    torch.manual_seed(0)
    config = load_config(KNetConfig, FAMILY.package, "knet_r50_1x", [*CHANGES, *changes])
    return KNet(config, classes)


def unit(name: str, out: int, size: int) -> dict[str, tuple[int, ...]]:
    return {
        f"{name}.conv.weight": (out, out, size, size),
        f"{name}.gn.weight": (out,),
        f"{name}.gn.bias": (out,),
    }


def linear(name: str, out: int, inner: int, *, bias: bool = True) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (out, inner), **({f"{name}.bias": (out,)} if bias else {})}


def norm(name: str) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (WIDTH,), f"{name}.bias": (WIDTH,)}


def resnet18() -> dict[str, tuple[int, ...]]:
    """torchvision's names."""

    def batch_norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
        kinds = ("weight", "bias", "running_mean", "running_var")
        return {**{f"{name}.{kind}": (width,) for kind in kinds}, f"{name}.num_batches_tracked": ()}

    shapes = {"conv1.weight": (64, 3, 7, 7), **batch_norm("bn1", 64)}
    before = 64
    for layer, width in enumerate((64, 128, 256, 512), start=1):
        for block in range(2):
            name = f"layer{layer}.{block}"
            shapes[f"{name}.conv1.weight"] = (width, before, 3, 3)
            shapes[f"{name}.conv2.weight"] = (width, width, 3, 3)
            shapes |= batch_norm(f"{name}.bn1", width) | batch_norm(f"{name}.bn2", width)
            if before != width:
                shapes[f"{name}.downsample.0.weight"] = (width, before, 1, 1)
                shapes |= batch_norm(f"{name}.downsample.1", width)
            before = width
    return {f"backbone.{name}": shape for name, shape in shapes.items()}


def released(classes: int) -> dict[str, tuple[int, ...]]:
    shapes = resnet18()
    for level, width in enumerate((64, 128, 256, 512)):
        shapes[f"neck.lateral_convs.{level}.conv.weight"] = (WIDTH, width, 1, 1)
        shapes[f"neck.lateral_convs.{level}.conv.bias"] = (WIDTH,)
        shapes[f"neck.fpn_convs.{level}.conv.weight"] = (WIDTH, WIDTH, 3, 3)
        shapes[f"neck.fpn_convs.{level}.conv.bias"] = (WIDTH,)
        for number in range(max(1, level)):
            place = f"rpn_head.localization_fpn.convs_all_levels.{level}.conv{number}"
            shapes |= unit(place, WIDTH, 3)
    for name in ("localization_fpn.conv_pred", "localization_fpn.aux_convs.0", "loc_convs.0",
                 "seg_convs.0"):  # fmt: skip
        shapes |= unit(f"rpn_head.{name}", WIDTH, 1)
    shapes["rpn_head.init_kernels.weight"] = (QUERIES, WIDTH, 1, 1)
    shapes["rpn_head.conv_seg.weight"] = (classes, WIDTH, 1, 1)
    shapes["rpn_head.conv_seg.bias"] = (classes,)
    for stage in range(UPDATES):
        shapes |= {f"roi_head.mask_head.{stage}.{n}": s for n, s in update(classes).items()}
    return shapes


def update(classes: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "attention.attn.in_proj_weight": (3 * WIDTH, WIDTH),
        "attention.attn.in_proj_bias": (3 * WIDTH,),
        "feat_transform.conv.weight": (WIDTH, WIDTH, 1, 1),
        "feat_transform.conv.bias": (WIDTH,),
        **linear("attention.attn.out_proj", WIDTH, WIDTH),
        **linear("ffn.layers.0.0", HIDDEN, WIDTH),
        **linear("ffn.layers.1", WIDTH, HIDDEN),
        **linear("cls_fcs.0", WIDTH, WIDTH, bias=False),
        **linear("mask_fcs.0", WIDTH, WIDTH, bias=False),
        **linear("fc_cls", classes, WIDTH),
        **linear("fc_mask", WIDTH, WIDTH),
    }
    for name in ("attention_norm", "ffn_norm", "cls_fcs.1", "mask_fcs.1"):
        shapes |= norm(name)
    for name in ("norm_in", "norm_out", "input_norm_in", "input_norm_out", "fc_norm"):
        shapes |= norm(f"kernel_update_conv.{name}")
    for name, out in (("dynamic_layer", 2), ("input_layer", 2), ("input_gate", 1),
                      ("update_gate", 1), ("fc_layer", 1)):  # fmt: skip
        shapes |= linear(f"kernel_update_conv.{name}", out * WIDTH, WIDTH)
    return shapes


def write(path: Path, shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    torch.manual_seed(1)
    state = {name: torch.randn(shape) for name, shape in shapes.items()}
    for name in state:
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(3)
    torch.save({"state_dict": state, "meta": {"epoch": 12}}, path)
    return state


def test_released_weights_load_whole(tmp_path: Path) -> None:
    path, model = tmp_path / "knet.pth", build()
    state = write(path, {**released(5), "extra.weight": (2,)})
    assert model.load_published(path) == ["extra.weight"]
    mine = model.state_dict()
    assert (
        sum(v.numel() for n, v in mine.items() if "num_batches" not in n)
        == sum(v.numel() for n, v in state.items() if "num_batches" not in n) - 2
    )
    fpn = "rpn_head.localization_fpn"
    for ours, theirs in (
        ("initial.weight", "rpn_head.init_kernels.weight"),
        ("features.levels.3.2.1.bias", f"{fpn}.convs_all_levels.3.conv2.gn.bias"),
        ("features.place.1.0.weight", "rpn_head.loc_convs.0.conv.weight"),
        ("features.name.0.0.weight", f"{fpn}.aux_convs.0.conv.weight"),
        ("updates.1.update.feature_gate.bias",
         "roi_head.mask_head.1.kernel_update_conv.update_gate.bias"),
        ("updates.1.update.feature_norm.bias",
         "roi_head.mask_head.1.kernel_update_conv.norm_out.bias"),
        ("updates.0.contract.weight", "roi_head.mask_head.0.ffn.layers.1.weight"),
        ("pyramid.lateral.5.weight", "neck.lateral_convs.3.conv.weight"),
    ):  # fmt: skip
        assert torch.equal(mine[ours], state[theirs]), ours


def test_classes_are_put_into_our_order(tmp_path: Path) -> None:
    path, model = tmp_path / "knet.pth", build()
    state = write(path, released(5))
    model.load_published(path)
    theirs = state["roi_head.mask_head.0.fc_cls.weight"]  # dog, cat, cow, sky, sea
    mine = model.state_dict()["updates.0.classes.weight"]  # sky, dog, sea, cat, cow
    assert torch.equal(mine, theirs[[3, 0, 4, 1, 2]])
    assert torch.equal(
        model.state_dict()["semantic.bias"], state["rpn_head.conv_seg.bias"][[3, 0, 4, 1, 2]]
    )
    assert things_first(torch.tensor(CLASSES.things)).tolist() == [3, 0, 4, 1, 2]


def test_other_classes_and_other_models_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "knet.pth"
    write(path, released(7))
    with pytest.raises(FormatError, match="other classes"):
        build().load_published(path)
    with pytest.raises(FormatError, match="other classes"):
        build(Classes()).load_published(path)
    with pytest.raises(FormatError, match="another shape"):
        build(CLASSES, "kernels.queries=9").load_published(path)
    with pytest.raises(FormatError, match="weights of the model are not in"):
        build(CLASSES, "kernels.stages=3").load_published(path)
    write(path, resnet18())
    with pytest.raises(FormatError, match="weights of the model are not in") as caught:
        build().load_published(path)
    assert caught.value.hint == "is it another model's file?"
