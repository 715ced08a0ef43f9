"""`entitybench report`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from entitybench.commands.console import data_option, emit, json_option, quiet_option, say

if TYPE_CHECKING:
    from entitybench.reports.results import Run


@click.command("report")
@click.argument("results", metavar="RESULTS", type=click.Path(path_type=Path), default="results")
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("report"),
    show_default=True,
    help="Folder for the page, the tables and the figures.",
)
@click.option(
    "--table",
    metavar="NUMBER",
    help="Print a table of the paper (1, 2a, … 10) as published and as measured, and stop.",
)
@click.option("--title", default="Entity segmentation, across datasets", help="Head of the page.")
@click.option(
    "--preds",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("preds"),
    show_default=True,
    help="PREDS/<model>/<ground truth> holds the predictions that pictures show.",
)
@click.option(
    "--pictures",
    type=click.Choice(["none", "local"]),
    default="local",
    show_default=True,
    help="`local` shows photographs where they are at hand, for yourself: mind their licence "
    "before you pass the page on. `none` shows none.",
)
@click.option(
    "--bootstrap",
    "resamples",
    type=click.IntRange(0),
    default=1000,
    show_default=True,
    help="Resamples behind intervals and paired differences; 0 for none.",
)
@click.option(
    "--allow-mixed",
    is_flag=True,
    help="Show numbers that were computed differently in one row, with a footnote.",
)
@data_option
@json_option
@quiet_option
def command(
    results: Path,
    out: Path,
    table: str | None,
    title: str,
    preds: Path,
    pictures: str,
    resamples: int,
    allow_mixed: bool,
    data: Path,
    as_json: bool,
    quiet: bool,
) -> int:
    r"""Make the cross-dataset leaderboard: one page, and the same numbers as files.

    RESULTS is the folder that `eval` writes.  [default: results]

    \b
      entitybench report results/ --out report/
      entitybench report results/ --table 7a

    A model named `method@training#seed` counts as that method; results that differ in the seed
    alone share a cell. Test sets are pooled in a last row from the match records.
    """
    from entitybench.reports.report import Options, load, write_report

    if table is not None:
        _print_table(table, load(results, allow_mixed=allow_mixed), as_json=as_json)
        return 0
    options = Options(
        title=title,
        data=data,
        preds=preds,
        pictures=pictures == "local",
        allow_mixed=allow_mixed,
        resamples=resamples,
    )
    done = write_report(results, out, options)
    if as_json:
        emit({"page": done.page, "files": done.files, "results": done.runs})
    say(f"wrote {done.page}: {done.runs} results, {len(done.files)} files", quiet=quiet)
    return 0


def _print_table(number: str, runs: list[Run], *, as_json: bool) -> None:
    from entitybench.reports.published import published
    from entitybench.reports.table_text import table_cells, table_text

    paper = published()
    chosen = paper.table(number)
    if as_json:
        emit({"table": chosen.id, "cells": table_cells(chosen, runs, paper)})
    else:
        click.echo(table_text(chosen, runs, paper))
