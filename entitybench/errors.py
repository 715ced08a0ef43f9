"""What can go wrong for a user, one class per kind.

Every message has the same form, so that people know where to look::

    what happened, in one line
      --> where: file, image, path in the JSON      (at most three, then a count)

    hint: a command or choice that helps

The tree:

* `EntityBenchError`
    * `FormatError`: a file or value is not what its format promises
        * `OverlapError`: two entities of one image share pixels
    * `MissingDataError`: something that is needed is not there
    * `ConflictError`: what is there belongs to another choice of options
    * `UnknownNameError`: a name that nobody has heard of
    * `WorkerError`: a worker process died
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

MAX_EXAMPLES = 3


class EntityBenchError(Exception):
    """The base of every error that a user can mend.

    Args:
        what: One line, lower case, without a full stop.
        where: Places; the first three are shown, the rest counted.
        hint: What to do about it.

    >>> print(FormatError("no ids", where=["a.png", "b.png", "c.png", "d.png"], hint="look"))
    no ids
      --> a.png
      --> b.png
      --> c.png
      --> and 1 more
    <BLANKLINE>
    hint: look
    """

    exit_code = 2

    def __init__(self, what: str, *, where: str | Sequence[str] = (), hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = (where,) if isinstance(where, str) else tuple(where)
        self.hint = hint

    def __str__(self) -> str:
        lines = [self.what, *(f"  --> {place}" for place in self.where[:MAX_EXAMPLES])]
        if len(self.where) > MAX_EXAMPLES:
            lines.append(f"  --> and {len(self.where) - MAX_EXAMPLES} more")
        if self.hint:
            lines += ["", f"hint: {self.hint}"]
        return "\n".join(lines)

    def __reduce__(self) -> tuple[object, ...]:
        """Cross a process border whole: `Exception` would keep only `what`."""
        return _rebuild, (type(self), self.what, self.where, self.hint)

    def at(self, place: str) -> EntityBenchError:
        """Return the same error, told from one level further out."""
        inner = [f"{place}: {inside}" for inside in self.where] or [place]
        return type(self)(self.what, where=inner, hint=self.hint)


def _rebuild(
    kind: type[EntityBenchError], what: str, where: Sequence[str], hint: str
) -> EntityBenchError:
    return kind(what, where=where, hint=hint)


class FormatError(EntityBenchError):
    """A file or value is not what its format promises."""


class OverlapError(FormatError):
    """Two entities of one image share pixels; AP_e allows none."""


class MissingDataError(EntityBenchError):
    """A file, an image or a score that is needed is not there."""


class ConflictError(EntityBenchError):
    """What is already there was made with other options."""


class WorkerError(EntityBenchError):
    """A worker process died; the message names the image that it held."""


class UnknownNameError(EntityBenchError):
    """A name that nobody has heard of.

    >>> print(UnknownNameError.of("source", "cocoo", ["ade20k", "coco"]))
    unknown source `cocoo`, did you mean `coco`?
    known: ade20k, coco
    """

    @classmethod
    def of(cls, kind: str, name: str, known: Iterable[str], hint: str = "") -> UnknownNameError:
        """Tell the nearest known name, then all of them."""
        names = sorted(known)
        near = difflib.get_close_matches(name, names, n=1)
        guess = f", did you mean `{near[0]}`?" if near else ""
        return cls(f"unknown {kind} `{name}`{guess}\nknown: {', '.join(names) or '-'}", hint=hint)
