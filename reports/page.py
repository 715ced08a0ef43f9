"""The page: one HTML file with everything in it, readable from disk, on paper and on a phone."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from entitybench import __version__
from entitybench.metrics.diagnosis import CAUSES
from entitybench.reports.certainty import Difference
from entitybench.reports.comparison import Comparison
from entitybench.reports.details import Details
from entitybench.reports.examples import Gallery
from entitybench.reports.figures import Style
from entitybench.reports.leaderboard import DASH, JointGain, Matrix, Transfer
from entitybench.reports.pictures import ERROR_COLOURS
from entitybench.reports.published import Published
from entitybench.reports.results import Run, domain_of, test_title, title_of, training_title

BREAKDOWN = {
    "average precision": ("AP", "AP50", "AP75"),
    "by size": ("APs", "APm", "APl"),
    "recall": ("AR1", "AR10", "AR100"),
    "panoptic quality": ("PQ", "SQ", "RQ"),
    "things and stuff": ("APthing", "APstuff", "ARthing", "ARstuff"),
    "boxes": ("APb", "APb50", "APb75"),
    "before overlap was resolved": ("APoverlapping",),
}
"""Scores of the breakdown tables, in groups; `–` where a result has none."""


@dataclass(frozen=True, slots=True)
class Drawing:
    """A figure: its name, as it stands on the page, and as a file of its own."""

    name: str
    inline: str
    file: str


@dataclass(frozen=True, slots=True, eq=False)
class Bench:
    """All that the page says about one test set.

    Attributes:
        tested_on: Its name, or those of a union.
        runs: Best first.
        details: What the records say, per run; None where there are none.
        styles: The run's line in the figures.
        figures: The curves; none without records.
        differences: `[row][column]` paired difference of two runs, or None; empty if unknown.
    """

    tested_on: tuple[str, ...]
    runs: tuple[Run, ...]
    details: tuple[Details | None, ...]
    styles: tuple[Style, ...]
    figures: tuple[Drawing, ...]
    differences: tuple[tuple[Difference | None, ...], ...] = ()

    @property
    def anchor(self) -> str:
        """A word that is unique on the page."""
        return "-".join("".join(c if c.isalnum() else "-" for c in n) for n in self.tested_on)

    @property
    def scored(self) -> list[tuple[Run, Details, Style]]:
        """Runs with records."""
        together = zip(self.runs, self.details, self.styles, strict=True)
        return [(run, details, style) for run, details, style in together if details is not None]


UNTRAINED = "not trained"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a model comes from.

    Attributes:
        tag: In a word or two, for the head of its column: `trained here`.
        facts: What identifies it: seed, steps, hashes.
        command: What makes it again; none where there is nothing to make.
    """

    tag: str
    facts: tuple[str, ...] = ()
    command: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Content:
    """Everything on the page.

    Attributes:
        title: At its head.
        about: A sentence or two below it.
        made: When.
        runs: As read, pooled ones included.
        warnings: What a reader must know before any number.
        repeat: Commands that make the numbers and the page again.
        origins: By name of a model, where that is known.
    """

    title: str
    about: str
    made: datetime
    runs: tuple[Run, ...]
    matrix: Matrix
    transfers: tuple[Transfer, ...]
    gains: tuple[JointGain, ...]
    comparisons: tuple[Comparison, ...]
    published: Published
    benches: tuple[Bench, ...]
    galleries: tuple[Gallery, ...]
    warnings: tuple[str, ...]
    repeat: tuple[str, ...]
    origins: Mapping[str, Origin]

    @property
    def tags(self) -> list[str]:
        """Where the models of each column come from; empty where nobody knows."""
        names = {(run.trained_on, run.method): run.name for run in self.runs}
        origins = (self.origins.get(names[column]) for column in self.matrix.columns)
        return ["" if origin is None else origin.tag for origin in origins]

    @property
    def num_tests(self) -> int:
        """How many test sets there are, unions aside if they are of these."""
        return len({name for bench in self.benches for name in bench.tested_on})

    def training(self, trained_on: tuple[str, ...]) -> str:
        """Name what the models of some columns were trained on."""
        here = zip(self.matrix.columns, self.tags, strict=True)
        tags = {tag for (training, _), tag in here if training == trained_on}
        return "nothing" if tags == {UNTRAINED} else training_title(trained_on)

    @property
    def remarks(self) -> list[str]:
        """All that stands between measured and published numbers, each once."""
        told = [
            (*found.obstacles, *map(_doubtful, found.cell.doubts)) for found in self.comparisons
        ]
        return list(dict.fromkeys(remark for remarks in told for remark in remarks))

    @property
    def software(self) -> list[str]:
        """What the results were made with, each mix once."""
        mixes = (run.result.environment for run in self.runs)
        lines = (", ".join(f"{name} {version}" for name, version in m.items()) for m in mixes)
        return list(dict.fromkeys(lines))

    def remark_numbers(self, found: Comparison) -> list[int]:
        """Return the numbers, from 1, of the remarks that concern a comparison."""
        own = {*found.obstacles, *map(_doubtful, found.cell.doubts)}
        return [n for n, remark in enumerate(self.remarks, 1) if remark in own]


