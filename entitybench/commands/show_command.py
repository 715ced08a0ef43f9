"""`entitybench show`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from entitybench.commands.console import data_option, say

if TYPE_CHECKING:
    from PIL import Image

    from entitybench.entity_set import EntityImage, EntitySet


@click.command("show")
@click.argument("entity_set", metavar="SET")
@click.argument("image_id", metavar="IMAGE", required=False)
@click.option("--gt", help="The ground truth to compare a prediction with.")
@click.option(
    "--images",
    help="Where the photographs are (a folder, or archive.zip!/prefix), if the set does not know.",
)
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The PNG to write.  [default: <IMAGE>.png]",
)
@data_option
def command(
    entity_set: str,
    image_id: str | None,
    gt: str | None,
    images: str | None,
    out: Path | None,
    data: Path,
) -> int:
    r"""Draw one image of SET: photograph, truth, and with --gt the prediction and its errors.

    IMAGE is the file stem; the first image of the set unless given.

    \b
      entitybench show coco_entity_val 000000000139
      entitybench show preds/mine/coco_entity_val 000000000139 --gt coco_entity_val
    """
    from entitybench.registry import open_entity_set

    shown = open_entity_set(entity_set, data)
    truth = open_entity_set(gt, data) if gt else None
    first = image_id if image_id is not None else shown.ids[0]
    sheet = comparison(shown, first, truth, images)
    path = out or Path(f"{Path(first).name}.png")
    sheet.save(path)
    say(f"wrote {path}")
    return 0


def comparison(
    shown: EntitySet, image_id: str, truth: EntitySet | None, images: str | None = None
) -> Image.Image:
    """Draw one image of a set, beside its truth where that is given."""
    photograph = _photograph(shown, truth, image_id, images)
    return _sheet(shown[image_id], truth[image_id] if truth else None, photograph)


def _sheet(
    image: EntityImage, truth: EntityImage | None, photograph: Image.Image | None
) -> Image.Image:
    from entitybench.reports.pictures import contact_sheet, error_picture, overlay

    panels = [("image", photograph)] if photograph else []
    caption = "prediction" if image.row.entities and image.scores is not None else "truth"
    if truth is None:
        panels.append((f"{caption}: {_count(image)}", overlay(image.map, photograph)))
        return contact_sheet(panels, title=image.id)
    panels += [
        (f"truth: {_count(truth)}", overlay(truth.map, photograph)),
        (f"prediction: {_count(image)}", overlay(image.map, photograph, truth=truth.map)),
        ("errors at IoU .5", error_picture(truth.map, image.map, photograph)),
    ]
    return contact_sheet(panels, title=image.id, legend=True)


def _count(image: EntityImage) -> str:
    entities, crowds = image.map.num_entities, image.map.num_crowds
    hatched = f", {crowds} crowd{'s' * (crowds > 1)} (hatched)" if crowds else ""
    return f"{entities} entit{'y' if entities == 1 else 'ies'}{hatched}"


def _photograph(
    shown: EntitySet, truth: EntitySet | None, image_id: str, images: str | None
) -> Image.Image | None:
    from entitybench.errors import MissingDataError
    from entitybench.photographs import read_photograph

    owner = truth or shown
    location = images or owner.photographs
    if location is None:
        say("no photographs are known for this set; `--images` names their folder")
        return None
    try:
        return read_photograph(location, owner.image_row(image_id).file_name)
    except MissingDataError as error:
        say(f"{error}; drawing without it")
        return None
