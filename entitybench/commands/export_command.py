"""`entitybench export`."""

from __future__ import annotations

from pathlib import Path

import click

from entitybench.commands.console import data_option, overwrite_option, say


@click.command("export")
@click.argument("target", metavar="FORMAT", type=click.Choice(["coco-panoptic", "coco-instances"]))
@click.argument("entity_set", metavar="SET")
@click.option(
    "-o",
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder to write (coco-panoptic), or the JSON file (coco-instances).",
)
@data_option
@overwrite_option
def command(target: str, entity_set: str, out: Path, data: Path, overwrite: bool) -> int:
    r"""Write an entity set in one of COCO's formats, so that every other tool can read it.

    FORMAT is coco-panoptic (`annotations/panoptic_<name>.json` and its folder of RGB PNGs) or
    coco-instances (one JSON file with run-length masks: ground truth as annotations, predictions
    as a results list). There is one category, "entity", unless the source had its own.

    \b
      entitybench export coco-instances coco_entity_val -o coco_entity_val.json
    """
    from entitybench.errors import ConflictError
    from entitybench.formats.coco_instances_export import write_coco_instances
    from entitybench.formats.coco_panoptic_export import write_coco_panoptic
    from entitybench.registry import open_entity_set

    opened = open_entity_set(entity_set, data)
    if target == "coco-panoptic":
        written = write_coco_panoptic(opened, out, overwrite=overwrite)
    elif out.exists() and not overwrite:
        msg = f"`{out}` is already there"
        raise ConflictError(msg, hint="`--overwrite` replaces it")
    else:
        written = write_coco_instances(opened, out)
    say(f"wrote {written} ({len(opened)} images)")
    return 0
