"""`entitybench eval`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
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
    table,
)
from entitybench.commands.scaling import cluster_option, executor_on, shard_option

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from entitybench.metrics.benchmark import Benchmark, ImageOutcome, ImageTask
    from entitybench.result import Result
    from entitybench.sharding import Shard

COLUMNS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100")


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

    Scores are points (AP × 100). Undefined is `–`. The line below the table is the signature:
    numbers with different signatures do not belong in one column.
    """
    from entitybench.metrics.benchmark import evaluate
    from entitybench.metrics.ground_truth import open_truths
    from entitybench.metrics.protocol import Protocol

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
            shard=shard,
        )
    for line in done.recognised:
        say(line, quiet=quiet)
    path = _part_path(out or _default_path(done.result), shard)
    save(done, path)
    if as_json:
        emit(_as_json(done.result, path))
    else:
        click.echo(score_table([done.result]))
        click.echo(f"{done.result.signature.metric}\n{done.result.signature.prediction}")
    say(f"wrote {path}", quiet=quiet)
    return 0


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


def score_table(results: list[Result]) -> str:
    """Lay out scores in points, a row per result; undefined is `–`."""
    rows = [["", *COLUMNS]]
    for result in results:
        values = (result.scores.get(name) for name in COLUMNS)
        rows.append(
            [result.model.name, *("–" if value is None else f"{value:.1f}" for value in values)]
        )
    return table(rows)


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
    from entitybench.result import write_result

    path.parent.mkdir(parents=True, exist_ok=True)
    done.evaluation.records.save(path.with_suffix(".matches.npz"))
    write_result(path, done.result)


def _as_json(result: Result, path: Path) -> dict[str, object]:
    import msgspec

    plain: dict[str, object] = msgspec.to_builtins(result)
    return plain | {"path": str(path)}
