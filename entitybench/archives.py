"""Archives read in place: zip, tar, and archives inside them, with no second copy on disk.

An archive that is *stored* inside another is a slice of the outer file.  One that is *deflated*
inside another cannot be entered in its middle, and a zip must be: its table is at its end.  The
official COCO annotations are such a nest, of 0.8 GB.  Neither unpacking it to a temporary file (a
second copy, left behind by a crash, out of reach for workers on other machines) nor holding it in
memory (once per worker) will do.  `_Inflated` keeps restart points instead: copies of the
decompressor's state, about 40 KB each, a bounded number of them.  Opening it decompresses it
once, a few seconds; a read then begins at the restart point before it, and reads in the archive's
order never go back.

Nothing here trusts an archive: links and names that leave the folder are refused, and no read
decompresses more than was announced.
"""

from __future__ import annotations

import io
import os
import re
import stat
import struct
import tarfile
import threading
import weakref
import zipfile
import zlib
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from functools import cached_property, lru_cache
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, TypeVar

from entitybench.errors import FormatError, MissingDataError

if TYPE_CHECKING:
    from zlib import _Decompress

    from _typeshed import WriteableBuffer

GZIPPED = (".tgz", ".tar.gz")
SUFFIXES = (".zip", ".tar", *GZIPPED)
MEMBER = "!/"

DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError)
"""What reading a damaged archive may raise, before it is told as a `FormatError`."""

_T = TypeVar("_T")
_JUNK = re.compile(r"(^|/)(__MACOSX/|\._[^/]*$|\.DS_Store$|Thumbs\.db$|desktop\.ini$)")
_DRIVE = re.compile(r"[A-Za-z]:")
_LOCAL_SIGNATURE, _ENCRYPTED = b"PK\3\4", 1
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, …, lengths of the name and the extra field
_RAW_DEFLATE, _GZIP = -15, 31  # zlib's names for a stream without header, and in a gzip file
_GZIP_MAGIC = b"\x1f\x8b"
_INPUT, _OUTPUT = 1 << 16, 1 << 20  # bytes fed and taken at once, however hostile the stream
_SPACING = 1 << 22  # bytes between restart points at first; doubled when they become too many
_MOST_MARKS = 1024  # times 40 KB: what one nested archive may cost in memory


def is_junk(name: str) -> bool:
    """Tell whether a file is an operating system's litter.

    >>> is_junk("__MACOSX/a/._b.png"), is_junk("a/.DS_Store"), is_junk("a/b.png")
    (True, True, False)
    """
    return _JUNK.search(name) is not None


def plain_name(name: str) -> str:
    """Return a relative name in its one spelling; the folder itself is the empty name.

    Raises:
        FormatError: The name is absolute or leaves its folder.

    >>> plain_name("./a//b.png")
    'a/b.png'
    """
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or _DRIVE.match(name) or "\0" in name:
        msg = f"{name!r} is not a plain name inside its folder"
        raise FormatError(msg)
    return "" if path == PurePosixPath() else str(path)


@dataclass(frozen=True, slots=True)
class ArchivePlace:
    """Where an archive is: a file, or a member of another archive.

    Attributes:
        path: The outermost file.
        inside: The way from there, a member name for each level.
        stamp: Size and time of the file when it was found: a newer file is another place.
    """

    path: Path
    inside: tuple[str, ...] = ()
    stamp: tuple[int, int] = (0, 0)

    @classmethod
    def of_file(cls, path: Path) -> ArchivePlace:
        """Return the place of a file that exists."""
        status = path.stat()
        return cls(path, (), (status.st_size, status.st_mtime_ns))

    def member(self, name: str) -> ArchivePlace:
        """Return the place of an archive that is a member of this one."""
        return ArchivePlace(self.path, (*self.inside, name), self.stamp)

    def __str__(self) -> str:
        return MEMBER.join([str(self.path), *self.inside])


