"""Checkpoints: one safetensors file with weights, configuration and the state of training.

Nothing is pickled. A file is written beside its place and renamed into it, so that a killed run
leaves the checkpoint before.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from entitybench.baselines.configuration import as_table, config_from
from entitybench.baselines.model import BaselineModel, Classes
from entitybench.baselines.registry import family
from entitybench.errors import FormatError, MissingDataError

FORMAT = "entitybench-checkpoint/1"
CHECKPOINT, FINAL = "checkpoint.safetensors", "model.safetensors"
SHIPPED = Path(str(files("entitybench.baselines"))) / "checkpoints"
_MODEL, _OPTIMISER = "model.", "optimiser."


@dataclass(frozen=True, slots=True)
class Card:
    """What a checkpoint says about itself.

    Attributes:
        family: The model's family.
        config: Its configuration as plain values.
        trained_on: Names of the sets.
        hashes: Their content hashes, in that order.
        classes: Those that the model tells apart.
        seed: Of the run.
        step: Steps that were taken.
        format: Of the file.
    """

    family: str
    config: dict[str, Any]
    trained_on: tuple[str, ...]
    hashes: tuple[str, ...]
    classes: Classes
    seed: int
    step: int
    format: str = field(default=FORMAT)


def save(
    path: Path, model: BaselineModel, card: Card, optimiser: torch.optim.Optimizer | None = None
) -> None:
    """Write a checkpoint; with an optimiser, training can go on from it."""
    tensors = {_MODEL + name: t for name, t in model.state_dict().items()}
    if optimiser is not None:
        tensors |= _optimiser_tensors(optimiser)
    whole = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    text = json.dumps(asdict(card), sort_keys=True)
    partial = path.with_suffix(".partial")
    save_file(whole, partial, metadata={"card": text})
    partial.replace(path)


def read_card(path: Path) -> Card:
    """Read what a checkpoint says about itself.

    Raises:
        MissingDataError: There is no such file.
        FormatError: Not a checkpoint of ours.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except FileNotFoundError as error:
        msg = f"no checkpoint at `{path}`"
        raise MissingDataError(msg) from error
    except (SafetensorError, OSError) as error:
        msg = f"not a readable safetensors file ({error})"
        raise FormatError(msg, where=str(path)) from error
    try:
        card: Card = msgspec.json.decode(metadata.get("card", ""), type=Card)
    except msgspec.MsgspecError as error:
        msg = f"not a checkpoint of entitybench ({error})"
        raise FormatError(msg, where=str(path)) from error
    if card.format != FORMAT:
        msg = f"checkpoint format `{card.format}` is not `{FORMAT}`"
        raise FormatError(msg, where=str(path))
    return card


def shipped_checkpoints() -> dict[str, Path]:
    """Return the checkpoints that come with entitybench, by name."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.safetensors"))}


def find_checkpoint(path: Path) -> Path:
    """Return a checkpoint: a file, the finished or latest one of a run's folder, or a shipped one.

    Raises:
        MissingDataError: There is none.
    """
    if path.is_file():
        return path
    for name in (FINAL, CHECKPOINT):
        if (path / name).is_file():
            return path / name
    shipped = shipped_checkpoints()
    if str(path) in shipped:
        return shipped[str(path)]
    msg = f"no checkpoint in `{path}`"
    hint = f"`entitybench train` writes one; with entitybench come: {', '.join(shipped)}"
    raise MissingDataError(msg, hint=hint)


def load_model(path: Path, changes: Mapping[str, Any] | None = None) -> tuple[BaselineModel, Card]:
    """Build the model of a checkpoint and load its weights.

    Args:
        path: The file.
        changes: Laid over the stored configuration, table by table.

    Raises:
        FormatError: Weights and configuration do not belong together.
    """
    card = read_card(path)
    kind = family(card.family)
    table = {k: dict(v) if isinstance(v, dict) else v for k, v in card.config.items()}
    table.get("backbone", {})["weights"] = ""  # they are in the checkpoint
    if "pretrained" in table.get("backbone", {}):
        table["backbone"]["pretrained"] = False
    for key, value in (changes or {}).items():
        table[key] = {**table.get(key, {}), **value}
    config = config_from(kind.config, table, str(path))
    model = kind.build(config, card.classes)
    model.config = config
    load_weights(path, model)
    return model, card


def load_weights(path: Path, model: BaselineModel) -> None:
    """Load a checkpoint's weights into a model of the same shape.

    Raises:
        FormatError: A weight is missing, superfluous or of another shape.
    """
    with safe_open(path, framework="pt") as file:
        names = [name for name in file.keys() if name.startswith(_MODEL)]  # noqa: SIM118  # no mapping
        weights = {name.removeprefix(_MODEL): file.get_tensor(name) for name in names}
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        msg = "the weights do not fit the configuration"
        raise FormatError(msg, where=[str(path), *str(error).splitlines()[1:]]) from error


def load_optimiser(path: Path, optimiser: torch.optim.Optimizer) -> None:
    """Load the state of training into an optimiser over the same parameters."""
    state: dict[int, dict[str, Tensor]] = {}
    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118  # no mapping
            if name.startswith(_OPTIMISER):
                number, key = name.removeprefix(_OPTIMISER).split(".", 1)
                state.setdefault(int(number), {})[key] = file.get_tensor(name)
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": state, "param_groups": groups})


def _optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{_OPTIMISER}{number}.{key}": value
        for number, values in optimiser.state_dict()["state"].items()
        for key, value in values.items()
        if isinstance(value, Tensor)
    }


def card_config(config: object) -> dict[str, Any]:
    """Return a configuration as a card keeps it."""
    return as_table(config)
