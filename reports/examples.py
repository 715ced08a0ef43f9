"""Images to look at: the worst, the best and some at random, with what went wrong in each."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from entitybench.entity_set import EntitySet, is_entity_set
from entitybench.errors import MissingDataError
from entitybench.photographs import GENERATED, read_photograph
from entitybench.registry import known_sets, open_entity_set
from entitybench.reports.details import Details
from entitybench.reports.pictures import error_picture, overlay
from entitybench.reports.results import Run

PER_GROUP = 8
LONGEST_SIDE = 256
_QUALITY = 78
_SEED = 0


@dataclass(frozen=True, slots=True)
class Example:
    """One image.

    Attributes:
        image_id: Its id.
        file_name: Its photograph.
        quality: Its class-agnostic PQ, in points.
        num_true: True entities.
        num_predicted: Predicted ones.
        panels: Caption and JPEG as a data address: photograph (where there is one), truth,
            prediction, errors.
    """

    image_id: str
    file_name: str
    quality: float
    num_true: int
    num_predicted: int
    panels: tuple[tuple[str, str], ...]

    @property
    def size(self) -> int:
        """Bytes on the page."""
        return sum(len(address) for _, address in self.panels)


@dataclass(frozen=True, slots=True)
class Gallery:
    """Examples of one model on one test set.

    Attributes:
        groups: `worst`, `best` and `random`, each with its examples.
        licence: What the test set's header says about its photographs, if anything.
    """

    run: Run
    groups: tuple[tuple[str, tuple[Example, ...]], ...]
    licence: str | None

    @property
    def is_free(self) -> bool:
        """Whether the page may be passed on with these pictures."""
        return self.licence == GENERATED


def choose(qualities: NDArray[np.float64], per_group: int = PER_GROUP) -> dict[str, list[int]]:
    """Pick images by quality: the worst, the best, and some of the others at random.

    No image is in two groups; where there are few, each group gets a third. Ties go to the
    image that comes first; images without a quality are never picked.
    """
    order = np.argsort(qualities, kind="stable")[: np.count_nonzero(np.isfinite(qualities))]
    count = min(per_group, -(-len(order) // 3))
    worst, rest = order[:count], order[count:]
    best = rest[::-1][:count]
    others = np.sort(rest[: len(rest) - len(best)])
    rng = np.random.default_rng(_SEED)
    drawn = rng.choice(others, min(count, len(others)), replace=False)
    return {
        "worst": worst.tolist(),
        "best": best.tolist(),
        "random": np.sort(drawn).tolist(),
    }


def find_sets(run: Run, data: Path, preds: Path) -> tuple[EntitySet, EntitySet] | None:
    """Return truth and predictions of a run, or None where either is not at hand.

    Predictions are looked up as `PREDS/<model>/<ground truth>`, as `predict` and `run` lay them
    out; they must be those that were scored: the same images, by the truth's content hash.
    """
    if len(run.tested_on) > 1 or run.ground_truth not in known_sets(data):
        return None
    truth = open_entity_set(run.ground_truth, data)
    if truth.header.content_hash != run.result.ground_truth.sha256:
        return None
    if Path(run.name).name != run.name:  # a result file may come from anybody
        return None
    place = preds / run.name / run.ground_truth
    found = next(
        (p for p in (place, place.with_name(place.name + ".zip")) if is_entity_set(p)), None
    )
    return None if found is None else (truth, open_entity_set(found))


def gallery(run: Run, details: Details, data: Path, preds: Path, per_group: int) -> Gallery | None:
    """Draw the examples of one run; None where truth, predictions or records are missing."""
    sets = find_sets(run, data, preds)
    if sets is None or run.records is None:
        return None
    truth, prediction = sets
    ids = [key.image_id for key in run.records.images]
    groups = tuple(
        (
            name,
            tuple(
                _example(truth, prediction, ids[i], float(details.qualities[i])) for i in indices
            ),
        )
        for name, indices in choose(details.qualities, per_group).items()
    )
    return Gallery(run, groups, truth.header.licence)


def _example(truth: EntitySet, prediction: EntitySet, image_id: str, quality: float) -> Example:
    row = truth.image_row(image_id)
    true_map, predicted_map = truth[image_id].map, prediction[image_id].map
    photograph = _photograph(truth, row.file_name)
    pictures = [("image", photograph)] if photograph else []
    pictures += [
        ("truth", overlay(true_map, photograph)),
        ("prediction", overlay(predicted_map, photograph, truth=true_map)),
        ("errors", error_picture(true_map, predicted_map, photograph)),
    ]
    return Example(
        image_id,
        row.file_name,
        100 * quality,
        true_map.num_entities,
        predicted_map.num_entities,
        tuple((caption, jpeg(picture)) for caption, picture in pictures),
    )


def _photograph(truth: EntitySet, file_name: str) -> Image.Image | None:
    if truth.photographs is None:
        return None
    try:
        return read_photograph(truth.photographs, file_name)
    except MissingDataError:
        return None


def jpeg(picture: Image.Image) -> str:
    """Return a picture as a data address, its longer side at most `LONGEST_SIDE` pixels."""
    smaller = picture.copy()
    smaller.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    smaller.save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def within_budget(galleries: Sequence[Gallery], budget: int) -> list[Gallery]:
    """Show as many images of each group as fit, the same number everywhere.

    Args:
        galleries: In order.
        budget: Bytes for all of them.
    """
    for count in range(PER_GROUP, 0, -1):
        cut = [
            Gallery(g.run, tuple((name, shown[:count]) for name, shown in g.groups), g.licence)
            for g in galleries
        ]
        if sum(e.size for g in cut for _, shown in g.groups for e in shown) <= budget:
            return cut
    return []
