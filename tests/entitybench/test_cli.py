"""The command line: verbs, exit codes, messages, streams."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from entitybench.cli import VERBS, main
from entitybench.entity_writer import EntityWriter


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data root with one ground truth, its photographs and one set of predictions."""
    rng = np.random.default_rng(0)
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    truth = EntityWriter(
        tmp_path / "made_entity_val", kind="ground_truth", source="made", images=str(photographs)
    )
    predictions = EntityWriter(tmp_path / "preds" / "made_entity_val", model="mine")
    with truth, predictions:
        for index in range(3):
            ids = np.kron(rng.integers(0, 4, (5, 6)), np.ones((8, 8), dtype=int))
            truth.add(f"{index}", ids)
            found = len(np.unique(ids[ids > 0]))
            predictions.add(f"{index}", ids, scores=rng.random(found))
            Image.fromarray(rng.integers(0, 255, (40, 48, 3), dtype=np.uint8)).save(
                photographs / f"{index}.jpg"
            )
    return tmp_path


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def test_help_lists_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    text = capsys.readouterr().out
    for verb in VERBS:
        assert f"\n  {verb}" in text


@pytest.mark.parametrize("verb", list(VERBS))
def test_every_verb_teaches(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(verb, "--help") == 0
    assert len(capsys.readouterr().out) > 200


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["validat"], "Did you mean 'validate'?"),
        (["list", "--jsn"], "Did you mean '--json'?"),
        (["eval", "x"], "Missing option '--gt'"),
        (["show"], "Missing argument 'SET'"),
        (["list", "nothing"], "unknown entity set `nothing`"),
    ],
)
def test_bad_usage_is_a_two_with_advice(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(*arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""


def test_interruption_is_130(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("entitybench.registry.known_sets", interrupt)
    assert run("list", "--data", data) == 130
    assert "interrupted" in capsys.readouterr().err


def test_a_crash_is_a_two_and_shows_where(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def crash(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("entitybench.registry.known_sets", crash)
    assert run("list", "--data", data) == 2
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_list_shows_the_sets(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("list", "--data", data) == 0
    text = capsys.readouterr().out
    assert text.splitlines()[0].split()[:4] == ["set", "kind", "images", "entities"]
    assert "made_entity_val" in text
    assert run("list", "made_entity_val", "--data", data, "--json") == 0
    described = json.loads(capsys.readouterr().out)
    statistics = described["statistics"]
    assert statistics["images"] == 3
    assert statistics["width"] == [48, 48]
    assert 0 < statistics["void"] < 1
    assert statistics["small"] == 1
    assert statistics["crowd"] == 0


def test_list_of_nothing_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("list", "--data", tmp_path) == 0
    assert "entitybench convert" in capsys.readouterr().err


def test_validate_exits_with_one_if_it_finds_something(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("validate", "made_entity_val", "--data", data, "-j", 1) == 0
    (data / "made_entity_val" / "maps" / "1.png").write_bytes(b"broken")
    capsys.readouterr()
    assert run("validate", "made_entity_val", "--data", data, "-j", 2, "--json") == 1
    findings = json.loads(capsys.readouterr().out)["findings"]
    assert any("not a PNG" in finding for finding in findings)


def test_show_draws_what_it_is_given(
    data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data)
    assert run("show", "made_entity_val", "--data", data) == 0
    with Image.open("0.png") as alone:
        single = alone.size
    arguments = ("show", "preds/made_entity_val", "2", "--gt", "made_entity_val", "--data", data)
    assert run(*arguments, "-o", "four.png") == 0
    with Image.open("four.png") as four:
        assert four.height > single[1]
    (data / "photographs" / "2.jpg").unlink()
    assert run(*arguments) == 0
    assert "drawing without it" in capsys.readouterr().err


def test_settings_come_from_a_file(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(data)
    Path("entitybench.toml").write_text('[list]\ndata = "."\n')
    assert run("list") == 0
    assert "made_entity_val" in capsys.readouterr().out
    Path("entitybench.toml").write_text("[list\n")
    assert run("list") == 2
    assert "`entitybench.toml` is not TOML" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_examples_keep_their_lines(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*filter(None, [verb]), "--help") == 0
    lines = capsys.readouterr().out.splitlines()
    assert not any("\\b" in line for line in lines)
    examples = [line for line in lines if line.strip().startswith("entitybench ")]
    assert all(line.count("entitybench ") == 1 for line in examples)
