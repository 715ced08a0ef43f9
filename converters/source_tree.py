"""The files of a source release, unpacked or not.

One rule makes folders, archives and nests of archives alike: **an archive stands for what
unpacking it where it lies would give.**  So `annotations/panoptic_val2017.zip`, a member of
`panoptic_annotations_trainval2017.zip`, shows its `panoptic_val2017/….png` as
`annotations/panoptic_val2017/….png`, and a converter knows unpacked layouts only.  Files on disk
come before files in archives.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from entitybench.archives import (
    MEMBER,
    SUFFIXES,
    Archive,
    ArchivePlace,
    is_junk,
    open_archive,
    plain_name,
)
from entitybench.errors import FormatError, MissingDataError

MOST_BYTES = 1 << 31  # of one file, unless the caller knows better


@dataclass(frozen=True, slots=True)
class _Mount:
    """An archive, and the folder in which it lies."""

    folder: str
    place: ArchivePlace

    def inside(self, name: str) -> str | None:
        """Return a name as the archive knows it; None where it cannot hold it."""
        if not self.folder:
            return name
        rest = name.removeprefix(self.folder)
        if rest == name or not (rest == "" or rest.startswith("/")):
            return None
        return rest[1:]

    def names_below(self, folder: str) -> Iterator[str]:
        """Yield the tree's names of the members below one of its folders."""
        top = f"{self.folder}/" if self.folder else ""
        start = f"{folder}/" if folder else ""
        if start.startswith(top) or top.startswith(start):
            names = (top + name for name in open_archive(self.place).sizes)
            yield from (name for name in names if name.startswith(start))


