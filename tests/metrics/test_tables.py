"""Tables of whole data sets: by maps and by masks the same, and cut as the records are."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from entitybench import kernel
from entitybench.compiled_truth import PixelOrder
from entitybench.entity_map import EntityMap
from entitybench.entity_writer import EntityWriter
from entitybench.errors import FormatError
from entitybench.formats.coco_results_scan import scan_results
from entitybench.metrics import STRICT, ImagePair, MatchRecords, evaluate
from entitybench.metrics.fused import match_masks
from entitybench.metrics.ground_truth import open_truth
from entitybench.metrics.tables import STUFF, THING, Tables
from entitybench.perturbation import Perturbation, perturb
from entitybench.registry import open_entity_set
from tests.pycocotools_oracle import coco_results


def random_pairs(count: int, seed: int = 0) -> list[ImagePair]:
    random = np.random.default_rng(seed)
    pairs = []
    for number in range(count):
        ids = np.kron(random.integers(0, 8, (5, 6)), np.ones((7, 6), dtype=int))
        crowds = [7] if (ids == 7).any() else []
        truth = EntityMap.from_array(ids, crowds=crowds)
        made = perturb(truth, random, Perturbation(0.2, 0.3, 0.2, 2, 0.3))
        pairs.append(ImagePair(str(number), truth, *made, set_name="made"))
    return pairs


def columns_of(records: MatchRecords) -> dict[str, NDArray[Any]]:
    assert records.tables is not None
    return records.tables.columns()


def test_cells_are_those_of_the_maps() -> None:
    pairs = random_pairs(5)
    records = evaluate(pairs).records
    tables = records.tables
    assert tables is not None
    for index, pair in enumerate(pairs):
        own = slice(*tables.cell_offsets[index : index + 2])
        cells = zip(
            tables.cell_truth[own].tolist(), tables.cell_prediction[own].tolist(), strict=True
        )
        counted = dict(zip(cells, tables.cell_pixels[own].tolist(), strict=True))
        truth, found = pair.truth.to_array(), pair.prediction.to_array()
        for t in range(pair.truth.num_ids + 1):
            for p in range(pair.prediction.num_entities + 1):
                expected = int(((truth == t) & (found == p)).sum()) if t or p else 0
                assert counted.pop((t, p), 0) == expected
        assert not counted


@pytest.mark.skipif(not kernel.is_active(), reason="needs the kernel")
def test_masks_give_the_tables_of_their_maps(tmp_path: Path) -> None:
    pairs = random_pairs(40, seed=3)
    with EntityWriter(tmp_path / "t", kind="ground_truth") as writer:
        for pair in pairs:
            writer.add(pair.image_id, pair.truth)
    with EntityWriter(tmp_path / "p", model="m") as writer:
        for pair in pairs:
            writer.add(pair.image_id, pair.prediction, pair.scores)
    results = coco_results(open_entity_set(tmp_path / "p"))
    (tmp_path / "r.json").write_text(json.dumps(results))
    truth = open_truth(str(tmp_path / "t"))
    compiled = truth.compiled(PixelOrder.COLUMNS)
    scanned = scan_results(tmp_path / "r.json", truth.ids)
    assert compiled is not None
    assert scanned is not None
    masks = scanned.masks_of(compiled.ids, compiled.shapes)
    fused = match_masks(compiled, masks, STRICT, set_name="made", tables=True)
    expected = columns_of(evaluate(pairs).records)
    for name, column in columns_of(fused.records).items():
        np.testing.assert_array_equal(column, expected[name], strict=True, err_msg=name)


def test_a_subset_has_its_own_tables() -> None:
    pairs = random_pairs(9)
    whole = evaluate(pairs).records
    part = columns_of(evaluate([pairs[k] for k in (1, 4, 5)]).records)
    for name, column in columns_of(whole.take([1, 4, 5])).items():
        np.testing.assert_array_equal(column, part[name], strict=True, err_msg=name)


def test_merged_shards_have_the_tables_of_one_run() -> None:
    pairs = random_pairs(9)
    parts = [evaluate(pairs[k::2]).records for k in range(2)]
    whole = columns_of(evaluate(pairs).records)
    for name, column in columns_of(MatchRecords.merge(parts)).items():
        np.testing.assert_array_equal(column, whole[name], strict=True, err_msg=name)


def test_without_a_part_s_tables_there_are_none(tmp_path: Path) -> None:
    records = evaluate(random_pairs(4)).records
    bare = without_tables(records)
    others = evaluate(random_pairs(6)[4:]).records
    assert MatchRecords.merge([bare, others]).tables is None
    bare.save(tmp_path / "a.npz")
    assert MatchRecords.load(tmp_path / "a.npz").tables is None


def without_tables(records: MatchRecords) -> MatchRecords:
    return replace(records, tables=None)


class TestFile:
    @pytest.fixture
    def records(self) -> MatchRecords:
        records = evaluate(random_pairs(6)).records
        assert records.tables is not None
        origins = np.arange(len(records.truth_sizes)) % 2
        tables = records.tables.with_origins(origins.astype(np.int8))
        return replace(records, tables=tables)

    def test_round_trip(self, records: MatchRecords, tmp_path: Path) -> None:
        records.save(tmp_path / "a.npz")
        for name, column in columns_of(MatchRecords.load(tmp_path / "a.npz")).items():
            np.testing.assert_array_equal(column, columns_of(records)[name], strict=True)

    @pytest.mark.parametrize(
        ("name", "change", "message"),
        [
            ("cell_pixels", lambda a: a * 0, "a cell without a pixel"),
            ("cell_pixels", lambda a: a * 1000, "more pixels than the image"),
            ("cell_truth", lambda a: a + 99, "an id that does not exist"),
            ("cell_truth", lambda a: a[::-1], "not ascend"),
            ("cell_prediction", lambda a: -a, "an id that does not exist"),
            ("cell_prediction", lambda a: a * 0, "not ascend"),
            ("cell_offsets", lambda a: a + 1, "`cell_offsets` do not ascend"),
            ("crowd_offsets", lambda a: a[::-1], "`crowd_offsets` do not ascend"),
            ("truth_boxes", lambda a: a[:-1], "column `truth_boxes` is int32 of shape"),
            ("prediction_boxes", lambda a: a - 999, "a box of negative size"),
            ("origins", lambda a: a + 5, "an origin that is none"),
            ("origins", lambda a: a.astype(np.int16), "column `origins` is int16"),
            ("origins", None, "missing or unknown: `origins`"),
        ],
    )
    def test_columns_that_contradict(
        self,
        name: str,
        change: Callable[[NDArray[Any]], NDArray[Any]] | None,
        message: str,
        records: MatchRecords,
        tmp_path: Path,
    ) -> None:
        records.save(tmp_path / "a.npz")
        with np.load(tmp_path / "a.npz") as archive:
            arrays = dict(archive)
        changed = None if change is None else change(arrays.pop(name))
        arrays |= {} if changed is None else {name: changed}
        arrays = arrays if change else {k: v for k, v in arrays.items() if k != name}
        np.savez(tmp_path / "b.npz", **arrays)
        with pytest.raises(FormatError, match=message):
            MatchRecords.load(tmp_path / "b.npz")


def test_origins_are_named() -> None:
    assert (THING, STUFF) == (1, 0)
    assert Tables.gather([]).origins.dtype == np.int8
