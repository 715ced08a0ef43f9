"""`entitybench validate`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from entitybench.commands.console import (
    data_option,
    emit,
    jobs_option,
    json_option,
    progress,
    quiet_option,
    say,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from entitybench.entity_set import EntityImage
    from entitybench.validation import ImageCheck

SHOWN = 20


@click.command("validate")
@click.argument("entity_set", metavar="SET")
@data_option
@jobs_option
@json_option
@quiet_option
def command(entity_set: str, data: Path, jobs: int, as_json: bool, quiet: bool) -> int:
    """Check an entity set against its format, pixel by pixel.

    SET is a name under --data, or a folder or zip. Every map is decoded; areas, boxes, ids,
    scores, counts and the content hash are compared with the pixels. Exit code 1 means that
    something was found.
    """
    from entitybench.parallel import ordered_map
    from entitybench.registry import open_entity_set
    from entitybench.validation import validate

    opened = open_entity_set(entity_set, data)

    def map_images(
        check: Callable[[EntityImage], ImageCheck], images: Iterable[EntityImage]
    ) -> Iterable[ImageCheck]:
        checks = ordered_map(check, images, jobs=jobs)
        bar = partial(progress, total=len(opened), unit="image", label="validate", quiet=quiet)
        return bar(checks)

    findings = list(validate(opened, map_images))
    if as_json:
        emit({"set": str(opened.path), "images": len(opened), "findings": findings})
    else:
        for finding in findings[:SHOWN]:
            click.echo(finding)
        if len(findings) > SHOWN:
            click.echo(f"and {len(findings) - SHOWN} more")
    verdict = f"{len(findings)} findings" if findings else "nothing wrong"
    say(f"{opened.path}: {len(opened)} images, {verdict}", quiet=quiet)
    return 1 if findings else 0
