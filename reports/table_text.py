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
    """Lay out a table as published and beside it, never in one column, as measured.

    Where there is no number stands `–`. Doubtful cells bear a `?` and measured ones that cannot
    be compared a `~`; the reasons stand below.
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
    head = f"{table.name}: {table.title} ({table.metric_name}, points)"
    notes = _notes(table, list(found.values()))
    lay_out = _beside if len(table.columns) == 1 else _apart
    body = lay_out(table, printed, ours)
    return "\n\n".join([head, *body, *(["\n".join(notes)] if notes else [])])


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


Cells = Sequence[Sequence[str]]


def _beside(table: Table, printed: Cells, ours: Cells) -> list[str]:
    """Lay out a table of one column: both numbers of a row next to each other."""
    rows = [
        [*row.labels, *above, *below]
        for row, above, below in zip(table.rows, printed, ours, strict=True)
    ]
    return [_aligned([[*table.row_names, "published", "measured"], *rows], len(table.row_names))]


def _apart(table: Table, printed: Cells, ours: Cells) -> list[str]:
    """Lay out a table of several columns twice, one under the other."""
    widths = [max(map(len, column)) for column in zip(*printed, *ours, strict=True)]
    heads = _heads(table, widths)
    labels = [list(row.labels) for row in table.rows]
    rows = [
        [*name, *line]
        for cells in (printed, ours)
        for name, line in zip(labels, cells, strict=True)
    ]
    lines = _aligned([*heads, *rows], len(table.row_names)).splitlines()
    top, middle = lines[: len(heads)], len(heads) + len(labels)
    blocks = {"published": lines[len(heads) : middle], "measured": lines[middle:]}
    return ["\n".join([title, *top, *block]) for title, block in blocks.items()]


def _heads(table: Table, widths: Sequence[int]) -> list[list[str]]:
    """Return the lines above the numbers: groups, if there are any, and labels, a word a line."""
    words = [_broken(c.label, width) for c, width in zip(table.columns, widths, strict=True)]
    depth = max(map(len, words))
    lines = [[""] * len(table.row_names) for _ in range(depth - 1)] + [[*table.row_names]]
    padded = [[""] * (depth - len(word)) + word for word in words]
    heads = [[*line, *(word[i] for word in padded)] for i, line in enumerate(lines)]
    groups = [c.group for c in table.columns]
    if not (any(groups) or table.column_axis):
        return heads
    axis = f"{table.column_axis} →" if table.column_axis else ""
    shown = [g if i == 0 or groups[i - 1] != g else "" for i, g in enumerate(groups)]
    return [[*[""] * (len(table.row_names) - 1), axis, *shown], *heads]


def _broken(label: str, width: int) -> list[str]:
    """Break a label that is wider than its column into words."""
    return label.split() if len(label) > width else [label]


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
