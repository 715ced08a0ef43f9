"""The benchmark set on disk: the same scenes in every form that an evaluator reads.

A folder holds::

    truth.json        COCO instance JSON with compressed RLE
    results.json      COCO results JSON, images in another order than in the truth
    results_bbox.json the same with boxes, for evaluators that insist on them
    truth_set/        entity set of kind ground truth
    predictions_set/  entity set of kind predictions
    done.json         what was made; written last
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from entitybench.entity_map import EntityMap
from entitybench.entity_writer import EntityWriter
from tests.benchmarks.scenes import Labels, Recipe, make_scene

_IMAGE_ID = re.compile(rb'"image_id": (\d+)|"id": (\d+)')


@dataclass(frozen=True, slots=True)
class Benchmark:
    """Where the files of one benchmark set are."""

    folder: Path

    @property
    def truth(self) -> Path:
        return self.folder / "truth.json"

    @property
    def results(self) -> Path:
        return self.folder / "results.json"

    @property
    def results_with_boxes(self) -> Path:
        return self.folder / "results_bbox.json"

    @property
    def truth_set(self) -> Path:
        return self.folder / "truth_set"

    @property
    def predictions_set(self) -> Path:
        return self.folder / "predictions_set"

    @property
    def num_images(self) -> int:
        done = json.loads((self.folder / "done.json").read_text())
        return int(done["images"])


@dataclass(frozen=True, slots=True)
class _Made:
    """One image, encoded by a worker."""

    index: int
    shape: tuple[int, int]
    annotations: list[dict[str, object]]
    results: list[dict[str, object]]
    truth: EntityMap
    prediction: EntityMap
    scores: NDArray[np.float64]


def default_root() -> Path:
    """`$ENTITYBENCH_BENCHMARKS`, else a folder among the system's temporary files."""
    named = os.environ.get("ENTITYBENCH_BENCHMARKS")
    return Path(named) if named else Path(tempfile.gettempdir()) / "entitybench-benchmarks"


def benchmark_set(
    images: int,
    *,
    root: Path | None = None,
    seed: int = 0,
    recipe: Recipe | None = None,
    jobs: int = 2,
) -> Benchmark:
    """Return the set, making it where it is not there yet."""
    chosen = recipe or Recipe()
    size = "" if chosen.size is None else f"-{chosen.size[0]}x{chosen.size[1]}"
    entities = "" if chosen.entities is None else f"-{chosen.entities}entities"
    folder = (root or default_root()) / f"{images}images-seed{seed}{size}{entities}"
    if not (folder / "done.json").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        _write(Benchmark(folder), images, seed, chosen, jobs)
    return Benchmark(folder)


def repeated_set(benchmark: Benchmark, times: int) -> Benchmark:
    """Return the JSON files of a set repeated under new image ids."""
    folder = benchmark.folder.with_name(f"{benchmark.folder.name}-times{times}")
    made = Benchmark(folder)
    if not (folder / "done.json").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        _repeat_results(benchmark.results, made.results, times)
        _repeat_truth(benchmark.truth, made.truth, times)
        (folder / "done.json").write_text(json.dumps({"images": benchmark.num_images * times}))
    return made


def image_id(index: int) -> int:
    """COCO-like ids: not contiguous, ascending."""
    return 139 + 7 * index


def _make(seed: int, recipe: Recipe, index: int) -> _Made:
    scene = make_scene(seed, index, recipe)
    num_true = int(scene.truth.max())
    truth_rle = _encode(scene.truth, num_true)
    first_crowd = num_true - scene.num_crowds
    number = image_id(index)
    annotations: list[dict[str, object]] = [
        {
            "image_id": number,
            "category_id": 1,
            "iscrowd": int(i >= first_crowd),
            "area": int(coco_mask.area(rle)),
            "bbox": coco_mask.toBbox(rle).tolist(),
            "segmentation": _text(rle),
        }
        for i, rle in enumerate(truth_rle)
    ]
    results: list[dict[str, object]] = [
        {
            "image_id": number,
            "category_id": 1,
            "bbox": coco_mask.toBbox(rle).tolist(),
            "segmentation": _text(rle),
            "score": score,
        }
        for rle, score in zip(
            _encode(scene.prediction, len(scene.scores)), scene.scores.tolist(), strict=True
        )
    ]
    return _Made(
        index,
        (scene.truth.shape[0], scene.truth.shape[1]),
        annotations,
        results,
        EntityMap.from_array(
            scene.truth,
            entities=range(1, first_crowd + 1),
            crowds=range(first_crowd + 1, num_true + 1),
        ),
        EntityMap.from_array(scene.prediction, entities=range(1, len(scene.scores) + 1)),
        scene.scores,
    )


def _encode(labels: Labels, count: int) -> list[dict[str, object]]:
    columns = np.asfortranarray(labels)
    return [coco_mask.encode((columns == value).view(np.uint8)) for value in range(1, count + 1)]


