"""Recognising what somebody's predictions are, and opening them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec

from entitybench.entity_set import HEADER, UNFINISHED, is_entity_set, open_path
from entitybench.errors import FormatError, MissingDataError
from entitybench.formats.coco_panoptic import CocoPanoptic
from entitybench.formats.coco_results import CocoResults
from entitybench.formats.detectron2_panoptic import Detectron2Panoptic
from entitybench.formats.duplicates import KEEP, DuplicateRule, Duplicates, WithoutDuplicates
from entitybench.formats.entity_set_predictions import EntitySetPredictions
from entitybench.formats.image_ids import ImageIds
from entitybench.formats.json_file import decode_json, is_object, read_file
from entitybench.formats.labelled_results import open_coco, open_detectron2
from entitybench.formats.mask_stack import SUFFIXES, MaskStacks, stack_files
from entitybench.formats.missing_score import MissingScore
from entitybench.formats.npy_stream import array_names
from entitybench.formats.paper_npz import ARRAYS, PaperNpz
from entitybench.formats.predictions import Predictions
from entitybench.formats.query_outputs import QueryOutputs, QueryRules, has_queries
from entitybench.formats.sam import SamMasks, SamScore, is_sam, json_files, mask_folders, stem
from entitybench.formats.saved_outputs import held_outputs, named_values
from entitybench.formats.torch_file import TORCH_SUFFIXES, load_torch
from entitybench.formats.transformers_results import open_results

_LOOKED_FOR = (
    "an entity set (`entity_set.json` in a folder or zip), COCO results JSON (a list of "
    "`image_id`, `segmentation`, `score`), COCO panoptic JSON (`annotations` with "
    "`segments_info`, PNGs in a folder), mask stacks (`<image id>.npz` or `.npy`), SAM's JSON or "
    "folders of PNGs, the paper's npz, or outputs of detectron2, transformers or a query-based "
    "model (`.npz` or `.pth`); docs/your-model.md shows each"
)


class Format(StrEnum):
    """The formats of predictions that are read."""

    ENTITY_SET = "entity-set"
    COCO_RESULTS = "coco-results"
    COCO_PANOPTIC = "coco-panoptic"
    MASK_STACKS = "mask-stacks"
    DETECTRON2_PANOPTIC = "detectron2-panoptic"
    DETECTRON2_INSTANCES = "detectron2-instances"
    TRANSFORMERS = "transformers"
    QUERY_OUTPUTS = "query-outputs"
    SAM = "sam"
    PAPER_NPZ = "paper-npz"


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """Choices that some formats leave open.

    Attributes:
        missing_score: What stands in for scores that are missing.
        duplicates: How masks that say one entity twice are removed; not for flat formats.
        queries: How candidates are made from raw query outputs.
        sam_score: Which of SAM's numbers is the score.
    """

    missing_score: MissingScore = MissingScore.ERROR
    duplicates: Duplicates = KEEP
    queries: QueryRules = field(default_factory=QueryRules)
    sam_score: SamScore = SamScore.PREDICTED_IOU


@dataclass(frozen=True, slots=True)
class Recognised:
    """What lies at a path.

    Attributes:
        format: Its format.
        path: The file or folder that the format's reader takes.
        data: The file's content, where it had to be read.
    """

    format: Format
    path: Path
    data: bytes | None = None


def open_predictions(
    path: Path,
    *,
    image_ids: Collection[str],
    missing_score: MissingScore = MissingScore.ERROR,
    format: Format | None = None,
    options: ReadOptions | None = None,
) -> Predictions:
    """Open predictions of any known format; the result's `description` says of which.

    Args:
        path: A file or folder.
        image_ids: The ground truth's image ids, which the predictions' are matched with.
        missing_score: What stands in for scores that are missing, unless `options` says it.
        format: The format; recognised unless given.
        options: Choices that some formats leave open.

    Raises:
        MissingDataError: Nothing is there, or a part of it is missing.
        FormatError: Not recognised, or recognised as several formats; or what the reader of
            its format refuses.
    """
    if not path.exists():
        msg = f"no predictions at `{path}`"
        raise MissingDataError(msg)
    chosen = options or ReadOptions(missing_score)
    found = recognise(path, image_ids) if format is None else _as_told(path, format)
    reader = _READERS[found.format](found, image_ids, chosen)
    if chosen.duplicates.rule is DuplicateRule.KEEP or reader.num_classes is not None:
        return reader
    return WithoutDuplicates(reader, chosen.duplicates)


def recognise(path: Path, image_ids: Collection[str]) -> Recognised:
    """Tell the format of what lies at a path.

    Raises:
        FormatError: Not recognised, or several things that may be the predictions.
    """
    if path.is_dir():
        return _in_folder(path, image_ids)
    if path.suffix in (*SUFFIXES, *TORCH_SUFFIXES):
        return Recognised(_of_arrays(path), path)
    if _is_json(path):
        return _of_json(path)
    if path.suffix == ".zip":
        return Recognised(Format.ENTITY_SET, path)
    msg = f"`{path}` is not a known format of predictions"
    hint = f"looked for {_LOOKED_FOR}"
    if path.suffix in (".pkl", ".pickle"):
        hint = f"a pickle may run code and is never opened; {hint}"
    raise FormatError(msg, hint=hint)


def _in_folder(path: Path, image_ids: Collection[str]) -> Recognised:
    if (path / HEADER).exists() or (path / UNFINISHED).exists():
        return Recognised(Format.ENTITY_SET, path)
    tables, stacks, outputs = json_files(path), stack_files(path), _torch_files(path)
    folders = mask_folders(path)
    if len(tables) > 1 and not (stacks or outputs or folders) and _all_sam(tables, image_ids):
        return Recognised(Format.SAM, path)
    if len(tables) + bool(stacks) + bool(outputs) + bool(folders) > 1:
        found = [str(file) for file in tables]
        found += [f"{len(stacks):,} mask stacks"] * bool(stacks)
        found += [f"{len(outputs):,} .pth files"] * bool(outputs)
        found += [f"{len(folders):,} folders of SAM's masks"] * bool(folders)
        msg = f"`{path}` holds more than one thing that may be the predictions"
        raise FormatError(msg, where=found, hint="name the file itself")
    if folders:
        return Recognised(Format.SAM, path)
    if tables:
        return _of_json(tables[0])
    if stacks or outputs:
        files = stacks or outputs
        return Recognised(_of_arrays(files[0]), files[0] if len(outputs) == 1 else path)
    msg = f"the folder `{path}` holds no known format of predictions"
    raise FormatError(msg, hint=f"looked for {_LOOKED_FOR}")


def _all_sam(tables: list[Path], image_ids: Collection[str]) -> bool:
    ids = ImageIds(image_ids)
    return all(ids.find(stem(file)) for file in tables) and is_sam(read_file(tables[0]))


def _torch_files(path: Path) -> list[Path]:
    return sorted(f for f in path.iterdir() if f.suffix in TORCH_SUFFIXES and f.is_file())


def _is_json(path: Path) -> bool:
    return path.name.endswith((".json", ".json.gz"))


# --- arrays ------------------------------------------------------------------


def _of_arrays(file: Path) -> Format:
    """Tell the format of an `.npz`, `.npy` or `.pth` by the names in it."""
    if file.suffix in SUFFIXES:
        return _of_names(array_names(file)) or Format.MASK_STACKS
    content = load_torch(file)
    if isinstance(content, list) and all(_has_instances(item) for item in content):
        return Format.DETECTRON2_INSTANCES
    held = held_outputs(file)
    if held is None:
        names = frozenset(named_values(content, str(file)))
    else:
        names = held[0][1].names if held else frozenset[str]()
    found = _of_names(names)
    if found is None:
        msg = f"`{file}` holds no output that is known"
        there = ", ".join(f"`{name}`" for name in sorted(names)) or "nothing"
        raise FormatError(msg, where=f"it holds {there}", hint=f"looked for {_LOOKED_FOR}")
    return found


def _has_instances(item: Any) -> bool:
    return isinstance(item, dict) and "instances" in item


def _of_names(names: frozenset[str]) -> Format | None:
    if "panoptic_seg" in names:
        return Format.DETECTRON2_PANOPTIC
    if "segmentation" in names:
        return Format.TRANSFORMERS
    if set(ARRAYS) <= names:
        return Format.PAPER_NPZ
    if has_queries(names) and "scores" not in names:
        return Format.QUERY_OUTPUTS
    return None


# --- JSON --------------------------------------------------------------------


class _Keys(msgspec.Struct, gc=False):
    """Which of the telling keys an annotation has."""

    segments_info: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    segmentation: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Annotations(msgspec.Struct):
    annotations: list[_Keys] | msgspec.UnsetType = msgspec.UNSET


def _of_json(path: Path) -> Recognised:
    data = read_file(path)
    if is_sam(data):
        return Recognised(Format.SAM, path)
    if is_object(data) and _is_panoptic(data, path):
        return Recognised(Format.COCO_PANOPTIC, path, data)
    return Recognised(Format.COCO_RESULTS, path, data)


def _is_panoptic(data: bytes, path: Path) -> bool:
    annotations = decode_json(data, _Annotations, str(path)).annotations
    if isinstance(annotations, msgspec.UnsetType):
        msg = "the JSON object has no `annotations`"
        raise FormatError(msg, where=str(path), hint=f"looked for {_LOOKED_FOR}")
    segments = sum(a.segments_info is not msgspec.UNSET for a in annotations)
    masks = sum(a.segmentation is not msgspec.UNSET for a in annotations)
    if (segments or masks or not annotations) and not (segments and masks):
        return segments > 0
    msg = "`annotations` have neither `segmentation` nor `segments_info`, or some of both"
    raise FormatError(msg, where=str(path), hint=f"looked for {_LOOKED_FOR}")


# --- readers -----------------------------------------------------------------

_ONE_FILE = {
    Format.COCO_RESULTS: json_files,
    Format.COCO_PANOPTIC: json_files,
    Format.DETECTRON2_INSTANCES: _torch_files,
}


def _as_told(path: Path, format: Format) -> Recognised:
    """Take the user's word; a format of one file is found in its folder."""
    if path.is_dir() and format in _ONE_FILE:
        files = _ONE_FILE[format](path)
        if len(files) != 1:
            msg = f"`{path}` holds {len(files)} files that may be {format}"
            raise FormatError(msg, where=[str(f) for f in files], hint="name the file itself")
        return Recognised(format, files[0])
    return Recognised(format, path)


