import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner

from entitybench.baselines.checkpoint import shipped_checkpoints
from entitybench.baselines.configuration import load_config
from entitybench.baselines.registry import FAMILIES, family
from entitybench.baselines.shipping import LARGEST
from entitybench.commands import demo_command, report_command, run_command
from entitybench.entity_map import EntityMap
from entitybench.entity_writer import EntityWriter
from entitybench.errors import EntityBenchError, FormatError, MissingDataError, UnknownNameError
from entitybench.plan import (
    Place,
    Step,
    forecast,
    load_plan,
    read_plan,
    run_plan,
    shipped_plans,
    steps_of,
    with_steps,
)

TEXT = """
title = "t"
about = "a"
train_on = ["x_entity_train", "x_entity_train+y_entity_train"]
test_on = ["x_entity_val"]
seeds = [0, 1]

[[methods]]
name = "small"
config = "tiny"
changes = ["schedule.rate=0.1"]
steps = 5

[[methods]]
name = "floor"
classical = "slic"

[[methods]]
name = "human"
[methods.truth]
x_entity_val = "other_human"
"""
SETS = ("x_entity_train", "y_entity_train", "x_entity_val", "other_human")


def write_set(data: Path, name: str, ids: str = "11") -> None:
    with EntityWriter(data / name, kind="ground_truth", name=name, overwrite=True) as writer:
        writer.add("1", EntityMap.from_array([[int(c) for c in ids]]))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    for name in SETS:
        write_set(tmp_path / "data", name)
    return Place(tmp_path / "out", tmp_path / "data", jobs=3)


class Recorder:
    """Stands in for the command line: writes what a step promises, or fails where told."""

    def __init__(self, steps: Sequence[Step], place: Place) -> None:
        self.outputs = {tuple(step.command(place)): step.output for step in steps}
        self.ran: list[tuple[str, ...]] = []
        self.failing = ""

    def __call__(self, arguments: Sequence[str]) -> None:
        self.ran.append(tuple(arguments))
        if self.failing and self.failing in " ".join(arguments):
            msg = "out of memory"
            raise RuntimeError(msg)
        output = self.outputs[tuple(arguments)]
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text("made")


def states(steps: Sequence[Step], place: Place, run: Recorder) -> dict[str, str]:
    return {outcome.step.id: outcome.state for outcome in run_plan(steps, place, run)}


def test_methods_trainings_tests_and_seeds_are_multiplied(place: Place) -> None:
    steps = steps_of(read_plan(TEXT, "p"), place)
    kinds = [step.kind for step in steps]
    # 2 trainings × 2 seeds, each trained, predicted and scored; one classical; one human
    assert {k: kinds.count(k) for k in set(kinds)} == {"train": 4, "predict": 5, "eval": 6}
    seen: set[str] = set()
    for step in steps:
        assert set(step.needs) <= seen
        seen.add(step.id)


def test_a_step_is_a_command_that_a_person_could_type(place: Place) -> None:
    steps = {step.id: step for step in steps_of(read_plan(TEXT, "p"), place)}
    name = "small@x_entity_train#1"
    data, out = place.data, place.out
    assert " ".join(steps[f"train-{name}"].command(place)) == (
        f"train --model entity --config tiny --on x_entity_train --data {data} "
        f"--out {out}/runs/{name} --set schedule.rate=0.1 --steps 5 --seed 1 --jobs 3 --quiet"
    )
    assert " ".join(steps[f"predict-{name}-x_entity_val"].command(place)) == (
        f"predict --model {out}/runs/{name} --on x_entity_val --data {data} "
        f"--out {out}/preds/{name} --name {name} --jobs 3 --quiet"
    )
    assert " ".join(steps[f"eval-{name}-x_entity_val"].command(place)) == (
        f"eval {out}/preds/{name} --gt x_entity_val --data {data} "
        f"--out {out}/results/{name}/x_entity_val.json --model {name} --protocol strict "
        "--jobs 3 --quiet"
    )
    assert steps["predict-floor-x_entity_val"].arguments[:3] == ("predict", "--model", "slic")
    assert steps["eval-human-x_entity_val"].arguments[1] == str(data / "other_human")


