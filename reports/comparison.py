"""Measured next to published: which cell a result repeats, and whether the two may be compared.

Measured and published numbers never share a column. A difference is given only where the
result repeats the cell: the same method, training, test images and protocol.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from entitybench.reports.published import Published, PublishedCell
from entitybench.reports.results import Run

PAPER_PROTOCOL = "official"


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """A published cell and what was measured for it.

    Attributes:
        cell: What the paper printed.
        runs: The results that answer it; several are seeds.
        value: Their mean, in points.
        obstacles: Why the two cannot be subtracted; empty if they can.
    """

    cell: PublishedCell
    runs: tuple[Run, ...]
    value: float
    obstacles: tuple[str, ...]

    @property
    def delta(self) -> float | None:
        """Measured less published, in points; None where they cannot be compared."""
        return None if self.obstacles else self.value - self.cell.value

    @property
    def within_interval(self) -> bool | None:
        """Whether the published value lies in the measured interval; None if there is none."""
        if self.obstacles or len(self.runs) != 1 or self.cell.metric is None:
            return None
        interval = self.runs[0].result.intervals.get(self.cell.metric)
        if interval is None or interval.low is None or interval.high is None:
            return None
        return interval.low <= self.cell.value <= interval.high


def compare(runs: Sequence[Run], published: Published) -> list[Comparison]:
    """Answer every published cell for which there is a result, in the order of the tables."""
    found = (answer(cell, runs, published) for cell in published.cells())
    return [comparison for comparison in found if comparison is not None]


def answer(cell: PublishedCell, runs: Sequence[Run], published: Published) -> Comparison | None:
    """Find what was measured for a published cell.

    The method itself is preferred to its smaller kin, in the order of the list; training and
    test sets must have the cell's names.
    """
    if cell.metric is None or cell.method is None:
        return None
    same, kin = published.names(cell.method)
    for method in (*same, *kin):
        chosen = tuple(
            run
            for run in runs
            if run.method == method
            and run.trained_on == tuple(sorted(cell.trained_on))
            and run.tested_on == tuple(sorted(cell.tested_on))
        )
        values = [v for run in chosen if (v := run.points(cell.metric)) is not None]
        if values:
            obstacles = _obstacles(cell, chosen[0], published, is_kin=method in kin)
            return Comparison(cell, chosen, statistics.fmean(values), obstacles)
    return None


def _obstacles(
    cell: PublishedCell, run: Run, published: Published, *, is_kin: bool
) -> tuple[str, ...]:
    found = []
    if is_kin:
        found.append(f"`{run.method}` is a smaller model of the same design")
    wanted = sum(published.sets[name].num_images for name in cell.tested_on)
    if run.result.ground_truth.num_images != wanted:
        found.append(
            f"measured on {run.result.ground_truth.num_images:,} images, published on {wanted:,}"
        )
    protocol = run.result.metric.protocol
    if protocol != PAPER_PROTOCOL:
        found.append(f"protocol `{protocol}`, the paper's is `{PAPER_PROTOCOL}`")
    epochs = run.result.model.epochs
    if cell.epochs and epochs is not None and epochs != cell.epochs:
        found.append(f"trained for {epochs} epochs, published {cell.epochs}")
    if run.saw_the_test:
        found.append("trained on images that it is tested on")
    return tuple(found)


def impostors(runs: Sequence[Run], published: Published) -> list[str]:
    """Name test sets that bear a published split's name and are not it."""
    said = []
    for run in runs:
        for name in run.tested_on if len(run.tested_on) == 1 else ():
            known = published.sets.get(name)
            here = run.result.ground_truth.num_images
            if known and known.num_images != here:
                said.append(
                    f"`{name}` here has {here:,} images, {known.title} has {known.num_images:,}"
                )
    return list(dict.fromkeys(said))
