"""Files that torch saved, opened without running anything in them.

A `.pth` is a pickle, and a pickle may call any function. torch's own restricted reader takes
tensors, numbers, texts, lists and dicts, and refuses all else; torch is imported only here and
only when such a file is opened.
"""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from entitybench.errors import FormatError, MissingDataError

TORCH_SUFFIXES = (".pth", ".pt")
_GLOBAL = re.compile(r"GLOBAL ([\w.]+\.\w+)")  # how torch names what it would not load
_DAMAGE = (RuntimeError, EOFError, ValueError, KeyError, AttributeError, TypeError, IndexError)


def load_torch(path: Path) -> Any:
    """Read a `.pth` or `.pt`: tensors, numbers, texts, lists, tuples and dicts of them.

    Tensors of a file in torch's zip form stay on the disk until they are used.

    Raises:
        MissingDataError: There is no such file, or torch is not installed.
        FormatError: The file holds other objects or code (which did not run), or is damaged.
    """
    try:
        import torch
    except ImportError as error:
        msg = f"`{path}` needs torch to be read, which is not installed"
        hint = '`pip install "entitybench[models]"`, or save the arrays as `.npz`'
        raise MissingDataError(msg, hint=hint) from error
    if not path.is_file():
        msg = f"no file `{path}`"
        raise MissingDataError(msg)
    try:
        in_place = zipfile.is_zipfile(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's doubts about a pickle that it then refuses
            return torch.load(path, map_location="cpu", weights_only=True, mmap=in_place)
    except pickle.UnpicklingError as error:
        raise _refused(path, str(error)) from error
    except (*_DAMAGE, OSError) as error:
        msg = f"not a readable {path.suffix} file ({_first_line(error)})"
        raise FormatError(msg, where=str(path)) from error


def _refused(path: Path, reason: str) -> FormatError:
    found = _GLOBAL.search(reason)
    if found is None:
        return FormatError(f"not a readable {path.suffix} file of plain values", where=str(path))
    return FormatError(
        f"the file holds `{found[1]}`, which may run code; it was not loaded",
        where=str(path),
        hint="save tensors, numbers, texts, lists and dicts alone, with `tensor.cpu()` instead "
        "of a tool's own objects and `torch.from_numpy` instead of arrays; or save `.npz`",
    )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def plain(value: Any) -> Any:
    """Return a value with NumPy arrays for tensors, and numbers for tensors of no dimension.

    Lists, tuples and dicts are walked; a bfloat16 tensor, which NumPy does not know, becomes
    float32.
    """
    if hasattr(value, "detach"):
        tensor = value.detach()
        tensor = tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor
        return tensor.item() if tensor.ndim == 0 else tensor.numpy()
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(plain(inner) for inner in value)
    return value


def as_array(value: object, name: str) -> NDArray[Any]:
    """Return an array as it is.

    Raises:
        FormatError: It is none.
    """
    if not isinstance(value, np.ndarray):
        msg = f"`{name}` is {type(value).__name__}, expected an array or a tensor"
        raise FormatError(msg)
    return value
