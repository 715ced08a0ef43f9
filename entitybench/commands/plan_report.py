"""The page at the end of a plan: what its steps know of the models goes into it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from entitybench.plan import Method, Outcome, Place, Plan
    from entitybench.reports.page import Origin

_DIGITS = 16


def write_page(plan: Plan, place: Place, outcomes: Sequence[Outcome]) -> Path | None:
    """Make the page of what there is; None where nothing was scored."""
    from entitybench.reports.report import Options, write_report

    if not place.results.exists():
        return None
    options = Options(
        title=plan.title,
        about=plan.about,
        data=place.data,
        preds=place.preds,
        resamples=plan.resamples,
        origins=dict(_origins(plan, outcomes)),
    )
    return write_report(place.results, place.out / "report", options).page


def _origins(plan: Plan, outcomes: Sequence[Outcome]) -> Iterator[tuple[str, Origin]]:
    """Yield each model's name and where it comes from."""
    from entitybench.reports.page import UNTRAINED, Origin

    for outcome in outcomes:
        if outcome.step.kind == "train" and outcome.state in {"made", "done"}:
            yield outcome.step.id.removeprefix("train-"), _trained(outcome)
    for method in plan.methods:
        if method.checkpoint:
            yield method.name, _trained_before(method)
        elif method.classical:
            yield method.name, Origin(UNTRAINED)
        elif method.truth:
            yield method.name, Origin("another truth")


def _trained(outcome: Outcome) -> Origin:
    from entitybench.commands.console import duration
    from entitybench.reports.page import Origin

    took = () if outcome.seconds is None else (f"took {duration(outcome.seconds)}",)
    command = " ".join(["entitybench", *outcome.step.arguments])
    return Origin("trained here", (*_facts(outcome.step.output), *took), command)


def _trained_before(method: Method) -> Origin:
    """Tell of a checkpoint; a shipped one is made by the plan of its name."""
    from entitybench.baselines.checkpoint import find_checkpoint, shipped_checkpoints
    from entitybench.reports.page import Origin

    path = find_checkpoint(Path(method.checkpoint))
    if path not in shipped_checkpoints().values():
        return Origin("trained before", _facts(path))
    return Origin("shipped", _facts(path), f"entitybench run {method.checkpoint}")


def _facts(path: Path) -> tuple[str, ...]:
    from entitybench.baselines.checkpoint import read_card

    card = read_card(path)
    sets = zip(card.trained_on, card.hashes, strict=True)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return (
        f"seed {card.seed}",
        f"{card.step:,} steps on " + " and ".join(f"{name}@{sha[:8]}" for name, sha in sets),
        f"weights sha256 {digest[:_DIGITS]}",
    )
