"""ADE20K, the full release of 2021 or of 2016 (`docs/sources/ade20k-full.md`).

Objects come from `_seg.png`: red and green hold the class, blue the object.  Blue is the object's
rank scaled to 255, so beyond 255 objects some share a value, and beyond 510 the first one's is 0;
the masks of the 2021 release tell them apart, the classes do so in part.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath

import msgspec
import numpy as np
from numpy.typing import NDArray

from entitybench.converters.labels import LabelRuns, read_labels
from entitybench.converters.source import ConvertedImage, Options, SetPlan, Source, SourceImage
from entitybench.converters.source_tree import SourceTree
from entitybench.entity_map import EntityMap
from entitybench.entity_set import Provenance
from entitybench.errors import MissingDataError
from entitybench.formats.json_file import decode_json

_SUFFIX = "_seg.png"
_FOLDERS = {"train": "training", "val": "validation"}
_BLUES = 255  # values that tell objects apart
_HIDDEN, _VISIBLE = 128, 255  # in the mask of an object


@dataclass(frozen=True, slots=True)
class _Release:
    """One of the two releases.

    Attributes:
        stem: What the names of its sets begin with.
        name: Its folder, and its archive.
        images: Where the splits are in it.
        counts: Images of each split.
    """

    stem: str
    name: str
    images: str
    counts: dict[str, int]

    def folder(self, tree: SourceTree, split: str) -> str | None:
        """Return the folder of a split, if it holds annotations of this release."""
        for top in (f"{self.name}/", ""):
            folder = f"{top}{self.images}/{_FOLDERS[split]}"
            if tree.names(folder, suffix=_SUFFIX):
                return folder
        return None


_RELEASES = (
    _Release(
        "ade20k_full_2021", "ADE20K_2021_17_01", "images/ADE", {"train": 25_574, "val": 2_000}
    ),
    _Release("ade20k_full_2016", "ADE20K_2016_07_26", "images", {"train": 20_210, "val": 2_000}),
)


@dataclass(frozen=True, slots=True)
class FullImage(SourceImage):
    """One image.

    Attributes:
        stem: Its files' names up to `.jpg`, `.json` or `_seg.png`.
    """

    stem: str


def find(tree: SourceTree) -> list[str]:
    """Tell which splits are in a tree."""
    mounted = _mounted(tree)
    return [
        split for split in _FOLDERS if any(release.folder(mounted, split) for release in _RELEASES)
    ]


def plan(tree: SourceTree, split: str, options: Options) -> list[SetPlan[FullImage]]:
    """Plan the sets of one split: one for each release that is there.

    Raises:
        MissingDataError: Photographs are there whose annotation is not.
    """
    mounted = _mounted(tree)
    folders = ((release, release.folder(mounted, split)) for release in _RELEASES)
    return [
        SetPlan(
            tree=mounted,
            images=_images(mounted, folder),
            read=partial(read_image, mounted),
            photographs=folder,
            stem=release.stem,
            release_images=release.counts[split],
        )
        for release, folder in folders
        if folder is not None
    ]


def _mounted(tree: SourceTree) -> SourceTree:
    return tree.with_archives(*(f"{release.name}.zip" for release in _RELEASES))


def _images(tree: SourceTree, folder: str) -> list[FullImage]:
    stems = [name.removesuffix(_SUFFIX) for name in tree.names(folder, suffix=_SUFFIX)]
    photographs = {name.removesuffix(".jpg") for name in tree.names(folder, suffix=".jpg")}
    bare = sorted(photographs - set(stems))
    if bare:
        msg = f"photographs without a `{_SUFFIX}`: {len(bare):,} of {len(photographs):,}"
        raise MissingDataError(msg, where=[tree.place(stem + _SUFFIX) for stem in bare])
    return [
        FullImage(PurePosixPath(stem).name, f"{stem.removeprefix(folder + '/')}.jpg", stem)
        for stem in stems
    ]


def read_image(tree: SourceTree, image: FullImage) -> ConvertedImage:
    """Read one image: objects in the order of blue, then of their class.

    Raises:
        FormatError: A picture is damaged, of another mode or size.
        MissingDataError: Some of the masks that an image needs are there, others not.
    """
    runs = LabelRuns.of(read_labels(tree, image.stem + _SUFFIX, ("RGB",), "8-bit RGB"))
    classes = (runs.labels & 0xFF) // 10 * 256 + (runs.labels >> 8 & 0xFF)
    blues = runs.labels >> 16
    is_object = classes > 0
    warnings = []
    if np.any(blues[~is_object]):
        odd = int(runs.areas[~is_object & (blues > 0)].sum())
        warnings.append(f"pixels of an object without a class, which are void: {odd:,}")
    keys, places = np.unique((blues << 16 | classes)[is_object], return_inverse=True)
    ids = np.zeros(len(runs.labels), dtype=np.int64)
    ids[is_object] = places + 1
    regions = Regions(runs.entity_map(ids, len(keys)), keys)
    if not regions.may_be_shared:
        return ConvertedImage(regions.map, regions.origins, warnings=tuple(warnings))
    return _told_apart(tree, image, regions, warnings)


@dataclass(frozen=True, slots=True, eq=False)
class Regions:
    """What blue and class tell apart.

    Attributes:
        map: M regions as entities.
        keys: `(M,)` 65536 · blue + class of each, ascending.
    """

    map: EntityMap
    keys: NDArray[np.integer]

    @property
    def blues(self) -> list[int]:
        """Blue of each region."""
        return [int(key) >> 16 for key in self.keys]

    @property
    def classes(self) -> list[int]:
        """Class of each region."""
        return [int(key) & 0xFFFF for key in self.keys]

    @property
    def may_be_shared(self) -> bool:
        """Whether objects may share a value of blue: it has run out, or has several classes."""
        distinct = len(set(self.blues))
        return distinct < len(self.keys) or distinct >= _BLUES or 0 in self.blues

    @property
    def origins(self) -> tuple[Provenance, ...]:
        """Provenance of each region: blue, and the class where blue alone does not tell."""
        counts = Counter(self.blues)
        return tuple(
            Provenance(blue if counts[blue] == 1 else f"{blue}/{number}", number)
            for blue, number in zip(self.blues, self.classes, strict=True)
        )


# --- more than 255 objects ------------------------------------------------------


class _Parts(msgspec.Struct, frozen=True):
    part_level: int = 0


class AnnotatedObject(msgspec.Struct, frozen=True):
    """An object, or a part of one, as the release of 2021 lists it.

    Attributes:
        id: Its number in the image; there are gaps.
        name_ndx: Its class.
        instance_mask: Its mask, from the folder of the file.
        parts: `part_level` 0: no part.
    """

    id: int
    name_ndx: int
    instance_mask: str
    parts: _Parts = _Parts()


class _Annotation(msgspec.Struct, frozen=True):
    objects: tuple[AnnotatedObject, ...] = msgspec.field(name="object")


class _File(msgspec.Struct, frozen=True):
    annotation: _Annotation


def _told_apart(
    tree: SourceTree, image: FullImage, regions: Regions, warnings: list[str]
) -> ConvertedImage:
    """Divide regions that several objects share, by the masks of the release of 2021."""
    if f"{image.stem}.json" not in tree or not tree.has_folder(image.stem):
        warnings.append(
            "blue has run out, and there are no masks: objects of one class that share a value "
            "are one entity"
        )
        return ConvertedImage(regions.map, regions.origins, warnings=tuple(warnings))
    division = _Division(regions)
    for thing in read_objects(tree, f"{image.stem}.json"):
        if thing.parts.part_level == 0:
            name = f"{PurePosixPath(image.stem).parent}/{thing.instance_mask}"
            division.add(thing, read_labels(tree, name, ("L",), "8-bit gray", regions.map.shape))
    return division.finish(warnings)


def read_objects(tree: SourceTree, name: str) -> tuple[AnnotatedObject, ...]:
    """Read the objects of an image, parts too. Names are UTF-8 or, in some files, Latin-1.

    Raises:
        FormatError: Not JSON of this format.
    """
    data = tree.read(name)
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        data = data.decode("latin-1").encode("utf-8")
    return decode_json(data, _File, tree.place(name)).annotation.objects


@dataclass(frozen=True, slots=True, eq=False)
class _Claim:
    """Where one object is in the region that it shares: indices of pixels."""

    object_id: int
    visible: NDArray[np.intp]
    hidden: NDArray[np.intp]


class _Division:
    """Divides the regions among the objects that claim them.

    An object is in one region: of its class, where most of its visible pixels are. A region with
    one object, or none, stays whole. In others a pixel goes to the object that is visible there,
    else to the first that has it among its hidden ones (some hundred pixels of an image are in
    the region of an object that its own mask calls hidden), else it is void.
    """

    def __init__(self, regions: Regions) -> None:
        self._regions = regions
        self._dense = regions.map.to_array().ravel()
        self._claims: dict[int, list[_Claim]] = defaultdict(list)  # by region, from 1

    def add(self, thing: AnnotatedObject, mask: NDArray[np.integer]) -> None:
        """Let an object claim its region."""
        visible = np.flatnonzero(mask.ravel() == _VISIBLE)
        pixels = np.bincount(self._dense[visible], minlength=len(self._regions.keys) + 1)[1:]
        pixels[np.array(self._regions.classes) != thing.name_ndx] = 0
        if pixels.any():
            region = int(pixels.argmax()) + 1
            hidden = np.flatnonzero((mask.ravel() == _HIDDEN) & (self._dense == region))
            visible = visible[self._dense[visible] == region]
            self._claims[region].append(_Claim(thing.id, visible, hidden))

    def finish(self, warnings: Sequence[str]) -> ConvertedImage:
        """Number what came of it: in the order of regions, then in that of the file."""
        ids = np.zeros(self._dense.shape, dtype=np.int32)
        origins: list[Provenance] = []
        for region, origin in enumerate(self._regions.origins, start=1):
            claims = self._claims[region]
            if len(claims) < 2:
                origins.append(origin)
                ids[self._dense == region] = len(origins)
                continue
            blue, number = self._regions.blues[region - 1], origin.category_id
            for claim in claims:
                origins.append(Provenance(f"{blue}/{number}/{claim.object_id}", number))
                visible = claim.visible[ids[claim.visible] == 0]
                ids[visible] = len(origins)
            for i, claim in enumerate(claims, start=len(origins) - len(claims) + 1):
                ids[claim.hidden[ids[claim.hidden] == 0]] = i
        runs = LabelRuns.of(ids.reshape(self._regions.map.shape))
        alive = runs.labels[runs.labels > 0]
        lost = int(np.count_nonzero((self._dense > 0) & (ids == 0)))
        told = [f"pixels that no mask of their objects holds, which are void: {lost:,}"] * bool(
            lost
        )
        return ConvertedImage(
            runs.entity_map(np.searchsorted([0, *alive], runs.labels), len(alive)),
            tuple(origins[number - 1] for number in alive),
            warnings=(*warnings, *told),
        )


_TERMS = "http://groups.csail.mit.edu/vision/datasets/ADE20K/request_data/"

SOURCE = Source(
    name="ade20k-full",
    title="ADE20K, full release (2021 or 2016)",
    licence="non-commercial research and education only; the terms of use of the release apply",
    splits=_RELEASES[0].counts,
    find=find,
    plan=plan,
    expected="`ADE20K_2021_17_01/images/ADE/` or `ADE20K_2016_07_26/images/`, with "
    f"`training/` and `validation/` and in them `…{_SUFFIX}`; or the archive of one of them",
    hint=f"the release of 2021 needs a registration at {_TERMS}; pass its folder with `--source`",
)
