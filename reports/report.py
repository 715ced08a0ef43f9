"""From a folder of results to a folder with the page, the tables and the figures."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from entitybench.errors import ConflictError
from entitybench.photographs import GENERATED
from entitybench.registry import known_sets, open_entity_set
from entitybench.reports.certainty import Samples, differences, intervals_of, samples_of
from entitybench.reports.comparison import compare, impostors
from entitybench.reports.details import Details
from entitybench.reports.examples import PER_GROUP, Gallery, gallery, within_budget
from entitybench.reports.exports import to_csv, to_json, to_latex, to_markdown
from entitybench.reports.figures import PANELS, Line, draw, inline, stand_alone, styles
from entitybench.reports.leaderboard import Matrix, generalisation, joint_gains, leaderboard
from entitybench.reports.page import Bench, Content, Drawing, Origin, render
from entitybench.reports.published import published
from entitybench.reports.results import (
    Run,
    check_comparable,
    completed,
    read_runs,
    training_title,
    with_union,
)
from entitybench.result import time_stamp
from entitybench.whole_file import write_whole

PAGE = "index.html"
LARGEST_PAGE = 5_000_000
MOST_LINES = 8
"""Models in one figure; the best are shown."""

_MARKER = "leaderboard.json"  # what a folder must hold to be replaced


@dataclass(frozen=True, slots=True)
class Report:
    """What was written.

    Attributes:
        page: The HTML file.
        files: All files, the page among them, in order.
        runs: How many results were read, and pooled here.
    """

    page: Path
    files: tuple[Path, ...]
    runs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What to show.

    Attributes:
        title: At the head of the page.
        about: A sentence or two below it.
        data: Where truth is looked up by name; with `preds` needed for pictures.
        preds: `PREDS/<model>/<ground truth>` holds predictions.
        pictures: Whether to show images.
        allow_mixed: Whether numbers that were computed differently may share a row, with a
            footnote.
        resamples: Of the bootstrap behind intervals and differences; 0 for none.
        origins: By name of a model, where it comes from.
    """

    title: str = "Entity segmentation, across datasets"
    about: str = ""
    data: Path = Path("data")
    preds: Path = Path("preds")
    pictures: bool = True
    allow_mixed: bool = False
    resamples: int = 1000
    origins: Mapping[str, Origin] = field(default_factory=dict)


def load(folder: Path, *, allow_mixed: bool) -> list[Run]:
    """Read results, refuse mixed ones, pool the unions and complete the scores.

    Raises:
        MissingDataError: There are no results.
        FormatError: A file is broken.
        ConflictError: Results on one ground truth were computed differently.
    """
    runs = read_runs(folder)
    if not allow_mixed:
        check_comparable(runs)
    return [completed(run) for run in with_union(runs)]


def write_report(results: Path, out: Path, options: Options) -> Report:
    """Write the page, the tables and the figures.

    Args:
        results: Folder of result files.
        out: Folder to write; a report that is there is replaced.
        options: What to show.

    Raises:
        MissingDataError: There are no results.
        FormatError: A file is broken.
        ConflictError: Results were computed differently, or `out` holds something else.
    """
    runs = load(results, allow_mixed=options.allow_mixed)
    _check_place(out)
    samples = samples_of(runs, options.resamples)
    matrix = leaderboard(runs, intervals=intervals_of(samples))
    paper = published()
    comparisons = compare(runs, paper)
    benches = [_bench(matrix, row, runs, samples) for row in range(len(matrix.rows))]
    content = Content(
        title=options.title,
        about=options.about,
        made=time_stamp(0)[0],
        runs=tuple(runs),
        matrix=matrix,
        transfers=tuple(generalisation(matrix)),
        gains=tuple(joint_gains(matrix)),
        comparisons=tuple(comparisons),
        published=paper,
        benches=tuple(benches),
        galleries=(),
        warnings=tuple(_warnings(runs, options.data)),
        repeat=tuple(_commands(runs, results)),
        origins=options.origins,
    )
    page = _page(content, options)
    files = {
        PAGE: page,
        "leaderboard.csv": to_csv(runs, comparisons),
        "leaderboard.md": to_markdown(matrix),
        "leaderboard.tex": to_latex(matrix),
        _MARKER: to_json(runs),
        **{
            f"figures/{figure.name}-{bench.anchor}.svg": figure.file
            for bench in benches
            for figure in bench.figures
        },
    }
    return Report(out / PAGE, tuple(_write(out, files)), len(runs))


