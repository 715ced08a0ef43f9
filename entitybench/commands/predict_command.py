"""`entitybench predict`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from entitybench.commands.console import (
    data_option,
    device_option,
    emit,
    jobs_option,
    json_option,
    overwrite_option,
    progress,
    quiet_option,
    say,
)

if TYPE_CHECKING:
    from entitybench.baselines.checkpoint import Card
    from entitybench.baselines.prediction import Predictor
    from entitybench.entity_set import EntitySet, Model


@click.command("predict")
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    required=True,
    help="A run's folder, a checkpoint, tiny-worlds (which comes with entitybench), or "
    "felzenszwalb, slic or watershed.",
)
@click.option("--on", help="Whose images: a set's name or path, or `a+b`.")
@click.option("--images", help="A folder of photographs; or with --on, where those of the set are.")
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Folder for the predictions: one entity set per set.",
)
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change one key of `inference` or `data`; may be repeated.",
)
@click.option("--name", help="The model's name in results.  [default: the run folder's]")
@click.option(
    "--batch", type=click.IntRange(1), default=1, show_default=True, help="Images at once."
)
@click.option("--panels/--no-panels", default=True, show_default=True, help="Draw photographs.")
@click.option(
    "--mechanism",
    is_flag=True,
    help="With --on, also measure the masks before overlap is resolved: AP, pixels that two claim, "
    "area that is lost. Runs the model once more.",
)
@device_option
@data_option
@jobs_option
@overwrite_option
@json_option
@quiet_option
def command(
    model: Path,
    on: str | None,
    images: str | None,
    out: Path,
    changes: tuple[str, ...],
    name: str | None,
    batch: int,
    panels: bool,
    mechanism: bool,
    device: str,
    data: Path,
    jobs: int,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    r"""Run a trained model on entity sets or on plain photographs.

    With --on, writes one set of predictions per set into OUT, ready for `eval`. With --images
    alone, takes every photograph of a folder and draws its entities into OUT/panels. Interrupted,
    the same command goes on. felzenszwalb, slic and watershed need no training and no GPU.

    \b
      entitybench predict --model runs/tiny --on coco_entity_val --out preds/tiny
      entitybench predict --model runs/tiny --images photos/ --out out/
      entitybench predict --model felzenszwalb --on coco_entity_val --out preds/floor
    """
    from entitybench.registry import open_union

    if on is None and images is None:
        msg = "--on names an entity set, --images a folder of photographs: one is needed"
        raise click.UsageError(msg)
    if mechanism and on is None:
        msg = "--mechanism compares with the truth: it needs --on"
        raise click.UsageError(msg)
    if _is_classical(model):
        if on is None or changes or mechanism:
            msg = f"--model {model} needs --on, has nothing to --set, and no overlap"
            raise click.UsageError(msg)
        settings: dict[str, Any] = {
            "name": name, "images": images, "jobs": jobs, "overwrite": overwrite
        }  # fmt: skip
        return _say(_classical(model, open_union(on, data), out, settings, quiet), as_json, quiet)
    predictor, card, options = _load(model, changes, device)
    if not predictor.model.finds_masks:
        return _detections(predictor, on, data, out, as_json=as_json, quiet=quiet)
    described = _described(name or _name(model), card)
    shared: dict[str, Any] = {
        "options": options, "batch": batch, "threads": jobs, "overwrite": overwrite
    }  # fmt: skip
    if on is None:
        done = [_photographs(predictor, Path(str(images)), out, described, shared, quiet=quiet)]
        if panels:
            _draw(done[0], out / "panels", quiet=quiet)
    else:
        done = [
            _entity_set(predictor, truth, out, described, {**shared, "images": images}, quiet=quiet)
            for truth in open_union(on, data)
        ]
    if mechanism:
        for truth in open_union(str(on), data):
            _mechanism(predictor, truth, out, images, quiet=quiet)
    return _say(done, as_json, quiet)


def _detections(
    predictor: Predictor, on: str | None, data: Path, out: Path, *, as_json: bool, quiet: bool
) -> int:
    """Write a detector's boxes as COCO results, and their AP^b: it has no masks to paint."""
    from entitybench.baselines.validation import write_boxes
    from entitybench.registry import open_union

    if on is None:
        msg = "this model finds boxes and no masks: it needs --on, and draws no panels"
        raise click.UsageError(msg)
    scored = []
    for truth in open_union(on, data):
        path = out / f"{truth.header.name}.boxes.json"
        found = write_boxes(predictor, truth, path)
        scored.append({"path": str(path), "APb": 100 * found.scores.AP})
        say(f"{path}: AP^b {100 * found.scores.AP:.1f} ({truth.header.name}, strict)", quiet=quiet)
    if as_json:
        emit({"detections": scored})
    return 0


