"""Making a whole world: scenes in parallel, written as one of the original releases."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec

from entitybench.converters.source import WORLD
from entitybench.converters.worlds import ade20k_writer, cityscapes_writer, coco_writer
from entitybench.converters.worlds.files import (
    TRUTH,
    TruthRow,
    write_json,
    write_lines,
    write_truth,
)
from entitybench.converters.worlds.scene import SPLITS, Scene, make_scene
from entitybench.converters.worlds.vocabulary import WORLDS
from entitybench.errors import ConflictError, FormatError, UnknownNameError
from entitybench.parallel import ordered_map

GENERATOR = 1  # raised by every change that moves a pixel
_SMALLEST_SIZE = 32


class _Writer(Protocol):
    """What the module of a format offers; a row is what a scene adds to its tables."""

    def stem(self, split: str, index: int) -> str: ...
    def folders(self, split: str) -> tuple[str, ...]: ...
    def write_scene(self, root: Path, split: str, index: int, scene: Scene) -> Any: ...
    def finish(self, root: Path, rows: Mapping[str, Sequence[Any]]) -> None: ...
    def pack(self, root: Path, splits: Sequence[str]) -> None: ...


_WRITERS: dict[str, _Writer] = {
    "ade20k": ade20k_writer,
    "cityscapes": cityscapes_writer,
    "coco": coco_writer,
}


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`world.json`: from which arguments a world was made, and what came out.

    Attributes:
        world: `coco`, `ade20k` or `cityscapes`.
        train: Scenes of the training split.
        val: Scenes of the validation split.
        size: Side of a square scene in pixels.
        seed: Of all chance.
        archives: Whether the release is archives rather than folders.
        generator: Version of the generator.
        num_entities: Entities per split.
        num_crowds: Crowds per split.
    """

    world: str
    train: int
    val: int
    size: int
    seed: int
    archives: bool
    generator: int
    num_entities: dict[str, int] = {}
    num_crowds: dict[str, int] = {}


@dataclass(frozen=True, slots=True)
class WorldSummary:
    """What `make_world` did.

    Attributes:
        directory: The source's root: what the converter takes.
        manifest: The arguments and counts.
        already_there: Whether the world was found finished and left alone.
    """

    directory: Path
    manifest: Manifest
    already_there: bool


class _Task(NamedTuple):
    root: Path
    world: str
    split: str
    number: int
    size: int
    seed: int


def make_world(
    directory: Path,
    world: str,
    *,
    train: int,
    val: int,
    size: int = 128,
    seed: int = 0,
    archives: bool = False,
    jobs: int = 1,
    progress: Callable[[int, int], object] | None = None,
) -> WorldSummary:
    """Write a generated dataset in the files and encodings of an original release.

    The world is built beside its place and moved there when it is complete. The bytes depend
    on the arguments alone, not on the number of jobs.

    Args:
        directory: Where the release goes, new or empty; the truth lies in it under `truth/`.
        world: `coco`, `ade20k` or `cityscapes`.
        train: Scenes of the training split; with none, the split is not there at all.
        val: Scenes of the validation split.
        size: Side of a square scene in pixels, at least 32.
        seed: Any non-negative integer.
        archives: Write the release's archives instead of folders.
        jobs: Processes.
        progress: Is called with the scenes done and the scenes in all.

    Raises:
        ConflictError: The folder holds something else, or a world of other arguments.
        FormatError: A number is out of its range.
        UnknownNameError: No such world.
    """
    if world not in WORLDS:
        kind = "world"
        raise UnknownNameError.of(kind, world, WORLDS)
    wanted = Manifest(world, train, val, size, seed, archives, GENERATOR)
    _check(wanted)
    directory = Path(directory)
    there = _already_there(directory, wanted)
    if there is not None:
        return WorldSummary(directory, there, already_there=True)
    part = directory.parent / f"{directory.name}.unfinished"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    made = _fill(part, wanted, jobs, progress or _silent)
    if directory.exists():
        directory.rmdir()
    part.rename(directory)
    return WorldSummary(directory, made, already_there=False)