class Archive(ABC):
    """An open archive.

    Args:
        place: Where it is.
        sizes: Bytes of each file once unpacked, by plain name.
    """

    def __init__(self, place: ArchivePlace, sizes: dict[str, int]) -> None:
        self.place = place
        self.sizes = sizes

    @cached_property
    def folders(self) -> frozenset[str]:
        """The names of all folders that hold something; the top is the empty one."""
        folders: set[str] = {""}
        for name in self.sizes:
            while (name := name.rpartition("/")[0]) not in folders:
                folders.add(name)
        return frozenset(folders)

    @abstractmethod
    def open(self, name: str) -> IO[bytes]:
        """Open a member for reading from its beginning.

        Raises:
            FormatError: It cannot be read.
        """

    @abstractmethod
    def open_seekable(self, name: str) -> IO[bytes]:
        """Open a member for random access, over a handle of its own.

        Raises:
            FormatError: It cannot be read.
        """

    def read(self, name: str, limit: int) -> bytes:
        """Return the bytes of a member.

        Raises:
            FormatError: It is damaged, or unpacks to more than `limit` bytes.
        """
        size = self.sizes[name]
        if size > limit:
            msg = f"unpacks to {size:,} bytes, expected at most {limit:,}"
            raise self.fault(name, msg)
        try:
            with self.open(name) as file:
                data = file.read(size + 1)
        except DAMAGE as error:
            msg = f"damaged in its archive ({error})"
            raise self.fault(name, msg) from error
        if len(data) != size:
            msg = f"has {len(data):,} bytes, its archive announces {size:,}"
            raise self.fault(name, msg)
        return data

    def fault(self, name: str, what: str) -> FormatError:
        """Return an error that names a member."""
        return FormatError(what, where=f"{self.place}{MEMBER}{name}")


def open_archive(place: ArchivePlace) -> Archive:
    """Open an archive, or return it if this process has it open.

    Raises:
        MissingDataError: The file is gone.
        FormatError: Not a readable archive, or one with members that are refused.
    """
    try:
        return _opened(place)
    except FileNotFoundError as error:
        msg = f"no file `{place.path}`"
        raise MissingDataError(msg) from error


@lru_cache(maxsize=16)
def _opened(place: ArchivePlace) -> Archive:
    name = (place.inside[-1] if place.inside else place.path.name).lower()
    try:
        if name.endswith(GZIPPED):
            return _GzippedTarArchive(place)
        return _TarArchive(place) if name.endswith(".tar") else _ZipArchive(place)
    except (*DAMAGE, tarfile.TarError) as error:
        msg = f"not a readable archive ({error})"
        hint = "was the download interrupted? compare its size with the original's"
        raise FormatError(msg, where=str(place), hint=hint) from error


def close_archives() -> None:
    """Close what this process has open."""
    _opened.cache_clear()


if hasattr(os, "register_at_fork"):  # a file that two processes share has one position
    os.register_at_fork(after_in_child=close_archives)


def _open_bytes(place: ArchivePlace) -> IO[bytes]:
    """Open the bytes of an archive for random access."""
    if not place.inside:
        return place.path.open("rb")
    *way, name = place.inside
    return open_archive(ArchivePlace(place.path, tuple(way), place.stamp)).open_seekable(name)


class _Kind(Enum):
    FILE = 1
    FOLDER = 2
    OTHER = 3


def _admitted(
    place: ArchivePlace, members: Iterable[tuple[str, _Kind, _T]]
) -> Iterator[tuple[str, _T]]:
    """Yield the files among the members by plain name, without junk.

    Raises:
        FormatError: A link or device, a name that leaves the folder, or a name used twice.
    """
    seen: set[str] = set()
    for raw, kind, member in members:
        try:
            name = plain_name(raw)
        except FormatError as error:
            raise error.at(str(place)) from error
        if is_junk(name) or kind is _Kind.FOLDER:
            continue
        if kind is _Kind.OTHER or name in seen:
            what = "is there twice" if name in seen else "is a link or a special file"
            msg = f"`{name}` {what}; such an archive is not read"
            raise FormatError(msg, where=str(place))
        seen.add(name)
        yield name, member


