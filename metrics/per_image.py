"""One row per image: how good it is and what is wrong with it, worst first."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from entitybench.metrics.diagnosis import CAUSES, Cause, find_faults
from entitybench.metrics.panoptic_quality import panoptic_sums, quality_by_image
from entitybench.metrics.ragged import images_of
from entitybench.metrics.ranking import NUM_THRESHOLDS, bits_of
from entitybench.metrics.records import MatchRecords
from entitybench.metrics.shared_pixels import SharedPixels, found_at
from entitybench.whole_file import write_whole


@dataclass(frozen=True, slots=True)
class ImageReport:
    """One image; qualities are fractions, NaN where undefined.

    Attributes:
        set_name: The ground truth's name.
        image_id: The image's id.
        entities: True entities.
        predicted: Predicted entities.
        PQ: Panoptic quality of this image alone.
        SQ: Its segmentation quality.
        RQ: Its recognition quality.
        recall: Mean recall over the ten IoU thresholds.
        merged: True entities that nothing matches at IoU .50, by cause (see `diagnosis`).
        split: As above.
        boundary: As above.
        missed: As above.
        spurious: Predictions that match nothing at IoU .50 and have this cause.
    """

    set_name: str
    image_id: str
    entities: int
    predicted: int
    PQ: float
    SQ: float
    RQ: float
    recall: float
    merged: int
    split: int
    boundary: int
    missed: int
    spurious: int

    @property
    def faults(self) -> int:
        """Entities not found, and predictions of nothing."""
        return self.merged + self.split + self.boundary + self.missed + self.spurious


def report_images(records: MatchRecords) -> list[ImageReport]:
    """Return a row for each image, in the order of the records.

    Raises:
        MissingDataError: The records hold no tables.
    """
    of_truth, count = images_of(records.truth_offsets), len(records)
    entities = np.diff(records.truth_offsets)
    found = found_at(records, SharedPixels.of(records))
    times = np.sum([np.bincount(of_truth[bits], minlength=count) for bits in bits_of(found)], 0)
    with np.errstate(invalid="ignore"):
        recall = times / entities / NUM_THRESHOLDS
    columns: list[list[Any]] = [
        entities.tolist(),
        records.num_predicted.tolist(),
        *quality_by_image(panoptic_sums(records)).tolist(),
        recall.tolist(),
        *_counts_by_cause(records),
    ]
    return [
        ImageReport(key.set_name, key.image_id, *row)
        for key, *row in zip(records.images, *columns, strict=True)
    ]


def worst_first(reports: Iterable[ImageReport]) -> list[ImageReport]:
    """Order by falling need of a look: least PQ, then most faults; undefined PQ comes last."""
    return sorted(
        reports, key=lambda r: (math.isnan(r.PQ), 0.0 if math.isnan(r.PQ) else r.PQ, -r.faults)
    )


def write_images(path: Path, reports: Iterable[ImageReport]) -> None:
    """Write the rows as CSV, or as JSON if the name ends so; qualities in points."""
    rows = [_in_points(report) for report in reports]
    if path.suffix == ".json":
        text = json.dumps(rows, indent=1, allow_nan=False) + "\n"
    else:
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, [f.name for f in fields(ImageReport)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        text = buffer.getvalue()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text.encode())


def _in_points(report: ImageReport) -> dict[str, str | int | float | None]:
    return {
        name: (None if math.isnan(value) else 100 * value) if isinstance(value, float) else value
        for name, value in asdict(report).items()
    }


def _counts_by_cause(records: MatchRecords) -> list[list[int]]:
    """Count what is at fault at IoU .50 in each image, in the order of `ImageReport`."""
    faults = find_faults(records)
    of_truth, of_predictions = map(images_of, (records.truth_offsets, records.detection_offsets))
    hidden = [Cause.MERGED, Cause.SPLIT, Cause.BOUNDARY, Cause.MISSED]
    counts = [_count(of_truth, faults.truth[0], cause, len(records)) for cause in hidden]
    return [*counts, _count(of_predictions, faults.predictions[0], Cause.SPURIOUS, len(records))]


def _count(
    owners: NDArray[np.int64], causes: NDArray[np.int8], cause: Cause, num_images: int
) -> list[int]:
    at_fault = owners[causes == CAUSES.index(cause)]
    counts: list[int] = np.bincount(at_fault, minlength=num_images).tolist()
    return counts
