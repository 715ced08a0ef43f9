"""`entitybench merge`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from entitybench.commands.console import (
    emit,
    jobs_option,
    json_option,
    overwrite_option,
    progress,
    quiet_option,
    say,
    table,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from entitybench.merging import Merged
    from entitybench.metrics.merging import MergedResult


@click.command("merge")
@click.argument(
    "parts", metavar="PARTS...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where the whole goes.  [default: beside its first part]",
)
@jobs_option
@overwrite_option
@json_option
@quiet_option
def command(
    parts: tuple[Path, ...],
    out: Path | None,
    jobs: int,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    r"""Join the parts that `--shard i/n` wrote: entity sets, or results of eval.

    The whole is what one run would have written, to the byte. Parts that are missing, unfinished,
    there twice or made with different options are refused. Interrupted, the same command goes on;
    the parts stay where they are.

    \b
      entitybench merge data/coco_entity_val.part-*-of-4 --out data/
      entitybench merge results/mine/coco_entity_val.part-*-of-4.json
    """
    from entitybench.merging import merge_sets
    from entitybench.metrics.merging import OVERLAPPING, RECORDS, merge_results

    results = [path for path in parts if path.suffix == ".json"]
    beside = (RECORDS, OVERLAPPING)
    # a pattern that catches a result catches the records beside it
    sets = [path for path in parts if path not in results and not path.name.endswith(beside)]
    merged_sets = (
        merge_sets(
            sets, out, jobs=jobs, overwrite=overwrite, progress=partial(progress, quiet=quiet)
        )
        if sets
        else []
    )
    merged_results = merge_results(results, out) if results or not sets else []
    if as_json:
        emit(_as_json(merged_sets, merged_results))
    else:
        _tell(merged_sets, merged_results, quiet=quiet)
    return 0


def _tell(sets: Sequence[Merged], results: Sequence[MergedResult], *, quiet: bool) -> None:
    from entitybench.commands.eval_command import score_table

    if sets:
        head = ["set", "parts", "images", "entities", ""]
        rows = [
            [
                done.name,
                f"{done.parts}",
                f"{done.images:,}",
                f"{done.entities:,}",
                "already there" if done.already_there else "written",
            ]
            for done in sets
        ]
        click.echo(table([head, *rows]))
    if results:
        click.echo(score_table([done.result for done in results]))
    for result in results:
        click.echo(f"{result.result.signature.metric}\n{result.result.signature.prediction}")
        say(f"wrote {result.path}", quiet=quiet)


def _as_json(sets: Sequence[Merged], results: Sequence[MergedResult]) -> dict[str, object]:
    from dataclasses import asdict

    import msgspec

    return {
        "sets": [asdict(done) for done in sets],
        "results": [
            {"path": done.path, "parts": done.parts, **msgspec.to_builtins(done.result)}
            for done in results
        ],
    }
