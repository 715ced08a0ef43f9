"""The named choices that define a score, and the numbers that every protocol shares.

`STRICT` is COCO's rule for crowds with sizes in pixels. `OFFICIAL` is what the paper's released
code does, quirks included but for its bug with id 0; published numbers compare with it alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from entitybench.entity_map import EntityMap
from entitybench.errors import ConflictError, FormatError, MissingDataError, UnknownNameError


def _frozen(values: ArrayLike) -> NDArray[np.float64]:
    array = np.array(values, dtype=np.float64)
    array.flags.writeable = False
    return array


# Spelled as pycocotools spells them: other ways to step by .05 or .01 differ in last bits, and
# `np.arange(.5, 1, .05)` then rejects an IoU of exactly 3/5.
IOU_THRESHOLDS = _frozen(np.linspace(0.5, 0.95, round((0.95 - 0.5) / 0.05) + 1))
RECALL_POINTS = _frozen(np.linspace(0.0, 1.00, round((1.00 - 0.0) / 0.01) + 1))
MAX_DETECTIONS = (1, 10, 100)
AREA_NAMES = ("all", "small", "medium", "large")
AREA_RANGES = _frozen([(0.0, 1e5**2), (0.0, 32.0**2), (32.0**2, 96.0**2), (96.0**2, 1e5**2)])
"""`(4, 2)` least and greatest size in pixels, both included: 1024 is small *and* medium."""


class CrowdRule(StrEnum):
    """What a crowd does to the predictions in it."""

    IGNORE = "ignore"
    VOID = "void"


class VoidRule(StrEnum):
    """What void does to the predictions in it."""

    COUNTED = "counted"
    IGNORE = "ignore"


class SizeRule(StrEnum):
    """What the size of a true entity is; a prediction's size is always its pixels."""

    PIXELS = "pixels"
    ANNOTATION = "annotation"
    BOX = "box"


@dataclass(frozen=True, slots=True)
class Protocol:
    """The choices in which protocols differ.

    Attributes:
        name: `strict` or `official`.
        crowd: `IGNORE`: an unmatched prediction with intersection / own area ≥ t in one crowd is
            ignored at t. `VOID`: a crowd is void.
        size: What decides between small, medium and large.
        void: `COUNTED`: predictions in void are false positives. `IGNORE`: void is one more
            crowd.
    """

    name: str
    crowd: CrowdRule
    size: SizeRule
    void: VoidRule = VoidRule.COUNTED

    @classmethod
    def named(cls, name: str, void: str = VoidRule.COUNTED) -> Protocol:
        """Return the protocol of that name.

        Raises:
            UnknownNameError: No such protocol or void rule.
            ConflictError: `official` with another void rule than its own.

        >>> Protocol.named("strict", void="ignore").void
        <VoidRule.IGNORE: 'ignore'>
        """
        for kind, value, known in (("protocol", name, PROTOCOLS), ("void rule", void, VoidRule)):
            if value not in (names := [str(k) for k in known]):
                raise UnknownNameError.of(kind, value, names)
        if name == OFFICIAL.name and void != OFFICIAL.void:
            msg = f"the official protocol counts void, it cannot run with void `{void}`"
            raise ConflictError(msg, hint="use `--protocol strict --void ignore`")
        return replace(PROTOCOLS[name], void=VoidRule(void))

    def with_annotated_sizes(self) -> Protocol:
        """Take sizes from the annotation, as truth read directly from COCO JSON does.

        `official` has a rule of its own and stays as it is.
        """
        if self.size is SizeRule.BOX:
            return self
        return replace(self, size=SizeRule.ANNOTATION)


STRICT = Protocol("strict", CrowdRule.IGNORE, SizeRule.PIXELS)
OFFICIAL = Protocol("official", CrowdRule.VOID, SizeRule.BOX)
PROTOCOLS = {p.name: p for p in (STRICT, OFFICIAL)}


def within_ranges(sizes: NDArray[np.float64] | NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell in which area ranges each size is: `(N,)` sizes to `(N, 4)`, both ends included.

    >>> within_ranges(np.array([1024, 5000]))
    array([[ True,  True,  True, False],
           [ True, False,  True, False]])
    """
    column = sizes[:, None]
    inside: NDArray[np.bool_] = (column >= AREA_RANGES[:, 0]) & (column <= AREA_RANGES[:, 1])
    return inside


def truth_sizes(
    truth: EntityMap, protocol: Protocol, annotated: ArrayLike | None = None
) -> NDArray[np.float64]:
    """Return the sizes that the protocol gives the true entities.

    Args:
        truth: N entities; crowds have no size.
        protocol: Its size rule decides.
        annotated: `(N,)` sizes in pixels that the annotation states; looked at only where the
            rule is `ANNOTATION`.

    Returns:
        `(N,)` float64. `BOX` is the released code's: largest minus least coordinate *without*
        + 1, so a single pixel has size 0.

    Raises:
        MissingDataError: The rule is `ANNOTATION` and there are no annotated sizes.
        FormatError: Another number of sizes, or one that is negative or not finite.
    """
    entities = slice(1, truth.num_entities + 1)
    if protocol.size is SizeRule.PIXELS:
        return truth.areas[entities].astype(np.float64)
    if protocol.size is SizeRule.BOX:
        sides = np.maximum(truth.boxes[entities, 2:] - 1, 0)  # no pixel: size 0, not (-1)²
        return (sides[:, 0] * sides[:, 1]).astype(np.float64)
    if annotated is None:
        msg = "the truth has no annotated sizes"
        raise MissingDataError(msg)
    return checked_sizes(annotated, truth.num_entities)


def checked_sizes(sizes: ArrayLike, count: int) -> NDArray[np.float64]:
    """Return the sizes of true entities as `(count,)` float64.

    Raises:
        FormatError: Another number of sizes, or one that is negative or not finite.
    """
    values = np.asarray(sizes, dtype=np.float64)
    if values.shape != (count,):
        msg = f"{count} true entities need {count} sizes, got shape {values.shape}"
        raise FormatError(msg)
    bad = np.flatnonzero(~(np.isfinite(values) & (values >= 0)))
    if bad.size:
        msg = f"size {values[bad[0]]} of true entity {bad[0] + 1} is not a number of pixels"
        raise FormatError(msg)
    return values
