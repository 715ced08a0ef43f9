"""Pretrained backbones from the files that people have.

* torchvision `.pth`: `layer1.0.conv1.weight`
* detectron2 `.pkl` (Caffe2 names or detectron2's) and `.pth`: `backbone.bottom_up.res2.0…`
* the official Swin `.pth`: `layers.0.blocks.0.attn.qkv.weight`
* safetensors of transformers, or a checkpoint of this project

Each is renamed to our names and loaded strictly: what is missing or has another shape is told.
No code in a file is ever run: `.pth` goes through torch's weights-only loader, `.pkl` through an
unpickler that makes arrays, numbers, text and containers and refuses all else.
"""

from __future__ import annotations

import io
import pickle
import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from entitybench.errors import EntityBenchError, FormatError, MissingDataError

State = dict[str, Tensor]

_AFFINE_EPS = 1e-5  # what batch norm adds to the variance: a stored scale is met exactly
_IGNORED = re.compile(
    r"^(fc|head|classifier)\b|num_batches_tracked$|relative_position_index|attn_mask"
)


# --- reading -----------------------------------------------------------------


def read_state(path: Path) -> State:
    """Read the tensors of a weight file.

    Raises:
        MissingDataError: No such file.
        FormatError: Not one of the known kinds, or it holds more than numbers.
    """
    if not path.is_file():
        msg = f"no weight file `{path}`"
        raise MissingDataError(msg)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if path.suffix == ".pkl":
            return _tensors(_NumbersOnly(io.BytesIO(path.read_bytes())).load(), path)
        return _tensors(torch.load(path, map_location="cpu", weights_only=True), path)
    except EntityBenchError:
        raise
    except (SafetensorError, pickle.UnpicklingError, EOFError, OSError, *_BROKEN) as error:
        what = str(error).splitlines()[0] if str(error) else type(error).__name__
        msg = f"not a weight file of numbers alone ({what})"
        raise FormatError(msg, where=str(path)) from error


_BROKEN = (ValueError, TypeError, KeyError, IndexError, AttributeError, RuntimeError)


def _tensors(value: Any, path: Path) -> State:
    """Find the state dict inside what detectron2, Swin and others wrap around it."""
    for key in ("model", "state_dict"):
        if isinstance(value, Mapping) and isinstance(value.get(key), Mapping):
            value = value[key]
    if not isinstance(value, Mapping):
        msg = "the file holds no table of weights"
        raise FormatError(msg, where=str(path))
    state: State = {}
    for name, entry in value.items():
        if isinstance(entry, np.ndarray) and entry.dtype.kind in "fiu":
            state[str(name)] = torch.from_numpy(np.ascontiguousarray(entry))
        elif isinstance(entry, Tensor):
            state[str(name)] = entry.detach()
    return state


