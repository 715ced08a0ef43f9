"""BSDS500: several humans segmented each image, without classes (`docs/sources/bsds500.md`)."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from entitybench.converters.labels import LabelRuns
from entitybench.converters.source import ConvertedImage, Options, SetPlan, Source, SourceImage
from entitybench.converters.source_tree import SourceTree
from entitybench.entity_set import Model, Option, Provenance
from entitybench.errors import FormatError, MissingDataError

SPLITS = {"train": 200, "val": 100, "test": 200}
AS_PREDICTIONS = "as_predictions"
_TOPS = ("BSR/BSDS500/data", "BSDS500/data", "data", "")
_VARIABLE = "groundTruth"
_MOST_BYTES = 1 << 26  # of one file; real ones have less than 0.2 MB
_ALWAYS = 4  # humans that every image has
# what SciPy raises for a file that is none, from its header down to a field that is not there
_NOT_A_MAT = (
    *(ValueError, TypeError, KeyError, IndexError, AttributeError, EOFError, OSError),
    *(NotImplementedError, OverflowError, MemoryError, zlib.error, struct.error),
)


@dataclass(frozen=True, slots=True)
class HumanImage(SourceImage):
    """One image as one human saw it.

    Attributes:
        mat: The file with all its segmentations.
        human: Which, from 0.
    """

    mat: str
    human: int


def find(tree: SourceTree) -> list[str]:
    """Tell which splits are in a tree."""
    mounted = _mounted(tree)
    return [split for split in SPLITS if _top(mounted, split) is not None]


def plan(tree: SourceTree, split: str, options: Options) -> list[SetPlan[HumanImage]]:
    """Plan the sets of one split: one for each human, or the predictions of one.

    Raises:
        MissingDataError: Photographs are there whose annotation is not; no image has as many
            humans as `as_predictions` wants.
        FormatError: A file cannot be read, or `as_predictions` is not a number of humans.
    """
    mounted = _mounted(tree)
    top = _top(mounted, split) or ""
    mats = mounted.names(f"{top}groundTruth/{split}", suffix=".mat")
    photographs = f"{top}images/{split}"
    _annotated(mounted, mats, photographs)
    counts = {mat: _num_humans(mounted, mat) for mat in mats}
    as_predictions = bool(options[AS_PREDICTIONS])
    return [
        SetPlan(
            tree=mounted,
            images=[_image(mat, human) for mat, count in counts.items() if human < count],
            read=partial(read_prediction if as_predictions else read_image, mounted),
            photographs=photographs,
            suffix=f"a{human + 1}" + "_as_predictions" * as_predictions,
            model=Model(f"human a{human + 1}", score_rule="area") if as_predictions else None,
            release_images=SPLITS[split] if human < _ALWAYS else 0,
        )
        for human in _humans(options[AS_PREDICTIONS], max(counts.values(), default=0), split)
    ]


def _humans(as_predictions: Option, most: int, split: str) -> range:
    """Return which humans to convert, from 0: all of them, or the one that predicts."""
    if not isinstance(as_predictions, int) or as_predictions < 0:
        msg = f"option {AS_PREDICTIONS} is {as_predictions!r}: the number of a human, from 1"
        raise FormatError(msg)
    if as_predictions > most:
        msg = f"split `{split}` has no human {as_predictions}: there are at most {most} an image"
        raise MissingDataError(msg)
    return range(as_predictions - 1, as_predictions) if as_predictions else range(most)


def _image(mat: str, human: int) -> HumanImage:
    stem = PurePosixPath(mat).stem
    return HumanImage(stem, f"{stem}.jpg", mat, human)


def read_image(tree: SourceTree, image: HumanImage) -> ConvertedImage:
    """Read what one human saw; entities in the order of their numbers, 0 is void.

    Raises:
        FormatError: The file is not a MATLAB file of this layout.
    """
    runs = LabelRuns.of(_segmentation(tree, image))
    numbers = [int(number) for number in runs.labels if number]
    ids = np.searchsorted([0, *numbers], runs.labels)
    origins = tuple(Provenance(number) for number in numbers)
    return ConvertedImage(runs.entity_map(ids, len(numbers)), origins)


def read_prediction(tree: SourceTree, image: HumanImage) -> ConvertedImage:
    """Read what one human saw as predictions: the score of each is its share of the image.

    Raises:
        FormatError: As in `read_image`.
    """
    done = read_image(tree, image)
    shares = done.map.areas[1:] / (done.map.shape[0] * done.map.shape[1])
    return ConvertedImage(done.map, scores=tuple(shares.tolist()))


def _segmentation(tree: SourceTree, image: HumanImage) -> NDArray[np.integer]:
    from scipy.io import loadmat  # half a second that no other source needs

    file: Any = io.BytesIO(tree.read(image.mat, _MOST_BYTES))  # the stubs know paths only
    with _telling(tree.place(image.mat)):
        cells = loadmat(file, variable_names=[_VARIABLE])[_VARIABLE]
        segmentation = np.asarray(cells[0, image.human]["Segmentation"][0, 0])
    whole = segmentation.dtype.kind in "iu" and segmentation.ndim == 2 and segmentation.size
    if not whole or segmentation.min() < 0:
        msg = f"human {image.human + 1} has no segmentation: {segmentation.dtype} of shape "
        msg += str(segmentation.shape)
        raise FormatError(msg, where=tree.place(image.mat))
    return segmentation


def _num_humans(tree: SourceTree, mat: str) -> int:
    """Return how many segmentations a file has; the pixels are not unpacked."""
    from scipy.io import whosmat

    file: Any = io.BytesIO(tree.read(mat, _MOST_BYTES))
    with _telling(tree.place(mat)):
        ((rows, count),) = (shape for name, shape, _ in whosmat(file) if name == _VARIABLE)
    if rows != 1 or not count:
        msg = f"`{_VARIABLE}` is {rows}×{count}, expected 1 × the number of humans"
        raise FormatError(msg, where=tree.place(mat))
    return int(count)


@contextmanager
def _telling(place: str) -> Iterator[None]:
    """Turn what SciPy raises for a file that is none into an error that names it."""
    from scipy.io.matlab import MatReadError

    try:
        yield
    except (MatReadError, *_NOT_A_MAT) as error:
        msg = f"not a MATLAB file with the cells `{_VARIABLE}` ({type(error).__name__}: {error})"
        raise FormatError(msg, where=place) from error


def _mounted(tree: SourceTree) -> SourceTree:
    return tree.with_archives("BSR_bsds500.tgz", "BSR_bsds500.tar.gz", "BSR_bsds500.zip")


def _top(tree: SourceTree, split: str) -> str | None:
    """Return the folder, with its slash, in which the annotations of a split are."""
    tops = (f"{top}/" if top else "" for top in _TOPS)
    return next(
        (top for top in tops if tree.names(f"{top}groundTruth/{split}", suffix=".mat")), None
    )


def _annotated(tree: SourceTree, mats: list[str], photographs: str) -> None:
    """Refuse a split in which a photograph has no annotation."""
    stems = {PurePosixPath(mat).stem for mat in mats}
    names = tree.names(photographs, suffix=".jpg")
    bare = [name for name in names if PurePosixPath(name).stem not in stems]
    if bare:
        msg = f"photographs without an annotation: {len(bare):,} of {len(names):,}"
        raise MissingDataError(msg, where=[tree.place(name) for name in bare])


SOURCE = Source(
    name="bsds500",
    title="BSDS500",
    licence="non-commercial research and education only",
    splits=SPLITS,
    find=find,
    plan=plan,
    expected="`BSR/BSDS500/data/` with `groundTruth/<split>/` and, if at hand, `images/<split>/`; "
    "or `BSR_bsds500.tgz`",
    hint="`entitybench convert bsds500 --download-only` fetches it",
    options={AS_PREDICTIONS: 0},
)
