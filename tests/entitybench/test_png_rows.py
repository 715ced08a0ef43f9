"""Plain PNGs read by the kernel: the same pixels as Pillow, or nothing."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from entitybench import kernel
from entitybench.png_rows import read_plain, read_values

pytestmark = pytest.mark.skipif(not kernel.is_active(), reason="only for the kernel")
MODES = ("P", "L", "I;16", "RGB")
SHAPE = (23, 31)


def picture(mode: str, seed: int = 0, shape: tuple[int, int] = SHAPE) -> Image.Image:
    random = np.random.default_rng(seed)
    if mode == "I;16":
        return Image.fromarray(random.integers(0, 65_536, shape, dtype=np.uint16))
    channels = (3,) if mode == "RGB" else ()
    pixels = random.integers(0, 256, (*shape, *channels)).astype(np.uint8)
    pixels[shape[0] // 2 :] = 7  # even rows take other filters
    image = Image.fromarray(pixels)
    if mode == "P":
        image.putpalette(bytes(range(256)) * 3)
    return image


def saved(image: Image.Image, **more: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", **more)
    return file.getvalue()


def by_pillow(image: Image.Image) -> Any:
    array = np.asarray(image).astype(np.int64)
    return array if array.ndim == 2 else array @ [1, 256, 65_536]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("more", [{}, {"optimize": True}, {"compress_level": 0}])
@pytest.mark.parametrize("shape", [SHAPE, None])
def test_the_pixels_are_pillows(mode: str, more: Any, shape: tuple[int, int] | None) -> None:
    for seed in range(5):
        image = picture(mode, seed)
        found = read_values(saved(image, **more), shape, MODES)
        assert found is not None
        assert found.shape == SHAPE
        assert np.array_equal(found, by_pillow(image))


@pytest.mark.parametrize("mode", MODES)
def test_another_mode_or_size_is_left_to_pillow(mode: str) -> None:
    png = saved(picture(mode))
    others = [other for other in MODES if other != mode]
    assert read_values(png, SHAPE, others) is None
    assert read_values(png, SHAPE[::-1], MODES) is None
    assert read_values(png, (SHAPE[0] + 1, SHAPE[1]), MODES) is None
    assert (read_plain(png, SHAPE) is None) == (mode in ("L", "RGB"))


def test_what_is_not_plain_is_left_to_pillow() -> None:
    few = picture("P").quantize(4)
    assert read_values(saved(few, bits=2), SHAPE, MODES) is None
    assert read_values(saved(Image.new("RGBA", SHAPE[::-1])), SHAPE, MODES) is None
    assert read_values(saved(Image.new("1", SHAPE[::-1])), SHAPE, MODES) is None
    assert read_values(b"", None, MODES) is None


@pytest.mark.parametrize("mode", MODES)
def test_damage_is_left_to_pillow(mode: str) -> None:
    png = saved(picture(mode))
    for place in range(8, len(png) - 12, 7):
        broken = bytearray(png)
        broken[place] ^= 0x10
        assert read_values(bytes(broken), SHAPE, MODES) is None
    assert read_values(png[:-20], SHAPE, MODES) is None


def test_texts_beside_the_pixels_do_not_matter() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("Software", "somebody's tool")
    image = picture("RGB")
    found = read_values(saved(image, pnginfo=info), None, ("RGB",))
    assert found is not None
    assert np.array_equal(found, by_pillow(image))


def test_a_size_that_pillow_would_not_take_is_not_unpacked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    png = saved(picture("L"))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 23 * 31 - 1)
    assert read_values(png, None, MODES) is None
    assert read_values(png, SHAPE, MODES) is not None  # the caller knows better
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert read_values(png, None, MODES) is not None
