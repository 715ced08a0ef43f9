"""Raw outputs of query-based models: class logits and mask logits of each query.

`(Q, K + 1)` class logits, the last column being "no object", and `(Q, h, w)` mask logits at any
size; each by the name that its tool gives it. They make better predictions than what tools
derive from them: nothing is dropped, every query keeps its score, and overlap is resolved by
the rule that all models share.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from entitybench.candidates import Candidates
from entitybench.errors import EntityBenchError, FormatError
from entitybench.formats.duplicates import KEEP, DuplicateRule, Duplicates, remove_duplicates, take
from entitybench.formats.image_ids import ImageIds
from entitybench.formats.mask_stack import join_masks
from entitybench.formats.predictions import ImageSize, Predictions, refuse_absent
from entitybench.formats.resize import Axis, enlarge_positive
from entitybench.formats.saved_outputs import SavedOutput, open_outputs
from entitybench.formats.torch_file import as_array

LOGITS = ("logits", "pred_logits", "class_queries_logits")
MASKS = ("masks", "pred_masks", "masks_queries_logits")
MAX_PAIRS = 100  # (query, class) pairs that the per-class rule starts from; AP looks at no more
_AT_ONCE = 1 << 22  # pixels of enlarged masks in memory at a time


class QueryScore(StrEnum):
    """The score of a query.

    * `CLASS`: its highest class probability, "no object" left out, as DETR.
    * `CLASS_MASK`: that times the mean probability inside its mask, as Mask2Former's instances.
    """

    CLASS = "class"
    CLASS_MASK = "class-mask"


@dataclass(frozen=True, slots=True)
class QueryRules:
    """How candidates are made from queries.

    Attributes:
        score: What scores a query.
        num_classes: Columns of the class logits without "no object". Logits of just as many
            columns are taken to be independent (a sigmoid each, without "no object"). None:
            the last column is "no object", unless there is but one.
        min_score: Candidates below it are dropped.
        duplicates: Per class, each (query, class) pair is a candidate; else each query.
    """

    score: QueryScore = QueryScore.CLASS
    num_classes: int | None = None
    min_score: float = 0.0
    duplicates: Duplicates = KEEP


def key_among(names: Collection[str], known: tuple[str, ...]) -> str | None:
    """Return the one of some known names that is there."""
    return next((name for name in known if name in names), None)


def has_queries(names: Collection[str]) -> bool:
    """Tell whether an output holds class logits and mask logits."""
    return key_among(names, LOGITS) is not None and key_among(names, MASKS) is not None


@dataclass(frozen=True, slots=True)
class QueryEntry:
    """The predictions of one image: its output."""

    image: ImageSize
    output: SavedOutput
    rules: QueryRules

    def load(self) -> Candidates:
        """Decode the queries; those whose mask has no pixel claim nothing and are left out.

        Raises:
            FormatError: Arrays of other dimensions, another number of queries in the logits
                than in the masks, or another number of classes than was promised.
        """
        logits, masks = _arrays(self.output)
        try:
            probabilities = class_probabilities(logits, self.rules.num_classes)
        except EntityBenchError as error:
            raise error.at(self.output.place) from error
        return self._candidates(probabilities, masks)

    def _candidates(
        self, probabilities: NDArray[np.float64], masks: NDArray[np.float32]
    ) -> Candidates:
        every, means = _enlarged(masks, self.image.shape)
        queries, labels = self._chosen(probabilities)
        scores = probabilities[queries, labels]
        if self.rules.score is QueryScore.CLASS_MASK:
            scores = scores * means[queries]
        kept = (every.areas[queries] > 0) & (scores >= self.rules.min_score)
        found = replace(take(every, queries[kept]), scores=scores[kept])
        return remove_duplicates(found, self.rules.duplicates, labels[kept])

    def _chosen(
        self, probabilities: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return query and class of each candidate, in the order of the queries."""
        num_queries, num_classes = probabilities.shape
        if self.rules.duplicates.rule is not DuplicateRule.PER_CLASS:
            return np.arange(num_queries), probabilities.argmax(axis=1)
        best = np.argsort(-probabilities.ravel(), kind="stable")[: max(MAX_PAIRS, num_queries)]
        queries, labels = np.divmod(np.sort(best), num_classes)
        return queries, labels


class QueryOutputs(Predictions):
    """Raw query outputs, in any way that `saved_outputs` knows.

    Args:
        path: The file or folder.
        image_ids: The ground truth's image ids.
        rules: How candidates are made from queries.

    Raises:
        FormatError: As in `open_outputs`; an output without class logits or mask logits.
    """

    def __init__(
        self, path: Path, image_ids: Collection[str], rules: QueryRules | None = None
    ) -> None:
        self._take(str(path), open_outputs(path, ImageIds(image_ids)), rules or QueryRules())

    @classmethod
    def of_outputs(
        cls, place: str, outputs: Mapping[str, SavedOutput], rules: QueryRules
    ) -> QueryOutputs:
        """Take outputs that have been opened."""
        reader = cls.__new__(cls)
        reader._take(place, outputs, rules)
        return reader

    def _take(self, place: str, outputs: Mapping[str, SavedOutput], rules: QueryRules) -> None:
        self._path, self._outputs, self._rules = place, outputs, rules
        bare = [output.place for output in outputs.values() if not has_queries(output.names)]
        if bare:
            msg = f"{len(bare):,} outputs have no class logits or no mask logits"
            hint = f"logits are called {_either(LOGITS)}, masks {_either(MASKS)}"
            raise FormatError(msg, where=bare, hint=hint)
        self.image_ids = frozenset(outputs)
        self.score_rule = "model" if rules.score is QueryScore.CLASS else str(rules.score)
        self.description = f"raw query outputs: {len(outputs):,} images"
        self.num_classes = rules.num_classes or 0
        if outputs:
            self._describe({image_id: _logits_shape(o) for image_id, o in outputs.items()})

    def _describe(self, shapes: Mapping[str, tuple[int, int]]) -> None:
        """Say how many queries and classes there are, and how classes are scored."""
        columns = {shape[1] for shape in shapes.values()}
        if len(columns) > 1:
            msg = (
                f"class logits have {min(columns)} columns in some images, {max(columns)} in others"
            )
            raise FormatError(msg, where=self._path)
        self.max_entities = max(shape[0] for shape in shapes.values())
        self.num_classes, has_none = _columns(columns.pop(), self._rules.num_classes)
        kind = 'a soft-max with "no object" last' if has_none else "a sigmoid each"
        noun = "class" if self.num_classes == 1 else "classes"
        self.description += f", {self.max_entities:,} queries, {self.num_classes:,} {noun}, {kind}"

    def entry(self, image: ImageSize) -> QueryEntry:
        """Return the predictions of one image, not decoded yet."""
        refuse_absent(self, image, self._path)
        return QueryEntry(image, self._outputs[image.id], self._rules)


