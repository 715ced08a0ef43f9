"""What `eval` writes and tells beyond the scores."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from entitybench.cli import main
from entitybench.commands.eval_report import Explanation, score_table
from entitybench.entity_map import EntityMap
from entitybench.entity_set import Provenance
from entitybench.entity_writer import EntityWriter
from entitybench.metrics import Evaluation, ImagePair, MatchRecords, evaluate
from entitybench.metrics.bootstrap import bootstrap
from entitybench.metrics.per_image import report_images, worst_first
from entitybench.metrics.plots import ap_by_iou, precision_recall, save_plots
from entitybench.perturbation import Perturbation, perturb
from entitybench.registry import open_entity_set
from entitybench.result import read_result
from tests.pycocotools_oracle import coco_results, pycocotools_stats

COUNT = 6


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A truth with things and stuff, and a model `mine` as a set and as COCO results."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ENTITYBENCH_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    with EntityWriter(tmp_path / "data" / "made_val", kind="ground_truth") as writer:
        for number in range(COUNT):
            truth = EntityMap.from_array(
                np.kron(rng.integers(0, 8, (5, 6)), np.ones((9, 9), dtype=int))
            )
            origins = [Provenance(isthing=bool(k % 2)) for k in range(truth.num_entities)]
            writer.add(f"{number}", truth, entities=origins)
    with EntityWriter(tmp_path / "preds", model="mine") as writer:
        for image in open_entity_set("made_val", tmp_path / "data"):
            how = Perturbation(0.2, 0.2, 0.2, 1, 0.3)
            writer.add(image.id, *perturb(image.map, np.random.default_rng(int(image.id)), how))
    results = coco_results(open_entity_set(tmp_path / "preds"))
    (tmp_path / "results.json").write_text(json.dumps(results))
    return tmp_path


def run(*more: str, preds: str = "preds") -> int:
    return main(
        ["eval", preds, "--gt", "made_val", "--data", "data", "-o", "r.json", "-j", "1", *more]
    )


def records_of(path: str = "r") -> MatchRecords:
    return MatchRecords.load(Path(f"{path}.matches.npz"))


def test_results_and_maps_have_the_same_scores(workplace: Path) -> None:
    """COCO results go through the kernel where there is one, sets go image by image."""
    assert run() == 0
    by_maps = read_result(Path("r.json")).scores
    assert run(preds="results.json") == 0
    assert read_result(Path("r.json")).scores == by_maps
    assert {"PQ", "APb", "APthing", "APstuff"} <= set(by_maps)
    assert run("--quick", preds="results.json") == 0
    quick = read_result(Path("r.json")).scores
    assert quick["AP"] == by_maps["AP"]


def test_intervals_reach_the_result_and_the_table(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--bootstrap", "50", "--seed", "3", "-q") == 0
    result = read_result(Path("r.json"))
    expected = bootstrap(records_of(), 50, seed=3)
    found = result.intervals["AP"]
    assert (found.level, found.resamples, found.seed) == (0.95, 50, 3)
    assert found.low == 100 * expected["AP"].low
    assert {"PQ", "APthing", "AR100"} <= set(result.intervals)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[2:4]] == [["2.5", "%"], ["97.5", "%"]]
    assert lines[2].split()[2] == f"{found.low:.1f}"


def test_a_subset_has_a_row_and_a_result_of_its_own(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (workplace / "odd.txt").write_text("1\n3\n5\n")
    assert run("--subset", "odd.txt", "--bootstrap", "20", "--json", "-q") == 0
    told = json.loads(capsys.readouterr().out)
    result = read_result(Path("r.odd.json"))
    assert result.metric.num_images == result.ground_truth.num_images == 3
    assert result.metric.subset.startswith("odd@")
    assert told["subsets"][0]["path"] == "r.odd.json"
    assert Evaluation.of(records_of("r.odd")).scores.AP == pytest.approx(result.score("AP"))
    assert result.intervals["AP"].resamples == 20
    assert "subset" not in read_result(Path("r.json")).signature.metric
    table = score_table([read_result(Path("r.json")), result])
    assert "mine, odd" in table


def test_a_broken_subset_is_found_before_the_work(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--subset", "nowhere.txt") == 2
    assert "cannot be read" in capsys.readouterr().err
    assert not Path("r.json").exists()


def test_a_row_per_image_worst_first(workplace: Path) -> None:
    assert run("--images-csv", "tables/images.csv") == 0
    with Path("tables/images.csv").open() as file:
        rows = list(csv.DictReader(file))
    expected = worst_first(report_images(records_of()))
    assert [row["image_id"] for row in rows] == [report.image_id for report in expected]
    qualities = [float(row["PQ"]) for row in rows]
    assert qualities == sorted(qualities)
    assert run("--images-csv", "images.json") == 0
    told = json.loads(Path("images.json").read_text())
    assert [str(row["spurious"]) for row in told] == [row["spurious"] for row in rows]


def test_explanations(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--explain", "-q") == 0
    out = capsys.readouterr().out
    for words in ("merged", "order", "10–100 %", "worst images", "APthing", "sum to the"):
        assert words in out
    assert run("--explain", "-q", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    shares = [cause["share"] for cause in told["explanation"]["causes"].values()]
    assert sum(shares) == pytest.approx(100 - told["scores"]["AP"])
    bins = told["explanation"]["reliability"]
    gaps = [b["predictions"] * abs(b["score"] - b["matched"]) for b in bins if b["predictions"]]
    counted = sum(b["predictions"] for b in bins)
    assert sum(gaps) / counted == pytest.approx(told["scores"]["ECE"])
    assert told["explanation"]["worst_images"][0]["PQ"] <= told["scores"]["PQ"]


def test_the_worst_images_of_a_union_tell_their_set() -> None:
    """Even where all of them are of one."""
    one, nothing = EntityMap.from_array([[1]]), EntityMap.from_array([[0]])
    pairs = [ImagePair(str(k), one, nothing, [], set_name="a_val") for k in range(12)]
    pairs.append(ImagePair("1", one, one, [1.0], set_name="b_val"))
    told = str(Explanation(evaluate(pairs)))
    assert told.count("a_val/") == 10
    assert "b_val/" not in told


def test_figures_are_drawn_and_repeat_to_the_byte(workplace: Path) -> None:
    assert run("--plots", "figures") == 0
    drawn = sorted(path.name for path in Path("figures").iterdir())
    names = ["ap-by-iou", "causes", "precision-recall", "recall-by-size", "reliability", "scores"]
    assert drawn == sorted(f"{name}.{kind}" for name in names for kind in ("png", "svg"))
    evaluation = Evaluation.of(records_of())
    for path in save_plots(Path("again"), evaluation, "mine on made_val"):
        if path.suffix == ".svg":
            assert path.read_bytes() == (Path("figures") / path.name).read_bytes()


@pytest.mark.parametrize("draw", [precision_recall, ap_by_iou])
def test_a_long_title_stays_in_its_figure(draw: Callable[..., Figure]) -> None:
    """A union's name is broken into lines."""
    title = "a_model on " + "+".join(["coco_entity_val", "cityscapes_entity_val"] * 2)
    figure = draw(evaluate([]), title)
    figure.draw_without_rendering()
    shown = figure.axes[0].title.get_window_extent()
    assert 0 <= shown.x0 < shown.x1 <= figure.bbox.width


