"""What panoptic quality by class is computed from: a row for each class that an image holds.

The sums stay with the match records, so that subsets, merged parts and resamples of images need
no label and no map.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from entitybench.metrics.ragged import images_of, offsets_of, rows_of

COLUMNS = ("class_offsets", "class_rows", "class_sums")


@dataclass(frozen=True, slots=True, eq=False)
class ClassSums:
    """Counts of I images by class; image i owns rows `[i]:[i + 1]` of the offsets.

    Attributes:
        names: The K classes of the truth.
        things: `(K,)` whether a class is of things; None where the source does not say.
        class_offsets: `(I + 1,)` int64.
        class_rows: `(R,)` int64 class of each row, ascending within an image.
        class_sums: `(R, 4)` float64 matched, spurious, missed, and summed IoU of the matches.
    """

    names: tuple[str, ...]
    things: tuple[bool | None, ...]
    class_offsets: NDArray[np.int64]
    class_rows: NDArray[np.int64]
    class_sums: NDArray[np.float64]

    @classmethod
    def merge(cls, parts: Sequence[ClassSums]) -> ClassSums | None:
        """Join the sums of several parts, in order; None if their classes differ."""
        if len({(part.names, part.things) for part in parts}) != 1:
            return None
        counts = np.concatenate([np.diff(part.class_offsets) for part in parts])
        return cls(
            parts[0].names,
            parts[0].things,
            offsets_of(counts),
            np.concatenate([part.class_rows for part in parts]),
            np.concatenate([part.class_sums for part in parts]),
        )

    def take(self, images: NDArray[np.int64]) -> ClassSums:
        """Return the sums of some images, given by position."""
        starts, ends = self.class_offsets[images], self.class_offsets[images + 1]
        rows = rows_of(starts, ends)
        return replace(
            self,
            class_offsets=offsets_of(ends - starts),
            class_rows=self.class_rows[rows],
            class_sums=self.class_sums[rows],
        )

    def pooled(self) -> NDArray[np.float64]:
        """Return the sums of all images together: `(K, 4)`."""
        sums = np.zeros((len(self.names), 4))
        np.add.at(sums, self.class_rows, self.class_sums)
        return sums

    def columns(self) -> dict[str, NDArray[Any]]:
        """Return every column by name."""
        return {name: getattr(self, name) for name in COLUMNS}

    def expected(self, num_images: int) -> dict[str, tuple[type[np.generic], tuple[int, ...]]]:
        """Return type and shape of every column, as far as the others decide them."""
        rows = len(self.class_rows)
        return {
            "class_offsets": (np.int64, (num_images + 1,)),
            "class_rows": (np.int64, (rows,)),
            "class_sums": (np.float64, (rows, 4)),
        }

    def sound(self) -> Iterator[tuple[str, bool | np.bool_]]:
        """Yield what must hold of columns as `expected`, and whether it does."""
        bounds, rows, sums = self.class_offsets, self.class_rows, self.class_sums
        whole = bounds[0] == 0 and bounds[-1] == len(rows) and np.all(np.diff(bounds) >= 0)
        yield "`class_offsets` do not ascend from 0 to the rows", bool(whole)
        yield "classes without a name", np.all((rows >= 0) & (rows < len(self.names)))
        yield "as many origins as classes", len(self.names) == len(self.things)
        if whole:
            places = images_of(bounds) * max(len(self.names), 1) + rows
            yield "classes of an image that do not ascend", np.all(np.diff(places) > 0)
        counts = sums[:, :3]
        yield "counts that are none", np.all((counts >= 0) & (counts == np.floor(counts)))
        yield (
            "matches whose IoU is not above one half",
            np.all((sums[:, 3] <= counts[:, 0]) & (2 * sums[:, 3] >= counts[:, 0])),
        )
