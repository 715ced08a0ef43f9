"""Archives with the same bytes every day: sorted members, no dates, no owners."""

from __future__ import annotations

import shutil
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest date a zip can hold
_READABLE = 0o100644 << 16
_PACKED = {".png", ".jpg", ".zip"}  # already compressed: deflating them gains nothing


def pack_zip(archive: Path, root: Path, members: Sequence[str]) -> None:
    """Move files and folders of a folder into a zip.

    Args:
        archive: The zip to write.
        root: Names in the zip are relative to it.
        members: Files or folders below `root`; they are deleted afterwards.
    """
    with zipfile.ZipFile(archive, "w") as pack:
        for name, path in _files(root, members):
            entry = zipfile.ZipInfo(name, date_time=_EPOCH)
            entry.external_attr = _READABLE
            stored = path.suffix in _PACKED
            entry.compress_type = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
            with pack.open(entry, "w") as target, path.open("rb") as source:
                shutil.copyfileobj(source, target)
    _remove(root, members)


def pack_tar(archive: Path, root: Path, members: Sequence[str]) -> None:
    """Move files and folders of a folder into a tar; arguments as for `pack_zip`."""
    with tarfile.open(archive, "w", format=tarfile.USTAR_FORMAT) as pack:
        for name, path in _files(root, members):
            entry = tarfile.TarInfo(name)
            entry.size = path.stat().st_size
            with path.open("rb") as source:
                pack.addfile(entry, source)
    _remove(root, members)


def _files(root: Path, members: Sequence[str]) -> Iterator[tuple[str, Path]]:
    for member in members:
        top = root / member
        paths = sorted(top.rglob("*")) if top.is_dir() else [top]
        for path in paths:
            if path.is_file():
                yield path.relative_to(root).as_posix(), path


def _remove(root: Path, members: Sequence[str]) -> None:
    for member in members:
        path = root / member
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
