"""NumPy arrays in `.npy` and `.npz` files, read a few rows at a time and never unpickled.

A header may promise any number of bytes; nothing is allocated for more than what is asked for,
and the promise is held against the size of the file first.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from entitybench.errors import EntityBenchError, FormatError


@dataclass(frozen=True, slots=True)
class NpyStream:
    """An array of which the header has been read.

    Attributes:
        shape: The array's shape.
        dtype: Its type; never of objects.
        fortran: Whether the first axis changes fastest.
        file: What remains to be read.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool
    file: IO[bytes]

    def read(self, rows: int) -> NDArray[Any]:
        """Return the next rows along the first axis: `(rows, …)`.

        Raises:
            FormatError: The array is stored in Fortran order, so that rows are not together.
            EOFError: There are fewer.
        """
        if self.fortran:
            msg = "the array is stored in Fortran order"
            raise FormatError(msg, hint="save `np.ascontiguousarray(array)`")
        return self._take((rows, *self.shape[1:]))

    def read_all(self) -> NDArray[Any]:
        """Return the whole array.

        Raises:
            EOFError: There is less.
        """
        return self._take(self.shape[::-1]).T if self.fortran else self._take(self.shape)

    def _take(self, shape: tuple[int, ...]) -> NDArray[Any]:
        size = math.prod(shape) * self.dtype.itemsize
        data = self.file.read(size)
        if len(data) < size:
            msg = "the array ends early"
            raise EOFError(msg)
        return np.frombuffer(data, dtype=self.dtype).reshape(shape)


def open_npy(file: IO[bytes], size: int) -> NpyStream:
    """Read the header of an `.npy` file.

    Args:
        file: The file at its beginning.
        size: Its size in bytes.

    Raises:
        FormatError: Objects, or another size than the header promises.
        ValueError: Not an `.npy` file.
    """
    version = npy.read_magic(file)
    if version == (1, 0):
        shape, fortran, dtype = npy.read_array_header_1_0(file)
    else:  # 2.0; it raises ValueError for what it does not know
        shape, fortran, dtype = npy.read_array_header_2_0(file)
    if dtype.hasobject:
        msg = "the array holds Python objects, which are never unpickled"
        raise FormatError(msg)
    promised = file.tell() + math.prod(shape) * dtype.itemsize
    if promised != size:
        msg = f"the array's header promises {promised:,} bytes, the file has {size:,}"
        raise FormatError(msg)
    return NpyStream(tuple(shape), dtype, fortran and len(shape) > 1, file)


@contextmanager
def open_arrays(path: Path) -> Iterator[dict[str, NpyStream]]:
    """Open the arrays of an `.npz` by their names, or that of an `.npy` under the name ``.

    Raises:
        FormatError: As in `open_npy`; or not a file of that kind, or damaged. Also what is
            raised inside the block gets the path.
    """
    with ExitStack() as stack, _naming(path):
        if path.suffix == ".npy":
            file = stack.enter_context(path.open("rb"))
            yield {"": open_npy(file, path.stat().st_size)}
        else:
            archive = stack.enter_context(zipfile.ZipFile(path))
            yield {
                info.filename.removesuffix(".npy"): open_npy(
                    stack.enter_context(archive.open(info)), info.file_size
                )
                for info in archive.infolist()
                if info.filename.endswith(".npy")
            }


def array_names(path: Path) -> frozenset[str]:
    """Return the names of the arrays of an `.npz`, or the name `` of an `.npy`.

    Raises:
        FormatError: Not a file of that kind.
    """
    if path.suffix == ".npy":
        return frozenset({""})
    with _naming(path), zipfile.ZipFile(path) as archive:
        return frozenset(name.removesuffix(".npy") for name in archive.namelist())


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Tell in which file something went wrong."""
    damage = (ValueError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError)
    try:
        yield
    except EntityBenchError as error:
        raise error.at(str(path)) from error
    except damage as error:  # a RuntimeError is zipfile's for encrypted or strange members
        msg = f"not a readable {path.suffix} file ({error})"
        raise FormatError(msg, where=str(path)) from error
