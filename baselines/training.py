"""Training: seeded, resumable, watched.

Everything random is a function of the seed and the step, so that a killed run goes on with the
losses that it would have had, and several processes compute the losses of one.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from entitybench.baselines import checkpoint
from entitybench.baselines.augmentation import to_device
from entitybench.baselines.batch import Batch
from entitybench.baselines.checkpoint import CHECKPOINT, FINAL, Card
from entitybench.baselines.distributed import global_sum, num_processes
from entitybench.baselines.loader import Loader
from entitybench.baselines.model import BaselineModel, Classes
from entitybench.baselines.optimiser import make_optimiser, rate_at, set_rate
from entitybench.baselines.prediction import Predictor
from entitybench.baselines.registry import Family
from entitybench.baselines.run_log import RunLog, draw_curves
from entitybench.baselines.settings import Schedule
from entitybench.baselines.source import Collection, classes_of
from entitybench.baselines.validation import validate
from entitybench.entity_set import EntitySet
from entitybench.errors import ConflictError, EntityBenchError, FormatError


class NonFiniteLossError(EntityBenchError):
    """The loss became NaN or infinite; the batch that did it was saved."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What a run tells after each look at the losses.

    Attributes:
        step: Steps that were taken.
        loss: Mean over the steps since the last look.
        images_per_second: Over the same steps, all processes together.
        validation: Scores, where the run has just been validated.
    """

    step: int
    loss: float
    images_per_second: float
    validation: dict[str, float] | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """What is trained, on what, and where it is kept.

    Attributes:
        family: The model's family.
        config: Its configuration.
        sets: Ground truth to train on.
        out: The run's folder.
        seed: Any non-negative integer.
        locations: Where the photographs of each set are; None asks the set.
        validation: Ground truth to validate on, or None.
        threads: Readers of each process.
        device: `cpu`, or nothing for the best there is.
        overwrite: Replace a run of other choices.
    """

    family: Family
    config: Any
    sets: Sequence[EntitySet]
    out: Path
    seed: int = 0
    locations: Sequence[str | None] = ()
    validation: EntitySet | None = None
    threads: int = 1
    device: str = ""
    overwrite: bool = False

    @property
    def schedule(self) -> Schedule:
        """Of the configuration."""
        schedule: Schedule = self.config.schedule
        return schedule


def train(run: Run, report: Callable[[Progress], None] | None = None) -> Path:
    """Train a model, or go on with a run that was interrupted.

    Args:
        run: What, on what, and where. The folder gets `checkpoint.safetensors` (weights and
            state of training), at the end `model.safetensors` (weights alone), `log.csv`,
            `validation.csv` and `curves.png`.
        report: Is called after each look at the losses.

    Returns:
        The finished model's file.

    Raises:
        ConflictError: The folder holds a run of other choices.
        NonFiniteLossError: The loss became NaN or infinite.
    """
    library = import_module("accelerate")
    accelerator = library.Accelerator(cpu=run.device == "cpu", mixed_precision="no")
    trainer = Trainer(run, accelerator, report)
    if trainer.finished:
        return run.out / FINAL
    trainer.go()
    return run.out / FINAL


class Trainer:
    """One run in one process.

    Args:
        run: What, on what, and where.
        accelerator: An `accelerate.Accelerator`: devices and processes.
        report: Is called after each look at the losses.
    """

    def __init__(
        self,
        run: Run,
        accelerator: Any,
        report: Callable[[Progress], None] | None = None,
    ) -> None:
        self._run = run
        self._accelerator = accelerator
        self._report = report
        if run.schedule.batch % num_processes():
            msg = f"a batch of {run.schedule.batch} does not divide by {num_processes()} processes"
            raise FormatError(msg)
        specific = run.family.class_specific(run.config)
        classes = classes_of(run.sets) if specific else Classes()
        self._card = Card(
            run.family.name,
            checkpoint.card_config(run.config),
            tuple(s.header.name for s in run.sets),
            tuple(s.header.content_hash for s in run.sets),
            classes,
            run.seed,
            0,
        )
        self._card = replace(self._card, step=self._found_step())
        self.finished = (run.out / FINAL).exists()
        if not self.finished:
            self._set_up(classes)

    def _found_step(self) -> int:
        """Return the step of the checkpoint that is there, after checking that it is ours."""
        if self._run.overwrite and self._accelerator.is_main_process:
            for name in (FINAL, CHECKPOINT, "log.csv", "validation.csv"):
                (self._run.out / name).unlink(missing_ok=True)
        self._accelerator.wait_for_everyone()
        found = [path for name in (FINAL, CHECKPOINT) if (path := self._run.out / name).exists()]
        if not found:
            return 0
        there = checkpoint.read_card(found[0])
        mine, theirs = (_flat(replace(card, step=0)) for card in (self._card, there))
        different = [
            f"{key}: there {theirs.get(key)!r}, now {mine.get(key)!r}"
            for key in sorted({*mine, *theirs})
            if mine.get(key) != theirs.get(key)
        ]
        if different:
            msg = f"`{self._run.out}` holds a run of other choices"
            raise ConflictError(msg, where=different, hint="`--overwrite` replaces it")
        return there.step

    def _set_up(self, classes: Classes) -> None:
        run, schedule = self._run, self._run.schedule
        torch.manual_seed(run.seed)  # the same first weights in every process
        self.model: BaselineModel = run.family.build(run.config, classes)
        load_pretrained(self.model, run.config)
        self.model.run_with(schedule)
        self.model.to(self._accelerator.device)
        if torch.cuda.is_available():
            torch.backends.cuda.matmul.allow_tf32 = True
            torch.backends.cudnn.allow_tf32 = True
        self._optimiser = make_optimiser(self.model, schedule)
        collection = Collection(
            run.sets,
            run.locations,
            subset=run.config.data.subset,
            class_names=classes.names,
            most_entities=run.config.data.most_entities,
        )
        check_capacity(self.model, collection)
        self.loader = Loader(
            collection,
            run.config.data,
            batch=schedule.batch,
            seed=run.seed,
            divisor=self.model.divisor,
            process=(self._accelerator.process_index, num_processes()),
            threads=run.threads,
        )
        if self._card.step:
            checkpoint.load_weights(run.out / CHECKPOINT, self.model)
            checkpoint.load_optimiser(run.out / CHECKPOINT, self._optimiser)
        self._wrapped: Any = self._accelerator.prepare_model(self.model)
        run.out.mkdir(parents=True, exist_ok=True)
        if self._accelerator.is_main_process:
            self._log = RunLog(run.out, self._card.step)

    # --- the loop ----------------------------------------------------------------

    def go(self) -> None:
        """Train to the end."""
        schedule, first = self._run.schedule, self._card.step
        self.model.train()
        window = _Window(first)
        steps = self.loader.steps(first, schedule.steps)
        for step, host in enumerate(steps, start=first):
            window.add(self._step(step, to_device(host, self._accelerator.device)))
            done = step + 1
            last = done == schedule.steps
            saves = _due(done, schedule.save_every, last=last)
            if saves or done % schedule.log_every == 0:  # what is not finite is never saved
                self._look(window, done)
                window = _Window(done)
            if saves:
                self._save(done)
            if self._run.validation and _due(done, schedule.validate_every, last=last):
                self._validate(self._run.validation, done)
        self._finish()

    def _step(self, step: int, batch: Batch) -> dict[str, Tensor]:
        """Take one step and return its terms, on the device; nothing here waits for it."""
        schedule = self._run.schedule
        # for what draws from torch's own generator, like stochastic depth
        process = self._accelerator.process_index
        torch.manual_seed(((self._run.seed * 1_000_003 + step) * 4099 + process) % (1 << 63))
        set_rate(self._optimiser, rate_at(schedule, step))
        terms: dict[str, Tensor] = self._wrapped(batch)
        self._accelerator.backward(torch.stack(list(terms.values())).sum())
        if schedule.clip:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), schedule.clip)
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)
        return {name: term.detach() for name, term in terms.items()}

    def _look(self, window: _Window, done: int) -> None:
        """Log the losses since the last look; here the device is waited for."""
        losses = global_sum(window.losses()) / num_processes()  # (steps, terms)
        table = losses.double().cpu()
        for row in range(len(table)):
            if not torch.isfinite(table[row]).all():
                self._stop(window.first + row, dict(zip(window.names, table[row], strict=True)))
        mean = table.mean(0).tolist()
        seconds = time.monotonic() - window.began
        rate = self._run.schedule.batch * len(table) / seconds
        if self._accelerator.is_main_process:
            values = {
                "step": done,
                "epoch": done / self.loader.epochs.steps_per_epoch,
                "loss": sum(mean),
                **{f"loss_{n}": v for n, v in zip(window.names, mean, strict=True)},
                "rate": rate_at(self._run.schedule, done - 1),
                "images_per_second": rate,
            }
            if torch.cuda.is_available():
                values["gpu_memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
            self._log.training(values)
            if self._report is not None:
                self._report(Progress(done, sum(mean), rate))

    def _stop(self, step: int, terms: dict[str, Tensor]) -> None:
        """Save the batch of a step, made anew, and give up.

        Raises:
            NonFiniteLossError: Always.
        """
        path = self._run.out / f"nonfinite-step-{step}.safetensors"
        host = self.loader.step(step)
        names = self.loader.image_ids(step)
        tensors = {"pixels": host.pixels, "ids": host.ids, "sizes": host.sizes}
        values = {name: float(value) for name, value in terms.items()}
        if self._accelerator.is_main_process:
            metadata = {"images": json.dumps(names), "losses": json.dumps(values)}
            save_file(tensors, path, metadata=metadata)
        msg = f"the loss of step {step} is not finite: {values}"
        raise NonFiniteLossError(
            msg,
            where=[f"images {', '.join(names)}", f"their batch: {path}"],
            hint="lower `schedule.rate` or set `schedule.clip`; the checkpoint before is kept",
        )

    def _save(self, done: int) -> None:
        if self._accelerator.is_main_process:
            card = replace(self._card, step=done)
            checkpoint.save(self._run.out / CHECKPOINT, self.model, card, self._optimiser)
            draw_curves(self._run.out)

    def _validate(self, truth: EntitySet, done: int) -> None:
        if self._accelerator.is_main_process:
            predictor = Predictor.of(self.model, self._run.config)
            scores = validate(predictor, truth, self._run.schedule.validate_images)
            self._log.validation({"step": done, **scores})
            if self._report is not None:
                self._report(Progress(done, float("nan"), float("nan"), scores))
        self._accelerator.wait_for_everyone()

    def _finish(self) -> None:
        if self._accelerator.is_main_process:
            card = replace(self._card, step=self._run.schedule.steps)
            checkpoint.save(self._run.out / FINAL, self.model, card)
            draw_curves(self._run.out)
        self._accelerator.wait_for_everyone()


class _Window:
    """Terms of the steps since the last look, kept on the device."""

    def __init__(self, first: int) -> None:
        self.first = first
        self.began = time.monotonic()
        self.names: list[str] = []
        self._rows: list[Tensor] = []

    def add(self, terms: dict[str, Tensor]) -> None:
        self.names = list(terms)
        self._rows.append(torch.stack(list(terms.values())))

    def losses(self) -> Tensor:
        return torch.stack(self._rows)


def check_capacity(model: BaselineModel, collection: Collection) -> None:
    """Refuse to train a model on images with more entities than it can find.

    Raises:
        FormatError: An image has more; tells the worst.
    """
    worst = max(collection.images, key=lambda image: image.num_entities)
    if model.capacity is not None and worst.num_entities > model.capacity:
        name = collection.sets[worst.set_number].header.name
        over = sum(image.num_entities > model.capacity for image in collection.images)
        msg = f"{over} images have more entities than the model's {model.capacity} queries"
        where = f"{name}: image {worst.image_id} has {worst.num_entities}"
        hint = "raise `queries`, or leave such images out with `data.most_entities`"
        raise FormatError(msg, where=where, hint=hint)


def load_pretrained(model: BaselineModel, config: Any) -> None:
    """Load published weights: a whole model's (`weights`), a backbone's (`backbone.weights`)."""
    if getattr(config, "weights", ""):
        model.load_published(Path(config.weights).expanduser())
    settings = getattr(config, "backbone", None)
    if settings is not None and settings.weights:
        from entitybench.baselines.weights import load_backbone

        load_backbone(Path(settings.weights).expanduser(), model, settings)


def _due(done: int, every: int, *, last: bool) -> bool:
    return last or (every > 0 and done % every == 0)


def _flat(card: Card) -> dict[str, object]:
    """Return dotted names of everything that two runs must share, except where logs go."""
    flat: dict[str, object] = {
        "family": card.family,
        "seed": card.seed,
        "trained_on": dict(zip(card.trained_on, card.hashes, strict=True)),
        "class_names": card.classes.names,
    }
    for table, values in card.config.items():
        for key, value in values.items() if isinstance(values, dict) else [("", values)]:
            plain = json.loads(json.dumps(value))
            if (table, key) not in _FREE:
                flat[f"{table}.{key}".rstrip(".")] = plain
    return flat


# keys that change no loss: a run may go on with others
_FREE = {
    ("schedule", name) for name in ("log_every", "save_every", "validate_every", "validate_images")
}
