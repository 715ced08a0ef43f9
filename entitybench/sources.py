"""The original releases as `sources.toml` lists them: archives, sizes, checksums, licences."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from entitybench.errors import FormatError, UnknownNameError

SOURCES_FILE = Path(__file__).with_name("sources.toml")

PlainName = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._+-]*\Z")]
Address = Annotated[str, msgspec.Meta(pattern=r"\Ahttps?://[!-.0-?A-~]+/[!-~]*\Z")]
Checksum = Annotated[
    str, msgspec.Meta(pattern=r"\A(sha256:[0-9a-f]{64}|sha1:[0-9a-f]{40}|md5:[0-9a-f]{32})\Z")
]


class Archive(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of a release.

    Attributes:
        name: Its file name, which is also what it is called on disk.
        holds: What it is needed for; one that holds both counts as annotations.
        licence: What its publisher allows.
        addresses: Where it is, the first first; none where a person must fetch it.
        bytes: Its size, where published.
        checksum: `sha256:…`, `sha1:…` or `md5:…`, where published.
        about: Its size in words, where nothing better is known.
        splits: The splits it belongs to; none means all.
        optional: Fetched only by its name.
    """

    name: PlainName
    holds: Literal["annotations", "images"]
    licence: str
    addresses: tuple[Address, ...] = ()
    bytes: Annotated[int, msgspec.Meta(gt=0)] | None = None
    checksum: Checksum | None = None
    about: str = ""
    splits: tuple[str, ...] = ()
    optional: bool = False

    @property
    def size_text(self) -> str:
        """Its size, for people.

        >>> Archive("a.zip", "images", "CC0", bytes=860_725_834).size_text
        '860,725,834 bytes'
        """
        return f"{self.bytes:,} bytes" if self.bytes else self.about or "size not published"


class Listing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One source: its archives, or the steps that a person must take to get them.

    Attributes:
        title: What people call it.
        page: Where it is published.
        archives: Its files.
        steps: What to do first, in order; `{page}` stands for the page. None where everybody
            may fetch the archives.
    """

    title: str
    page: str
    archives: tuple[Archive, ...] = ()
    steps: tuple[str, ...] = ()

    def choose(
        self,
        *,
        with_images: bool = False,
        splits: Collection[str] | None = None,
        names: Collection[str] | None = None,
    ) -> list[Archive]:
        """Return the archives that are wanted.

        Args:
            with_images: Archives of photographs as well.
            splits: Only what these splits need; all unless given.
            names: These archives and no others, whatever they hold.

        Raises:
            UnknownNameError: There is no archive of that name.
        """
        if names is not None:
            by_name = {archive.name: archive for archive in self.archives}
            for name in names:
                if name not in by_name:
                    kind = f"archive of {self.title}"
                    raise UnknownNameError.of(kind, name, by_name)
            return [by_name[name] for name in dict.fromkeys(names)]
        return [
            archive
            for archive in self.archives
            if not archive.optional
            and (with_images or archive.holds == "annotations")
            and (splits is None or not archive.splits or not set(splits).isdisjoint(archive.splits))
        ]


def load_sources(path: str | os.PathLike[str] | None = None) -> dict[str, Listing]:
    """Read a table of sources, by name.

    Args:
        path: Another table than the one that comes with entitybench.

    Raises:
        FormatError: The file is not such a table; tells where.

    >>> load_sources()["coco"].choose()[0].name
    'panoptic_annotations_trainval2017.zip'
    """
    path = SOURCES_FILE if path is None else Path(path)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        return msgspec.convert(table, dict[PlainName, Listing])
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        msg = f"not a table of sources: {error}"
        raise FormatError(msg, where=str(path)) from error


def find_listing(name: str, path: str | os.PathLike[str] | None = None) -> Listing:
    """Return the listing of one source.

    Raises:
        UnknownNameError: There is none; tells the nearest.
        FormatError: The table is broken.
    """
    listings = load_sources(path)
    if name not in listings:
        kind = "source"
        raise UnknownNameError.of(kind, name, listings)
    return listings[name]
