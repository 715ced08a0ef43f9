"""A table of the paper as text: as published, and beside it as measured."""

from __future__ import annotations

import math
from collections.abc import Sequence

from entitybench.reports.comparison import Comparison, answer
from entitybench.reports.leaderboard import DASH
from entitybench.reports.published import Published, Table
from entitybench.reports.results import Run, with_union


def measured(
    table: Table, runs: Sequence[Run], published: Published
) -> dict[tuple[int, int], Comparison]:
    """Return what was measured for a table, by row and column; its unions are pooled here."""
    for union in sorted({c.tested_on for c in table.cells() if len(c.tested_on) > 1}):
        runs = with_union(runs, union)
    found = ((cell, answer(cell, runs, published)) for cell in table.cells())
    return {(cell.row, cell.column): hit for cell, hit in found if hit is not None}


def table_text(table: Table, runs: Sequence[Run], published: Published) -> str:
    """Lay out a table twice, published and measured, `–` where there is no number.

    Doubtful cells bear a `?` and measured ones that cannot be compared a `~`; the reasons
    stand below.
    """
    found = measured(table, runs, published)
    doubtful = {(c.row, c.column) for c in table.cells() if c.doubts}
    printed = [
        [_points(value) + "?" * ((r, c) in doubtful) for c, value in enumerate(row.values)]
        for r, row in enumerate(table.rows)
    ]
    ours = [
        [_measured(found.get((r, c))) for c in range(len(table.columns))]
        for r in range(len(table.rows))
    ]
    parts = [f"{table.name}: {table.title} ({table.metric_name}, points)"]
    parts += [_block("published", table, printed), _block("measured", table, ours)]
    notes = _notes(table, list(found.values()))
    return "\n\n".join([*parts, *(["\n".join(notes)] if notes else [])])


def table_cells(table: Table, runs: Sequence[Run], published: Published) -> list[dict[str, object]]:
    """Return every published cell with what was measured for it; None where nothing was."""
    found = measured(table, runs, published)
    cells = []
    for cell in table.cells():
        hit = found.get((cell.row, cell.column))
        cells.append(
            {
                "source": cell.source,
                "published": cell.value,
                "measured": hit.value if hit else None,
                "delta": hit.delta if hit else None,
                "obstacles": list(hit.obstacles) if hit else [],
                "doubts": list(cell.doubts),
            }
        )
    return cells


def _points(value: float) -> str:
    return DASH if math.isnan(value) else f"{value:.1f}"


def _measured(comparison: Comparison | None) -> str:
    if comparison is None:
        return DASH
    return f"{comparison.value:.1f}" + "~" * bool(comparison.obstacles)


def _block(title: str, table: Table, body: Sequence[Sequence[str]]) -> str:
    heads = [[*table.row_names, *(c.label for c in table.columns)]]
    if any(c.group for c in table.columns):
        groups = [c.group for c in table.columns]
        shown = [g if i == 0 or groups[i - 1] != g else "" for i, g in enumerate(groups)]
        axis = f"{table.column_axis} →" if table.column_axis else ""
        heads.insert(0, [*[""] * (len(table.row_names) - 1), axis, *shown])
    elif table.column_axis:
        blanks = [""] * (len(table.row_names) - 1)
        heads.insert(0, [*blanks, "", f"{table.column_axis} →", *[""] * (len(table.columns) - 1)])
    rows = [[*row.labels, *cells] for row, cells in zip(table.rows, body, strict=True)]
    return f"{title}\n{_aligned([*heads, *rows], len(table.row_names))}"


def _aligned(rows: Sequence[Sequence[str]], left: int) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = zip(row, widths, strict=True)
        shown = [t.ljust(w) if i < left else t.rjust(w) for i, (t, w) in enumerate(cells)]
        lines.append(("  " + "  ".join(shown)).rstrip())
    return "\n".join(lines)


def _notes(table: Table, found: Sequence[Comparison]) -> list[str]:
    notes = [table.note] if table.note else []
    notes += [f"? {doubt.why}" for doubt in table.doubts]
    reasons = dict.fromkeys(reason for hit in found for reason in hit.obstacles)
    notes += [f"~ not comparable: {reason}" for reason in reasons]
    if not found:
        notes.append("nothing was measured for this table")
    return notes
