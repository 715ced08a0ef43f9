"""One file over HTTP: it goes on where it broke off, and two versions are never glued together.

What came so far lies in a part file. Beside it a note tells which version the bytes are of: the
address, the server's `ETag` or `Last-Modified`, and the size. They are asked for with `Range`
and `If-Range`, so that a server which has another version by now sends that one whole.
"""

from __future__ import annotations

import errno
import re
import shutil
import ssl
import time
import urllib.request
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException, HTTPMessage, HTTPResponse
from pathlib import Path
from typing import IO, Protocol
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

import msgspec

from entitybench import __version__
from entitybench.errors import EntityBenchError, MissingDataError

MOST_AT_ONCE = 1 << 20  # bytes
LONGEST_PAUSE = 60.0  # seconds

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_PASSING = {408, 425, 429, 500, 502, 503, 504}
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


class DownloadError(MissingDataError):
    """A file could not be fetched."""


class NoRoomError(EntityBenchError):
    """The disk cannot take the file; what came so far is kept."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for a server, and how often to ask again.

    Attributes:
        timeout: Seconds of silence after which a connection is given up.
        tries: Attempts in a row that bring nothing new.
        pause: Seconds before the second attempt; doubled each time, up to a minute.
    """

    timeout: float = 60.0
    tries: int = 6
    pause: float = 1.0

    def wait(self, failures: int) -> float:
        """Return how many seconds to wait after so many failures.

        >>> [Patience().wait(n) for n in (1, 2, 3, 20)]
        [1.0, 2.0, 4.0, 60.0]
        """
        return min(self.pause * 2.0 ** (failures - 1), LONGEST_PAUSE)


class Progress(Protocol):
    """Shows how a download goes."""

    def at(self, name: str, done: int, total: int | None) -> None:
        """Learn that `done` bytes of a file are here; fewer than before if it began again."""

    def say(self, text: str) -> None:
        """Tell a person something."""


class Silence:
    """A progress that shows nothing."""

    def at(self, name: str, done: int, total: int | None) -> None:
        """Ignore it."""

    def say(self, text: str) -> None:
        """Ignore it."""


class _PassingError(Exception):
    """A failure that may be gone the next time, and the seconds that the server asks for."""

    def __init__(self, what: str, wait: float = 0.0) -> None:
        super().__init__(what)
        self.wait = wait


