from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pytest

from entitybench.baselines.configuration import as_table, config_from, load_config, named_configs
from entitybench.baselines.entity.config import EntityConfig
from entitybench.errors import FormatError, UnknownNameError

PACKAGE = "entitybench.baselines.entity"


def load(name: str | Path, *changes: str) -> EntityConfig:
    return load_config(EntityConfig, PACKAGE, name, changes)


@pytest.mark.parametrize("name", named_configs(PACKAGE))
def test_every_named_configuration_is_valid(name: str) -> None:
    config = load(name)
    assert config_from(EntityConfig, as_table(config), name) == config


def test_the_default_is_the_released_model() -> None:
    assert load("entity_r50_1x") == EntityConfig()
    assert load("entity_r50_1x").overlap.weight == 0.5
    assert load("paper").overlap.weight == 1.0


LAST, TWO, THREE = ((0.0,) * n + (1.0,) * (7 - n) for n in (6, 5, 4))
ALL = (0.25, 0.25, 0.25, 1.0, 1.0, 1.0, 1.0)
MODULES = {  # name: trained paths, activation of overlap suppression
    # Table 2(a), 2(b), 2(c)
    "baseline": (LAST, "none"), "bank": (ALL, "none"), "overlap": (LAST, "softmax"),
    "entity_r50_1x": (ALL, "softmax"), "table2b_sigmoid": (LAST, "sigmoid"),
    "table2b_both": (LAST, "both"), "table2c_6_7": (TWO, "none"), "table2c_5_7": (THREE, "none"),
    # Tables 4, 5, 6
    "table4_baseline": (LAST, "none"), "entity_r50_3x": (ALL, "softmax"),
    "table5_sigmoid": (ALL, "sigmoid"), "table5_both": (ALL, "both"),
    "table6_6_7": (TWO, "softmax"), "table6_5_7": (THREE, "softmax"),
}  # fmt: skip
OTHERS: dict[str, dict[str, object]] = {  # name: what else than the paper's model it says
    "entity_r50_1x": {},
    "entity_r50_3x": {"schedule.steps": 270_000, "schedule.drops": (0.666667, 0.925926)},
    "entity_r101_3x": {"backbone.name": "r101"},
    "entity_r101_dcnv2_3x": {"backbone.name": "r101_dcnv2"},
    "table3_all_paths": {"inference.paths": "all"},
    "table10_point": {},
    "table10_point_in_mask": {"sampling.stuff": "point_in_mask"},
    "table10_nine_points": {"sampling.stuff": "nine_points"},
}


def flat(config: EntityConfig) -> dict[str, object]:
    return {f"{a}.{b}": v for a, part in asdict(config).items() for b, v in part.items()}


@pytest.mark.parametrize("name", MODULES)
def test_rows_of_the_ablations(name: str) -> None:
    """Tables 2(a) to 2(c), 4, 5 and 6: all else is the paper's model, but for the 36 epochs."""
    weights, activation = MODULES[name]
    config = load(name)
    assert (config.bank.weights, config.overlap.activation) == (weights, activation)
    rest = replace(config, bank=EntityConfig().bank, overlap=EntityConfig().overlap)
    assert rest == load(
        "entity_r50_3x" if name in ("table4_baseline", "entity_r50_3x") else "entity_r50_1x"
    )


@pytest.mark.parametrize("name", OTHERS)
def test_rows_of_the_other_tables(name: str) -> None:
    """Tables 2(d), 3 and 10."""
    wanted = flat(EntityConfig()) | OTHERS[name]
    if name.endswith("_3x"):
        wanted |= OTHERS["entity_r50_3x"]
    assert flat(load(name)) == wanted


def test_rows_of_the_detector() -> None:
    """Table 1: things, stuff and both, with classes and without."""
    rows = {
        "fcos": ("all", False), "table1_entity_specific": ("all", True),
        "table1_things": ("things", False), "table1_things_specific": ("things", True),
        "table1_stuff": ("stuff", False), "table1_stuff_specific": ("stuff", True),
    }  # fmt: skip
    for name, row in rows.items():
        config = load(name)
        assert (config.data.subset, config.head.class_specific) == row
        assert not config.mask.enabled


def test_schedules_are_those_of_the_released_code() -> None:
    three = load("entity_r50_3x").schedule
    assert [round(d * three.steps) for d in three.drops] == [180_000, 250_000]
    one = load("entity_r50_1x").schedule
    assert [round(d * one.steps) for d in one.drops] == [60_000, 80_000]


def test_a_file_starts_from_its_base_and_changes_apply_last(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('base = "tiny"\n[schedule]\nsteps = 7\nrate = 0.1\n')
    (tmp_path / "other.toml").write_text('base = "mine"\n[schedule]\nrate = 0.2\n')
    config = load(tmp_path / "other.toml", "schedule.batch=3", "overlap.activation=none")
    assert (config.schedule.steps, config.schedule.rate, config.schedule.batch) == (7, 0.2, 3)
    assert config.overlap.activation == "none"
    assert config.backbone.name == "tiny"


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("[overlap]\nwieght = 1.0", UnknownNameError, "did you mean `weight`"),
        ("[overlapp]\nweight = 1.0", UnknownNameError, "did you mean `overlap`"),
        ('[overlap]\nweight = "much"', FormatError, "weight"),
        ('[overlap]\nactivation = "relu"', FormatError, "activation"),
        ('base = "tinny"', UnknownNameError, "did you mean `tiny`"),
        ("overlap = 3 3", FormatError, "not TOML"),
    ],
)
def test_mistakes_are_told(tmp_path: Path, text: str, kind: type[Exception], message: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(kind, match=message):
        load(path)


def test_a_base_that_leads_to_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('base = "b"')
    (tmp_path / "b.toml").write_text('base = "a"')
    with pytest.raises(FormatError, match="itself"):
        load(tmp_path / "a.toml")
