"""The result file: one model on one ground truth, `results/<model>/<gt>.json`.

Scores in the file are points (AP × 100) and undefined is null; everything in Python is a
fraction and NaN. Files of version 1 stay readable.
"""

from __future__ import annotations

import math
import os
import platform
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
import numpy as np

from entitybench import __version__
from entitybench.entity_set import decode
from entitybench.errors import FormatError, MissingDataError
from entitybench.signature import MetricSignature, PredictionSignature
from entitybench.whole_file import write_whole

FORMAT: Final = "entitybench-result/1"
_FAMILY = "entitybench-result/"

Count = Annotated[int, msgspec.Meta(ge=0)]
Points = Annotated[float, msgspec.Meta(ge=0, le=100.000001)]  # room for rounding


class ModelInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What made the predictions, and what it was trained on."""

    name: str
    trained_on: tuple[str, ...] = ()
    epochs: float | int | None = None
    url: str | None = None


class GroundTruthInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the predictions were scored on; `sha256` is the set's content hash."""

    name: str
    num_images: Count
    num_entities: Count
    sha256: str


class Signatures(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Both parts of the signature, as text (see `entitybench.signature`)."""

    metric: str
    prediction: str


class Interval(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A confidence interval of one score, in points."""

    level: Annotated[float, msgspec.Meta(gt=0, lt=1)]
    low: float | None
    high: float | None
    resamples: Count
    seed: int


class Result(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything the result file says.

    Attributes:
        model: What made the predictions.
        ground_truth: What they were scored on.
        signature: How.
        scores: Name → points; None is undefined. `score` gives fractions.
        intervals: Name → interval in points, for the scores that have one.
        counts: Name → how many.
        environment: Package or platform → version; recorded, never compared.
        created: When, in UTC to the second.
        seconds: How long scoring took; None where the run is to be repeatable to the byte.
        format: The version of the file format.
    """

    model: ModelInfo
    ground_truth: GroundTruthInfo
    signature: Signatures
    scores: dict[str, Points | None]
    intervals: dict[str, Interval] = {}
    counts: dict[str, Count]
    environment: dict[str, str]
    created: Annotated[datetime, msgspec.Meta(tz=True)]
    seconds: Annotated[float, msgspec.Meta(ge=0)] | None
    format: Literal["entitybench-result/1"] = FORMAT

    @property
    def metric(self) -> MetricSignature:
        """The metric part of the signature: must be equal within a column."""
        return MetricSignature.parse(self.signature.metric)

    @property
    def prediction(self) -> PredictionSignature:
        """The prediction part of the signature."""
        return PredictionSignature.parse(self.signature.prediction)

    def score(self, name: str) -> float:
        """Return a score as a fraction; NaN if it is undefined or not in the file."""
        points = self.scores.get(name)
        return math.nan if points is None else points / 100


class _Version(msgspec.Struct):
    format: str


def points_of(fractions: Mapping[str, float]) -> dict[str, float | None]:
    """Turn fractions into what a file holds: points, and None for NaN.

    >>> points_of({"AP": 0.25, "APs": math.nan})
    {'AP': 25.0, 'APs': None}
    """
    return {k: None if math.isnan(v) else float(v) * 100 for k, v in fractions.items()}


def environment() -> dict[str, str]:
    """Return the versions that a result records."""
    return {
        "entitybench": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "platform": f"{sys.platform}-{platform.machine()}",
    }


def time_stamp(seconds: float) -> tuple[datetime, float | None]:
    """Return what a result records as `created` and `seconds`.

    Where `SOURCE_DATE_EPOCH` is set, that instant and None: equal input then gives equal bytes.

    Args:
        seconds: How long scoring took.

    Raises:
        FormatError: `SOURCE_DATE_EPOCH` is not a number of seconds.
    """
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    if not epoch:
        return datetime.now(UTC).replace(microsecond=0), round(seconds, 3)
    try:
        return datetime.fromtimestamp(int(epoch), UTC), None
    except (ValueError, OverflowError, OSError) as error:
        msg = f"SOURCE_DATE_EPOCH is {epoch!r}, not a number of seconds"
        raise FormatError(msg) from error


def write_result(path: Path, result: Result) -> None:
    """Write a result file, whole or not at all; makes the folder. Keys are sorted.

    Raises:
        FormatError: The result could not be read again.
    """
    plain = msgspec.json.encode(result, order="sorted")
    data = msgspec.json.format(plain, indent=2) + b"\n"
    _decoded(data, str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, data)


def read_result(path: Path) -> Result:
    """Read a result file of any version so far.

    Raises:
        MissingDataError: There is no such file.
        FormatError: It is no result file, of a newer version, or broken.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        msg = f"the result file cannot be read: {error.strerror}"
        raise MissingDataError(msg, where=str(path)) from error
    return _decoded(data, str(path))


def _decoded(data: bytes, place: str) -> Result:
    found = decode(data, _Version, place).format
    if found != FORMAT:
        is_newer = found.startswith(_FAMILY)
        msg = f"format is `{found}`, this version reads `{FORMAT}`"
        hint = "upgrade entitybench" if is_newer else "result files are what `eval` writes"
        raise FormatError(msg, where=place, hint=hint)
    result = decode(data, Result, place)
    try:
        _ = result.metric, result.prediction
    except FormatError as error:
        where = f"{place}: $.signature"
        raise error.at(where) from error
    return result
