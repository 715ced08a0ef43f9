"""What a source is: the contract between a converter and the engine that runs it.

A new source is one file in this folder, `<name>.py` (`-` in the name becomes `_`), with one
`SOURCE = Source(…)`.  Nothing else needs touching: sources are found by looking into the folder.
A source says what it is called, how its files are recognised, and how one image is read; the engine
(`conversion.py`) does what all have in common.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Generic, TypeVar

import entitybench.converters
from entitybench.converters.source_tree import SourceTree
from entitybench.entity_map import EntityMap
from entitybench.entity_set import Category, Model, Option, Provenance
from entitybench.errors import UnknownNameError
from entitybench.sharding import id_order

Options = Mapping[str, Option]
WORLD = "world.json"
"""Lies beside a release that entitybench generated, and beside no other."""


@dataclass(frozen=True, slots=True)
class SourceImage:
    """One image that a source lists. Sources derive from it what else their reader needs.

    Attributes:
        id: The file stem of the photograph.
        file_name: The photograph, below the folder of photographs.
    """

    id: str
    file_name: str


ImageT = TypeVar("ImageT", bound=SourceImage)


@dataclass(frozen=True, slots=True)
class ConvertedImage:
    """What came of one image.

    Attributes:
        map: The entity map.
        entities: Where each entity came from, or nothing.
        crowds: Where each crowd came from, or nothing.
        scores: One per entity where the set is one of predictions.
        warnings: What a user should know about this image, a line each.
    """

    map: EntityMap
    entities: tuple[Provenance, ...] = ()
    crowds: tuple[Provenance, ...] = ()
    scores: tuple[float, ...] | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SetPlan(Generic[ImageT]):
    """One entity set that can be made of a split.

    Attributes:
        tree: The files.
        images: All images, in any order; `read` gets one of them.
        read: Reads one image: pure, and picklable (a module's function, or a `partial` of one).
        categories: The source's classes.
        photographs: The folder of the photographs in the tree, `.` for its top; they may be
            absent. Empty where there are none.
        stem: What the set's name begins with; the source's name unless given.
        suffix: What tells sets of one split apart (`a1`), if there are several.
        model: Given where the set is one of predictions.
        release_images: How many images the complete set has, where that is not the number of
            the source's split; 0 where unknown.
    """

    tree: SourceTree
    images: Sequence[ImageT]
    read: Callable[[ImageT], ConvertedImage]
    categories: tuple[Category, ...] = ()
    photographs: str = ""
    stem: str = ""
    suffix: str = ""
    model: Model | None = None
    release_images: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One original dataset release.

    Attributes:
        name: As on the command line: `coco`.
        title: As in messages: `COCO panoptic 2017`.
        licence: In one line.
        splits: Number of images of each split in the complete release; 0 where unknown.
        find: Tells which of the splits are in a tree; none where it is not this source. The
            tree may be a parent's: then it finds nothing, and is asked about the folders below.
        plan: Returns the sets of one split that was found, given the options. It mounts the
            archives that it needs. Raises `MissingDataError` where part of the split is missing.
        expected: The files by which the source is recognised, for messages.
        hint: How to get it, for messages.
        options: The source's own options and their defaults.
        profiles: Ways to convert; the first is the default.
        withheld: Splits that have no truth, and why: asking for one is refused with it.
        revision: Raised when the same files begin to give another entity set.
    """

    name: str
    title: str
    licence: str
    splits: Mapping[str, int]
    find: Callable[[SourceTree], Sequence[str]]
    plan: Callable[[SourceTree, str, Options], Sequence[SetPlan[Any]]]
    expected: str
    hint: str = ""
    options: Options = field(default_factory=dict)
    profiles: tuple[str, ...] = ("raw",)
    withheld: Mapping[str, str] = field(default_factory=dict)
    revision: int = 1


def find_source(name: str) -> Source:
    """Return the source of a name; only its own module is imported.

    Raises:
        UnknownNameError: There is none; tells the nearest.
    """
    module = name.replace("-", "_")
    source = _source_in(module) if module in _modules() else None
    if source is None or source.name != name:
        kind = "source"
        raise UnknownNameError.of(kind, name, known_sources())
    return source


def known_sources() -> dict[str, Source]:
    """Return every source in this folder by name."""
    found = filter(None, map(_source_in, _modules()))
    return {source.name: source for source in sorted(found, key=lambda s: s.name)}


def _modules() -> list[str]:
    path = entitybench.converters.__path__
    return [module.name for module in pkgutil.iter_modules(path) if not module.ispkg]


def _source_in(module: str) -> Source | None:
    loaded = import_module(f"{entitybench.converters.__name__}.{module}")
    source: Source | None = getattr(loaded, "SOURCE", None)
    return source


def in_id_order(images: Sequence[ImageT]) -> list[ImageT]:
    """Sort by id: as numbers if all ids are decimal, else as text.

    >>> [i.id for i in in_id_order([SourceImage(n, "") for n in ("10", "9", "007")])]
    ['007', '9', '10']
    """
    place = id_order([image.id for image in images])
    return sorted(images, key=lambda image: place(image.id))
