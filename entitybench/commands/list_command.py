"""`entitybench list`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from entitybench.commands.console import data_option, emit, json_option, say, table

if TYPE_CHECKING:
    from entitybench.entity_set import EntitySet
    from entitybench.set_statistics import SetStatistics


@click.command("list")
@click.argument("entity_set", metavar="[SET]", required=False)
@data_option
@json_option
def command(entity_set: str | None, data: Path, as_json: bool) -> int:
    """List the entity sets under --data, or describe one SET (a name or a path).

    Shows images, entities, entities per image, sizes (small < 32², medium < 96², large, in
    pixels) and the share of void: all from the sets' tables, without reading a map.
    """
    from entitybench.registry import known_sets, open_entity_set
    from entitybench.set_statistics import describe

    if entity_set is not None:
        opened = open_entity_set(entity_set, data)
        statistics = describe(opened)
        if as_json:
            emit(_as_json(opened, statistics))
        else:
            click.echo(_description(opened, statistics))
        return 0
    sets = [open_entity_set(path) for path in known_sets(data).values()]
    described = [(opened, describe(opened)) for opened in sets]
    if as_json:
        emit({"sets": [_as_json(*pair) for pair in described]})
    elif described:
        click.echo(_listing(described))
    else:
        say(f"no entity sets in `{data}`\n\nhint: `entitybench convert SOURCE --out {data}`")
    return 0


def _listing(described: list[tuple[EntitySet, SetStatistics]]) -> str:
    head = ["set", "kind", "images", "entities", "per image", "small", "medium", "large", "void"]
    rows = [
        [
            opened.header.name,
            "predictions" if opened.is_prediction else "truth",
            f"{s.images:,}",
            f"{s.entities:,}",
            f"{s.per_image[2]:.1f}",
            *(_percent(share) for share in (s.small, s.medium, s.large, s.void)),
        ]
        for opened, s in described
    ]
    return table([head, *rows], left=2)


def _description(opened: EntitySet, s: SetStatistics) -> str:
    header = opened.header
    least, median, mean, most = s.per_image
    facts = {
        "set": f"{header.name} ({header.kind.replace('_', ' ')})",
        "path": str(opened.path),
        "source": " ".join(filter(None, [header.source, header.split])) or "–",
        "licence": header.licence or "–",
        "model": header.model.name if header.model else "",
        "options": ", ".join(f"{k}={v}" for k, v in header.options.items()) or "–",
        "hash": header.content_hash[:16],
        "images": f"{s.images:,} ({s.empty_images:,} without entities)",
        "size": f"{s.width[0]}–{s.width[1]} × {s.height[0]}–{s.height[1]} pixels",
        "entities": f"{s.entities:,}",
        "per image": f"{mean:.1f} mean, {median:g} median, {least}–{most}",
        "by size": f"{_percent(s.small)} small, {_percent(s.medium)} medium, "
        f"{_percent(s.large)} large",
        "crowds": f"{s.crowds:,} ({_percent(s.crowd)} of the pixels)",
        "void": f"{_percent(s.void)} of the pixels",
        "photographs": opened.photographs or "–",
    }
    return table([[key, value] for key, value in facts.items() if value], left=2)


def _as_json(opened: EntitySet, statistics: SetStatistics) -> dict[str, object]:
    header = opened.header
    return {
        "name": header.name,
        "kind": header.kind,
        "path": str(opened.path),
        "source": header.source,
        "split": header.split,
        "licence": header.licence,
        "options": header.options,
        "content_hash": header.content_hash,
        "statistics": asdict(statistics),
    }


def _percent(share: float) -> str:
    return "–" if share != share else f"{100 * share:.1f} %"  # NaN is not itself
