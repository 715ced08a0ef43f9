"""Where `convert` reads a release from: where it lies, or fetched first."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Never, Self

from entitybench.commands.console import say

if TYPE_CHECKING:
    from tqdm import tqdm

DEFAULT_FOLDER = Path("sources")


class Meter:
    """Shows a download on a terminal, one bar per file; quiet or piped, only what is said."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._bar: tqdm[Never] | None = None
        self._name = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def at(self, name: str, done: int, total: int | None) -> None:
        """Move the bar of a file to `done` of `total` bytes."""
        if self._bar is None or name != self._name:
            self._close()
            self._name, self._bar = name, self._begin(name, done, total)
        self._bar.update(done - self._bar.n)
        if done == total:
            self._close()

    def say(self, text: str) -> None:
        """Write a line, above the bar."""
        if self._bar is not None:
            self._bar.clear()
        say(text, quiet=self._quiet)

    def _begin(self, name: str, done: int, total: int | None) -> tqdm[Never]:
        from tqdm import tqdm

        silent = self._quiet or bool(os.environ.get("ENTITYBENCH_NO_PROGRESS"))
        return tqdm(
            desc=name,
            initial=done,
            total=total,
            unit="B",
            unit_scale=True,
            file=sys.stderr,
            disable=silent or None,
        )

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def sources_folder(source: str) -> Path:
    """Return where a source is looked up and fetched to: `$ENTITYBENCH_SOURCES/<source>`."""
    from entitybench.converters.release import SOURCES_VARIABLE

    return Path(os.environ.get(SOURCES_VARIABLE) or DEFAULT_FOLDER) / source


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to fetch of a source.

    Attributes:
        with_images: The photographs as well.
        splits: Only photographs of these splits; all if empty.
        archives: These archives alone, by name, if there are any.
    """

    with_images: bool = False
    splits: Collection[str] = ()
    archives: Collection[str] = ()


def release_folder(source: str, wanted: Wanted, *, quiet: bool) -> Path | None:
    """Return the folder of a release, fetched there first if it is not.

    Returns:
        None for a source that is not there and that no table lists: its converter says more.

    Raises:
        UnknownNameError: There is no such source, or no such archive of it.
        MissingDataError: It could not be fetched, or only a person can fetch it.
    """
    from entitybench.download import is_unfinished
    from entitybench.sources import load_sources

    folder = sources_folder(source)
    listing = load_sources().get(source)
    is_there = _is_release(source, folder)
    if listing is None:
        return folder if is_there else None
    if is_there and not wanted.archives:
        more = wanted.with_images or is_unfinished(folder, listing.choose())
        if listing.steps or not more:
            return folder
    if not is_there and not listing.steps:
        say(f"{listing.title} was not found in `{folder}`; fetching it there", quiet=quiet)
    fetch_archives(source, wanted, quiet=quiet)
    return folder


def fetch_archives(source: str, wanted: Wanted, *, quiet: bool) -> list[Path]:
    """Fetch what is wanted of a source to its folder, and show how it goes."""
    from entitybench.download import fetch

    with Meter(quiet=quiet) as meter:
        return fetch(
            source,
            sources_folder(source),
            with_images=wanted.with_images,
            splits=wanted.splits or None,
            archives=wanted.archives or None,
            progress=meter,
        )


def _is_release(source: str, folder: Path) -> bool:
    """Tell whether a converter finds its release in a folder."""
    from entitybench.archives import close_archives
    from entitybench.converters.release import locate
    from entitybench.converters.source import find_source
    from entitybench.errors import MissingDataError

    known = find_source(source)
    if not folder.exists():
        return False
    try:
        locate(known, folder)
    except MissingDataError:
        return False
    finally:
        close_archives()
    return True