class _ZipArchive(Archive):
    """A zip. Its table is walked by size: a 16-bit count of members may have wrapped."""

    def __init__(self, place: ArchivePlace) -> None:
        file = _open_bytes(place)
        weakref.finalize(self, file.close)  # a ZipFile closes a path, but not a file
        self._zip = zipfile.ZipFile(file)
        self._infos = dict(_admitted(place, map(_zip_member, self._zip.infolist())))
        super().__init__(place, {name: info.file_size for name, info in self._infos.items()})

    def open(self, name: str) -> IO[bytes]:
        try:
            return self._zip.open(self._infos[name])
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
            msg = f"cannot be read from its archive ({error})"
            raise self.fault(name, msg) from error

    def open_seekable(self, name: str) -> IO[bytes]:
        info = self._infos[name]
        kinds = {zipfile.ZIP_STORED: _Slice, zipfile.ZIP_DEFLATED: _Inflated}
        if info.compress_type not in kinds or info.flag_bits & _ENCRYPTED:
            msg = "an archive inside an archive must be stored or deflated, and not encrypted"
            raise self.fault(name, msg)
        outer = _open_bytes(self.place)
        try:
            start = _content_start(outer, info)
        except (OSError, ValueError, struct.error) as error:
            outer.close()
            msg = f"its archive is damaged ({error})"
            raise self.fault(name, msg) from error
        return io.BufferedReader(kinds[info.compress_type](outer, start, info.file_size))


def _content_start(outer: IO[bytes], info: zipfile.ZipInfo) -> int:
    """Return where a member's content begins: its local header may be longer than its entry."""
    outer.seek(info.header_offset)
    header: tuple[bytes, int, int] = _LOCAL_HEADER.unpack(outer.read(_LOCAL_HEADER.size))
    signature, name_length, extra_length = header
    if signature != _LOCAL_SIGNATURE:
        msg = "no local header"
        raise ValueError(msg)
    return info.header_offset + _LOCAL_HEADER.size + name_length + extra_length


def _zip_member(info: zipfile.ZipInfo) -> tuple[str, _Kind, zipfile.ZipInfo]:
    form = stat.S_IFMT(info.external_attr >> 16)  # 0 where the zip was not made on Unix
    regular = form in (0, stat.S_IFREG)
    kind = _Kind.FOLDER if info.is_dir() else _Kind.FILE if regular else _Kind.OTHER
    return info.filename, kind, info


class _TarArchive(Archive):
    """A tar that is not compressed: its members are slices."""

    def __init__(self, place: ArchivePlace) -> None:
        with self._open_tar(place) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            files = dict(_admitted(place, map(_tar_member, tar)))
        self._starts = {name: start for name, (start, _) in files.items()}
        super().__init__(place, {name: size for name, (_, size) in files.items()})

    def _open_tar(self, place: ArchivePlace) -> IO[bytes]:
        return _open_bytes(place)

    def open(self, name: str) -> IO[bytes]:
        return self.open_seekable(name)

    def open_seekable(self, name: str) -> IO[bytes]:
        window = _Slice(self._open_tar(self.place), self._starts[name], self.sizes[name])
        return io.BufferedReader(window)


class _GzippedTarArchive(_TarArchive):
    """A tar in one gzip stream, which its members share: its restart points are worth keeping."""

    def __init__(self, place: ArchivePlace) -> None:
        file = _open_bytes(place)
        weakref.finalize(self, file.close)
        self._unzipped = _Inflated(file, 0, _unzipped_size(file), _GZIP)
        self._turns = threading.Lock()
        super().__init__(place)

    def _open_tar(self, place: ArchivePlace) -> IO[bytes]:
        return io.BufferedReader(_Shared(self._unzipped, self._turns))


def _unzipped_size(file: IO[bytes]) -> int:
    """Return the size that a gzip file announces: modulo 2³², for a file of one stream."""
    magic = file.read(len(_GZIP_MAGIC))
    if magic != _GZIP_MAGIC or file.seek(0, io.SEEK_END) < 18:  # its header and trailer
        msg = "not a gzip file"
        raise EOFError(msg)
    file.seek(-4, io.SEEK_END)
    return int.from_bytes(file.read(4), "little")


