"""What the two modules are for, visible at any budget: how much a model's masks overlap.

AP_e tells what a model achieves after its masks were resolved. Before that one can see how many
true entities some mask covers, and what AP the overlapping masks would have had. A model's hundred
candidates together cover all pixels many times over, so one mask is looked at for each true entity
that is found before resolution, that with the best IoU, which is ½ or more (a worse one stands
for no entity, and most masks of a model that has just begun are worse): how many pixels two of
these claim, and how much of their area the resolution of all candidates takes away.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from entitybench.baselines.painting import full_masks
from entitybench.baselines.prediction import Predictor
from entitybench.candidates import Candidates, OverlapPolicy, resolve
from entitybench.entity_map import EntityMap
from entitybench.entity_set import EntityImage, EntitySet
from entitybench.errors import MissingDataError
from entitybench.metrics import Evaluation, ImageKey, ImageMatches, ImagePair, MatchRecords
from entitybench.metrics.evaluation import match_pair
from entitybench.metrics.overlapping import mask_contingency, match_overlapping
from entitybench.metrics.protocol import STRICT, truth_sizes
from entitybench.photographs import read_photograph

_FOUND = 0.5  # least IoU of a mask that stands for an entity; AP counts from there, too
COUNTS = ("claimed", "claimed_twice", "area_before", "area_after")


@dataclass(frozen=True, slots=True, eq=False)
class Mechanism:
    """One model on I images.

    Attributes:
        resolved: Matches of the final maps.
        overlapping: Matches of the same masks before resolution.
        counts: `(I, 4)` int64 pixels of each image, in pooled order, of the best mask of each true
            entity that is found: claimed by one or more, by two or more; their area before
            resolution and after.
    """

    resolved: MatchRecords
    overlapping: MatchRecords
    counts: NDArray[np.int64]

    def numbers(self) -> dict[str, float]:
        """Return AP_e, AP before resolution and their gap, recall before, and the two shares."""
        after = Evaluation.of(self.resolved).scores
        before = Evaluation.of(self.overlapping).scores
        return {
            "AP_e": after.AP,
            "AP_before": before.AP,
            "gap": before.AP - after.AP,
            "recall_before": before.AR100,
            "recall": after.AR100,
            "claimed_twice": claimed_twice(self.counts.sum(0)),
            "area_lost": area_lost(self.counts.sum(0)),
        }

    def save(self, stem: Path) -> None:
        """Write `<stem>.resolved.npz`, `.overlapping.npz` and `.counts.npy`."""
        self.resolved.save(stem.with_name(stem.name + ".resolved.npz"))
        self.overlapping.save(stem.with_name(stem.name + ".overlapping.npz"))
        # last: where it lies, all is there
        np.save(stem.with_name(stem.name + ".counts.npy"), self.counts, allow_pickle=False)

    @classmethod
    def load(cls, stem: Path) -> Mechanism | None:
        """Read what `save` wrote; None where it is not there."""
        counts = stem.with_name(stem.name + ".counts.npy")
        if not counts.exists():
            return None
        return cls(
            MatchRecords.load(stem.with_name(stem.name + ".resolved.npz")),
            MatchRecords.load(stem.with_name(stem.name + ".overlapping.npz")),
            np.load(counts, allow_pickle=False),
        )


def claimed_twice(counts: NDArray[np.generic]) -> float:
    """Return the share of the claimed pixels that two or more claim; NaN where none is.

    >>> claimed_twice(np.array([200, 10, 0, 0]))
    0.05
    """
    return float(counts[1] / counts[0]) if counts[0] else float("nan")


def area_lost(counts: NDArray[np.generic]) -> float:
    """Return the share of mask area that resolution takes away; NaN where there is none."""
    return float(1 - counts[3] / counts[2]) if counts[2] else float("nan")


def mechanism_stem(predictions: Path, test_set: str) -> Path:
    """Return where the measurement on a test set lies, for `Mechanism.save` and `load`."""
    return predictions / f"{test_set}.mechanism"


def measure_mechanism(
    predictor: Predictor,
    truth: EntitySet,
    *,
    photographs: str | None = None,
    progress: Callable[[], object] = lambda: None,
) -> Mechanism:
    """Predict the images of a set and look at the masks before and after resolution.

    Args:
        predictor: The model.
        truth: Ground truth with photographs.
        photographs: Where these are, if elsewhere than the set says.
        progress: Called after each image.

    Raises:
        MissingDataError: Nobody knows where the photographs are.
    """
    location = photographs or truth.photographs
    if location is None:
        msg = f"nobody knows where the photographs of `{truth.header.name}` are"
        raise MissingDataError(msg)
    after: list[tuple[ImageKey, ImageMatches]] = []
    before: list[tuple[ImageKey, ImageMatches]] = []
    counts: dict[ImageKey, list[int]] = {}
    for image in truth:
        looked = _look(predictor, truth.header.name, image, location)
        after.append(looked.resolved)
        before.append(looked.overlapping)
        counts[looked.resolved[0]] = looked.counts
        progress()
    resolved = MatchRecords.gather(STRICT, after)
    table = np.array([counts[key] for key in resolved.images], dtype=np.int64).reshape(-1, 4)
    return Mechanism(resolved, MatchRecords.gather(STRICT, before), table)


@dataclass(frozen=True, slots=True)
class _Look:
    resolved: tuple[ImageKey, ImageMatches]
    overlapping: tuple[ImageKey, ImageMatches]
    counts: list[int]


def _look(predictor: Predictor, set_name: str, image: EntityImage, location: str) -> _Look:
    prepared = predictor.prepare(read_photograph(location, image.row.file_name))
    found = predictor.candidates([prepared])
    [final] = predictor.paint(found, [prepared])
    masks = full_masks(found, 0, prepared.placement.visible, prepared.size)
    used = found.valid[0]
    stack = masks[used].cpu().numpy()
    scores = found.scores[0][used].double().cpu().numpy()
    candidates = Candidates.from_masks(stack, scores)
    pair = ImagePair(image.id, image.map, final.map, final.scores, set_name=set_name)
    sizes = truth_sizes(image.map, STRICT, None)
    overlapping = match_overlapping(image.map, candidates, sizes, STRICT)
    best = best_masks(image.map, candidates)
    claims = stack[best].sum(0)
    remaining = resolve(candidates, OverlapPolicy.RESOLVE)
    kept = np.isin(remaining.kept, best)
    counts = [
        int((claims >= 1).sum()),
        int((claims >= 2).sum()),
        int(claims.sum()),
        int(remaining.map.areas[1:][kept].sum()),
    ]
    return _Look(match_pair(pair), (pair.key, overlapping), counts)


def best_masks(truth: EntityMap, candidates: Candidates) -> NDArray[np.int64]:
    """Return the masks that are the best of some true entity, by an IoU of ½ or more.

    Returns:
        Their numbers, ascending; of equal IoUs the first.
    """
    if not len(candidates):
        return np.zeros(0, dtype=np.int64)
    shared = mask_contingency(truth, candidates).to_array()[1 : truth.num_entities + 1, 1:]
    areas = truth.areas[1 : truth.num_entities + 1, None] + candidates.areas
    ious = shared / np.maximum(areas - shared, 1)
    found = ious[ious.max(axis=1, initial=0.0) >= _FOUND]
    return np.unique(found.argmax(axis=1))
