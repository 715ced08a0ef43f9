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

    coco-panoptic gives `annotations/panoptic_<name>.json` and its folder of RGB PNGs;
    coco-instances one JSON file with run-length masks: ground truth as annotations,
    predictions as a results list. There is one category, "entity", unless the source had its own.

    \b
      entitybench export coco-instances coco_entity_val -o coco_entity_val.json
    """
    from entitybench.errors import ConflictError
    from entitybench.formats import write_coco_instances, write_coco_panoptic
    from entitybench.registry import open_entity_set

    opened = open_entity_set(entity_set, data)
    occupied = out.is_file() or (out.is_dir() and any(out.iterdir()))
    if occupied and not overwrite:
        msg = f"`{out}` is already there"
        raise ConflictError(msg, hint="`--overwrite` replaces it")
    write = {"coco-panoptic": write_coco_panoptic, "coco-instances": write_coco_instances}[target]
    write(opened, out)
    say(f"wrote {out} ({len(opened)} images)")
    return 0
