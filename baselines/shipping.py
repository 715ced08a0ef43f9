"""Making the checkpoints that come with entitybench: half the bytes, the same model.

Each is trained by the plan of its name::

    entitybench run tiny-worlds
    python -m entitybench.baselines.shipping tiny-worlds/runs/*/model.safetensors tiny-worlds

The second command puts it into `baselines/checkpoints/`.
"""

from __future__ import annotations

from pathlib import Path

import click
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from entitybench.baselines.checkpoint import SHIPPED, read_card
from entitybench.errors import FormatError

LARGEST = 3_000_000
"""Bytes that a shipped checkpoint may have."""


def store(source: Path, target: Path) -> int:
    """Write a checkpoint's weights in half precision, with the card as it is.

    Args:
        source: A finished checkpoint.
        target: The file to write.

    Returns:
        Its bytes.

    Raises:
        FormatError: A weight does not fit half precision, or the file is too large to ship.
    """
    read_card(source)
    with safe_open(source, framework="pt") as file:
        metadata = file.metadata()
        weights = {name: _half(name, file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118  # no mapping
    save_file(weights, target, metadata=metadata)
    size = target.stat().st_size
    if size > LARGEST:
        target.unlink()
        msg = f"the checkpoint would have {size:,} bytes, more than {LARGEST:,}"
        raise FormatError(msg, where=str(source), hint="`--set pyramid.channels` shrinks it")
    return size


def _half(name: str, weight: torch.Tensor) -> torch.Tensor:
    if not weight.is_floating_point():
        return weight
    half = weight.half()
    if not torch.isfinite(half).all():
        msg = f"`{name}` does not fit half precision"
        raise FormatError(msg)
    return half


@click.command()
@click.argument("source", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.argument("name")
def main(source: Path, name: str) -> None:
    """Ship the checkpoint SOURCE as NAME."""
    SHIPPED.mkdir(exist_ok=True)
    target = SHIPPED / f"{name}.safetensors"
    click.echo(f"{target}: {store(source, target):,} bytes")


if __name__ == "__main__":
    main()
