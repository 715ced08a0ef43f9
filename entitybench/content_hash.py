"""The hash that says whether two entity sets are the same as far as a score can tell."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from entitybench.entity_map import EntityMap

_MODULUS = 1 << 256


def image_digest(image_id: str, entity_map: EntityMap, scores: NDArray[np.float64] | None) -> int:
    """Hash one image: its id, size, numbers of entities and crowds, runs, and scores.

    The SHA-256 is taken over the UTF-8 id, a zero byte, then little-endian: height, width, N,
    C, R and S (the number of scores) as int64, R run starts and R run ids as int32, and S
    scores as float64.
    """
    count = 0 if scores is None else len(scores)
    header = (*entity_map.shape, entity_map.num_entities, entity_map.num_crowds)
    sha = hashlib.sha256(image_id.encode("utf-8") + b"\0")
    sha.update(np.array([*header, len(entity_map.starts), count], dtype="<i8").tobytes())
    sha.update(entity_map.starts.astype("<i4").tobytes())
    sha.update(entity_map.ids.astype("<i4").tobytes())
    if scores is not None:
        sha.update(scores.astype("<f8").tobytes())
    return int.from_bytes(sha.digest(), "big")


def combine(digests: Iterable[int]) -> str:
    """Add the digests modulo 2^256, so that order does not matter and shards add up.

    >>> combine([1, 2]) == combine([2, 1])
    True
    """
    return f"{sum(digests) % _MODULUS:064x}"