class _NumbersOnly(pickle.Unpickler):
    """Makes arrays, numbers, text and containers; whatever else a file names is refused."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, encoding="latin1")

    def find_class(self, module: str, name: str) -> Any:
        """Return one of the few makers of arrays.

        Raises:
            UnpicklingError: The file asks for anything else.
        """
        maker = _MAKERS.get((module.replace("numpy.core", "numpy._core"), name))
        if maker is None:
            msg = f"it asks to run `{module}.{name}`"
            raise pickle.UnpicklingError(msg)
        return maker

    def persistent_load(self, pid: Any) -> Any:
        """Refuse references to the outside."""
        msg = f"it refers to something outside ({pid!r})"
        raise pickle.UnpicklingError(msg)


def _dtype(kind: str, *_: object) -> np.dtype[Any]:
    """Make a numeric dtype; objects are refused."""
    dtype = np.dtype(kind)
    if dtype.kind not in "biufSU":
        msg = f"it holds an array of {dtype}"
        raise pickle.UnpicklingError(msg)
    return dtype


def _empty_array(_kind: object, _shape: object, _code: object) -> np.ndarray[Any, Any]:
    return np.ndarray((0,), np.int8)


def _from_buffer(
    data: Any, dtype: np.dtype[Any], shape: tuple[int, ...], order: str
) -> np.ndarray[Any, Any]:
    array: np.ndarray[Any, Any] = np.frombuffer(data, dtype).reshape(
        shape, order="F" if order == "F" else "C"
    )
    return array


def _scalar(dtype: np.dtype[Any], data: bytes | str) -> Any:
    raw = data.encode("latin1") if isinstance(data, str) else data
    return np.frombuffer(raw, dtype)[0]


def _encode(text: str, encoding: str = "latin1") -> bytes:
    return text.encode("latin1" if encoding == "latin1" else "utf-8")


_MAKERS: dict[tuple[str, str], Any] = {
    ("numpy._core.multiarray", "_reconstruct"): _empty_array,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): _dtype,
    ("collections", "OrderedDict"): OrderedDict,
    ("_codecs", "encode"): _encode,
}


# --- renaming ----------------------------------------------------------------

_CAFFE2 = (
    (r"^res_conv1_bn_", "conv1_bn_"),
    (r"^conv1_bn_", "stem_conv1_norm_"),
    (r"^conv1_", "stem_conv1_"),
    (r"_branch1_", "_shortcut_"),
    (r"_branch2([abc])_", lambda m: f"_conv{'abc'.index(m[1]) + 1}_"),
    (r"_bn_s$", "_norm_weight"),
    (r"_bn_b$", "_norm_bias"),
    (r"_bn_rm$", "_norm_running_mean"),
    (r"_bn_riv$", "_norm_running_var"),
    (r"_norm_s$", "_norm_weight"),
    (r"_norm_b$", "_norm_bias"),
    (r"_w$", "_weight"),
    (r"_b$", "_bias"),
)
_RESNETS = (
    # torchvision
    (r"^conv1\.", "embedder.embedder.convolution."),
    (r"^bn1\.", "embedder.embedder.normalization."),
    (r"^layer(\d)\.", lambda m: f"encoder.stages.{int(m[1]) - 1}.layers."),
    (r"\.downsample\.0\.", ".shortcut.convolution."),
    (r"\.downsample\.1\.", ".shortcut.normalization."),
    (r"\.bn(\d)\.", lambda m: f".layer.{int(m[1]) - 1}.normalization."),
    # detectron2
    (r"^stem\.conv1\.norm\.", "embedder.embedder.normalization."),
    (r"^stem\.conv1\.", "embedder.embedder.convolution."),
    (r"^res(\d)\.", lambda m: f"encoder.stages.{int(m[1]) - 2}.layers."),
    (r"\.shortcut\.norm\.", ".shortcut.normalization."),
    (r"\.shortcut\.(weight|bias)$", r".shortcut.convolution.\1"),
    (r"\.conv(\d)\.norm\.", lambda m: f".layer.{int(m[1]) - 1}.normalization."),
    (r"\.conv2_offset\.", ".layer.1.convolution.offset."),
    (r"\.conv(\d)\.", lambda m: f".layer.{int(m[1]) - 1}.convolution."),
)
_BIAS_TABLE = ".attention.relative_position_bias.relative_position_bias_table"
_SWIN = (
    (r"^patch_embed\.proj\.", "swin.embeddings.patch_embeddings.projection."),
    (r"^patch_embed\.norm\.", "swin.embeddings.norm."),
    (r"^norm\.", "swin.layernorm."),
    (r"^norm(\d)\.", lambda m: f"hidden_states_norms.stage{int(m[1]) + 1}."),
    (r"^layers\.", "swin.encoder.layers."),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"\.attn\.relative_position_bias_table$", _BIAS_TABLE),
    (r"\.attn\.proj\.", ".attention.o_proj."),
    # earlier names of transformers
    (r"\.attention\.self\.relative_position_bias_table$", _BIAS_TABLE),
    (r"\.attention\.self\.(query|key|value)\.", lambda m: f".attention.{m[1][0]}_proj."),
    (r"\.attention\.output\.dense\.", ".attention.o_proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"(\.blocks\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
)
_PREFIXES = (
    "model.backbone.body.",
    "backbone.bottom_up.",
    "module.",
    "backbone.",
    "resnet.",
    "segformer.",
)


def rename_backbone(state: Mapping[str, Tensor], wanted: set[str]) -> tuple[State, list[str]]:
    """Rename a file's weights to a backbone's names.

    Args:
        state: As read.
        wanted: The backbone's names.

    Returns:
        What the backbone has, and the names that it has no use for.
    """
    renamed: State = {}
    unused: list[str] = []
    for name, tensor in _split_attention(state):
        target = _target(name, wanted)
        if target is None:
            unused.append(name)
        else:
            renamed[target] = tensor
    return _with_statistics(renamed, wanted), unused


def _target(name: str, wanted: set[str]) -> str | None:
    for candidate in _candidates(name):
        for rules in ((), _RESNETS, _SWIN):
            target = _applied(candidate, rules)
            if target in wanted:
                return target
    return None


def _candidates(name: str) -> Iterator[str]:
    """Yield a name without the prefixes that files put before it, and from Caffe2's style."""
    for prefix in ("", *_PREFIXES):
        if name.startswith(prefix):
            yield name.removeprefix(prefix)
    if "." not in name:
        snake = _applied(name, _CAFFE2)
        yield re.sub(r"_(?!(?:mean|var)$)", ".", snake).replace("running.", "running_")


