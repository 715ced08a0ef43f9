"""Fetching the archives of a source: whole and verified, or not there at all."""

from __future__ import annotations

import gzip
import os
import tarfile
import zipfile
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from entitybench.errors import FormatError, MissingDataError
from entitybench.file_lock import locked
from entitybench.sources import Archive, find_listing
from entitybench.transfer import DownloadError, Patience, Progress, Silence, Transfer

MIRROR_VARIABLE = "ENTITYBENCH_MIRROR"
OFFLINE_VARIABLE = "ENTITYBENCH_OFFLINE"
NOTES = ".entitybench"  # a folder beside the archives

_BLOCK = 1 << 20


def fetch(
    source: str,
    folder: str | os.PathLike[str],
    *,
    with_images: bool = False,
    splits: Collection[str] | None = None,
    archives: Collection[str] | None = None,
    mirror: str | None = None,
    offline: bool = False,
    sources: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    patience: Patience | None = None,
) -> list[Path]:
    """Fetch the archives of a source into a folder; those that are there already are kept.

    An archive comes as `<name>.part` and gets its name once size and checksum are right; until
    then the same call goes on where the last one ended. What was verified once is known by its
    size and time and not read again. Another process that fetches the same file is waited for.

    Args:
        source: A name in the table of sources.
        folder: Where to; made where it is not. Nothing is written outside.
        with_images: The photographs as well, where they have archives of their own.
        splits: Only photographs of these splits; all unless given.
        archives: These archives, by name, instead of all of those.
        mirror: Fetch `<mirror>/<source>/<archive>` instead of the publisher's address;
            `$ENTITYBENCH_MIRROR` unless given. Sizes and checksums hold all the same.
        offline: Never ask a server; also if `$ENTITYBENCH_OFFLINE` is set.
        sources: Another table of sources than the one that comes with entitybench.
        progress: Shows how it goes.
        patience: How long to wait for a server.

    Returns:
        The archives, in the table's order.

    Raises:
        UnknownNameError: There is no such source or archive.
        DownloadError: A file could not be fetched, or is not the published one and was removed.
        NoRoomError: The disk is full; what came is kept.
        MissingDataError: A person must fetch it; the message says how.
        FormatError: A file that a person put there is not the published one.
    """
    listing = find_listing(source, sources)
    wanted = listing.choose(with_images=with_images, splits=splits, names=archives)
    download = _Download(
        source,
        Path(folder),
        _mirror(mirror),
        offline or _is_set(OFFLINE_VARIABLE),
        progress or Silence(),
        patience or Patience(),
    )
    by_hand = [a for a in wanted if not a.addresses and not download.is_there(a)]
    if by_hand or (listing.steps and not wanted):
        raise MissingDataError(steps(source, folder, sources=sources))
    return [download.get(archive) for archive in wanted]


def is_unfinished(folder: Path, archives: Iterable[Archive]) -> bool:
    """Tell whether the download of any of these archives was begun there and did not end."""
    notes = folder / NOTES
    return any(
        (notes / f"{archive.name}.lock").exists()
        and not (notes / f"{archive.name}.verified").exists()
        for archive in archives
    )


def steps(
    source: str,
    folder: str | os.PathLike[str],
    *,
    sources: str | os.PathLike[str] | None = None,
) -> str:
    """Tell a person how to get a source that cannot be fetched without one.

    Args:
        source: A name in the table of sources.
        folder: Where its files must go.
        sources: Another table of sources.

    Raises:
        UnknownNameError: There is no such source.
    """
    listing = find_listing(source, sources)
    command = f"entitybench convert {source} --download-only"
    if not listing.steps:
        return f"{listing.title} needs no steps: `{command}` fetches it"
    by_hand = [archive for archive in listing.archives if not archive.addresses]
    todo = [step.replace("{page}", listing.page) for step in listing.steps]
    todo.append(f"put {'these files' if by_hand else 'the files'}, as they are, into `{folder}`")
    lines = [f"{listing.title} must be fetched by hand", *_numbered(todo)]
    lines += [f"       {_described(archive)}" for archive in by_hand]
    lines += _numbered(["run the same command again"], first=len(todo) + 1)
    for archive in listing.archives:
        if archive.addresses:
            lines += [
                f"without registration: {_described(archive)}, by",
                f"       {command} --archive {archive.name}",
            ]
    return "\n".join(lines)


