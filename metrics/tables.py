"""Contingency tables and boxes of many images: what match bits alone do not tell.

Quality, causes, boxes and origins are computed from these columns, so that subsets, unions and
resamples of images need no map either. They cost about a dozen bytes per pair of ids that touch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from entitybench.entity_map import EntityMap
from entitybench.metrics.contingency import Contingency
from entitybench.metrics.ragged import images_of, offsets_of, rows_of

THING, STUFF, UNKNOWN = 1, 0, -1
"""What the source says a true entity is; see `Tables.origins`."""

Int32 = NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class ImageTable:
    """The contingency table of one image, without the pixels that nobody claims, and boxes.

    Attributes:
        cell_truth: `(K,)` int32 true id in `0…N+C`.
        cell_prediction: `(K,)` int32 predicted id in `0…P`; never both 0.
        cell_pixels: `(K,)` int32 pixels they share, at least 1.
        truth_boxes: `(N, 4)` int32 x, y, width, height; zeros without a pixel.
        crowd_boxes: `(C, 4)` int32.
        prediction_boxes: `(D, 4)` int32 of the ranked predictions.
    """

    cell_truth: Int32
    cell_prediction: Int32
    cell_pixels: Int32
    truth_boxes: Int32
    crowd_boxes: Int32
    prediction_boxes: Int32

    @classmethod
    def of(
        cls, table: Contingency, truth: EntityMap, prediction: EntityMap, ranked: Int32
    ) -> ImageTable:
        """Keep what the maps of one image say to each other.

        Args:
            table: Their contingency table.
            truth: N entities and C crowds.
            prediction: P entities.
            ranked: `(D,)` predicted ids that take part, best first.
        """
        held = (table.truth > 0) | (table.prediction > 0)
        boxes = truth.boxes.astype(np.int32)
        return cls(
            table.truth[held].astype(np.int32),
            table.prediction[held].astype(np.int32),
            table.pixels[held].astype(np.int32),
            boxes[1 : truth.num_entities + 1],
            boxes[truth.num_entities + 1 :],
            prediction.boxes[ranked].astype(np.int32),
        )


_CELLS = ("cell_truth", "cell_prediction", "cell_pixels")
_BOXES = ("truth_boxes", "crowd_boxes", "prediction_boxes")


@dataclass(frozen=True, slots=True, eq=False)
class Tables:
    """The tables of I images in columns; image i owns cells `[i]:[i + 1]` of the offsets.

    Attributes:
        cell_offsets: `(I + 1,)` int64.
        crowd_offsets: `(I + 1,)` int64.
        cell_truth: `(K,)` int32.
        cell_prediction: `(K,)` int32.
        cell_pixels: `(K,)` int32.
        truth_boxes: `(G, 4)` int32, in the rows of the records' true entities.
        crowd_boxes: `(C, 4)` int32.
        prediction_boxes: `(D, 4)` int32, in the rows of the records' predictions.
        origins: `(G,)` int8 `THING`, `STUFF` or `UNKNOWN`.
    """

    cell_offsets: NDArray[np.int64]
    crowd_offsets: NDArray[np.int64]
    cell_truth: Int32
    cell_prediction: Int32
    cell_pixels: Int32
    truth_boxes: Int32
    crowd_boxes: Int32
    prediction_boxes: Int32
    origins: NDArray[np.int8]

    @classmethod
    def gather(cls, parts: Sequence[ImageTable]) -> Tables:
        """Collect the tables of images, in order; origins are unknown."""
        columns = {
            name: np.concatenate([_empty(name), *(getattr(part, name) for part in parts)])
            for name in (*_CELLS, *_BOXES)
        }
        return cls(
            offsets_of([len(part.cell_truth) for part in parts]),
            offsets_of([len(part.crowd_boxes) for part in parts]),
            **columns,
            origins=np.full(len(columns["truth_boxes"]), UNKNOWN, dtype=np.int8),
        )

    @classmethod
    def merge(cls, parts: Sequence[Tables]) -> Tables:
        """Join the tables of shards, in order."""
        columns: dict[str, NDArray[Any]] = {
            field.name: np.concatenate([getattr(part, field.name) for part in parts])
            for field in fields(cls)[2:]
        }
        for name in ("cell_offsets", "crowd_offsets"):
            counts = np.concatenate([np.diff(getattr(part, name)) for part in parts])
            columns[name] = offsets_of(counts)
        return cls(**columns)

    def take(
        self,
        images: NDArray[np.int64],
        truth_rows: NDArray[np.int64],
        detection_rows: NDArray[np.int64],
    ) -> Tables:
        """Return the tables of some images, given by position, with their rows."""
        cells = rows_of(self.cell_offsets[images], self.cell_offsets[images + 1])
        crowds = rows_of(self.crowd_offsets[images], self.crowd_offsets[images + 1])
        return Tables(
            offsets_of(np.diff(self.cell_offsets)[images]),
            offsets_of(np.diff(self.crowd_offsets)[images]),
            self.cell_truth[cells],
            self.cell_prediction[cells],
            self.cell_pixels[cells],
            self.truth_boxes[truth_rows],
            self.crowd_boxes[crowds],
            self.prediction_boxes[detection_rows],
            self.origins[truth_rows],
        )

    def with_origins(self, origins: NDArray[np.int8]) -> Tables:
        """Say which true entities are things and which are stuff: `(G,)`, by row."""
        return replace(self, origins=origins)

    def columns(self) -> dict[str, NDArray[Any]]:
        """Return every column by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def expected(
        self, num_images: int, num_truth: int, num_detections: int
    ) -> dict[str, tuple[type[np.generic], tuple[int, ...]]]:
        """Return type and shape of every column, as far as the others decide them."""
        cells, crowds = len(self.cell_truth), len(self.crowd_boxes)
        rows = {"truth_boxes": num_truth, "prediction_boxes": num_detections, "crowd_boxes": crowds}
        wanted: dict[str, tuple[type[np.generic], tuple[int, ...]]] = {
            "cell_offsets": (np.int64, (num_images + 1,)),
            "crowd_offsets": (np.int64, (num_images + 1,)),
            "origins": (np.int8, (num_truth,)),
        }
        wanted |= dict.fromkeys(_CELLS, (np.int32, (cells,)))
        return wanted | {name: (np.int32, (count, 4)) for name, count in rows.items()}

    def sound(
        self,
        num_truth: NDArray[np.int64],
        num_predicted: NDArray[np.int64],
        num_pixels: NDArray[np.int64],
    ) -> Iterator[tuple[str, bool | np.bool_]]:
        """Yield what must hold of columns as `expected`, and whether it does.

        Args:
            num_truth: `(I,)` true entities of each image.
            num_predicted: `(I,)` predicted ones.
            num_pixels: `(I,)` pixels.
        """
        whole = _ascends(self.cell_offsets, len(self.cell_truth))
        yield "`cell_offsets` do not ascend from 0 to the cells", whole
        yield (
            "`crowd_offsets` do not ascend from 0 to the crowds",
            _ascends(self.crowd_offsets, len(self.crowd_boxes)),
        )
        if not whole:
            return
        image = images_of(self.cell_offsets)
        num_ids = num_truth + np.diff(self.crowd_offsets)
        in_truth = (self.cell_truth >= 0) & (self.cell_truth <= num_ids[image])
        in_prediction = (self.cell_prediction >= 0) & (self.cell_prediction <= num_predicted[image])
        covered = np.bincount(image, weights=self.cell_pixels, minlength=len(num_pixels))
        yield "a cell of an id that does not exist", np.all(in_truth & in_prediction)
        yield "a cell without a pixel", np.all(self.cell_pixels > 0)
        yield "cells that do not ascend", self._cells_ascend(image)
        yield "cells of more pixels than the image", np.all(covered <= num_pixels)
        yield (
            "a box of negative size",
            all(np.all(getattr(self, name) >= 0) for name in _BOXES),
        )
        yield "an origin that is none", np.all(np.isin(self.origins, (THING, STUFF, UNKNOWN)))

    def _cells_ascend(self, image: NDArray[np.int64]) -> bool:
        """Tell whether the cells of each image ascend by (truth, prediction) without repeating."""
        keys = np.stack([self.cell_prediction, self.cell_truth, image])
        return bool(np.all(np.diff(np.lexsort(keys)) == 1) and np.all(np.diff(keys).any(axis=0)))


def _ascends(offsets: NDArray[np.int64], rows: int) -> bool:
    return bool(offsets[0] == 0 and offsets[-1] == rows and np.all(np.diff(offsets) >= 0))


NAMES = tuple(field.name for field in fields(Tables))


def _empty(name: str) -> Int32:
    return np.zeros((0, 4) if name in _BOXES else 0, dtype=np.int32)
