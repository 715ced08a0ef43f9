"""Which image a prediction means."""

from __future__ import annotations

import pytest

from entitybench.errors import FormatError
from entitybench.formats.coco_image_ids import coco_ids
from entitybench.formats.image_ids import ImageIds

STEMS = ["000000000139", "7", "0", "aachen_000001_000019", "12345678901234567890123"]


@pytest.mark.parametrize(
    ("image_id", "stem"),
    [
        (139, "000000000139"),
        pytest.param("139", "000000000139", id="text of a value"),
        ("000000000139", "000000000139"),
        ("0139", "000000000139"),
        (7, "7"),
        ("007", "7"),
        (0, "0"),
        ("aachen_000001_000019", "aachen_000001_000019"),
        (12345678901234567890123, "12345678901234567890123"),
        (1390, None),
        (-139, None),
        ("", None),
        ("aachen", None),
        ("000000000139.jpg", None),
        ("١٣٩", None),  # digits, though not ASCII's
        ("²", None),
        ("9" * 5000, None),  # Python refuses to read such a number
    ],
)
def test_an_id_means_a_stem_or_a_value(image_id: int | str, stem: str | None) -> None:
    assert ImageIds(STEMS).find(image_id) == stem


def test_a_file_name_decides_where_the_id_says_nothing() -> None:
    ids = ImageIds(STEMS)
    assert ids.find(42, "aachen_000001_000019") == "aachen_000001_000019"
    assert ids.find("unknown", "7") == "7"
    assert ids.find(42, "elsewhere") is None


def test_a_value_that_two_stems_have_is_refused_only_where_it_is_used() -> None:
    ids = ImageIds(["01", "1", "2"])
    assert ids.find("01") == "01"
    assert ids.find("1") == "1"
    assert ids.find(2) == "2"
    with pytest.raises(FormatError, match="image id 1 may mean any of `01`, `1`"):
        ids.find(1)


def test_unknown_ids_are_counted_once_each() -> None:
    ids = ImageIds(STEMS)
    ids.refuse([], "a.json")
    with pytest.raises(FormatError, match="2 images are unknown to the ground truth, which has 5"):
        ids.refuse([3, 3, "x"], "a.json")


@pytest.mark.parametrize(
    ("stems", "written"),
    [
        (["000000000139", "000000000285"], [139, 285]),
        (["1", "01"], ["1", "01"]),
        (["1", "a"], ["1", "a"]),
        ([str(2**53), "1"], [str(2**53), "1"]),  # a float could not tell it from its neighbour
        (["9" * 5000], ["9" * 5000]),
        ([], []),
    ],
)
def test_exported_ids_are_found_again(stems: list[str], written: list[int | str]) -> None:
    write = coco_ids(stems)
    assert [write(stem) for stem in stems] == written
    assert [ImageIds(stems).find(image_id) for image_id in written] == stems
