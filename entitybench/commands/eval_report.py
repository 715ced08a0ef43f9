"""What `entitybench eval` tells a person: scores, causes, the worst images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from entitybench.commands.console import table

if TYPE_CHECKING:
    from entitybench.metrics.breakdown import RecallOfSize
    from entitybench.metrics.calibration import ReliabilityBin
    from entitybench.metrics.class_quality import ClassQuality
    from entitybench.metrics.diagnosis import Diagnosis
    from entitybench.metrics.evaluation import Evaluation
    from entitybench.metrics.per_image import ImageReport
    from entitybench.result import Result

COLUMNS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "PQ", "SQ", "RQ")
FURTHER = (
    *("APb", "APb50", "APb75", "APthing", "APstuff", "ARthing", "ARstuff", "APoverlapping"),
    *("PQcthing", "PQcstuff", "ECE"),
)
NUM_WORST = 10


def score_table(results: Sequence[Result], columns: Sequence[str] = COLUMNS) -> str:
    """Lay out scores in points, a row per result and one per end of its intervals.

    Undefined is `–`, what was not computed is left empty.
    """
    rows = [["", *columns]]
    for result in results:
        rows.append([_name(result), *(_cell(result, column) for column in columns)])
        rows += _interval_rows(result, columns)
        rows += _class_rows(result, columns)
        rows += _overlapping_rows(result, columns)
    return table(rows)


def _name(result: Result) -> str:
    boundary = "boundary" if result.metric.boundary else ""
    subset = result.metric.subset.partition("@")[0]
    return ", ".join(part for part in (result.model.name, boundary, subset) if part)


def _cell(result: Result, column: str) -> str:
    if column not in result.scores:
        return ""
    value = result.scores[column]
    return "–" if value is None else f"{value:.1f}"


def _class_rows(result: Result, columns: Sequence[str]) -> list[list[str]]:
    """PQ by class stands below PQ, in a row of its own, where there is one; then its interval."""
    if "PQc" not in result.scores or "PQ" not in columns:
        return []
    classes = [f"{column}c" for column in columns]
    row = ["  by class", *(_cell(result, name) for name in classes)]
    return [row, *_interval_rows(result, classes)]


def _overlapping_rows(result: Result, columns: Sequence[str]) -> list[list[str]]:
    """AP of the masks that overlapped stands below AP, and below it the gap."""
    loose, flat = result.scores.get("APoverlapping"), result.scores.get("AP")
    if loose is None or flat is None or columns[0] != "AP":
        return []
    empty = [""] * (len(columns) - 1)
    rows = {"before flattening": f"{loose:.1f}", "gap": f"{loose - flat:.1f}"}
    return [[f"  {name}", text, *empty] for name, text in rows.items()]


def _interval_rows(result: Result, columns: Sequence[str]) -> list[list[str]]:
    found = [result.intervals.get(column) for column in columns]
    levels = {interval.level for interval in found if interval is not None}
    if not levels:
        return []
    tail = 50 * (1 - levels.pop())
    lows = ["" if i is None or i.low is None else f"{i.low:.1f}" for i in found]
    highs = ["" if i is None or i.high is None else f"{i.high:.1f}" for i in found]
    return [[f"  {tail:.3g} %", *lows], [f"  {100 - tail:.3g} %", *highs]]


class Explanation:
    """Why AP is not 100, in words and as JSON.

    Raises:
        MissingDataError: The evaluation's records hold no tables.
    """

    def __init__(self, evaluation: Evaluation) -> None:
        from entitybench.metrics.breakdown import recall_by_relative_area
        from entitybench.metrics.calibration import reliability
        from entitybench.metrics.class_quality import quality_by_class
        from entitybench.metrics.diagnosis import diagnose
        from entitybench.metrics.per_image import report_images, worst_first

        self._several_sets = len({key.set_name for key in evaluation.records.images}) > 1
        self.diagnosis: Diagnosis = diagnose(evaluation.records)
        self.sizes: list[RecallOfSize] = recall_by_relative_area(evaluation.records)
        self.worst: list[ImageReport] = worst_first(report_images(evaluation.records))[:NUM_WORST]
        self.bins: list[ReliabilityBin] = reliability(evaluation.records)
        sums = evaluation.records.classes
        self.classes: list[ClassQuality] = [] if sums is None else quality_by_class(sums)

    def __str__(self) -> str:
        parts = [self._causes(), self._recall(), self._reliability(), self._images()]
        return "\n\n".join(parts + ([self._by_class()] if self.classes else []))

    def as_json(self) -> dict[str, Any]:
        """Return the same as plain values, in points."""
        from dataclasses import asdict

        return {
            "causes": {
                str(f.cause): {
                    "entities": f.entities,
                    "false_positives": f.predictions,
                    "gain": 100 * f.gain,
                    "share": 100 * f.share,
                }
                for f in self.diagnosis.findings
            },
            "recall_by_relative_area": [
                {**asdict(row), "recall": 100 * row.recall} for row in self.sizes
            ],
            "reliability": [
                {
                    "low": 100 * row.low,
                    "high": 100 * row.high,
                    "predictions": row.predictions,
                    "score": 100 * row.score,
                    "matched": 100 * row.matched,
                }
                for row in self.bins
            ],
            "worst_images": [
                {k: 100 * v if isinstance(v, float) else v for k, v in asdict(row).items()}
                for row in self.worst
            ],
            "classes": [
                {k: 100 * v if isinstance(v, float) else v for k, v in asdict(row).items()}
                for row in self.classes
            ],
        }

    def _causes(self) -> str:
        rows = [["missing AP", "entities", "false positives", "share", "if repaired"]]
        for finding in self.diagnosis.findings:
            counts = [f"{finding.entities:,}", f"{finding.predictions:,}"]
            gains = [_points(finding.share), f"+{_points(finding.gain)}"]
            rows.append([str(finding.cause), *counts, *gains])
        missing = _points(1 - self.diagnosis.AP)
        return (
            f"{table(rows)}\n(counts at IoU .50; the shares sum to the {missing} that are missing)"
        )

    def _recall(self) -> str:
        rows = [["share of the image", "entities", "recall"]]
        for row in self.sizes:
            name = f"{100 * row.low:g}–{100 * row.high:g} %"
            rows.append([name, f"{row.entities:,}", _points(row.recall)])
        return table(rows)

    def _reliability(self) -> str:
        rows = [["score", "predictions", "mean score", "matched at IoU .50"]]
        for row in self.bins:
            name = f"{100 * row.low:g}–{100 * row.high:g}"
            rows.append([name, f"{row.predictions:,}", _points(row.score), _points(row.matched)])
        return table(rows)

    def _images(self) -> str:
        causes = ["merged", "split", "boundary", "missed", "spurious"]
        rows = [["worst images", "PQ", "entities", "predicted", *causes]]
        for row in self.worst:
            name = f"{row.set_name}/{row.image_id}" if self._several_sets else row.image_id
            counts = [row.entities, row.predicted, *(getattr(row, cause) for cause in causes)]
            rows.append([name, _points(row.PQ), *map(str, counts)])
        return table(rows)

    def _by_class(self) -> str:
        origins = {True: "thing", False: "stuff", None: ""}
        rows = [["class", "origin", "PQ", "SQ", "RQ", "matched", "spurious", "missed"]]
        for row in self.classes:
            counts = (f"{count:,}" for count in (row.matched, row.spurious, row.missed))
            quality = map(_points, (row.PQ, row.SQ, row.RQ))
            rows.append([row.name, origins[row.isthing], *quality, *counts])
        return table(rows)


def _points(fraction: float) -> str:
    return "–" if math.isnan(fraction) else f"{100 * fraction:.1f}"
