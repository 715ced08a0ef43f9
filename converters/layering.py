"""Truth that overlaps: annotations of one image laid over each other, in a declared order.

Instance annotations are drawn one by one, and many releases let them overlap.  An entity map
cannot, and what hides what is a choice that moves scores.  So it is never made silently: without
a z-order such truth is refused, and the z-order that was chosen stands in the set's options.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from entitybench.candidates import Candidates, OverlapPolicy, Resolution, resolve
from entitybench.converters.source import ConvertedImage, Options
from entitybench.entity_map import EntityMap
from entitybench.entity_set import Provenance
from entitybench.errors import OverlapError, UnknownNameError

Z_ORDER_OPTION: Options = {"z_order": None}
"""The option, and its default, of every source whose truth may overlap."""


class ZOrder(StrEnum):
    """Which of two annotations is on top.

    `AREA`: the one of fewer pixels; of equal ones the later. `ORDER`: the later in the file.
    Either way a crowd is below every entity.
    """

    AREA = "area"
    ORDER = "order"

    @classmethod
    def of(cls, options: Options) -> ZOrder | None:
        """Return the z-order among a conversion's options; None where overlap is refused.

        Raises:
            UnknownNameError: There is no such z-order.
        """
        value = options["z_order"]
        if value is None:
            return None
        if value not in list(cls):
            kind = "z-order"
            raise UnknownNameError.of(kind, str(value), cls)
        return cls(value)


@dataclass(frozen=True, slots=True)
class Annotation:
    """One annotation of an image.

    Attributes:
        segmentation: COCO RLE or polygons.
        origin: Where it comes from.
        is_crowd: Whether it is a region of several things.
    """

    segmentation: object
    origin: Provenance
    is_crowd: bool = False


def lay_out(
    shape: tuple[int, int],
    annotations: Sequence[Annotation],
    z_order: ZOrder | None,
    place: str,
) -> ConvertedImage:
    """Make the entity map of annotations that may overlap.

    Entities are numbered in the order of the annotations. One without a pixel, be it that it
    never had one or that others hide it, is dropped with a warning: truth that nobody can see
    cannot be found.

    Args:
        shape: Height and width of the image.
        annotations: In the order of the file.
        z_order: What is on top; None refuses overlap.
        place: Where the annotations are, for messages.

    Raises:
        OverlapError: Annotations share pixels and there is no z-order; names every pair.
        FormatError: A segmentation is damaged, or of another size.
    """
    # a stable sort: entities first, each kind in the order of the file
    ordered = sorted(annotations, key=lambda annotation: annotation.is_crowd)
    names = [f"{place}: annotation {a.origin.source_id}" for a in ordered]
    flat = [0.0] * len(ordered)
    candidates = Candidates.from_coco(shape, (a.segmentation for a in ordered), flat, names=names)
    num_entities = sum(not annotation.is_crowd for annotation in ordered)
    heights = _heights(candidates, num_entities, z_order or ZOrder.ORDER)
    done = resolve(replace(candidates, scores=heights), OverlapPolicy.RESOLVE)
    if done.overlap and z_order is None:
        raise _refusal(done, ordered, place)
    empty = int(np.count_nonzero(candidates.areas == 0))
    return _converted(done, ordered, num_entities, empty)


def _heights(candidates: Candidates, num_entities: int, z_order: ZOrder) -> NDArray[np.float64]:
    """Return how high each annotation lies, in [0, 1], no two alike; crowds lowest."""
    place = np.arange(len(candidates))
    below = -candidates.areas if z_order is ZOrder.AREA else place
    upwards = np.lexsort((place, below, place < num_entities))
    heights = np.empty(len(candidates))
    heights[upwards] = (place + 1) / max(1, len(candidates))
    return heights


def _refusal(done: Resolution, ordered: Sequence[Annotation], place: str) -> OverlapError:
    ids = [annotation.origin.source_id for annotation in ordered]
    pairs = zip(done.overlap.pairs, done.overlap.pixels, strict=True)
    msg = "annotations of one image overlap"
    return OverlapError(
        msg,
        where=[
            f"{place}: annotations {ids[a]} and {ids[b]} share {shared:,} pixel{'s' * (shared > 1)}"
            for (a, b), shared in pairs
        ],
        hint="AP_e knows no overlap: `--z-order area` lays the smaller on top, `--z-order order` "
        "the later in the file; the choice stands in the set's options",
    )


def _converted(
    done: Resolution, ordered: Sequence[Annotation], num_entities: int, empty: int
) -> ConvertedImage:
    areas = done.map.areas[1:]
    seen = done.kept[areas > 0]
    new_ids = np.zeros(len(areas) + 1, dtype=np.int32)
    new_ids[1:][areas > 0] = np.arange(1, len(seen) + 1)
    entities = int(np.count_nonzero(seen < num_entities))
    entity_map = EntityMap.from_runs(
        done.map.shape,
        done.map.starts,
        new_ids[done.map.ids],
        entities,
        len(seen) - entities,
    )
    origins = tuple(ordered[index].origin for index in seen.tolist())
    warnings = _warnings(done.num_emptied, empty, len(ordered))
    return ConvertedImage(entity_map, origins[:entities], origins[entities:], warnings=warnings)


def _warnings(hidden: int, empty: int, total: int) -> tuple[str, ...]:
    told = (
        (hidden, "are hidden by others and left out"),
        (empty, "have no pixel and are left out"),
    )
    return tuple(f"{count:,} of {total:,} annotations {what}" for count, what in told if count)
