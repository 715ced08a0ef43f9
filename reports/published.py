"""The paper's tables as data: what was printed, where, and how far it can be trusted."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal

import msgspec

from entitybench.errors import FormatError, UnknownNameError

FILE = "published.toml"


class PublishedSet(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A split as published; an entity set of that name with other images is another thing."""

    title: str
    num_images: int


class PublishedMethod(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A method of the paper.

    Attributes:
        title: What it is, in words.
        same: Methods of ours that repeat it; its own key where none is given.
        kin: Methods of ours with the same design and a smaller model.
    """

    title: str
    same: tuple[str, ...] = ()
    kin: tuple[str, ...] = ()


class Column(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A column, and what all its cells share."""

    label: str
    group: str = ""
    metric: str | None = None
    method: str | None = None
    training: Literal["specific", "agnostic"] = "agnostic"
    trained_on: tuple[str, ...] | None = None
    tested_on: tuple[str, ...] | None = None
    epochs: int | None = None


class Row(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A row, its values in the order of the columns, and what all its cells share."""

    labels: tuple[str, ...]
    values: tuple[float, ...]
    method: str | None = None
    tested_on: tuple[str, ...] | None = None
    epochs: int | None = None


class Doubt(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why some cells cannot be trusted; what is not narrowed down means all."""

    why: str
    rows: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()

    def concerns(self, row: Row, column: Column) -> bool:
        """Tell whether it is about the cell where they meet."""
        return (
            (not self.rows or row.labels[0] in self.rows)
            and (not self.groups or column.group in self.groups)
            and (not self.labels or column.label in self.labels)
        )


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One table as printed.

    Attributes:
        id: `1`, `2a`, … `10`.
        row_names: What the labels of a row say.
        column_axis: What the groups of columns, or the columns, say.
    """

    id: str
    title: str
    row_names: tuple[str, ...]
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    metric_name: str = "AP_e^m"
    column_axis: str = ""
    note: str = ""
    metric: str | None = None
    trained_on: tuple[str, ...] = ()
    tested_on: tuple[str, ...] = ()
    epochs: int | None = None
    doubts: tuple[Doubt, ...] = ()

    @property
    def name(self) -> str:
        """As the paper numbers it: `Table 7(a)`."""
        return (
            f"Table {self.id[:-1]}({self.id[-1]})" if self.id[-1].isalpha() else f"Table {self.id}"
        )

    def cells(self) -> Iterator[PublishedCell]:
        """Yield every cell that holds a number, row by row."""
        for r, row in enumerate(self.rows):
            for c, value in enumerate(row.values):
                if not math.isnan(value):
                    yield self._cell(r, c)

    def _cell(self, r: int, c: int) -> PublishedCell:
        row, column = self.rows[r], self.columns[c]
        method = row.method or column.method
        if method and row.method and column.training == "specific":
            method = f"{row.method}-specific"
        return PublishedCell(
            table=self,
            row=r,
            column=c,
            value=row.values[c],
            metric=column.metric or self.metric,
            method=method,
            trained_on=column.trained_on or self.trained_on,
            tested_on=row.tested_on or column.tested_on or self.tested_on,
            epochs=row.epochs or column.epochs or self.epochs,
            doubts=self.doubts_of(row, column),
        )

    def doubts_of(self, row: Row, column: Column) -> tuple[str, ...]:
        """Return why the cell where they meet cannot be trusted; empty if it can."""
        return tuple(doubt.why for doubt in self.doubts if doubt.concerns(row, column))


@dataclass(frozen=True, slots=True)
class PublishedCell:
    """One published number.

    Attributes:
        table: Where it stands, with `row` and `column`.
        value: In points.
        metric: The score in a result file that it compares with, or None if there is none.
        method: A key of `Published.methods`, or None if entitybench has no such method.
        trained_on: Names of entity sets, in order.
        tested_on: Names of entity sets, in order; several were pooled.
        epochs: How long it was trained, where stated.
        doubts: Why it cannot be trusted; empty if nothing is known against it.
    """

    table: Table
    row: int
    column: int
    value: float
    metric: str | None
    method: str | None
    trained_on: tuple[str, ...]
    tested_on: tuple[str, ...]
    epochs: int | None
    doubts: tuple[str, ...]

    @property
    def row_name(self) -> str:
        """Its row, in words: what several labels say is said with them."""
        labels = self.table.rows[self.row].labels
        if len(labels) == 1:
            return f"row {labels[0]}"
        named = zip(self.table.row_names, labels, strict=True)
        return "row " + " / ".join(f"{name} {label}" for name, label in named)

    @property
    def source(self) -> str:
        """Where it is printed, in words."""
        column = self.table.columns[self.column]
        place = f"{column.group} / {column.label}" if column.group else column.label
        parts = [self.table.name, self.row_name]
        return ", ".join([*parts, f"column {place}"] if len(self.table.columns) > 1 else parts)


class Published(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All tables of the paper."""

    format: Literal["entitybench-published/1"]
    paper: str
    authors: str
    url: str
    sets: dict[str, PublishedSet]
    methods: dict[str, PublishedMethod]
    tables: tuple[Table, ...]

    def table(self, table_id: str) -> Table:
        """Return a table by its number, written `7a`, `7(a)` or `7A`.

        Raises:
            UnknownNameError: The paper has no such table.
        """
        plain = table_id.strip().lower().replace("(", "").replace(")", "")
        known = {table.id: table for table in self.tables}
        if plain not in known:
            kind = "table of the paper"
            raise UnknownNameError.of(kind, table_id, known)
        return known[plain]

    def cells(self) -> Iterator[PublishedCell]:
        """Yield every published number, table by table."""
        for table in self.tables:
            yield from table.cells()

    def names(self, method: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return our methods that repeat one of the paper's, and their smaller kin."""
        entry = self.methods.get(method)
        if entry is None:
            return (method,), ()
        return entry.same or (method,), entry.kin


def read_published(text: str) -> Published:
    """Read the tables, and hold each row to its columns.

    Raises:
        FormatError: The text is no such file; tells where.
    """
    try:
        found = msgspec.convert(tomllib.loads(text), Published)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        msg = f"not a file of published tables: {error}"
        raise FormatError(msg) from error
    for table in found.tables:
        for row in table.rows:
            if len(row.values) != len(table.columns) or len(row.labels) != len(table.row_names):
                msg = f"{table.name}: row {' / '.join(row.labels)} does not fit its columns"
                raise FormatError(msg)
    return found


@cache
def published() -> Published:
    """Return the tables that come with entitybench."""
    return read_published(files("entitybench.reports").joinpath(FILE).read_text(encoding="utf-8"))
