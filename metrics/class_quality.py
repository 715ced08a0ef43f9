"""Panoptic quality by class: PQ as panopticapi computes it, for models that tell classes apart.

The one number here that reads labels (the paper's column S-S PQ). A match needs the same class;
the quality of each class is that of all images together, and the mean runs over the classes
that occur. Rules: Kirillov et al., Panoptic Segmentation, CVPR 2019, as panopticapi has them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from entitybench.entity_set import Category
from entitybench.formats.predictions import Predictions
from entitybench.metrics.class_sums import ClassSums
from entitybench.metrics.ground_truth import GroundTruth
from entitybench.metrics.panoptic_quality import quality_of
from entitybench.metrics.ragged import offsets_of
from entitybench.metrics.records import ImageKey, MatchRecords
from entitybench.metrics.shared_pixels import NO_ROW, SharedPixels

NO_CLASS = -1
_SHOWN = 5  # names in a message


@dataclass(frozen=True, slots=True, eq=False)
class ClassLabels:
    """The class of everything in match records, as a place among `classes`.

    Attributes:
        classes: The K classes of the truth.
        truth: `(G,)` int64 of the true entities, in the rows of the records.
        crowds: `(C,)` int64 of the crowds, image after image; `NO_CLASS` where unknown.
        predictions: `(P,)` int64 of all predicted entities, image after image, in order of id.
    """

    classes: tuple[Category, ...]
    truth: NDArray[np.int64]
    crowds: NDArray[np.int64]
    predictions: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ClassQuality:
    """The quality of one class over all images.

    Attributes:
        name: Of the class.
        isthing: Whether it is of things; None where the source does not say.
        PQ: Fraction, and so are the others.
        SQ: 0 without a match, as in panopticapi.
        RQ: F1 score at IoU above .5.
        matched: Pairs of one class with IoU above .5.
        spurious: Predictions of the class without one.
        missed: True entities of the class without one.
    """

    name: str
    isthing: bool | None
    PQ: float
    SQ: float
    RQ: float
    matched: int
    spurious: int
    missed: int


# --- from tables and labels to sums --------------------------------------------------------------


def class_sums(records: MatchRecords, labels: ClassLabels, least: float = 0.0) -> ClassSums:
    """Match within each class at IoU above .5 and count, image by image.

    Entities of one stuff class in one image are one region, on either side: panoptic formats
    know nothing else. A union leaves out the prediction's pixels in void. An unmatched
    prediction more than half of which lies in void and in crowds of its own class is dropped.

    Args:
        records: With tables.
        labels: The class of everything in them.
        least: Predictions that score less count as void. Beyond an image's best 100 no score is
            kept; those go with the hundredth.

    Raises:
        MissingDataError: The records hold no tables.
    """
    regions = _regions(records, labels, least)
    shared = regions.shared
    same = regions.truth_class[shared.truth] == regions.predicted_class[shared.prediction]
    is_entity = shared.truth_rows[shared.truth] != NO_ROW
    predicted = regions.predicted_class[shared.prediction] != NO_CLASS
    in_void = _by_prediction(shared, shared.is_void[shared.truth])
    held = same & is_entity & predicted
    truth, prediction, pixels = shared.truth[held], shared.prediction[held], shared.pixels[held]
    areas = shared.truth_areas[truth] + shared.prediction_areas[prediction]
    iou = pixels / (areas - pixels - in_void[prediction])
    hit = iou > 0.5
    missed = regions.counts_in_truth.copy()
    missed[truth[hit]] = False
    forgiven = _by_prediction(shared, shared.is_void[shared.truth] | (same & ~is_entity))
    spurious = regions.counts_in_prediction & (2 * forgiven <= shared.prediction_areas)
    spurious[prediction[hit]] = False
    of_truth = shared.truth_images * len(labels.classes) + regions.truth_class
    of_prediction = shared.prediction_images * len(labels.classes) + regions.predicted_class
    places = [of_truth[truth[hit]], of_prediction[spurious], of_truth[missed]]
    return _summed(places, iou[hit], len(records), labels.classes)


@dataclass(frozen=True, slots=True, eq=False)
class _Regions:
    """Shared pixels in which the stuff of one class is one region, with classes.

    Attributes:
        shared: Cells of M true and Q predicted ids; what was joined to another owns no pixel.
        truth_class: `(M,)` class of each; `NO_CLASS` for void.
        predicted_class: `(Q,)` likewise; `NO_CLASS` also for what scores too little.
        counts_in_truth: `(M,)` whether it is a region to be found.
        counts_in_prediction: `(Q,)` whether it is a predicted region.
    """

    shared: SharedPixels
    truth_class: NDArray[np.int64]
    predicted_class: NDArray[np.int64]
    counts_in_truth: NDArray[np.bool_]
    counts_in_prediction: NDArray[np.bool_]


def _regions(records: MatchRecords, labels: ClassLabels, least: float) -> _Regions:
    shared = SharedPixels.of(records)
    truth_class = np.full(len(shared.truth_rows), NO_CLASS)
    is_entity = shared.truth_rows != NO_ROW
    truth_class[is_entity] = labels.truth
    truth_class[shared.is_crowd] = labels.crowds
    predicted_class = np.full(len(shared.is_predicted), NO_CLASS)
    predicted_class[shared.is_predicted] = labels.predictions
    predicted_class[_scores(records, shared) < least] = NO_CLASS
    is_stuff = np.array([c.isthing is False for c in labels.classes] + [False])  # last: NO_CLASS
    joined_truth = _joined(truth_class, shared.truth_images, is_entity & is_stuff[truth_class])
    joined = _joined(predicted_class, shared.prediction_images, is_stuff[predicted_class])
    return _Regions(
        _relabelled(shared, joined_truth, joined),
        truth_class,
        predicted_class,
        is_entity & (joined_truth == np.arange(len(joined_truth))),
        (predicted_class != NO_CLASS) & (joined == np.arange(len(joined))),
    )


def _scores(records: MatchRecords, shared: SharedPixels) -> NDArray[np.float64]:
    """Return the score of each predicted id; beyond the best 100 of an image, the hundredth."""
    ends = records.detection_offsets[shared.prediction_images + 1]
    rows = np.where(shared.prediction_rows == NO_ROW, ends - 1, shared.prediction_rows)
    return np.append(records.scores, 0.0)[rows]


def _joined(
    classes: NDArray[np.int64], images: NDArray[np.int64], to_join: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Return for each id the first of those that it is one region with."""
    first = np.arange(len(classes))
    ids = np.flatnonzero(to_join)
    keys = images[ids] * (classes.max(initial=0) + 1) + classes[ids]
    _, begins, group = np.unique(keys, return_index=True, return_inverse=True)
    first[ids] = ids[begins[group]]
    return first


