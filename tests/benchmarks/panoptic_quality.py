"""PQ against panopticapi and hotcoco on PNGs: `python -m tests.benchmarks.panoptic_quality`.

Every run is a fresh process of one thread; the evaluators take turns on the same files; CPU
seconds count, from after the imports. entitybench computes all its other numbers in the same
time. Its truth is compiled, as it is from the second run on. panopticapi is not installed beside
entitybench (its one release on PyPI wants an older NumPy): make an environment for it and pass
its Python:

    python -m venv DIR && DIR/bin/pip install 'numpy<2' pillow
    DIR/bin/pip install --no-deps panopticapi-lite
    python -m tests.benchmarks.panoptic_quality --panopticapi DIR/bin/python
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import click

from entitybench.cli import main as entitybench
from tests.benchmarks.dataset import Benchmark, benchmark_set
from tests.benchmarks.evaluators import ONE_THREAD, ROOT

# Each takes truth and predictions, and prints [CPU seconds, PQ] in its last line.
_PANOPTICAPI = """
import json, sys, time
from panopticapi.evaluation import pq_compute_single_core
began = time.process_time()
truth, found = (json.load(open(path)) for path in sys.argv[1:3])
folders = [path.removesuffix(".json") for path in sys.argv[1:3]]
of_image = {a["image_id"]: a for a in found["annotations"]}
pairs = [(a, of_image[a["image_id"]]) for a in truth["annotations"]]
categories = {c["id"]: c for c in truth["categories"]}
stat = pq_compute_single_core(0, pairs, *folders, categories)
pq = stat.pq_average(categories, isthing=None)[0]["pq"]
print(json.dumps([time.process_time() - began, pq]))
"""
_HOTCOCO = """
import json, sys, time
from hotcoco.panoptic import pq_compute
began = time.process_time()
pq = pq_compute(sys.argv[1], sys.argv[2])["All"]["pq"]
print(json.dumps([time.process_time() - began, pq]))
"""
_OURS = """
import json, sys, time
from entitybench.metrics.benchmark import evaluate
began = time.process_time()
done = evaluate(sys.argv[2], sys.argv[1], missing_score="constant")
print(json.dumps([time.process_time() - began, done.result.score("PQ")]))
"""
_BARS = {"panopticapi": 15.0, "hotcoco": 4.0}


@dataclass
class Racer:
    """One evaluator: what it runs, on which files, and what that cost so far."""

    python: str
    code: str
    truth: Path
    predictions: Path
    seconds: list[float] = field(default_factory=list)
    quality: float = float("nan")

    def run(self, cache: Path) -> None:
        done = subprocess.run(
            [self.python, "-c", self.code, str(self.truth), str(self.predictions)],
            check=True,
            cwd=ROOT,
            env={**os.environ, **ONE_THREAD, "ENTITYBENCH_CACHE": str(cache)},
            stdout=subprocess.PIPE,
            text=True,
        )
        cpu, self.quality = json.loads(done.stdout.splitlines()[-1])
        self.seconds.append(cpu)


def racers(made: Benchmark, folder: Path, panopticapi: str | None) -> dict[str, Racer]:
    """Write the set as COCO panoptic JSON with PNGs, and list who can read it."""
    tables = []
    for path in (made.truth_set, made.predictions_set):
        entitybench(["export", "coco-panoptic", str(path), "-o", str(folder / path.name)])
        (table,) = (folder / path.name).rglob("*.json")
        tables.append(table)
    truth, predictions = tables
    _drop_images_of_several_crowds(truth, predictions)
    found = {
        "entitybench": Racer(sys.executable, _OURS, truth, predictions),
        "entitybench, entity sets": Racer(
            sys.executable, _OURS, made.truth_set, made.predictions_set
        ),
        "hotcoco": Racer(sys.executable, _HOTCOCO, truth, predictions),
    }
    if panopticapi:
        found["panopticapi"] = Racer(panopticapi, _PANOPTICAPI, truth, predictions)
    else:
        click.echo("panopticapi is left out: pass the Python that has it (--panopticapi)")
    return found


def _drop_images_of_several_crowds(*tables: Path) -> None:
    """Leave out the images whose crowds count differently: the others keep only the last one."""
    content = json.loads(tables[0].read_text())
    crowds = {
        a["image_id"]: sum(s["iscrowd"] for s in a["segments_info"]) for a in content["annotations"]
    }
    for path in tables:
        content = json.loads(path.read_text())
        for rows, key in (("images", "id"), ("annotations", "image_id")):
            content[rows] = [row for row in content[rows] if crowds[row[key]] < 2]
        path.write_text(json.dumps(content))


def report(found: dict[str, Racer], images: int) -> None:
    """Print the cost of each, whether they agree, and the ratios to ours.

    The sets hold the images of several crowds too.
    """
    for name, racer in found.items():
        per_image = 1e3 * median(racer.seconds) / images
        click.echo(f"{name:<26}{per_image:8.3f} ms per image   PQ {racer.quality:.12f}")
    values = {round(r.quality, 12) for name, r in found.items() if "sets" not in name}
    click.echo(f"{'ok  ' if len(values) == 1 else 'MISS'}  all agree on the PNGs")
    for own in ("entitybench", "entitybench, entity sets"):
        for peer, least in _BARS.items():
            if peer in found:
                ratio = median(found[peer].seconds) / median(found[own].seconds)
                sign = "ok  " if ratio >= least else "MISS"
                click.echo(f"{sign}  {own} by {peer}: {ratio:.1f}×, at least {least:g}×")


@click.command()
@click.option("--images", default=500, show_default=True, help="Images of the set.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--root", type=click.Path(path_type=Path), help="Where sets are kept.")
@click.option("--panopticapi", help="A Python that can import panopticapi.")
def main(images: int, rounds: int, root: Path | None, panopticapi: str | None) -> None:
    """Print what PQ costs, and whether the bars hold."""
    made = benchmark_set(images, root=root)
    scratch = Path(tempfile.mkdtemp(prefix="panoptic-quality-"))
    try:
        found = racers(made, scratch, panopticapi)
        for name in ("entitybench", "entitybench, entity sets"):
            found[name].run(scratch / "cache")  # compiles the truth
            found[name].seconds.clear()
        for _ in range(rounds):
            for racer in found.values():
                racer.run(scratch / "cache")
    finally:
        shutil.rmtree(scratch)
    report(found, images)


if __name__ == "__main__":
    main()
