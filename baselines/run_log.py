"""The log of a training run: two CSV files and the picture of their curves."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from entitybench.whole_file import write_whole

LOG, VALIDATION, CURVES = "log.csv", "validation.csv", "curves.png"


class RunLog:
    """Appends lines to `log.csv` and `validation.csv` of a run's folder.

    Args:
        folder: The run's folder.
        step: Where the run goes on: lines past it are dropped.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self._folder = folder
        for name in (LOG, VALIDATION):
            _cut(folder / name, step)

    def training(self, values: Mapping[str, float]) -> None:
        """Add a line of losses; `step` comes first."""
        _append(self._folder / LOG, values)

    def validation(self, values: Mapping[str, float]) -> None:
        """Add a line of scores; `step` comes first."""
        _append(self._folder / VALIDATION, values)


def read_log(path: Path) -> list[dict[str, float]]:
    """Return the lines of a log; none where there is no file."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [{k: float(v or "nan") for k, v in row.items()} for row in csv.DictReader(file)]


def _append(path: Path, values: Mapping[str, float]) -> None:
    new = not path.exists() or path.stat().st_size == 0
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        if new:
            writer.writerow(values)
        writer.writerow([f"{value:.9g}" for value in values.values()])


def _cut(path: Path, step: int) -> None:
    """Keep the whole lines up to a step: a killed run may have logged beyond its checkpoint."""
    if not path.exists():
        return
    head, *lines = path.read_text(encoding="utf-8").splitlines(keepends=True) or [""]
    kept = [line for line in lines if line.endswith("\n") and int(line.split(",")[0]) <= step]
    write_whole(path, (head + "".join(kept)).encode("utf-8"))


def draw_curves(folder: Path) -> Path | None:
    """Draw losses and validation scores over the steps; nothing where nothing was logged."""
    rows = read_log(folder / LOG)
    if not rows:
        return None
    from matplotlib.figure import Figure

    terms = [k for k in rows[0] if k == "loss" or k.startswith("loss_")]
    scores = read_log(folder / VALIDATION)
    figure = Figure(figsize=(10, 3.6) if scores else (5.6, 3.6), layout="constrained")
    axes = figure.subplots(1, 2 if scores else 1, squeeze=False)[0]
    for name in terms:
        label = name.removeprefix("loss_") if name != "loss" else "all"
        values = _smooth([row[name] for row in rows])
        axes[0].plot(
            [row["step"] for row in rows], values, label=label, lw=2 if name == "loss" else 1
        )
    axes[0].set(xlabel="step", ylabel="loss", yscale="log")
    axes[0].legend(frameon=False, fontsize=8)
    if scores:
        for name in ("AP", "AP50"):
            points = [100 * row[name] for row in scores]
            axes[1].plot([row["step"] for row in scores], points, marker=".", label=name)
        axes[1].set(xlabel="step", ylabel="validation, points", ylim=(0, None))
        axes[1].legend(frameon=False, fontsize=8)
    path = folder / CURVES
    figure.savefig(path, dpi=120)
    return path


def _smooth(values: Sequence[float]) -> list[float]:
    """Average each value with those before it, over about a fiftieth of the run."""
    width = max(1, len(values) // 50)
    return [
        sum(values[max(0, i - width + 1) : i + 1]) / len(values[max(0, i - width + 1) : i + 1])
        for i in range(len(values))
    ]
