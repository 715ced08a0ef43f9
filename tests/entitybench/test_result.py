from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from entitybench.errors import FormatError, MissingDataError
from entitybench.result import (
    GroundTruthInfo,
    Interval,
    ModelInfo,
    Result,
    Signatures,
    environment,
    points_of,
    read_result,
    time_stamp,
    write_result,
)
from entitybench.signature import MetricSignature, PredictionSignature

OLD = Path(__file__).parent / "data" / "result-1.json"


@pytest.fixture
def result() -> Result:
    return Result(
        model=ModelInfo("mine", trained_on=("coco_entity_train",), epochs=12),
        ground_truth=GroundTruthInfo("tiny", 2, 5, "0123456789abcdef"),
        signature=Signatures(
            str(MetricSignature("tiny@01234567", 2, "strict")),
            str(PredictionSignature(resolved_images=1)),
        ),
        scores=points_of({"AP": 0.25, "APs": math.nan}),
        counts={"predicted": 7},
        environment=environment(),
        created=datetime(2026, 11, 22, 9, tzinfo=UTC),
        seconds=1.5,
    )


def test_a_file_of_version_1_stays_readable() -> None:
    old = read_result(OLD)
    assert old.model == ModelInfo("condinst-ca-r50", ("coco_entity_train",), 12)
    assert old.ground_truth.num_entities == 61234
    assert old.metric == MetricSignature("coco_entity_val@1f3a9c2e", 5000, "strict")
    assert old.prediction == PredictionSignature()
    assert old.scores["AP"] == 29.8
    assert old.score("AP") == pytest.approx(0.298)
    assert math.isnan(old.score("APs"))  # null in the file
    assert math.isnan(old.score("AR1"))  # not in the file
    assert old.intervals["AP"] == Interval(0.95, 29.1, 30.5, 1000, 0)
    assert old.counts["unmatched_truth"] == 20111
    assert old.created == datetime(2026, 11, 22, 9, tzinfo=UTC)


def test_a_file_of_version_1_is_written_the_same(tmp_path: Path) -> None:
    write_result(tmp_path / "again.json", read_result(OLD))
    assert (tmp_path / "again.json").read_bytes() == OLD.read_bytes()


def test_round_trip(result: Result, tmp_path: Path) -> None:
    path = tmp_path / "mine" / "tiny.json"  # the folder is made
    write_result(path, result)
    assert read_result(path) == result
    assert [p.name for p in path.parent.iterdir()] == ["tiny.json"]


def test_the_file_as_text(result: Result, tmp_path: Path) -> None:
    write_result(tmp_path / "a.json", result)
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert text.endswith("}\n")
    plain = json.loads(text)
    assert plain["scores"] == {"AP": 25.0, "APs": None}
    assert plain["created"] == "2026-11-22T09:00:00Z"
    assert text == json.dumps(plain, indent=2, sort_keys=True) + "\n"


def test_points_are_fractions_times_a_hundred() -> None:
    assert points_of({"AP": 0.375, "APl": math.nan}) == {"AP": 37.5, "APl": None}


def test_a_failed_write_leaves_the_old_file(
    result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    write_result(path, result)
    before = path.read_bytes()

    def full(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        write_result(path, msgspec.structs.replace(result, seconds=2.0))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_what_could_not_be_read_is_not_written(result: Result, tmp_path: Path) -> None:
    broken = msgspec.structs.replace(result, signature=Signatures("APe", "scores:model"))
    with pytest.raises(FormatError, match="signature"):
        write_result(tmp_path / "a.json", broken)
    assert not list(tmp_path.iterdir())


def test_source_date_epoch_makes_a_run_repeatable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    assert time_stamp(41.2) == (datetime(1970, 1, 2, tzinfo=UTC), None)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with pytest.raises(FormatError, match="SOURCE_DATE_EPOCH is 'yesterday'"):
        time_stamp(41.2)
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    created, seconds = time_stamp(41.23456)
    assert abs((datetime.now(UTC) - created).total_seconds()) < 60
    assert (created.microsecond, seconds) == (0, 41.235)


def test_the_environment_names_versions() -> None:
    assert set(environment()) == {"entitybench", "numpy", "platform", "python"}


def _changed(**changes: Any) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(OLD.read_text(encoding="utf-8"))
    return {k: v for k, v in (plain | changes).items() if v != "gone"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scores": {"AP": "29.8"}}, r"result.json: \$.scores"),
        ({"scores": {"AP": 2980}}, r"<= 100"),
        ({"counts": {"predicted": -1}}, r"\$.counts"),
        ({"counts": "gone"}, "missing required field `counts`"),
        ({"extra": 1}, "unknown field `extra`"),
        ({"created": "2026-11-22T09:00:00"}, r"timezone(.|\n)*\$.created"),
        ({"seconds": -1}, r"\$.seconds"),
        ({"signature": {"metric": "APe", "prediction": "-"}}, r"\$.signature"),
        ({"signature": {"metric": "APe"}}, "missing required field `prediction`"),
        ({"model": {"name": "x", "size": 3}}, "unknown field `size`"),
    ],
)
def test_a_wrong_file_is_refused_with_the_place(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    (tmp_path / "result.json").write_text(json.dumps(_changed(**changes)), encoding="utf-8")
    with pytest.raises(FormatError, match=message):
        read_result(tmp_path / "result.json")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"format": 1}', b"{}"])
def test_what_is_no_result_file_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "result.json").write_bytes(content)
    with pytest.raises(FormatError, match=r"not a valid entry(.|\n)*result\.json"):
        read_result(tmp_path / "result.json")


@pytest.mark.parametrize(
    ("version", "hint"),
    [("entitybench-result/2", "upgrade entitybench"), ("entitybench/1", "what `eval` writes")],
)
def test_another_format_is_named(version: str, hint: str, tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(json.dumps(_changed(format=version)), encoding="utf-8")
    with pytest.raises(FormatError, match=f"format is `{version}`(.|\n)*hint: .*{hint}"):
        read_result(tmp_path / "result.json")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="cannot be read: No such file"):
        read_result(tmp_path / "result.json")
