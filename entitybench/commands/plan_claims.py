"""The claims at the end of a plan: what its paired trainings say of each."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import msgspec

from entitybench.whole_file import write_whole

if TYPE_CHECKING:
    from entitybench.baselines.claims import Finding
    from entitybench.baselines.mechanism import Mechanism
    from entitybench.plan import Claim, Method, Place, Plan

_NUMBERS = ("AP_e", "AP_before", "gap", "recall_before", "claimed_twice", "area_lost")


def write_claims(plan: Plan, place: Place) -> str:
    """Judge every claim of a plan, and write `claims.md` and `claims.json`.

    What was not measured, since its step failed, is left out, and a claim about it has no verdict.

    Returns:
        The tables, as Markdown.
    """
    rows = [row for claim in plan.claims for row in _judged(plan, claim, place)]
    text = "\n".join([*_arms(plan, place), "", *_verdicts(rows), ""])
    record = [
        {
            "claim": claim.text,
            "better": claim.better,
            "worse": claim.worse,
            "measure": claim.measure,
            "trained_on": training,
            "tested_on": test,
            **({} if found is None else asdict(found)),
        }
        for claim, training, test, found in rows
    ]
    place.out.mkdir(parents=True, exist_ok=True)
    write_whole(place.out / "claims.md", text.encode())
    encoded = msgspec.json.format(msgspec.json.encode(record), indent=1)  # NaN becomes null
    write_whole(place.out / "claims.json", encoded + b"\n")
    return text


def _judged(
    plan: Plan, claim: Claim, place: Place
) -> Iterator[tuple[Claim, str, str, Finding | None]]:
    from entitybench.baselines.claims import judge
    from entitybench.plan import tests_of

    better, worse = plan.method(claim.better), plan.method(claim.worse)
    for training in _trained_on(plan, better):
        for test in tests_of(plan, better):
            if training not in _trained_on(plan, worse) or test not in tests_of(plan, worse):
                continue
            sides = [_measured(plan, m, training, test, place) for m in (better, worse)]
            seeds = sorted(set(sides[0]) & set(sides[1]))
            pairs = [[side[seed] for seed in seeds] for side in sides]
            yield claim, training, test, judge(claim.measure, *pairs) if seeds else None


def _trained_on(plan: Plan, method: Method) -> list[str]:
    from entitybench.plan import trainings_of

    return list(dict.fromkeys(training for training, _, _ in trainings_of(plan, method)))


def _measured(
    plan: Plan, method: Method, training: str, test: str, place: Place
) -> dict[int, Mechanism]:
    """Return what was measured, by seed."""
    from entitybench.baselines.mechanism import Mechanism, mechanism_stem
    from entitybench.plan import trainings_of

    found = {}
    for trained, seed, end in trainings_of(plan, method):
        if trained == training:
            one = Mechanism.load(mechanism_stem(place.preds / f"{method.name}{end}", test))
            found.update({} if one is None else {seed: one})
    return found


def _arms(plan: Plan, place: Place) -> list[str]:
    """Lay out what was measured of each method, in points and per cent."""
    from entitybench.plan import tests_of

    lines = [
        f"| method | trained on | tested on | seeds | {' | '.join(_NUMBERS)} |",
        "|---|---|---|---:|" + "---:|" * len(_NUMBERS),
    ]
    named = {name for claim in plan.claims for name in (claim.better, claim.worse)}
    for method in (m for m in plan.methods if m.name in named):
        for training in _trained_on(plan, method):
            for test in tests_of(plan, method):
                found = _measured(plan, method, training, test, place)
                numbers = [one.numbers() for one in found.values()]
                cells = [_spread([100 * n[name] for n in numbers]) for name in _NUMBERS]
                row = [method.name, training, test, str(len(numbers)), *cells]
                lines.append(f"| {' | '.join(row)} |")
    return lines


def _verdicts(rows: Sequence[tuple[Claim, str, str, Finding | None]]) -> list[str]:
    head = "claim | trained on | tested on | measure | difference | 95 % interval | per seed"
    lines = [f"| {head} | |", "|---|---|---|---|---:|---:|---:|---|"]
    for claim, training, test, found in rows:
        cells = [claim.text, training, test, claim.measure, *_finding(found)]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _finding(found: Finding | None) -> list[str]:
    if found is None:
        return ["–", "–", "–", "not measured"]
    return [
        _points(found.difference),
        f"{_points(found.low)} … {_points(found.high)}",
        ", ".join(map(_points, found.per_seed)),
        f"**{found.verdict}**",
    ]


def _points(difference: float) -> str:
    return "–" if math.isnan(difference) else f"{100 * difference:+.1f}"


def _spread(values: Sequence[float]) -> str:
    defined = [v for v in values if not math.isnan(v)]
    if not defined:
        return "–"
    return f"{sum(defined) / len(defined):.1f} ({min(defined):.1f}–{max(defined):.1f})"