def test_worlds_come_first_and_everything_needs_them(tmp_path: Path) -> None:
    text = TEXT.replace(
        "[[methods]]", '[[worlds]]\nworld = "coco"\ntrain = 2\nval = 1\n[[methods]]', 1
    )
    steps = steps_of(read_plan(text, "p"), Place(tmp_path, tmp_path / "data"))
    assert [step.kind for step in steps[:2]] == ["worlds", "convert"]
    first = {step.id for step in steps[:2]}
    assert all(first & set(step.needs) or step.kind in {"predict", "eval"} for step in steps[1:])


def test_steps_may_be_those_of_the_command_line(place: Place) -> None:
    plan = with_steps(read_plan(TEXT.replace("steps = 5", "epochs = 2"), "p"), 7)
    trainings = [step for step in steps_of(plan, place) if step.kind == "train"]
    assert trainings
    assert all("--steps 7 --seed" in " ".join(step.arguments) for step in trainings)
    assert not any("--epochs" in step.arguments for step in trainings)


def test_a_checkpoint_is_predicted_anew_when_its_bytes_change(place: Place, tmp_path: Path) -> None:
    weights = tmp_path / "mine.safetensors"
    weights.write_bytes(b"one")
    text = TEXT.replace('classical = "slic"', f'checkpoint = "{weights}"')
    steps = steps_of(read_plan(text, "p"), place)
    predict = next(step for step in steps if step.id == "predict-floor-x_entity_val")
    assert predict.arguments[:3] == ("predict", "--model", str(weights))
    run = Recorder(steps, place)
    states(steps, place, run)
    weights.write_bytes(b"two")
    made = {name for name, state in states(steps, place, run).items() if state == "made"}
    assert made == {"predict-floor-x_entity_val", "eval-floor-x_entity_val"}
    weights.unlink()
    failed = {name: state for name, state in states(steps, place, run).items() if "floor" in name}
    assert failed == {
        "predict-floor-x_entity_val": "failed",
        "eval-floor-x_entity_val": "skipped",
    }


def test_a_shipped_checkpoint_goes_by_its_name(place: Place) -> None:
    text = TEXT.replace('classical = "slic"', 'checkpoint = "tiny-worlds"')
    steps = steps_of(read_plan(text, "p"), place)
    (predict,) = (step for step in steps if step.id == "predict-floor-x_entity_val")
    assert predict.arguments[2] == "tiny-worlds"
    assert predict.weights == shipped_checkpoints()["tiny-worlds"]
    assert predict.weights.stat().st_size <= LARGEST


AGAIN = """
[[methods]]
name = "small_again"
model_of = "small"
predict = ["inference.most=5"]
"""


def test_models_may_predict_a_second_time(place: Place) -> None:
    steps = {step.id: step for step in steps_of(read_plan(TEXT + AGAIN, "p"), place)}
    trained = "small@x_entity_train+y_entity_train#1"
    predict = steps["predict-small_again@x_entity_train+y_entity_train#1-x_entity_val"]
    assert predict.needs == (f"train-{trained}",)
    assert predict.arguments[:3] == ("predict", "--model", str(place.out / "runs" / trained))
    assert predict.arguments[-2:] == ("--set", "inference.most=5")
    kinds = [step.kind for step in steps.values()]
    assert {k: kinds.count(k) for k in set(kinds)} == {"train": 4, "predict": 9, "eval": 10}
    assert set(states(list(steps.values()), place, Recorder(list(steps.values()), place))) == set(
        steps
    )


def test_a_threshold_of_classes_is_the_evaluation_s(place: Place) -> None:
    given = TEXT.replace('about = "a"', 'about = "a"\nclass_threshold = 0.1')
    for step in steps_of(read_plan(given, "p"), place):
        threshold = ("--class-threshold", "0.1")
        assert (step.arguments[-2:] == threshold) == (step.kind == "eval")


