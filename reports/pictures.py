"""Pictures of one image: photograph, truth, prediction, and where they part."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from entitybench.entity_map import EntityMap
from entitybench.errors import FormatError
from entitybench.map_png import PALETTE
from entitybench.metrics.contingency import Contingency, contingency

_COLOURS = np.frombuffer(PALETTE, dtype=np.uint8).reshape(256, 3)
_OPACITY = 0.6
_INK, _PAPER, _MUTED = (24, 26, 31), (255, 255, 255), (96, 102, 112)
_VOID = (58, 60, 66)
_CAPTION = 30
_WIDEST = 900
_GAP = 10

ERROR_COLOURS: dict[str, tuple[int, int, int]] = {
    "found": (64, 160, 92),
    "boundary": (245, 196, 64),
    "missed": (214, 62, 62),
    "spurious": (74, 112, 214),
}
"""What each colour of an error panel says, in the order of the legend."""


def overlay(
    entity_map: EntityMap,
    photograph: Image.Image | None = None,
    *,
    truth: EntityMap | None = None,
) -> Image.Image:
    """Colour the entities over the photograph, with crowds hatched and borders drawn.

    Args:
        entity_map: The entities; an id has the same colour in every picture.
        photograph: RGB of the map's size; a plain ground where it is absent.
        truth: Where given, a predicted entity takes the colour of the true one with which
            it has an IoU of at least .5.

    Raises:
        FormatError: The photograph has another size.
    """
    ids = entity_map.to_array()
    ground = _ground(entity_map, photograph)
    colours = _COLOURS[_colour_ids(entity_map, truth)[ids]].astype(np.float64)
    blended = np.where((ids > 0)[..., None], _mix(ground, colours), ground * 0.55)
    rows, columns = np.indices(ids.shape)
    hatch = (ids > entity_map.num_entities) & ((rows + columns) // 4 % 2 == 0)
    blended[hatch] *= 0.45
    blended[borders(ids)] = _PAPER
    return Image.fromarray(blended.astype(np.uint8))


def _colour_ids(entity_map: EntityMap, truth: EntityMap | None) -> NDArray[np.int64]:
    """Return a palette index for each id; those past 255 begin again at 1."""
    numbers = np.arange(entity_map.num_ids + 1)
    if truth is not None:
        # unmatched predictions count on behind the true ids, so that they share no colour
        numbers[1:] += truth.num_ids
        partner = _partners(contingency(truth, entity_map))
        numbers[partner[partner > 0]] = np.flatnonzero(partner)
    numbers[1:] = (numbers[1:] - 1) % 255 + 1
    return numbers


def error_picture(
    truth: EntityMap, prediction: EntityMap, photograph: Image.Image | None = None
) -> Image.Image:
    """Colour each pixel by what happened to it.

    An entity counts as found when a prediction has an IoU of at least .5 with it (the most
    lenient of AP's thresholds). Its pixels are `found` where that prediction covers them and
    `boundary` where it does not; so are the prediction's pixels beyond the entity. Entities
    that nobody found are `missed`; elsewhere, predictions that found nothing are `spurious`.
    """
    found, boundary, missed, spurious = _outcomes(truth, prediction)
    ground = _ground(truth, photograph)
    picture = ground * 0.55
    named = {"found": found, "boundary": boundary, "missed": missed, "spurious": spurious}
    for name, where in named.items():
        picture[where] = _mix(ground[where], np.array(ERROR_COLOURS[name], dtype=np.float64))
    picture[borders(truth.to_array())] = _PAPER
    return Image.fromarray(picture.astype(np.uint8))


def _outcomes(truth: EntityMap, prediction: EntityMap) -> tuple[NDArray[np.bool_], ...]:
    """Return where pixels are found, boundary, missed and spurious; disjoint."""
    partner = _partners(contingency(truth, prediction))
    true_ids, predicted_ids = truth.to_array(), prediction.to_array()
    is_entity = (true_ids > 0) & (true_ids <= truth.num_entities)
    wanted = partner[true_ids]
    matched = np.zeros(prediction.num_ids + 1, dtype=bool)
    matched[partner[partner > 0]] = True
    found = is_entity & (wanted > 0) & (predicted_ids == wanted)
    missed = is_entity & (wanted == 0)
    stray = (predicted_ids > 0) & ~matched[predicted_ids]  # of a prediction that found nothing
    crowd = true_ids > truth.num_entities
    spurious = stray & ~missed & ~crowd
    boundary = ~found & ~missed & ~stray & ((wanted > 0) | matched[predicted_ids])
    return found, boundary, missed, spurious


def _partners(table: Contingency) -> NDArray[np.int64]:
    """Return, for each true id, the prediction with IoU >= .5, or 0."""
    union = table.truth_areas[table.truth] + table.prediction_areas[table.prediction]
    entity = (table.truth > 0) & (table.truth <= table.num_entities) & (table.prediction > 0)
    good = entity & (2 * table.pixels >= union - table.pixels)
    partner = np.zeros(len(table.truth_areas), dtype=np.int64)
    partner[table.truth[good]] = table.prediction[good]
    return partner


def borders(ids: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Return where an id differs from its right or lower neighbour."""
    edge = np.zeros(ids.shape, dtype=bool)
    edge[:, :-1] |= ids[:, :-1] != ids[:, 1:]
    edge[:-1] |= ids[:-1] != ids[1:]
    return edge


def contact_sheet(
    panels: Sequence[tuple[str, Image.Image]], *, title: str = "", legend: bool = False
) -> Image.Image:
    """Set panels under their captions, wide ones two to a row, tall ones in one row.

    Args:
        panels: Caption and picture; all pictures have one size. Small ones are enlarged,
            those wider than 900 pixels reduced.
        title: A line above them.
        legend: Whether to explain the colours of the errors below.
    """
    width, height = _panel_size(panels[0][1].size)
    wide = width > height and len(panels) > 2
    columns = 2 if wide else len(panels)
    rows = -(-len(panels) // columns)
    top = _CAPTION if title else 0
    sheet_height = top + rows * (height + _CAPTION) + (_CAPTION if legend else _GAP)
    sheet = Image.new("RGB", (columns * (width + _GAP) + _GAP, sheet_height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((_GAP, 8), title, fill=_INK, font=ImageFont.load_default(17))
    for index, (caption, picture) in enumerate(panels):
        left = _GAP + index % columns * (width + _GAP)
        upper = top + index // columns * (height + _CAPTION)
        draw.text((left, upper + 7), caption, fill=_MUTED, font=ImageFont.load_default(15))
        sheet.paste(_resized(picture, (width, height)), (left, upper + _CAPTION))
    if legend:
        _draw_legend(draw, sheet_height - 23, sheet.width)
    return sheet


def _panel_size(size: tuple[int, int]) -> tuple[int, int]:
    width, height = size
    if width > _WIDEST:
        return _WIDEST, round(height * _WIDEST / width)
    scale = max(1, round(360 / width))
    return width * scale, height * scale


def _resized(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    smaller = size[0] < picture.width
    return picture.resize(size, Image.Resampling.BOX if smaller else Image.Resampling.NEAREST)


def _draw_legend(draw: ImageDraw.ImageDraw, y: int, width: int) -> None:
    font = ImageFont.load_default(14)
    x = float(width - _GAP - sum(draw.textlength(n, font) + 38 for n in ERROR_COLOURS))
    for name, colour in ERROR_COLOURS.items():
        draw.rectangle((x, y + 2, x + 13, y + 15), fill=colour)
        draw.text((x + 19, y), name, fill=_INK, font=font)
        x += draw.textlength(name, font) + 38


def _ground(entity_map: EntityMap, photograph: Image.Image | None) -> NDArray[np.float64]:
    height, width = entity_map.shape
    if photograph is None:
        return np.full((height, width, 3), _VOID, dtype=np.float64)
    if photograph.size != (width, height):
        msg = (
            f"the photograph is {photograph.width}×{photograph.height}, the map is {width}×{height}"
        )
        raise FormatError(msg)
    return np.asarray(photograph.convert("RGB"), dtype=np.float64)


def _mix(ground: NDArray[np.float64], colours: NDArray[np.float64]) -> NDArray[np.float64]:
    return ground * (1 - _OPACITY) + colours * _OPACITY