def _applied(name: str, rules: tuple[tuple[str, Any], ...]) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def _split_attention(state: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Cut the official Swin's joint query, key and value."""
    for name, tensor in state.items():
        if ".attn.qkv." in name:
            for part, third in zip("qkv", tensor.chunk(3), strict=True):
                yield name.replace(".attn.qkv.", f".attention.{part}_proj."), third
        else:
            yield name, tensor


def _with_statistics(renamed: State, wanted: set[str]) -> State:
    """Add mean 0 and variance 1 to norms that a file stores as scale and shift alone."""
    full = dict(renamed)
    for name in wanted:
        stem, _, last = name.rpartition(".")
        scale = renamed.get(f"{stem}.weight")
        if scale is None or name in full or f"{stem}.running_mean" not in wanted:
            continue
        if last == "running_mean":
            full[name] = torch.zeros_like(scale)
        elif last == "running_var":
            full[name] = torch.full_like(scale, 1 - _AFFINE_EPS)
    return full


# --- loading -----------------------------------------------------------------


def load_backbone(path: Path, model: Any, config: Any) -> list[str]:
    """Load a backbone's weights into a model that has one.

    Args:
        path: The file.
        model: A model of ours with `backbone.body`.
        config: The backbone's configuration.

    Returns:
        Names in the file that the backbone has no use for, but for classifiers and counters.

    Raises:
        MissingDataError: No such file.
        FormatError: Weights are missing or of another shape, or they expect another stride or
            other pixels than the configuration says.
    """
    body: nn.Module = model.backbone.body
    wanted = body.state_dict()
    state = read_state(path)
    _check_flavour(path, state, config)
    renamed, unused = rename_backbone(state, set(wanted))
    needed = {
        n for n in wanted if not _IGNORED.search(n) and not n.startswith("hidden_states_norms")
    }
    _check_complete(path, wanted, renamed, needed)
    body.load_state_dict({**wanted, **renamed})
    return [name for name in unused if not _IGNORED.search(name)]


def _check_flavour(path: Path, state: Mapping[str, Tensor], config: Any) -> None:
    """Refuse a ResNet file whose stride or pixels differ: it would load, and score badly."""
    torchvision, caffe = "layer1.0.conv3.weight" in state, "conv1_w" in state
    if not (torchvision or caffe):  # a basic block has no 1×1 to stride in
        return
    pixels = "imagenet" if torchvision else "caffe"
    if config.stride_in_1x1 != caffe or config.pixels != pixels:
        kind = "torchvision" if torchvision else "Caffe2"
        stride = "true" if caffe else "false"
        msg = f"`{path.name}` holds {kind}'s weights, which were trained differently"
        hint = f"`--set backbone.stride_in_1x1={stride} --set backbone.pixels={pixels}`"
        raise FormatError(msg, where=str(path), hint=hint)


def _check_complete(
    path: Path, wanted: Mapping[str, Tensor], renamed: Mapping[str, Tensor], needed: set[str]
) -> None:
    missing = sorted(needed - set(renamed))
    if missing:
        msg = f"{len(missing)} of {len(needed)} weights of the backbone are not in `{path.name}`"
        raise FormatError(msg, where=missing, hint="is it another backbone's file?")
    wrong = [
        f"{name}: {tuple(tensor.shape)} there, {tuple(wanted[name].shape)} here"
        for name, tensor in renamed.items()
        if tensor.shape != wanted[name].shape
    ]
    if wrong:
        msg = f"{len(wrong)} weights in `{path.name}` have another shape"
        raise FormatError(msg, where=wrong, hint="is it another backbone's file?")
