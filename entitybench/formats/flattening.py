"""Who wins a pixel that several masks claim: the named policies."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum

import numpy as np

from entitybench.candidates import Candidates, OverlapPolicy, Resolution, resolve


class Flattening(StrEnum):
    """The mask that lies on top.

    * `SCORE_ON_TOP`: the one with the higher score, as for every other model.
    * `SMALL_ON_TOP`: the one with fewer pixels, so that a part shows on its whole.
    * `LARGE_ON_TOP`: the one with more pixels, so that a whole hides its parts.
    """

    SCORE_ON_TOP = "score-on-top"
    SMALL_ON_TOP = "small-on-top"
    LARGE_ON_TOP = "large-on-top"


def flatten(
    candidates: Candidates, policy: Flattening = Flattening.SCORE_ON_TOP, image: str = ""
) -> Resolution:
    """Turn candidates into an entity map; the policy decides about shared pixels.

    Masks of one size go by their score, those of one score by their order. What lost all its
    pixels is dropped and counted; each entity keeps its own score.

    >>> nested = Candidates.from_masks([[[1, 1, 1]], [[0, 1, 0]]], scores=[0.9, 0.8])
    >>> flatten(nested, Flattening.SMALL_ON_TOP).map.to_array()
    array([[1, 2, 1]], dtype=int32)
    >>> flatten(nested).map.to_array()
    array([[1, 1, 1]], dtype=int32)
    """
    if policy is Flattening.SCORE_ON_TOP:
        return resolve(candidates, OverlapPolicy.RESOLVE, image)
    size = candidates.areas if policy is Flattening.SMALL_ON_TOP else -candidates.areas
    from_the_top = np.lexsort((-candidates.scores, size))
    ranks = np.empty(len(candidates))
    ranks[from_the_top] = 1 - np.arange(len(candidates)) / max(len(candidates), 1)
    done = resolve(replace(candidates, scores=ranks), OverlapPolicy.RESOLVE, image)
    return replace(done, scores=candidates.scores[done.kept])