def test_table_8_has_every_family_in_both_trainings() -> None:
    plan = load_plan("worlds-table8")
    trained = [m for m in plan.methods if m.config]
    assert {m.family for m in trained} == set(FAMILIES)
    for name in FAMILIES:
        kind = family(name)
        ways = {
            kind.class_specific(load_config(kind.config, kind.package, m.config, m.changes))
            for m in trained
            if m.family == name
        }
        assert ways == {False, True}, name


def test_what_is_done_is_skipped(place: Place) -> None:
    steps = steps_of(read_plan(TEXT, "p"), place)
    run = Recorder(steps, place)
    assert set(states(steps, place, run).values()) == {"made"}
    assert len(run.ran) == len(steps)
    assert set(states(steps, place, run).values()) == {"done"}
    assert len(run.ran) == len(steps)


def test_a_lost_output_is_made_again(place: Place) -> None:
    steps = steps_of(read_plan(TEXT, "p"), place)
    run = Recorder(steps, place)
    states(steps, place, run)
    steps[2].output.unlink()
    again = states(steps, place, run)
    assert [name for name, state in again.items() if state == "made"] == [steps[2].id]


def test_other_choices_or_other_data_are_another_step(place: Place) -> None:
    steps = steps_of(read_plan(TEXT, "p"), place)
    run = Recorder(steps, place)
    states(steps, place, run)
    changed = steps_of(read_plan(TEXT.replace("0.1", "0.2"), "p"), place)
    rerun = Recorder(changed, place)
    made = {name for name, state in states(changed, place, rerun).items() if state == "made"}
    assert made == {step.id for step in changed if "small@" in step.id}
    write_set(place.data, "y_entity_train", "12")
    joint = {n for n, s in states(changed, place, rerun).items() if s == "made"}
    assert joint == {step.id for step in changed if "y_entity_train" in step.id}


def test_a_folder_that_was_moved_is_done_as_before(place: Place) -> None:
    steps = steps_of(read_plan(TEXT, "p"), place)
    states(steps, place, Recorder(steps, place))
    moved = Place(
        place.out.rename(place.out.with_name("moved")),
        place.data.rename(place.data.with_name("moved-data")),
    )
    steps = steps_of(read_plan(TEXT, "p"), moved)
    assert set(states(steps, moved, Recorder(steps, moved)).values()) == {"done"}


def test_a_failure_stops_only_what_needs_it(place: Place) -> None:
    steps = steps_of(read_plan(TEXT, "p"), place)
    run = Recorder(steps, place)
    run.failing = "train --model entity --config tiny --on x_entity_train --data"
    outcomes = list(run_plan(steps, place, run))
    failed = [o for o in outcomes if o.state == "failed"]
    assert [o.step.id for o in failed] == [f"train-small@x_entity_train#{n}" for n in (0, 1)]
    assert {o.error for o in failed} == {"out of memory"}
    assert sum(o.state == "skipped" for o in outcomes) == 4
    assert sum(o.state == "made" for o in outcomes) == len(steps) - 6
    run.failing = ""
    assert sorted(set(states(steps, place, run).values())) == ["done", "made"]


def test_a_missing_set_is_the_step_s_own_failure(place: Place) -> None:
    text = TEXT.replace('["x_entity_val"]', '["x_entity_val", "gone_entity_val"]')
    steps = steps_of(read_plan(text, "p"), place)
    outcomes = list(run_plan(steps, place, Recorder(steps, place)))
    wrong = {o.step.id for o in outcomes if o.state != "made"}
    assert wrong == {step.id for step in steps if "gone" in step.id}
    assert any("entitybench convert gone" in o.error for o in outcomes)


