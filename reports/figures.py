"""Figures as SVG: equal input gives equal bytes, and the page's colours show through."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from numpy.typing import NDArray

from entitybench.metrics.protocol import IOU_THRESHOLDS, RECALL_POINTS
from entitybench.reports.details import SIDE_EDGES, Details

COLOURS = (
    "#3b7dd8",
    "#dd7a32",
    "#2f9e6e",
    "#c2528b",
    "#8a63d2",
    "#ab9018",
    "#2b9fb4",
    "#c4453e",
)
DASHES = ("solid", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))
_INK, _FAINT = "#0a0b0c", "#0d0e0f"  # stand for the page's own colours
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "entitybench",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.edgecolor": _FAINT,
    "axes.labelcolor": _INK,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlecolor": _INK,
    "grid.color": _FAINT,
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
}
_WIDTH, _HEIGHT = 4.0, 2.9  # inches
_POINTS = 72
_MARGINS = (0.13, 0.155, 0.84, 0.755)
_LEGEND_ROW = 12


@dataclass(frozen=True, slots=True)
class Style:
    """How a model's line looks."""

    colour: str
    dash: str | tuple[float, tuple[float, ...]]

    @property
    def css(self) -> str:
        """The dash as SVG writes it; empty if there is none."""
        return "" if isinstance(self.dash, str) else " ".join(f"{d:g}" for d in self.dash[1])


@dataclass(frozen=True, slots=True, eq=False)
class Line:
    """One model in the figures of one test set."""

    label: str
    style: Style
    details: Details


Draw = Callable[[Axes, Sequence[Line]], None]


