"""The command line: one verb, one module of `entitybench.commands`, loaded when it is called."""

from __future__ import annotations

import os
import sys
import tomllib
import traceback
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from entitybench import __version__
from entitybench.errors import EntityBenchError, FormatError

INTERRUPTED = 130
SETTINGS = "entitybench.toml"

VERBS = {
    "convert": "Turn a source dataset into entity sets.",
    "validate": "Check an entity set against its format, pixel by pixel.",
    "eval": "Score predictions with AP_e.",
    "compare": "Compare models: differences with paired intervals.",
    "train": "Train a baseline on entity sets.",
    "predict": "Predict a set, or plain photographs, with a baseline.",
    "import": "Turn anybody's predictions into an entity set of predictions.",
    "export": "Write an entity set in COCO's formats.",
    "merge": "Join the parts of a set, or of a result, that shards wrote.",
    "run": "Run a plan: methods, training sets, test sets, seeds.",
    "report": "Make the leaderboard: a page, tables and figures.",
    "worlds": "Generate small complete datasets in the original formats.",
    "show": "Draw one image: photograph, truth, prediction, errors.",
    "list": "List entity sets, or describe one.",
    "demo": "Run the whole path on generated scenes, with no data and no GPU.",
}


_ABOUT = """Segment everything, score it without labels: the entity segmentation benchmark.

Convert a dataset, score predictions against it, compare:

\b
  entitybench convert coco --source ~/datasets/coco --out data/
  entitybench eval preds/ --gt coco_entity_val
  entitybench demo
"""


class _Verbs(click.Group):
    """Knows every verb by name and help, and imports a verb's module only to run it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            raise click.exceptions.NoSuchCommand(cmd_name, possibilities=VERBS, ctx=ctx)
        return _with_paragraphs(import_module(f"entitybench.commands.{cmd_name}_command").command)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))


@click.group(
    cls=_Verbs,
    help=_ABOUT,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="`entitybench VERB --help` explains a verb. Exit codes: 0 done, 1 found what it was "
    "asked to look for, 2 could not run, 130 interrupted.",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=lambda ctx, _, asked: _show_version(ctx) if asked else None,
    help="Show the version, and what does the work: the compiled kernel or NumPy.",
)
def entitybench() -> None:
    """Give the verbs what they share: nothing but the help."""


def _with_paragraphs(command: click.Command) -> click.Command:
    """Turn the backslash-b of raw docstrings into what click takes for "do not rewrap"."""
    command.help = (command.help or "").replace("\\b", "\b")
    if isinstance(command, click.Group):
        command.commands = {n: _with_paragraphs(c) for n, c in command.commands.items()}
    return command


def _show_version(ctx: click.Context) -> None:
    from entitybench.kernel import describe

    click.echo(f"entitybench {__version__} ({describe()})")
    ctx.exit()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        arguments: Without the program's name; the process's own unless given.
    """
    try:
        result = entitybench.main(
            None if arguments is None else list(arguments),
            prog_name="entitybench",
            standalone_mode=False,
            default_map=_settings(),
        )
    except EntityBenchError as error:
        return _fail(str(error), error.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return 2
    except (KeyboardInterrupt, click.Abort):
        return _fail("interrupted; run the same command again to go on", INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return _fail(f"{error.strerror or error}\n  --> {error.filename or '?'}", 2)
    except Exception:  # noqa: BLE001  # 1 would read as "found something": a crash is a 2
        traceback.print_exc()
        return _fail("this is a fault of entitybench; please report it with the lines above", 2)
    return result if isinstance(result, int) else 0


def _settings() -> dict[str, Any]:
    """Read defaults for the options from `entitybench.toml` in the working folder."""
    path = Path(SETTINGS)
    if not path.is_file():
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        msg = f"`{SETTINGS}` is not TOML: {error}"
        raise FormatError(msg) from error


def _fail(message: str, code: int) -> int:
    click.echo(f"{click.style('error:', fg='red', bold=True)} {message}", err=True)
    return code
