"""The small protocol: do the paper's claims hold at a budget that anybody has?

Arms are trained on the same images in the same order from the same seeds, for equally many
image passes, and compared in pairs on the same test images. A claim is *supported* where the
bootstrap interval of the mean difference lies above zero and the difference of every seed does,
*contradicted* where both lie below, and else *not shown*. Nothing here is tuned on the test images.

::

    python -m entitybench.baselines.small_protocol cpu --data data --out runs/protocol

Interrupted, the same command goes on.
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import click
import msgspec
import numpy as np
from numpy.typing import NDArray

from entitybench.baselines.configuration import load_config, parse_changes
from entitybench.baselines.mechanism import Mechanism, area_lost, claimed_twice
from entitybench.errors import FormatError, UnknownNameError
from entitybench.metrics.bootstrap import draws, interval, resample

Verdict = Literal["supported", "not shown", "contradicted"]
MEASURES = ("AP", "claimed_twice", "area_lost", "gap")
_RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to train, and to predict.

    Attributes:
        config: A named configuration, or a TOML file.
        train: Changes to it, like `schedule.rate=0.001`.
        predict: Changes at prediction; arms that differ only here share a run.
        family: Of the model.
    """

    config: str
    train: tuple[str, ...] = ()
    predict: tuple[str, ...] = ()
    family: str = "entity"


@dataclass(frozen=True, slots=True)
class Claim:
    """That one arm does better than another.

    Attributes:
        text: In words.
        better: An arm.
        worse: Another.
        measure: `AP` (AP_e), where more is better, or `claimed_twice`, `area_lost` or `gap` (AP
            before resolution minus AP_e), where less is.
    """

    text: str
    better: str
    worse: str
    measure: Literal["AP", "claimed_twice", "area_lost", "gap"] = "AP"


