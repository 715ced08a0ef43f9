"""The cross-dataset leaderboard: what a model was trained on, what it was tested on, its score."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from entitybench.reports.results import Run, domain_of, test_title, training_title

DASH = "–"


@dataclass(frozen=True, slots=True, eq=False)
class Cell:
    """A method, trained on some sets, on one test set; several runs are its seeds.

    Attributes:
        runs: At least one.
        value: Mean over the runs, in points; None where undefined.
        low: Lower end of the interval or, of several runs, the least of them; None if unknown.
        high: Upper end.
        is_best: Whether no defined value in its row is greater, as shown (one decimal), among
            models that have not seen the test.
        footnotes: Numbers of the notes below the matrix that concern it.
    """

    runs: tuple[Run, ...]
    value: float | None
    low: float | None
    high: float | None
    is_best: bool = False
    footnotes: tuple[int, ...] = ()

    @property
    def saw_the_test(self) -> bool:
        """Whether one of the runs was trained on what it is tested on."""
        return any(run.saw_the_test for run in self.runs)

    @property
    def is_spread(self) -> bool:
        """Whether `low` and `high` span seeds; else they are an interval over images."""
        return len(self.runs) > 1


@dataclass(frozen=True, slots=True, eq=False)
class Matrix:
    """Trained on → (columns) × tested on ↓ (rows), methods side by side within a column.

    Attributes:
        metric: The score's name.
        columns: Training sets and method of each column, methods of one training together.
        rows: Test sets, single ones first, unions last.
        cells: `[row][column]`; None where there is no result.
        notes: Footnotes, numbered from 1.
    """

    metric: str
    columns: tuple[tuple[tuple[str, ...], str], ...]
    rows: tuple[tuple[str, ...], ...]
    cells: tuple[tuple[Cell | None, ...], ...]
    notes: tuple[str, ...]

    @property
    def groups(self) -> list[tuple[tuple[str, ...], int]]:
        """Training sets in order, with how many columns each spans."""
        order = dict.fromkeys(training for training, _ in self.columns)
        return [(t, sum(training == t for training, _ in self.columns)) for t in order]

    @property
    def best_of_row(self) -> list[float]:
        """Greatest value of each row; 0 where nothing is defined."""
        return [max((c.value for c in row if c and c.value), default=0.0) for row in self.cells]


Intervals = Mapping[tuple[str, str], tuple[float, float]]
"""Model and ground truth → ends of an interval of the metric, in points."""


def leaderboard(
    runs: Sequence[Run], metric: str = "AP", intervals: Intervals | None = None
) -> Matrix:
    """Lay out the runs.

    Args:
        runs: At least one.
        metric: The score's name.
        intervals: For runs whose result file has none.

    Columns are ordered by how many sets they were trained on (unstated first), then by name;
    rows likewise, so that unions stand last.
    """
    columns = sorted({(r.trained_on, r.method) for r in runs}, key=lambda c: (len(c[0]), c))
    rows = sorted({r.tested_on for r in runs}, key=lambda t: (len(t), t))
    notes: list[str] = []
    cells = []
    for test in rows:
        here = [r for r in runs if r.tested_on == test]
        line = [
            _cell(_of(here, column), metric, here[0], notes, intervals or {}) for column in columns
        ]
        cells.append(_with_best(line))
    return Matrix(metric, tuple(columns), tuple(rows), tuple(cells), tuple(notes))


def _of(runs: Sequence[Run], column: tuple[tuple[str, ...], str]) -> tuple[Run, ...]:
    return tuple(r for r in runs if (r.trained_on, r.method) == column)


def _cell(
    runs: tuple[Run, ...], metric: str, first: Run, notes: list[str], intervals: Intervals
) -> Cell | None:
    if not runs:
        return None
    values = [v for run in runs if (v := run.points(metric)) is not None]
    value = statistics.fmean(values) if values else None
    low, high = _ends(runs, values, metric, intervals)
    footnotes = {_note(text, notes) for run in runs for text in remarks(run, first)}
    return Cell(runs, value, low, high, footnotes=tuple(sorted(footnotes)))


def _ends(
    runs: Sequence[Run], values: Sequence[float], metric: str, intervals: Intervals
) -> tuple[float | None, float | None]:
    if len(runs) > 1:
        return (min(values), max(values)) if values else (None, None)
    own = runs[0].result.intervals.get(metric)
    if own is not None:
        return own.low, own.high
    return intervals.get((runs[0].name, runs[0].ground_truth), (None, None))


def remarks(run: Run, first: Run) -> list[str]:
    """Say what a reader of the run's number must know, next to the row's first run."""
    said = []
    if run.saw_the_test:
        said.append("trained on images that it is tested on: not a test")
    differing = first.result.metric.differences(run.result.metric)
    if differing:
        said.append(
            f"computed differently from the rest of its row ({', '.join(differing)}): "
            f"{run.result.signature.metric}"
        )
    prediction = run.result.prediction
    if prediction.score_rule != "model":
        said.append(f"scores are not the model's own: `{prediction.score_rule}`")
    if prediction.resolved_images:
        said.append(
            f"masks overlapped, and were resolved, in {prediction.resolved_images:,} images"
        )
    if prediction.thresholded is not None:
        said.append(f"scores below {prediction.thresholded:g} were dropped")
    return said


def _note(text: str, notes: list[str]) -> int:
    if text not in notes:
        notes.append(text)
    return notes.index(text) + 1


def _with_best(line: Sequence[Cell | None]) -> tuple[Cell | None, ...]:
    fair = [round(c.value, 1) for c in line if c and c.value is not None and not c.saw_the_test]
    best = max(fair, default=None)
    marked: list[Cell | None] = []
    for cell in line:
        if cell is None or cell.value is None or cell.saw_the_test:
            marked.append(cell)
            continue
        is_best = len(fair) > 1 and round(cell.value, 1) == best
        marked.append(Cell(cell.runs, cell.value, cell.low, cell.high, is_best, cell.footnotes))
    return tuple(marked)


@dataclass(frozen=True, slots=True)
class Transfer:
    """A model at home and abroad.

    Attributes:
        model: Method and training, in words.
        home: Mean score on test sets of the sources it was trained on, in points.
        abroad: Test set in words, score there, and how much less that is than `home`.
    """

    model: str
    home: float
    abroad: tuple[tuple[str, float, float], ...]


def generalisation(matrix: Matrix) -> list[Transfer]:
    """Tell how far each trained model falls from its own sources to others'.

    Only single test sets; a model without a score at home is left out.
    """
    found = []
    for index, (training, method) in enumerate(matrix.columns):
        domains = {domain_of(name) for name in training}
        at = {
            test[0]: cell.value
            for test, line in zip(matrix.rows, matrix.cells, strict=True)
            if len(test) == 1 and (cell := line[index]) and cell.value is not None
        }
        home = [value for test, value in at.items() if domain_of(test) in domains]
        away = {test: value for test, value in at.items() if domain_of(test) not in domains}
        if home and away:
            mean = statistics.fmean(home)
            drops = tuple((test_title([t]), v, mean - v) for t, v in away.items())
            found.append(Transfer(f"{method}, trained on {training_title(training)}", mean, drops))
    return found


@dataclass(frozen=True, slots=True)
class JointGain:
    """What training on several sources gained on one test set, in points.

    Attributes:
        alone: Score of the same method trained on the test set's own source alone.
        joint: Score when trained on several, that source among them.
    """

    method: str
    training: str
    test: str
    alone: float
    joint: float

    @property
    def gain(self) -> float:
        """Joint less alone."""
        return self.joint - self.alone


def joint_gains(matrix: Matrix) -> list[JointGain]:
    """Compare joint training with training at home alone, per method and single test set."""
    gains = []
    for test, line in zip(matrix.rows, matrix.cells, strict=True):
        if len(test) > 1:
            continue
        home = domain_of(test[0])
        values = {
            column: cell.value
            for column, cell in zip(matrix.columns, line, strict=True)
            if cell and cell.value is not None and not cell.saw_the_test
        }
        for (training, method), joint in values.items():
            domains = {domain_of(name) for name in training}
            if len(domains) < 2 or home not in domains:
                continue
            alone = next(
                (v for (t, m), v in values.items() if m == method and _only(t, home)), None
            )
            if alone is not None:
                title = training_title(training)
                gains.append(JointGain(method, title, test_title(test), alone, joint))
    return gains


def _only(training: Sequence[str], domain: str) -> bool:
    return {domain_of(name) for name in training} == {domain}
