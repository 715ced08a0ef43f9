"""The contact sheet."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from entitybench.converters.worlds import make_scene
from entitybench.converters.worlds.sheet import coloured, contact_sheet


def test_a_sheet_shows_every_place_and_the_first_scene_as_it_is() -> None:
    size = 48
    sheet = np.asarray(contact_sheet(size=size, seed=3))
    scene = next(
        found
        for found in (
            make_scene("coco", split="val", index=i, size=size, seed=3) for i in range(99)
        )
        if found.layout == "landscape" and found.image.shape == (size, size, 3)
    )
    np.testing.assert_array_equal(sheet[26 : 26 + size, 8 : 8 + size], scene.image)
    white = (sheet == 255).all(axis=-1)
    # eight photographs of the first world, two rows of four
    for top in (26, 26 + size + 8):
        for left in range(8, 8 + 4 * (2 * size + 8), 2 * size + 8):
            assert white[top : top + size, left : left + size].mean() < 0.1


def test_entities_have_colours_of_their_own() -> None:
    scene = make_scene("coco", split="val", index=0, size=64, seed=0)
    picture = coloured(replace(scene, image=np.zeros_like(scene.image)))
    ids = np.unique(scene.entity_map)
    inner = {
        int(i): {tuple(c) for c in picture[scene.entity_map == i].tolist()} - {(255, 255, 255)}
        for i in ids
    }
    assert all(len(colours) == 1 for colours in inner.values())
    assert len({next(iter(colours)) for colours in inner.values()}) == len(ids)
