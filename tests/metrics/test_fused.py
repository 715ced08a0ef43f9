"""Every way from files to scores gives the same bits, with the kernel and without."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin
from pycocotools import mask as coco_mask

from entitybench import kernel
from entitybench.compiled_truth import DamagedTruthError, PixelOrder, cache_folder, open_compiled
from entitybench.entity_map import EntityMap
from entitybench.entity_writer import EntityWriter
from entitybench.errors import EntityBenchError, FormatError, MissingDataError, OverlapError
from entitybench.metrics import OFFICIAL, STRICT, Protocol, benchmark
from entitybench.metrics.benchmark import ImageOutcome, ImageTask, evaluate, score_image
from entitybench.metrics.ground_truth import open_truth
from entitybench.metrics.records import MatchRecords
from entitybench.rle import decode_counts
from entitybench.sharding import Shard

compiled_only = pytest.mark.skipif(not kernel.is_active(), reason="the kernel is not active")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENTITYBENCH_CACHE", str(tmp_path / "cache"))


@dataclass
class Files:
    """One random data set in every form."""

    truth_set: Path
    truth_json: Path
    predictions_set: Path
    results: Path
    rows: list[dict[str, Any]]


def rle(mask: NDArray[np.bool_]) -> dict[str, Any]:
    found = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(mask.shape), "counts": found["counts"].decode()}


def labels(rng: np.random.Generator, shape: tuple[int, int], most: int) -> NDArray[np.int64]:
    coarse = rng.integers(0, most + 1, (shape[0] // 4 + 1, shape[1] // 4 + 1))
    dense = np.kron(coarse, np.ones((4, 4), dtype=np.int64))[: shape[0], : shape[1]]
    noise = rng.random(shape) < 0.03
    return np.where(noise, rng.integers(0, most + 1, shape), dense)


def write_files(folder: Path, seed: int, images: int = 5) -> Files:
    rng = np.random.default_rng(seed)
    made = Files(
        folder / "truth", folder / "truth.json", folder / "preds", folder / "results.json", []
    )
    truth = EntityWriter(made.truth_set, kind="ground_truth")
    predictions = EntityWriter(made.predictions_set, model="mine")
    table: dict[str, list[dict[str, Any]]] = {"images": [], "annotations": []}
    with truth, predictions:
        for image in range(images):
            shape = int(rng.integers(1, 70)), int(rng.integers(1, 70))
            number, stem = 7 * image + 3, f"{7 * image + 3:012d}"
            add_truth(rng, truth, table, shape, number, stem)
            add_prediction(rng, predictions, made.rows, shape, number, stem)
    order = rng.permutation(images)
    table["images"] = [table["images"][i] for i in order]
    made.truth_json.write_text(json.dumps(table))
    made.results.write_text(json.dumps(made.rows))
    return made


def add_truth(
    rng: np.random.Generator,
    writer: EntityWriter,
    table: dict[str, list[dict[str, Any]]],
    shape: tuple[int, int],
    number: int,
    stem: str,
) -> None:
    num_ids, num_crowds = int(rng.integers(0, 7)), int(rng.integers(0, 2))
    dense = labels(rng, shape, num_ids + num_crowds)
    ids = range(1, num_ids + num_crowds + 1)
    entities, crowds = ids[:num_ids], ids[num_ids:]
    writer.add(stem, EntityMap.from_array(dense, entities=entities, crowds=crowds))
    name = {"id": number, "file_name": f"{stem}.jpg"}
    table["images"].append({**name, "height": shape[0], "width": shape[1]})
    for i in [*crowds, *entities]:  # crowds first: the reader has to bring them to the end
        segmentation, area = rle(dense == i), int(np.count_nonzero(dense == i))
        row = {"id": len(table["annotations"]) + 1, "image_id": number, "area": area}
        crowd = {"segmentation": segmentation, "iscrowd": int(i in crowds)}
        table["annotations"].append({**row, **crowd})


def add_prediction(
    rng: np.random.Generator,
    writer: EntityWriter,
    rows: list[dict[str, Any]],
    shape: tuple[int, int],
    number: int,
    stem: str,
) -> None:
    count = int(rng.choice([0, 3, 8, 130]))
    dense = labels(rng, shape, count)
    scores = rng.random(count).round(int(rng.integers(1, 9)))
    writer.add(stem, EntityMap.from_array(dense, entities=range(1, count + 1)), scores)
    for i, score in enumerate(scores.tolist(), start=1):
        rows.append({"image_id": number, "segmentation": rle(dense == i), "score": score})


def assert_same(a: MatchRecords, b: MatchRecords) -> None:
    assert a.images == b.images
    assert_equal_columns(a, b, [field.name for field in fields(a)[2:] if field.name != "tables"])
    assert a.tables is not None
    assert b.tables is not None
    assert_equal_columns(a.tables, b.tables, [field.name for field in fields(a.tables)])


def assert_equal_columns(a: object, b: object, names: list[str]) -> None:
    for name in names:
        left, right = getattr(a, name), getattr(b, name)
        np.testing.assert_array_equal(left, right, strict=True, err_msg=name)


def records(
    predictions: Path, truth: Path, protocol: Protocol = STRICT, **options: Any
) -> MatchRecords:
    return evaluate(predictions, str(truth), protocol=protocol, **options).evaluation.records


@pytest.fixture
def without_kernel(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    return lambda: monkeypatch.setattr(kernel, "_active", False)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("protocol", [STRICT, OFFICIAL, Protocol.named("strict", "ignore")])
def test_all_forms_agree(
    seed: int, protocol: Protocol, tmp_path: Path, without_kernel: Callable[[], None]
) -> None:
    files = write_files(tmp_path, seed)
    found = [
        records(predictions, truth, protocol)
        for predictions in (files.results, files.predictions_set)
        for truth in (files.truth_set, files.truth_json)
    ]
    without_kernel()
    expected = records(files.predictions_set, files.truth_set, protocol)
    found += [
        records(files.results, truth, protocol) for truth in (files.truth_set, files.truth_json)
    ]
    for other in found:
        assert_same(other, expected)


@compiled_only
def test_threads_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = write_files(tmp_path, 1, images=9)
    expected = records(files.results, files.truth_set)
    monkeypatch.setattr("entitybench.metrics.fused._IMAGES_AT_ONCE", 2)
    monkeypatch.setattr("entitybench.metrics.fused._CELLS_AT_ONCE", 5)
    monkeypatch.setattr("entitybench.metrics.fused_maps._PNGS_AT_ONCE", 1)
    for predictions in (files.results, files.predictions_set):
        assert_same(records(predictions, files.truth_set, threads=3), expected)


@compiled_only
@pytest.mark.parametrize("form", ["results", "predictions_set"])
def test_without_tables_the_matches_are_the_same(form: str, tmp_path: Path) -> None:
    files = write_files(tmp_path, 15)
    predictions = getattr(files, form)
    found = records(predictions, files.truth_set, tables=False)
    assert found.tables is None
    expected = records(predictions, files.truth_set)
    assert_same(replace(found, tables=expected.tables), expected)


def left_over(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note the images that the careful reader looks at."""
    seen: list[str] = []

    def noted(task: ImageTask) -> ImageOutcome:
        seen.append(task.truth.id)
        return score_image(task)

    monkeypatch.setattr(benchmark, "score_image", noted)
    return seen


