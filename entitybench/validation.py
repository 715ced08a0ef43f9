"""Checking an entity set against its format, down to the last pixel."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from entitybench.candidates import checked_scores
from entitybench.content_hash import combine, image_digest
from entitybench.entity_map import EntityMap
from entitybench.entity_set import EntityImage, EntitySet, FolderStore, ImageRow
from entitybench.errors import EntityBenchError

MapFunction = Callable[
    [Callable[[EntityImage], "ImageCheck"], Iterable[EntityImage]], Iterable["ImageCheck"]
]


@dataclass(frozen=True, slots=True)
class ImageCheck:
    """What came of one image.

    Attributes:
        row: Its line of the table.
        findings: What is wrong, one line each; empty if nothing is.
        digest: Its part of the content hash; 0 where the map cannot be read.
    """

    row: ImageRow
    findings: tuple[str, ...]
    digest: int


def validate(entity_set: EntitySet, map_images: MapFunction = map) -> Iterator[str]:
    """Yield everything that is wrong with a set, one line a finding.

    Args:
        entity_set: The set.
        map_images: How to apply a function to the images, in order: `map`, or a parallel one.
    """
    prediction = entity_set.is_prediction
    names: set[str] = set()
    ids: set[str] = set()
    digests: list[int] = []
    entities = 0
    try:
        for check in map_images(partial(check_image, prediction=prediction), entity_set):
            yield from (f"image {check.row.id}: {finding}" for finding in check.findings)
            if check.row.id in ids:
                yield f"image {check.row.id}: listed twice"
            if check.row.map in names:
                yield f"image {check.row.id}: shares its map `{check.row.map}` with another image"
            ids.add(check.row.id)
            names.add(check.row.map)
            digests.append(check.digest)
            entities += len(check.row.entities)
    except EntityBenchError as error:
        yield str(error)
        return
    yield from _check_header(entity_set, len(digests), entities, combine(digests))
    yield from _check_files(entity_set, names)


def check_image(image: EntityImage, *, prediction: bool) -> ImageCheck:
    """Check one image: its ids, its map, and each row against the pixels."""
    findings = list(_check_table(image.row, prediction=prediction))
    try:
        entity_map = image.map
        scores = image.scores if prediction else None
        findings += _check_pixels(image.row, entity_map)
        if prediction and scores is not None:
            checked_scores(scores, len(scores))
        digest = image_digest(image.id, entity_map, scores)
    except EntityBenchError as error:
        findings.append(" ".join(str(error).split()))
        digest = 0
    return ImageCheck(image.row, tuple(findings), digest)


def _check_table(row: ImageRow, *, prediction: bool) -> Iterator[str]:
    rows = [*row.entities, *row.crowd]
    if [entity.id for entity in rows] != list(range(1, len(rows) + 1)):
        yield f"ids are not 1…{len(rows)} in order, entities before crowds"
    if prediction and row.crowd:
        yield "predictions have no crowds"
    unscored = sum(entity.score is None for entity in row.entities)
    if prediction and unscored:
        yield f"{unscored} entities have no score"
    if not prediction and unscored < len(row.entities):
        yield "ground truth has no scores"


def _check_pixels(row: ImageRow, entity_map: EntityMap) -> Iterator[str]:
    rows = [*row.entities, *row.crowd]
    areas = np.array([0, *(entity.area for entity in rows)])
    boxes = np.array([(0, 0, 0, 0), *(entity.bbox for entity in rows)])
    pixels, tight = entity_map.areas, entity_map.boxes
    for number in np.flatnonzero(areas[1:] != pixels[1:]) + 1:
        yield f"entity {number}: area is {pixels[number]} pixels, not {areas[number]}"
    for number in np.flatnonzero(np.any(boxes[1:] != tight[1:], axis=1)) + 1:
        yield f"entity {number}: box is {tight[number].tolist()}, not {boxes[number].tolist()}"


def _check_header(entity_set: EntitySet, images: int, entities: int, digest: str) -> Iterator[str]:
    header = entity_set.header
    if header.num_images != images:
        yield f"header: num_images is {header.num_images}, the table has {images}"
    if header.num_entities != entities:
        yield f"header: num_entities is {header.num_entities}, the table has {entities}"
    if header.content_hash != digest:
        yield f"header: content_hash is {header.content_hash[:8]}…, the content's is {digest[:8]}…"
    if entity_set.is_prediction and header.model is None:
        yield "header: predictions name no model"


def _check_files(entity_set: EntitySet, named: set[str]) -> Iterator[str]:
    """A folder may hold no map that no line names; a zip is checked by its lines alone."""
    if isinstance(entity_set.store, FolderStore):
        there = {f"maps/{path.name}" for path in (entity_set.path / "maps").iterdir()}
        yield from (f"`{name}` belongs to no image" for name in sorted(there - named))
