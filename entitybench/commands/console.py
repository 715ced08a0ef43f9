"""Options that verbs share, and how verbs speak: data on stdout, all else on stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

_T = TypeVar("_T")
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

data_option: Decorator = click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("data"),
    show_default=True,
    envvar="ENTITYBENCH_DATA",
    show_envvar=True,
    help="Folder in which entity sets are looked up by name.",
)
device_option: Decorator = click.option(
    "--device",
    type=click.Choice(["cpu", "best"]),
    default="best",
    show_default=True,
    help="`best` is a GPU where there is one.",
)
json_option: Decorator = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object on stdout."
)
jobs_option: Decorator = click.option(
    "-j",
    "--jobs",
    type=click.IntRange(1),
    default=lambda: available_cores(),
    show_default="all cores",
    envvar="ENTITYBENCH_JOBS",
    show_envvar=True,
    help="Processes to use.",
)
missing_option: Decorator = click.option(
    "--missing",
    type=click.Choice(["error", "empty"]),
    default="error",
    show_default=True,
    help="Whether an image without predictions is an error, or counts as empty.",
)
missing_score_option: Decorator = click.option(
    "--missing-score",
    type=click.Choice(["error", "constant", "area", "mean-prob"]),
    default="error",
    show_default=True,
    help="What stands in for scores that a format does not have; goes into the signature.",
)
overwrite_option: Decorator = click.option(
    "--overwrite", is_flag=True, help="Replace what is there."
)
quiet_option: Decorator = click.option(
    "-q", "--quiet", is_flag=True, help="Say nothing but errors and the result."
)


def available_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def say(text: str, *, quiet: bool = False) -> None:
    """Tell a person something, on stderr."""
    if not quiet:
        click.echo(text, err=True)


def duration(seconds: float) -> str:
    """Say how long something takes.

    >>> duration(42), duration(90), duration(7300)
    ('42 s', '2 min', '2.0 h')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def emit(value: dict[str, Any]) -> None:
    """Print one JSON object on stdout; NaN becomes null."""
    click.echo(json.dumps(_plain(value), indent=1, sort_keys=True, allow_nan=False))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and value != value:  # NaN
        return None
    return str(value) if isinstance(value, Path) else value


def progress(
    items: Iterable[_T], *, total: int, unit: str, label: str, quiet: bool = False
) -> Iterable[_T]:
    """Show a progress bar on a terminal, unless `--quiet` or $ENTITYBENCH_NO_PROGRESS."""
    if quiet or os.environ.get("ENTITYBENCH_NO_PROGRESS") or not sys.stderr.isatty():
        return items
    from tqdm import tqdm  # a fiftieth of scoring 5,000 images

    return tqdm(items, total=total, unit=unit, desc=label, file=sys.stderr)


def table(rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """Lay out rows in columns: the first `left` to the left, the others to the right.

    >>> print(table([["", "AP"], ["mine", "29.8"]]))
            AP
    mine  29.8
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(
            cell.ljust(width) if index < left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)
