"""AP of the entities that the source calls things, and of those that it calls stuff.

A class-agnostic model does not say what it predicts, so no prediction is of an origin. Truth of
the other origin is what truth of another size is to an area range: a prediction matched to it is
ignored, an unmatched prediction counts against both.
"""

from __future__ import annotations

import numpy as np

from entitybench.metrics.matching import assign
from entitybench.metrics.ragged import images_of
from entitybench.metrics.ranking import Column
from entitybench.metrics.records import MatchRecords
from entitybench.metrics.shared_pixels import NO_ROW, SharedPixels, tables_of
from entitybench.metrics.tables import STUFF, THING

ORIGINS = {"thing": THING, "stuff": STUFF}


def has_origins(records: MatchRecords) -> bool:
    """Tell whether the source says of any true entity what it is."""
    return records.tables is not None and bool(np.any(records.tables.origins >= 0))


def origin_columns(records: MatchRecords) -> dict[str, Column]:
    """Return the column of each origin, `thing` and `stuff`.

    Entities of unknown origin are ignored in both.

    Raises:
        MissingDataError: The records hold no tables.
    """
    shared, origins = SharedPixels.of(records), tables_of(records).origins
    wanted = np.array(list(ORIGINS.values()))
    is_other = np.ones((len(shared.truth_rows), len(ORIGINS)), dtype=bool)
    held = shared.truth_rows != NO_ROW
    is_other[held] = origins[shared.truth_rows[held], None] != wanted
    pairs = shared.ranked_pairs(records.protocol)
    matched, ignored, _ = assign(pairs, is_other, len(records.scores))
    owners = images_of(records.truth_offsets)
    return {
        name: Column(
            matched[:, way],
            ignored[:, way],
            np.bincount(owners[origins == origin], minlength=len(records)),
        )
        for way, (name, origin) in enumerate(ORIGINS.items())
    }