def _doubtful(why: str) -> str:
    return f"the published number is doubtful: {why}"


def render(content: Content) -> str:
    """Return the page as HTML."""
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "points": points,
        "signed": signed,
        "test_title": test_title,
        "title_of": title_of,
        "training_title": training_title,
        "code": code,
        "notation": notation,
        "percent": percent,
        "direction": direction,
        "zip": zip,
    }
    template = environment.from_string(_text("page.html"))
    return template.render(
        content=content,
        version=__version__,
        breakdown=BREAKDOWN,
        causes=[str(cause) for cause in CAUSES],
        error_colours=ERROR_COLOURS,
        is_home=is_home,
        bench_scores=bench_scores,
        is_best=is_best,
        # our own files, with no value of anybody's in them
        style=Markup(_text("style.css")),
        script=Markup(_text("sort.js")),
        svg=Markup,
    )


def _text(name: str) -> str:
    folder = files("entitybench.reports").joinpath("templates")
    return folder.joinpath(name).read_text(encoding="utf-8")


def points(value: float | None) -> str:
    """Show a score in points, one decimal.

    >>> points(29.84), points(None)
    ('29.8', '–')
    """
    return DASH if value is None or math.isnan(value) else f"{value:.1f}"


def signed(value: float | None) -> str:
    """Show a difference in points with its sign.

    >>> signed(1.25), signed(0.01), signed(None)
    ('+1.2', '0.0', '–')
    """
    if value is None or math.isnan(value):
        return DASH
    text = f"{value:+.1f}"
    return "0.0" if text in {"+0.0", "-0.0"} else text.replace("-", "\N{MINUS SIGN}")


def direction(difference: float) -> str:
    """Return the class that colours a difference in points; none for what is shown as 0.0.

    >>> direction(0.3), direction(-0.3), direction(0.04)
    ('gain', 'loss', '')
    """
    tenths = round(difference, 1)
    return "gain" if tenths > 0 else "loss" if tenths < 0 else ""


def percent(part: float, whole: float) -> str:
    """Show a share as CSS wants it; nothing of nothing is 0.

    >>> percent(1, 3), percent(0, 0)
    ('33.33%', '0.00%')
    """
    return f"{100 * part / whole if whole else 0:.2f}%"


def code(text: str) -> Markup:
    """Set what stands between backticks as code; everything is escaped.

    >>> code("`a<b` is")
    Markup('<code>a&lt;b</code> is')
    """
    parts = text.split("`")
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if index % 2 else part
        for index, part in enumerate(parts)
    )


def notation(text: str) -> Markup:
    """Set the paper's names of scores as it prints them; everything is escaped.

    >>> notation("column AP_e^m")
    Markup('column AP<sub class="plain">e</sub><sup class="plain">m</sup>')
    """
    marks = {"_": "sub", "^": "sup"}
    parts = re.split(r"([_^][^\W_]+)", text)
    return Markup("").join(
        Markup('<{0} class="plain">{1}</{0}>').format(marks[part[0]], part[1:])
        if index % 2
        else part
        for index, part in enumerate(parts)
    )


def is_home(training: Sequence[str], tested: Sequence[str]) -> bool:
    """Tell whether every test set's source is among those trained on."""
    return {domain_of(name) for name in tested} <= {domain_of(name) for name in training}


def bench_scores(bench: Bench, names: Sequence[str]) -> list[str]:
    """Return the scores that any run of a test set has."""
    return [name for name in names if any(run.points(name) is not None for run in bench.runs)]


def is_best(bench: Bench, run: Run, name: str) -> bool:
    """Tell whether no fair run of a test set has more, as shown (one decimal)."""
    own = run.points(name)
    fair = [r.points(name) for r in bench.runs if not r.saw_the_test]
    values = [round(value, 1) for value in fair if value is not None]
    if own is None or run.saw_the_test or len(values) < 2:
        return False
    return round(own, 1) == max(values)
