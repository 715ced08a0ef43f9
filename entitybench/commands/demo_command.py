"""`entitybench demo`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from entitybench.commands.console import emit, jobs_option, json_option, quiet_option, say

if TYPE_CHECKING:
    from entitybench.entity_set import EntitySet
    from entitybench.perturbation import Perturbation

SCENES, SIZE, SEED = 12, 256, 0


@click.command("demo")
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("demo"),
    show_default=True,
    help="Folder for everything that the demo makes.",
)
@jobs_option
@json_option
@quiet_option
def command(out: Path, jobs: int, as_json: bool, quiet: bool) -> int:
    """Run the whole path on generated scenes, with no data and no GPU.

    Makes a dozen scenes in COCO's own format, converts them as `convert coco` converts COCO,
    and scores two stand-ins for a model: the truth itself, spoiled a little and spoiled a lot.
    Shows that everything works; it measures no model.
    """
    from entitybench.commands.eval_command import save, score_table
    from entitybench.converters.conversion import convert_source
    from entitybench.converters.worlds import make_world
    from entitybench.metrics.benchmark import evaluate
    from entitybench.perturbation import Perturbation
    from entitybench.registry import open_entity_set

    stand_ins = {
        "spoiled-a-little": Perturbation(0.03, 0.03, 0.03, 1, 0.1),
        "spoiled-a-lot": Perturbation(0.25, 0.25, 0.25, 4, 0.4),
    }
    source, data = out / "sources" / "coco", out / "data"
    say(f"1. {SCENES} generated scenes, in COCO's format: {source}", quiet=quiet)
    make_world(source, "coco", train=0, val=SCENES, size=SIZE, seed=SEED, jobs=jobs)
    say(f"2. converted into an entity set: {data}", quiet=quiet)
    convert_source("coco", source, data, splits=["val"], jobs=jobs)
    truth = open_entity_set("coco_entity_val", data)
    results = []
    say(f"3. two stand-ins for a model (the truth, spoiled): {out / 'preds'}", quiet=quiet)
    for name, how in stand_ins.items():
        _predict(truth, out / "preds" / name / truth.header.name, name, how)
        done = evaluate(out / "preds" / name, truth.header.name, data=data)
        save(done, out / "results" / name / f"{truth.header.name}.json")
        results.append(done.result)
    picture = _picture(truth, out, list(stand_ins)[-1])
    if as_json:
        emit({"scores": {r.model.name: r.scores for r in results}, "picture": str(picture)})
    else:
        click.echo(f"\n{score_table(results)}\n\n{results[0].signature.metric}")
    say(f"\nresults: {out / 'results'}   picture: {picture}", quiet=quiet)
    return 0


def _predict(truth: EntitySet, path: Path, name: str, how: Perturbation) -> None:
    import numpy as np

    from entitybench.entity_writer import EntityWriter
    from entitybench.perturbation import perturb

    with EntityWriter(path, model=name, options={"seed": SEED}) as writer:
        if writer.already_complete:
            return
        for number, image in enumerate(truth):
            entity_map, scores = perturb(image.map, np.random.default_rng([SEED, number]), how)
            writer.add(image.id, entity_map, scores, file_name=image.row.file_name)


def _picture(truth: EntitySet, out: Path, model: str) -> Path:
    from entitybench.commands.show_command import comparison
    from entitybench.registry import open_entity_set

    richest = max(truth.rows(), key=lambda row: len(row.entities)).id
    predictions = open_entity_set(out / "preds" / model / truth.header.name)
    path = out / "show.png"
    comparison(predictions, richest, truth).save(path)
    return path
