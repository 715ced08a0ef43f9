"""A classical segmentation of every photograph of an entity set."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from entitybench.baselines.classical.segmentation import CLASSICAL, SETTINGS, segment
from entitybench.entity_set import EntitySet, ImageRow, Model
from entitybench.entity_writer import EntityWriter, PreparedImage, prepare
from entitybench.errors import FormatError, MissingDataError, UnknownNameError
from entitybench.parallel import ordered_map
from entitybench.photographs import read_photograph

Progress = Callable[[Iterable[PreparedImage], int], Iterable[PreparedImage]]


@dataclass(frozen=True, slots=True)
class _Task:
    model_name: str
    location: str
    row: ImageRow


def predict_classical(
    model_name: str,
    truth: EntitySet,
    out: str | os.PathLike[str],
    *,
    name: str | None = None,
    images: str | None = None,
    overwrite: bool = False,
    jobs: int = 1,
    progress: Progress = lambda images, _: images,
) -> EntitySet:
    """Write the predictions of a classical method for the photographs of an entity set.

    Interrupted, the same call resumes; the result does not depend on `jobs`.

    Args:
        model_name: One of `CLASSICAL`.
        truth: Whose photographs; its entities are not read.
        out: The set to write, a folder or a zip.
        name: The model's name in results; the method's unless given.
        images: Where the photographs are; the set knows unless given.
        overwrite: Replace a set made with other options.
        jobs: Processes.
        progress: Wraps the images as they come, given their number.

    Raises:
        UnknownNameError: No such method.
        MissingDataError: Nobody knows where the photographs are, or one is missing.
        FormatError: A photograph has another size than the set says.
        ConflictError: Another set is at `out`.
    """
    if model_name not in CLASSICAL:
        kind = "classical model"
        raise UnknownNameError.of(kind, model_name, CLASSICAL)
    location = images or truth.photographs
    if location is None:
        msg = f"nobody knows where the photographs of `{truth.header.name}` are"
        raise MissingDataError(msg, hint="`--images` names their folder or archive")
    with EntityWriter(
        out,
        model=Model(name or model_name, score_rule="area"),
        options={"images_of": truth.header.name, "method": model_name, **SETTINGS[model_name]},
        images=location,
        overwrite=overwrite,
    ) as writer:
        if not writer.already_complete:
            rows = (row for row in truth.rows() if row.id not in writer.finished)
            tasks = (_Task(model_name, location, row) for row in rows)
            done = ordered_map(_predict, tasks, jobs=jobs, describe=lambda task: task.row.id)
            for image in progress(done, len(truth) - len(writer.finished)):
                writer.add_prepared(image)
    return writer.finish()


def _predict(task: _Task) -> PreparedImage:
    row = task.row
    photograph = np.asarray(read_photograph(task.location, row.file_name))
    if photograph.shape[:2] != (row.height, row.width):
        height, width = photograph.shape[:2]
        msg = f"the photograph is {width}×{height}, the set says {row.width}×{row.height}"
        raise FormatError(msg, where=f"{task.location}: {row.file_name}")
    entity_map, scores = segment(task.model_name, photograph)
    return prepare(row.id, entity_map, scores, file_name=row.file_name)
