"""Names of entity sets: where they lie, and what to say when one does not."""

from __future__ import annotations

import os
from pathlib import Path

from entitybench.entity_set import HEADER, EntitySet, is_entity_set, open_path
from entitybench.errors import FormatError, UnknownNameError

DATA_VARIABLE = "ENTITYBENCH_DATA"


def data_root(data: str | os.PathLike[str] | None = None) -> Path:
    """Return where set names are looked up: the argument, `$ENTITYBENCH_DATA`, or `data`."""
    return Path(data if data is not None else os.environ.get(DATA_VARIABLE, "data"))


def known_sets(data: str | os.PathLike[str] | None = None) -> dict[str, Path]:
    """Return the finished entity sets of a data root by name, in order of their names."""
    root = data_root(data)
    found = {path.parent.name: path.parent for path in root.glob(f"*/{HEADER}")}
    found |= {path.stem: path for path in root.glob("*.zip") if is_entity_set(path)}
    return dict(sorted(found.items()))


def open_entity_set(
    name_or_path: str | os.PathLike[str], data: str | os.PathLike[str] | None = None
) -> EntitySet:
    """Open a finished entity set by its name under the data root, or by its path.

    Args:
        name_or_path: `coco_entity_val`, or a folder or zip.
        data: The data root; `$ENTITYBENCH_DATA` or `./data` unless given.

    Raises:
        UnknownNameError: No set has that name; tells the nearest.
        MissingDataError: The set is unfinished.
        FormatError: The set is broken, or of a newer format version.
    """
    text = os.fspath(name_or_path)
    named = data_root(data) / text
    if Path(text).name == text:
        for path in (named, named.with_name(text + ".zip")):
            if path.exists():
                return open_path(path)
    if Path(text).exists():
        return open_path(Path(text))
    root = data_root(data)
    hint = f"sets are looked up in `{root}`; `--data` or ${DATA_VARIABLE} name another folder"
    kind = "entity set"
    raise UnknownNameError.of(kind, text, known_sets(data), hint)


def open_union(names: str, data: str | os.PathLike[str] | None = None) -> list[EntitySet]:
    """Open `a` or a union `a+b`, whose images are pooled.

    Raises:
        FormatError: A set is named twice, or a name is empty.
        UnknownNameError: No set has that name.
    """
    return [open_entity_set(part, data) for part in split_union(names)]


def split_union(names: str) -> list[str]:
    """Split `a+b` into its names; what exists under the whole name is one.

    Raises:
        FormatError: A set is named twice, or a name is empty.

    >>> split_union("coco_entity_val+ade20k_entity_val")
    ['coco_entity_val', 'ade20k_entity_val']
    """
    parts = names.split("+") if not Path(names).exists() else [names]
    if "" in parts or len(set(parts)) < len(parts):
        msg = f"`{names}` is not a union of different sets, like `a+b`"
        raise FormatError(msg)
    return parts
