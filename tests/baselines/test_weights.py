from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from entitybench.baselines.entity.backbone import Backbone
from entitybench.baselines.entity.config import Backbone as Config
from entitybench.baselines.weights import load_backbone, read_state
from entitybench.errors import FormatError, MissingDataError

CAFFE = Config(name="r50", stride_in_1x1=True, pixels="caffe")
TORCHVISION = Config(name="r50", stride_in_1x1=False, pixels="imagenet")
DEPTHS = (3, 4, 6, 3)


class Holder:
    """A model with nothing but a backbone."""

    def __init__(self, config: Config) -> None:
        self.backbone = Backbone(config)


def bottlenecks() -> Iterator[tuple[int, int, int, int]]:
    """Yield stage, block, width and channels that come in."""
    before = 64
    for stage, depth in enumerate(DEPTHS):
        for block in range(depth):
            yield stage, block, 64 * 2**stage, before
            before = 256 * 2**stage


def torchvision_r50() -> dict[str, torch.Tensor]:
    """ResNet-50's names and shapes as torchvision writes them, from its architecture."""
    generator = torch.Generator().manual_seed(0)
    state: dict[str, torch.Tensor] = {}

    def conv(name: str, *shape: int) -> None:
        state[f"{name}.weight"] = torch.full(shape, float(len(state)))

    def norm(name: str, width: int) -> None:
        for part in ("weight", "bias", "running_mean"):
            state[f"{name}.{part}"] = torch.randn(width, generator=generator)
        state[f"{name}.running_var"] = torch.rand(width, generator=generator)
        state[f"{name}.num_batches_tracked"] = torch.tensor(1)

    conv("conv1", 64, 3, 7, 7)
    norm("bn1", 64)
    for stage, block, width, before in bottlenecks():
        stem = f"layer{stage + 1}.{block}"
        for k, (a, b, size) in enumerate(
            [(before, width, 1), (width, width, 3), (width, 4 * width, 1)], start=1
        ):
            conv(f"{stem}.conv{k}", b, a, size, size)
            norm(f"{stem}.bn{k}", b)
        if block == 0:
            conv(f"{stem}.downsample.0", 4 * width, before, 1, 1)
            norm(f"{stem}.downsample.1", 4 * width)
    state["fc.weight"], state["fc.bias"] = torch.zeros(1000, 2048), torch.zeros(1000)
    return state


def caffe2_name(name: str) -> str:
    """Write one of torchvision's names as the Caffe2 files have it."""
    if name.startswith("conv1"):
        return "conv1_w"
    if name.startswith("bn1"):
        return f"res_conv1_bn_{'s' if name.endswith('weight') else 'b'}"
    layer, block, unit, *_, last = name.split(".")
    branch = "branch1" if unit == "downsample" else f"branch2{'abc'[int(unit[-1]) - 1]}"
    kind = "bn_" if unit.startswith("bn") or ".downsample.1." in name else ""
    ending = "w" if not kind else ("s" if last == "weight" else "b")
    return f"res{int(layer[5:]) + 1}_{block}_{branch}_{kind}{ending}"


def detectron2_name(name: str) -> str:
    name = name.replace("bn1.", "stem.conv1.norm.", 1) if name.startswith("bn1.") else name
    name = name.replace("conv1.", "stem.conv1.", 1) if name.startswith("conv1.") else name
    for stage in range(4):
        name = name.replace(f"layer{stage + 1}.", f"res{stage + 2}.")
    name = name.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")
    for k in (1, 2, 3):
        name = name.replace(f".bn{k}.", f".conv{k}.norm.")
    return name


def assert_loaded(holder: Holder, state: dict[str, torch.Tensor]) -> None:
    body = holder.backbone.body.state_dict()
    pairs = {
        "embedder.embedder.convolution.weight": "conv1.weight",
        "encoder.stages.0.layers.0.shortcut.normalization.bias": "layer1.0.downsample.1.bias",
        "encoder.stages.2.layers.5.layer.1.convolution.weight": "layer3.5.conv2.weight",
        "encoder.stages.3.layers.2.layer.2.normalization.weight": "layer4.2.bn3.weight",
    }
    for ours, theirs in pairs.items():
        assert torch.equal(body[ours], state[theirs])


