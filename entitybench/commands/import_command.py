"""`entitybench import`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from entitybench.commands.console import (
    data_option,
    emit,
    jobs_option,
    json_option,
    missing_option,
    missing_score_option,
    overwrite_option,
    progress,
    quiet_option,
    say,
    table,
)
from entitybench.commands.eval_command import plain_name
from entitybench.commands.scaling import cluster_option, executor_on, shard_option

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from entitybench.entity_set import EntitySet, Model
    from entitybench.formats.flattening import Flattening
    from entitybench.formats.importing import ImportChoices, ImportSummary, Outcome
    from entitybench.sharding import Shard

FORMATS = (
    "auto",
    "entity-set",
    "coco-results",
    "coco-panoptic",
    "mask-stacks",
    "detectron2-panoptic",
    "detectron2-instances",
    "transformers",
    "query-outputs",
    "sam",
    "paper-npz",
)
BOTH = ("per-class", "agnostic")


@click.command("import")
@click.argument("predictions", metavar="PATH", type=click.Path(path_type=Path))
@click.option(
    "--as", "form", type=click.Choice(FORMATS), default="auto", show_default=True, help="Format."
)
@click.option("--gt", required=True, help="Ground truth whose images are predicted: name or path.")
@click.option("--model", required=True, help="The model's name, as the leaderboard shows it.")
@click.option("--trained-on", multiple=True, help="A set it was trained on; may be repeated.")
@click.option("--url", help="Where to read about the model.")
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    help="The set to write, a folder or a zip.  [default: preds/<model>/<gt>]",
)
@missing_option
@missing_score_option
@click.option(
    "--overlap",
    type=click.Choice(["reject", "resolve"]),
    help="What to do with masks that share pixels.  [default: reject, with --flatten resolve]",
)
@click.option(
    "--flatten",
    type=click.Choice(["score-on-top", "small-on-top", "large-on-top"]),
    help="Who wins a shared pixel.  [default: score-on-top]",
)
@click.option(
    "--thresholded",
    type=click.FloatRange(0, 1),
    help="The score below which the tool had dropped predictions; labels the row.",
)
@click.option(
    "--duplicates",
    type=click.Choice(["keep", "per-class", "agnostic", "both"]),
    default="keep",
    show_default=True,
    help="Remove masks that say one entity twice; `both` writes a set for either rule.",
)
@click.option(
    "--duplicate-iou",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.6,
    show_default=True,
    help="Mask IoU above which the lower score is a duplicate.",
)
@click.option(
    "--query-score",
    type=click.Choice(["class", "class-mask"]),
    default="class",
    show_default=True,
    help="Score of a raw query: class probability, or that times the mean mask probability.",
)
@click.option(
    "--num-classes", type=click.IntRange(1), help="Classes of raw queries, without `no object`."
)
@click.option(
    "--min-score",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="Drop raw queries below this score; labels the row.",
)
@click.option(
    "--sam-score",
    type=click.Choice(["predicted-iou", "stability-score"]),
    default="predicted-iou",
    show_default=True,
    help="Which of SAM's numbers is the score.",
)
@data_option
@jobs_option
@shard_option
@cluster_option
@overwrite_option
@json_option
@quiet_option
def command(
    predictions: Path, gt: str, data: Path, jobs: int, cluster: str | None, **options: Any
) -> int:
    r"""Turn anybody's predictions into an entity set of predictions.

    PATH is what a tool wrote: COCO results or panoptic JSON, mask stacks, detectron2's
    panoptic_seg or instances_predictions.pth, transformers' post-processed results, raw query
    outputs, SAM's JSON, or the paper's npz. docs/your-model.md shows how to save each. What it
    is taken for is said aloud. Nothing in a file is ever run.

    \b
      entitybench import results.json --gt coco_entity_val --model mine
      entitybench import sam/ --gt coco_entity_val --model sam-h --flatten small-on-top
      entitybench import raw/ --gt coco_entity_val --model m2f --duplicates both --overlap resolve

    Interrupted, the same command resumes; finished, it changes nothing.
    """
    from entitybench.registry import open_entity_set

    request = _Request(**options)
    truth = open_entity_set(gt, data)
    out = request.out or Path("preds") / plain_name(request.model) / truth.header.name
    with executor_on(cluster, jobs) as (executor, workers):
        done = [
            _run(predictions, truth, job, request, workers, executor) for job in _jobs(request, out)
        ]
    if request.as_json:
        emit({"sets": [_as_json(summary) for summary in done]})
    else:
        click.echo(_table(done))
    for summary in done:
        _remarks(summary, gt, request)
    return 0


@dataclass(frozen=True, slots=True)
class _Request:
    """The options, by their names."""

    form: str
    model: str
    trained_on: tuple[str, ...]
    url: str | None
    out: Path | None
    missing: str
    missing_score: str
    overlap: str | None
    flatten: str | None
    thresholded: float | None
    duplicates: str
    duplicate_iou: float
    query_score: str
    num_classes: int | None
    min_score: float
    sam_score: str
    shard: Shard | None
    overwrite: bool
    as_json: bool
    quiet: bool


@dataclass(frozen=True, slots=True)
class _Job:
    """One set to write."""

    out: Path
    model: Model
    choices: ImportChoices


def _jobs(request: _Request, out: Path) -> Iterator[_Job]:
    """Yield the sets to write: one, or one for each rule about duplicates."""
    from entitybench.entity_set import Model
    from entitybench.formats.duplicates import DuplicateRule, Duplicates

    model = Model(request.model, request.trained_on, request.url, thresholded=request.thresholded)
    choices = _choices(request)
    if request.duplicates != "both":
        yield _Job(out, model, choices)
        return
    for rule in BOTH:
        duplicates = Duplicates(DuplicateRule(rule), request.duplicate_iou)
        own = out.with_name(f"{out.stem}-{rule}{out.suffix}")
        if request.out is None:  # preds/<model>/<gt>: the model's name tells them apart
            own = out.parent.with_name(f"{out.parent.name}-{rule}") / out.name
        named = Model(
            f"{model.name}-{rule}", model.trained_on, model.url, "model", model.thresholded
        )
        read = replace(choices.read, duplicates=duplicates)
        yield _Job(own, named, replace(choices, read=read))


def _choices(request: _Request) -> ImportChoices:
    from entitybench.formats.detection import Format, ReadOptions
    from entitybench.formats.duplicates import DuplicateRule, Duplicates
    from entitybench.formats.importing import ImportChoices
    from entitybench.formats.missing_score import MissingScore
    from entitybench.formats.query_outputs import QueryRules, QueryScore
    from entitybench.formats.sam import SamScore

    rule = DuplicateRule.KEEP if request.duplicates == "both" else DuplicateRule(request.duplicates)
    read = ReadOptions(
        MissingScore(request.missing_score),
        Duplicates(rule, request.duplicate_iou),
        QueryRules(QueryScore(request.query_score), request.num_classes, request.min_score),
        SamScore(request.sam_score),
    )
    return ImportChoices(
        None if request.form == "auto" else Format(request.form),
        read,
        _flattening(request),
        request.missing == "empty",
    )


def _flattening(request: _Request) -> Flattening | None:
    from entitybench.formats.flattening import Flattening

    if request.flatten is not None and request.overlap == "reject":
        msg = "--flatten says how overlap is resolved, --overlap reject allows none"
        raise click.UsageError(msg)
    if request.flatten is None and request.overlap != "resolve":
        return None
    return Flattening(request.flatten or "score-on-top")


def _run(
    predictions: Path,
    truth: EntitySet,
    job: _Job,
    request: _Request,
    jobs: int,
    executor: Executor | None,
) -> ImportSummary:
    from entitybench.formats.importing import import_predictions

    def bar(outcomes: Iterable[Outcome], total: int) -> Iterable[Outcome]:
        return progress(outcomes, total=total, unit="image", label="import", quiet=request.quiet)

    return import_predictions(
        predictions,
        truth,
        job.out,
        job.model,
        job.choices,
        overwrite=request.overwrite,
        jobs=jobs,
        executor=executor,
        shard=request.shard,
        progress=bar,
    )


def _table(done: list[ImportSummary]) -> str:
    head = ["model", "set", "images", "entities", "resolved", "scores", ""]
    rows = [
        [
            summary.model.name,
            str(summary.path),
            f"{summary.images:,}",
            f"{summary.entities:,}",
            f"{summary.model.resolved_images:,}",
            summary.model.score_rule,
            "already there" if summary.already_there else "written",
        ]
        for summary in done
    ]
    return table([head, *rows], left=2)


def _remarks(summary: ImportSummary, gt: str, request: _Request) -> None:
    quiet = request.quiet
    say(summary.recognised, quiet=quiet)
    for warning in summary.warnings:
        say(f"warning: {warning}", quiet=quiet)
    if summary.emptied:
        say(
            f"{summary.emptied:,} masks lost all their pixels to others, and are left out",
            quiet=quiet,
        )
    after = f"eval {summary.path} --gt {gt}"
    if request.shard is not None:
        after = f"merge {str(summary.path).replace(f'-{request.shard.index}-of-', '-*-of-')}"
    say(f"next: entitybench {after}", quiet=quiet)


def _as_json(summary: ImportSummary) -> dict[str, object]:
    import msgspec

    model = msgspec.to_builtins(summary.model)
    return {
        "path": summary.path,
        "model": model,
        "recognised": summary.recognised,
        "images": summary.images,
        "entities": summary.entities,
        "emptied": summary.emptied,
        "already_there": summary.already_there,
        "warnings": list(summary.warnings),
    }
