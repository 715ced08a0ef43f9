"""Recognising what somebody's predictions are."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import msgspec

from entitybench.entity_set import HEADER, UNFINISHED, is_entity_set, open_path
from entitybench.errors import FormatError, MissingDataError
from entitybench.formats.coco_panoptic import CocoPanoptic
from entitybench.formats.coco_results import CocoResults
from entitybench.formats.entity_set_predictions import EntitySetPredictions
from entitybench.formats.json_file import decode_json, is_object, read_file
from entitybench.formats.mask_stack import SUFFIXES, MaskStacks, stack_files
from entitybench.formats.missing_score import MissingScore
from entitybench.formats.predictions import Predictions

_LOOKED_FOR = (
    "an entity set (`entity_set.json` in a folder or zip), COCO results JSON (a list of "
    "`image_id`, `segmentation`, `score`), COCO panoptic JSON (`annotations` with "
    "`segments_info`, PNGs in a folder), mask stacks (`<image id>.npz` or `.npy`)"
)


def open_predictions(
    path: Path,
    *,
    image_ids: Collection[str],
    missing_score: MissingScore = MissingScore.ERROR,
) -> Predictions:
    """Open predictions of any known format; the result's `description` says of which.

    Args:
        path: A file or folder.
        image_ids: The ground truth's image ids, which the predictions' are matched with.
        missing_score: What stands in for scores that are missing.

    Raises:
        MissingDataError: Nothing is there, or a part of it is missing.
        FormatError: Not recognised, or recognised as several formats; or what the reader of
            its format refuses.
    """
    if not path.exists():
        msg = f"no predictions at `{path}`"
        raise MissingDataError(msg)
    if path.is_dir():
        return _open_folder(path, image_ids, missing_score)
    if path.suffix in SUFFIXES:
        return MaskStacks(path, image_ids, missing_score)
    if _is_json(path):
        return _open_json(path, image_ids, missing_score)
    if path.suffix == ".zip":
        return _open_set(path, image_ids)
    msg = f"`{path}` is not a known format of predictions"
    raise FormatError(msg, hint=f"looked for {_LOOKED_FOR}")


def _open_set(path: Path, image_ids: Collection[str]) -> Predictions:
    if not is_entity_set(path):
        msg = f"the zip `{path}` holds no entity set"
        raise FormatError(msg, hint=f"looked for {_LOOKED_FOR}; unpack other zips")
    return EntitySetPredictions(open_path(path), image_ids)


def _open_folder(
    path: Path, image_ids: Collection[str], missing_score: MissingScore
) -> Predictions:
    if (path / HEADER).exists() or (path / UNFINISHED).exists():
        return EntitySetPredictions(open_path(path), image_ids)
    tables = sorted(file for file in path.iterdir() if _is_json(file) and file.is_file())
    stacks = stack_files(path)
    if len(tables) + bool(stacks) > 1:
        found = [str(file) for file in tables] + [f"{len(stacks):,} mask stacks"] * bool(stacks)
        msg = f"`{path}` holds more than one thing that may be the predictions"
        raise FormatError(msg, where=found, hint="name the file itself")
    if tables:
        return _open_json(tables[0], image_ids, missing_score)
    if stacks:
        return MaskStacks(path, image_ids, missing_score)
    msg = f"the folder `{path}` holds no known format of predictions"
    raise FormatError(msg, hint=f"looked for {_LOOKED_FOR}")


def _is_json(path: Path) -> bool:
    return path.name.endswith((".json", ".json.gz"))


class _Keys(msgspec.Struct, gc=False):
    """Which of the telling keys an annotation has."""

    segments_info: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    segmentation: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Annotations(msgspec.Struct):
    annotations: list[_Keys] | msgspec.UnsetType = msgspec.UNSET


def _open_json(path: Path, image_ids: Collection[str], missing_score: MissingScore) -> Predictions:
    data = read_file(path)
    if is_object(data) and _is_panoptic(data, path):
        return CocoPanoptic(path, image_ids, missing_score, data=data)
    return CocoResults(path, image_ids, missing_score, data=data)


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
