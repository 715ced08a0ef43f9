"""What a model put out for each image, as people save it: names and arrays.

* a folder with one `<image id>.npz`, `.pth` or `.pt` per image, or one such file;
* one `.pth` with a dict from image id to output, or a list of outputs with their `image_id`;
  it may lie alone in a folder.

A text array in an `.npz` is JSON: that is how a table goes into a file without a pickle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from entitybench.errors import FormatError
from entitybench.formats.image_ids import ImageIds
from entitybench.formats.json_file import decode_json
from entitybench.formats.npy_stream import array_names, open_arrays
from entitybench.formats.torch_file import TORCH_SUFFIXES, load_torch, plain

OUTPUT_SUFFIXES = (".npz", *TORCH_SUFFIXES)
_NAMES = frozenset(
    {
        "panoptic_seg",
        "segmentation",
        "logits",
        "pred_logits",
        "class_queries_logits",
        "pred_masks",
        "masks_queries_logits",
        "masks",
    }
)


class SavedOutput(Protocol):
    """One image's output; small and picklable where it lies in a file of its own."""

    @property
    def place(self) -> str:
        """Where it is, for messages."""

    @property
    def names(self) -> frozenset[str]:
        """What it holds."""

    def shape(self, name: str) -> tuple[int, ...]:
        """Return an array's shape without reading it; of what is no array, nothing."""

    def load(self, *names: str) -> dict[str, Any]:
        """Return the named values that are there: arrays, numbers, and decoded JSON."""


@dataclass(frozen=True, slots=True)
class NpzOutput:
    """An output in an `.npz`."""

    path: Path

    @property
    def place(self) -> str:
        """The file."""
        return str(self.path)

    @property
    def names(self) -> frozenset[str]:
        """The names of its arrays."""
        return array_names(self.path)

    def shape(self, name: str) -> tuple[int, ...]:
        """Read an array's header."""
        with open_arrays(self.path) as arrays:
            return arrays[name].shape

    def load(self, *names: str) -> dict[str, Any]:
        """Read the named arrays that are there."""
        with open_arrays(self.path) as arrays:
            values = {name: arrays[name].read_all() for name in names if name in arrays}
            return {name: _of_text(value, name) for name, value in values.items()}


def _of_text(value: Any, name: str) -> Any:
    if value.dtype.kind not in "US":
        return value
    text = value.reshape(-1)[0] if value.size == 1 else ""
    data = text if isinstance(text, bytes) else str(text).encode("utf-8")
    return decode_json(data, object, name)


@dataclass(frozen=True, slots=True)
class TorchOutput:
    """An output in a `.pth` of its own."""

    path: Path

    @property
    def place(self) -> str:
        """The file."""
        return str(self.path)

    @property
    def names(self) -> frozenset[str]:
        """The keys of its dict."""
        return frozenset(self._values())

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape."""
        return _shape(self._values()[name])

    def load(self, *names: str) -> dict[str, Any]:
        """Read the named values that are there."""
        values = self._values()
        return {name: plain(values[name]) for name in names if name in values}

    def _values(self) -> dict[str, Any]:
        return named_values(load_torch(self.path), self.place)


@dataclass(frozen=True, slots=True)
class HeldOutput:
    """One image's part of a file that holds many.

    Attributes:
        place: The file and the image.
        values: Its values; tensors become arrays when they are loaded or sent to a worker.
    """

    place: str
    values: Mapping[str, Any]

    def __reduce__(self) -> tuple[type[HeldOutput], tuple[str, Any]]:
        return type(self), (self.place, plain(self.values))

    @property
    def names(self) -> frozenset[str]:
        """What it holds."""
        return frozenset(self.values)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape."""
        return _shape(self.values[name])

    def load(self, *names: str) -> dict[str, Any]:
        """Return the named values that are there."""
        return {name: plain(self.values[name]) for name in names if name in self.values}


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(getattr(value, "shape", ()))


def named_values(output: Any, place: str) -> dict[str, Any]:
    """Return an output as a dict; detectron2's pair (map, segments) gets its names.

    Raises:
        FormatError: It is neither.
    """
    if isinstance(output, list | tuple) and len(output) == 2:
        output = {"panoptic_seg": tuple(output)}
    if not isinstance(output, Mapping):
        msg = f"an output is a dict or detectron2's pair, this is {type(output).__name__}"
        raise FormatError(msg, where=place)
    values = {str(name): value for name, value in output.items()}
    pair = values.get("panoptic_seg")
    if isinstance(pair, list | tuple) and len(pair) == 2:
        values["panoptic_seg"], values["segments_info"] = pair
    return values


def open_outputs(path: Path, ids: ImageIds) -> dict[str, SavedOutput]:
    """Find the output of each image.

    Args:
        path: A folder or a file, as the module says.
        ids: Finds the ground truth's image ids.

    Returns:
        Outputs by the ground truth's image ids.

    Raises:
        FormatError: Images that the ground truth does not know, or two outputs for one image;
            or a file that `load_torch` refuses.
    """
    files = output_files(path)
    single = files[0] if len(files) == 1 and files[0].suffix in TORCH_SUFFIXES else None
    held = None if single is None else held_outputs(single)
    named = [(file.stem, _of_file(file)) for file in files] if held is None else held
    return ids.match(named, str(path), where=lambda output: output.place)


def output_files(path: Path) -> list[Path]:
    """Return the files of outputs at a path, in order of their names."""
    files = path.iterdir() if path.is_dir() else [path]
    return sorted(file for file in files if file.suffix in OUTPUT_SUFFIXES and file.is_file())


def held_outputs(path: Path) -> list[tuple[Any, SavedOutput]] | None:
    """Return the outputs in a `.pth` that holds many, with their image ids.

    Returns:
        None if the file is one image's output.

    Raises:
        FormatError: It is neither that, nor a dict, nor a list of dicts with `image_id`.
    """
    content = load_torch(path)
    if _is_one_output(content):
        return None
    if isinstance(content, Mapping):
        pairs = list(content.items())
    elif isinstance(content, Sequence) and all(_has_id(item) for item in content):
        pairs = [(item["image_id"], item) for item in content]
    else:
        msg = "not a dict from image id to output, nor a list of outputs with their `image_id`"
        raise FormatError(msg, where=str(path))
    places = [f"{path}: image {image_id}" for image_id, _ in pairs]
    return [
        (plain(image_id), HeldOutput(place, named_values(output, place)))
        for (image_id, output), place in zip(pairs, places, strict=True)
    ]


def _is_one_output(content: Any) -> bool:
    pair = isinstance(content, tuple) and len(content) == 2 and not isinstance(content[0], Mapping)
    return pair or (isinstance(content, Mapping) and bool(_NAMES & set(content)))


def _has_id(item: Any) -> bool:
    return isinstance(item, Mapping) and "image_id" in item


def _of_file(file: Path) -> SavedOutput:
    return NpzOutput(file) if file.suffix == ".npz" else TorchOutput(file)
