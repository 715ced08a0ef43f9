"""`entitybench train`."""

from __future__ import annotations

import os
import sys
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
    quiet_option,
    say,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from entitybench.baselines.training import Progress, Run
    from entitybench.entity_set import EntitySet


@click.command("train")
@click.option("--model", default="entity", show_default=True, help="The model's family.")
@click.option(
    "--config", default="tiny", show_default=True, help="A named configuration, or a TOML file."
)
@click.option(
    "--classes",
    type=click.Choice(["agnostic", "specific"]),
    help="Whether the model tells classes apart.  [default: the configuration's]",
)
@click.option(
    "--set", "changes", multiple=True, metavar="KEY=VALUE", help="Change one key; may be repeated."
)
@click.option("--on", required=True, help="What to train on: a set's name or path, or `a+b`.")
@click.option(
    "--validate", help="A set to score while training.  [default: the split `val` of the first]"
)
@click.option(
    "--images",
    multiple=True,
    help="Where the photographs of each set are, in order, if the sets do not know.",
)
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="The run's folder.",
)
@click.option("--steps", type=click.IntRange(0), help="Steps, instead of the configuration's.")
@click.option("--epochs", type=click.FloatRange(0), help="Epochs, instead of steps.")
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Of weights and of the order of images.",
)
@device_option
@data_option
@jobs_option
@overwrite_option
@json_option
@quiet_option
def command(
    model: str,
    config: str,
    classes: str | None,
    changes: tuple[str, ...],
    on: str,
    validate: str | None,
    images: tuple[str, ...],
    out: Path,
    steps: int | None,
    epochs: float | None,
    seed: int,
    device: str,
    data: Path,
    jobs: int,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    r"""Train a baseline on one or several entity sets.

    Interrupted, the same command goes on where the last checkpoint was. The folder gets the
    model, a log of the losses as CSV, and their curves. With several processes, start it as
    `torchrun --nproc-per-node 8 -m entitybench train …`; the losses are those of one.

    \b
      entitybench train --config tiny --on coco_entity_train --out runs/tiny
      entitybench train --config entity_r50_1x --on coco_entity_train+ade20k_entity_train \
        --set data.budget=138497 --set backbone.weights=R-50.pkl --out runs/merged
    """
    from entitybench.baselines.configuration import load_config
    from entitybench.baselines.registry import family
    from entitybench.baselines.training import Run, train
    from entitybench.registry import open_union

    if steps is not None and epochs is not None:
        msg = "--steps and --epochs exclude each other"
        raise click.UsageError(msg)
    kind, sets = family(model), open_union(on, data)
    if classes is not None:
        changes = (*changes, f"{kind.classes_key}={str(classes == 'specific').lower()}")
    settings = load_config(kind.config, kind.package, config, changes)
    if epochs is not None:
        images_of_epoch = settings.data.budget or sum(map(len, sets))
        steps = round(epochs * images_of_epoch / settings.schedule.batch)
    run = Run(
        kind,
        settings if steps is None else _with_steps(settings, steps),
        sets,
        out,
        seed=seed,
        locations=images,
        validation=_validation(sets, validate, data),
        threads=jobs,
        device="cpu" if device == "cpu" else "",
        overwrite=overwrite,
    )
    quiet = quiet or os.environ.get("RANK", "0") != "0"
    with _Bar(run, quiet=quiet) as bar:
        path = train(run, bar.report)
    if as_json and os.environ.get("RANK", "0") == "0":
        emit({"model": str(path), **bar.last})
    say(f"{path}; next: entitybench predict --model {out} --on … --out preds/…", quiet=quiet)
    return 0


def _with_steps(settings: Any, steps: int) -> Any:
    from dataclasses import replace

    return replace(settings, schedule=replace(settings.schedule, steps=steps))


def _validation(sets: list[EntitySet], name: str | None, data: Path) -> EntitySet | None:
    """Open the set to validate on: the given one, or the first set's own `val` if it is there."""
    from entitybench.registry import known_sets, open_entity_set

    if name is not None:
        return open_entity_set(name, data)
    own = sets[0].header.name.replace("_train", "_val")
    if own == sets[0].header.name or own not in known_sets(data):
        return None
    found = open_entity_set(own, data)
    return found if found.photographs is not None else None


class _Bar:
    """The progress bar: steps, loss, images per second, and lines for validations."""

    def __init__(self, run: Run, *, quiet: bool) -> None:
        self._quiet = quiet
        self._steps = run.schedule.steps
        self._bar: Any = None
        self.last: dict[str, object] = {}

    def __enter__(self) -> _Bar:
        from tqdm import tqdm

        silent = self._quiet or bool(os.environ.get("ENTITYBENCH_NO_PROGRESS"))
        self._bar = tqdm(
            total=self._steps, unit="step", desc="train", file=sys.stderr, disable=silent or None
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    @property
    def report(self) -> Callable[[Progress], None]:
        """What `train` calls."""
        return self._report

    def _report(self, progress: Progress) -> None:
        if progress.validation is not None:
            score = 100 * progress.validation["AP"]
            self.last["validation_AP"] = score
            say(
                f"step {progress.step}: AP_e {score:.1f} on the validation images",
                quiet=self._quiet,
            )
            return
        self.last |= {"step": progress.step, "loss": progress.loss}
        self._bar.update(progress.step - self._bar.n)
        speed = f"{progress.images_per_second:.1f}"
        self._bar.set_postfix({"loss": f"{progress.loss:.3f}", "img/s": speed}, refresh=False)