def _tar_member(info: tarfile.TarInfo) -> tuple[str, _Kind, tuple[int, int]]:
    regular = info.isreg() and not info.issparse()
    kind = _Kind.FOLDER if info.isdir() else _Kind.FILE if regular else _Kind.OTHER
    return info.name, kind, (info.offset_data, info.size)


# --- files inside files ------------------------------------------------------


class _Window(io.RawIOBase):
    """A read-only file of known size that lies inside another, which it closes with itself."""

    def __init__(self, outer: IO[bytes], start: int, size: int) -> None:
        self._outer = outer
        self._start = start
        self._size = size
        self._position = 0

    @abstractmethod
    def _read_at(self, position: int, count: int) -> bytes:
        """Return 1 to `count` bytes from a position below the size."""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}
        self._position = max(0, origin[whence] + offset)
        return self._position

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        count = min(len(view), self._size - self._position)
        if count <= 0:
            return 0
        data = self._read_at(self._position, count)
        view[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        self._outer.close()
        super().close()


class _Slice(_Window):
    """A stretch of bytes."""

    def _read_at(self, position: int, count: int) -> bytes:
        self._outer.seek(self._start + position)
        data = self._outer.read(count)
        if not data:
            msg = f"the file ends {self._size - position:,} bytes early"
            raise EOFError(msg)
        return data


class _Shared(_Window):
    """The whole of a window that several use in turn, and that none of them closes."""

    def __init__(self, window: _Window, turns: threading.Lock) -> None:
        super().__init__(io.BytesIO(), 0, window._size)
        self._window = window
        self._turns = turns

    def _read_at(self, position: int, count: int) -> bytes:
        with self._turns:
            return self._window._read_at(position, count)


@dataclass(slots=True)
class _Mark:
    """A place in a deflated stream where inflating can go on.

    Attributes:
        given: Bytes that came out before it.
        taken: Bytes that went in before it.
        inflater: The decompressor's state there.
    """

    given: int
    taken: int
    inflater: _Decompress

    def copy(self) -> _Mark:
        return _Mark(self.given, self.taken, self.inflater.copy())


class _Inflated(_Window):
    """The content of a deflated stream, at any position, by restart points."""

    def __init__(self, outer: IO[bytes], start: int, size: int, form: int = _RAW_DEFLATE) -> None:
        super().__init__(outer, start, size)
        self._marks = [_Mark(0, 0, zlib.decompressobj(form))]
        self._spacing = _SPACING
        self._cursor = self._marks[0].copy()
        self._block = b""  # what came out last; it ends at the cursor

    def _read_at(self, position: int, count: int) -> bytes:
        mark = self._marks[bisect_right(self._marks, position, key=lambda m: m.given) - 1]
        if not mark.given <= self._cursor.given - len(self._block) <= position:
            self._cursor, self._block = mark.copy(), b""
        while self._cursor.given <= position:
            self._step()
        first = position - (self._cursor.given - len(self._block))
        return self._block[first : first + count]

    def _step(self) -> None:
        cursor = self._cursor
        self._outer.seek(self._start + cursor.taken)
        data = self._outer.read(_INPUT)
        self._block = cursor.inflater.decompress(data, _OUTPUT)
        cursor.taken += len(data) - len(cursor.inflater.unconsumed_tail)
        cursor.given += len(self._block)
        over = cursor.inflater.eof and cursor.given < self._size
        if over or cursor.given > self._size or not (data or self._block):
            msg = f"{self._size:,} bytes are announced, there are {cursor.given:,}"
            raise EOFError(msg)
        if cursor.given - self._marks[-1].given >= self._spacing:
            self._mark()

    def _mark(self) -> None:
        self._marks.append(self._cursor.copy())
        if len(self._marks) > _MOST_MARKS:
            del self._marks[1::2]
            self._spacing *= 2
