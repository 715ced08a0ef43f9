"""`entitybench worlds`."""

from __future__ import annotations

from pathlib import Path

import click

from entitybench.commands.console import emit, jobs_option, json_option, quiet_option, say


@click.group("worlds")
def command() -> None:
    """Generate small complete datasets in the original formats, without a download.

    Three domains of one made-up world, each written to the letter of COCO, ADE20K or
    Cityscapes, so that `convert` takes them as it takes the real releases.
    """


@command.command("make")
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--world",
    type=click.Choice(["coco", "ade20k", "cityscapes"]),
    required=True,
    help="Which world, and in whose files.",
)
@click.option("--train", type=click.IntRange(0), default=400, show_default=True, help="Scenes.")
@click.option("--val", type=click.IntRange(0), default=100, show_default=True, help="Scenes.")
@click.option("--size", type=click.IntRange(32), default=128, show_default=True, help="In pixels.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the scenes.")
@click.option("--archives", is_flag=True, help="Write the release as archives, not as folders.")
@jobs_option
@json_option
@quiet_option
def make(
    directory: Path,
    world: str,
    train: int,
    val: int,
    size: int,
    seed: int,
    archives: bool,
    jobs: int,
    as_json: bool,
    quiet: bool,
) -> int:
    r"""Make one world in DIRECTORY; the same arguments give the same bytes.

    \b
      entitybench worlds make worlds/coco --world coco --train 400 --val 100
      entitybench convert coco --source worlds/coco --out data/
    """
    from tqdm import tqdm

    from entitybench.converters.worlds import make_world

    with tqdm(total=train + val, unit="scene", desc=world, disable=quiet or None) as bar:
        done = make_world(
            directory,
            world,
            train=train,
            val=val,
            size=size,
            seed=seed,
            archives=archives,
            jobs=jobs,
            progress=lambda scenes, _: bar.update(scenes - bar.n),
        )
    manifest = done.manifest
    if as_json:
        emit(
            {
                "directory": str(done.directory),
                "world": world,
                "already_there": done.already_there,
                "num_entities": manifest.num_entities,
                "num_crowds": manifest.num_crowds,
            }
        )
    state = "already there" if done.already_there else "made"
    say(f"{done.directory}: {state}, {train} + {val} scenes", quiet=quiet)
    say(f"next: entitybench convert {world} --source {done.directory}", quiet=quiet)
    return 0


@command.command("sheet")
@click.argument("out", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--size", type=click.IntRange(32), default=176, show_default=True, help="In pixels.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the scenes.")
def sheet(out: Path, size: int, seed: int) -> int:
    """Draw scenes of all three worlds, each beside its true entity map, into the file OUT."""
    from entitybench.converters.worlds.sheet import contact_sheet

    contact_sheet(size=size, seed=seed).save(out, quality=74)
    say(f"wrote {out}")
    return 0