@compiled_only
def test_maps_of_any_kind_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(11)
    with (
        EntityWriter(tmp_path / "truth", kind="ground_truth") as truth,
        EntityWriter(tmp_path / "preds", model="m") as predictions,
    ):
        for number, count in enumerate((0, 1, 254, 255, 256, 300, 1000)):
            dense = rng.permutation(np.arange(41 * 53)).reshape(41, 53) % (count + 1)
            stem = f"{number:012d}"
            given = EntityMap.from_array(dense, entities=range(1, count + 1))
            truth.add(stem, EntityMap.from_array(labels(rng, (41, 53), 9), entities=range(1, 10)))
            predictions.add(stem, given, rng.random(count).round(2))
    seen = left_over(monkeypatch)
    found = records(tmp_path / "preds", tmp_path / "truth")
    assert seen == []
    monkeypatch.setattr(kernel, "_active", False)
    assert_same(found, records(tmp_path / "preds", tmp_path / "truth"))


def test_truth_as_predictions(tmp_path: Path, without_kernel: Callable[[], None]) -> None:
    files = write_files(tmp_path, 13)
    found = records(files.truth_set, files.truth_set)
    without_kernel()
    assert_same(found, records(files.truth_set, files.truth_set))


def test_parts_of_a_set_of_maps(tmp_path: Path) -> None:
    files = write_files(tmp_path, 14, images=7)
    parts = [records(files.predictions_set, files.truth_set, shard=Shard(i, 3)) for i in (1, 2, 3)]
    assert_same(MatchRecords.merge(parts), records(files.predictions_set, files.truth_set))


