"""Whole models that others published: their weights under our names, or a clear refusal."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from entitybench.baselines.weights import State, read_state, rename_backbone
from entitybench.errors import FormatError

Rule = tuple[str, str | Callable[[re.Match[str]], str]]

_BODY = "backbone.body."
_COUNTERS = "num_batches_tracked"
# tables that are computed, and a norm of Swin that nothing is read from
_NOT_NEEDED = re.compile(r"num_batches_tracked$|relative_position_index$|\.swin\.layernorm\.")


def load_renamed(
    model: nn.Module,
    path: Path,
    rules: Sequence[Rule],
    *,
    class_layers: Sequence[str],
    prepare: Callable[[State], State] = dict,
    arrange: Callable[[State], State] = dict,
) -> list[str]:
    """Load a file's weights into a model with a `backbone.body`, strictly.

    Args:
        model: Ours.
        path: Any file that `read_state` takes.
        rules: Patterns and replacements from the file's names to ours, applied in order; the
            backbone's names are known.
        class_layers: Beginnings of our names of layers with a size that depends on the classes.
        prepare: Is given the weights as they were read, and cuts what ours has apart.
        arrange: Puts classes into our order, once all shapes fit.

    Returns:
        Names in the file that the model has no use for, but for counters.

    Raises:
        MissingDataError: No such file.
        FormatError: Weights are missing or of another shape.
    """
    wanted: State = model.state_dict()
    renamed, unused = _rename(prepare(read_state(path)), wanted, rules)
    missing = sorted(n for n in wanted if n not in renamed and not _NOT_NEEDED.search(n))
    if missing:
        msg = f"{len(missing)} of {len(wanted)} weights of the model are not in `{path.name}`"
        raise FormatError(msg, where=missing, hint="is it another model's file?")
    _check_shapes(path, wanted, renamed, tuple(class_layers))
    model.load_state_dict({**wanted, **arrange(renamed)})
    return [name for name in unused if not name.endswith(_COUNTERS)]


def _rename(
    state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], rules: Sequence[Rule]
) -> tuple[State, list[str]]:
    """Return what the model has under our names, and the names that it has no use for."""
    renamed: State = {}
    others: State = {}
    original: dict[str, str] = {}
    for name, tensor in state.items():
        target = name
        for pattern, replacement in rules:
            target = re.sub(pattern, replacement, target)
        if target in wanted:
            renamed[target] = tensor
        else:
            others[target], original[target] = tensor, name
    body = {name.removeprefix(_BODY) for name in wanted if name.startswith(_BODY)}
    inner, unused = rename_backbone(others, body)
    renamed |= {_BODY + name: tensor for name, tensor in inner.items()}
    return renamed, [original.get(name, name) for name in unused]


def _check_shapes(path: Path, wanted: State, renamed: State, class_layers: tuple[str, ...]) -> None:
    wrong = [name for name, tensor in renamed.items() if tensor.shape != wanted[name].shape]
    if not wrong:
        return
    where = [
        f"{name}: {tuple(renamed[name].shape)} there, {tuple(wanted[name].shape)} here"
        for name in wrong
    ]
    if all(name.startswith(class_layers) for name in wrong):
        msg = f"`{path.name}` has other classes than the model"
        raise FormatError(msg, where=where, hint="train on sets with the classes of the file")
    msg = f"{len(wrong)} weights in `{path.name}` have another shape"
    raise FormatError(msg, where=where, hint="is it another model's file?")
