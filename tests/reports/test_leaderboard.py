from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from entitybench.errors import ConflictError, MissingDataError
from entitybench.reports.comparison import compare, impostors
from entitybench.reports.exports import to_csv, to_latex, to_markdown
from entitybench.reports.leaderboard import generalisation, joint_gains, leaderboard
from entitybench.reports.published import published
from entitybench.reports.results import Run, check_comparable, read_runs, with_union
from entitybench.reports.table_text import table_text
from entitybench.result import (
    GroundTruthInfo,
    Interval,
    ModelInfo,
    Result,
    Signatures,
    write_result,
)

COCO, ADE = "coco_entity_train", "ade20k_entity_train"


def run(
    name: str,
    test: str,
    points: float | None,
    trained_on: tuple[str, ...] = (),
    *,
    protocol: str = "strict",
    images: int = 10,
    interval: tuple[float, float] | None = None,
) -> Run:
    label = "+".join(f"{part}@01234567" for part in test.split("+"))
    metric = (
        f"APe|metric:1|gt:{label}|images:{images}|protocol:{protocol}|void:counted"
        "|iou:.50:.05:.95|dets:100"
    )
    ends = {"AP": Interval(0.95, *interval, 100, 0)} if interval else {}
    result = Result(
        model=ModelInfo(name, trained_on),
        ground_truth=GroundTruthInfo(test, images, 50, "0123456789"),
        signature=Signatures(metric, "scores:model|overlap:none"),
        scores={"AP": points},
        intervals=ends,
        counts={},
        environment={},
        created=datetime(2026, 11, 23, tzinfo=UTC),
        seconds=None,
    )
    return Run(result, Path(f"{name}-{test}.json"))


@pytest.fixture
def runs() -> list[Run]:
    return [
        run(f"m@{COCO}", "coco_entity_val", 30.0, (COCO,), interval=(28.0, 32.0)),
        run(f"m@{COCO}", "ade20k_entity_val", 20.0, (COCO,)),
        run(f"m@{ADE}", "coco_entity_val", 19.0, (ADE,)),
        run(f"m@{ADE}", "ade20k_entity_val", 24.0, (ADE,)),
        run("m@both", "coco_entity_val", 30.5, (COCO, ADE)),
        run("m@both", "ade20k_entity_val", 26.25, (COCO, ADE)),
        run(f"other@{COCO}", "coco_entity_val", None, (COCO,)),
    ]


def test_training_is_in_columns_and_tests_in_rows(runs: list[Run]) -> None:
    matrix = leaderboard(runs)
    assert matrix.columns == (((ADE,), "m"), ((COCO,), "m"), ((COCO,), "other"), ((ADE, COCO), "m"))
    assert matrix.rows == (("ade20k_entity_val",), ("coco_entity_val",))
    values = [[None if c is None else c.value for c in line] for line in matrix.cells]
    assert values == [[24.0, 20.0, None, 26.25], [19.0, 30.0, None, 30.5]]
    assert matrix.groups == [((ADE,), 1), ((COCO,), 2), ((ADE, COCO), 1)]


def test_the_best_of_a_row_as_shown_is_marked_ties_and_all() -> None:
    tied = [run("a", "x_entity_val", 20.04), run("b", "x_entity_val", 19.96)]
    tied.append(run("c", "x_entity_val", 19.94))
    marked = {c.runs[0].name: c.is_best for c in leaderboard(tied).cells[0] if c}
    assert marked == {"a": True, "b": True, "c": False}


def test_a_model_that_saw_the_test_is_noted_and_never_best() -> None:
    seen = [run("cheat", "x_entity_val", 90.0, ("x_entity_val",)), run("a", "x_entity_val", 2.0)]
    seen.append(run("b", "x_entity_val", 3.0))
    matrix = leaderboard(seen)
    cells = {c.runs[0].name: c for c in matrix.cells[0] if c}
    assert (cells["cheat"].saw_the_test, cells["cheat"].is_best) == (True, False)
    assert cells["b"].is_best
    assert cells["cheat"].footnotes == (1,)
    assert "trained on images that it is tested on" in matrix.notes[0]


def test_seeds_share_a_cell_with_their_mean_and_span() -> None:
    seeds = [run(f"m@{COCO}#{n}", "x_entity_val", v, (COCO,)) for n, v in enumerate((10.0, 14.0))]
    (cell,) = leaderboard(seeds).cells[0]
    assert cell is not None
    assert (cell.value, cell.low, cell.high, cell.is_spread) == (12.0, 10.0, 14.0, True)


def test_intervals_come_from_the_file_or_else_from_the_caller(runs: list[Run]) -> None:
    given = {(f"m@{COCO}", "ade20k_entity_val"): (1.0, 2.0)}
    matrix = leaderboard(runs, intervals=given)
    ade, coco = matrix.cells[0][1], matrix.cells[1][1]
    assert ade is not None
    assert coco is not None
    assert [(c.low, c.high) for c in (ade, coco)] == [(1.0, 2.0), (28.0, 32.0)]


def test_the_drop_is_home_less_abroad(runs: list[Run]) -> None:
    told = {t.model: (t.home, t.abroad) for t in generalisation(leaderboard(runs))}
    assert told == {
        "m, trained on ADE20K": (24.0, (("COCO val", 19.0, 5.0),)),
        "m, trained on COCO": (30.0, (("ADE20K val", 20.0, 10.0),)),
    }


def test_joint_training_is_held_against_training_at_home(runs: list[Run]) -> None:
    gains = {g.test: (g.alone, g.joint, g.gain) for g in joint_gains(leaderboard(runs))}
    assert gains == {"ADE20K val": (24.0, 26.25, 2.25), "COCO val": (30.0, 30.5, 0.5)}