def test_an_interrupt_is_no_failure(place: Place) -> None:
    steps = steps_of(read_plan(TEXT, "p"), place)

    def interrupted(_: Sequence[str]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(run_plan(steps, place, interrupted))


def test_the_forecast_learns_from_what_ran(place: Place) -> None:
    plan = read_plan(TEXT.replace("steps = 5", "steps = 5\nminutes = 2"), "p")
    steps = steps_of(plan, place)
    before = {f.step.id: f for f in forecast(steps, place)}
    assert before["train-small@x_entity_train#0"].seconds == 120
    assert before["eval-small@x_entity_train#0-x_entity_val"].seconds is None
    list(run_plan(steps[:3], place, Recorder(steps, place)))  # one training, scored
    after = {f.step.id: f for f in forecast(steps, place)}
    assert [f.is_done for f in after.values()][:4] == [True, True, True, False]
    assert after["train-small@x_entity_train#0"].seconds == 0
    learned = after["train-small@x_entity_train#1"].seconds
    assert learned is not None
    assert learned < 60
    assert after["eval-small@x_entity_train#1-x_entity_val"].seconds is not None


def test_a_fresh_plan_with_worlds_knows_about_how_long_it_takes(tmp_path: Path) -> None:
    text = TEXT.replace(
        "[[methods]]", '[[worlds]]\nworld = "coco"\ntrain = 200\nval = 40\n[[methods]]', 1
    ).replace("x_entity", "coco_entity")

    def ahead(text: str) -> dict[str, float | None]:
        place = Place(tmp_path, tmp_path / "data")
        steps = steps_of(read_plan(text.replace("steps = 5", "steps = 5\nminutes = 2"), "p"), place)
        return {f.step.id: f.seconds for f in forecast(steps, place)}

    small = ahead(text)
    assert None not in small.values()
    large = ahead(text.replace("val = 40", "val = 80\nsize = 256"))
    for step in ("predict-floor-coco_entity_val", "eval-floor-coco_entity_val"):
        assert large[step] == pytest.approx(8 * (small[step] or 0))  # twice as many, 4 × as large
    assert large["worlds-coco"] == pytest.approx(280 / 240 * 4 * (small["worlds-coco"] or 0))


def test_trainings_of_other_steps_take_as_much_longer() -> None:
    plan = with_steps(read_plan(TEXT.replace("steps = 5", "steps = 5\nminutes = 2"), "p"), 20)
    assert [method.minutes for method in plan.methods] == [8, None, None]
    by_epochs = TEXT.replace("steps = 5", "epochs = 2\nminutes = 2")
    assert with_steps(read_plan(by_epochs, "p"), 20).methods[0].minutes is None


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('classical = "slic"', "", "needs one of"),
        ('classical = "slic"', 'classical = "slic"\nconfig = "tiny"', "needs one of"),
        ('classical = "slic"', 'classical = "slic"\ncheckpoint = "a"', "needs one of"),
        ('name = "floor"', 'name = "small"', "one name"),
        ('name = "floor"', 'name = "../floor"', "name"),
        ('train_on = ["x_entity_train", "x_entity_train+y_entity_train"]', "", "on nothing"),
        ("seeds = [0, 1]", "seed = 0", "seed"),
        ('classical = "slic"', 'model_of = "human"', "no method above"),
        ('classical = "slic"', 'model_of = "floor"', "no method above"),
        ("seeds = [0, 1]", "class_threshold = 2", "class_threshold"),
        ('title = "t"', "title = ", "not a plan"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(before: str, after: str, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        read_plan(TEXT.replace(before, after), "p.toml")


@pytest.mark.parametrize("name", shipped_plans())
def test_shipped_plans_are_whole(name: str, tmp_path: Path) -> None:
    plan = load_plan(name)
    steps = steps_of(plan, Place(tmp_path, tmp_path / "data"))
    assert len({step.id for step in steps}) == len(steps)
    for method in plan.methods:
        kind = family(method.family)
        if method.config:
            load_config(kind.config, kind.package, method.config, method.changes)
        for training in plan.methods:
            if training.name == method.model_of:
                kind = family(training.family)
                changes = (*training.changes, *method.predict)
                load_config(kind.config, kind.package, training.config, changes)


def test_all_the_plans_are_shipped() -> None:
    assert shipped_plans() == [
        "bsds500",
        "demo",
        "demo-short",
        "paper-coco-ade20k",
        "small-protocol",
        "small-protocol-gpu",
        "tiny-worlds",
        "worlds-cpu",
        "worlds-gpu",
        "worlds-table8",
    ]
    with pytest.raises(UnknownNameError, match="demo"):
        load_plan("dmeo")


# --- the command ---------------------------------------------------------------------------------


def invoke(*arguments: str) -> tuple[int, str, str]:
    return call(run_command.command, arguments)


def demo(*arguments: str) -> tuple[int, str, str]:
    return call(demo_command.command, arguments)


def call(command: click.Command, arguments: Sequence[str]) -> tuple[int, str, str]:
    done = CliRunner().invoke(command, list(arguments), standalone_mode=False)
    if done.exception:
        raise done.exception
    return done.return_value, done.stdout, done.stderr


def test_a_dry_run_shows_commands_and_makes_nothing(place: Place, tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text(TEXT)
    given = [str(tmp_path / "plan.toml"), "--out", str(place.out), "--data", str(place.data)]
    code, said, _ = invoke(*given, "--dry-run")
    assert code == 0
    assert "15 steps, 15 to do" in said
    assert "entitybench train --model entity" in said
    assert not place.out.exists()
    told = json.loads(invoke(*given, "--dry-run", "--json")[1])
    assert (len(told["steps"]), told["unknown"]) == (15, 15)


def test_failures_are_told_and_exit_with_2(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Sequence[str]) -> None:
        msg = "no photograph"
        raise EntityBenchError(msg)

    monkeypatch.setattr(run_command, "execute", fail)
    (tmp_path / "plan.toml").write_text(TEXT)
    given = [str(tmp_path / "plan.toml"), "--out", str(place.out), "--data", str(place.data)]
    code, _, told = invoke(*given)
    assert code == 2
    assert "predict-floor-x_entity_val failed: no photograph" in told
    assert "0 steps made, 0 done before, 6 failed, 9 skipped" in told


def test_what_is_not_installed_is_told_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_command, "find_spec", lambda name: None if name == "torch" else True)
    with pytest.raises(MissingDataError, match=r"`torch` is not installed\n\nhint: .*\[models\]"):
        demo("--out", str(tmp_path / "demo"))
    assert not (tmp_path / "demo").exists()


@pytest.mark.slow
def test_the_short_demo_from_worlds_to_page(tmp_path: Path) -> None:
    """Real steps: worlds, models trained now, the shipped one, classics, the page."""
    code, said, told = demo("--short", "--out", str(tmp_path))
    assert code == 0, told
    assert "0 failed, 0 skipped" in told
    columns = said.splitlines()[2]
    assert "ADE20K + COCO: tiny " in columns
    assert "tiny-worlds" in columns
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert page.count("<small>trained here</small>") == 2
    assert page.count("<small>shipped</small>") == 1
    assert "entitybench run tiny-worlds" in page
    digest = sha256(shipped_checkpoints()["tiny-worlds"].read_bytes()).hexdigest()
    assert f"weights sha256 {digest[:16]}" in page
    again = demo("--short", "--out", str(tmp_path))
    assert "0 steps made, 38 done before" in again[2]
    assert measured_cells(tmp_path / "results", "7a") == [
        f"Table 7(a), row {row}, column {column} / ours"
        for row in ("COCO", "ADE20K", "CO+A")
        for column in ("COCO", "CO+A")
    ]
    assert measured_cells(tmp_path / "results", "8") == ["Table 8, row Ours, column A-A AP_e^m"]


def measured_cells(results: Path, table: str) -> list[str]:
    arguments = [str(results), "--table", table, "--json"]
    cells = json.loads(CliRunner().invoke(report_command.command, arguments).stdout)["cells"]
    assert {cell["delta"] for cell in cells} == {None}  # worlds are no COCO
    return [cell["source"] for cell in cells if cell["measured"] is not None]


CLAIMS = """
title = "Claims"
about = "A test."
train_on = ["coco_entity_train"]
test_on = ["coco_entity_val"]
resamples = 10
seeds = [0, 1]
[[worlds]]
world = "coco"
train = 4
val = 2
size = 64
[[methods]]
name = "both"
config = "tiny"
changes = ["schedule.batch=2"]
steps = 1
[[methods]]
name = "strict"
model_of = "both"
predict = ["inference.nms_iou=0.3"]
[[methods]]
name = "bystander"
classical = "slic"
[[claims]]
text = "suppression does nothing"
better = "both"
worse = "strict"
[[claims]]
text = "it loses less area"
better = "both"
worse = "strict"
measure = "area_lost"
"""


def test_claims_are_judged_by_pairs_of_seeds(tmp_path: Path) -> None:
    """Real steps; what failed is left out."""
    plan, out = tmp_path / "plan.toml", tmp_path / "out"
    plan.write_text(CLAIMS)
    given = [str(plan), "--out", str(out), "--jobs", "1", "--no-report"]
    code, said, told = invoke(*given)
    assert code == 0, told
    assert "| both | coco_entity_train | coco_entity_val | 2 |" in said
    assert "| suppression does nothing | coco_entity_train | coco_entity_val | AP |" in said
    first = json.loads((out / "claims.json").read_text())
    assert [f["measure"] for f in first] == ["AP", "area_lost"]
    assert all(len(f["per_seed"]) == 2 and f["verdict"] for f in first)
    assert not list(out.glob("preds/bystander/*.mechanism*"))
    for counts in out.glob("preds/*/*.counts.npy"):
        np.save(counts, 0 * np.load(counts))  # as if no entity had been found
    said = invoke(*given)[1]
    assert "| area_lost | – | – … – | –, – | **not shown** |" in said
    undefined = json.loads((out / "claims.json").read_text())[1]
    assert undefined["difference"] is undefined["low"] is None
    assert undefined["per_seed"] == [None, None]
    (out / "preds" / "both@coco_entity_train#1" / "coco_entity_val.mechanism.counts.npy").unlink()
    assert "0 steps made" in invoke(*given)[2]
    again = json.loads((out / "claims.json").read_text())
    assert [len(f["per_seed"]) for f in again] == [1, 1]
    for lost in out.glob("preds/strict*/*.counts.npy"):
        lost.unlink()
    assert "| not measured |" in invoke(*given)[1]


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('worse = "strict"', 'worse = "bystander"', "`bystander`, which the plan does not train"),
        ('worse = "strict"', 'worse = "strickt"', "did you mean `strict`"),
        ('measure = "area_lost"', 'measure = "area"', "not a plan"),
    ],
)
def test_claims_that_make_no_sense_are_refused(before: str, after: str, message: str) -> None:
    with pytest.raises(EntityBenchError, match=message):
        read_plan(CLAIMS.replace(before, after), "p")


@pytest.mark.slow
def test_a_plan_from_worlds_to_page(tmp_path: Path) -> None:
    """Real steps: a world, two methods without training and one trained for three steps."""
    (tmp_path / "plan.toml").write_text(
        """
        title = "Small"
        about = "A test."
        train_on = ["coco_entity_train"]
        test_on = ["coco_entity_val"]
        resamples = 10
        [[worlds]]
        world = "coco"
        train = 8
        val = 3
        size = 64
        [[methods]]
        name = "tiny"
        config = "tiny"
        changes = ["schedule.batch=2"]
        steps = 3
        [[methods]]
        name = "floor"
        classical = "slic"
        """
    )
    given = [str(tmp_path / "plan.toml"), "--out", str(tmp_path / "out"), "--jobs", "1"]
    code, _, told = invoke(*given)
    assert code == 0, told
    page = (tmp_path / "out" / "report" / "index.html").read_text(encoding="utf-8")
    assert "tiny" in page
    assert "floor" in page
    assert "0 steps made, 7 done before" in invoke(*given)[2]
