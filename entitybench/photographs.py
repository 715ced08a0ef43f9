"""The photographs behind an entity set, wherever they lie on this machine."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path, PurePosixPath

from PIL import Image

from entitybench.errors import FormatError, MissingDataError

MEMBER = "!/"


def read_photograph(location: str, file_name: str) -> Image.Image:
    """Read one photograph as RGB, as it is stored: no EXIF rotation.

    Args:
        location: A folder, or `archive.zip!/prefix`.
        file_name: A relative name below it.

    Raises:
        MissingDataError: It is not there.
        FormatError: The name leaves the location, or the file is not an image.
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
    except (OSError, SyntaxError, ValueError) as error:
        msg = f"photograph `{file_name}` cannot be read ({error})"
        raise FormatError(msg, where=location) from error


def _read(location: str, relative: PurePosixPath) -> bytes:
    archive, inside, prefix = location.partition(MEMBER)
    if not inside:
        return (Path(location) / relative).read_bytes()
    with zipfile.ZipFile(archive) as file:
        return file.read(str(PurePosixPath(prefix) / relative))
