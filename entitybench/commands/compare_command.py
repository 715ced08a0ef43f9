"""`entitybench compare`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from entitybench.commands.console import emit, json_option, table

if TYPE_CHECKING:
    from entitybench.metrics.comparison import Comparison, Difference

REGRESSION = "AP"
"""The score that decides whether a model got worse."""


@click.command("compare")
@click.argument(
    "results",
    nargs=-1,
    required=True,
    metavar="BASELINE OTHER…",
    type=click.Path(path_type=Path, dir_okay=False),
)
@click.option(
    "--bootstrap",
    "resamples",
    type=click.IntRange(0),
    default=1000,
    show_default=True,
    help="Resamples of the images, the same for both models; 0 for no intervals.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of resamples.")
@click.option(
    "--level",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.95,
    show_default=True,
    help="Of the intervals.",
)
@click.option(
    "--allow-mixed",
    is_flag=True,
    help="Compare scores that were computed differently, and say how.",
)
@click.option(
    "--fail-on-regression",
    is_flag=True,
    help="Exit with 1 if AP fell: by more than chance where there are intervals.",
)
@json_option
def command(
    results: tuple[Path, ...],
    resamples: int,
    seed: int,
    level: float,
    allow_mixed: bool,
    fail_on_regression: bool,
    as_json: bool,
) -> int:
    r"""Compare result files with the first of them.

    Both models are scored on the same resampled images, so an interval is of the difference
    itself; `*` marks those that leave out 0. It needs the `.matches.npz` files beside the
    results.

    \b
      entitybench compare results/base/coco_entity_val.json results/mine/coco_entity_val.json
    """
    from entitybench.metrics.comparison import compare

    done = compare(results, resamples=resamples, seed=seed, level=level, allow_mixed=allow_mixed)
    worse = [c for c in done if c[REGRESSION].is_regression]
    if as_json:
        emit({"comparisons": [_as_json(comparison) for comparison in done]})
    else:
        click.echo("\n\n".join(_text(comparison) for comparison in done))
        click.echo(f"\n{done[0].baseline.result.signature.metric}")
    return 1 if worse and fail_on_regression else 0


def _text(comparison: Comparison) -> str:
    names = [scored.result.model.name for scored in (comparison.baseline, comparison.other)]
    level = next((d.interval.level for d in comparison.differences if d.interval), None)
    head = ["", *names, "delta"] + ([] if level is None else [f"{100 * level:g} % interval", ""])
    rows = [head, *(_row(d, wide=level is not None) for d in comparison.differences)]
    return "\n".join([table(rows), *(f"note: {note}" for note in comparison.notes)])


def _row(difference: Difference, *, wide: bool) -> list[str]:
    row = [
        difference.name,
        _points(difference.baseline),
        _points(difference.other),
        _signed(difference.delta),
    ]
    if not wide:
        return row
    found = difference.interval
    text = "" if found is None else f"[{_signed(found.low)}, {_signed(found.high)}]"
    return [*row, text, "*" if difference.is_certain else ""]


def _as_json(comparison: Comparison) -> dict[str, Any]:
    return {
        "baseline": str(comparison.baseline.path),
        "other": str(comparison.other.path),
        "scores": {d.name: _plain(d) for d in comparison.differences},
        "regression": comparison[REGRESSION].is_regression,
        "notes": list(comparison.notes),
    }


def _plain(difference: Difference) -> dict[str, Any]:
    values = {
        "baseline": 100 * difference.baseline,
        "other": 100 * difference.other,
        "delta": 100 * difference.delta,
    }
    found = difference.interval
    if found is None:
        return values
    return values | {
        "interval": {
            "low": 100 * found.low,
            "high": 100 * found.high,
            "level": found.level,
            "resamples": found.resamples,
            "seed": found.seed,
        }
    }


def _points(fraction: float) -> str:
    return "–" if math.isnan(fraction) else f"{100 * fraction:.1f}"


def _signed(fraction: float) -> str:
    return "–" if math.isnan(fraction) else f"{100 * fraction:+.1f}"
