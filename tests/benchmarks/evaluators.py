"""All bars of the evaluator, on one page: `python -m tests.benchmarks.evaluators`.

Every run is a fresh process; the evaluators take turns within a round, so that a busy minute
hits all alike; ratios of the medians count, not seconds. One thread each, imports not counted,
the test for overlap included.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import NamedTuple

import click
import matplotlib
import numpy as np
from matplotlib.figure import Figure

from entitybench.entity_set import open_path
from tests.benchmarks.dataset import Benchmark, benchmark_set, repeated_set
from tests.benchmarks.scenes import Recipe

ROOT = Path(__file__).parents[2]
BARS = {  # must hold, aim
    "pycocotools": (40.0, 100.0),
    "faster-coco-eval": (15.0, 40.0),
    "hotcoco": (6.0, 12.0),
    "ultrafast-pycocotools": (4.0, 8.0),
    "vernier": (2.5, 5.0),
}
NEEDS_BOXES = {"vernier"}
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "RAYON_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"
)


class Cost(NamedTuple):
    """What one run cost: seconds without imports, CPU seconds, peak memory in MB."""

    wall: float
    cpu: float
    rss: float


@dataclass(frozen=True)
class Bar:
    """One requirement and what was measured."""

    what: str
    measured: str
    required: str
    holds: bool

    def __str__(self) -> str:
        sign = "ok  " if self.holds else "MISS"
        return f"{sign}  {self.what:<44} {self.measured:>18}  {self.required}"


class Runner:
    """Starts evaluators in processes of their own, with a cache of their own.

    Args:
        scratch: A folder for the cache and for results.
    """

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.environment = {
            **os.environ,
            **ONE_THREAD,
            "ENTITYBENCH_CACHE": str(scratch / "cache"),
            "ENTITYBENCH_NO_PROGRESS": "1",
            "PYTHONPYCACHEPREFIX": str(scratch / "bytecode"),
        }
        self.environment.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package has it

    def python(self, *arguments: str, **environment: str) -> str:
        """Run a module and return what it prints."""
        return subprocess.run(
            [sys.executable, "-m", *arguments],
            check=True,
            cwd=ROOT,
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            text=True,
        ).stdout

    def cost(self, peer: str, truth: Path, results: Path, arrays: Path | None = None) -> Cost:
        """Time one evaluator once."""
        files = [str(truth), str(results), *([] if arrays is None else [str(arrays)])]
        return Cost(**json.loads(self.python("tests.benchmarks.peer", peer, *files)))

    def process(self, *arguments: str, **environment: str) -> Cost:
        """Time a whole process, start and imports included."""
        code = (
            "import json,os,resource,subprocess,sys,time\n"
            "began=time.perf_counter()\n"
            "subprocess.run(sys.argv[1:],check=True,stdout=subprocess.DEVNULL)\n"
            "used=resource.getrusage(resource.RUSAGE_CHILDREN)\n"
            "print(json.dumps([time.perf_counter()-began,used.ru_utime+used.ru_stime,"
            "used.ru_maxrss/1024]))"
        )
        run = subprocess.run(
            [sys.executable, "-c", code, sys.executable, "-m", *arguments],
            check=True,
            cwd=self.scratch,
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            text=True,
        )
        return Cost(*json.loads(run.stdout))


def compare(runner: Runner, made: Benchmark, rounds: int) -> list[Bar]:
    """Time all evaluators in turns and compare their arrays with pycocotools'."""
    costs: dict[str, list[Cost]] = {name: [] for name in [*BARS, "entitybench"]}
    runner.cost("entitybench", made.truth, made.results)  # compiles the truth
    for number in range(rounds):
        for peer, found in costs.items():
            results = made.results_with_boxes if peer in NEEDS_BOXES else made.results
            arrays = runner.scratch / f"{peer}.npz" if number == 0 else None
            found.append(runner.cost(peer, made.truth, results, arrays))
        click.echo(f"round {number + 1} of {rounds}", err=True)
    _print_costs(costs)
    return [*_ratios(costs), _memory(costs), _equality(runner.scratch)]