@compiled_only
def test_odd_maps_are_left_to_the_careful_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = write_files(tmp_path, 12)
    expected = records(files.predictions_set, files.truth_set)
    odd, gone, *_ = sorted((files.predictions_set / "maps").iterdir())
    with Image.open(odd) as image:
        info = PngImagePlugin.PngInfo()
        info.add(b"prVt", b"a chunk that nobody knows")
        image.save(odd, pnginfo=info)
    seen = left_over(monkeypatch)
    assert_same(records(files.predictions_set, files.truth_set), expected)
    assert seen == [odd.stem]
    gone.unlink()
    with pytest.raises(MissingDataError, match=gone.name):
        records(files.predictions_set, files.truth_set)


def change_row(files: Files, change: Callable[[dict[str, Any]], None]) -> None:
    table = files.predictions_set / "images.jsonl"
    rows = [json.loads(line) for line in table.read_text().splitlines()]
    change(max(rows, key=lambda row: len(row["entities"])))
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize(
    ("message", "change"),
    [
        ("not in", lambda row: row["entities"][0].update(score=1.5)),
        ("no score", lambda row: row["entities"][0].pop("score")),
        ("plain name", lambda row: row.update(map="../elsewhere.png")),
        ("the image is", lambda row: row.update(height=row["height"] + 1)),
        ("run ids", lambda row: row["entities"].clear()),
    ],
)
def test_rows_that_lie_are_refused_alike(
    message: str,
    change: Callable[[dict[str, Any]], None],
    tmp_path: Path,
    without_kernel: Callable[[], None],
) -> None:
    files = write_files(tmp_path, 1)
    change_row(files, change)
    with pytest.raises(FormatError, match=message) as found:
        records(files.predictions_set, files.truth_set)
    without_kernel()
    with pytest.raises(FormatError) as expected:
        records(files.predictions_set, files.truth_set)
    assert str(found.value) == str(expected.value)


def overlapping(files: Files) -> Path:
    """Give one image a mask that covers others, ranked between them."""
    row = next(r for r in files.rows if max(r["segmentation"]["size"]) > 4)
    height, width = row["segmentation"]["size"]
    whole = np.ones((height, width), dtype=bool)
    files.rows.append({**row, "segmentation": rle(whole), "score": 0.5})
    files.results.write_text(json.dumps(files.rows))
    return files.results


def test_overlap_is_refused_or_resolved_alike(
    tmp_path: Path, without_kernel: Callable[[], None]
) -> None:
    files = write_files(tmp_path, 3)
    results = overlapping(files)
    with pytest.raises(OverlapError, match="1 of 5 images") as refused:
        records(results, files.truth_set)
    resolved = records(results, files.truth_set, overlap="resolve")
    without_kernel()
    with pytest.raises(OverlapError) as expected:
        records(results, files.truth_set)
    assert str(refused.value) == str(expected.value)
    assert_same(resolved, records(results, files.truth_set, overlap="resolve"))