def _relabelled(
    shared: SharedPixels, truth: NDArray[np.int64], prediction: NDArray[np.int64]
) -> SharedPixels:
    """Return the shared pixels under other ids, given for each id."""
    keys = truth[shared.truth] * len(prediction) + prediction[shared.prediction]
    cells, begins, place = np.unique(keys, return_index=True, return_inverse=True)
    pixels = np.bincount(place, shared.pixels, len(cells)).astype(np.int64)
    rows, cols = np.divmod(cells, max(len(prediction), 1))
    return replace(
        shared,
        image=shared.image[begins],
        truth=rows,
        prediction=cols,
        pixels=pixels,
        truth_areas=np.bincount(rows, pixels, len(truth)).astype(np.int64),
        prediction_areas=np.bincount(cols, pixels, len(prediction)).astype(np.int64),
    )


def _by_prediction(shared: SharedPixels, among: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Count the pixels of each prediction in some of the cells."""
    held, count = shared.prediction[among], len(shared.prediction_areas)
    return np.bincount(held, shared.pixels[among], count).astype(np.int64)


def _summed(
    places: Sequence[NDArray[np.int64]],
    iou: NDArray[np.float64],
    num_images: int,
    classes: tuple[Category, ...],
) -> ClassSums:
    """Count by image and class; `places` are image × K + class of what matched, … missed."""
    cells, place = np.unique(np.concatenate(places), return_inverse=True)
    parts = np.split(place, np.cumsum([len(part) for part in places[:-1]]))
    counts = [np.bincount(part, minlength=len(cells)) for part in parts]
    total = np.bincount(parts[0], iou, len(cells))
    images, rows = np.divmod(cells, max(len(classes), 1))
    return ClassSums(
        tuple(c.name for c in classes),
        tuple(c.isthing for c in classes),
        offsets_of(np.bincount(images, minlength=num_images)),
        rows.astype(np.int64),
        np.stack([*counts, total], axis=1).astype(np.float64),
    )


# --- from sums to scores -------------------------------------------------------------------------


def quality_by_class(sums: ClassSums) -> list[ClassQuality]:
    """Return the quality of each class that occurs, in the order of the truth's classes."""
    pooled = sums.pooled()
    quality = np.nan_to_num(quality_of(pooled)).T.tolist()
    rows = zip(sums.names, sums.things, quality, pooled[:, :3].tolist(), strict=True)
    return [
        ClassQuality(name, isthing, *values, *map(int, counts))
        for name, isthing, values, counts in rows
        if any(counts)
    ]


def class_scores(sums: ClassSums) -> dict[str, float]:
    """Return `PQc`, `SQc`, `RQc`, and the same of things (`PQcthing` …) and stuff, as fractions.

    Means over the classes that occur: that have a match, a spurious or a missed region. NaN
    where none does. In a mean of SQ, a class without a match counts as 0, as in panopticapi.
    """
    return {name: float(value) for name, value in mean_scores(sums.things, sums.pooled()).items()}


def mean_scores(
    things: Sequence[bool | None], pooled: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    """Return the scores of `class_scores`, each of shape `(…)`, from `(…, K, 4)` sums."""
    among = {"": [True] * len(things)} | {
        origin: [isthing is wanted for isthing in things]
        for origin, wanted in (("thing", True), ("stuff", False))
    }
    return {
        f"{name}c{origin}": values
        for origin, chosen in among.items()
        for name, values in zip(
            ("PQ", "SQ", "RQ"),
            mean_quality(pooled[..., np.array(chosen, dtype=bool), :]),
            strict=True,
        )
    }


def mean_quality(pooled: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return mean PQ, SQ and RQ of the classes that occur.

    Args:
        pooled: `(…, K, 4)` sums of each class.

    Returns:
        `(3, …)`; NaN where no class occurs.
    """
    occurs = pooled[..., :3].any(axis=-1)
    quality = np.nan_to_num(quality_of(pooled)).sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        means: NDArray[np.float64] = quality / occurs.sum(axis=-1)
    return means


# --- from sets to labels -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ClassReport:
    """What came of the classes.

    Attributes:
        records: With class sums where there is a PQ by class.
        label: For the signature: number of classes and a digest of the truth's labels; empty
            without.
        threshold: Least score that counts there.
        said: Why there is none although the predictions have classes, or how they were
            matched; empty where there is nothing to say.
    """

    records: MatchRecords
    label: str = ""
    threshold: float = 0.0
    said: str = ""


def with_classes(
    records: MatchRecords,
    truths: Sequence[GroundTruth],
    readers: Sequence[Predictions],
    least: float = 0.0,
) -> ClassReport:
    """Add class sums where both sides tell classes, else say why not.

    Classes are matched by name; by id where the predictions name none. Like panopticapi, this
    takes no prediction of a class that the truth does not know: there is no PQ by class then.

    Args:
        records: Matches of all images.
        truths: What was scored against.
        readers: The predictions for each.
        least: Predictions that score less do not count.
    """
    if records.tables is None or not all(reader.labelled for reader in readers):
        return ClassReport(records)
    try:
        return _with_classes(records, truths, readers, least)
    except _NoClassesError as error:
        return ClassReport(records, said=f"no PQ by class: {error}")


class _NoClassesError(ValueError):
    """Why there is no PQ by class."""


def _with_classes(
    records: MatchRecords,
    truths: Sequence[GroundTruth],
    readers: Sequence[Predictions],
    least: float,
) -> ClassReport:
    classes = _classes_of(truths)
    digest = hashlib.sha256(msgspec.json.encode(classes))
    truth: dict[ImageKey, tuple[NDArray[np.int64], NDArray[np.int64]]] = {}
    found: dict[ImageKey, NDArray[np.int64]] = {}
    ids = {c.id: place for place, c in enumerate(classes)}
    for one, reader in zip(truths, readers, strict=True):
        for image_id, entities, crowds in one.labels():
            digest.update(msgspec.json.encode([one.name, image_id, entities, crowds]))
            rows = _places(entities, ids, f"true entities of image {image_id}")
            in_crowds = [NO_CLASS if c is None else ids.get(c, NO_CLASS) for c in crowds]
            truth[ImageKey(one.name, image_id)] = rows, np.array(in_crowds, dtype=np.int64)
        found |= _found(one, reader, classes)
    nothing = np.zeros(0, dtype=np.int64)
    of_truth = [truth[key] for key in records.images]
    labels = ClassLabels(
        classes,
        np.concatenate([nothing, *(entities for entities, _ in of_truth)]),
        np.concatenate([nothing, *(crowds for _, crowds in of_truth)]),
        np.concatenate([nothing, *(found.get(key, nothing) for key in records.images)]),
    )
    records = replace(records, classes=class_sums(records, labels, least))
    by_id = any(not reader.categories for reader in readers)
    said = "classes matched by id: the predictions do not name theirs" if by_id else ""
    return ClassReport(records, f"{len(classes)}@{digest.hexdigest()[:8]}", least, said)


def _classes_of(truths: Sequence[GroundTruth]) -> tuple[Category, ...]:
    """Return the truth's classes; those of a union must be the same."""
    classes = [truth.categories() for truth in truths]
    if not classes[0]:
        msg = "the ground truth has no classes"
        raise _NoClassesError(msg)
    if any(other != classes[0] for other in classes[1:]):
        msg = "the ground truths of the union have different classes"
        raise _NoClassesError(msg)
    return classes[0]


def _found(
    truth: GroundTruth, reader: Predictions, classes: Sequence[Category]
) -> dict[ImageKey, NDArray[np.int64]]:
    """Return the classes of the predictions of each image."""
    ids = {c.id: place for place, c in enumerate(classes)}
    if reader.categories:
        ids = _places_by_name(classes, reader.categories)
    names = {c.id: c.name for c in reader.categories}
    rows = list(reader.labels())
    used = {c for _, categories in rows for c in categories if c is not None}
    strange = [f"`{names.get(c, c)}`" for c in sorted(used - set(ids))]
    if strange:
        more = f" and {len(strange) - _SHOWN} more" if len(strange) > _SHOWN else ""
        named = ", ".join(strange[:_SHOWN])
        msg = f"`{truth.name}` does not know the predicted {named}{more}"
        raise _NoClassesError(msg)
    return {
        ImageKey(truth.name, image_id): _places(categories, ids, f"predictions of {image_id}")
        for image_id, categories in rows
    }


def _places_by_name(classes: Sequence[Category], predicted: Iterable[Category]) -> dict[int, int]:
    """Return the places of the predicted ids whose class has a name that the truth knows."""
    of_name = {c.name: place for place, c in enumerate(classes)}
    if len(of_name) < len(classes):
        msg = "two classes of the ground truth have one name"
        raise _NoClassesError(msg)
    return {c.id: of_name[c.name] for c in predicted if c.name in of_name}


def _places(
    categories: Iterable[int | None], ids: Mapping[Any, int], what: str
) -> NDArray[np.int64]:
    try:
        return np.array([ids[category] for category in categories], dtype=np.int64)
    except KeyError as error:
        msg = f"{what} are of no class"
        raise _NoClassesError(msg) from error
