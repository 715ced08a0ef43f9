"""What a bootstrap replicate costs: `python -m tests.benchmarks.resampling`.

One thread. A replicate is one draw of all images with every score that has an interval; what is
done once before the first is told apart. The truth of the set has no origins, so every third
entity is called stuff here.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import NamedTuple

import click
import numpy as np

from entitybench import kernel
from entitybench.metrics.benchmark import evaluate
from entitybench.metrics.bootstrap import resample, score_names
from entitybench.metrics.records import MatchRecords
from entitybench.metrics.tables import STUFF, THING
from tests.benchmarks.dataset import benchmark_set

MOST_MS = 5.0


class Cost(NamedTuple):
    """CPU milliseconds: once, and for each replicate."""

    once: float
    replicate: float


def cost(records: MatchRecords, resamples: int, names: Sequence[str] | None) -> Cost:
    """Measure one choice of scores."""
    began = time.process_time()
    resample(records, 0, 0, names)
    ready = time.process_time()
    resample(records, resamples, 0, names)
    once = ready - began
    return Cost(1e3 * once, 1e3 * (time.process_time() - ready - once) / resamples)


def with_some_origins(records: MatchRecords) -> MatchRecords:
    if records.tables is None:
        return records
    rows = np.arange(len(records.truth_sizes))
    origins = np.where(rows % 3 == 0, STUFF, THING).astype(np.int8)
    return replace(records, tables=records.tables.with_origins(origins))


@click.command()
@click.option("--images", default=5000, show_default=True, help="Images of the set.")
@click.option("--resamples", default=100, show_default=True)
@click.option("--rounds", default=5, show_default=True, help="The median of so many counts.")
@click.option("--root", type=click.Path(path_type=Path), help="Where sets are kept.")
def main(images: int, resamples: int, rounds: int, root: Path | None) -> None:
    """Print CPU per replicate, and whether the bar holds."""
    made = benchmark_set(images, root=root)
    records = with_some_origins(
        evaluate(made.results_with_boxes, str(made.truth)).evaluation.records
    )
    click.echo(f"{images:,} images, {len(records.scores):,} predictions; {kernel.describe()}")
    choices: dict[str, list[str] | None] = {"AP": ["AP"], "all scores": None}
    costs: dict[str, list[Cost]] = {name: [] for name in choices}
    for _ in range(rounds):
        for name, wanted in choices.items():
            costs[name].append(cost(records, resamples, wanted))
    for name, found in costs.items():
        wanted = choices[name] or score_names(records)
        once, replicate = (median(values) for values in zip(*found, strict=True))
        text = f"{replicate:.2f} ms per replicate, {once:.0f} ms once"
        click.echo(f"{name:<12}{len(wanted):>3} scores  {text}")
    sign = "ok" if replicate <= MOST_MS else "MISS"
    click.echo(f"{sign}  at most {MOST_MS:g} ms per replicate of all scores")


if __name__ == "__main__":
    main()