def test_torchvision(tmp_path: Path) -> None:
    state = torchvision_r50()
    assert len([n for n in state if not n.startswith("fc")]) == 318
    torch.save(state, tmp_path / "resnet50.pth")
    holder = Holder(TORCHVISION)
    assert load_backbone(tmp_path / "resnet50.pth", holder, TORCHVISION) == []
    assert_loaded(holder, state)


def test_caffe2_pickle_of_arrays(tmp_path: Path) -> None:
    state = torchvision_r50()
    kept = {
        n: t for n, t in state.items()
        if n.endswith((".weight", ".bias")) and not n.startswith("fc")
    }  # fmt: skip
    model: dict[str, Any] = {caffe2_name(n): t.numpy() for n, t in kept.items()}
    assert "res4_5_branch2b_bn_s" in model
    model |= {"fc1000_w": np.zeros((2, 2), np.float32), "lr": np.float32(0.1)}
    path = tmp_path / "R-50.pkl"
    path.write_bytes(pickle.dumps({"model": model, "__author__": "x"}, protocol=2))
    holder = Holder(CAFFE)
    assert load_backbone(path, holder, CAFFE) == ["fc1000_w"]
    assert_loaded(holder, state)
    body = holder.backbone.body.state_dict()
    assert body["embedder.embedder.normalization.running_mean"].abs().sum() == 0
    variance = body["encoder.stages.1.layers.0.layer.0.normalization.running_var"]
    assert torch.all(variance + 1e-5 == 1)


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_of_every_pickle_protocol(tmp_path: Path, protocol: int) -> None:
    value = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.asfortranarray(np.eye(3))}
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps({"model": value, "lr": np.float64(0.1)}, protocol=protocol))
    state = read_state(path)
    assert state["a"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert torch.equal(state["b"], torch.eye(3, dtype=torch.float64))


@pytest.mark.parametrize("prefix", ["", "backbone.bottom_up."])
def test_detectron2(tmp_path: Path, prefix: str) -> None:
    state = torchvision_r50()
    model = {
        prefix + detectron2_name(n): t for n, t in state.items()
        if "num_batches" not in n and not n.startswith("fc")
    }  # fmt: skip
    assert f"{prefix}res2.0.conv1.norm.running_var" in model
    model["proposal_generator.scale"] = torch.ones(1)
    torch.save({"model": model, "iteration": 3}, tmp_path / "model.pth")
    holder = Holder(CAFFE)
    unused = load_backbone(tmp_path / "model.pth", holder, CAFFE)
    assert unused == ["proposal_generator.scale"]
    assert_loaded(holder, state)


def test_deformable_offsets_of_detectron2_are_found(tmp_path: Path) -> None:
    config = Config(name="r101_dcnv2")
    body = Backbone(config).body.state_dict()
    offsets = [n for n in body if n.endswith("offset.weight")]
    assert len(offsets) == 4 + 23 + 3
    from entitybench.baselines.weights import rename_backbone

    renamed, unused = rename_backbone({"res3.0.conv2_offset.weight": torch.ones(1)}, set(body))
    assert list(renamed) == ["encoder.stages.1.layers.0.layer.1.convolution.offset.weight"]
    assert unused == []


def test_official_swin_with_joint_attention(tmp_path: Path) -> None:
    config = Config(name="swin_t")
    reference = Backbone(config).body.state_dict()
    official: dict[str, torch.Tensor] = {}
    for name, tensor in reference.items():
        if name.startswith("hidden_states_norms"):
            continue
        new = name.removeprefix("swin.").removeprefix("encoder.")
        new = new.replace("embeddings.patch_embeddings.projection", "patch_embed.proj")
        new = new.replace("embeddings.norm", "patch_embed.norm")
        new = new.replace("layernorm_before", "norm1").replace("layernorm_after", "norm2")
        new = new.replace("attention.relative_position_bias.", "attn.").replace(
            "attention.o_proj", "attn.proj"
        )
        new = new.replace("layernorm.", "norm.") if new.startswith("layernorm") else new
        if ".attention.q_proj." in new:
            parts = [reference[name.replace("q_proj", f"{p}_proj")] for p in "qkv"]
            official[new.replace("attention.q_proj", "attn.qkv")] = torch.cat(parts)
        elif "_proj." not in new:
            official[new] = tensor
    official["head.weight"] = torch.zeros(1000, 768)
    official["layers.0.blocks.1.attn_mask"] = torch.zeros(4)
    assert official["layers.0.blocks.0.attn.qkv.weight"].shape == (288, 96)
    torch.save({"model": official}, tmp_path / "swin.pth")
    holder = Holder(config)
    assert load_backbone(tmp_path / "swin.pth", holder, config) == []
    loaded = holder.backbone.body.state_dict()
    assert all(torch.equal(loaded[n], reference[n]) for n in reference if "hidden" not in n)


def test_safetensors_of_transformers(tmp_path: Path) -> None:
    config = Config(name="mit_b0")
    reference = Backbone(config).body.state_dict()
    save_file({f"segformer.{n}": t for n, t in reference.items()}, tmp_path / "m.safetensors")
    holder = Holder(config)
    assert load_backbone(tmp_path / "m.safetensors", holder, config) == []
    loaded = holder.backbone.body.state_dict()
    assert all(torch.equal(loaded[n], reference[n]) for n in reference)


def test_weights_of_another_kind_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "resnet50.pth"
    torch.save(torchvision_r50(), path)
    with pytest.raises(FormatError, match="trained differently") as caught:
        load_backbone(path, Holder(CAFFE), CAFFE)
    assert "backbone.stride_in_1x1=false" in caught.value.hint
    mit = Config(name="mit_b0", stride_in_1x1=False, pixels="imagenet")
    with pytest.raises(FormatError, match="are not in") as caught:
        load_backbone(path, Holder(mit), mit)
    assert len(caught.value.where) > 50


def test_missing_and_misshapen_weights_are_told(tmp_path: Path) -> None:
    state = torchvision_r50()
    del state["layer3.5.conv2.weight"]
    torch.save(state, tmp_path / "missing.pth")
    with pytest.raises(FormatError, match="1 of 265 weights") as caught:
        load_backbone(tmp_path / "missing.pth", Holder(TORCHVISION), TORCHVISION)
    assert "encoder.stages.2.layers.5.layer.1.convolution.weight" in caught.value.where[0]
    state["layer3.5.conv2.weight"] = torch.zeros(3, 3)
    torch.save(state, tmp_path / "shape.pth")
    with pytest.raises(FormatError, match="another shape"):
        load_backbone(tmp_path / "shape.pth", Holder(TORCHVISION), TORCHVISION)


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("name", ["bomb.pkl", "bomb.pth"])
def test_code_in_a_file_is_never_run(tmp_path: Path, name: str) -> None:
    mark = tmp_path / "ran"
    with (tmp_path / name).open("wb") as file:
        pickle.dump({"model": {"conv1_w": Bomb(mark)}}, file)
    with pytest.raises(FormatError, match="numbers alone"):
        read_state(tmp_path / name)
    assert not mark.exists()


def test_arrays_of_objects_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "objects.pkl"
    path.write_bytes(pickle.dumps({"model": {"a": np.array([{"b": 1}], dtype=object)}}))
    with pytest.raises(FormatError, match="array of object"):
        read_state(path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("name", ["a.pth", "a.pkl", "a.safetensors"])
def test_broken_and_absent_files(tmp_path: Path, name: str) -> None:
    with pytest.raises(MissingDataError, match="no weight file"):
        read_state(tmp_path / name)
    (tmp_path / name).write_bytes(b"\x80\x04nonsense")
    with pytest.raises(FormatError):
        read_state(tmp_path / name)
