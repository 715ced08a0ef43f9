"""AP_e inside a training loop: image by image, batch by batch, rank by rank.

Only match records are kept, a few dozen bytes per prediction. What several processes have
gathered merges to the bits of one. PyTorch is not needed: tensors are taken by what they can do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from entitybench.candidates import checked_scores
from entitybench.entity_map import EntityMap
from entitybench.errors import FormatError
from entitybench.metrics.contingency import Contingency
from entitybench.metrics.evaluation import Evaluation, ImagePair, match_pair
from entitybench.metrics.matching import ImageMatches, match
from entitybench.metrics.protocol import STRICT, Protocol, SizeRule
from entitybench.metrics.records import ImageKey, MatchRecords

_MAX_CELLS = 1 << 24  # a table on a device is dense


class EntityAP:
    """Gathers images and scores them.

    Args:
        protocol: Crowd, void and size rule; sizes are counted in pixels.

    >>> metric = EntityAP()
    >>> metric.update(np.array([[1, 1, 0]]), [0.9], np.array([[1, 1, 2]]))
    >>> metric.compute().scores.AR100
    0.5
    """

    def __init__(self, protocol: Protocol = STRICT) -> None:
        self.protocol = protocol
        self._matches: list[tuple[ImageKey, ImageMatches]] = []
        self._records: list[MatchRecords] = []

    def update(
        self,
        prediction: ArrayLike | EntityMap,
        scores: ArrayLike,
        truth: ArrayLike | EntityMap,
        *,
        crowds: Sequence[int] = (),
        image_id: str | None = None,
    ) -> None:
        """Add one image.

        Args:
            prediction: `(H, W)` ids `0…P`, 0 void: an array, a tensor on any device, or a map.
            scores: `(P,)` scores in [0, 1] of the ids `1…P`.
            truth: `(H, W)` ids, 0 void, likewise; the others are entities, but for `crowds`.
            crowds: The true ids that are crowds.
            image_id: The image's id; numbered in order of arrival unless given. Equal scores of
                different images rank by it, and images that are merged need different ids.

        Raises:
            FormatError: Sizes differ, a score is missing or out of range, or an id has no score.
        """
        key = ImageKey("", image_id if image_id is not None else str(len(self)))
        if _is_on_device(prediction) and _is_on_device(truth) and self._counts_on_device:
            table = _device_table(prediction, truth, np.asarray(_on_host(scores)), crowds)
            entities = table.truth_areas[1 : table.num_entities + 1]
            sizes = entities.astype(np.float64)
            self._matches.append((key, match(table, _on_host(scores), sizes, self.protocol)))
            return
        values = np.asarray(_on_host(scores), dtype=np.float64)
        pair = ImagePair(
            key.image_id, _true_map(truth, crowds), _predicted_map(prediction, len(values)), values
        )
        self._matches.append(match_pair(pair, self.protocol))

    @property
    def _counts_on_device(self) -> bool:
        return self.protocol.size is SizeRule.PIXELS

    def __len__(self) -> int:
        return len(self._matches) + sum(map(len, self._records))

    @property
    def records(self) -> MatchRecords:
        """What was gathered; picklable, to be sent to another process.

        Raises:
            ConflictError: Two images have one id.
        """
        own = MatchRecords.gather(self.protocol, self._matches)
        return MatchRecords.merge([own, *self._records]) if self._records else own

    def merge(self, other: EntityAP | MatchRecords) -> None:
        """Add what another process has gathered.

        Raises:
            ConflictError: Other protocols, or an image is in both; found when computed.
        """
        self._records.append(other if isinstance(other, MatchRecords) else other.records)

    def compute(self) -> Evaluation:
        """Score everything gathered; more may be added afterwards.

        Raises:
            ConflictError: Two images have one id.
        """
        return Evaluation.of(self.records)

    def reset(self) -> None:
        """Forget everything."""
        self._matches.clear()
        self._records.clear()


def _true_map(truth: ArrayLike | EntityMap, crowds: Sequence[int]) -> EntityMap:
    if isinstance(truth, EntityMap):
        return truth
    return EntityMap.from_array(_on_host(truth), crowds=crowds)


def _predicted_map(prediction: ArrayLike | EntityMap, count: int) -> EntityMap:
    if isinstance(prediction, EntityMap):
        return prediction
    return EntityMap.from_array(_on_host(prediction), entities=range(1, count + 1))


# --- tensors ---


def _is_on_device(values: object) -> bool:
    """Tell whether a tensor lies elsewhere than in the memory of the host."""
    device = getattr(values, "device", None)
    return getattr(device, "type", "cpu") != "cpu" and hasattr(values, "bincount")


def _on_host(values: Any) -> Any:
    """Return what NumPy can read; a tensor is detached and fetched."""
    for step in ("detach", "cpu"):
        act: Callable[[], Any] | None = getattr(values, step, None)
        values = act() if act is not None else values
    return values


def _device_table(
    prediction: Any, truth: Any, scores: NDArray[np.float64], crowds: Sequence[int]
) -> Contingency:
    """Count the table where the maps lie; only the table is fetched."""
    if tuple(prediction.shape) != tuple(truth.shape) or len(truth.shape) != 2:
        msg = f"the prediction has shape {tuple(prediction.shape)}, the truth {tuple(truth.shape)}"
        raise FormatError(msg)
    columns = len(checked_scores(scores, len(scores))) + 1
    rows = max(int(truth.max()), *crowds, 0) + 1
    if int(prediction.max()) >= columns or int(prediction.min()) < 0 or int(truth.min()) < 0:
        msg = (
            f"a predicted id is not among the {columns - 1} that have a score, or an id is negative"
        )
        raise FormatError(msg)
    if rows * columns > _MAX_CELLS:
        msg = f"ids up to {rows - 1} and {columns - 1} need too large a table"
        raise FormatError(msg, hint="number the ids without gaps, or move the maps to the host")
    keys = truth.reshape(-1).long() * columns + prediction.reshape(-1).long()
    counts = np.asarray(_on_host(keys.bincount(minlength=rows * columns)))
    return table_of_counts(counts.reshape(rows, columns).astype(np.int64), crowds)


def table_of_counts(counts: NDArray[np.int64], crowds: Sequence[int] = ()) -> Contingency:
    """Make a table of dense counts; true ids without a pixel are no entities.

    Args:
        counts: `(T + 1, P + 1)` pixels of each pair of ids; row and column 0 are void.
        crowds: The rows that are crowds.
    """
    present = [i for i in range(1, len(counts)) if counts[i].any() and i not in crowds]
    kept = counts[[0, *present, *crowds]]
    truth, prediction = np.nonzero(kept)
    return Contingency(
        truth,
        prediction,
        kept[truth, prediction],
        kept.sum(axis=1),
        kept.sum(axis=0),
        len(crowds),
    )
