"""Run one evaluator on one pair of files and print what it cost, as one line of JSON.

`python -m tests.benchmarks.peer NAME TRUTH RESULTS [ARRAYS]` is started afresh for every
timing, so that no evaluator profits from another's warm caches.  Time counts from after the
imports to the twelve numbers; memory is the peak of the whole process.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[np.float64]]


def _drop_in(coco_class: str, evaluator_class: str) -> Callable[[str, str], Arrays]:
    """Return a run of an evaluator with pycocotools' interface."""
    load = _attribute(coco_class)
    evaluator = _attribute(evaluator_class)

    def run(truth: str, results: str) -> Arrays:
        coco = load(truth)
        found = evaluator(coco, coco.loadRes(results), "segm")
        found.evaluate()
        found.accumulate()
        found.summarize()
        arrays = {key: np.asarray(found.eval[key]) for key in ("precision", "recall", "scores")}
        return {**arrays, "stats": np.asarray(found.stats)}

    return run


def _attribute(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def _vernier() -> Callable[[str, str], Arrays]:
    instance = importlib.import_module("vernier.instance")

    def run(truth: str, results: str) -> Arrays:
        coco = instance.CocoDataset.from_json(Path(truth).read_bytes())
        evaluator = instance.Evaluator(iou=instance.Segm(), parity_mode="strict")
        summary = evaluator.evaluate(coco, Path(results).read_bytes(), num_threads=1)
        return {"stats": np.asarray(summary.stats)}

    return run


def _entitybench() -> Callable[[str, str], Arrays]:
    benchmark = importlib.import_module("entitybench.metrics.benchmark")

    def run(truth: str, results: str) -> Arrays:
        evaluation = benchmark.evaluate(results, truth, tables=False).evaluation
        names = ("precision", "recall", "scores")
        arrays = dict(zip(names, evaluation.curves.with_coco_sentinels(), strict=True))
        for name in ("precision", "scores"):
            arrays[name] = arrays[name][:, :, None]  # pycocotools has an axis of categories
        arrays["recall"] = arrays["recall"][:, None]
        stats = np.array(list(evaluation.scores.as_dict().values())[:12])
        return {**arrays, "stats": np.nan_to_num(stats, nan=-1.0)}

    return run


PEERS: dict[str, Callable[[], Callable[[str, str], Arrays]]] = {
    "pycocotools": lambda: _drop_in("pycocotools.coco.COCO", "pycocotools.cocoeval.COCOeval"),
    "faster-coco-eval": lambda: _drop_in(
        "faster_coco_eval.COCO", "faster_coco_eval.COCOeval_faster"
    ),
    "hotcoco": lambda: _drop_in("hotcoco.COCO", "hotcoco.COCOeval"),
    "ultrafast-pycocotools": lambda: _drop_in(
        "ultrafast_pycocotools.COCO", "ultrafast_pycocotools.COCOeval"
    ),
    "vernier": _vernier,
    "entitybench": _entitybench,
}


def main(name: str, truth: str, results: str, arrays_file: str = "") -> None:
    run = PEERS[name]()
    wall, cpu = time.perf_counter(), time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):
        arrays = run(truth, results)
    cost = {
        "wall": time.perf_counter() - wall,
        "cpu": time.process_time() - cpu,
        "rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    if arrays_file:
        np.savez(arrays_file, allow_pickle=False, **arrays)
    print(json.dumps(cost))


if __name__ == "__main__":
    main(*sys.argv[1:])
