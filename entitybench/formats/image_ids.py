"""Which image of the ground truth a prediction means."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import TypeVar

from entitybench.errors import FormatError

ImageId = int | str
_T = TypeVar("_T")


class ImageIds:
    """Finds the ground truth's image of an id in somebody's file.

    A string is the file stem. A number, or a string of digits that is no stem, means the stem
    of that value: COCO's `139` is `000000000139`.

    Args:
        known: The ground truth's image ids.

    >>> ImageIds(["000000000139", "aachen"]).find(139)
    '000000000139'
    """

    def __init__(self, known: Collection[str]) -> None:
        self._known = frozenset(known)
        self._by_value: dict[int, list[str]] = {}
        for stem in sorted(self._known):
            if is_decimal(stem):
                self._by_value.setdefault(int(stem), []).append(stem)

    def find(self, image_id: ImageId, stem: str = "") -> str | None:
        """Return the ground truth's id.

        Args:
            image_id: The id in the file.
            stem: A file stem that decides where the id says nothing.

        Returns:
            None if nothing in the ground truth is meant.

        Raises:
            FormatError: Several images have that value, as `1` and `01` have.
        """
        if isinstance(image_id, str) and image_id in self._known:
            return image_id
        by_value = self._of_value(image_id)
        if by_value is None and stem in self._known:
            return stem
        return by_value

    def _of_value(self, image_id: ImageId) -> str | None:
        if isinstance(image_id, str) and not is_decimal(image_id):
            return None
        stems = self._by_value.get(int(image_id), [])
        if len(stems) > 1:
            msg = f"image id {image_id} may mean any of {', '.join(f'`{s}`' for s in stems)}"
            raise FormatError(msg, hint="write the file stem as the image id")
        return stems[0] if stems else None

    def match(
        self,
        named: Iterable[tuple[object, _T]],
        place: str,
        where: Callable[[_T], str],
        stem: Callable[[_T], str] = lambda _: "",
    ) -> dict[str, _T]:
        """Return what somebody's file or folder says of each image, by the ground truth's ids.

        Args:
            named: Ids in the file, each with what is said under it.
            place: The file or folder, for messages.
            where: Where in it a value is, for messages.
            stem: The file stem in a value, as `find` takes it.

        Raises:
            FormatError: Images that the ground truth does not know, or two values for one image.
        """
        found: dict[str, _T] = {}
        unknown: list[object] = []
        for image_id, value in named:
            known = self.find(image_id, stem(value)) if isinstance(image_id, int | str) else None
            if known is None:
                unknown.append(image_id)
            elif known in found:
                msg = f"image `{known}` is there twice"
                raise FormatError(msg, where=[where(found[known]), where(value)])
            else:
                found[known] = value
        self.refuse(unknown, place)
        return found

    def refuse(self, unknown: Iterable[object], place: str) -> None:
        """Raise `FormatError` if there are unknown ids: their number and three examples."""
        names = [str(name) for name in dict.fromkeys(unknown)]
        if not names:
            return
        noun = "image is" if len(names) == 1 else "images are"
        msg = f"{len(names):,} {noun} unknown to the ground truth, which has {len(self._known):,}"
        raise FormatError(
            msg,
            where=[f"{place}: image {name}" for name in names],
            hint="are these the predictions of another dataset or split?",
        )


def is_decimal(text: str) -> bool:
    """Tell whether an id is a number in decimal digits, and not an absurdly long one."""
    return text.isascii() and text.isdigit() and len(text) <= 40