def _numbered(todo: Sequence[str], first: int = 1) -> list[str]:
    return [f"  {number}. {step}" for number, step in enumerate(todo, first)]


def _described(archive: Archive) -> str:
    checksum = f", {archive.checksum}" if archive.checksum else ""
    return f"{archive.name} ({archive.holds}, {archive.size_text}{checksum})"


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "").lower() not in ("", "0", "false", "no")


def _mirror(mirror: str | None) -> str | None:
    """Return the mirror's address without its last slash; None where there is none."""
    address = mirror or os.environ.get(MIRROR_VARIABLE) or None
    if address is None:
        return None
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.netloc or "@" in parts.netloc:
        msg = f"the mirror `{parts.scheme}://…` is not an http or https address without a password"
        raise FormatError(msg, hint=f"set ${MIRROR_VARIABLE} to an address like http://host/path")
    return address.rstrip("/")


class _Mark(msgspec.Struct, frozen=True):
    """What a file was like when it was verified."""

    bytes: int
    mtime_ns: int
    checksum: str | None


@dataclass(frozen=True, slots=True)
class _Download:
    """The choices of one download, applied to one archive after the other."""

    source: str
    folder: Path
    mirror: str | None
    offline: bool
    progress: Progress
    patience: Patience

    def get(self, archive: Archive) -> Path:
        """Return an archive, fetched if need be."""
        target = self.folder / archive.name
        if self._is_good(archive):
            return target
        addresses = self._addresses(archive)
        if self.offline:
            msg = f"`{archive.name}` is not in `{self.folder}`, and ${OFFLINE_VARIABLE} is set"
            raise DownloadError(msg, where=addresses)
        (self.folder / NOTES).mkdir(parents=True, exist_ok=True)
        with locked(self._note(archive, "lock"), lambda: self._wait_for(archive)):
            if not self._is_good(archive):
                self._fetch(archive, addresses)
        return target

    def is_there(self, archive: Archive) -> bool:
        """Tell whether a file of that name is there, good or not."""
        return (self.folder / archive.name).is_file()

    def _note(self, archive: Archive, kind: str) -> Path:
        return self.folder / NOTES / f"{archive.name}.{kind}"

    def _addresses(self, archive: Archive) -> list[str]:
        if self.mirror is None:
            return list(archive.addresses)
        return [f"{self.mirror}/{self.source}/{archive.name}"]

    def _wait_for(self, archive: Archive) -> None:
        self.progress.say(f"{archive.name}: another process is fetching it; waiting")

    def _is_good(self, archive: Archive) -> bool:
        """Tell whether an archive is there and right; put a wrong one aside.

        Raises:
            FormatError: It is wrong, and only a person can fetch it.
        """
        target = self.folder / archive.name
        if not self.is_there(archive):
            return False
        if self._mark(archive) == _mark_of(archive, target):
            return True
        fault = _fault(archive, target)
        if fault is None:
            self._vouch(archive, target)
            return True
        if not archive.addresses or self.offline:
            msg = f"`{archive.name}` is not the published file: it {fault}"
            raise FormatError(msg, where=str(target), hint="fetch it again")
        aside = target.with_name(f"{archive.name}.refused")
        target.replace(aside)
        self.progress.say(f"{archive.name}: what was there {fault}; it is now `{aside.name}`")
        return False

    def _mark(self, archive: Archive) -> _Mark | None:
        try:
            return msgspec.json.decode(self._note(archive, "verified").read_bytes(), type=_Mark)
        except (OSError, msgspec.DecodeError):
            return None

    def _vouch(self, archive: Archive, target: Path) -> None:
        """Remember that an archive is good, and say how far that was checked."""
        mark = _mark_of(archive, target)
        with suppress(OSError):  # a shared folder may be read-only: then it is read each time
            self._note(archive, "verified").parent.mkdir(exist_ok=True)
            self._note(archive, "verified").write_bytes(msgspec.json.encode(mark))
        size = f"{archive.name}: {mark.bytes:,} bytes"
        if archive.checksum:
            kind = archive.checksum.partition(":")[0]
            self.progress.say(f"{size}, {kind} as published")
        else:
            found = _hash(target, "sha256")
            self.progress.say(
                f"{size}; could not be verified, for no checksum is published; sha256:{found}"
            )

    def _fetch(self, archive: Archive, addresses: Sequence[str]) -> None:
        """Fetch an archive from the first address that has it."""
        failures: list[DownloadError] = []
        for address in addresses:
            try:
                return self._fetch_from(address, archive)
            except DownloadError as error:
                failures.append(error)
                if address != addresses[-1]:
                    self.progress.say(f"{error.what}; trying another address")
        last = failures[-1]
        where = [place for error in failures for place in error.where]
        hint = "; ".join(filter(None, (last.hint, self._mirror_hint(archive))))
        raise DownloadError(last.what, where=where, hint=hint) from last

    def _mirror_hint(self, archive: Archive) -> str:
        if self.mirror is not None:
            return f"${MIRROR_VARIABLE} names this mirror"
        place = f"<address>/{self.source}/{archive.name}"
        return f"with ${MIRROR_VARIABLE}=<address> it is fetched from {place}"

    def _fetch_from(self, address: str, archive: Archive) -> None:
        """Fetch an archive from one address, and verify it before it gets its name.

        Raises:
            DownloadError: It did not come, or came and was wrong; then it was removed.
        """
        self.progress.say(
            f"{archive.name}: {archive.size_text}, {archive.licence}\n  from {address}"
        )
        part = self.folder / f"{archive.name}.part"
        transfer = Transfer(
            address,
            part,
            self._note(archive, "version"),
            archive.name,
            archive.bytes,
            archive.checksum is not None,
            self.progress,
            self.patience,
        )
        pieced = transfer.run()
        fault = _fault(archive, part)
        if fault and pieced:  # a power cut or another version may have spoilt an earlier piece
            self.progress.say(f"{archive.name}: {fault}; once more, from the start")
            transfer.discard()
            transfer.run()
            fault = _fault(archive, part)
        if fault:
            transfer.discard()
            msg = f"`{archive.name}` is not the published file and was removed: it {fault}"
            raise DownloadError(msg, where=address)
        self._keep(archive, part)
        transfer.discard()

    def _keep(self, archive: Archive, part: Path) -> None:
        """Give a verified file its name."""
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        target = self.folder / archive.name
        part.replace(target)
        self._vouch(archive, target)