def _print_costs(costs: dict[str, list[Cost]]) -> None:
    click.echo(f"{'':<24}{'wall s':>9}{'(least)':>9}{'CPU s':>9}{'peak MB':>9}")
    for peer, found in costs.items():
        wall, cpu, rss = (median(c) for c in zip(*found, strict=True))
        least = min(c.wall for c in found)
        click.echo(f"{peer:<24}{wall:>9.3f}{least:>9.3f}{cpu:>9.3f}{rss:>9.0f}")
    click.echo("")


def _ratios(costs: dict[str, list[Cost]]) -> list[Bar]:
    own = median(c.wall for c in costs["entitybench"])
    bars = []
    for peer, (must, aim) in BARS.items():
        ratio = median(c.wall for c in costs[peer]) / own
        cpu = median(c.cpu for c in costs[peer]) / median(c.cpu for c in costs["entitybench"])
        measured = f"{ratio:.1f}× (CPU {cpu:.1f}×)"
        wanted = f"at least {must:g}×, aim {aim:g}×"
        bars.append(Bar(f"faster than {peer}", measured, wanted, ratio >= must))
    return bars


def _memory(costs: dict[str, list[Cost]]) -> Bar:
    peaks = {peer: median(c.rss for c in found) for peer, found in costs.items()}
    best = min(peak for peer, peak in peaks.items() if peer != "entitybench")
    share = peaks["entitybench"] / best
    return Bar("peak memory by the best peer's", f"{share:.2f}", "at most 0.40", share <= 0.4)


def _equality(folder: Path) -> Bar:
    ours, theirs = (np.load(folder / f"{n}.npz") for n in ("entitybench", "pycocotools"))
    names = ("precision", "recall", "scores", "stats")
    unequal = [name for name in names if not np.array_equal(ours[name], theirs[name])]
    told = "unequal: " + ", ".join(unequal) if unequal else "equal"
    return Bar("bits of pycocotools", told, "equal", not unequal)


def png_sets(runner: Runner, made: Benchmark, rounds: int) -> list[Bar]:
    """CPU of scoring palette-PNG sets with compiled truth, scaled to 5,000 images.

    Two bars were asked for, with zlib and with a faster library. The kernel inflates by itself.
    """
    scale = 5000 / made.num_images
    bars = []
    for what, more in (("all scores", []), ("AP and AR alone", ["quick"])):
        files = str(made.truth_set), str(made.predictions_set)
        found = [
            runner.python("tests.benchmarks.png_sets", *files, *more) for _ in range(rounds + 1)
        ][1:]
        seconds = median(float(text) for text in found) * scale
        wanted = "at most 2.7 s and 1.5 s"
        bars.append(
            Bar(f"palette-PNG sets, {what}: CPU", f"{seconds:.2f} s", wanted, seconds <= 1.5)
        )
    return bars


def whole_process(runner: Runner, made: Benchmark, rounds: int) -> list[Bar]:
    """`entitybench eval` from the shell, warm cache, one thread."""
    bars = []
    for what, predictions in (("COCO", made.results), ("PNG", made.predictions_set)):
        command = ["entitybench", "eval", str(predictions), "--gt", str(made.truth_set)]
        command += ["--quiet", "--jobs", "1", "--out", str(runner.scratch / "result.json")]
        runner.process(*command)
        seconds = median(runner.process(*command).wall for _ in range(rounds))
        name = f"`entitybench eval` of {what}, whole process"
        bars.append(Bar(name, f"{seconds:.2f} s", "at most 2 s", seconds <= 2))
    return bars


