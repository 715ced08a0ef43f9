from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from entitybench.entity_map import EntityMap
from entitybench.errors import ConflictError, FormatError, MissingDataError
from entitybench.metrics import (
    OFFICIAL,
    STRICT,
    ImageKey,
    ImagePair,
    MatchRecords,
    accumulate,
    evaluate,
    image_order,
    match_pair,
)

SEED_PAIRS = 12


def columns(records: MatchRecords) -> dict[str, NDArray[Any]]:
    own = {f.name: getattr(records, f.name) for f in fields(records)[2:-2]}
    return own | ({} if records.tables is None else records.tables.columns())


def assert_same(a: MatchRecords, b: MatchRecords) -> None:
    assert (a.protocol, a.images) == (b.protocol, b.images)
    for name, array in columns(a).items():
        np.testing.assert_array_equal(array, columns(b)[name], strict=True, err_msg=name)


@pytest.fixture(scope="module")
def pairs() -> list[ImagePair]:
    random = np.random.default_rng(5)
    made = []
    for number in range(SEED_PAIRS):
        truth = np.kron(random.integers(0, 5, (4, 4)), np.ones((5, 5), int))
        found = np.where(random.random(truth.shape) < 0.2, 0, np.roll(truth, 1, axis=1))
        found = found * (number != 3)  # one image without predictions
        prediction = EntityMap.from_array(found)
        scores = random.random(prediction.num_entities).round(1)
        truth_map = EntityMap.from_array(truth, crowds=[4])
        made.append(ImagePair(str(number), truth_map, prediction, scores, set_name="small"))
    return made


@pytest.fixture(scope="module")
def records(pairs: list[ImagePair]) -> MatchRecords:
    return evaluate(pairs).records


def part(pairs: list[ImagePair], indices: list[int]) -> MatchRecords:
    return MatchRecords.gather(STRICT, (match_pair(pairs[i]) for i in indices))


@pytest.mark.parametrize(
    ("ids", "ordered"),
    [
        (["10", "9", "100"], ["9", "10", "100"]),
        (["10", "9", "b"], ["10", "9", "b"]),  # one id is not decimal: all are text
        (["000010", "9"], ["9", "000010"]),
        (["1", "01"], ["01", "1"]),
        (["²", "10", "9"], ["10", "9", "²"]),  # a digit, but no decimal number
    ],
)
def test_images_order_by_number_or_else_by_text(ids: list[str], ordered: list[str]) -> None:
    keys = [ImageKey("", i) for i in ids]
    assert [ids[k] for k in image_order(keys)] == ordered


def test_a_union_orders_by_set_then_by_id() -> None:
    keys = [ImageKey("b", "9"), ImageKey("a", "x"), ImageKey("b", "10"), ImageKey("a", "10")]
    assert [keys[k] for k in image_order(keys)] == [
        ("a", "10"), ("a", "x"), ("b", "9"), ("b", "10"),
    ]  # fmt: skip


def test_derived_columns(records: MatchRecords, pairs: list[ImagePair]) -> None:
    assert len(records) == SEED_PAIRS
    for index, pair in enumerate(pairs):
        rows = slice(*records.detection_offsets[index : index + 2])
        assert records.ranks[rows].tolist() == list(range(pair.prediction.num_entities))
        assert records.positives[index].tolist() == [pair.truth.num_entities] * 2 + [0, 0]


def test_shards_merge_to_the_same_bits_in_any_order(
    pairs: list[ImagePair], records: MatchRecords
) -> None:
    random = np.random.default_rng(0)
    for count in (1, 2, 5):
        shards = np.array_split(random.permutation(SEED_PAIRS), count)
        merged = MatchRecords.merge([part(pairs, s.tolist()) for s in shards])
        assert_same(merged, records)


def test_an_empty_shard_adds_nothing(pairs: list[ImagePair], records: MatchRecords) -> None:
    assert_same(MatchRecords.merge([part(pairs, []), records]), records)


def test_the_same_image_twice_is_refused(pairs: list[ImagePair]) -> None:
    with pytest.raises(ConflictError, match="hold 1 images twice\n  --> small/2"):
        part(pairs, [1, 2, 2])
    with pytest.raises(ConflictError, match="hold 2 images twice"):
        MatchRecords.merge([part(pairs, [1, 2, 3]), part(pairs, [2, 3])])


