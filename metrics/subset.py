"""Scores of some of the images: records are cut and accumulated anew, never matched anew."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from entitybench.entity_set import decode
from entitybench.errors import ConflictError, FormatError, MissingDataError
from entitybench.metrics.evaluation import Evaluation
from entitybench.metrics.records import MatchRecords
from entitybench.result import Result, Signatures, points_of

_PLAIN = re.compile(r"[A-Za-z0-9._+-]+")


@dataclass(frozen=True, slots=True)
class Subset:
    """Some images.

    Attributes:
        name: Letters, digits and `._+-`.
        ids: Image ids; in a union `set/id`, or the id alone where only one set has it.
    """

    name: str
    ids: tuple[str, ...]


def read_subsets(path: Path) -> list[Subset]:
    """Read subsets: a text file of image ids, one a line, or a JSON object of lists of ids.

    A text file is one subset, named like the file; `#` begins a comment. A JSON object is one
    subset per key.

    Raises:
        MissingDataError: There is no such file.
        FormatError: The file is neither, or a subset has a strange name, no image, or one twice.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        msg = f"the subset cannot be read: {error.strerror}"
        raise MissingDataError(msg, where=str(path)) from error
    if path.suffix == ".json":
        named = decode(text, dict[str, list[str]], str(path))
    else:
        try:
            lines = [line.partition("#")[0].strip() for line in text.decode().splitlines()]
        except UnicodeDecodeError as error:
            msg = "a subset is a text file of image ids"
            raise FormatError(msg, where=str(path)) from error
        named = {path.stem: [line for line in lines if line]}
    for name, ids in named.items():
        _check(name, ids, str(path))
    return [Subset(name, tuple(ids)) for name, ids in named.items()]


def _check(name: str, ids: Sequence[str], place: str) -> None:
    if not _PLAIN.fullmatch(name):
        msg = f"a subset cannot be called {name!r}"
        raise FormatError(msg, where=place, hint="its name has letters, digits and `._+-` alone")
    if not ids:
        msg = f"subset `{name}` has no image"
        raise FormatError(msg, where=place)
    twice = [image_id for image_id, count in Counter(ids).items() if count > 1]
    if twice:
        msg = f"subset `{name}` lists {len(twice)} images twice"
        raise FormatError(msg, where=[f"{place}: {image_id}" for image_id in twice])


def cut(records: MatchRecords, subset: Subset) -> MatchRecords:
    """Return the records of the subset's images.

    Raises:
        FormatError: The records do not hold an image.
        ConflictError: Several sets of a union hold an image of that id.
    """
    places: dict[str, list[int]] = {}
    for index, (set_name, image_id) in enumerate(records.images):
        places.setdefault(image_id, []).append(index)
        places.setdefault(f"{set_name}/{image_id}", []).append(index)
    strange = [image_id for image_id in subset.ids if image_id not in places]
    if strange:
        msg = f"subset `{subset.name}` names {len(strange)} images that the ground truth lacks"
        raise FormatError(msg, where=strange)
    doubtful = [image_id for image_id in subset.ids if len(places[image_id]) > 1]
    if doubtful:
        msg = f"subset `{subset.name}` names {len(doubtful)} images that several sets have"
        raise ConflictError(msg, where=doubtful, hint="write `set/id`")
    return records.take(sorted({places[image_id][0] for image_id in subset.ids}))


def label(subset: Subset, records: MatchRecords) -> str:
    """Name a subset in a signature: two of one name but of other images must not be compared."""
    digest = hashlib.sha256("\n".join(map("/".join, records.images)).encode())
    return f"{subset.name}@{digest.hexdigest()[:8]}"


def subset_result(whole: Result, subset: Subset, records: MatchRecords) -> Result:
    """Return the result of a subset.

    Args:
        whole: The result on all images.
        subset: Which images.
        records: Their records, from `cut`.
    """
    evaluation = Evaluation.of(records)
    counts = evaluation.counts
    metric = replace(whole.metric, num_images=counts.images, subset=label(subset, records))
    return msgspec.structs.replace(
        whole,
        ground_truth=msgspec.structs.replace(
            whole.ground_truth, num_images=counts.images, num_entities=counts.truth
        ),
        signature=Signatures(str(metric), whole.signature.prediction),
        scores=points_of(evaluation.all_scores()),
        intervals={},
        counts=counts.as_dict(),
    )
