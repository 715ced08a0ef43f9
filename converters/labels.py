"""Pictures whose pixels are labels: read, and turned into entity maps by their runs.

Sources code what a pixel belongs to in many ways: a class, a class and an instance, three bytes.
A rule that says what becomes of a pixel then depends on its label alone, and an image has
millions of pixels but few labels.  So a converter looks at the distinct labels only.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from entitybench import kernel
from entitybench.converters.source_tree import SourceTree
from entitybench.entity_map import EntityMap, find_runs
from entitybench.errors import FormatError
from entitybench.png import open_png
from entitybench.png_rows import read_values

_MOST_BYTES = 1 << 28  # of one PNG: far beyond any real one


def read_labels(
    tree: SourceTree,
    name: str,
    modes: Collection[str],
    wanted: str,
    shape: tuple[int, int] | None = None,
) -> NDArray[np.integer]:
    """Read a label picture from a source tree.

    Args:
        tree: The files.
        name: The PNG.
        modes: The Pillow modes that will do.
        wanted: How a message calls them.
        shape: The height and width that it must have, if known.

    Returns:
        `(H, W)` labels; of RGB: uint32 R + 256 G + 65536 B.

    Raises:
        MissingDataError: It is not there.
        FormatError: Not a PNG, damaged, of another size or of another mode.
    """
    png = tree.read(name, _MOST_BYTES)
    plain = read_values(png, shape, modes) if kernel.is_active() else None
    if plain is not None:
        return plain
    try:
        image = open_png(png, shape, modes, wanted)
    except FormatError as error:
        raise (error if error.where else error.at(tree.place(name))) from error
    if image.mode != "RGB":
        return np.asarray(image)
    # four bytes a pixel, so that a pixel is one little-endian number
    pixels = np.frombuffer(image.tobytes("raw", "RGBX"), dtype="<u4").reshape(image.size[::-1])
    return (pixels & np.uint32(0xFFFFFF)).astype(np.uint32, copy=False)


@dataclass(frozen=True, slots=True, eq=False)
class LabelRuns:
    """The labels of one image, as runs in row-major order.

    Attributes:
        shape: Height and width in pixels.
        labels: `(V,)` the distinct labels, ascending.
        starts: `(R,)` first pixel of each run.
        places: `(R,)` which of the labels each run has.

    >>> runs = LabelRuns.of(np.array([[7, 7, 0], [7, 9, 9]]))
    >>> runs.labels, runs.areas
    (array([0, 7, 9]), array([1, 3, 2]))
    >>> runs.entity_map([0, 2, 1], num_entities=2).to_array()
    array([[2, 2, 0],
           [2, 1, 1]], dtype=int32)
    """

    shape: tuple[int, int]
    labels: NDArray[np.integer]
    starts: NDArray[np.int64]
    places: NDArray[np.int64]

    @classmethod
    def of(cls, labels: NDArray[np.integer]) -> LabelRuns:
        """Take `(H, W)` labels."""
        flat = labels.ravel()
        starts = find_runs(flat)
        distinct, places = np.unique(flat[starts], return_inverse=True)
        return cls(labels.shape, distinct, starts, places)

    @property
    def areas(self) -> NDArray[np.int64]:
        """`(V,)` pixels of each label."""
        height, width = self.shape
        lengths = np.diff(self.starts, append=height * width)
        return np.bincount(self.places, lengths, len(self.labels)).astype(np.int64)

    def entity_map(self, ids: ArrayLike, num_entities: int, num_crowds: int = 0) -> EntityMap:
        """Give each label an id.

        Args:
            ids: `(V,)` 0 void, `1…N` entities, `N+1…N+C` crowds; labels may share one.
            num_entities: N.
            num_crowds: C.
        """
        new = np.asarray(ids)[self.places]
        return EntityMap.from_runs(self.shape, self.starts, new, num_entities, num_crowds)
