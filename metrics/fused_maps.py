"""Entity sets matched by the compiled kernel: from PNG files to records with nothing in between."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from entitybench import kernel
from entitybench.compiled_truth import CompiledTruth
from entitybench.entity_set import EntitySet, ImageRow, Store, read_map
from entitybench.errors import EntityBenchError
from entitybench.metrics.fused import FusedMatches, Work
from entitybench.metrics.protocol import Protocol
from entitybench.metrics.ragged import images_of, offsets_of

_PNGS_AT_ONCE = 32


@dataclass(frozen=True, slots=True, eq=False)
class StoredMaps:
    """The predicted maps of I images, not read yet.

    Attributes:
        store: Where they are.
        names: The file of each; "" for an image that is not for the kernel.
        offsets: `(I + 1,)` where each image's scores begin.
        scores: Scores of the entities, image after image.
        num_ids: `(I,)` entities and crowds.
    """

    store: Store
    names: Sequence[str]
    offsets: NDArray[np.int64]
    scores: NDArray[np.float64]
    num_ids: NDArray[np.int64]

    @classmethod
    def of(cls, entity_set: EntitySet, truth: CompiledTruth, wanted: Container[str]) -> StoredMaps:
        """List the maps of the images that the truth holds, in its order.

        Args:
            entity_set: The predictions; ground truth given as predictions scores 1 throughout.
            truth: The images.
            wanted: Ids of the images to match.
        """
        sizes = (size.tolist() for size in truth.shapes.T)
        shapes = dict(zip(truth.ids, zip(*sizes, strict=True), strict=True))
        known = {
            row.id: _named(row, is_truth=not entity_set.is_prediction)
            for row in entity_set.rows()
            if row.id in wanted and shapes.get(row.id) == (row.height, row.width)
        }
        nothing: _Named = ("", np.zeros(0), 0)
        rows = [known.get(image_id, nothing) for image_id in truth.ids]
        names, scores = [row[0] for row in rows], [row[1] for row in rows]
        num_ids = np.array([row[2] for row in rows], dtype=np.int64)
        offsets = offsets_of([len(s) for s in scores])
        joined = np.concatenate([np.zeros(0), *scores])
        for image in images_of(offsets)[~((joined >= 0) & (joined <= 1))].tolist():
            names[image] = ""
        return cls(entity_set.store, names, offsets, joined, num_ids)

    def read(self, image: int, image_id: str) -> bytes | None:
        """Return an image's PNG, or None where there is none for the kernel."""
        if not self.names[image]:
            return None
        try:
            return read_map(self.store, self.names[image], image_id)
        except EntityBenchError:  # the careful reader says what is wrong
            return None


_Named = tuple[str, NDArray[np.float64], int]


def _named(row: ImageRow, *, is_truth: bool) -> _Named:
    """Return file, scores and number of ids; a score that is missing is NaN."""
    if is_truth:
        scores = np.ones(len(row.entities))
    else:
        scores = np.array([entity.score for entity in row.entities], dtype=np.float64)
    return row.map, scores, len(row.entities) + len(row.crowd)


def match_stored(
    truth: CompiledTruth,
    maps: StoredMaps,
    protocol: Protocol,
    *,
    set_name: str = "",
    threads: int = 1,
    tables: bool = False,
) -> FusedMatches:
    """Match stored entity maps to compiled truth.

    Args:
        truth: I images, by rows.
        maps: Their predictions.
        protocol: Crowd, void and size rule.
        set_name: The ground truth's name.
        threads: How many images to work on at once.
        tables: Keep the contingency tables as well.

    Returns:
        Matches; what is no plain map of its image is left over.

    Raises:
        DamagedTruthError: The compiled truth is damaged.
        MissingDataError: The protocol wants annotated sizes and there are none.
    """
    work = Work(truth, maps.offsets, protocol, tables=tables)

    def match(cells: NDArray[np.int32], images: tuple[int, int]) -> tuple[int, int]:
        begin, end = images[0], min(images[0] + _PNGS_AT_ONCE, images[1])
        status, reached, used = kernel.match_png(
            [maps.read(image, truth.ids[image]) for image in range(begin, end)],
            (maps.scores, maps.num_ids),
            work.truths,
            work.rules,
            work.offsets,
            (work.outcomes, cells),
            (begin, end),
        )
        work.check(status, reached)
        return reached, used

    return work.done(match, threads, set_name)