def many_images(runner: Runner, made: Benchmark, times: int) -> list[Bar]:
    """Memory of the set repeated under new ids."""
    repeated = repeated_set(made, times)
    runner.cost("entitybench", repeated.truth, repeated.results)
    cost = runner.cost("entitybench", repeated.truth, repeated.results)
    what = f"{repeated.num_images:,} images, {cost.wall:.1f} s: peak memory"
    return [Bar(what, f"{cost.rss:.0f} MB", "below 1,000 MB", cost.rss < 1000)]


def growth(runner: Runner, root: Path | None, made: Benchmark) -> dict[str, list[list[float]]]:
    """CPU ms per image against images, entities per image, and side of the image.

    Sets of few images are repeated until what a run costs whatever its size no longer shows.
    """
    few = benchmark_set(1000, root=root)
    sets = [few, made, *(repeated_set(made, times) for times in (4, 20))]
    curves = {"images": [[m.num_images, _milliseconds(runner, m)] for m in sets]}
    curves["entities"] = []
    for entities in (5, 20, 50, 100, 200, 630):
        drawn = benchmark_set(60, root=root, recipe=Recipe((640, 480), entities))
        there = open_path(drawn.truth_set).header.num_entities / drawn.num_images
        curves["entities"].append([there, _milliseconds(runner, repeated_set(drawn, 20))])
    curves["side"] = []
    for side in (256, 512, 1024, 2048, 4096):
        drawn = benchmark_set(24, root=root, recipe=Recipe((side, side), 10))
        curves["side"].append([side, _milliseconds(runner, repeated_set(drawn, 20))])
    return curves


def draw(curves: dict[str, list[list[float]]], file: Path) -> None:
    """Draw the growth of cost, a panel for each of the three."""
    names = {"images": "images", "entities": "entities per image", "side": "side of the image, px"}
    figure = Figure(figsize=(9, 3), layout="constrained")
    axes = figure.subplots(1, len(names))
    for panel, (name, label) in zip(axes, names.items(), strict=True):
        at, cost = zip(*curves[name], strict=True)
        panel.plot(at, cost, "o-", color="#2f6db3", clip_on=False)
        if name == "images":
            panel.set_xscale("log")
            panel.set_xticks(at, [f"{x:,.0f}" for x in at])
            panel.set_xticks([], minor=True)
        panel.set_xlabel(label)
        panel.set_xlim(left=None if name == "images" else 0)
        panel.set_ylim(bottom=0, top=1.15 * max(cost))
        panel.grid(color="#e4e4e4")
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("CPU ms per image")
    with matplotlib.rc_context({"svg.hashsalt": "growth"}):
        figure.savefig(file, metadata={"Date": None, "Creator": None})


def _milliseconds(runner: Runner, made: Benchmark) -> float:
    """Return what an image costs: the median of three runs, truth compiled before."""
    runner.cost("entitybench", made.truth, made.results)
    runs = [runner.cost("entitybench", made.truth, made.results).cpu for _ in range(3)]
    return 1000 * median(runs) / made.num_images


@click.command()
@click.option("--images", default=5000, show_default=True, help="Images of the set.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--root", type=click.Path(path_type=Path), help="Where sets are kept.")
@click.option("--large/--no-large", default=False, help="Also 100,000 images.")
@click.option("--curves", type=click.Path(path_type=Path), help="Draw how cost grows, as SVG.")
def main(images: int, rounds: int, root: Path | None, large: bool, curves: Path | None) -> None:
    """Print every bar and whether it holds."""
    made = benchmark_set(images, root=root)
    scratch = Path(tempfile.mkdtemp(prefix="evaluators-"))
    try:
        runner = Runner(scratch)
        bars = compare(runner, made, rounds)
        bars += png_sets(runner, made, rounds)
        bars += whole_process(runner, made, rounds)
        if large:
            bars += many_images(runner, made, 100_000 // images)
        if curves is not None:
            grown = growth(runner, root, made)
            draw(grown, curves)
            click.echo(json.dumps(grown))
    finally:
        shutil.rmtree(scratch)
    for bar in bars:
        click.echo(str(bar))


if __name__ == "__main__":
    main()
