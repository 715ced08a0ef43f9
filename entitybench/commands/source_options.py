"""The options of single sources, from the command line."""

from __future__ import annotations

from collections.abc import Iterable

import click

from entitybench.entity_set import Option

_WORDS = {"true": True, "false": False}


def source_options(source: str, settings: Iterable[str]) -> dict[str, Option]:
    """Turn `KEY=VALUE` into options of a source, each of the type of its default.

    Args:
        source: The source's name.
        settings: As typed. A key that the source does not know is passed on: the engine tells
            the known ones.

    Raises:
        UnknownNameError: There is no such source.
        click.UsageError: No `=`, or a value of another type.
    """
    from entitybench.converters.source import find_source

    defaults = find_source(source).options
    return {
        key: _typed(defaults.get(key), text, setting)
        for setting in settings
        for key, text in [_parted(setting)]
    }


def _parted(setting: str) -> tuple[str, str]:
    key, equals, text = setting.partition("=")
    if not (key and equals):
        msg = f"--set takes KEY=VALUE, not {setting!r}"
        raise click.UsageError(msg)
    return key.replace("-", "_"), text


def _typed(default: Option, text: str, setting: str) -> Option:
    try:
        match default:
            case bool():
                return _WORDS[text.lower()]
            case int():
                return int(text)
            case float():
                return float(text)
            case _:
                return text
    except (KeyError, ValueError) as error:
        kind = "true or false" if isinstance(default, bool) else f"a value like {default!r}"
        msg = f"--set {setting}: expected {kind}"
        raise click.UsageError(msg) from error
