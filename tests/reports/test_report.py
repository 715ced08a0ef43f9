import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from pytest_regressions.file_regression import FileRegressionFixture

from entitybench.commands.report_command import command
from entitybench.errors import ConflictError, MissingDataError
from entitybench.metrics.benchmark import evaluate
from entitybench.photographs import GENERATED
from entitybench.reports.examples import choose
from entitybench.reports.page import UNTRAINED, Origin
from entitybench.reports.published import published
from entitybench.reports.report import LARGEST_PAGE, Options, load, write_report
from entitybench.reports.results import Run
from entitybench.reports.table_text import measured
from entitybench.result import ModelInfo
from entitybench.signature import MetricSignature
from tests.reports.conftest import ADE, COCO, STAND_INS, TESTS, Bench

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def page(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "report"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOURCE_DATE_EPOCH", "1795392000")
        options = Options(data=bench.data, preds=bench.preds, resamples=50)
        return write_report(bench.results, out, options).page


class Reader(HTMLParser):
    """Collects what the tests ask about, and checks that tags are closed in order."""

    VOID = frozenset({"meta", "link", "img", "br", "path", "use"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.sections: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.addresses += [str(given[k]) for k in ("href", "src", "xlink:href") if k in given]
        if "id" in given:
            self.ids.append(str(given["id"]))
        if tag == "section":
            self.sections.append(str(given["id"]))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_the_page_is_whole_small_and_asks_nothing_of_the_network(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert len(text.encode()) <= LARGEST_PAGE
    read = Reader(text)
    assert read.open == []
    assert len(set(read.ids)) == len(read.ids)
    outside = [a for a in read.addresses if not a.startswith(("data:", "#", "leaderboard."))]
    assert outside == ["https://arxiv.org/abs/2107.14228"]  # a link to follow, nothing to load
    assert {a[1:] for a in read.addresses if a.startswith("#")} <= set(read.ids)
    assert not re.search(r"@import|url\((?!#)", text)


def test_sections_come_most_wanted_first(page: Path) -> None:
    assert Reader(page.read_text(encoding="utf-8")).sections == [
        "leaderboard",
        "generalisation",
        "paper",
        "breakdown",
        "curves",
        "causes",
        "pictures",
        "certainty",
        "provenance",
    ]


def test_every_result_is_on_the_page(page: Path, bench: Bench) -> None:
    text = page.read_text(encoding="utf-8")
    for name in STAND_INS:
        for test in TESTS:
            result = json.loads((bench.results / name / f"{test}.json").read_text())
            assert f">{result['scores']['AP']:.1f}<" in text
            assert result["signature"]["metric"] in text


def test_the_script_is_short_and_the_page_does_without(page: Path) -> None:
    script = page.read_text(encoding="utf-8").split("<script>")[1].split("</script>")[0]
    assert len(script.strip().splitlines()) <= 20


def test_worst_best_and_random_images_are_shown(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text.count("data:image/jpeg;base64,") == 2 * 15 * 4  # both test sets, every image once
    for name in ("worst", "best", "random"):
        assert text.count(f"<h4>5 {name}</h4>") == 2


def test_equal_input_gives_equal_bytes(page: Path, bench: Bench, tmp_path: Path) -> None:
    options = Options(data=bench.data, preds=bench.preds, resamples=50)
    again = write_report(bench.results, tmp_path / "again", options)
    for path in again.files:
        before = page.parent / path.relative_to(tmp_path / "again")
        assert path.read_bytes() == before.read_bytes(), path


def test_what_models_and_files_are_called_is_escaped(bench: Bench, tmp_path: Path) -> None:
    source = next(iter(bench.results.glob("*/coco_entity_val.json")))
    evil = json.loads(source.read_text())
    evil["model"]["name"] = "<script>alert(1)</script>"
    evil["model"]["url"] = "javascript:alert(1)"
    evil["model"]["trained_on"] = ['"><img src=x>']
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "evil.json").write_text(json.dumps(evil))
    done = write_report(tmp_path / "results", tmp_path / "out", Options(resamples=0))
    text = done.page.read_text(encoding="utf-8")
    assert "<script>alert" not in text
    assert "<img src=x" not in text
    assert "javascript:" not in text


def test_the_union_is_pooled_from_the_match_records(bench: Bench) -> None:
    pooled = {run.name: run for run in load(bench.results, allow_mixed=False) if run.pooled_from}
    assert set(pooled) == set(STAND_INS)
    run = pooled["stand-in-floor"]
    assert run.result.metric.ground_truth.count("@") == 2
    assert run.result.ground_truth.num_images == 30
    assert run.ground_truth == "ade20k_entity_val+coco_entity_val"


def test_the_pooled_union_is_what_eval_finds(bench: Bench) -> None:
    name = "stand-in-floor"
    done = evaluate(bench.preds / name, "+".join(TESTS), data=bench.data)
    pooled = next(
        r for r in load(bench.results, allow_mixed=False) if r.pooled_from and r.name == name
    )
    assert pooled.result.scores == done.result.scores
    assert done.result.signature == pooled.result.signature


def test_parts_subsets_and_boundaries_are_no_results(bench: Bench, tmp_path: Path) -> None:
    whole = bench.results / "stand-in-floor" / "coco_entity_val.json"
    folder = tmp_path / "results"
    folder.mkdir()
    told = json.loads(whole.read_text())
    names = []
    for extra in ("subset:part-1-of-2", "subset:night@0011aabb", "boundary:0.02"):
        key, _, value = extra.partition(":")
        change: dict[str, Any] = {key: value}
        metric = replace(MetricSignature.parse(told["signature"]["metric"]), **change)
        names.append(folder / f"{key}-{value[:4]}.json")
        names[-1].write_text(
            json.dumps(told | {"signature": told["signature"] | {"metric": str(metric)}})
        )
    with pytest.raises(MissingDataError, match="only results on subsets or parts"):
        load(folder, allow_mixed=False)
    assert [run.path for run in load(names[1], allow_mixed=False)] == [names[1]]  # asked for
    shutil.copy(whole, folder / "whole.json")
    assert [run.path.name for run in load(folder, allow_mixed=False)] == ["whole.json"]


def test_the_page_tells_where_models_come_from(bench: Bench, tmp_path: Path) -> None:
    name = f"stand-in-a@{COCO}"
    origins = {
        name: Origin("trained here", ("seed 7", "weights sha256 0011"), "entitybench train --on x"),
        "stand-in-floor": Origin(UNTRAINED),
    }
    options = Options(data=bench.data, preds=bench.preds, resamples=0, origins=origins)
    text = write_report(bench.results, tmp_path / "r", options).page.read_text(encoding="utf-8")
    assert text.count("<small>trained here</small>") == 1
    assert 'colspan="1" scope="colgroup" title="">nothing</th>' in text
    assert "<code>entitybench train --on x</code>" in text
    assert '<small class="fact">seed 7</small>' in text


def test_generated_worlds_are_named_as_such_and_free(page: Path, bench: Bench) -> None:
    text = page.read_text(encoding="utf-8")
    (warning,) = re.findall(r"<li>(Numbers on generated.*)</li>", text)
    assert all(f"<code>{test}</code>" in warning for test in TESTS)
    assert "not those of the published split" not in text
    assert text.count(f"Images: {GENERATED}.</small>") == 2
    assert "before you pass the page on" not in text
    # without the sets at hand nobody can tell, and the number of images gives them away
    done = write_report(bench.results, page.parent.parent / "bare", Options(resamples=0))
    assert "not those of the published split" in done.page.read_text(encoding="utf-8")


def test_pictures_may_be_left_out(bench: Bench, tmp_path: Path) -> None:
    options = Options(data=bench.data, preds=bench.preds, pictures=False, resamples=0)
    text = write_report(bench.results, tmp_path, options).page.read_text(encoding="utf-8")
    assert "data:image/jpeg" not in text
    assert 'id="pictures"' not in text


def test_results_alone_make_a_report(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    source = next(iter(bench.results.glob("*/coco_entity_val.json")))
    shutil.copy(source, tmp_path / "results" / "one.json")
    done = write_report(tmp_path / "results", tmp_path / "out", Options())
    text = done.page.read_text(encoding="utf-8")
    assert 'id="curves"' not in text  # no match records: no curves, and no crash
    assert done.runs == 1


def test_a_folder_with_something_else_in_it_is_left_alone(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ConflictError, match="not a report"):
        write_report(bench.results, tmp_path, Options(resamples=0))


@pytest.mark.parametrize("name", ["leaderboard.csv", "leaderboard.md", "leaderboard.tex"])
def test_tables_as_they_were(name: str, page: Path, file_regression: FileRegressionFixture) -> None:
    text = (page.parent / name).read_text(encoding="utf-8")
    # hashes of generated sets are held elsewhere; figures to a tenth are what a table shows
    text = re.sub(r"@[0-9a-f]{8}", "@········", text)
    if name.endswith("csv"):
        kept = [
            line for line in text.splitlines(keepends=True) if ",metric," in line or ",AP," in line
        ]
        text = re.sub(r"(\d+\.\d)\d+", r"\1", "".join(kept))
    file_regression.check(text, basename=f"stand-ins-{name[12:]}", extension=".txt")


def test_worst_best_and_random_are_disjoint() -> None:
    qualities = np.array([0.5, np.nan, 0.1, 0.9, 0.3, 0.7, 0.2, 0.8])
    chosen = choose(qualities, per_group=2)
    assert (chosen["worst"], chosen["best"]) == ([2, 6], [3, 7])
    assert set(chosen["random"]) < {0, 4, 5}
    assert choose(qualities, per_group=2) == chosen
    few = choose(np.array([0.5, 0.1]))
    assert few == {"worst": [1], "best": [0], "random": []}
    assert choose(np.full(3, np.nan)) == {"worst": [], "best": [], "random": []}


# --- the command ---------------------------------------------------------------------------------


def invoke(*arguments: str) -> str:
    result = CliRunner().invoke(command, list(arguments), standalone_mode=False)
    if result.exception:
        raise result.exception
    return result.output


def test_the_command_says_where_the_page_is(bench: Bench, tmp_path: Path) -> None:
    said = invoke(
        str(bench.results), "--out", str(tmp_path / "r"), "--bootstrap", "0", "--pictures", "none"
    )
    assert f"wrote {tmp_path / 'r' / 'index.html'}: 18 results" in said


def test_the_unions_of_a_table_are_pooled_for_it(bench: Bench) -> None:
    """The paper's CO+A row, where a third test set is there as well."""
    runs = load(bench.results, allow_mixed=False)
    own = [
        replace(run, result=msgspec.structs.replace(run.result, model=named(run)))
        for run in runs
        if run.method == "stand-in-a" and not run.pooled_from
    ]
    third = [
        replace(
            run,
            result=msgspec.structs.replace(
                run.result,
                ground_truth=msgspec.structs.replace(run.result.ground_truth, name="other"),
            ),
        )
        for run in own
        if run.ground_truth == TESTS[0]
    ]
    found = measured(published().table("7a"), [*own, *third], published())
    told = {(hit.cell.row, hit.runs[0].name): hit.value for hit in found.values()}
    assert len(told) == 9  # three trainings on three rows
    pooled = {r.name: r.points("AP") for r in runs if r.pooled_from}
    for name in (f"stand-in-a@{COCO}", f"stand-in-a@{ADE}"):
        assert told[2, name.replace("stand-in-a", "tiny")] == pooled[name]


def named(run: Run) -> ModelInfo:
    name = run.name.replace("stand-in-a", "tiny")
    return msgspec.structs.replace(run.result.model, name=name)


def test_a_table_of_the_paper_on_stdout(bench: Bench) -> None:
    said = invoke(str(bench.results), "--table", "8")
    assert said.startswith("Table 8: Against panoptic segmentation")
    assert "nothing was measured" in said
    cells = json.loads(invoke(str(bench.results), "--table", "7a", "--json"))["cells"]
    assert len(cells) == 27
    assert {cell["measured"] for cell in cells} == {None}


# --- in a browser --------------------------------------------------------------------------------

PROBE = """<script>
addEventListener("load", () => {
  const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  const loaded = performance.getEntriesByType("resource").filter(r => !r.name.startsWith("data:"));
  const table = document.querySelector("#breakdown table.sortable");
  const head = table.querySelector("thead tr:last-child th:nth-child(2)");
  head.click(); head.click();
  const column = [...table.tBodies[0].rows].map(r => Number(r.cells[1].dataset.value));
  document.body.dataset.probe = JSON.stringify({
    wide, requests: loaded.length, sorted: column.every((v, i) => !i || column[i - 1] <= v),
    images: [...document.images].every(i => i.loading === "lazy" || i.naturalWidth > 0)
  });
});
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
@pytest.mark.parametrize("width", [1280, 390])
def test_in_a_browser(page: Path, tmp_path: Path, width: int) -> None:
    """No console error, no request, nothing wider than the window, columns sort."""
    probed = tmp_path / "probed.html"
    probed.write_text(page.read_text(encoding="utf-8").replace("</body>", PROBE + "</body>"))
    # a window has a least width; a frame has none
    frame = tmp_path / "frame.html"
    frame.write_text(
        f'<iframe id="f" style="width:{width}px;height:900px;border:0" src="probed.html"></iframe>'
        "<script>f.onload = () => setTimeout(() => document.body.dataset.probe = "
        "f.contentDocument.body.dataset.probe, 0);</script>"
    )
    done = subprocess.run(
        [
            str(CHROMIUM),
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--allow-file-access-from-files",
            "--enable-logging=stderr",
            "--virtual-time-budget=10000",
            f"--user-data-dir={tmp_path / 'profile'}",
            f"--window-size={max(width, 1300)},1000",
            "--dump-dom",
            frame.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "CONSOLE" not in done.stderr, done.stderr
    probe = re.search(r'<body data-probe="([^"]*)"', done.stdout)
    assert probe is not None, done.stdout[:500]
    told = json.loads(probe[1].replace("&quot;", '"'))
    assert told == {"wide": 0, "requests": 0, "sorted": True, "images": True}
