"""`entitybench convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from entitybench.commands.console import (
    emit,
    jobs_option,
    json_option,
    overwrite_option,
    quiet_option,
    say,
)


@click.command("convert")
@click.argument("source")
@click.option(
    "--source",
    "root",
    type=click.Path(path_type=Path),
    help="The release: its folder or the folder of its archives, or the parent of either.",
)
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("data"),
    show_default=True,
    envvar="ENTITYBENCH_DATA",
    show_envvar=True,
    help="The data root: sets go to <out>/<source>_entity_<split>.",
)
@click.option("--split", "splits", multiple=True, help="A split; may be repeated.  [default: all]")
@click.option("--profile", default="raw", show_default=True, help="Named conversion choices.")
@jobs_option
@overwrite_option
@json_option
@quiet_option
def command(source: str, root: Path | None, out: Path, **options: Any) -> int:
    """Turn a source dataset into entity sets, one per split.

    The release is looked up in --source, then in $ENTITYBENCH_SOURCES/SOURCE. It is read where
    it lies, unpacked or in its official archives. Photographs are optional. Interrupted, the
    same command resumes; finished, it changes nothing.
    """
    from entitybench.converters import convert

    return 0