def _page(content: Content, options: Options) -> str:
    """Render the page with as many pictures as fit."""
    bare = render(content)
    if not options.pictures:
        return bare
    found = list(_galleries(content.benches, options))
    room = LARGEST_PAGE - len(bare.encode()) - 100_000  # for captions
    return render(replace(content, galleries=tuple(within_budget(found, room))))


def _check_place(out: Path) -> None:
    if out.is_dir() and any(out.iterdir()) and not (out / _MARKER).exists():
        msg = f"`{out}` holds something that is not a report"
        raise ConflictError(msg, hint="give `--out` a new or empty folder")


def _write(out: Path, files: dict[str, str]) -> Iterator[Path]:
    shutil.rmtree(out / "figures", ignore_errors=True)  # those of models that are gone
    for name, text in files.items():
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text.encode())
        yield path


def _bench(matrix: Matrix, row: int, runs: Sequence[Run], samples: Samples) -> Bench:
    tested = matrix.rows[row]
    here = sorted(
        (run for run in runs if run.tested_on == tested),
        key=lambda run: (-(run.points(matrix.metric) or 0.0), run.name),
    )
    looks = dict(zip(matrix.columns, styles(matrix.columns), strict=True))
    details = tuple(None if run.records is None else Details.of(run.records) for run in here)
    bench = Bench(
        tested_on=tested,
        runs=tuple(here),
        details=details,
        styles=tuple(looks[run.trained_on, run.method] for run in here),
        figures=(),
        differences=differences(here, samples),
    )
    lines = _lines(bench, matrix)
    drawn = {name: draw(name, lines) for name in PANELS if lines}
    figures = tuple(
        Drawing(name, inline(svg, f"{name}-{row}"), stand_alone(svg, lines))
        for name, svg in drawn.items()
    )
    return replace(bench, figures=figures)


def _lines(bench: Bench, matrix: Matrix) -> list[Line]:
    several = len(matrix.groups) > 1
    lines = [Line(_label(run, several), style, details) for run, details, style in bench.scored]
    return lines[:MOST_LINES]


def _label(run: Run, several: bool) -> str:
    return f"{run.method}, {training_title(run.trained_on)}" if several else run.method


def _galleries(benches: Sequence[Bench], options: Options) -> Iterator[Gallery]:
    """Yield one per test set: the best model that has predictions at hand."""
    for bench in benches:
        for run, details, _ in bench.scored:
            found = gallery(run, details, options.data, options.preds, PER_GROUP)
            if found is not None:
                yield found
                break


def _warnings(runs: Sequence[Run], data: Path) -> list[str]:
    drawn = _generated(runs, data)
    names = ", ".join(f"`{name}`" for name in drawn)
    more = "they compare with each other, and with nothing that was published"
    said = [f"Numbers on generated worlds ({names}): {more}"] if drawn else []
    said += [
        f"{text}: its numbers are not those of the published split"
        for text in impostors([r for r in runs if r.ground_truth not in drawn], published())
    ]
    seen = sorted({run.name for run in runs if run.saw_the_test})
    if seen:
        names = ", ".join(f"`{name}`" for name in seen)
        said.append(f"Trained on images that they are tested on, marked †: {names}")
    return said


def _generated(runs: Sequence[Run], data: Path) -> list[str]:
    """Return the test sets that entitybench drew itself, as far as their headers are at hand."""
    known = known_sets(data)
    hashes = {run.ground_truth: run.result.ground_truth.sha256 for run in runs}
    headers = {n: open_entity_set(known[n]).header for n in sorted(hashes) if n in known}
    return [
        name
        for name, header in headers.items()
        if header.licence == GENERATED and header.content_hash == hashes[name]
    ]


def _commands(runs: Sequence[Run], results: Path) -> Iterator[str]:
    """Yield what makes the numbers again, one command per model and ground truth."""
    for run in runs:
        if run.pooled_from:
            continue
        metric = run.result.metric
        extra = "" if metric.protocol == "strict" else f" --protocol {metric.protocol}"
        extra += "" if metric.void == "counted" else f" --void {metric.void}"
        least = run.result.prediction.class_threshold
        extra += f" --class-threshold {least:g}" if least else ""
        yield f"entitybench eval preds/{run.name} --gt {run.ground_truth}{extra}"
    yield f"entitybench report {results.name}/ --out report/"