def _open_set(found: Recognised, image_ids: Collection[str], _: ReadOptions) -> Predictions:
    path = found.path
    if path.is_file() and not is_entity_set(path):
        msg = f"the zip `{path}` holds no entity set"
        raise FormatError(msg, hint=f"looked for {_LOOKED_FOR}; unpack other zips")
    return EntitySetPredictions(open_path(path), image_ids)


def _open_coco_results(
    found: Recognised, image_ids: Collection[str], options: ReadOptions
) -> Predictions:
    if options.duplicates.rule is DuplicateRule.KEEP:
        return CocoResults(found.path, image_ids, options.missing_score, data=found.data)
    return open_coco(found.path, image_ids, options.missing_score, options.duplicates)


def _queries(options: ReadOptions) -> QueryRules:
    return replace(options.queries, duplicates=options.duplicates)


_Reader = Callable[[Recognised, Collection[str], ReadOptions], Predictions]
_READERS: dict[Format, _Reader] = {
    Format.ENTITY_SET: _open_set,
    Format.COCO_RESULTS: _open_coco_results,
    Format.COCO_PANOPTIC: lambda f, ids, o: CocoPanoptic(f.path, ids, o.missing_score, data=f.data),
    Format.MASK_STACKS: lambda f, ids, o: MaskStacks(f.path, ids, o.missing_score),
    Format.DETECTRON2_PANOPTIC: lambda f, ids, o: Detectron2Panoptic(f.path, ids, o.missing_score),
    Format.DETECTRON2_INSTANCES: lambda f, ids, o: open_detectron2(
        f.path, ids, o.missing_score, o.duplicates
    ),
    Format.TRANSFORMERS: lambda f, ids, o: open_results(f.path, ids, o.missing_score, _queries(o)),
    Format.QUERY_OUTPUTS: lambda f, ids, o: QueryOutputs(f.path, ids, _queries(o)),
    Format.SAM: lambda f, ids, o: SamMasks(f.path, ids, o.sam_score),
    Format.PAPER_NPZ: lambda f, ids, o: PaperNpz(f.path, ids, o.missing_score),
}