@dataclass(frozen=True, slots=True)
class SourceTree:
    """Files by plain relative names, wherever they lie.

    It is a description: small, picklable, and nothing is open before it is used. Each process
    opens an archive once.

    Attributes:
        root: What the user gave: a folder, or one archive.
        base: The folder below the root where names begin.
        mounts: The archives that are looked into, in this order.

    >>> import tempfile, zipfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with zipfile.ZipFile(f"{folder}/val2017.zip", "w") as archive:
    ...         archive.writestr("val2017/000000000139.jpg", b"a photograph")
    ...     tree = SourceTree.at(folder).with_archives("val2017.zip", "train2017.zip")
    ...     tree.names("val2017"), tree.read("val2017/000000000139.jpg")
    (['val2017/000000000139.jpg'], b'a photograph')
    """

    root: Path
    base: str = ""
    mounts: tuple[_Mount, ...] = ()

    @classmethod
    def at(cls, root: str | os.PathLike[str]) -> SourceTree:
        """Return the tree of a folder, or of one archive.

        Raises:
            MissingDataError: There is neither.
        """
        path = Path(root).absolute()
        if path.is_dir():
            return cls(path)
        if path.is_file() and path.name.lower().endswith(SUFFIXES):
            return cls(path, mounts=(_Mount("", ArchivePlace.of_file(path)),))
        what = "is neither a folder nor an archive" if path.exists() else "does not exist"
        msg = f"`{root}` {what}"
        raise MissingDataError(msg)

    def __str__(self) -> str:
        return self.place("")

    def below(self, folder: str) -> SourceTree:
        """Return the tree of one folder."""
        return replace(self, base=self._full(folder))

    def with_archives(self, *names: str) -> SourceTree:
        """Return the tree with archives mounted, those of the names that are there.

        Each name is looked up in the tree so far: an archive inside one that was named before
        is found too.
        """
        tree = self
        for name in names:
            place = tree._archive_at(self._full(name))
            if place is not None:
                mount = _Mount(self._full(name).rpartition("/")[0], place)
                tree = replace(tree, mounts=(*tree.mounts, mount))
        return tree

    def __contains__(self, name: str) -> bool:
        full = self._full(name)
        return self._on_disk(full) is not None or self._in_archive(full) is not None

    def has_folder(self, name: str) -> bool:
        """Tell whether a folder is there and holds something."""
        full = self._full(name)
        folder = self._disk_folder(full)
        return (folder is not None and any(folder.iterdir())) or any(
            inside in archive.folders for archive, inside in self._archives(full)
        )

    def folders(self) -> list[str]:
        """Return the names of the folders directly at the top, in order."""
        folder = self._disk_folder(self.base)
        found = {p.name for p in folder.iterdir() if p.is_dir()} if folder else set()
        for archive, inside in self._archives(self.base):
            start = f"{inside}/" * bool(inside)
            tops = (n.removeprefix(start) for n in archive.folders if n.startswith(start))
            found |= {top for top in tops if top and "/" not in top}
        return sorted(found)

    def names(self, folder: str = "", *, suffix: str = "") -> list[str]:
        """Return the names of all files below a folder, in order, without litter."""
        full = self._full(folder)
        found = {name for name in self._walk(full) if not is_junk(name)}
        for mount in self.mounts:
            found.update(mount.names_below(full))
        length = len(self.base) + 1 if self.base else 0
        return sorted(name[length:] for name in found if name.endswith(suffix))

    def read(self, name: str, limit: int = MOST_BYTES) -> bytes:
        """Return the bytes of a file.

        Args:
            name: A plain relative name.
            limit: The most bytes that it may have; nothing beyond is decompressed.

        Raises:
            MissingDataError: It is not there.
            FormatError: It is larger, damaged in its archive, or its name leaves the tree.
        """
        full = self._full(name)
        path = self._on_disk(full)
        if path is None:
            archive, inside = self._member(full)
            return archive.read(inside, limit)
        if path.stat().st_size > limit:
            msg = f"has {path.stat().st_size:,} bytes, expected at most {limit:,}"
            raise FormatError(msg, where=str(path))
        return path.read_bytes()

    def open(self, name: str) -> IO[bytes]:
        """Open a file of which only the beginning is needed.

        Raises:
            MissingDataError: It is not there.
            FormatError: It cannot be read from its archive.
        """
        full = self._full(name)
        path = self._on_disk(full)
        if path is not None:
            return path.open("rb")
        archive, inside = self._member(full)
        return archive.open(inside)

    def place(self, name: str) -> str:
        """Return where a file or folder is, or would be, for a message."""
        full = self._full(name)
        if full and self._on_disk(full) is None:
            for archive, inside in self._archives(full):
                if inside in archive.sizes or inside in archive.folders:
                    return f"{archive.place}{MEMBER}{inside}".removesuffix(MEMBER)
        return str(self.root / full)

    def location(self, folder: str) -> str | None:
        """Return where the files of a folder are, as `local.json` says it.

        Returns:
            A path, or `archive.zip!/folder`; None where the files are not there.
        """
        full = self._full(folder)
        path = self._disk_folder(full)
        if path is not None and any(path.iterdir()):
            return str(path)
        for archive, inside in self._archives(full):
            if inside in archive.folders:
                return f"{archive.place}{MEMBER}{inside}"
        return None

    # --- where names lead ------------------------------------------------------

    def _full(self, name: str) -> str:
        plain = plain_name(name)
        return f"{self.base}/{plain}" if self.base and plain else plain or self.base

    def _on_disk(self, full: str) -> Path | None:
        path = self.root / full
        return path if full and path.is_file() else None

    def _disk_folder(self, full: str) -> Path | None:
        path = self.root / full
        return path if path.is_dir() else None

    def _walk(self, full: str) -> Iterator[str]:
        for folder, _, files in os.walk(self.root / full):
            start = Path(folder).relative_to(self.root).as_posix()
            yield from (file if start == "." else f"{start}/{file}" for file in files)

    def _archives(self, full: str) -> Iterator[tuple[Archive, str]]:
        """Yield the archives that could hold a name, and the name inside."""
        for mount in self.mounts:
            inside = mount.inside(full)
            if inside is not None:
                yield open_archive(mount.place), inside

    def _in_archive(self, full: str) -> tuple[Archive, str] | None:
        found = ((archive, inside) for archive, inside in self._archives(full))
        return next(((a, inside) for a, inside in found if inside in a.sizes), None)

    def _member(self, full: str) -> tuple[Archive, str]:
        found = self._in_archive(full)
        if found is None:
            msg = f"no file `{full}`"
            raise MissingDataError(msg, where=str(self.root))
        return found

    def _archive_at(self, full: str) -> ArchivePlace | None:
        path = self._on_disk(full)
        if path is not None:
            return ArchivePlace.of_file(path)
        found = self._in_archive(full)
        return found[0].place.member(found[1]) if found else None