def class_probabilities(
    logits: NDArray[np.float32], num_classes: int | None
) -> NDArray[np.float64]:
    """Turn class logits into probabilities of the classes.

    Args:
        logits: `(Q, K + 1)`, the last column being "no object"; or `(Q, K)` independent ones.
        num_classes: K; None: see `QueryRules`.

    Returns:
        `(Q, K)` in [0, 1].

    Raises:
        FormatError: Neither K nor K + 1 columns; or a logit that is not a number.
    """
    from scipy.special import expit, softmax  # a quarter of a second that few callers need

    values = logits.astype(np.float64)
    _, has_none = _columns(values.shape[1], num_classes)
    probabilities = softmax(values, axis=1)[:, :-1] if has_none else expit(values)
    if np.isnan(probabilities).any():
        msg = "class logits hold values that are not numbers"
        raise FormatError(msg)
    return np.asarray(probabilities, dtype=np.float64)


def _columns(columns: int, num_classes: int | None) -> tuple[int, bool]:
    """Return the number of classes, and whether a column for "no object" follows them."""
    if columns < 1 or (num_classes is not None and columns - num_classes not in (0, 1)):
        wanted = 1 if num_classes is None else num_classes
        msg = f"class logits have {columns} columns, expected {wanted} or {wanted + 1}"
        hint = 'a column for each class, and the last for "no object" if there is one'
        raise FormatError(msg, hint=hint)
    has_none = columns > (num_classes or 1)
    return columns - has_none, has_none


def _logits_shape(output: SavedOutput) -> tuple[int, int]:
    shape = output.shape(key_among(output.names, LOGITS) or "")
    if len(shape) < 2:
        msg = f"class logits have shape {shape}, expected (queries, classes)"
        raise FormatError(msg, where=output.place)
    return shape[-2], shape[-1]


def _arrays(output: SavedOutput) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return class logits `(Q, C)` and mask logits `(Q, h, w)`; a batch of one is unpacked."""
    values = output.load(*LOGITS, *MASKS)
    try:
        logits, masks = _floats(values, LOGITS, 2), _floats(values, MASKS, 3)
        if len(logits) != len(masks):
            msg = f"{len(logits)} queries in the class logits, {len(masks)} in the masks"
            raise FormatError(msg)
        if np.isnan(masks).any():
            msg = "mask logits hold values that are not numbers"
            raise FormatError(msg)
    except EntityBenchError as error:
        raise error.at(output.place) from error
    return logits, masks


def _floats(
    values: Mapping[str, Any], known: tuple[str, ...], dimensions: int
) -> NDArray[np.float32]:
    name = key_among(values, known)
    if name is None:
        msg = f"no array {_either(known)}"
        raise FormatError(msg)
    array = as_array(values[name], name)
    if array.ndim == dimensions + 1 and len(array) == 1:
        array = array[0]
    if array.ndim != dimensions or array.dtype.kind != "f" or 0 in array.shape[1:]:
        shape = "(queries, classes)" if dimensions == 2 else "(queries, height, width)"
        msg = f"`{name}` is {array.dtype} {array.shape}, expected floats {shape}"
        raise FormatError(msg, hint="one image a file, logits and not probabilities")
    return array.astype(np.float32)


def _enlarged(
    masks: NDArray[np.float32], shape: tuple[int, int]
) -> tuple[Candidates, NDArray[np.float64]]:
    """Return each query's mask at the image's size, and its mean probability inside."""
    rows, columns = Axis.between(masks.shape[1], shape[0]), Axis.between(masks.shape[2], shape[1])
    at_once = max(1, _AT_ONCE // (shape[0] * shape[1]))
    parts, means = [], np.zeros(len(masks))
    for begin in range(0, len(masks), at_once):
        block = masks[begin : begin + at_once]
        stack = np.zeros((len(block), *shape), dtype=bool)
        for number, mask in enumerate(block):
            down, across, values = enlarge_positive(mask, rows, columns)
            inside = values > 0  # a probability above one half
            stack[number, down, across] = inside
            means[begin + number] = _mean_probability(values[inside])
        parts.append(Candidates.from_masks(stack, np.zeros(len(block))))
    return join_masks(shape, parts), means


def _mean_probability(logits: NDArray[np.float32]) -> float:
    from scipy.special import expit

    return float(expit(logits).mean(dtype=np.float64)) if logits.size else 0.0


def _either(names: tuple[str, ...]) -> str:
    return " or ".join(f"`{name}`" for name in names)