def _say(done: list[EntitySet], as_json: bool, quiet: bool) -> int:
    for made in done:
        say(f"{made.path}: {len(made)} images, {made.header.num_entities} entities", quiet=quiet)
    if as_json:
        emit({"sets": [{"path": str(s.path), "images": len(s)} for s in done]})
    return 0


def _is_classical(model: Path) -> bool:
    from entitybench.baselines.classical import CLASSICAL

    return str(model) in CLASSICAL and not model.exists()


def _classical(
    model: Path, truths: list[EntitySet], out: Path, settings: dict[str, Any], quiet: bool
) -> list[EntitySet]:
    from entitybench.baselines.classical import predict_classical

    def bar(images: Iterable[Any], total: int) -> Iterable[Any]:
        return progress(images, total=total, unit="image", label=str(model), quiet=quiet)

    return [
        predict_classical(str(model), truth, out / truth.header.name, progress=bar, **settings)
        for truth in truths
    ]


def _load(
    path: Path, changes: tuple[str, ...], device: str
) -> tuple[Predictor, Card, dict[str, Any]]:
    import torch

    from entitybench.baselines.checkpoint import find_checkpoint, load_model
    from entitybench.baselines.configuration import parse_changes
    from entitybench.baselines.prediction import Predictor
    from entitybench.errors import FormatError

    table = parse_changes(changes)
    strange = sorted(set(table) - {"inference", "data", "schedule"})
    if strange:
        msg = f"`{strange[0]}` cannot change after training"
        raise FormatError(msg, hint="`inference`, `data` and `schedule.precision` can")
    model, card = load_model(find_checkpoint(path), table)
    config = model.config
    model.run_with(config.schedule)
    best = "cuda" if torch.cuda.is_available() and device == "best" else "cpu"
    model.to(best).eval()
    options = {"step": card.step, "seed": card.seed, **{c.partition("=")[0]: c for c in changes}}
    return Predictor.of(model, config, card.classes), card, options


def _name(path: Path) -> str:
    return path.resolve().parent.name if path.is_file() else path.resolve().name


def _described(name: str, card: Card) -> Model:
    from entitybench.entity_set import Model

    return Model(name, trained_on=card.trained_on)


def _entity_set(
    predictor: Predictor,
    truth: EntitySet,
    out: Path,
    described: Model,
    shared: dict[str, Any],
    *,
    quiet: bool,
) -> EntitySet:
    from entitybench.baselines.prediction import predict_set

    with _bar(len(truth), truth.header.name, quiet=quiet) as bar:
        path = out / truth.header.name
        return predict_set(predictor, truth, path, described, progress=bar.update, **shared)


def _mechanism(
    predictor: Predictor, truth: EntitySet, out: Path, images: str | None, *, quiet: bool
) -> None:
    """Measure the masks before resolution and keep it beside the predictions."""
    from entitybench.baselines.mechanism import measure_mechanism, mechanism_stem

    name = truth.header.name
    with _bar(len(truth), f"{name}, overlap", quiet=quiet) as bar:
        found = measure_mechanism(predictor, truth, photographs=images, progress=bar.update)
    found.save(mechanism_stem(out, name))
    told = ", ".join(f"{key} {100 * value:.1f}" for key, value in found.numbers().items())
    say(f"{name}: {told}", quiet=quiet)


def _photographs(
    predictor: Predictor,
    folder: Path,
    out: Path,
    described: Model,
    shared: dict[str, Any],
    *,
    quiet: bool,
) -> EntitySet:
    from entitybench.baselines.prediction import list_photographs, predict_folder

    with _bar(len(list_photographs(folder)), folder.name, quiet=quiet) as bar:
        path = out / "entities"
        return predict_folder(predictor, folder, path, described, progress=bar.update, **shared)


def _bar(total: int, label: str, *, quiet: bool) -> Any:
    from tqdm import tqdm

    silent = quiet or bool(os.environ.get("ENTITYBENCH_NO_PROGRESS"))
    return tqdm(total=total, unit="image", desc=label, file=sys.stderr, disable=silent or None)


def _draw(made: EntitySet, folder: Path, *, quiet: bool) -> None:
    """Draw each photograph beside its entities."""
    from entitybench.photographs import read_photograph
    from entitybench.reports.pictures import contact_sheet, overlay

    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    for image in _each(made):
        photograph = read_photograph(str(made.photographs), image.row.file_name)
        number = image.map.num_entities
        caption = f"{number} entit{'y' if number == 1 else 'ies'}"
        panels = [("photograph", photograph), (caption, overlay(image.map, photograph))]
        contact_sheet(panels, title=image.row.file_name).save(folder / f"{image.id}.png")
        count += 1
    say(f"drew {count} panels in {folder}", quiet=quiet)


def _each(made: EntitySet) -> Iterator[Any]:
    images: Iterable[Any] = made
    yield from images
