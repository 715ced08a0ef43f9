"""The photographs behind an entity set, wherever they lie on this machine."""

from __future__ import annotations

import io
from pathlib import Path, PurePosixPath

from PIL import Image

from entitybench.archives import MEMBER, ArchivePlace, open_archive
from entitybench.errors import FormatError, MissingDataError

_MOST_BYTES = 1 << 30  # of one photograph


def read_photograph(location: str, file_name: str) -> Image.Image:
    """Read one photograph as RGB, as it is stored: no EXIF rotation.

    Args:
        location: A folder, or `archive.zip!/prefix`; a tar, a tgz, or an archive inside one
            (`outer.zip!/inner.tar!/prefix`) will do. An archive stays open for the next call.
        file_name: A relative name below it.

    Raises:
        MissingDataError: It is not there.
        FormatError: The name leaves the location, the file is not an image, or its archive is
            damaged.
    """
    relative = PurePosixPath(file_name)
    if relative.is_absolute() or ".." in relative.parts or "\\" in file_name:
        msg = f"photograph {file_name!r} is not a plain name below its folder"
        raise FormatError(msg)
    try:
        with Image.open(io.BytesIO(_read(location, relative))) as image:
            return image.convert("RGB")
    except (FileNotFoundError, KeyError) as error:
        msg = f"no photograph `{file_name}`"
        raise MissingDataError(msg, where=location) from error
    except NotADirectoryError as error:
        msg = f"`{location}` is not a folder"
        raise FormatError(msg, hint="`archive.zip!/prefix` is a folder in an archive") from error
    except (OSError, SyntaxError, ValueError) as error:
        msg = f"photograph `{file_name}` cannot be read ({error})"
        raise FormatError(msg, where=location) from error


def _read(location: str, relative: PurePosixPath) -> bytes:
    outer, *inside = location.split(MEMBER)
    if not inside:
        return (Path(location) / relative).read_bytes()
    *nests, prefix = inside
    place = ArchivePlace.of_file(Path(outer))
    for nest in nests:
        place = place.member(nest)
    return open_archive(place).read(str(PurePosixPath(prefix) / relative), _MOST_BYTES)
