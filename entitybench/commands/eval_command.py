"""`entitybench eval`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from entitybench.commands.console import (
    data_option,
    emit,
    jobs_option,
    json_option,
    progress,
    quiet_option,
    say,
)
from entitybench.commands.eval_report import FURTHER, Explanation
from entitybench.commands.eval_report import score_table as score_table
from entitybench.commands.scaling import cluster_option, executor_on, shard_option

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from entitybench.metrics.benchmark import Benchmark, ImageOutcome, ImageTask
    from entitybench.metrics.records import MatchRecords
    from entitybench.metrics.subset import Subset
    from entitybench.result import Result
    from entitybench.sharding import Shard


@click.command("eval")
@click.argument("predictions", metavar="PREDS", type=click.Path(path_type=Path))
@click.option("--gt", required=True, help="Ground truth: a set's name or path, or a union `a+b`.")
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The result file.  [default: results/<model>/<gt>.json]",
)
@click.option("--model", help="The model's name, where the predictions do not tell it.")
@click.option(
    "--protocol",
    type=click.Choice(["strict", "official"]),
    default="strict",
    show_default=True,
    help="`official` does what the paper's released code does; see docs/metric.md.",
)
@click.option(
    "--void",
    type=click.Choice(["counted", "ignore"]),
    default="counted",
    show_default=True,
    help="Whether predictions in void are false positives, or void is one more crowd.",
)
@click.option(
    "--overlap",
    type=click.Choice(["reject", "resolve"]),
    default="reject",
    show_default=True,
    help="What to do with masks that share pixels; `resolve` goes into the signature.",
)
@click.option(
    "--missing",
    type=click.Choice(["error", "empty"]),
    default="error",
    show_default=True,
    help="Whether an image without predictions is an error, or counts as empty.",
)
@click.option(
    "--missing-score",
    type=click.Choice(["error", "constant", "area", "mean-prob"]),
    default="error",
    show_default=True,
    help="What stands in for scores that a format does not have; goes into the signature.",
)
@click.option(
    "--class-threshold",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="Least score of a prediction in PQ by class, which comes of predictions with classes.",
)
@click.option(
    "--bootstrap",
    "resamples",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Resamples of the images for 95 % intervals of the scores; 1000 will do.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of resamples.")
@click.option(
    "--subset",
    "subsets",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="A file of image ids: a row of their own, and a result file. May be given again.",
)
@click.option(
    "--boundary",
    is_flag=True,
    help="Also AP by boundaries (Boundary IoU, 2 %): a row of its own, and a result file.",
)
@click.option("--explain", is_flag=True, help="Say why AP is not 100, and list the worst images.")
@click.option(
    "--plots",
    type=click.Path(path_type=Path, file_okay=False),
    help="A folder for figures: curves, causes, recall by size, reliability.",
)
@click.option(
    "--images-csv",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A file for a row per image, worst first; JSON if its name ends in .json.",
)
@click.option(
    "--quick",
    is_flag=True,
    help="COCO results and entity sets: AP and AR alone, in less time.",
)
@data_option
@jobs_option
@shard_option
@cluster_option
@json_option
@quiet_option
def command(
    predictions: Path,
    gt: str,
    out: Path | None,
    model: str | None,
    protocol: str,
    void: str,
    overlap: str,
    missing: str,
    missing_score: str,
    class_threshold: float,
    resamples: int,
    seed: int,
    subsets: tuple[Path, ...],
    boundary: bool,
    explain: bool,
    plots: Path | None,
    images_csv: Path | None,
    quick: bool,
    data: Path,
    jobs: int,
    shard: Shard | None,
    cluster: str | None,
    as_json: bool,
    quiet: bool,
) -> int:
    r"""Score predictions with AP_e: mask AP without labels and without overlap.

    PREDS is an entity set, COCO results JSON, COCO panoptic JSON with its PNG folder, a folder
    of npz or npy mask stacks, or a folder with one of these per ground-truth name. What it is
    taken for is said aloud.

    \b
      entitybench eval preds/ --gt coco_entity_val
      entitybench eval results.json --gt coco_entity_val --overlap resolve
      entitybench eval preds/ --gt coco_entity_val+ade20k_entity_val
      entitybench eval preds/ --gt coco_entity_val --bootstrap 1000 --explain --plots figures/
      entitybench eval preds/ --gt coco_entity_val --boundary

    Scores are points (AP × 100). Undefined is `–`. The line below the table is the signature:
    numbers with different signatures do not belong in one column.
    """
    from entitybench.metrics.benchmark import evaluate
    from entitybench.metrics.ground_truth import open_truths
    from entitybench.metrics.protocol import Protocol

    if shard is not None and subsets:
        msg = "--subset cuts a whole result, --shard makes a part"
        raise click.UsageError(msg)
    if quick and boundary:
        msg = "--boundary needs maps, --quick does without"
        raise click.UsageError(msg)
    wanted = _subsets(subsets)  # a broken file should not cost the wait
    total = sum(len(truth) for truth in open_truths(gt, data))
    with executor_on(cluster, jobs) as (executor, workers):
        done = evaluate(
            predictions,
            gt,
            data=data,
            protocol=Protocol.named(protocol, void),
            overlap=overlap,
            missing=missing,
            missing_score=missing_score,
            model=model,
            mapper=_mapper(len(_share(total, shard)), workers, executor, quiet=quiet),
            threads=jobs,
            shard=shard,
            tables=not quick,
            boundary=boundary,
            class_threshold=class_threshold,
        )
    for line in done.recognised:
        say(line, quiet=quiet)
    path = out or _default_path(done.result)
    rows = list(_rows(done, path, wanted, resamples, seed, shard))
    for row in rows:
        row.save()
    if shard is not None:
        _save_overlapping(done, rows[0].path.with_suffix(".overlapping.npz"))
    files = [row.path for row in rows] + _extras(done, plots, images_csv)
    explanation = Explanation(done.evaluation) if explain else None
    _tell(rows, explanation, as_json=as_json)
    for file in files:
        say(f"wrote {file}", quiet=quiet)
    return 0


@dataclass(frozen=True)
class Row:
    """A result, the records behind it, and where both go."""

    result: Result
    records: MatchRecords
    path: Path

    def save(self) -> None:
        """Write the result file, and the match records beside it."""
        from entitybench.result import write_result

        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.records.save(self.path.with_suffix(".matches.npz"))
        write_result(self.path, self.result)


def _subsets(paths: Sequence[Path]) -> list[Subset]:
    from entitybench.metrics.subset import read_subsets

    return [subset for path in paths for subset in read_subsets(path)]


def _rows(
    done: Benchmark,
    path: Path,
    subsets: Sequence[Subset],
    resamples: int,
    seed: int,
    shard: Shard | None,
) -> Iterator[Row]:
    """Yield the whole, by boundaries where asked for, then the subsets; with their intervals."""
    from entitybench.metrics.boundary import boundary_result
    from entitybench.metrics.subset import cut, subset_result

    records = done.evaluation.records
    whole = _with_intervals(done.result, records, resamples, seed, done.overlapping)
    yield Row(whole, records, _part_path(path, shard))
    if done.boundary is not None:
        result = boundary_result(done.result, done.boundary)
        result = _with_intervals(result, done.boundary, resamples, seed)
        yield Row(result, done.boundary, _part_path(_beside(path, "boundary"), shard))
    for subset in subsets:
        part = cut(records, subset)
        result = _with_intervals(subset_result(done.result, subset, part), part, resamples, seed)
        yield Row(result, part, _beside(path, subset.name))


def _beside(path: Path, name: str) -> Path:
    return path.with_name(f"{path.stem}.{name}.json")


def _with_intervals(
    result: Result,
    records: MatchRecords,
    resamples: int,
    seed: int,
    overlapping: MatchRecords | None = None,
) -> Result:
    if not (resamples and len(records)):
        return result
    import msgspec

    from entitybench.metrics.bootstrap import bootstrap, intervals_in_points

    found = bootstrap(records, resamples, seed, overlapping=overlapping)
    return msgspec.structs.replace(result, intervals=intervals_in_points(found))


def _extras(done: Benchmark, plots: Path | None, images_csv: Path | None) -> list[Path]:
    """Write the figures and the table of images that were asked for."""
    written = []
    if images_csv is not None:
        from entitybench.metrics.per_image import report_images, worst_first, write_images

        write_images(images_csv, worst_first(report_images(done.evaluation.records)))
        written.append(images_csv)
    if plots is not None:
        from entitybench.metrics.plots import save_plots

        title = f"{done.result.model.name} on {done.result.ground_truth.name}"
        save_plots(plots, done.evaluation, title)
        written.append(plots)
    return written


def _tell(rows: Sequence[Row], explanation: Explanation | None, *, as_json: bool) -> None:
    first = rows[0]
    by_boundary = [row for row in rows[1:] if row.result.metric.boundary]
    subsets = [row for row in rows[1:] if not row.result.metric.boundary]
    if as_json:
        more: dict[str, object] = {"boundary": _as_json(by_boundary[0])} if by_boundary else {}
        more |= {"subsets": [_as_json(row) for row in subsets]} if subsets else {}
        more |= {"explanation": explanation.as_json()} if explanation else {}
        emit(_as_json(first) | more)
        return
    click.echo(score_table([row.result for row in rows]))
    for row in rows:
        click.echo(row.result.signature.metric)
    click.echo(first.result.signature.prediction)
    if explanation:
        by_mask = [row.result for row in (first, *subsets)]
        further = [name for name in FURTHER if name in first.result.scores]
        click.echo(f"\n{score_table(by_mask, further)}\n\n{explanation}")


def _save_overlapping(done: Benchmark, path: Path) -> None:
    """Keep, beside a part, what its score before resolving came from: `merge` needs it."""
    if done.overlapping is None:
        path.unlink(missing_ok=True)
    else:
        done.overlapping.save(path)


def _share(total: int, shard: Shard | None) -> Sequence[int]:
    return range(total) if shard is None else shard.of(range(total))


def _part_path(path: Path, shard: Shard | None) -> Path:
    return path if shard is None else path.with_name(f"{shard.name(path.stem)}.json")


def _mapper(
    total: int, jobs: int, executor: Executor | None, *, quiet: bool
) -> Callable[[Callable[[ImageTask], ImageOutcome], Iterable[ImageTask]], Iterable[ImageOutcome]]:
    from entitybench.parallel import ordered_map

    def run(
        work: Callable[[ImageTask], ImageOutcome], tasks: Iterable[ImageTask]
    ) -> Iterable[ImageOutcome]:
        outcomes = ordered_map(
            work, tasks, jobs=jobs, executor=executor, describe=lambda task: f"image {task.key[1]}"
        )
        return progress(outcomes, total=total, unit="image", label="eval", quiet=quiet)

    return run


def _default_path(result: Result) -> Path:
    return (
        Path("results")
        / plain_name(result.model.name)
        / f"{plain_name(result.ground_truth.name)}.json"
    )


def plain_name(name: str) -> str:
    """Return a name that is safe as a file name on any system.

    >>> plain_name("../my model")
    '_my_model'
    """
    kept = "".join(c if c.isalnum() or c in "._+-" else "_" for c in name)
    return kept.lstrip(".") or "_"


def save(done: Benchmark, path: Path) -> None:
    """Write the result file, and the match records beside it."""
    Row(done.result, done.evaluation.records, path).save()


def _as_json(row: Row) -> dict[str, object]:
    import msgspec

    plain: dict[str, object] = msgspec.to_builtins(row.result)
    return plain | {"path": str(row.path)}