def _mark_of(archive: Archive, path: Path) -> _Mark:
    status = path.stat()
    return _Mark(status.st_size, status.st_mtime_ns, archive.checksum)


def _fault(archive: Archive, path: Path) -> str | None:
    """Return what is wrong with a file, None if nothing that can be known.

    Where no checksum is published a file that is no whole archive is still found out, say the
    page of a portal that wants a login.
    """
    size = path.stat().st_size
    if archive.bytes is not None and size != archive.bytes:
        return f"has {size:,} bytes, expected {archive.bytes:,}"
    if archive.checksum is None:
        return None if _is_whole(path, archive.name) else "is not a whole archive"
    kind, _, expected = archive.checksum.partition(":")
    found = _hash(path, kind)
    return None if found == expected else f"has the {kind} {found}, expected {expected}"


def _hash(path: Path, kind: str) -> str:
    import pooch  # late: it imports requests

    return str(pooch.file_hash(str(path), kind))


def _is_whole(path: Path, name: str) -> bool:
    """Tell whether an archive is readable to its end."""
    if name.endswith(".zip"):
        return zipfile.is_zipfile(path)
    if not name.endswith((".tar", ".tgz", ".tar.gz")):
        return True
    try:
        if name.endswith("gz"):
            with gzip.open(path) as file:  # its end holds a checksum of all
                while file.read(_BLOCK):
                    pass
        return tarfile.is_tarfile(path)
    except (OSError, EOFError, tarfile.TarError):
        return False