def broken_rows() -> list[tuple[str, dict[str, Any]]]:
    return [
        ("counts", {"segmentation": {"size": [9, 9], "counts": "zz~"}}),
        ("size", {"segmentation": {"size": [9, 8], "counts": "01"}}),
        ("score", {"score": 1.5}),
        ("no score", {"score": None}),
        ("image", {"image_id": 4}),
        ("polygons", {"segmentation": [[0, 0, 3, 0, 3, 3]]}),
        ("polygon of two points", {"segmentation": [[0, 0, 3, 0]]}),
        ("no polygon", {"segmentation": []}),
        ("polygon of text", {"segmentation": ["0, 0, 3, 0, 3, 3"]}),
        ("number beyond floats", {"segmentation": [[0, 0, 3, 0, 3, 10**400]]}),
        ("text id", {"image_id": "000000000003"}),
        ("list", {"segmentation": {"size": None, "counts": None}}),
    ]


@pytest.mark.parametrize(("_name", "change"), broken_rows())
def test_odd_rows_are_treated_as_without_the_kernel(
    _name: str, change: dict[str, Any], tmp_path: Path, without_kernel: Callable[[], None]
) -> None:
    files = write_files(tmp_path, 5)
    files.rows[2].update(change)
    files.results.write_text(json.dumps(files.rows))

    def outcome() -> MatchRecords | str:
        try:
            return records(files.results, files.truth_set, overlap="resolve")
        except EntityBenchError as error:
            return str(error)

    found = outcome()
    without_kernel()
    expected = outcome()
    if isinstance(expected, str) or isinstance(found, str):
        assert found == expected
    else:
        assert_same(found, expected)