def _text(rle: dict[str, object]) -> dict[str, object]:
    counts = rle["counts"]
    if not isinstance(counts, bytes):
        msg = "pycocotools encodes to bytes"
        raise TypeError(msg)
    return {"size": rle["size"], "counts": counts.decode("ascii")}


def _write(made: Benchmark, images: int, seed: int, recipe: Recipe, jobs: int) -> None:
    order = np.random.default_rng(seed).permutation(images).tolist()
    rows: list[dict[str, object]] = []
    truth_set = EntityWriter(made.truth_set, kind="ground_truth", name="benchmark")
    predictions_set = EntityWriter(made.predictions_set, model="invented")
    with (
        truth_set,
        predictions_set,
        _json_list(made.results) as results,
        _json_list(made.results_with_boxes) as boxed,
        _json_list(made.folder / "annotations.part") as annotations,
    ):
        for image in _scenes(order, seed, recipe, jobs):
            stem = f"{image_id(image.index):012d}"
            truth_set.add(stem, image.truth)
            predictions_set.add(stem, image.prediction, image.scores)
            height, width = image.shape
            number = image_id(image.index)
            rows.append(
                {"id": number, "width": width, "height": height, "file_name": f"{stem}.jpg"}
            )
            for annotation in image.annotations:
                annotations.add({"id": annotations.count + 1, **annotation})
            for result in image.results:
                boxed.add(result)
                results.add({key: value for key, value in result.items() if key != "bbox"})
    _join_truth(made, sorted(rows, key=lambda row: str(row["file_name"])))
    done = {"images": images, "seed": seed, "recipe": asdict(recipe), "results": results.count}
    (made.folder / "done.json").write_text(json.dumps(done))


def _scenes(order: list[int], seed: int, recipe: Recipe, jobs: int) -> Iterator[_Made]:
    make = partial(_make, seed, recipe)
    if jobs < 2:
        yield from map(make, order)
        return
    with ProcessPoolExecutor(jobs) as pool:
        for start in range(0, len(order), 256):
            yield from pool.map(make, order[start : start + 256], chunksize=8)


class _json_list:  # used as a function is
    """Writes a JSON list row by row, as `json.dump` would."""

    def __init__(self, path: Path) -> None:
        self.count = 0
        self._path = path

    def __enter__(self) -> _json_list:
        self._file = self._path.open("wb")
        self._file.write(b"[")
        return self

    def add(self, row: dict[str, object]) -> None:
        self._file.write((b", " if self.count else b"") + json.dumps(row).encode("ascii"))
        self.count += 1

    def __exit__(self, *_: object) -> None:
        self._file.write(b"]")
        self._file.close()


def _join_truth(made: Benchmark, images: list[dict[str, object]]) -> None:
    part = made.folder / "annotations.part"
    categories = [{"id": 1, "name": "entity"}]
    with made.truth.open("wb") as file, part.open("rb") as annotations:
        head = json.dumps({"images": images, "categories": categories}).encode("ascii")
        file.write(head[:-1] + b', "annotations": ')
        shutil.copyfileobj(annotations, file)
        file.write(b"}")
    part.unlink()


def _renumber(text: bytes, image_shift: int, annotation_shift: int) -> bytes:
    def shifted(match: re.Match[bytes]) -> bytes:
        if match[1]:
            return b'"image_id": %d' % (int(match[1]) + image_shift)
        return b'"id": %d' % (int(match[2]) + annotation_shift)

    return _IMAGE_ID.sub(shifted, text)


def _repeat_results(source: Path, target: Path, times: int) -> None:
    rows = source.read_bytes()[1:-1]
    with target.open("wb") as file:
        file.write(b"[")
        for time in range(times):
            file.write((b", " if time else b"") + _renumber(rows, time * 10_000_000, 0))
        file.write(b"]")


def _repeat_truth(source: Path, target: Path, times: int) -> None:
    head, _, annotations = source.read_bytes().partition(b', "annotations": ')
    images = json.loads(head + b"}")["images"]
    count = annotations.count(b'"image_id"')
    with target.open("wb") as file:
        file.write(b'{"categories": [{"id": 1, "name": "entity"}], "images": [')
        for time in range(times):
            _write_images(file, images, time)
        file.write(b'], "annotations": [')
        for time in range(times):
            rows = _renumber(annotations[1:-2], time * 10_000_000, time * count)
            file.write((b", " if time else b"") + rows)
        file.write(b"]}")


def _write_images(file: IO[bytes], images: list[dict[str, object]], time: int) -> None:
    for place, row in enumerate(images):
        number = int(str(row["id"])) + time * 10_000_000
        shifted = {**row, "id": number, "file_name": f"{number:012d}.jpg"}
        comma = b", " if time or place else b""
        file.write(comma + json.dumps(shifted).encode("ascii"))
