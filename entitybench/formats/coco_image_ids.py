"""The image ids of an exported COCO file."""

from __future__ import annotations

from collections.abc import Callable, Collection

from entitybench.formats.image_ids import ImageId, is_decimal

_LARGEST = 2**53  # the numbers that every JSON reader keeps exactly


def coco_ids(image_ids: Collection[str]) -> Callable[[str], ImageId]:
    """Return how file stems are written as COCO image ids.

    Numbers, if every stem is one and no two have the same value; else the stems themselves,
    which pycocotools and panopticapi take as well. `ImageIds` finds either again.

    >>> coco_ids(["000000000139", "000000000285"])("000000000139")
    139
    >>> coco_ids(["1", "01"])("01")
    '01'
    """
    if not all(is_decimal(stem) for stem in image_ids):
        return str
    values = {int(stem) for stem in image_ids}
    distinct = len(values) == len(image_ids)
    return int if distinct and max(values, default=0) < _LARGEST else str
