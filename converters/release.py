"""Finding a source release on this machine."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from entitybench.converters.source import Source
from entitybench.converters.source_tree import SourceTree
from entitybench.errors import ConflictError, MissingDataError, UnknownNameError

SOURCES_VARIABLE = "ENTITYBENCH_SOURCES"


def locate(
    source: Source, root: str | os.PathLike[str] | None = None
) -> tuple[SourceTree, Sequence[str]]:
    """Find a release: at the root, or in one of the folders directly below.

    Args:
        source: What to look for.
        root: Where; `$ENTITYBENCH_SOURCES/<source>` unless given.

    Returns:
        Its tree, and the splits that are there.

    Raises:
        MissingDataError: It is not there.
        ConflictError: It is there more than once.
    """
    top = SourceTree.at(_root(source, root))
    found = source.find(top)
    if found:
        return top, found
    below = [top.below(folder) for folder in top.folders()]
    hits = [(tree, found) for tree in below if (found := source.find(tree))]
    if len(hits) > 1:
        msg = f"{source.title} is in `{top}` more than once"
        where = [str(tree) for tree, _ in hits]
        raise ConflictError(msg, where=where, hint="`--source` names one of them")
    if not hits:
        raise _not_found(source, f"in `{top}`")
    return hits[0]


def _root(source: Source, root: str | os.PathLike[str] | None) -> Path:
    if root is not None:
        return Path(root)
    sources = os.environ.get(SOURCES_VARIABLE)
    path = Path(sources or "") / source.name
    if sources and path.exists():
        return path
    where = f"in `{path}`" if sources else f"without `--source` or ${SOURCES_VARIABLE}"
    raise _not_found(source, where)


def _not_found(source: Source, where: str) -> MissingDataError:
    msg = f"{source.title} was not found {where}\nexpected: {source.expected}"
    return MissingDataError(msg, hint=source.hint)


def wanted_splits(
    source: Source, tree: SourceTree, found: Sequence[str], splits: Sequence[str] | None
) -> list[str]:
    """Return the splits to convert, in the source's order or the caller's.

    Raises:
        UnknownNameError: The source has no such split.
        MissingDataError: The release that was found does not have it, or nobody has its truth.
    """
    if splits is None:
        return [split for split in source.splits if split in found]
    for split in splits:
        if split in source.withheld:
            msg = f"{source.title}, split `{split}`: {source.withheld[split]}"
            raise MissingDataError(msg)
        if split not in source.splits:
            kind = f"split of {source.name}"
            raise UnknownNameError.of(kind, split, source.splits)
        if split not in found:
            raise _not_found(source, f"in `{tree}`: no split `{split}`")
    return list(dict.fromkeys(splits))
