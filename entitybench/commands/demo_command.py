"""`entitybench demo`."""

from __future__ import annotations

from pathlib import Path

import click

from entitybench.commands.console import available_cores, json_option, quiet_option, say


@click.command("demo")
@click.option("--full", "plan_name", flag_value="worlds-cpu", help="Two hours: real trainings.")
@click.option("--short", "plan_name", flag_value="demo-short", help="A minute: every part, once.")
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("demo"),
    show_default=True,
    help="Folder for everything that the demo makes.",
)
@json_option
@quiet_option
def command(plan_name: str | None, out: Path, as_json: bool, quiet: bool) -> int:
    """Run the whole path on generated scenes, with no data and no GPU.

    Makes three worlds in the formats of COCO, ADE20K and Cityscapes, converts them as the
    originals are converted, trains tiny models on two of them and on both together, predicts,
    scores everything on all three, and writes the leaderboard as a page. One model comes with
    entitybench, trained for longer; the page says which. Takes about four minutes on two cores;
    interrupted, the same command goes on.
    """
    from entitybench.commands.run_command import finish, run_to_page
    from entitybench.plan import Place, load_plan

    name = plan_name or "demo"
    # a few dozen small images take less time than starting processes
    place = Place(out, out / "data", jobs=available_cores() if name == "worlds-cpu" else 1)
    say(f"`entitybench run {name} --dry-run` shows the steps; all goes into `{out}`", quiet=quiet)
    outcomes, page = run_to_page(load_plan(name), place, quiet=quiet)
    if page is not None and not as_json:
        click.echo(page.with_name("leaderboard.md").read_text(encoding="utf-8"))
    code = finish(outcomes, place, page, as_json=as_json, quiet=quiet)
    if page is not None:
        say(f"open {page} in a browser", quiet=quiet)
    return code
