"""Parts of a whole for batch schedulers: `--shard 2/4` and the names of what it writes."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Self, TypeVar

from entitybench.errors import ConflictError, FormatError, MissingDataError

_T = TypeVar("_T")
_PART = re.compile(r"(?P<whole>.+)\.part-(?P<index>\d+)-of-(?P<count>\d+)")
_SHARD = re.compile(r"(\d+)/(\d+)")


@dataclass(frozen=True, slots=True, order=True)
class Shard:
    """Part `index` of `count`, from 1: a stretch of the images in id order.

    >>> Shard(2, 3).of(range(10))
    range(3, 6)
    >>> Shard(2, 3).label
    'part-2-of-3'
    """

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.count:
            msg = f"shard {self.index}/{self.count} is not one of 1/{self.count}…"
            raise FormatError(msg)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `2/4`.

        Raises:
            FormatError: It is no such thing.
        """
        found = _SHARD.fullmatch(text)
        if found is None:
            msg = f"`{text}` is not a shard"
            raise FormatError(msg, hint="`2/4` is the second part of four")
        return cls(int(found[1]), int(found[2]))

    @property
    def label(self) -> str:
        """What names it in file names and signatures."""
        return f"part-{self.index}-of-{self.count}"

    def name(self, whole: str) -> str:
        """Return the name of this part of a whole.

        >>> Shard(1, 4).name("coco_entity_val")
        'coco_entity_val.part-1-of-4'
        """
        return f"{whole}.{self.label}"

    def of(self, items: Sequence[_T]) -> Sequence[_T]:
        """Return this shard's items."""
        size = len(items)
        return items[size * (self.index - 1) // self.count : size * self.index // self.count]


def split_name(name: str) -> tuple[str, Shard] | None:
    """Return the whole and the shard that a part's name tells; None where it is no part.

    >>> split_name("coco_entity_val.part-1-of-4")
    ('coco_entity_val', Shard(index=1, count=4))
    """
    found = _PART.fullmatch(name)
    if found is None:
        return None
    return found["whole"], Shard(int(found["index"]), int(found["count"]))


def check_complete(shards: Iterable[tuple[Shard, str]]) -> None:
    """Check that shards are all parts of one whole, each once.

    Args:
        shards: Each shard and where it lies, for messages.

    Raises:
        ConflictError: Parts of different divisions, or one that is there twice.
        MissingDataError: A part is missing.
    """
    found = sorted(shards)
    counts = {shard.count for shard, _ in found}
    if len(counts) > 1:
        msg = "parts of different divisions: of " + " and of ".join(map(str, sorted(counts)))
        raise ConflictError(msg, where=[place for _, place in found])
    places: dict[int, list[str]] = {}
    for shard, place in found:
        places.setdefault(shard.index, []).append(place)
    twice = {index: where for index, where in places.items() if len(where) > 1}
    if twice:
        index, where = next(iter(twice.items()))
        msg = f"part {index} of {found[0][0].count} is there {len(where)} times"
        raise ConflictError(msg, where=where)
    count = max(counts, default=0)
    missing = [index for index in range(1, count + 1) if index not in places]
    if missing:
        named = ", ".join(map(str, missing[:10])) + ", …" * (len(missing) > 10)
        msg = f"parts of {count} that are missing: {named}"
        raise MissingDataError(
            msg, where=[place for _, place in found], hint="`--shard i/n` makes part i"
        )


def id_order(ids: Collection[str]) -> Callable[[str], tuple[int, str, str]]:
    """Return the key by which image ids are sorted: as numbers if all are decimal, else as text."""
    decimal = all(image_id.isascii() and image_id.isdecimal() for image_id in ids)

    def place(image_id: str) -> tuple[int, str, str]:
        digits = image_id.lstrip("0") if decimal else ""
        return len(digits), digits, image_id

    return place


def in_id_order(ids: Collection[str]) -> list[str]:
    """Return the ids in order.

    >>> in_id_order(["10", "9", "007"]), in_id_order(["b10", "b9"])
    (['007', '9', '10'], ['b10', 'b9'])
    """
    return sorted(ids, key=id_order(ids))