def test_figures_of_nothing(workplace: Path) -> None:
    """No truth at all: every curve is undefined, and still a figure."""
    assert len(save_plots(Path("nothing"), evaluate([]))) == 12


def test_ap_before_the_overlap_was_resolved(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two copies of each mask: half of them vanish when they are resolved."""
    results = json.loads(Path("results.json").read_text())
    for row in list(results):
        results.append({**row, "score": row["score"] / 2})
    Path("twice.json").write_text(json.dumps(results))
    assert run("--overlap", "resolve", "-q", preds="twice.json") == 0
    twice = read_result(Path("r.json"))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()[1:4]]
    flat, loose = twice.score("AP"), twice.score("APoverlapping")
    assert lines[0][:2] == ["twice", f"{100 * flat:.1f}"]
    assert lines[1:] == [
        ["before", "flattening", f"{100 * loose:.1f}"],
        ["gap", f"{100 * (loose - flat):.1f}"],
    ]
    assert run(preds="results.json") == 0
    once = read_result(Path("r.json"))
    assert once.scores["AP"] == twice.scores["AP"]
    assert "APoverlapping" not in once.scores
    expected = pycocotools_stats(open_entity_set("made_val", "data"), results)[0]
    assert 0 < expected < once.score("AP")
    assert twice.score("APoverlapping") == pytest.approx(expected, abs=1e-15)
