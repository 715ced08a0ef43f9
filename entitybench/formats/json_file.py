"""JSON files of others: read whole and typed; written piece by piece."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

import msgspec

from entitybench.errors import FormatError, MissingDataError

_T = TypeVar("_T")
_BYTE = re.compile(r"\(byte (\d+)\)")
_OBJECT = re.compile(rb"\s*\{")
_NOT_A_NUMBER = re.compile(
    rb"-?(NaN|Infinity)"
)  # what Python's json writes, and JSON does not know


def read_file(path: Path) -> bytes:
    """Return the bytes of a `.json`, or what a `.json.gz` unpacks to.

    Raises:
        MissingDataError: There is no such file.
        FormatError: The gzip is damaged.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        msg = f"no file `{path}`"
        raise MissingDataError(msg) from error
    if path.suffix != ".gz":
        return data
    try:
        return gzip.decompress(data)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        msg = f"not a readable gzip ({error})"
        raise FormatError(msg, where=str(path)) from error


def is_object(data: bytes) -> bool:
    """Tell whether JSON begins as an object, without decoding it."""
    return _OBJECT.match(data) is not None


def decode_json(data: bytes, kind: type[_T], place: str) -> _T:
    """Decode validated JSON.

    Raises:
        FormatError: Not JSON (tells the byte), or not of that kind (tells the path inside).
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        what, _, inside = str(error).partition(" - at ")
        msg = f"not what its format promises: {what[:1].lower()}{what[1:]}"
        raise FormatError(
            msg, where=f"{place}: {inside.strip('`')}" if inside else place
        ) from error
    except msgspec.DecodeError as error:
        raise _not_json(data, str(error), place) from error
    except (UnicodeDecodeError, RecursionError) as error:
        msg = f"not JSON: {error}"
        raise FormatError(msg, where=place) from error


def _not_json(data: bytes, reason: str, place: str) -> FormatError:
    byte = _BYTE.search(reason)
    if byte is None:
        return FormatError(f"not JSON: it ends in the middle, at byte {len(data):,}", where=place)
    position = int(byte[1])
    literal = _NOT_A_NUMBER.match(data, position) or _NOT_A_NUMBER.match(data, position - 1)
    if literal is None:
        what = reason.removeprefix("JSON is malformed: ")
        return FormatError(f"not JSON: {what}", where=place)
    try:
        inside = _first_not_finite(json.loads(data)) or ""
    except (ValueError, RecursionError):  # there is more that is not JSON
        inside = f"byte {position}"
    return FormatError(
        f"a number is {literal[0].decode()}, which is not JSON",
        where=f"{place}: {inside}",
        hint="a score is a number in [0, 1]",
    )


def _first_not_finite(value: Any, path: str = "$") -> str | None:
    """Return the path of the first NaN or infinity in decoded JSON."""
    if isinstance(value, float):
        return path if value - value != 0 else None
    inner: Iterable[tuple[str, Any]] = ()
    if isinstance(value, dict):
        inner = ((f"{path}.{key}", item) for key, item in value.items())
    elif isinstance(value, list):
        inner = ((f"{path}[{index}]", item) for index, item in enumerate(value))
    found = (_first_not_finite(item, place) for place, item in inner)
    return next(filter(None, found), None)


@contextmanager
def new_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that appears at its place whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            yield file
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_list(file: IO[bytes], items: Iterable[object]) -> None:
    """Write a JSON list as it comes, one item a line."""
    separator = b"[\n"
    for item in items:
        file.write(separator + msgspec.json.encode(item))
        separator = b",\n"
    file.write(b"[]" if separator == b"[\n" else b"\n]")


def write_object(file: IO[bytes], members: Iterable[tuple[str, Iterable[object] | object]]) -> None:
    """Write a JSON object member by member; an iterator is written as a list as it comes."""
    separator = b"{"
    for key, value in members:
        file.write(separator + msgspec.json.encode(key) + b": ")
        if isinstance(value, Iterator):
            write_list(file, value)
        else:
            file.write(msgspec.json.encode(value))
        separator = b",\n"
    file.write(b"}\n")