class _Version(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which version of a file some bytes are of."""

    address: str
    etag: str | None = None
    modified: str | None = None
    size: int | None = None

    @property
    def validator(self) -> str | None:
        """What `If-Range` may hold: a weak ETag is not for parts (RFC 9110, 13.1.5)."""
        strong = self.etag is not None and not self.etag.startswith("W/")
        return self.etag if strong else self.modified


@dataclass(frozen=True, slots=True)
class Transfer:
    """One file to fetch from one address.

    Attributes:
        address: `http://…` or `https://…`.
        part: Where the bytes go.
        note: Where their version is noted.
        name: What progress calls it.
        size: The bytes that it must have, where known.
        checked: The caller compares a checksum afterwards, so that bytes may be kept even where
            the server does not say of which version they are.
        progress: Shows how it goes.
        patience: How long to wait.
    """

    address: str
    part: Path
    note: Path
    name: str
    size: int | None
    checked: bool
    progress: Progress
    patience: Patience

    def run(self) -> bool:
        """Fetch the file into the part file.

        Returns:
            Whether it was put together from pieces.

        Raises:
            DownloadError: The address has no such file, or failed too often.
            NoRoomError: The disk is full.
        """
        best, failures = -1, 0
        while True:
            try:
                return self._attempt()
            except _PassingError as error:
                here = self._so_far()
                failures = 1 if here > best else failures + 1
                best = max(best, here)
                if failures >= self.patience.tries:
                    msg = f"`{self.name}` could not be fetched: {error}"
                    hint = f"the same command goes on from {here:,} bytes" if here else ""
                    raise DownloadError(msg, where=self.address, hint=hint) from error
                wait = max(self.patience.wait(failures), min(error.wait, LONGEST_PAUSE))
                self.progress.say(f"{self.name}: {error}; trying again in {wait:g} s")
                time.sleep(wait)

    def discard(self) -> None:
        """Remove what came so far."""
        self.part.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)

    def _attempt(self) -> bool:
        """Ask once for what is missing; tell whether earlier bytes were kept."""
        version = self._version()
        have = self._reusable(version)
        if have and have == (self.size or (version and version.size)):
            return True
        with self._open(have, version) as response:
            start, total = self._begin(response, have, version)
            self._check_room(start, total)
            self._receive(response, start, total)
        return start > 0

    def _so_far(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _version(self) -> _Version | None:
        try:
            return msgspec.json.decode(self.note.read_bytes(), type=_Version)
        except (FileNotFoundError, msgspec.DecodeError):
            return None

    def _reusable(self, version: _Version | None) -> int:
        """Return how many bytes may be kept; remove them if none may."""
        have = self._so_far()
        known = version is not None and version.address == self.address and version.validator
        if (known or self.checked) and (self.size is None or have <= self.size):
            return have
        self.discard()
        return 0

    def _open(self, have: int, version: _Version | None) -> HTTPResponse:
        headers = {"User-Agent": f"entitybench/{__version__}", "Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
            if version and version.address == self.address and version.validator:
                headers["If-Range"] = version.validator
        request = urllib.request.Request(self.address, headers=headers)
        opener = urllib.request.build_opener(_Redirects)
        try:
            response: HTTPResponse = opener.open(request, timeout=self.patience.timeout)
        except HTTPError as error:
            with error:
                raise self._refusal(error) from error
        except (OSError, HTTPException) as error:
            raise self._no_answer(error) from error
        return response

    def _refusal(self, error: HTTPError) -> Exception:
        """Return what an HTTP error means."""
        if error.code in _PASSING:
            seconds = error.headers.get("Retry-After", "")
            what = f"the server answered {error.code} {error.reason}"
            return _PassingError(what, float(seconds) if seconds.isdecimal() else 0.0)
        if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            self.discard()
            return _PassingError("the file on the server is shorter by now")
        gone = error.code in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE)
        what = "is not there" if gone else "was refused"
        msg = f"`{self.name}` {what}: the server answered {error.code} {error.reason}"
        return DownloadError(msg, where=self.address)

    def _no_answer(self, error: Exception) -> Exception:
        reason = error.reason if isinstance(error, URLError) else error
        if isinstance(reason, ssl.SSLCertVerificationError):
            msg = f"`{self.name}` was not fetched: the server's certificate is not valid"
            return DownloadError(f"{msg} ({reason.verify_message})", where=self.address)
        if isinstance(reason, TimeoutError):
            return _PassingError(f"nothing came for {self.patience.timeout:g} s")
        return _PassingError(f"the connection failed ({reason or type(error).__name__})")

    def _begin(
        self, response: HTTPResponse, have: int, version: _Version | None
    ) -> tuple[int, int | None]:
        """Return where the answer's bytes begin, and the whole file's size if it is known."""
        if response.status == HTTPStatus.PARTIAL_CONTENT:
            return have, self._continued(response, have, version)
        if response.status != HTTPStatus.OK:
            msg = f"`{self.name}` did not come: the server answered {response.status}"
            raise DownloadError(msg, where=self.address)
        length = response.headers.get("Content-Length", "")
        total = int(length) if length.isdecimal() else None
        self._check_total(total)
        if have:
            self.progress.say(f"{self.name}: the server sends it from the start")
        self.part.write_bytes(b"")  # first: the note must never be of older bytes
        now = _version_of(self.address, response.headers, total)
        self.note.write_bytes(msgspec.json.encode(now))
        return 0, self.size or total

    def _continued(self, response: HTTPResponse, have: int, version: _Version | None) -> int | None:
        """Check that a part is the one that was asked for; return the whole file's size."""
        found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        total = int(found[2]) if found and found[2] != "*" else None
        now = _version_of(self.address, response.headers, total)
        if not have or not found or int(found[1]) != have or _differ(version, now):
            self.discard()
            msg = "the server sent another part than the one asked for, or of another version"
            raise _PassingError(msg)
        self._check_total(total)
        return self.size or total

    def _check_total(self, total: int | None) -> None:
        if self.size and total is not None and total != self.size:
            msg = f"`{self.name}` has {total:,} bytes there, expected {self.size:,}"
            raise DownloadError(msg, where=self.address)

    def _check_room(self, start: int, total: int | None) -> None:
        disk = shutil.disk_usage(self.part.parent)
        missing = (total or 0) - start
        if disk.total and missing > disk.free:  # some network mounts say 0 of 0
            what = f"{missing:,} bytes to come, {disk.free:,} free"
            raise self._no_room(what)

    def _no_room(self, what: str) -> NoRoomError:
        msg = f"no room for `{self.name}`: {what}"
        hint = "the same command goes on from there once there is room"
        return NoRoomError(msg, where=f"{self.part}: {self._so_far():,} bytes so far", hint=hint)

    def _receive(self, response: HTTPResponse, start: int, total: int | None) -> None:
        """Append what comes to the part file, until the server has sent it all."""
        at = start
        with self.part.open("ab", buffering=0) as file:
            self.progress.at(self.name, at, total)
            while chunk := self._read(response):
                at += len(chunk)
                if self.size and at > self.size:
                    self.discard()
                    msg = f"`{self.name}` is longer than {self.size:,} bytes there"
                    raise DownloadError(msg, where=self.address)
                self._write(file, chunk)
                self.progress.at(self.name, at, total)
        if total is not None and at < total:
            msg = f"the connection was closed at {at:,} of {total:,} bytes"
            raise _PassingError(msg)

    def _read(self, response: HTTPResponse) -> bytes:
        # read1: what has come is kept, even if the rest of a full buffer never comes
        try:
            return response.read1(MOST_AT_ONCE)
        except (OSError, HTTPException) as error:
            raise self._no_answer(error) from error

    def _write(self, file: IO[bytes], chunk: bytes) -> None:
        rest = memoryview(chunk)
        try:
            while rest:
                rest = rest[file.write(rest) :]
        except OSError as error:
            if error.errno in _NO_ROOM:
                raise self._no_room(error.strerror or str(error)) from error
            raise


def _version_of(address: str, headers: HTTPMessage, total: int | None) -> _Version:
    return _Version(address, headers.get("ETag"), headers.get("Last-Modified"), total)


def _differ(before: _Version | None, now: _Version) -> bool:
    """Tell whether two versions are known to differ; hosts have ETags of their own."""
    if before is None:
        return False
    pairs: list[tuple[object, object]] = [(before.size, now.size)]
    if before.address == now.address:
        pairs += [(before.etag, now.etag), (before.modified, now.modified)]
    return any(a is not None and b is not None and a != b for a, b in pairs)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirect unless it leaves a secure connection, or the web."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        if req.type == "https" and urlsplit(newurl).scheme != "https":
            fp.close()
            what = "a redirect from https to http was refused"
            raise DownloadError(what, where=f"{req.full_url} → {newurl}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)
