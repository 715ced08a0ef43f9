"""Plans: methods × training sets × test sets × seeds, as steps that resume.

A plan is a TOML file. Each step is one command line of entitybench, so that a plan does nothing
that a person could not do by hand. A step that was done with the same choices on the same data
is skipped; one that fails stops only the steps that need it.
"""

from __future__ import annotations

import hashlib
import json
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from entitybench.entity_set import decode
from entitybench.errors import FormatError, MissingDataError, UnknownNameError
from entitybench.registry import known_sets, open_entity_set
from entitybench.whole_file import write_whole

Name = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._-]*\Z")]
SetName = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._+-]*\Z")]
Kind = Literal["worlds", "convert", "train", "predict", "eval"]
# Images of 128 × 128 pixels a second, as two slow cores did them: for estimates alone.
_PACE: dict[Kind, float] = {"worlds": 80, "convert": 300, "predict": 20, "eval": 500}
Execute = Callable[[Sequence[str]], None]
"""Runs one command line of entitybench, without the program's name; raises if it fails."""


class World(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A world to generate and convert before all else."""

    world: Literal["coco", "ade20k", "cityscapes"]
    train: Annotated[int, msgspec.Meta(ge=0)]
    val: Annotated[int, msgspec.Meta(ge=1)]
    size: Annotated[int, msgspec.Meta(ge=32)] = 128
    seed: Annotated[int, msgspec.Meta(ge=0)] = 0


class Method(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One row of methods: a model to train or that is trained, one without, or other truth.

    Attributes:
        name: As the leaderboard shows it.
        config: Configuration to train; none for a method that is not trained.
        family: Of the model.
        changes: Changes to the configuration, `key=value`.
        steps: Instead of the configuration's.
        epochs: Instead of steps.
        predict: Changes at prediction, `key=value`.
        classical: Name of a method without training, as `predict --model` takes it.
        checkpoint: A model that is trained already: a checkpoint that comes with entitybench, or
            the path of one.
        model_of: A method above, whose trained models are to predict with changes of their own.
        truth: Test set → the entity set that is scored as if it were predictions.
        train_on: Training sets, instead of the plan's.
        test_on: Test sets, instead of the plan's.
        seeds: Instead of the plan's.
        minutes: What one training takes, for the estimate of `--dry-run`.
    """

    name: Name
    config: str = ""
    family: str = "entity"
    changes: tuple[str, ...] = ()
    steps: int | None = None
    epochs: float | None = None
    predict: tuple[str, ...] = ()
    classical: str = ""
    checkpoint: str = ""
    model_of: str = ""
    truth: dict[SetName, SetName] = {}
    train_on: tuple[SetName, ...] | None = None
    test_on: tuple[SetName, ...] | None = None
    seeds: tuple[int, ...] | None = None
    minutes: float | None = None


_WAYS = ("config", "classical", "checkpoint", "model_of", "truth")


class Claim(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """That one trained method does better than another, on the same seeds and images.

    Attributes:
        text: In words.
        better: A method.
        worse: Another.
        measure: `AP` (AP_e), where more is better, or `claimed_twice`, `area_lost` or `gap` (AP
            before resolution minus AP_e), where less is.
    """

    text: str
    better: Name
    worse: Name
    measure: Literal["AP", "claimed_twice", "area_lost", "gap"] = "AP"


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What to train, on what, and what to test it on.

    Attributes:
        title: At the head of the report.
        about: What it is for, and what it needs.
        methods: At least one.
        train_on: Training sets; `a+b` trains on both.
        test_on: Test sets.
        worlds: Made first; the plan then has data of its own.
        seeds: Each training is done with each.
        protocol: Of the evaluation.
        class_threshold: Of the evaluation: least score in PQ by class.
        resamples: Of the report's bootstrap.
        claims: Judged in the end, on every training and test set that both methods share.
    """

    title: str
    about: str
    methods: Annotated[tuple[Method, ...], msgspec.Meta(min_length=1)]
    test_on: Annotated[tuple[SetName, ...], msgspec.Meta(min_length=1)]
    train_on: tuple[SetName, ...] = ()
    worlds: tuple[World, ...] = ()
    seeds: Annotated[tuple[int, ...], msgspec.Meta(min_length=1)] = (0,)
    protocol: Literal["strict", "official"] = "strict"
    class_threshold: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0
    resamples: Annotated[int, msgspec.Meta(ge=0)] = 1000
    claims: tuple[Claim, ...] = ()

    def method(self, name: str) -> Method:
        """Return a method by its name.

        Raises:
            UnknownNameError: There is none.
        """
        kind, names = "method", {method.name: method for method in self.methods}
        if name not in names:
            raise UnknownNameError.of(kind, name, names)
        return names[name]


def shipped_plans() -> list[str]:
    """Return the names of the plans that come with entitybench."""
    folder = files("entitybench").joinpath("plans")
    return sorted(f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith("toml"))


def load_plan(name_or_path: str) -> Plan:
    """Read a plan: a file, or one that comes with entitybench.

    Raises:
        UnknownNameError: Neither.
        FormatError: The file is no plan, or contradicts itself; tells where.
    """
    path = Path(name_or_path)
    if path.is_file():
        return read_plan(path.read_text(encoding="utf-8"), name_or_path)
    if name_or_path not in shipped_plans():
        kind, hint = "plan", "a plan is a TOML file, or one of those above"
        raise UnknownNameError.of(kind, name_or_path, shipped_plans(), hint)
    shipped = files("entitybench").joinpath("plans", f"{name_or_path}.toml")
    return read_plan(shipped.read_text(encoding="utf-8"), name_or_path)


def read_plan(text: str, place: str) -> Plan:
    """Read a plan from its text.

    Raises:
        FormatError: The text is no plan, or contradicts itself.
    """
    try:
        plan = msgspec.convert(tomllib.loads(text), Plan)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        msg = f"not a plan: {error}"
        raise FormatError(msg, where=place) from error
    trained: set[str] = set()
    for method in plan.methods:
        if sum(bool(getattr(method, way)) for way in _WAYS) != 1:
            ways = f"{', '.join(f'`{way}`' for way in _WAYS[:-1])} and `{_WAYS[-1]}`"
            msg = f"method `{method.name}` needs one of {ways}"
            raise FormatError(msg, where=place)
        if method.model_of and method.model_of not in trained:
            msg = f"method `{method.name}` wants the models of `{method.model_of}`"
            raise FormatError(msg, where=place, hint="no method above it trains them")
        trained |= {method.name} if method.config else set()
        if method.config and not (plan.train_on if method.train_on is None else method.train_on):
            msg = f"method `{method.name}` is to be trained, on nothing"
            raise FormatError(msg, where=place, hint="`train_on` lists entity sets")
    if len({method.name for method in plan.methods}) < len(plan.methods):
        msg = "two methods have one name"
        raise FormatError(msg, where=place)
    _check_claims(plan, place)
    return plan


def _check_claims(plan: Plan, place: str) -> None:
    for claim in plan.claims:
        for name in (claim.better, claim.worse):
            method = plan.method(name)
            if not (method.config or method.model_of):
                msg = f"claim `{claim.text}` is about `{name}`, which the plan does not train"
                raise FormatError(msg, where=place)


def with_steps(plan: Plan, steps: int) -> Plan:
    """Return the plan with trainings of so many steps, which take as much less or more time."""
    changed = tuple(
        msgspec.structs.replace(
            method, steps=steps, epochs=None, minutes=_scaled_minutes(method, steps)
        )
        if method.config
        else method
        for method in plan.methods
    )
    return msgspec.structs.replace(plan, methods=changed)


def _scaled_minutes(method: Method, steps: int) -> float | None:
    if method.minutes is None or method.steps is None:
        return None
    return method.minutes * steps / method.steps


@dataclass(frozen=True, slots=True)
class Place:
    """Where a plan reads and writes.

    Attributes:
        out: Everything that the plan makes.
        data: Where entity sets are looked up, and those of worlds are made.
        jobs: Processes within a step.
        overwrite: Replace what was made with other choices.
    """

    out: Path
    data: Path
    jobs: int = 1
    overwrite: bool = False

    @property
    def results(self) -> Path:
        """The folder for `report`."""
        return self.out / "results"

    @property
    def preds(self) -> Path:
        """The folder with `<model>/<test set>`."""
        return self.out / "preds"


@dataclass(frozen=True, slots=True)
class Step:
    """One command line.

    Attributes:
        id: Unique in the plan, safe as a file name.
        kind: Its verb.
        arguments: What follows `entitybench`, without what does not change the outcome.
        output: What is there once it is done.
        needs: Ids of the steps before it.
        reads: Entity sets that it reads.
        weights: A checkpoint that it reads and no step made.
        minutes: What it takes by the plan, or by its images; None if nobody knows.
    """

    id: str
    kind: Kind
    arguments: tuple[str, ...]
    output: Path
    needs: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    weights: Path | None = None
    minutes: float | None = None

    def command(self, place: Place) -> list[str]:
        """Return the whole command line."""
        more = ["--jobs", str(place.jobs), "--quiet"]
        may_replace = place.overwrite and self.kind in {"convert", "train", "predict"}
        return [*self.arguments, *more, *(["--overwrite"] if may_replace else [])]


def steps_of(plan: Plan, place: Place) -> list[Step]:
    """Return the steps of a plan, each behind those that it needs."""
    steps = [step for world in plan.worlds for step in _world_steps(world, place)]
    made = tuple(step.id for step in steps if step.kind == "convert")
    for method in plan.methods:
        if method.truth:
            steps += _truth_steps(plan, method, place, made)
        elif method.classical:
            steps += _tests(plan, method, method.name, method.classical, made, place)
        elif method.checkpoint:
            steps += _checkpoint_steps(plan, method, place, made)
        elif method.model_of:
            steps += _second_steps(plan, method, place)
        else:
            steps += _training_steps(plan, method, place, made)
    return steps


def _world_steps(world: World, place: Place) -> Iterator[Step]:
    folder = place.out / "worlds" / world.world
    counts = [f"--{k}={getattr(world, k)}" for k in ("train", "val", "size", "seed")]
    make = Step(
        f"worlds-{world.world}",
        "worlds",
        ("worlds", "make", str(folder), "--world", world.world, *counts),
        folder,
        minutes=_minutes("worlds", world.train + world.val, world),
    )
    yield make
    splits = [s for s, count in (("train", world.train), ("val", world.val)) if count]
    names = [f"{world.world}_entity_{split}" for split in splits]
    yield Step(
        f"convert-{world.world}",
        "convert",
        (
            *("convert", world.world, "--source", str(folder), "--out", str(place.data)),
            *(option for split in splits for option in ("--split", split)),
        ),
        place.data / names[-1],
        (make.id,),
        minutes=_minutes("convert", world.train + world.val, world),
    )


def _minutes(kind: Kind, images: int, world: World) -> float:
    """Return what a step takes on images of a world, roughly: before it ran once."""
    return images / _PACE[kind] * (world.size / 128) ** 2 / 60


def _test_minutes(plan: Plan, kind: Kind, test: str) -> float | None:
    """Return what a step takes on a test set; None where the plan does not make it."""
    for world in plan.worlds:
        if test == f"{world.world}_entity_val":
            return _minutes(kind, world.val, world)
    return None


def _training_steps(
    plan: Plan, method: Method, place: Place, made: tuple[str, ...]
) -> Iterator[Step]:
    for training, seed, end in trainings_of(plan, method):
        name = f"{method.name}{end}"
        folder = place.out / "runs" / name
        train = Step(
            f"train-{name}",
            "train",
            (
                *("train", "--model", method.family, "--config", method.config),
                *("--on", training, "--data", str(place.data), "--out", str(folder)),
                *(option for change in method.changes for option in ("--set", change)),
                *([] if method.steps is None else ["--steps", str(method.steps)]),
                *([] if method.epochs is None else ["--epochs", f"{method.epochs:g}"]),
                *("--seed", str(seed)),
            ),
            folder / "model.safetensors",
            made,
            tuple(training.split("+")),
            minutes=method.minutes,
        )
        yield train
        yield from _tests(plan, method, name, str(folder), (train.id,), place)


def trainings_of(plan: Plan, method: Method) -> Iterator[tuple[str, int, str]]:
    """Yield training set, seed, and what they add to the method's name."""
    if method.model_of:
        yield from trainings_of(plan, plan.method(method.model_of))
        return
    seeds = plan.seeds if method.seeds is None else method.seeds
    for training in plan.train_on if method.train_on is None else method.train_on:
        for seed in seeds:
            yield training, seed, f"@{training}" + (f"#{seed}" if len(seeds) > 1 else "")


def _second_steps(plan: Plan, method: Method, place: Place) -> Iterator[Step]:
    """Yield the tests of models that another method trains."""
    for _, _, end in trainings_of(plan, method):
        trained = f"{method.model_of}{end}"
        folder, needs = str(place.out / "runs" / trained), (f"train-{trained}",)
        yield from _tests(plan, method, f"{method.name}{end}", folder, needs, place)


def _tests(
    plan: Plan, method: Method, name: str, model: str, needs: tuple[str, ...], place: Place
) -> Iterator[Step]:
    """Yield prediction and evaluation on every test set."""
    claimed = any(method.name in (claim.better, claim.worse) for claim in plan.claims)
    for test in tests_of(plan, method):
        folder = place.preds / name
        predict = Step(
            f"predict-{name}-{test}",
            "predict",
            (
                *("predict", "--model", model, "--on", test, "--data", str(place.data)),
                *("--out", str(folder), "--name", name),
                *(option for change in method.predict for option in ("--set", change)),
                *(["--mechanism"] if claimed else []),
            ),
            folder / test / "entity_set.json",
            needs,
            (test,),
            minutes=_test_minutes(plan, "predict", test),
        )
        yield predict
        yield _evaluation(plan, name, test, str(folder), (predict.id,), place)


def tests_of(plan: Plan, method: Method) -> tuple[str, ...]:
    """Return the test sets of a method."""
    return plan.test_on if method.test_on is None else method.test_on


def _checkpoint_steps(
    plan: Plan, method: Method, place: Place, made: tuple[str, ...]
) -> Iterator[Step]:
    shipped = files("entitybench.baselines").joinpath("checkpoints", method.checkpoint)
    path = Path(str(shipped) + ".safetensors")
    weights = path if path.is_file() else Path(method.checkpoint)
    for step in _tests(plan, method, method.name, method.checkpoint, made, place):
        yield replace(step, weights=weights) if step.kind == "predict" else step


def _truth_steps(plan: Plan, method: Method, place: Place, made: tuple[str, ...]) -> Iterator[Step]:
    for test, other in method.truth.items():
        step = _evaluation(plan, method.name, test, str(place.data / other), made, place)
        yield replace(step, reads=(test, other))


def _evaluation(
    plan: Plan, name: str, test: str, predictions: str, needs: tuple[str, ...], place: Place
) -> Step:
    output = place.results / name / f"{test}.json"
    return Step(
        f"eval-{name}-{test}",
        "eval",
        (
            *("eval", predictions, "--gt", test, "--data", str(place.data), "--out", str(output)),
            *("--model", name, "--protocol", plan.protocol),
            *(["--class-threshold", f"{plan.class_threshold:g}"] if plan.class_threshold else []),
        ),
        output,
        needs,
        (test,),
        minutes=_test_minutes(plan, "eval", test),
    )


# --- running -------------------------------------------------------------------------------------


class Stamp(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is kept of a step that is done: its fingerprint, and how long it took."""

    fingerprint: str
    seconds: float


State = Literal["done", "made", "failed", "skipped"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a step.

    Attributes:
        step: The step.
        state: `done` before, `made` now, `failed`, or `skipped` as one that it needs failed.
        seconds: How long it took, now or then.
        error: Why it failed.
    """

    step: Step
    state: State
    seconds: float | None = None
    error: str = ""


def run_plan(steps: Sequence[Step], place: Place, execute: Execute) -> Iterator[Outcome]:
    """Run the steps in order, skip what is done, and go on past failures.

    Args:
        steps: From `steps_of`.
        place: Where.
        execute: Runs one command line.

    Yields:
        One outcome per step, as it comes.
    """
    fingerprints: dict[str, str] = {}
    broken: set[str] = set()
    for step in steps:
        if broken.intersection(step.needs):
            broken.add(step.id)
            yield Outcome(step, "skipped")
            continue
        outcome = _run(step, place, execute, fingerprints)
        if outcome.state == "failed":
            broken.add(step.id)
        yield outcome


def _run(step: Step, place: Place, execute: Execute, fingerprints: dict[str, str]) -> Outcome:
    began = time.monotonic()
    try:
        fingerprint = fingerprint_of(step, place, fingerprints)
        fingerprints[step.id] = fingerprint
        stamp = _stamp(step, place)
        if stamp is not None and stamp.fingerprint == fingerprint and step.output.exists():
            return Outcome(step, "done", stamp.seconds)
        execute(step.command(place))
    except Exception as error:  # noqa: BLE001  # whatever it is, it is this step's alone
        return Outcome(step, "failed", error=str(error) or type(error).__name__)
    seconds = round(time.monotonic() - began, 3)
    path = _stamp_path(step, place)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, msgspec.json.encode(Stamp(fingerprint, seconds)))
    return Outcome(step, "made", seconds)


def fingerprint_of(step: Step, place: Place, before: Mapping[str, str]) -> str:
    """Return a digest of all that decides what a step makes.

    Args:
        step: The step.
        place: Where sets are looked up.
        before: Fingerprints of the steps that it needs.

    Raises:
        MissingDataError: It reads a set or a checkpoint that is not there.
    """
    known = known_sets(place.data)
    absent = [name for name in step.reads if name not in known]
    if absent:
        msg = f"no entity set `{absent[0]}` in `{place.data}`"
        raise MissingDataError(msg, hint=f"`entitybench convert {absent[0].partition('_')[0]}`")
    sets = [open_entity_set(known[name]).header.content_hash for name in step.reads]
    needed = [before[name] for name in step.needs]
    weights = [] if step.weights is None else [_digest(step.weights)]
    text = json.dumps([_placeless(step.arguments, place), needed, sets, *weights])
    return hashlib.sha256(text.encode()).hexdigest()


def _placeless(arguments: Sequence[str], place: Place) -> list[str]:
    """Return arguments that do not change where the plan's folder is moved, or named otherwise."""
    folders = {str(place.out): "OUT", str(place.data): "DATA"}
    found = []
    for text in arguments:
        path = Path(text)
        at = next((folder for folder in folders if path.is_relative_to(folder)), None)
        found.append(text if at is None else f"{folders[at]}/{path.relative_to(at)}")
    return found


def _digest(weights: Path) -> str:
    if not weights.is_file():
        msg = f"no checkpoint `{weights}`"
        raise MissingDataError(msg, hint="`checkpoint` is a shipped one's name, or a file")
    return hashlib.sha256(weights.read_bytes()).hexdigest()


def _stamp_path(step: Step, place: Place) -> Path:
    return place.out / "steps" / f"{step.id}.json"


def _stamp(step: Step, place: Place) -> Stamp | None:
    path = _stamp_path(step, place)
    return decode(path.read_bytes(), Stamp, str(path)) if path.exists() else None


# --- looking ahead -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Forecast:
    """What is ahead of a step.

    Attributes:
        step: The step.
        is_done: Whether it would be skipped.
        seconds: What it will take, 0 if it is done; None if nobody knows.
    """

    step: Step
    is_done: bool
    seconds: float | None


def forecast(steps: Sequence[Step], place: Place) -> list[Forecast]:
    """Tell what would be done, and how long it would take.

    A step that ran before takes as long again; others as long as steps of their kind and
    method took on average; else what the plan says, or what its number of images does.
    """
    fingerprints: dict[str, str] = {}
    taken: dict[tuple[str, str], list[float]] = {}
    seen: list[tuple[Step, bool]] = []
    for step in steps:
        stamp = _stamp(step, place)
        is_done = _is_done(step, place, stamp, fingerprints)
        if stamp is not None:
            taken.setdefault(_likeness(step), []).append(stamp.seconds)
        seen.append((step, is_done))
    return [Forecast(s, done, 0.0 if done else _guess(s, taken)) for s, done in seen]


def _is_done(step: Step, place: Place, stamp: Stamp | None, fingerprints: dict[str, str]) -> bool:
    if not set(step.needs) <= set(fingerprints):
        return False
    try:
        fingerprint = fingerprint_of(step, place, fingerprints)
    except MissingDataError:
        return False
    if stamp is None or stamp.fingerprint != fingerprint or not step.output.exists():
        return False
    fingerprints[step.id] = fingerprint
    return True


def _likeness(step: Step) -> tuple[str, str]:
    """Return what steps of about the same length share: kind and method."""
    return step.kind, step.id.partition("-")[2].partition("@")[0]


def _guess(step: Step, taken: Mapping[tuple[str, str], Sequence[float]]) -> float | None:
    like = taken.get(_likeness(step))
    if like:
        return sum(like) / len(like)
    return None if step.minutes is None else 60 * step.minutes
