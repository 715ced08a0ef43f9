"""Configurations: frozen dataclasses, written as small TOML files that start from a base.

A file holds what differs from its `base`, so that an experiment is readable as a difference::

    base = "entity_r50_1x"
    [overlap]
    activation = "sigmoid"
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import msgspec

from entitybench.errors import FormatError, UnknownNameError

_T = TypeVar("_T")
_LONGEST_CHAIN = 16


def named_configs(package: str) -> list[str]:
    """Return the names of the configurations that come with a family, in order."""
    names = (entry.name for entry in (files(package) / "configs").iterdir())
    return sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml"))


def load_config(kind: type[_T], package: str, name: str | Path, changes: Sequence[str] = ()) -> _T:
    """Read a configuration.

    Args:
        kind: The dataclass to make.
        package: The family's package, whose `configs/` holds the named ones.
        name: One of those names, or the path of a TOML file; its `base` is looked up beside it
            first.
        changes: Further differences like `overlap.weight=1.0`; the value is TOML, or a word.

    Raises:
        UnknownNameError: No such configuration or key; tells the nearest.
        FormatError: Not TOML, a value of the wrong type, or a base that leads to itself.
    """
    table = _merged(_with_bases(package, str(name), None, ()), parse_changes(changes))
    return config_from(kind, table, str(name))


def parse_changes(changes: Sequence[str]) -> dict[str, Any]:
    """Return the tables that changes like `overlap.weight=1.0` make.

    Raises:
        FormatError: A change is not of that form.
    """
    table: dict[str, Any] = {}
    for change in changes:
        table = _merged(table, _change(change))
    return table


def config_from(kind: type[_T], table: Mapping[str, Any], place: str) -> _T:
    """Make a configuration from plain values.

    Raises:
        UnknownNameError: An unknown key; tells the nearest.
        FormatError: A value of the wrong type.
    """
    _check_keys(kind, table, place)
    try:
        return msgspec.convert(dict(table), kind)
    except msgspec.ValidationError as error:
        msg = f"not a valid configuration: {error}"
        raise FormatError(msg, where=place) from error


def as_table(config: object) -> dict[str, Any]:
    """Return plain values that `config_from` takes back."""
    table: dict[str, Any] = msgspec.to_builtins(config)
    return table


def _with_bases(
    package: str, name: str, beside: Path | None, seen: tuple[str, ...]
) -> dict[str, Any]:
    source, folder = _find(package, name, beside)
    if str(source) in seen or len(seen) > _LONGEST_CHAIN:
        msg = f"configuration `{name}` has itself as its base"
        raise FormatError(msg, where=list(seen))
    try:
        table = tomllib.loads(source.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        msg = f"not TOML: {error}"
        raise FormatError(msg, where=str(source)) from error
    base = table.pop("base", None)
    if base is None:
        return table
    return _merged(_with_bases(package, str(base), folder, (*seen, str(source))), table)


def _find(package: str, name: str, beside: Path | None) -> tuple[Traversable, Path | None]:
    for path in (Path(name), *([] if beside is None else [beside / name, beside / f"{name}.toml"])):
        if path.suffix == ".toml" and path.is_file():
            return path, path.parent
    if name not in named_configs(package):
        kind, hint = "configuration", "or the path of a `.toml` file"
        raise UnknownNameError.of(kind, name, named_configs(package), hint)
    return files(package) / "configs" / f"{name}.toml", None


def _merged(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one table over another; tables inside are merged, all else is replaced."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            value = _merged(old, value)
        merged[key] = value
    return merged


def _change(text: str) -> dict[str, Any]:
    key, equals, value = text.partition("=")
    if not (equals and key.strip()):
        msg = f"`{text}` is not a change like `overlap.weight=1.0`"
        raise FormatError(msg)
    try:
        parsed: Any = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value.strip()
    for part in reversed(key.strip().split(".")):
        parsed = {part: parsed}
    table: dict[str, Any] = parsed
    return table


def _check_keys(kind: type[Any], table: Mapping[str, Any], place: str, prefix: str = "") -> None:
    hints = get_type_hints(kind)
    known = [field.name for field in fields(kind)]
    for key, value in table.items():
        if key not in known:
            what = f"key in `{prefix or place}`"
            raise UnknownNameError.of(what, key, known, f"in configuration `{place}`")
        inner = hints[key]
        if isinstance(value, Mapping) and isinstance(inner, type) and is_dataclass(inner):
            _check_keys(inner, value, place, f"{prefix}[{key}]")