def styles(columns: Sequence[tuple[tuple[str, ...], str]]) -> list[Style]:
    """Give each column of the leaderboard a line: colour by training, dash by method.

    Where only one training occurs, the colour tells the methods apart. The method with most
    columns has the solid line.
    """
    trainings = list(dict.fromkeys(training for training, _ in columns))
    often = Counter(method for _, method in columns)
    methods = sorted(often, key=lambda method: (-often[method], method))
    by_training = len(trainings) > 1
    found = []
    for training, method in columns:
        t, m = trainings.index(training), methods.index(method)
        colour, dash = (t, m) if by_training else (m, m // len(COLOURS))
        found.append(Style(COLOURS[colour % len(COLOURS)], DASHES[dash % len(DASHES)]))
    return found


def precision_recall(axes: Axes, lines: Sequence[Line]) -> None:
    """Draw precision over recall at IoU .50."""
    for line in lines:
        _plot(axes, line, RECALL_POINTS, line.details.precision_50)
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
    axes.set_title("Precision and recall at IoU .50")


def strict_precision_recall(axes: Axes, lines: Sequence[Line]) -> None:
    """Draw precision over recall, mean over the ten IoU thresholds: its area is AP_e."""
    for line in lines:
        _plot(axes, line, RECALL_POINTS, line.details.precision)
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
    axes.set_title("Mean over IoU .50:.05:.95: its area is AP")


def ap_by_iou(axes: Axes, lines: Sequence[Line]) -> None:
    """Draw AP over the IoU threshold."""
    for line in lines:
        _plot(axes, line, IOU_THRESHOLDS, 100 * line.details.ap_by_iou)
    axes.set(xlim=(0.5, 0.95), ylim=(0, None), xlabel="IoU threshold", ylabel="AP")
    axes.locator_params("y", nbins=6, integer=True)
    axes.set_title("AP by how exact a mask must be")


def recall_by_size(axes: Axes, lines: Sequence[Line]) -> None:
    """Draw the share of true entities found at IoU .50 over their size."""
    middles = np.sqrt(SIDE_EDGES[:-1] * SIDE_EDGES[1:])
    for line in lines:
        known = np.isfinite(line.details.recall_by_size)
        _plot(axes, line, middles[known], line.details.recall_by_size[known], marker="o")
    used = [np.isfinite(line.details.recall_by_size) for line in lines]
    last = 1 + max((int(np.flatnonzero(u)[-1]) for u in used if u.any()), default=len(middles) - 1)
    axes.set_xscale("log", base=2)
    axes.set_xticks(SIDE_EDGES[: last + 1], [f"{edge:g}" for edge in SIDE_EDGES[: last + 1]])
    axes.minorticks_off()
    axes.set(xlim=(SIDE_EDGES[0], SIDE_EDGES[last]), ylim=(0, 1.02))
    axes.set(xlabel="√area, in pixels", ylabel="found")
    axes.set_title("True entities found, by size")


def counts(axes: Axes, lines: Sequence[Line]) -> None:
    """Draw the mean number of predicted entities over that of true ones."""
    most = 1.0
    for line in lines:
        true, mean = _binned(line.details.true_counts, line.details.predicted_counts)
        most = max(most, true.max(initial=1))
        _plot(axes, line, true, mean, marker="o")
    most *= 1.05
    axes.plot([0, most], [0, most], color=_FAINT, linewidth=1, zorder=0)
    axes.set(xlim=(0, most), ylim=(0, None), xlabel="true entities", ylabel="predicted")
    axes.locator_params(nbins=6, integer=True)  # "17.5" is no count, and too wide for the margin
    axes.set_title("Entities per image")


def qualities(axes: Axes, lines: Sequence[Line]) -> None:
    """Draw the share of images whose own PQ is at least x."""
    for line in lines:
        known = np.sort(line.details.qualities[np.isfinite(line.details.qualities)])[::-1]
        share = np.arange(1, len(known) + 1) / max(len(known), 1)
        at_least = np.r_[0.0, share, 1.0]
        _plot(axes, line, np.r_[100.0, 100 * known, 0.0], at_least, drawstyle="steps-post")
    axes.set(xlim=(0, 100), ylim=(0, 1.02), xlabel="PQ of the image, at least", ylabel="images")
    axes.set_title("How many images go well")


PANELS: dict[str, Draw] = {
    "precision-recall-50": precision_recall,
    "precision-recall": strict_precision_recall,
    "ap-by-iou": ap_by_iou,
    "recall-by-size": recall_by_size,
    "entities-per-image": counts,
    "image-quality": qualities,
}
"""Figures of one test set, in the order of the page."""


def _plot(
    axes: Axes,
    line: Line,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    marker: str = "",
    drawstyle: str = "default",
) -> None:
    axes.plot(
        x,
        y,
        color=line.style.colour,
        linestyle=line.style.dash,
        linewidth=1.6,
        marker=marker,
        drawstyle=drawstyle,
        markersize=3.2,
        label=line.label,
    )


def _binned(
    x: NDArray[np.int64], y: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return means of x and y in up to eight groups of equally many images, ascending in x."""
    order = np.argsort(x, kind="stable")
    groups = [g for g in np.array_split(order, min(8, len(order))) if len(g)]
    return np.array([x[g].mean() for g in groups]), np.array([y[g].mean() for g in groups])


def draw(panel: str, lines: Sequence[Line]) -> str:
    """Draw one of `PANELS` as an SVG document, without a legend."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, _HEIGHT))
        FigureCanvasSVG(figure)
        axes = figure.add_axes(_MARGINS)
        axes.grid(visible=True)
        axes.set_axisbelow(True)
        PANELS[panel](axes, lines)
        buffer = io.StringIO()
        figure.savefig(
            buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None}
        )
    return buffer.getvalue()


def stand_alone(svg: str, lines: Sequence[Line]) -> str:
    """Return a figure for use outside the page: dark ink, light lines, a legend below."""
    width, height = _WIDTH * _POINTS, _HEIGHT * _POINTS
    taller = f"{height + _LEGEND_ROW * len(lines) + 6:g}"
    svg = re.sub(r'height="[^"]*pt"', f'height="{taller}pt"', svg, count=1)
    svg = re.sub(r'viewBox="[^"]*"', f'viewBox="0 0 {width:g} {taller}"', svg, count=1)
    rows = "".join(
        f'<path d="M20 {y - 3:g}h24" stroke="{line.style.colour}" stroke-width="1.6"'
        f' stroke-dasharray="{line.style.css or "none"}"/>'
        f'<text x="50" y="{y:g}">{escape(line.label)}</text>'
        for line, y in zip(lines, np.arange(len(lines)) * _LEGEND_ROW + height + 6, strict=True)
    )
    legend = f'<g font-family="sans-serif" font-size="8" fill="{_INK}">{rows}</g>'
    svg = svg.replace("</svg>", f"{legend}</svg>")
    return svg.replace(_INK, "#1b1d22").replace(_FAINT, "#c9ced6")


def inline(svg: str, name: str) -> str:
    """Return a figure to be set into a page: the page's colours and fonts, own ids.

    Args:
        svg: From `draw`.
        name: Of the figure, a plain word; makes the ids in it unique on the page.
    """
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>\s*", "", body, flags=re.DOTALL)
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", body)
    body = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>\s*", "", body, count=1, flags=re.DOTALL)
    body = re.sub(r"font-family: [^;\"]*;? ?", "", body)
    body = re.sub(r"\s*\n\s*", "\n", body)
    body = re.sub(r'<svg ([^>]*?)width="[^"]*"', r'<svg \1role="img"', body, count=1)
    body = re.sub(r'(<svg [^>]*?) height="[^"]*"', r"\1", body, count=1)
    return body.replace(_INK, "currentColor").replace(_FAINT, "var(--line)").strip()
