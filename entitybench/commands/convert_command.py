"""`entitybench convert`."""

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
from entitybench.commands.scaling import cluster_option, executor_on, shard_option

if TYPE_CHECKING:
    from entitybench.converters.conversion import Summary
    from entitybench.sharding import Shard


@click.command("convert")
@click.argument("source", metavar="SOURCE")
@click.option(
    "--source",
    "root",
    type=click.Path(path_type=Path),
    help="The release: its folder, the folder of its archives, or the parent of either.",
)
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("data"),
    show_default=True,
    envvar="ENTITYBENCH_DATA",
    show_envvar=True,
    help="The data root; sets go to <out>/<source>_entity_<split>.",
)
@click.option("--split", "splits", multiple=True, help="A split; may be repeated.  [default: all]")
@click.option("--profile", help="Named conversion choices.  [default: the source's first]")
@click.option("--download-only", is_flag=True, help="Fetch the archives, convert nothing.")
@click.option("--with-images", is_flag=True, help="Fetch the photographs too; no score needs them.")
@click.option(
    "--archive",
    "archives",
    multiple=True,
    help="Fetch this archive of the source; may be repeated.",
)
@click.option(
    "--z-order",
    type=click.Choice(["area", "order"]),
    help="Which of overlapping annotations is on top: the smaller, or the later in the file; for "
    "sources whose truth overlaps.",
)
@click.option(
    "--as-predictions",
    type=click.IntRange(min=1),
    metavar="K",
    help="Write what human K saw as predictions; for sources with several humans an image.",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="An option of this source, as its page in docs/sources tells; may be repeated.",
)
@jobs_option
@shard_option
@cluster_option
@overwrite_option
@json_option
@quiet_option
def command(
    source: str,
    root: Path | None,
    out: Path,
    splits: tuple[str, ...],
    profile: str | None,
    download_only: bool,
    with_images: bool,
    archives: tuple[str, ...],
    z_order: str | None,
    as_predictions: int | None,
    settings: tuple[str, ...],
    jobs: int,
    shard: Shard | None,
    cluster: str | None,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    r"""Turn a source dataset into entity sets, one per split.

    The release is looked up in --source, else in $ENTITYBENCH_SOURCES/SOURCE (./sources/SOURCE
    unless set); where it is not, its public archives are fetched there, annotations alone unless
    --with-images. A source that wants a registration prints the steps. It is read where it lies:
    unpacked, or in its official archives. Interrupted, the same command resumes; finished, it
    changes nothing. $ENTITYBENCH_MIRROR names a mirror, $ENTITYBENCH_OFFLINE=1 forbids to fetch.

    \b
      entitybench convert coco --source ~/datasets/coco --out data/
      entitybench convert coco --source ~/downloads --split val -j 8
      entitybench convert ade20k --out data/
    """
    from entitybench.commands.release_download import Wanted, fetch_archives, release_folder
    from entitybench.commands.source_options import source_options
    from entitybench.converters.conversion import convert_source

    wanted = Wanted(with_images, splits, archives)
    if root is not None and (download_only or wanted != Wanted(splits=splits)):
        msg = "--source names a release that is there: nothing is fetched"
        raise click.UsageError(msg)
    if download_only:
        return _tell_files(source, fetch_archives(source, wanted, quiet=quiet), as_json=as_json)
    named = {"z_order": z_order, "as_predictions": as_predictions}
    options = {key: value for key, value in named.items() if value is not None}
    with executor_on(cluster, jobs) as (executor, workers):
        summaries = convert_source(
            source,
            release_folder(source, wanted, quiet=quiet) if root is None else root,
            out,
            splits=splits or None,
            profile=profile,
            options=options | source_options(source, settings),
            jobs=workers,
            executor=executor,
            shard=shard,
            overwrite=overwrite,
            progress=partial(progress, quiet=quiet),
        )
    return _tell_sets(summaries, as_json=as_json, quiet=quiet)


def _tell_files(source: str, files: list[Path], *, as_json: bool) -> int:
    if as_json:
        emit({"source": source, "files": files})
    else:
        click.echo("\n".join(map(str, files)))
    return 0


def _tell_sets(summaries: list[Summary], *, as_json: bool, quiet: bool) -> int:
    if as_json:
        emit({"sets": [_as_json(summary) for summary in summaries]})
    else:
        click.echo(_table(summaries))
    for summary in summaries:
        _remarks(summary, quiet=quiet)
    return 0


def _table(summaries: list[Summary]) -> str:
    head = ["set", "images", "entities", "per image", "crowds", ""]
    rows = [
        [
            s.name,
            f"{s.images:,}",
            f"{s.entities:,}",
            f"{s.entities / s.images:.1f}" if s.images else "–",
            f"{s.crowds:,}",
            "already there" if s.already_there else "written",
        ]
        for s in summaries
    ]
    return table([head, *rows])


def _remarks(summary: Summary, *, quiet: bool) -> None:
    """Say what a user should know before trusting the set."""
    for warning in summary.warnings:
        say(f"warning: {summary.name}: {warning}", quiet=quiet)
    if summary.num_warnings > len(summary.warnings):
        say(f"and {summary.num_warnings - len(summary.warnings):,} more warnings", quiet=quiet)
    if summary.release_images and summary.images != summary.release_images:
        say(
            f"{summary.name}: {summary.images:,} images; the complete release has "
            f"{summary.release_images:,}",
            quiet=quiet,
        )
    if summary.photographs_absent:
        say(
            f"{summary.name}: {summary.photographs_absent:,} of {summary.images:,} photographs "
            "are not there; none is needed to score",
            quiet=quiet,
        )


def _as_json(summary: Summary) -> dict[str, object]:
    from dataclasses import asdict

    return asdict(summary)