def blocks(files: Files) -> None:
    """Write truth and results of rectangles, which polygons tell as well as RLE does."""
    table = json.loads(files.truth_json.read_text())
    table["annotations"], files.rows[:] = [], []
    for image in table["images"]:
        place, half = {"image_id": image["id"]}, image["width"] // 2
        for left, right in ((0, half), (half, image["width"])):
            corners = [left, 0, right, 0, right, image["height"], left, image["height"]]
            truth = {"segmentation": [corners], "area": 9, "id": len(table["annotations"]) + 1}
            table["annotations"].append(place | truth)
            mask = np.zeros((image["height"], image["width"]), dtype=bool)
            mask[:, (left + right) // 2 : right] = True
            files.rows.append(place | {"segmentation": rle(mask), "score": 0.5})
        files.rows[-1]["segmentation"] = [corners]
    files.truth_json.write_text(json.dumps(table))


def as_lists(rows: list[dict[str, Any]]) -> str:
    for row in rows[::2]:  # of two rows of `blocks`, the one that is RLE
        found = row["segmentation"]
        found["counts"] = decode_counts(found["counts"]).tolist()
    return json.dumps(rows)


def escaped(rows: list[dict[str, Any]]) -> str:
    """Write the first character of each RLE text as an escape, more than JSON demands."""
    first = r'"counts": "([^\\"])'
    return re.sub(first, lambda m: f'"counts": "\\u{ord(m[1]):04x}', json.dumps(rows))


FORMS: dict[str, Callable[[list[dict[str, Any]]], str]] = {
    "text": json.dumps,
    "lists": as_lists,
    "escapes": escaped,
    "wrapped": lambda rows: json.dumps({"info": {"rows": rows[:1]}, "annotations": rows}),
}


@compiled_only
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("polygons", [False, True])
def test_no_form_of_coco_files_needs_the_careful_reader(
    form: str,
    polygons: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    without_kernel: Callable[[], None],
) -> None:
    files = write_files(tmp_path, 16)
    if polygons:
        blocks(files)
    files.results.write_text(FORMS[form](files.rows))
    seen = left_over(monkeypatch)
    with monkeypatch.context() as context:
        context.delattr("entitybench.metrics.ground_truth.open_coco_truth")
        found = records(files.results, files.truth_json)
    assert seen == []
    assert len(found.scores) > 5
    without_kernel()
    assert_same(found, records(files.results, files.truth_json))


def test_truth_that_overlaps_is_refused_with_a_way_out(tmp_path: Path) -> None:
    files = write_files(tmp_path, 2)
    table = json.loads(files.truth_json.read_text())
    image = next(i for i in table["images"] if i["height"] * i["width"] > 20)
    whole = rle(np.ones((image["height"], image["width"]), dtype=bool))
    base = {"image_id": image["id"], "area": 5, "iscrowd": 0, "segmentation": whole}
    table["annotations"] += [{**base, "id": 9001}, {**base, "id": 9002}]
    files.truth_json.write_text(json.dumps(table))
    with pytest.raises(OverlapError, match="share") as refused:
        records(files.results, files.truth_json)
    assert "order of depth" in refused.value.hint


# --- the cache ---


@compiled_only
def test_truth_is_compiled_once_and_anew_when_damaged(tmp_path: Path) -> None:
    files = write_files(tmp_path, 4)
    expected = records(files.results, files.truth_set)
    (path,) = (cache_folder() / "truth").iterdir()
    before = path.stat().st_mtime_ns
    assert_same(records(files.results, files.truth_set), expected)
    assert path.stat().st_mtime_ns == before
    whole = path.read_bytes()
    for place in (0, 9, 40, len(whole) // 2, len(whole) - 3):
        damaged = bytearray(whole)
        damaged[place] ^= 0x11
        path.unlink()
        path.write_bytes(damaged)
        assert_same(records(files.results, files.truth_set), expected)
        assert path.read_bytes() == whole
    path.unlink()
    path.write_bytes(whole[:-5])
    assert_same(records(files.results, files.truth_set), expected)


@compiled_only
def test_both_orders_of_pixels_hold_the_same_maps(tmp_path: Path) -> None:
    files = write_files(tmp_path, 6)
    truth = open_truth(str(files.truth_set))
    maps = [image.load()[0] for image in truth._careful_images()]
    for order in PixelOrder:
        compiled = truth.compiled(order)
        assert compiled is not None
        assert compiled.ids == truth.ids
        for index, expected in enumerate(maps):
            assert compiled.map_of(index) == expected


@compiled_only
def test_a_set_that_lies_about_its_hash_is_not_cached(tmp_path: Path) -> None:
    files = write_files(tmp_path, 7)
    header = files.truth_set / "entity_set.json"
    text = json.loads(header.read_text())
    header.write_text(json.dumps({**text, "content_hash": "0" * 64}))
    found = records(files.results, files.truth_set)
    assert not list((cache_folder() / "truth").glob("*"))
    header.write_text(json.dumps(text))
    assert_same(found, records(files.results, files.truth_set))


@compiled_only
def test_no_cache_folder_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = write_files(tmp_path, 8)
    expected = records(files.results, files.truth_set)
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where the folder should be")
    monkeypatch.setenv("ENTITYBENCH_CACHE", str(blocked))
    assert_same(records(files.results, files.truth_set), expected)


def test_open_compiled_refuses_other_files(tmp_path: Path) -> None:
    for content in (b"", b"x", b"EBRUNS1\n", b"EBRUNS1\n" + b"\xff" * 40):
        path = tmp_path / "other.runs"
        path.write_bytes(content)
        with pytest.raises(DamagedTruthError):
            open_compiled(path)


def test_a_file_that_is_neither_is_refused(tmp_path: Path) -> None:
    files = write_files(tmp_path, 9)
    with pytest.raises(FormatError):
        records(files.results, files.results)
