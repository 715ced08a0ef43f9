"""Shapes against slow definitions, painting order, shadows."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.path import Path as Outline

from entitybench.converters.worlds.canvas import OVERSAMPLING, Canvas, Patch
from entitybench.converters.worlds.dice import Dice
from entitybench.converters.worlds.materials import Weather, mix, palette, plain, rgb
from entitybench.converters.worlds.rendering import render

SIZE = 40
DULL = Weather(warmth=0, saturation=1, brightness=1, ramp=(0, 0), shadow=0.5, noise=0, blur=0)


def canvas(height: int = SIZE, width: int = SIZE) -> Canvas:
    return Canvas(height, width, SIZE, Dice(3))


def dense(picture: Canvas, patch: Patch | None) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    """The patch as a mask of the whole enlarged picture."""
    mask = np.zeros(picture.numbers.shape, dtype=bool)
    if patch is not None:
        mask[patch.rows, patch.cols] = True if patch.mask is None else patch.mask
    return mask


def centres() -> tuple[np.ndarray[tuple[int], np.dtype[np.float64]], ...]:
    """Middles of the enlarged pixels in scene units: x, y."""
    place = (np.arange(SIZE * OVERSAMPLING) + 0.5) / (SIZE * OVERSAMPLING)
    x, y = np.meshgrid(place, place)
    return x.ravel(), y.ravel()


@pytest.mark.parametrize(
    "corners",
    [
        [(0.1013, 0.2), (0.8, 0.1531), (0.9, 0.7017), (0.3071, 0.9)],
        [(0.3071, 0.9), (0.9, 0.7017), (0.8, 0.1531), (0.1013, 0.2)],  # the other way round
        [(-0.4, 0.3037), (0.5, -0.2011), (1.6, 0.8053)],  # beyond the edges
        [(0.2, 0.2), (0.6, 0.2), (0.6, 0.8), (0.2, 0.8)],  # upright sides
    ],
)
def test_a_polygon_holds_the_pixels_whose_middles_it_holds(
    corners: list[tuple[float, float]],
) -> None:
    picture = canvas()
    x, y = centres()
    wanted = Outline([*corners, corners[0]]).contains_points(np.stack([x, y], axis=1))
    mask = dense(picture, picture.polygon(corners))
    np.testing.assert_array_equal(mask.ravel(), wanted)
    assert mask.sum() > 500


def test_an_ellipse_holds_the_pixels_within_its_radii() -> None:
    picture = canvas()
    x, y = centres()
    wanted = ((x - 0.4) / 0.3) ** 2 + ((y - 0.55) / 0.2) ** 2 <= 1
    mask = dense(picture, picture.ellipse(0.4, 0.55, 0.3, 0.2))
    np.testing.assert_array_equal(mask.ravel(), wanted)


def test_a_ring_is_a_disc_without_its_inner_disc() -> None:
    picture = canvas()
    outer = dense(picture, picture.ellipse(0.5, 0.5, 0.4, 0.4))
    inner = dense(picture, picture.ellipse(0.5, 0.5, 0.3, 0.3))
    mask = dense(picture, picture.ring(0.5, 0.5, 0.4, 0.1))
    np.testing.assert_array_equal(mask, outer & ~inner)


def test_the_thinnest_ring_and_line_leave_no_gap() -> None:
    picture = canvas()
    ring = dense(picture, picture.ring(0.5, 0.5, 0.4, 0.0001))
    assert ring.any(axis=0).sum() == ring.any(axis=1).sum() == 0.8 * SIZE * OVERSAMPLING
    line = dense(picture, picture.line(0.1, 0.1, 0.1, 0.9, 0.0001))
    assert line.any(axis=1).sum() == pytest.approx(0.8 * SIZE * OVERSAMPLING, abs=1)


def test_a_rounded_box_lacks_only_its_corners() -> None:
    picture = canvas()
    whole = dense(picture, picture.box(0.2, 0.3, 0.8, 0.7))
    mask = dense(picture, picture.rounded(0.2, 0.3, 0.8, 0.7, 0.1))
    rows, cols = np.nonzero(whole & ~mask)
    assert not (mask & ~whole).any()
    assert len(rows) == pytest.approx((4 - np.pi) * (0.1 * SIZE * OVERSAMPLING) ** 2, rel=0.15)
    assert np.minimum(rows - 24, 55 - rows).max() < 8
    assert np.minimum(cols - 16, 63 - cols).max() < 8


def test_below_a_level_skyline_is_a_box() -> None:
    picture = canvas()
    mask = dense(picture, picture.below([0.25, 0.25, 0.25], bottom=0.75))
    np.testing.assert_array_equal(mask, dense(picture, picture.box(0, 0.25, 1, 0.75)))


def test_a_fence_has_its_pickets_and_lets_one_look_through() -> None:
    picture = canvas()
    mask = dense(picture, picture.pickets(0, 0, 1, 1, pitch=0.25, share=0.4))
    between_the_rails = mask[SIZE]
    starts = np.flatnonzero(np.diff(between_the_rails.astype(int)) == 1)
    assert len(starts) + int(between_the_rails[0]) == 4
    assert between_the_rails.mean() == pytest.approx(0.4)


def test_a_wall_has_its_windows() -> None:
    picture = canvas()
    flat = [(0.0, 1.0), (0.0, 0.0), (1.0, 0.0), (1.0, 1.0)]
    mask = dense(picture, picture.windows(flat, 4, 2))
    along, up = (np.diff(mask.any(axis=axis).astype(int)) for axis in (0, 1))
    assert np.count_nonzero(along == 1) == 4
    assert np.count_nonzero(up == 1) == 2


def test_windows_shrink_with_the_distance() -> None:
    picture = canvas()
    wall = [(0.0, 1.0), (0.0, 0.0), (1.0, 0.4), (1.0, 0.6)]
    mask = dense(picture, picture.windows(wall, 3, 1))
    heights = mask.sum(axis=0)
    widths = np.diff(np.flatnonzero(np.diff((heights > 0).astype(int))))[::2]
    assert list(widths) == sorted(widths, reverse=True)
    assert heights.max() > 2.5 * heights[heights > 0].min()


def test_shapes_outside_the_picture_are_nothing() -> None:
    picture = canvas()
    assert picture.ellipse(2, 2, 0.1, 0.1) is None
    assert picture.box(0.5, 0.5, 0.5, 0.5) is None
    assert picture.polygon([(1.1, 0), (1.2, 0), (1.2, 1)]) is None
    assert picture.rounded(-1, -1, -0.5, -0.5, 0.1) is None
    picture.paint(None, plain("#ffffff"), picture.element("ball"))
    picture.shade(None)
    assert (picture.owners() == -1).all()


def test_what_is_painted_later_is_in_front() -> None:
    picture = canvas()
    wall, ball = picture.element("wall"), picture.element("ball")
    picture.paint(picture.box(0, 0, 1, 1), plain("#808080"), wall)
    picture.paint(picture.box(0.25, 0.25, 0.75, 0.75), plain("#ff0000"), ball)
    expected = np.full((SIZE, SIZE), wall)
    expected[10:30, 10:30] = ball
    np.testing.assert_array_equal(picture.owners(), expected)


def test_a_shadow_darkens_pixels_and_leaves_labels() -> None:
    bright, dark = canvas(), canvas()
    for picture in (bright, dark):
        wall = picture.element("wall")
        picture.paint(picture.box(0, 0, 1, 1), plain("#808080"), wall)
    dark.shade(dark.box(0, 0, 1, 0.5))
    np.testing.assert_array_equal(bright.owners(), dark.owners())
    light, shade = (render(p, DULL, Dice(1)).astype(int) for p in (bright, dark))
    assert (shade[:18] < light[:18] * 0.6).all()
    np.testing.assert_array_equal(shade[22:], light[22:])


def test_who_stands_in_front_is_not_in_the_shadow_behind() -> None:
    picture = canvas()
    wall, ball = picture.element("wall"), picture.element("ball")
    picture.paint(picture.box(0, 0, 1, 1), plain("#808080"), wall)
    picture.shade(picture.box(0, 0, 1, 1))
    picture.paint(picture.box(0.2, 0.2, 0.8, 0.8), plain("#808080"), ball)
    image = render(picture, DULL, Dice(1)).astype(int)
    assert image[20, 20, 0] > 1.5 * image[2, 2, 0]


def test_plain_colours_come_out_as_they_are() -> None:
    picture = canvas()
    picture.paint(picture.box(0, 0, 1, 1), plain("#4080c0"), picture.element("wall"))
    middle = render(picture, DULL, Dice(1))[SIZE // 2, SIZE // 2]
    np.testing.assert_allclose(middle, [0x40, 0x80, 0xC0], atol=1)


def test_colours() -> None:
    assert rgb("#ff8000") == (1.0, 128 / 255, 0.0)
    assert palette("#000000 #ffffff") == ((0, 0, 0), (1, 1, 1))
    assert mix((0, 0, 0), (1, 0.5, 0), 0.5) == (0.5, 0.25, 0)
