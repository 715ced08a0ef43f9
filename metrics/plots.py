"""Figures of one evaluation: curves, causes, sizes. Equal records give equal files."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from textwrap import fill
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

from entitybench.metrics.breakdown import RecallOfSize, recall_by_relative_area
from entitybench.metrics.calibration import ReliabilityBin, reliability
from entitybench.metrics.diagnosis import Diagnosis, diagnose
from entitybench.metrics.evaluation import Evaluation
from entitybench.metrics.protocol import AREA_NAMES, IOU_THRESHOLDS, RECALL_POINTS
from entitybench.whole_file import write_whole

KINDS = ("png", "svg")

_STYLE: Any = {  # matplotlib types its keys as literals
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "figure.dpi": 150,
    "font.size": 9,
    "grid.color": "#e4e4e4",
    "legend.frameon": False,
    "svg.hashsalt": "entitybench",  # else ids in the SVG are random
}
_BLUE, _ORANGE, _GREY = "#2f6db3", "#d9822b", "#8a8a8a"
_METADATA = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}


def save_plots(folder: Path, evaluation: Evaluation, title: str = "") -> list[Path]:
    """Draw all figures that the records allow, as SVG and PNG; makes the folder.

    Args:
        folder: Where to.
        evaluation: Of records with tables; without, only the curves are drawn.
        title: Stands above each figure: the model and the ground truth.

    Returns:
        The files.
    """
    records = evaluation.records
    figures: dict[str, Callable[[], Figure]] = {
        "precision-recall": lambda: precision_recall(evaluation, title),
        "ap-by-iou": lambda: ap_by_iou(evaluation, title),
        "reliability": lambda: reliability_bars(reliability(records), title),
    }
    if records.tables is not None:
        figures |= {
            "scores": lambda: score_bars(evaluation.all_scores(), title),
            "causes": lambda: causes(diagnose(records), title),
            "recall-by-size": lambda: recall_by_size(recall_by_relative_area(records), title),
        }
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    with mpl.rc_context(_STYLE):
        for name, draw in figures.items():
            figure = draw()
            written += [_save(figure, folder / f"{name}.{kind}", kind) for kind in KINDS]
    return written


def precision_recall(evaluation: Evaluation, title: str = "") -> Figure:
    """Draw precision over recall at each IoU threshold, and their mean."""
    figure, axes = _figure(title, width=4.8, height=4.2)
    curves = evaluation.curves.precision[:, :, 0, -1]
    colours = mpl.colormaps["viridis"](np.linspace(0.95, 0.1, len(curves)))
    for threshold, curve, colour in zip(IOU_THRESHOLDS, curves, colours, strict=True):
        label = f"{threshold:.2f}   AP {_points(float(curve.mean()))}"
        axes.plot(RECALL_POINTS, curve, color=colour, linewidth=1.1, label=label)
    mean = curves.mean(axis=0)
    axes.plot(
        RECALL_POINTS, mean, color="black", linewidth=2, label=f"mean   AP {_points(mean.mean())}"
    )
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
    axes.legend(title="IoU", loc="center left", bbox_to_anchor=(1.02, 0.5), fontsize=8)
    return figure


def ap_by_iou(evaluation: Evaluation, title: str = "") -> Figure:
    """Draw AP over the IoU threshold, for all entities and by size."""
    figure, axes = _figure(title, width=4.8, height=3.2)
    averages = 100 * evaluation.curves.precision[..., -1].mean(axis=1)
    colours = ("black", "#7fb3e6", "#3f7fc1", "#1b3f73")
    for index, (name, colour) in enumerate(zip(AREA_NAMES, colours, strict=True)):
        if not np.isnan(averages[:, index]).any():
            width = 2 if name == "all" else 1.2
            axes.plot(
                IOU_THRESHOLDS,
                averages[:, index],
                color=colour,
                linewidth=width,
                marker="o",
                markersize=3,
                label=name,
            )
    axes.set(xlim=(0.49, 0.96), ylim=(0, None), xlabel="IoU threshold", ylabel="AP")
    axes.xaxis.set_major_locator(MultipleLocator(0.1))
    if axes.get_legend_handles_labels()[0]:
        axes.legend(title="entities", loc="center left", bbox_to_anchor=(1.02, 0.5), fontsize=8)
    return figure


def score_bars(scores: dict[str, float], title: str = "") -> Figure:
    """Draw the scores that are defined as bars, in groups."""
    groups = [
        ["AP", "AP50", "AP75"],
        ["APs", "APm", "APl"],
        ["APthing", "APstuff"],
        ["APb", "APb50", "APb75"],
        ["AR1", "AR10", "AR100"],
        ["PQ", "SQ", "RQ"],
    ]
    shown = [[n for n in g if not math.isnan(scores.get(n, math.nan))] for g in groups]
    names, places = _grouped([group for group in shown if group])
    figure, axes = _figure(title, width=max(3.0, 0.42 * len(names) + 1.2), height=3.2)
    values = [100 * scores[name] for name in names]
    bars = axes.bar(places, values, width=0.8, color=_BLUE)
    axes.bar_label(bars, [f"{value:.1f}" for value in values], fontsize=7, padding=1)
    axes.set_xticks(places, names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set(ylim=(0, 105), ylabel="points")
    axes.grid(visible=False, axis="x")
    return figure


def causes(diagnosis: Diagnosis, title: str = "") -> Figure:
    """Draw what each cause costs: its share of the missing AP, and what its repair would add."""
    figure, axes = _figure(title, width=5.2, height=3.0)
    findings = diagnosis.findings
    rows = np.arange(len(findings))
    shares = [100 * finding.share for finding in findings]
    gains = [100 * finding.gain for finding in findings]
    bars = axes.barh(rows - 0.2, shares, 0.38, color=_BLUE, label="share of what is missing")
    alone = axes.barh(rows + 0.2, gains, 0.38, color=_ORANGE, label="gain if repaired alone")
    for drawn, values in ((bars, shares), (alone, gains)):
        axes.bar_label(drawn, [f"{value:.1f}" for value in values], fontsize=7, padding=2)
    axes.set_yticks(rows, [str(finding.cause) for finding in findings])
    axes.invert_yaxis()
    most = max([1.0, *(value for value in (*shares, *gains) if not math.isnan(value))])
    axes.set(xlim=(min(0.0, *shares, *gains), 1.15 * most), xlabel="AP points")
    axes.grid(visible=False, axis="y")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, fontsize=8)
    axes.set_title("")
    heading = _wrapped(f"{title}   AP {_points(diagnosis.AP)}".strip(), 5.2)
    figure.suptitle(heading, x=0.01, ha="left", fontsize=10)
    return figure


def recall_by_size(rows: Sequence[RecallOfSize], title: str = "") -> Figure:
    """Draw recall over the share of the image that an entity covers, and how many there are."""
    figure, axes = _figure(title, width=4.8, height=3.0)
    places = np.arange(len(rows))
    recalls = [0.0 if math.isnan(row.recall) else 100 * row.recall for row in rows]
    bars = axes.bar(places, recalls, width=0.75, color=_BLUE)
    texts = [_points(row.recall) + f"\n({row.entities:,})" for row in rows]
    axes.bar_label(bars, texts, fontsize=7, padding=1, color="#333333")
    axes.set_xticks(places, [f"{_percent(row.low)}–{_percent(row.high)}" for row in rows])
    axes.set(
        ylim=(0, 118), xlabel="share of the image, in %   (number of entities)", ylabel="recall"
    )
    axes.set_yticks(range(0, 101, 20))
    axes.grid(visible=False, axis="x")
    return figure


def reliability_bars(bins: Sequence[ReliabilityBin], title: str = "") -> Figure:
    """Draw the share of matches over the score, the diagonal of perfect scores, and how many."""
    figure, axes = _figure(title, width=4.0, height=3.9)
    held = [row for row in bins if row.predictions]
    middles = [50 * (row.low + row.high) for row in held]
    shares = [100 * row.matched for row in held]
    bars = axes.bar(middles, shares, width=100 * 0.92 / max(len(bins), 1), color=_BLUE)
    axes.bar_label(bars, [f"{row.predictions:,}" for row in held], fontsize=6, padding=4)
    axes.plot([0, 100], [0, 100], color=_GREY, linewidth=1, linestyle="--", label="score = share")
    scores = [100 * row.score for row in held]
    axes.plot(scores, shares, "o", color=_ORANGE, markersize=4, label="at the mean score of a bin")
    axes.set(
        xlim=(0, 100),
        ylim=(0, 108),
        xlabel="score × 100   (number of predictions)",
        ylabel="matched at IoU .50, in %",
    )
    axes.legend(loc="upper left", fontsize=7)
    return figure


def _figure(title: str, *, width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(_wrapped(title, width), fontsize=10)
    return figure, axes


def _wrapped(title: str, width: float) -> str:
    """Break a title that is longer than a figure is wide (in inches): unions have long names."""
    return fill(title.replace("+", " + "), int(12 * width))


def _grouped(groups: Sequence[Sequence[str]]) -> tuple[list[str], list[float]]:
    """Return all names, and their places with a gap between groups."""
    names: list[str] = []
    places: list[float] = []
    at = 0.0
    for group in groups:
        names += group
        places += [at + index for index in range(len(group))]
        at = places[-1] + 1.6
    return names, places


def _points(fraction: float) -> str:
    return "–" if math.isnan(fraction) else f"{100 * fraction:.1f}"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:g}"


def _save(figure: Figure, path: Path, kind: str) -> Path:
    buffer = BytesIO()
    figure.savefig(buffer, format=kind, metadata=_METADATA[kind])
    write_whole(path, buffer.getvalue())
    return path
