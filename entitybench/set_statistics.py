"""What an entity set looks like in numbers, from its table alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from entitybench.entity_set import EntitySet

SMALL, LARGE = 32**2, 96**2  # COCO's area limits in pixels


@dataclass(frozen=True, slots=True)
class SetStatistics:
    """Counts and shares of one set; NaN where there is nothing to average.

    Attributes:
        images: Number of images.
        entities: Number of entities.
        crowds: Number of crowds.
        per_image: Least, median, mean and greatest number of entities in an image.
        small: Share of entities below 32² pixels.
        medium: Share from 32² to below 96².
        large: Share from 96² on.
        void: Share of all pixels that nobody covers.
        crowd: Share of all pixels that crowds cover.
        empty_images: Images without an entity.
        width: Least and greatest width in pixels.
        height: Least and greatest height in pixels.
    """

    images: int
    entities: int
    crowds: int
    per_image: tuple[int, float, float, int]
    small: float
    medium: float
    large: float
    void: float
    crowd: float
    empty_images: int
    width: tuple[int, int]
    height: tuple[int, int]


def describe(entity_set: EntitySet) -> SetStatistics:
    """Stream the table of a set once and count."""
    counts: list[int] = []
    sizes: list[tuple[int, int]] = []
    small = medium = crowds = crowd_pixels = entity_pixels = pixels = 0
    for row in entity_set.rows():
        areas = [entity.area for entity in row.entities]
        counts.append(len(areas))
        sizes.append((row.width, row.height))
        small += sum(area < SMALL for area in areas)
        medium += sum(SMALL <= area < LARGE for area in areas)
        entity_pixels += sum(areas)
        crowds += len(row.crowd)
        crowd_pixels += sum(region.area for region in row.crowd)
        pixels += row.width * row.height
    total = sum(counts)
    widths, heights = zip(*sizes, strict=True) if sizes else ((0,), (0,))
    return SetStatistics(
        images=len(counts),
        entities=total,
        crowds=crowds,
        per_image=(
            min(counts, default=0),
            float(np.median(counts)) if counts else float("nan"),
            _share(total, len(counts)),
            max(counts, default=0),
        ),
        small=_share(small, total),
        medium=_share(medium, total),
        large=_share(total - small - medium, total),
        void=_share(pixels - entity_pixels - crowd_pixels, pixels),
        crowd=_share(crowd_pixels, pixels),
        empty_images=counts.count(0),
        width=(min(widths), max(widths)),
        height=(min(heights), max(heights)),
    )


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
