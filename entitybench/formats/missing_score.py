"""What stands in for a score that a file does not give.

AP ranks entities by their score, so that a rule changes the result: nothing is chosen silently.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from entitybench.errors import FormatError, MissingDataError


class MissingScore(StrEnum):
    """The score of an entity that has none.

    * `ERROR`: none; refuse.
    * `CONSTANT`: 1 for all; the order of the file then decides.
    * `AREA`: its share of the image's pixels, so that large ones come first.
    * `MEAN_PROB`: the mean probability inside it, where the file holds probabilities.
    """

    ERROR = "error"
    CONSTANT = "constant"
    AREA = "area"
    MEAN_PROB = "mean-prob"


def score_rule(
    missing: int,
    total: int,
    rule: MissingScore,
    place: str,
    *,
    noun: str = "predicted entities",
    probabilities: bool = False,
) -> str:
    """Decide whether scores may be missing, and name the rule for the signature.

    Args:
        missing: How many entities (or files of them) have no score.
        total: How many there are.
        rule: The user's choice.
        place: The file, for the message.
        noun: What is counted, for the message.
        probabilities: Whether the file holds probabilities.

    Returns:
        `model` if no score is missing; the rule if all are; else `model, else RULE`.

    Raises:
        MissingDataError: Scores are missing and the rule is `ERROR`, or `MEAN_PROB` where there
            are no probabilities.
    """
    if not missing:
        return "model"
    if rule is MissingScore.ERROR:
        some = "" if missing == total else f" of {total:,}"
        msg = f"{missing:,}{some} {noun} have no score"
        raise MissingDataError(
            msg,
            where=place,
            hint="AP ranks entities by score, so a stand-in changes the result: `--missing-score "
            "constant` (all equal, file order decides), `area` (larger first) or `mean-prob` "
            "(needs probabilities)",
        )
    if rule is MissingScore.MEAN_PROB and not probabilities:
        msg = "`--missing-score mean-prob` needs probabilities, and there are none"
        raise MissingDataError(
            msg, where=place, hint="`constant` and `area` need none; npz mask stacks may hold them"
        )
    return str(rule) if missing == total else f"model, else {rule}"


def judge_scores(
    scores: Sequence[float | None], rule: MissingScore, place: str, place_of: Callable[[int], str]
) -> str:
    """Decide about scores, and name the rule for the signature.

    Args:
        scores: Each entity's score, or None.
        rule: What stands in for None.
        place: The file, for messages.
        place_of: Where in it a score is.

    Raises:
        MissingDataError: As in `score_rule`.
        FormatError: A score is not in [0, 1].
    """
    named = score_rule(scores.count(None), len(scores), rule, place)
    refuse_scores_out_of_range(scores, place_of)
    return named


def fill_scores(
    scores: Sequence[float | None],
    areas: NDArray[np.int64],
    num_pixels: int,
    rule: MissingScore,
) -> NDArray[np.float64]:
    """Put the rule's score where there is none.

    Args:
        scores: N scores or None.
        areas: `(N,)` pixels of each entity.
        num_pixels: Pixels of the image.
        rule: `CONSTANT` or `AREA`; the others fill nothing, and nothing may be missing.

    Returns:
        `(N,)` float64.
    """
    given = np.array([np.nan if score is None else score for score in scores], dtype=np.float64)
    missing = np.array([score is None for score in scores], dtype=bool)
    if rule is MissingScore.AREA:
        given[missing] = areas[missing] / num_pixels
    elif rule is MissingScore.CONSTANT:
        given[missing] = 1.0
    return given


def refuse_scores_out_of_range(
    scores: Sequence[float | None], place_of: Callable[[int], str]
) -> None:
    """Raise `FormatError` if a score is not in [0, 1]; None is not judged."""
    values = np.array([0.0 if score is None else score for score in scores], dtype=np.float64)
    bad = np.flatnonzero(~((values >= 0) & (values <= 1)))
    if bad.size:
        msg = f"score {values[bad[0]]} is not in [0, 1]"
        raise FormatError(
            msg,
            where=[place_of(index) for index in bad.tolist()],
            hint="a score is a confidence; apply a sigmoid or divide by the largest",
        )
