"""The entity map: which entity owns each pixel of one image.

An entity map cannot hold an overlap: that is a property of the value, not a check
beside it. It is kept as *runs*, the maximal stretches of one id in row-major order,
because nearly everything a benchmark asks (areas, boxes, shared pixels) costs time
in proportion to the runs and not to the pixels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from entitybench import kernel
from entitybench.errors import FormatError

MAX_PIXELS = 2**31 - 1  # run starts are int32


@dataclass(frozen=True, slots=True, eq=False)
class EntityMap:
    """Ids of one image: 0 void, `1…N` entities, `N+1…N+C` crowds.

    Make one with `from_array` or `from_runs`; the bare constructor checks nothing.
    The arrays are read-only.

    Attributes:
        shape: Height and width in pixels.
        num_entities: N. An entity may have no pixel at all (an empty prediction).
        num_crowds: C.
        starts: `(R,)` int32 first pixel of each run in row-major order; `starts[0]` is 0.
        ids: `(R,)` int32 id of each run; neighbours differ, so the runs are unique.

    >>> m = EntityMap.from_array([[7, 7, 9], [0, 9, 9]])
    >>> m.to_array()
    array([[1, 1, 2],
           [0, 2, 2]], dtype=int32)
    >>> m.areas
    array([1, 2, 3])
    >>> m.boxes[2]  # x, y, width, height
    array([1, 0, 2, 2])
    """

    shape: tuple[int, int]
    num_entities: int
    num_crowds: int
    starts: NDArray[np.int32]
    ids: NDArray[np.int32]

    def __post_init__(self) -> None:
        self.starts.flags.writeable = False
        self.ids.flags.writeable = False

    @classmethod
    def from_array(
        cls,
        array: ArrayLike,
        *,
        entities: Sequence[int] | None = None,
        crowds: Sequence[int] = (),
        void: Sequence[int] | None = (0,),
    ) -> EntityMap:
        """Take any integer ids and number them `1…N`, `N+1…N+C`.

        Args:
            array: `(H, W)` integers of any width, negative ones too.
            entities: The ids that become `1…N`, in that order; an id without a pixel
                stays an entity of zero area. None: every id that is neither void nor
                crowd, ascending.
            crowds: The ids that become `N+1…N+C`, in that order.
            void: The ids that mean "nobody". None: every id that is not listed. A listed
                entity or crowd is never void, so a list may claim id 0.

        Raises:
            FormatError: The array is not two-dimensional, not of integers, empty or too
                large; an id is listed twice; the array holds an id that nothing lists.
        """
        values = _checked(array)
        starts, run_values = _runs_of(values.ravel())
        present, inverse = np.unique(run_values, return_inverse=True)
        if entities is None:
            known = {*crowds, *(void or ())}
            entities = [int(v) for v in present if int(v) not in known]
        new_ids = _new_ids(present, [*entities, *crowds], void)
        height, width = values.shape
        return cls.from_runs((height, width), starts, new_ids[inverse], len(entities), len(crowds))

    @classmethod
    def from_runs(
        cls,
        shape: tuple[int, int],
        starts: ArrayLike,
        ids: ArrayLike,
        num_entities: int,
        num_crowds: int = 0,
    ) -> EntityMap:
        """Take runs in row-major order; neighbours of one id are joined.

        Args:
            shape: Height and width in pixels.
            starts: `(R,)` strictly ascending, from 0 to below H×W.
            ids: `(R,)` ids in `0…num_entities + num_crowds`.
            num_entities: N.
            num_crowds: C.

        Raises:
            FormatError: The runs do not start at 0, do not ascend, leave the image, or
                hold an id beyond N + C.
        """
        first, owner = np.asarray(starts), np.asarray(ids)
        pixels = _num_pixels(shape)
        if not (first.size == owner.size > 0 and first[0] == 0 and first[-1] < pixels):
            msg = f"runs do not cover an image of {shape[1]}×{shape[0]} from pixel 0"
            raise FormatError(msg)
        if np.any(first[1:] <= first[:-1]):
            msg = "runs do not ascend"
            raise FormatError(msg)
        if owner.min() < 0 or owner.max() > num_entities + num_crowds:
            msg = (
                f"run ids span {owner.min()}…{owner.max()}, "
                f"allowed are 0…{num_entities + num_crowds}"
            )
            raise FormatError(msg)
        keep = np.ones(owner.size, dtype=bool)
        np.not_equal(owner[1:], owner[:-1], out=keep[1:])
        return cls(
            (int(shape[0]), int(shape[1])),
            int(num_entities),
            int(num_crowds),
            first[keep].astype(np.int32),
            owner[keep].astype(np.int32),
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, EntityMap):
            return NotImplemented
        return (
            self.shape == other.shape
            and self.num_entities == other.num_entities
            and self.num_crowds == other.num_crowds
            and np.array_equal(self.starts, other.starts)
            and np.array_equal(self.ids, other.ids)
        )

    __hash__ = None  # type: ignore[assignment]  # arrays inside: equal by value, not hashable

    def __repr__(self) -> str:
        height, width = self.shape
        return (
            f"EntityMap({width}×{height}, {self.num_entities} entities, "
            f"{self.num_crowds} crowds, {len(self.starts)} runs)"
        )

    @property
    def num_ids(self) -> int:
        """N + C, the largest id."""
        return self.num_entities + self.num_crowds

    @property
    def lengths(self) -> NDArray[np.int64]:
        """`(R,)` pixels of each run."""
        ends = np.append(self.starts[1:], self.shape[0] * self.shape[1]).astype(np.int64)
        return ends - self.starts

    @property
    def areas(self) -> NDArray[np.int64]:
        """`(N + C + 1,)` pixels of each id; index 0 is void."""
        if kernel.is_active():
            return kernel.areas_of(self.starts, self.ids, self.shape, self.num_ids)
        counts = np.zeros(self.num_ids + 1, dtype=np.int64)
        np.add.at(counts, self.ids, self.lengths)
        return counts

    @property
    def boxes(self) -> NDArray[np.int64]:
        """`(N + C + 1, 4)` tight boxes x, y, width, height in pixels; zeros where no pixel is.

        The far side is exclusive: one pixel has width and height 1.
        """
        if kernel.is_active():
            return kernel.measure(self.starts, self.ids, self.shape, self.num_ids)[1]
        rows = self.row_runs()
        boxes = np.zeros((self.num_ids + 1, 4), dtype=np.int64)
        order = np.argsort(rows.ids, kind="stable")
        ids = rows.ids[order]
        heads = np.flatnonzero(np.diff(ids, prepend=-1))
        left = np.minimum.reduceat(rows.left[order], heads)
        right = np.maximum.reduceat(rows.right[order], heads)
        top = np.minimum.reduceat(rows.row[order], heads)
        bottom = np.maximum.reduceat(rows.row[order], heads) + 1
        boxes[ids[heads]] = np.stack([left, top, right - left, bottom - top], axis=1)
        return boxes

    @property
    def mass_centres(self) -> NDArray[np.float64]:
        """`(N + C + 1, 2)` mean x and y of the pixel indices of each id; NaN without a pixel.

        This is the paper's mass centre (section 4.2): it may lie outside the entity.
        """
        rows = self.row_runs()
        length = rows.right - rows.left
        count = np.bincount(rows.ids, weights=length, minlength=self.num_ids + 1)
        # a run from left to right - 1 has a mean x of (left + right - 1) / 2
        x = np.bincount(rows.ids, (rows.left + rows.right - 1) / 2 * length, self.num_ids + 1)
        y = np.bincount(rows.ids, rows.row * length, self.num_ids + 1)
        with np.errstate(invalid="ignore"):
            centres: NDArray[np.float64] = np.stack([x, y], axis=1) / count[:, None]
        return centres

    @property
    def num_parts(self) -> NDArray[np.int64]:
        """`(N + C + 1,)` number of 4-connected parts of each id; 0 without a pixel."""
        from scipy.sparse import coo_array  # a quarter of a second that few callers need
        from scipy.sparse.csgraph import connected_components

        rows = self.row_runs()
        height, width = self.shape
        nodes = np.repeat(np.arange(rows.ids.size), rows.right - rows.left).reshape(height, width)
        above, below = nodes[:-1].ravel(), nodes[1:].ravel()
        same = rows.ids[above] == rows.ids[below]
        above, below = above[same], below[same]
        links = coo_array((np.ones(above.size, dtype=bool), (above, below)), (rows.ids.size,) * 2)
        _, part = connected_components(links, directed=False)
        _, first = np.unique(part, return_index=True)
        return np.bincount(rows.ids[first], minlength=self.num_ids + 1).astype(np.int64)

    def row_runs(self) -> RowRuns:
        """Cut the runs at the ends of the rows."""
        height, width = self.shape
        starts = np.union1d(self.starts, np.arange(0, height * width, width)).astype(np.int64)
        owner = np.searchsorted(self.starts, starts, side="right") - 1
        row, left = np.divmod(starts, width)
        right = left + np.diff(starts, append=height * width)
        return RowRuns(row, left, right, self.ids[owner])

    def to_array(self) -> NDArray[np.int32]:
        """Return the dense form: `(H, W)` int32 ids, a fresh array."""
        return np.repeat(self.ids, self.lengths).reshape(self.shape)


@dataclass(frozen=True, slots=True)
class RowRuns:
    """Runs that do not cross the end of a row.

    Attributes:
        row: `(S,)` int64 row of each run.
        left: `(S,)` int64 first column.
        right: `(S,)` int64 column behind the last one.
        ids: `(S,)` int32 ids.
    """

    row: NDArray[np.int64]
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    ids: NDArray[np.int32]


def _checked(array: ArrayLike) -> NDArray[np.generic]:
    values = np.asarray(array)
    if values.ndim != 2:
        msg = f"an entity map has two dimensions, this array has shape {values.shape}"
        raise FormatError(msg)
    if values.dtype.kind not in "iu":
        msg = f"an entity map holds integers, this array holds {values.dtype}"
        raise FormatError(msg)
    _num_pixels(values.shape)
    return values


def _num_pixels(shape: tuple[int, ...]) -> int:
    height, width = int(shape[0]), int(shape[1])
    if not (height > 0 and width > 0 and height * width <= MAX_PIXELS):
        msg = f"an image of {width}×{height} pixels has no entity map"
        raise FormatError(msg)
    return height * width


def _runs_of(
    flat: NDArray[np.generic],
) -> tuple[NDArray[np.int64], NDArray[np.generic]]:
    starts = find_runs(flat)
    return starts, flat[starts]


def find_runs(flat: NDArray[np.generic]) -> NDArray[np.int64]:
    """Return the first index of each run of equal items; an empty array has none.

    >>> find_runs(np.array([7, 7, 9]))
    array([0, 2])
    """
    if kernel.is_active():
        return kernel.find_runs(flat).astype(np.int64)
    return np.flatnonzero(np.concatenate((np.ones(flat[:1].size, bool), flat[1:] != flat[:-1])))


def _new_ids(
    present: NDArray[np.generic], listed: Sequence[int], void: Sequence[int] | None
) -> NDArray[np.int32]:
    """Map each present id to its place in the list, counted from 1; void to 0."""
    place = {int(source): new for new, source in enumerate(listed, start=1)}
    if len(place) < len(listed):
        twice = sorted(int(i) for i, count in Counter(listed).items() if count > 1)
        msg = f"ids listed twice: {_shown(twice)}"
        raise FormatError(msg)
    unlisted = [int(v) for v in present if int(v) not in place]
    strange = [] if void is None else sorted(set(unlisted) - {int(v) for v in void})
    if strange:
        msg = f"ids in the map that nothing lists: {_shown(strange)}"
        raise FormatError(msg)
    return np.array([place.get(int(v), 0) for v in present], dtype=np.int32)


def _shown(ids: Sequence[int], most: int = 5) -> str:
    rest = f" and {len(ids) - most} more" if len(ids) > most else ""
    return ", ".join(map(str, ids[:most])) + rest