@dataclass(frozen=True, slots=True)
class Protocol:
    """What is trained, tested and claimed.

    Attributes:
        train_on: Sets to train on, `a+b`.
        test_on: Sets to test on, each by itself.
        steps: Of every arm.
        seeds: Of every arm.
        arms: By name.
        claims: About them.
        test_images: Of each set; 0 takes all.
    """

    train_on: str
    test_on: tuple[str, ...]
    steps: int
    seeds: tuple[int, ...]
    arms: dict[str, Arm]
    claims: tuple[Claim, ...]
    test_images: int = 0


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of a claim on one test set.

    Attributes:
        claim: Which.
        test_set: Where.
        difference: Mean over the seeds, positive in favour of the claim, as a fraction.
        low: Lower end of its interval.
        high: Upper end.
        per_seed: The difference of each seed.
        verdict: In a word or two.
    """

    claim: Claim
    test_set: str
    difference: float
    low: float
    high: float
    per_seed: tuple[float, ...]
    verdict: Verdict = field(default="not shown")


def load_protocol(name: str) -> Protocol:
    """Read a protocol: one of ours by name, or a TOML file.

    Raises:
        UnknownNameError: No such protocol, or a claim about an unknown arm.
        FormatError: Not a protocol.
    """
    folder = files("entitybench.baselines") / "protocols"
    ours = sorted(
        p.name.removesuffix(".toml") for p in folder.iterdir() if p.name.endswith(".toml")
    )
    kind = "protocol"
    if Path(name).suffix != ".toml" and name not in ours:
        raise UnknownNameError.of(kind, name, ours)
    source = folder / f"{name}.toml" if name in ours else Path(name)
    try:
        protocol = msgspec.convert(tomllib.loads(source.read_text(encoding="utf-8")), Protocol)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        msg = f"not a protocol: {error}"
        raise FormatError(msg, where=name) from error
    kind = "arm"
    for claim in protocol.claims:
        for arm in (claim.better, claim.worse):
            if arm not in protocol.arms:
                raise UnknownNameError.of(kind, arm, protocol.arms)
    return protocol


def judge(
    claim: Claim, test_set: str, better: Sequence[Mechanism], worse: Sequence[Mechanism]
) -> Finding:
    """Judge a claim on one test set.

    The interval is over images: every seed's pair shares the draws, and the differences of the
    seeds are averaged in each resample. It says how far the result hangs on these images; how
    far it hangs on the seeds is seen in `per_seed`.

    Args:
        claim: Which.
        test_set: Its name.
        better: One for each seed.
        worse: The same seeds.
    """
    sign = 1.0 if claim.measure == "AP" else -1.0
    pairs = list(zip(better, worse, strict=True))
    per_seed = [sign * (value_of(a, claim.measure) - value_of(b, claim.measure)) for a, b in pairs]
    samples = np.mean(
        [sign * (resampled(a, claim.measure) - resampled(b, claim.measure)) for a, b in pairs],
        axis=0,
    )
    found = interval(samples, 0.95, 0)
    verdict: Verdict = "not shown"
    if found.low > 0 and min(per_seed) > 0:
        verdict = "supported"
    elif found.high < 0 and max(per_seed) < 0:
        verdict = "contradicted"
    mean = float(np.mean(per_seed))
    return Finding(claim, test_set, mean, found.low, found.high, tuple(per_seed), verdict)


def value_of(of: Mechanism, measure: str) -> float:
    """Return one measure on all images, as a fraction."""
    numbers = of.numbers()
    return numbers["AP_e" if measure == "AP" else measure]


def resampled(of: Mechanism, measure: str) -> NDArray[np.float64]:
    """Return one measure in every resample of the images."""
    if measure in ("AP", "gap"):
        after = resample(of.resolved, _RESAMPLES, 0, ["AP"])["AP"]
        if measure == "AP":
            return after
        return resample(of.overlapping, _RESAMPLES, 0, ["AP"])["AP"] - after
    share = claimed_twice if measure == "claimed_twice" else area_lost
    blocks = draws(len(of.counts), _RESAMPLES, 0)
    sums = np.concatenate([weights @ of.counts for weights in blocks])
    return np.array([share(row) for row in sums])


def run_protocol(
    protocol: Protocol, data: Path, out: Path, say: Callable[[str], None], *, device: str = ""
) -> list[Finding]:
    """Train, test and judge; whatever is there already is not done again.

    Args:
        protocol: What.
        data: Where the sets are.
        out: Where runs and results go: `table.md` and `findings.json` in the end.
        say: Hears of each run.
        device: `cpu`, or nothing for the best there is.
    """
    results: dict[tuple[str, str], list[Mechanism]] = {}
    for seed in protocol.seeds:  # seed by seed: whatever is cut off, the pairs are complete
        for name, arm in protocol.arms.items():
            for test_set in protocol.test_on:
                found = _result(protocol, arm, seed, test_set, data, out, device)
                results.setdefault((name, test_set), []).append(found)
                say(f"{name}, seed {seed}, {test_set}: {_line(found)}")
    findings = [
        judge(claim, test_set, results[claim.better, test_set], results[claim.worse, test_set])
        for claim in protocol.claims
        for test_set in protocol.test_on
    ]
    out.mkdir(parents=True, exist_ok=True)
    plain = msgspec.to_builtins(findings)
    (out / "findings.json").write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")
    (out / "table.md").write_text(as_table(results, findings), encoding="utf-8")
    return findings


def _result(
    protocol: Protocol, arm: Arm, seed: int, test_set: str, data: Path, out: Path, device: str
) -> Mechanism:
    run = out / "runs" / _plain("-".join([arm.family, arm.config, *arm.train])) / f"seed-{seed}"
    stem = run / _plain("-".join([test_set, *arm.predict]))
    done = Mechanism.load(stem)
    if done is None:
        from entitybench.baselines.mechanism import measure_mechanism
        from entitybench.registry import open_entity_set

        model = _trained(protocol, arm, seed, data, run, device)
        predictor = _predictor(model, parse_changes(arm.predict), device)
        truth = open_entity_set(test_set, data)
        done = measure_mechanism(predictor, truth, protocol.test_images or None)
        done.save(stem)
    return done


def _trained(protocol: Protocol, arm: Arm, seed: int, data: Path, run: Path, device: str) -> Path:
    from entitybench.baselines.registry import family
    from entitybench.baselines.training import Run, train
    from entitybench.registry import open_union

    kind = family(arm.family)
    changes = [*arm.train, f"schedule.steps={protocol.steps}"]
    config = load_config(kind.config, kind.package, arm.config, changes)
    sets = open_union(protocol.train_on, data)
    return train(Run(kind, config, sets, run, seed=seed, device=device))


def _predictor(path: Path, changes: Mapping[str, Any], device: str) -> Any:
    import torch

    from entitybench.baselines.checkpoint import load_model
    from entitybench.baselines.prediction import Predictor

    model, _ = load_model(path, changes)
    config: Any = model.config
    model.run_with(config.schedule)
    best = "cuda" if torch.cuda.is_available() and device != "cpu" else "cpu"
    return Predictor.of(model.to(best).eval(), config)


def as_table(
    results: Mapping[tuple[str, str], Sequence[Mechanism]], findings: Sequence[Finding]
) -> str:
    """Lay out scores and verdicts as Markdown, in points and per cent."""
    names = ("AP_e", "AP_before", "gap", "recall_before", "claimed_twice", "area_lost")
    lines = [f"| arm | test set | {' | '.join(names)} |", "|---|---|" + "---:|" * len(names)]
    for (arm, test_set), seeds in results.items():
        numbers = [one.numbers() for one in seeds]
        cells = [_spread([100 * n[name] for n in numbers]) for name in names]
        lines.append(f"| {arm} | {test_set} | {' | '.join(cells)} |")
    lines += ["", "| claim | test set | measure | difference | 95 % interval | per seed | |"]
    lines.append("|---|---|---|---:|---:|---:|---|")
    for f in findings:
        seeds_text = ", ".join(f"{100 * d:+.1f}" for d in f.per_seed)
        lines.append(
            f"| {f.claim.text} | {f.test_set} | {f.claim.measure} | {100 * f.difference:+.1f} "
            f"| {100 * f.low:+.1f} … {100 * f.high:+.1f} | {seeds_text} | **{f.verdict}** |"
        )
    return "\n".join([*lines, ""])


def _spread(values: Sequence[float]) -> str:
    defined = [v for v in values if not math.isnan(v)]
    if not defined:
        return "–"
    return f"{np.mean(defined):.1f} ({min(defined):.1f}–{max(defined):.1f})"


def _line(found: Mechanism) -> str:
    numbers = found.numbers()
    return ", ".join(f"{name} {100 * value:.1f}" for name, value in numbers.items())


def _plain(name: str) -> str:
    return "".join(c if c.isalnum() or c in "._+-" else "_" for c in name)


@click.command()
@click.argument("protocol")
@click.option("--data", type=click.Path(path_type=Path), default=Path("data"), show_default=True)
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True)
@click.option("--device", type=click.Choice(["cpu", "best"]), default="best", show_default=True)
def main(protocol: str, data: Path, out: Path, device: str) -> None:
    """Run PROTOCOL: `cpu`, `gpu`, or a TOML file."""
    chosen = load_protocol(protocol)
    run_protocol(
        chosen,
        data,
        out,
        lambda text: click.echo(text, err=True),
        device="cpu" if device == "cpu" else "",
    )
    click.echo((out / "table.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
