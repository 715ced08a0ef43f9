"""Result files against each other: deltas, paired intervals, refusals, exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner, Result

from entitybench.commands.compare_command import command
from entitybench.commands.eval_command import Row
from entitybench.entity_map import EntityMap
from entitybench.entity_writer import EntityWriter
from entitybench.errors import ConflictError, FormatError, MissingDataError
from entitybench.metrics import Protocol
from entitybench.metrics.benchmark import Benchmark, evaluate
from entitybench.metrics.bootstrap import paired_bootstrap
from entitybench.metrics.comparison import compare
from entitybench.perturbation import Perturbation, perturb
from entitybench.registry import open_entity_set

LITTLE, MUCH = Perturbation(0.05, 0.05, 0.05, 0, 0.1), Perturbation(0.3, 0.3, 0.3, 2, 0.4)
Score = Callable[..., Path]


@pytest.fixture
def score(tmp_path: Path) -> Score:
    """Make a model, score it, write its result; returns the file."""
    rng = np.random.default_rng(0)
    with EntityWriter(tmp_path / "data" / "made_val", kind="ground_truth") as writer:
        for number in range(20):
            ids = np.kron(rng.integers(0, 8, (5, 6)), np.ones((8, 9), dtype=int))
            writer.add(f"{number}", EntityMap.from_array(ids))
    truth = open_entity_set("made_val", tmp_path / "data")

    def run(name: str, how: Perturbation, *, protocol: str = "strict", bare: bool = False) -> Path:
        with EntityWriter(tmp_path / "preds" / name, model=name, overwrite=True) as writer:
            for number, image in enumerate(truth):
                writer.add(image.id, *perturb(image.map, np.random.default_rng(number), how))
        done = evaluate(
            tmp_path / "preds" / name,
            "made_val",
            data=tmp_path / "data",
            protocol=Protocol.named(protocol),
        )
        return save(done, tmp_path / "results" / f"{name}-{protocol}.json", bare=bare)

    return run


def save(done: Benchmark, path: Path, *, bare: bool) -> Path:
    Row(done.result, done.evaluation.records, path).save()
    if bare:
        path.with_suffix(".matches.npz").unlink()
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(
        command, [str(argument) for argument in arguments], standalone_mode=False
    )


def test_differences_and_their_intervals(score: Score) -> None:
    base, mine = score("base", MUCH), score("mine", LITTLE)
    (found,) = compare([base, mine], resamples=100, seed=3, level=0.9)
    assert found.baseline.records is not None
    assert found.other.records is not None
    expected = paired_bootstrap(
        found.baseline.records, found.other.records, 100, seed=3, level=0.9, names=["AP", "PQ"]
    )
    assert (found["AP"].interval, found["PQ"].interval) == (expected["AP"], expected["PQ"])
    assert found["AP"].delta == found["AP"].other - found["AP"].baseline > 0
    assert found["AP"].is_certain
    assert not found["AP"].is_regression
    assert found["APb"].interval is not None
    names = [difference.name for difference in found.differences]
    assert names[:2] == ["AP", "AP50"]
    assert {"PQ", "APb"} <= set(names)


def test_each_model_is_compared_with_the_first(score: Score) -> None:
    paths = [score("base", MUCH), score("mine", LITTLE), score("same", MUCH)]
    one, other = compare(paths, resamples=50)
    assert (one.baseline.path, other.baseline.path) == (paths[0], paths[0])
    assert other["AP"].delta == 0
    assert not other["AP"].is_certain


def test_scores_computed_differently_are_refused(score: Score) -> None:
    base, mine = score("base", MUCH), score("mine", LITTLE, protocol="official")
    with pytest.raises(ConflictError, match="computed differently: protocol") as caught:
        compare([base, mine])
    assert "--allow-mixed" in str(caught.value)
    (found,) = compare([base, mine], allow_mixed=True, resamples=20)
    assert "computed differently (protocol)" in found.notes[0]
    assert found["AP"].interval is not None  # the images are the same


def test_other_ground_truth_is_named(score: Score, tmp_path: Path) -> None:
    base = score("base", MUCH)
    text = json.loads(base.read_text())
    metric = text["signature"]["metric"].replace("images:20", "images:19")
    text["signature"]["metric"] = metric.replace("gt:made_val@", "gt:other_val@")
    (tmp_path / "b.json").write_text(json.dumps(text))
    with pytest.raises(ConflictError, match="differently: gt, images"):
        compare([base, tmp_path / "b.json"])


def test_without_records_there_are_no_intervals(score: Score) -> None:
    base, mine = score("base", MUCH), score("mine", LITTLE, bare=True)
    (found,) = compare([base, mine])
    assert found["AP"].interval is None
    assert "no match records beside" in found.notes[0]
    assert not found["AP"].is_certain


def test_records_of_another_run_are_found_out(score: Score) -> None:
    base, mine = score("base", MUCH), score("mine", LITTLE)
    mine.with_suffix(".matches.npz").write_bytes(base.with_suffix(".matches.npz").read_bytes())
    with pytest.raises(FormatError, match="the match records give an AP of"):
        compare([base, mine])


def test_one_result_is_no_comparison(score: Score) -> None:
    with pytest.raises(MissingDataError, match="two results or more"):
        compare([score("base", MUCH)])


def test_footnotes(score: Score) -> None:
    base, mine = score("base", MUCH), score("mine", LITTLE)
    result = json.loads(mine.read_text())
    result["signature"]["prediction"] = "scores:area|overlap:none"
    result["model"]["trained_on"] = ["made_val"]
    mine.write_text(json.dumps(result))
    (found,) = compare([base, mine], resamples=0)
    assert found.notes == (
        "predictions differ: `scores:model|overlap:none` and `scores:area|overlap:none`",
        "mine was trained on made_val",
    )


class TestCommand:
    def test_the_table(self, score: Score) -> None:
        done = run(score("base", MUCH), score("mine", LITTLE), "--bootstrap", 100)
        lines = done.output.splitlines()
        assert lines[0].split() == ["base", "mine", "delta", "95", "%", "interval"]
        first = lines[1].split()
        assert first[0] == "AP"
        assert float(first[3]) == pytest.approx(float(first[2]) - float(first[1]), abs=0.11)
        assert first[4].startswith("[+")
        assert first[-1] == "*"
        assert lines[-1].startswith("APe|metric:1|gt:made_val@")
        assert done.return_value == 0

    def test_json(self, score: Score) -> None:
        done = run(score("base", MUCH), score("mine", LITTLE), "--json", "--bootstrap", 20)
        told: dict[str, Any] = json.loads(done.output)
        (comparison,) = told["comparisons"]
        found = comparison["scores"]["AP"]
        assert found["delta"] == pytest.approx(found["other"] - found["baseline"])
        assert found["interval"]["resamples"] == 20
        assert comparison["regression"] is False

    @pytest.mark.parametrize("resamples", [0, 100])
    def test_a_regression_fails(self, score: Score, resamples: int) -> None:
        good, bad = score("good", LITTLE), score("bad", MUCH)
        more = ["--bootstrap", resamples, "--fail-on-regression"]
        assert run(good, bad, *more).return_value == 1
        assert run(bad, good, *more).return_value == 0
        assert run(good, good, *more).return_value == 0
        assert run(good, bad, "--bootstrap", resamples).return_value == 0

    def test_an_undefined_score(self, score: Score) -> None:
        base = score("base", MUCH)
        scores = msgspec.json.decode(base.read_bytes())["scores"]
        undefined = [name for name, value in scores.items() if value is None]
        assert undefined
        done = run(base, base, "--bootstrap", 10)
        (line,) = [line for line in done.output.splitlines() if line.split()[:1] == undefined[:1]]
        assert line.split()[1:4] == ["–", "–", "–"]