def _silent(done: int, total: int) -> None:
    """Show nothing."""


def _check(wanted: Manifest) -> None:
    for name, value, least in (
        ("train", wanted.train, 0),
        ("val", wanted.val, 0),
        ("size", wanted.size, _SMALLEST_SIZE),
        ("seed", wanted.seed, 0),
    ):
        if value < least:
            msg = f"a world needs `{name}` of at least {least}, not {value}"
            raise FormatError(msg)
    if not wanted.train + wanted.val:
        msg = "a world needs at least one scene"
        raise FormatError(msg)


def _already_there(directory: Path, wanted: Manifest) -> Manifest | None:
    """Return the manifest of a world that was made with these arguments, None for no world."""
    if not directory.exists() or (directory.is_dir() and not any(directory.iterdir())):
        return None
    hint = "choose another folder, or delete this one"
    try:
        found = msgspec.json.decode((directory / WORLD).read_bytes(), type=Manifest)
    except FileNotFoundError as error:
        msg = "the folder is not empty and holds no generated world"
        raise ConflictError(msg, where=str(directory), hint=hint) from error
    except (OSError, msgspec.MsgspecError) as error:
        msg = f"the folder holds no readable {WORLD} ({error})"
        raise ConflictError(msg, where=str(directory), hint=hint) from error
    others = _differences(found, wanted)
    if others:
        msg = f"the world there was made with other arguments: {', '.join(others)}"
        raise ConflictError(msg, where=str(directory), hint=hint)
    return found


def _differences(found: Manifest, wanted: Manifest) -> list[str]:
    names = ("world", "train", "val", "size", "seed", "archives", "generator")
    pairs = ((name, getattr(found, name), getattr(wanted, name)) for name in names)
    return [f"{name} {there}, not {here}" for name, there, here in pairs if there != here]


def _fill(
    root: Path, wanted: Manifest, jobs: int, progress: Callable[[int, int], object]
) -> Manifest:
    writer = _WRITERS[wanted.world]
    tasks = _tasks(root, wanted)
    splits = list(dict.fromkeys(task.split for task in tasks))
    for split in splits:
        for folder in (*writer.folders(split), f"{TRUTH}/{split}"):
            (root / folder).mkdir(parents=True)
    truth: dict[str, list[TruthRow]] = {split: [] for split in splits}
    rows: dict[str, list[Any]] = {split: [] for split in splits}
    results = ordered_map(_make, tasks, jobs=jobs, describe=_told)
    for done, (task, (line, row)) in enumerate(zip(tasks, results, strict=True), 1):
        truth[task.split].append(line)
        rows[task.split].append(row)
        progress(done, len(tasks))
    writer.finish(root, rows)
    if wanted.archives:
        writer.pack(root, splits)
    for split in splits:
        write_lines(root / TRUTH / f"{split}.jsonl", truth[split])
    made = msgspec.structs.replace(
        wanted,
        num_entities={split: sum(len(row.entities) for row in truth[split]) for split in splits},
        num_crowds={split: sum(len(row.crowds) for row in truth[split]) for split in splits},
    )
    write_json(root / WORLD, made)
    return made


def _tasks(root: Path, wanted: Manifest) -> list[_Task]:
    counts = {"train": wanted.train, "val": wanted.val}
    return [
        _Task(root, wanted.world, split, number, wanted.size, wanted.seed)
        for split in SPLITS
        for number in range(counts[split])
    ]


def _told(task: _Task) -> str:
    return f"{task.world} {task.split} scene {task.number}"


def _make(task: _Task) -> tuple[TruthRow, Any]:
    writer = _WRITERS[task.world]
    scene = make_scene(
        task.world, split=task.split, index=task.number, size=task.size, seed=task.seed
    )
    row = writer.write_scene(task.root, task.split, task.number, scene)
    return write_truth(task.root, task.split, writer.stem(task.split, task.number), scene), row
