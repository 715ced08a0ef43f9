"""The texture bank: range, seams, scale."""

from __future__ import annotations

import numpy as np
import pytest

from entitybench.converters.worlds.textures import TEXTURES, TILE, texture_bank


def test_the_bank_holds_one_tile_per_name_and_cannot_be_changed() -> None:
    bank = texture_bank(1)
    assert bank.shape == (len(TEXTURES), TILE, TILE)
    assert texture_bank(1) is bank
    with pytest.raises(ValueError, match="read-only"):
        bank[0, 0, 0] = 1


@pytest.mark.parametrize("name", sorted(set(TEXTURES) - {"flat", "fade"}))
def test_a_tile_uses_its_range_and_is_no_constant(name: str) -> None:
    tile = texture_bank(1)[TEXTURES[name]].astype(int)
    assert tile.min() >= -127
    assert tile.std() > 15


@pytest.mark.parametrize("name", ["clouds", "grain", "leaves", "waves", "hand", "blades"])
def test_tiles_join_without_a_seam(name: str) -> None:
    tile = texture_bank(1)[TEXTURES[name]].astype(int)
    for axis in (0, 1):
        inside = abs(np.diff(tile, axis=axis)).max()
        across = abs(np.take(tile, 0, axis) - np.take(tile, -1, axis)).max()
        assert across <= inside


def test_a_larger_bank_shows_the_same_texture_finer() -> None:
    small, large = texture_bank(1), texture_bank(2)
    for name in ("clouds", "waves"):
        coarse = large[TEXTURES[name], ::2, ::2].astype(float)
        fine = small[TEXTURES[name]].astype(float)
        assert np.corrcoef(coarse.ravel(), fine.ravel())[0, 1] > 0.97