def test_different_metric_parts_are_refused_and_named(runs: list[Run]) -> None:
    check_comparable(runs)
    mixed = [*runs, run("x", "coco_entity_val", 1.0, protocol="official")]
    with pytest.raises(ConflictError, match="computed differently") as caught:
        check_comparable(mixed)
    assert "`protocol`" in str(caught.value)
    assert "--allow-mixed" in str(caught.value)
    notes = leaderboard(mixed).notes
    assert any("protocol:official" in note for note in notes)


def test_one_model_has_one_result_per_ground_truth(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="no result files"):
        read_runs(tmp_path)
    once = run("m", "coco_entity_val", 1.0).result
    for name in ("a", "b"):
        write_result(tmp_path / name / "x.json", once)
    with pytest.raises(ConflictError, match="two results"):
        read_runs(tmp_path)


def test_without_match_records_nothing_is_pooled(runs: list[Run]) -> None:
    assert with_union(runs) == runs


# --- against the paper ---------------------------------------------------------------------------


def test_a_repeated_cell_gets_a_difference() -> None:
    ours = run(
        "entity_r50_1x@c", "coco_entity_val", 28.8, (COCO,), protocol="official", images=5000
    )
    found = {c.cell.source: c for c in compare([ours], published())}
    seven = found["Table 7(a), row COCO, column COCO / ours"]
    assert seven.delta == pytest.approx(-1.0)
    assert found[
        "Table 2(a), row kernel bank yes / overlap suppression yes"
    ].delta == pytest.approx(-1.0)
    assert all(c.cell.method == "entity" for c in found.values())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"protocol": "strict"}, "protocol `strict`"),
        ({"images": 12}, "measured on 12 images, published on 5,000"),
        ({"name": "tiny@c"}, "smaller model"),
    ],
)
def test_what_repeats_nothing_gets_none(changes: dict[str, object], reason: str) -> None:
    plain: dict[str, object] = {"name": "entity@c", "protocol": "official", "images": 5000}
    given = plain | changes
    name = str(given.pop("name"))
    ours = run(name, "coco_entity_val", 28.8, (COCO,), **given)  # type: ignore[arg-type]
    found = compare([ours], published())
    assert found
    assert all(c.delta is None and any(reason in o for o in c.obstacles) for c in found)


def test_training_sets_must_be_the_cell_s() -> None:
    ours = run("entity", "coco_entity_val", 19.0, (ADE,), protocol="official", images=5000)
    (found,) = compare([ours], published())
    assert found.cell.value == 19.4


def test_the_published_value_may_lie_in_the_interval() -> None:
    ours = run(
        "entity", "coco_entity_val", 29.0, (COCO,),
        protocol="official", images=5000, interval=(28.0, 29.9),
    )  # fmt: skip
    assert {c.within_interval for c in compare([ours], published())} == {True}


def test_a_set_that_only_bears_the_name_is_told(runs: list[Run]) -> None:
    told = impostors(runs, published())
    assert "`coco_entity_val` here has 10 images, COCO val 2017 has 5,000" in told
    assert impostors([run("m", "coco_entity_val", 1.0, images=5000)], published()) == []


def test_a_table_prints_published_and_measured_apart(runs: list[Run]) -> None:
    named = msgspec.structs.replace(runs[0].result, model=ModelInfo("tiny", (COCO,)))
    ours = [Run(named, Path("x"))]
    one = table_text(published().table("2a"), ours, published())
    lines = one.splitlines()
    assert lines[2].split("  ")[-2:] == ["published", "measured"]
    assert [line.split()[-2:] for line in lines[3:7]] == [
        ["28.3", "–"], ["29.3", "–"], ["29.1", "–"], ["29.8", "30.0~"],
    ]  # fmt: skip
    assert "smaller model" in one
    above, below = table_text(published().table("7a"), ours, published()).split("measured\n")
    assert "29.8?" in above
    assert "29.8" not in below
    assert "30.0~" in below
    assert below.count("–") == 26


@pytest.mark.parametrize("number", ["1", "7a", "7c", "8"])
def test_a_table_stands_in_columns_that_fit_a_screen(number: str) -> None:
    """Labels too wide for their numbers take several lines; both blocks end at one column."""
    table = published().table(number)
    blocks = table_text(table, [], published()).split("\n\n")[1:3]
    assert [block.splitlines()[0] for block in blocks] == ["published", "measured"]
    last = -len(table.rows) - 1  # the labels above the numbers
    assert len({len(line) for block in blocks for line in block.splitlines()[last:]}) == 1
    assert max(len(line) for block in blocks for line in block.splitlines()) < 115


# --- files ---------------------------------------------------------------------------------------


def test_csv_holds_one_line_per_score(runs: list[Run]) -> None:
    lines = to_csv(runs, []).splitlines()
    assert len(lines) == 1 + len(runs)
    assert lines[1].startswith(f"m@{COCO},{COCO},coco_entity_val,AP,30,28,32,,,APe|")
    assert f"other@{COCO},{COCO},coco_entity_val,AP,,,,,," in lines[-1]


def test_markdown_and_latex_agree_with_the_matrix(runs: list[Run]) -> None:
    matrix = leaderboard(runs)
    assert "| COCO val | 19.0 | 30.0 | – | **30.5** |" in to_markdown(matrix)
    latex = to_latex(matrix)
    assert r"COCO val & 19.0 & 30.0 & -- & \textbf{30.5} \\" in latex
    assert r"\multicolumn{2}{c}{COCO}" in latex
    assert r"\cmidrule(lr){2-2} \cmidrule(lr){3-4} \cmidrule(lr){5-5}" in latex