def test_one_id_in_two_sets_is_two_images(pairs: list[ImagePair]) -> None:
    other = replace(pairs[2], set_name="other")
    assert evaluate([pairs[2], other]).records.images == (("other", "2"), ("small", "2"))


def test_records_of_different_protocols_do_not_merge(pairs: list[ImagePair]) -> None:
    official = MatchRecords.gather(OFFICIAL, [match_pair(pairs[0], OFFICIAL)])
    with pytest.raises(ConflictError, match="different protocols"):
        MatchRecords.merge([part(pairs, [1]), official])


def test_nothing_does_not_merge() -> None:
    with pytest.raises(MissingDataError, match="no match records to merge"):
        MatchRecords.merge([])


def test_a_subset_scores_like_a_run_on_it(pairs: list[ImagePair], records: MatchRecords) -> None:
    assert_same(records.take([1, 4, 7]), part(pairs, [1, 4, 7]))


def test_an_image_may_be_drawn_twice(records: MatchRecords) -> None:
    once, twice = records.take([1]), records.take([1, 1])
    assert len(twice.scores) == 2 * len(once.scores)
    assert accumulate(twice).recall[0, 0, 2] == accumulate(once).recall[0, 0, 2]


class TestFile:
    def test_round_trip(self, records: MatchRecords, tmp_path: Path) -> None:
        records.save(tmp_path / "a.matches.npz")
        assert_same(MatchRecords.load(tmp_path / "a.matches.npz"), records)
        assert [p.name for p in tmp_path.iterdir()] == ["a.matches.npz"]

    def test_round_trip_of_nothing(self, tmp_path: Path) -> None:
        nothing = MatchRecords.gather(OFFICIAL, [])
        nothing.save(tmp_path / "a.npz")
        assert_same(MatchRecords.load(tmp_path / "a.npz"), nothing)

    def test_names_of_any_script(self, pairs: list[ImagePair], tmp_path: Path) -> None:
        named = evaluate([replace(pairs[0], image_id="ab 図 é\n", set_name="x+y")]).records
        named.save(tmp_path / "a.npz")
        assert MatchRecords.load(tmp_path / "a.npz").images == (("x+y", "ab 図 é\n"),)

    def test_equal_records_give_equal_bytes(self, records: MatchRecords, tmp_path: Path) -> None:
        for name in "ab":
            records.save(tmp_path / name)
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(MissingDataError, match="cannot be read: No such file"):
            MatchRecords.load(tmp_path / "a.npz")

    @pytest.mark.parametrize("kept", [0, 1, 100, 0.5, 0.99])
    def test_a_truncated_file(self, kept: float, records: MatchRecords, tmp_path: Path) -> None:
        path = tmp_path / "a.npz"
        records.save(path)
        data = path.read_bytes()
        path.write_bytes(data[: int(kept * len(data)) if 0 < kept < 1 else int(kept)])
        with pytest.raises(FormatError, match="not a file of match records, or a broken one"):
            MatchRecords.load(path)

    def test_damage_anywhere_is_found_or_harmless(
        self, records: MatchRecords, tmp_path: Path
    ) -> None:
        path = tmp_path / "a.npz"
        records.save(path)
        data = path.read_bytes()
        random = np.random.default_rng(1)
        refused = 0
        for position in random.integers(0, len(data), 200).tolist():
            damaged = bytearray(data)
            damaged[position] ^= 1 << int(random.integers(8))
            path.write_bytes(bytes(damaged))
            try:
                assert_same(MatchRecords.load(path), records)
            except FormatError:
                refused += 1
        assert refused > 100

    @pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04", b"\x93NUMPY"])
    def test_other_files(self, content: bytes, tmp_path: Path) -> None:
        (tmp_path / "a.npz").write_bytes(content)
        with pytest.raises(FormatError, match="not a file of match records"):
            MatchRecords.load(tmp_path / "a.npz")

    def test_a_single_array(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", np.zeros(3))
        with pytest.raises(FormatError, match="a single array"):
            MatchRecords.load(tmp_path / "a.npy")

    def test_a_pickle_is_never_opened(self, tmp_path: Path) -> None:
        (tmp_path / "a.npz").write_bytes(pickle.dumps({"a": 1}))
        with pytest.raises(FormatError, match="not a file of match records"):
            MatchRecords.load(tmp_path / "a.npz")
        with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
            archive.writestr("header.npy", pickle.dumps([1]))
        with pytest.raises(FormatError):
            MatchRecords.load(tmp_path / "b.npz")

    def test_object_arrays_are_refused(self, records: MatchRecords, tmp_path: Path) -> None:
        self.tamper(records, tmp_path, scores=np.array([{}], dtype=object))
        with pytest.raises(FormatError, match="not a file of match records"):
            MatchRecords.load(tmp_path / "b.npz")

    @staticmethod
    def tamper(records: MatchRecords, folder: Path, **changed: object) -> None:
        records.save(folder / "a.npz")
        with np.load(folder / "a.npz") as archive:
            arrays: dict[str, Any] = dict(archive)
        arrays |= changed
        np.savez(folder / "b.npz", **{k: v for k, v in arrays.items() if v is not None})

    def test_a_file_of_a_newer_version(self, records: MatchRecords, tmp_path: Path) -> None:
        header = {"protocol": {"name": "strict", "crowd": "ignore", "size": "pixels"}}
        for version in ({"format": "entitybench-matches/2", "metric": 1}, {"metric": 2}):
            newer = {"format": "entitybench-matches/1", **version, **header}
            self.tamper(records, tmp_path, header=np.array(json.dumps(newer)))
            with pytest.raises(FormatError, match=r"this version reads `entitybench-matches/1`"):
                MatchRecords.load(tmp_path / "b.npz")

    @pytest.mark.parametrize(
        "header", ["{", "{}", '{"format": 1, "metric": 1, "protocol": {}}', "[]"]
    )
    def test_a_broken_header(self, header: str, records: MatchRecords, tmp_path: Path) -> None:
        self.tamper(records, tmp_path, header=np.array(header))
        with pytest.raises(FormatError, match=r"b\.npz"):
            MatchRecords.load(tmp_path / "b.npz")

    @pytest.mark.parametrize("name", ["scores", "truth_offsets", "header", "images"])
    def test_a_missing_column(self, name: str, records: MatchRecords, tmp_path: Path) -> None:
        self.tamper(records, tmp_path, **{name: None})
        with pytest.raises(FormatError, match=f"missing or unknown: `{name}`"):
            MatchRecords.load(tmp_path / "b.npz")

    @pytest.mark.parametrize(
        ("name", "change", "message"),
        [
            ("scores", lambda a: a.astype(np.float32), "is float32 of shape"),
            ("scores", lambda a: a[:-1], "column `scores` is float64 of shape"),
            ("scores", lambda a: a + 2, "score not in"),
            ("scores", lambda a: np.full_like(a, np.nan), "a score not in"),
            ("scores", lambda a: a[::-1], "scores that rise"),
            ("matched", lambda a: a | 1024, "thresholds that do not exist"),
            ("matched", lambda a: a[:, :3], "column `matched`"),
            ("ignored", lambda a: a * 0, "more matches than true entities"),
            ("best_ious", lambda a: a - 2, "an IoU not in"),
            ("partners", lambda a: a - 5, "a partner below none"),
            ("areas", lambda a: -1 - a, "a negative area"),
            ("truth_sizes", lambda a: a * np.nan, "a size that is not"),
            ("detection_offsets", lambda a: a[::-1], "do not ascend from 0"),
            ("detection_offsets", lambda a: a[:-1], "column `detection_offsets`"),
            ("truth_offsets", lambda a: np.r_[a[:-1], -1], "do not ascend"),
            ("num_predicted", lambda a: a + 1, "fewer than it has"),
            ("num_empty", lambda a: a + 99, "more empty predictions"),
            ("num_pixels", lambda a: a * 0, "without a pixel"),
            ("images", lambda a: np.array(str(a).replace('"1"', '"0"')), "images repeat"),
            ("images", lambda a: np.array(str(a).replace('"1"', '"99"')), "out of order"),
            ("images", lambda a: np.array("[1]"), "images"),
            ("images", lambda a: a.astype(bytes), "not text"),
            ("images", lambda a: np.array([str(a)]), "images are not text"),
        ],
    )
    def test_columns_that_contradict(
        self,
        name: str,
        change: Callable[[NDArray[Any]], NDArray[Any]],
        message: str,
        records: MatchRecords,
        tmp_path: Path,
    ) -> None:
        records.save(tmp_path / "a.npz")
        with np.load(tmp_path / "a.npz") as archive:
            original = archive[name]
        self.tamper(records, tmp_path, **{name: change(original)})
        with pytest.raises(FormatError, match=message):
            MatchRecords.load(tmp_path / "b.npz")
