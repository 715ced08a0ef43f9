"""What the pictures say, pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from entitybench.entity_map import EntityMap
from entitybench.errors import FormatError
from entitybench.reports.pictures import (
    ERROR_COLOURS,
    borders,
    contact_sheet,
    error_picture,
    overlay,
)

SIZE = 24


def blocks(left: int, right: int) -> EntityMap:
    """Two entities side by side, of the ids given; 0 is void."""
    ids = np.zeros((SIZE, SIZE), dtype=int)
    ids[:, : SIZE // 2] = left
    ids[:, SIZE // 2 :] = right
    return EntityMap.from_array(ids)


def outcome(picture: Image.Image, x: int, y: int) -> str:
    """Name the error colour nearest to a pixel drawn over the plain ground."""
    pixel = np.asarray(picture)[y, x].astype(float)
    ground = np.array((58, 60, 66)) * 0.4
    distances = {
        name: float(np.abs(pixel - (ground + 0.6 * np.array(colour))).sum())
        for name, colour in ERROR_COLOURS.items()
    }
    nearest = min(distances, key=lambda name: distances[name])
    return nearest if distances[nearest] < 5 else "nothing"


def test_errors_are_named_by_colour() -> None:
    truth, prediction = blocks(1, 2).to_array(), blocks(1, 0).to_array()
    prediction[:4, : SIZE // 2] = 0  # the found entity lacks its first rows
    picture = error_picture(EntityMap.from_array(truth), EntityMap.from_array(prediction))
    assert outcome(picture, 3, 12) == "found"
    assert outcome(picture, 3, 1) == "boundary"
    assert outcome(picture, 18, 12) == "missed"


def test_a_prediction_on_void_is_spurious_and_one_on_a_crowd_is_not() -> None:
    spurious = error_picture(blocks(1, 0), blocks(1, 2))
    assert outcome(spurious, 18, 12) == "spurious"
    crowd = EntityMap.from_array(blocks(1, 2).to_array(), crowds=[2])
    assert outcome(error_picture(crowd, blocks(1, 2)), 18, 12) == "nothing"


def test_a_blob_inside_a_found_entity_is_spurious() -> None:
    prediction = blocks(1, 2).to_array()
    prediction[10:14, 2:6] = 3
    picture = error_picture(blocks(1, 2), EntityMap.from_array(prediction))
    assert outcome(picture, 3, 11) == "spurious"
    assert outcome(picture, 3, 20) == "found"


def test_an_iou_of_one_half_is_found() -> None:
    half = blocks(1, 1).to_array()
    half[:, SIZE // 2 :] = 0
    picture = error_picture(blocks(1, 1), EntityMap.from_array(half))
    assert outcome(picture, 2, 2) == "found"
    half[0, 0] = 0
    picture = error_picture(blocks(1, 1), EntityMap.from_array(half))
    assert outcome(picture, 2, 2) == "missed"


def test_a_matched_prediction_takes_the_colour_of_its_truth() -> None:
    truth = blocks(1, 2)
    swapped = EntityMap.from_array(truth.to_array(), entities=[2, 1])
    alone, beside = np.asarray(overlay(swapped)), np.asarray(overlay(swapped, truth=truth))
    assert np.array_equal(beside, np.asarray(overlay(truth)))
    assert not np.array_equal(alone, beside)


def test_many_ids_do_not_run_out_of_colours() -> None:
    ids = np.arange(1, 601).reshape(20, 30)
    assert overlay(EntityMap.from_array(ids)).size == (30, 20)


def test_a_photograph_of_another_size_is_refused() -> None:
    with pytest.raises(FormatError, match="the photograph is 3×4"):
        overlay(blocks(1, 2), Image.new("RGB", (3, 4)))


def test_borders() -> None:
    ids = np.array([[1, 1, 2], [1, 1, 2]], dtype=np.int32)
    assert borders(ids).tolist() == [[False, True, False], [False, True, False]]


@pytest.mark.parametrize(
    ("size", "count", "expected"),
    [
        ((640, 480), 4, (1310, 1080)),  # wide: two to a row
        ((480, 640), 4, (1970, 730)),  # tall: one row
        ((2048, 1024), 4, (1830, 1020)),  # reduced to 900
        ((100, 80), 1, (420, 390)),  # enlarged
    ],
)
def test_the_sheet_fits_a_screen(
    size: tuple[int, int], count: int, expected: tuple[int, int]
) -> None:
    panels = [("panel", Image.new("RGB", size))] * count
    assert contact_sheet(panels, title="t", legend=count > 1).size == expected
