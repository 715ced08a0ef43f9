"""The leaderboard for other programs and for papers: CSV, Markdown, LaTeX, JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence

import msgspec

from entitybench.reports.comparison import Comparison
from entitybench.reports.leaderboard import DASH, Cell, Matrix
from entitybench.reports.results import Run, test_title, training_title

CSV_COLUMNS = (
    "model",
    "trained_on",
    "tested_on",
    "metric",
    "value",
    "low",
    "high",
    "paper",
    "delta",
    "signature",
)
_TEX_SPECIAL = {c: rf"\{c}" for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "–": "--",
    "→": r"$\rightarrow$",
    "↓": r"$\downarrow$",
}


def to_csv(runs: Sequence[Run], comparisons: Sequence[Comparison]) -> str:
    """Write a tidy table: one line per model, test set and score, in points.

    `paper` and `delta` are given only where the result repeats the published cell; undefined
    is empty.
    """
    repeated = {
        (run.name, run.ground_truth, c.cell.metric): c
        for c in comparisons
        if c.delta is not None
        for run in c.runs
    }
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for run in runs:
        for metric, value in run.result.scores.items():
            interval = run.result.intervals.get(metric)
            paper = repeated.get((run.name, run.ground_truth, metric))
            writer.writerow(
                [
                    run.name,
                    "+".join(run.trained_on),
                    run.ground_truth,
                    metric,
                    _number(value),
                    _number(interval.low if interval else None),
                    _number(interval.high if interval else None),
                    _number(paper.cell.value if paper else None),
                    _number(value - paper.cell.value if paper and value is not None else None),
                    run.result.signature.metric,
                ]
            )
    return out.getvalue()


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}".rstrip("0").rstrip(".")


def to_markdown(matrix: Matrix) -> str:
    """Write the matrix as a Markdown table, the best of each row in bold."""
    head = ["tested on ↓ / trained on →"]
    head += [f"{training_title(training)}: {method}" for training, method in matrix.columns]
    rows = [[_plain(cell, "**{}**") for cell in line] for line in matrix.cells]
    lines = [head, ["---", *["---:"] * len(matrix.columns)]]
    lines += [[test_title(t), *row] for t, row in zip(matrix.rows, rows, strict=True)]
    text = "\n".join(f"| {' | '.join(map(_escaped, line))} |" for line in lines)
    notes = "".join(f"\n{n}. {note}" for n, note in enumerate(matrix.notes, 1))
    return f"{matrix.metric} in points, best of each row in bold\n\n{text}\n" + (
        f"{notes}\n" if notes else ""
    )


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


def _plain(cell: Cell | None, bold: str) -> str:
    if cell is None or cell.value is None:
        return DASH
    text = f"{cell.value:.1f}"
    marks = f" [{','.join(map(str, cell.footnotes))}]" if cell.footnotes else ""
    return (bold.format(text) if cell.is_best else text) + marks


def to_latex(matrix: Matrix) -> str:
    """Write the matrix as a booktabs tabular, the best of each row in bold."""
    columns = "l" + "r" * len(matrix.columns)
    groups, rules, at = [], [], 2
    for training, span in matrix.groups:
        groups.append(rf"\multicolumn{{{span}}}{{c}}{{{_tex(training_title(training))}}}")
        rules.append(rf"\cmidrule(lr){{{at}-{at + span - 1}}}")
        at += span
    methods = [_tex(method) for _, method in matrix.columns]
    rows = [
        " & ".join([_tex(test_title(test)), *(_plain(c, r"\textbf{{{}}}") for c in line)])
        for test, line in zip(matrix.rows, matrix.cells, strict=True)
    ]
    lines = [
        r"% \usepackage{booktabs}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        rf"{_tex('trained on →')} & {' & '.join(groups)} \\",
        " ".join(rules),
        rf"{_tex('tested on ↓')} & {' & '.join(methods)} \\",
        r"\midrule",
        *(row.replace(DASH, "--") + r" \\" for row in rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    notes = [rf"% [{n}] {note}" for n, note in enumerate(matrix.notes, 1)]
    return "\n".join([*lines, *notes]) + "\n"


def _tex(text: str) -> str:
    return "".join(_TEX_SPECIAL.get(c, c) for c in text)


def to_json(runs: Sequence[Run]) -> str:
    """Write all result records, those pooled here included, keys sorted."""
    records = [
        msgspec.to_builtins(run.result) | {"pooled_here": bool(run.pooled_from)} for run in runs
    ]
    return json.dumps({"results": records}, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
