from __future__ import annotations

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


def test_tables_are_small_differences() -> None:
    assert load("overlap").bank == load("baseline").bank
    assert load("table2b_sigmoid").overlap.activation == "sigmoid"
    assert load("bank").bank.weights == (0.25, 0.25, 0.25, 1, 1, 1, 1)
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
