"""The contingency tables of all images under one numbering, so that NumPy reads them at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from entitybench.errors import MissingDataError
from entitybench.metrics.matching import Pairs
from entitybench.metrics.protocol import CrowdRule, Protocol, VoidRule
from entitybench.metrics.ragged import images_of, offsets_of
from entitybench.metrics.records import MatchRecords
from entitybench.metrics.tables import Tables

NO_ROW = -1


def tables_of(records: MatchRecords) -> Tables:
    """Return the tables of match records.

    Raises:
        MissingDataError: They were made without.
    """
    if records.tables is None:
        msg = "these match records hold no contingency tables"
        raise MissingDataError(msg, hint="run `entitybench eval` again, without `--quick`")
    return records.tables


@dataclass(frozen=True, slots=True, eq=False)
class SharedPixels:
    """Cells of I images whose true ids count `0…M` throughout, and predicted ids `0…Q`.

    Each image has its own void on either side.

    Attributes:
        image: `(K,)` int64 image of each cell.
        truth: `(K,)` int64 true id of each cell.
        prediction: `(K,)` int64 predicted id of each cell.
        pixels: `(K,)` int64.
        truth_first: `(I,)` int64 the true id that is the image's void; entities follow it.
        truth_areas: `(M,)` int64 pixels; of void, what predictions cover of it.
        truth_rows: `(M,)` int64 row among the records' true entities; -1 for void and crowds.
        truth_images: `(M,)` int64.
        is_void: `(M,)`.
        prediction_areas: `(Q,)` int64 pixels.
        prediction_rows: `(Q,)` int64 row among the records' predictions; -1 for void, and for
            those beyond the best 100.
        prediction_images: `(Q,)` int64.
        is_predicted: `(Q,)` whether an id is a predicted entity: not void.
    """

    image: NDArray[np.int64]
    truth: NDArray[np.int64]
    prediction: NDArray[np.int64]
    pixels: NDArray[np.int64]
    truth_first: NDArray[np.int64]
    truth_areas: NDArray[np.int64]
    truth_rows: NDArray[np.int64]
    truth_images: NDArray[np.int64]
    is_void: NDArray[np.bool_]
    prediction_areas: NDArray[np.int64]
    prediction_rows: NDArray[np.int64]
    prediction_images: NDArray[np.int64]
    is_predicted: NDArray[np.bool_]

    @classmethod
    def of(cls, records: MatchRecords) -> SharedPixels:
        """Number the ids of all images.

        Raises:
            MissingDataError: The records hold no tables.
        """
        tables = tables_of(records)
        image = images_of(tables.cell_offsets)
        num_entities = np.diff(records.truth_offsets)
        truth_offsets = offsets_of(num_entities + np.diff(tables.crowd_offsets) + 1)
        predicted_offsets = offsets_of(records.num_predicted + 1)
        truth = truth_offsets[image] + tables.cell_truth
        prediction = predicted_offsets[image] + tables.cell_prediction
        pixels = tables.cell_pixels.astype(np.int64)
        owners = images_of(truth_offsets)
        local = np.arange(len(owners)) - truth_offsets[owners]
        is_entity = (local > 0) & (local <= num_entities[owners])
        rows = np.where(is_entity, records.truth_offsets[owners] + local - 1, NO_ROW)
        predicted_images = images_of(predicted_offsets)
        is_predicted = np.ones(len(predicted_images), dtype=bool)
        is_predicted[predicted_offsets[:-1]] = False
        predicted_rows = np.full(len(predicted_images), NO_ROW)
        ranked = predicted_offsets[images_of(records.detection_offsets)] + records.prediction_ids
        predicted_rows[ranked] = np.arange(len(ranked))
        return cls(
            image,
            truth,
            prediction,
            pixels,
            truth_offsets[:-1],
            np.bincount(truth, pixels, len(owners)).astype(np.int64),
            rows,
            owners,
            local == 0,
            np.bincount(prediction, pixels, len(predicted_images)).astype(np.int64),
            predicted_rows,
            predicted_images,
            is_predicted,
        )

    @property
    def is_crowd(self) -> NDArray[np.bool_]:
        """`(M,)` whether a true id is a crowd."""
        crowds: NDArray[np.bool_] = (self.truth_rows == NO_ROW) & ~self.is_void
        return crowds

    def ranked_pairs(self, protocol: Protocol) -> Pairs:
        """List ranked predictions, by row, and the true ids that they touch and may match."""
        ignoring = self.is_void & (protocol.void is VoidRule.IGNORE)
        ignoring |= self.is_crowd & (protocol.crowd is CrowdRule.IGNORE)
        takes_part = ignoring | (self.truth_rows != NO_ROW)
        held = takes_part[self.truth] & (self.prediction_rows[self.prediction] != NO_ROW)
        truth, prediction, shared = self.truth[held], self.prediction[held], self.pixels[held]
        crowd, own = ignoring[truth], self.prediction_areas[prediction]
        union = np.where(crowd, own, own + self.truth_areas[truth] - shared)
        return Pairs(self.prediction_rows[prediction], truth, shared / union, crowd)


def found_at(records: MatchRecords, shared: SharedPixels) -> NDArray[np.uint16]:
    """Return for each true entity the bits of the thresholds at which it is found: `(G,)`."""
    hits = records.matched[:, 0] & ~records.ignored[:, 0]
    rows = np.flatnonzero(hits)
    images = images_of(records.detection_offsets)[rows]
    found = np.zeros(len(records.truth_sizes), dtype=np.uint16)
    found[shared.truth_rows[shared.truth_first[images] + records.partners[rows]]] = hits[rows]
    return found
