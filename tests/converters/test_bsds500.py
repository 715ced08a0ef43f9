"""BSDS500: several humans an image, and humans as predictions."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from entitybench.cli import main
from entitybench.converters import convert
from entitybench.entity_set import open_path
from entitybench.errors import EntityBenchError, FormatError, MissingDataError, UnknownNameError
from entitybench.validation import validate
from tests.small_releases import Files, bsds500, grid, jpeg, tarred, write, zipped

LEFT = grid("""
    1 1 2 2
    1 1 2 2
""")
STRIPES = grid("""
    1 2 3 1
    1 2 3 1
""")
WHOLE = np.ones((2, 4), dtype=int)


def release(split: str = "val") -> Files:
    """Two humans saw every image, a third and a fourth only one of them."""
    return (
        bsds500(12003, [LEFT, STRIPES], split=split)
        | bsds500(2018, [WHOLE, LEFT, STRIPES, WHOLE], split=split)
        | bsds500(300091, [STRIPES, WHOLE], split=split)
    )


def test_each_human_is_a_set(tmp_path: Path) -> None:
    summaries = convert("bsds500", write(tmp_path / "source", release()), tmp_path / "out")
    assert [(s.name, s.images, s.entities) for s in summaries] == [
        ("bsds500_entity_val_a1", 3, 2 + 1 + 3),
        ("bsds500_entity_val_a2", 3, 3 + 2 + 1),
        ("bsds500_entity_val_a3", 1, 3),
        ("bsds500_entity_val_a4", 1, 1),
    ]
    assert [s.photographs_absent for s in summaries] == [0, 0, 0, 0]
    for summary in summaries:
        assert list(validate(open_path(summary.path))) == []
    first, second, third, _ = (open_path(s.path) for s in summaries)
    assert first.ids == ("2018", "12003", "300091")
    assert third.ids == ("2018",)
    assert np.array_equal(second["12003"].map.to_array(), STRIPES)
    assert [row.source_id for row in second["12003"].row.entities] == [1, 2, 3]
    assert second["12003"].row.entities[0].bbox == (0, 0, 4, 2)  # two parts, one entity
    assert {row.category_id for row in second["12003"].row.entities} == {None}
    assert first.header.kind == "ground_truth"
    assert first.header.options == {"as_predictions": 0, "profile": "raw"}


def test_a_human_as_predictions_scores_by_area(tmp_path: Path) -> None:
    root = write(tmp_path / "source", release())
    (summary,) = convert("bsds500", root, tmp_path / "out", options={"as_predictions": 2})
    assert summary.name == "bsds500_entity_val_a2_as_predictions"
    predictions = open_path(summary.path)
    assert list(validate(predictions)) == []
    assert predictions.header.kind == "predictions"
    assert predictions.header.model is not None
    assert predictions.header.model.name == "human a2"
    assert predictions.header.model.score_rule == "area"
    assert predictions["12003"].scores is not None
    assert predictions["12003"].scores.tolist() == [0.5, 0.25, 0.25]


def test_the_command_line_writes_and_scores_humans(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write(tmp_path / "source", release())
    data = str(tmp_path / "data")
    convert_ = ["convert", "bsds500", "--source", str(root), "--out", data, "-j", "1"]
    assert main(convert_) == 0
    assert main([*convert_, "--as-predictions", "2"]) == 0
    assert main([*convert_, "--set", "as-predictions=2"]) == 0
    assert "already there" in capsys.readouterr().out
    out = str(tmp_path / "result.json")
    sets = [f"{data}/bsds500_entity_val_a2_as_predictions", "--gt", "bsds500_entity_val_a1"]
    assert main(["eval", *sets, "--data", data, "--out", out]) == 0
    result = json.loads(Path(out).read_text())
    assert result["model"]["name"] == "human a2"
    assert "scores:area" in result["signature"]["prediction"]
    assert result["counts"]["truth"] == 6


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("as_predictions=two", "expected a value like 0"),
        ("as_predictions", "--set takes KEY=VALUE"),
        ("as_prediction=2", "did you mean `as_predictions`"),
        ("as_predictions=5", "split `val` has no human 5: there are at most 4 an image"),
        ("as_predictions=-1", "the number of a human, from 1"),
    ],
)
def test_settings_that_are_wrong_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], setting: str, message: str
) -> None:
    root = write(tmp_path / "source", release())
    arguments = ["convert", "bsds500", "--source", str(root), "--out", str(tmp_path / "out")]
    assert main([*arguments, "--set", setting]) == 2
    assert message in capsys.readouterr().err


def test_other_sources_have_no_humans(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="option of coco"):
        convert("coco", tmp_path, tmp_path / "out", options={"as_predictions": 1})


def test_void_is_kept_where_somebody_left_some(tmp_path: Path) -> None:
    files = bsds500(1, [grid("0 5 5 9")])
    (summary,) = convert("bsds500", write(tmp_path / "source", files), tmp_path / "out")
    image = open_path(summary.path)["1"]
    assert np.array_equal(image.map.to_array(), [[0, 1, 1, 2]])
    assert [row.source_id for row in image.row.entities] == [5, 9]


def test_folders_and_archives_give_the_same_bytes(
    tmp_path: Path, files_of: Callable[[Path], dict[str, bytes]]
) -> None:
    files = release() | release("train")
    files["BSR/BSDS500/data/images/val/Thumbs.db"] = b"litter"
    convert("bsds500", write(tmp_path / "unpacked", files), tmp_path / "a")
    expected = files_of(tmp_path / "a")
    short = {name.removeprefix("BSR/BSDS500/"): data for name, data in files.items()}
    layouts = {
        "archive": {"BSR_bsds500.tgz": tarred(files, "w:gz")},
        "zip": {"BSR_bsds500.zip": zipped(files)},
        "without BSR": {f"BSDS500/{name}": data for name, data in short.items()},
        "data": short,
        "in a folder": {f"bsds/{name}": data for name, data in files.items()},
    }
    for number, (layout, content) in enumerate(layouts.items()):
        root = write(tmp_path / str(number), content)
        summaries = convert("bsds500", root, tmp_path / layout)
        assert files_of(tmp_path / layout) == expected, layout
        assert sum(s.photographs_absent for s in summaries) == 0
    convert("bsds500", tmp_path / "0" / "BSR_bsds500.tgz", tmp_path / "file", splits=["val"])


def test_a_photograph_without_annotation_is_named(tmp_path: Path) -> None:
    files = release() | {"BSR/BSDS500/data/images/val/7.jpg": jpeg((2, 4))}
    with pytest.raises(MissingDataError, match="photographs without an annotation: 1 of 4"):
        convert("bsds500", write(tmp_path / "source", files), tmp_path / "out")


def mat(**variables: Any) -> bytes:
    file: Any = io.BytesIO()
    savemat(file, variables)
    data: bytes = file.getvalue()
    return data


def cells(*items: Any) -> Any:
    array = np.empty((1, len(items)), dtype=object)
    for k, item in enumerate(items):
        array[0, k] = item
    return array


SPOILED = {
    "text": b"not a MATLAB file, and long enough to have a header" * 10,
    "empty": b"",
    "another variable": mat(segmentation=np.ones((2, 2))),
    "an array": mat(groundTruth=np.ones((2, 2))),
    "no struct": mat(groundTruth=cells(np.ones((2, 2)))),
    "no segmentation": mat(groundTruth=cells({"Boundaries": np.ones((2, 2))})),
    "fractions": mat(groundTruth=cells({"Segmentation": np.ones((2, 2)) / 3})),
    "three dimensions": mat(groundTruth=cells({"Segmentation": np.ones((2, 2, 2), np.uint16)})),
    "nobody": mat(groundTruth=np.empty((1, 0), dtype=object)),
}


@pytest.mark.parametrize("spoiled", SPOILED.values(), ids=list(SPOILED))
def test_a_file_of_another_layout_is_refused(tmp_path: Path, spoiled: bytes) -> None:
    name = "BSR/BSDS500/data/groundTruth/val/12003.mat"
    root = write(tmp_path / "source", release() | {name: spoiled})
    with pytest.raises(FormatError) as caught:
        convert("bsds500", root, tmp_path / "out")
    assert "12003" in str(caught.value)


@pytest.mark.parametrize("at", range(0, 900, 60))
def test_a_damaged_file_is_refused_or_harmless(tmp_path: Path, at: int) -> None:
    files = release()
    name = "BSR/BSDS500/data/groundTruth/val/12003.mat"
    data = bytearray(files[name])
    for offset in range(at, min(at + 4, len(data))):
        data[offset] ^= 0xFF
    root = write(tmp_path / "source", files | {name: bytes(data)})
    told = ""
    try:
        summaries = convert("bsds500", root, tmp_path / "out")
    except EntityBenchError as error:
        told, summaries = str(error), []
    assert "12003" in told or summaries
    for summary in summaries:
        assert list(validate(open_path(summary.path))) == []


# --- real samples --------------------------------------------------------------


@pytest.mark.slow
def test_every_real_segmentation_converts(realdata: Path, tmp_path: Path) -> None:
    counts = json.loads((realdata / "expected_entity_counts.json").read_text())["bsds500"]
    seen: dict[str, list[int]] = {}
    maps: dict[str, int] = {}
    for summary in convert("bsds500", realdata / "bsds500", tmp_path):
        entity_set = open_path(summary.path)
        split, human = entity_set.header.split or "", int(summary.name.rpartition("_a")[2])
        maps[split] = maps.get(split, 0) + len(entity_set)
        assert summary.photographs_absent == 0
        for image in entity_set:
            listed = seen.setdefault(f"{split}/{image.id}", [])
            assert len(listed) == human - 1  # sets come in the order of humans
            listed.append(image.map.num_entities)
            assert image.map.areas[0] == 0  # nobody left a pixel out
    assert seen == counts
    assert maps == {"train": 1_087, "val": 546}
    totals = {"train": 0, "val": 0}
    for name, listed in seen.items():
        totals[name.partition("/")[0]] += sum(listed)
    assert totals == {"train": 22_537, "val": 10_698}


def test_real_pixels_are_those_of_the_file(realdata: Path, tmp_path: Path) -> None:
    data = "BSDS500/data/groundTruth/val"
    source = realdata / "bsds500"
    names = sorted(path.name for path in (source / data).iterdir())[:3]
    root = write(tmp_path / "s", {f"{data}/{n}": (source / data / n).read_bytes() for n in names})
    for summary in convert("bsds500", root, tmp_path / "out"):
        human = int(summary.name.rpartition("_a")[2]) - 1
        for image in open_path(summary.path):
            truth = loadmat(source / data / f"{image.id}.mat")["groundTruth"]
            assert np.array_equal(image.map.to_array(), truth[0, human]["Segmentation"][0, 0])
