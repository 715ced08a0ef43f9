"""`entitybench run`."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from entitybench.commands.console import (
    duration,
    emit,
    jobs_option,
    json_option,
    overwrite_option,
    quiet_option,
    say,
    table,
)

if TYPE_CHECKING:
    from entitybench.plan import Forecast, Outcome, Place, Plan, Step

_COULD_NOT_RUN = 2


@click.command("run")
@click.argument("plan_name", metavar="PLAN")
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for everything that the plan makes.  [default: the plan's name]",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="ENTITYBENCH_DATA",
    show_envvar=True,
    help="Where entity sets are looked up.  [default: data; OUT/data for a plan with worlds]",
)
@click.option(
    "--steps",
    type=click.IntRange(1),
    help="Steps of every training, instead of the plan's: to see it through once.",
)
@click.option("--dry-run", is_flag=True, help="Show the steps and what they will take, and stop.")
@click.option("--no-report", is_flag=True, help="Do not make the page at the end.")
@jobs_option
@overwrite_option
@json_option
@quiet_option
def command(
    plan_name: str,
    out: Path | None,
    data: Path | None,
    steps: int | None,
    dry_run: bool,
    no_report: bool,
    jobs: int,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    r"""Run a plan: train, predict and score methods × training sets × test sets × seeds.

    PLAN is a TOML file, or one of: bsds500, demo, demo-short, paper-coco-ade20k, small-protocol,
    small-protocol-gpu, tiny-worlds, worlds-cpu, worlds-gpu, worlds-table8.
    Every step is a command that you could type yourself; `--dry-run` shows them. What is done is
    skipped, so the same command resumes. A step that fails stops only those that need it.

    \b
      entitybench run worlds-cpu --dry-run
      entitybench run worlds-cpu
      entitybench run my-plan.toml --out runs/mine --data data/
    """
    from entitybench.plan import Place, load_plan, steps_of, with_steps

    plan = load_plan(plan_name)
    if steps is not None:
        plan = with_steps(plan, steps)
    folder = out or Path(Path(plan_name).stem)
    own_data = folder / "data" if plan.worlds else Path("data")
    place = Place(folder, data or own_data, jobs, overwrite)
    if dry_run:
        _show(steps_of(plan, place), place, as_json=as_json)
        return 0
    outcomes, page = run_to_page(plan, place, report=not no_report, quiet=quiet)
    if plan.claims and not as_json:
        click.echo(place.out.joinpath("claims.md").read_text(encoding="utf-8"))
    return finish(outcomes, place, page, as_json=as_json, quiet=quiet)


def run_to_page(
    plan: Plan, place: Place, *, report: bool = True, quiet: bool
) -> tuple[list[Outcome], Path | None]:
    """Run every step of a plan and make its page.

    Returns:
        What became of each step, and the page; None where there is none.

    Raises:
        MissingDataError: The plan trains or runs models, and PyTorch is not installed.
    """
    from entitybench.commands.plan_report import write_page
    from entitybench.plan import run_plan, steps_of

    _check_installed(plan)
    steps = steps_of(plan, place)
    outcomes = []
    with _Bar(len(steps), quiet=quiet) as bar:
        for outcome in run_plan(steps, place, bar.running(execute)):
            bar.tell(outcome)
            outcomes.append(outcome)
    if plan.claims:
        from entitybench.commands.plan_claims import write_claims

        write_claims(plan, place)
    page = write_page(plan, place, outcomes) if report else None
    if page is not None:
        say(f"wrote {page}", quiet=quiet)
    return outcomes, page


def _check_installed(plan: Plan) -> None:
    """Refuse at once what would fail step by step."""
    from entitybench.errors import MissingDataError

    wanted = ("torch", "safetensors", "accelerate", "transformers")
    absent = [name for name in wanted if find_spec(name) is None]
    if absent and any(method.config or method.checkpoint for method in plan.methods):
        msg = f"this trains and runs models, and `{absent[0]}` is not installed"
        raise MissingDataError(msg, hint='`pip install "entitybench[models]"`')


def execute(arguments: Sequence[str]) -> None:
    """Run one command line of entitybench in this process; its stdout is dropped.

    Raises:
        EntityBenchError: What the verb raises.
        click.ClickException: The command line is wrong.
    """
    from entitybench.cli import entitybench

    with contextlib.redirect_stdout(io.StringIO()):
        entitybench.main(list(arguments), prog_name="entitybench", standalone_mode=False)


def _show(steps: Sequence[Step], place: Place, *, as_json: bool) -> None:
    from entitybench.plan import forecast

    ahead = forecast(steps, place)
    known = [f.seconds for f in ahead if f.seconds is not None]
    unknown = len(ahead) - len(known)
    if as_json:
        emit(
            {
                "steps": [
                    {
                        "id": f.step.id,
                        "command": ["entitybench", *f.step.command(place)],
                        "done": f.is_done,
                        "seconds": f.seconds,
                    }
                    for f in ahead
                ],
                "seconds": sum(known),
                "unknown": unknown,
            }
        )
        return
    click.echo(table([["step", "takes"], *([f.step.id, _takes(f)] for f in ahead)]))
    to_do = sum(not f.is_done for f in ahead)
    told = f"about {duration(sum(known))}" if known else ""
    more = f"{unknown} of unknown length" if unknown else ""
    rest = ", ".join(part for part in (told, more) if part)
    click.echo(f"\n{len(ahead)} steps, {to_do} to do: {rest}")
    click.echo("\nas commands:")
    for f in ahead:
        click.echo(f"  entitybench {' '.join(f.step.command(place))}")


def _takes(ahead: Forecast) -> str:
    if ahead.is_done:
        return "done"
    return "?" if ahead.seconds is None else duration(ahead.seconds)


class _Bar:
    """One line for the whole plan: which step, how many are left; and a line per failure."""

    def __init__(self, total: int, *, quiet: bool) -> None:
        from tqdm import tqdm

        silent = quiet or bool(os.environ.get("ENTITYBENCH_NO_PROGRESS"))
        self._quiet = quiet
        self._bar: Any = tqdm(
            total=total, unit="step", file=sys.stderr, disable=silent or None, leave=False
        )

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def running(self, inner: Any) -> Any:
        """Show a step before it runs."""

        def run(arguments: Sequence[str]) -> None:
            self._bar.set_description(" ".join(a for a in arguments[:1]))
            inner(arguments)

        return run

    def tell(self, outcome: Outcome) -> None:
        """Move on; say what was made and what failed."""
        self._bar.update()
        self._bar.set_postfix_str(outcome.step.id)
        line = ""
        if outcome.state == "made" and outcome.seconds is not None:
            line = f"{outcome.step.id}: {duration(outcome.seconds)}"
        elif outcome.state == "failed":
            line = f"{outcome.step.id} failed: {outcome.error}"
        if line and (not self._quiet or outcome.state == "failed"):
            self._bar.write(line, file=sys.stderr)


def finish(
    outcomes: Sequence[Outcome], place: Place, page: Path | None, *, as_json: bool, quiet: bool
) -> int:
    """Tell what became of a plan and return the exit code."""
    counts = {
        state: sum(o.state == state for o in outcomes)
        for state in ("made", "done", "failed", "skipped")
    }
    if as_json:
        failures = {o.step.id: o.error for o in outcomes if o.state == "failed"}
        emit({**counts, "failures": failures, "results": place.results, "page": page})
    say(
        f"{counts['made']} steps made, {counts['done']} done before, {counts['failed']} failed, "
        f"{counts['skipped']} skipped; results: {place.results}",
        quiet=quiet,
    )
    return _COULD_NOT_RUN if counts["failed"] else 0
