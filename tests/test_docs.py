"""Each command in the README and the guides runs, as it is written.

Blocks of `sh` are run. Blocks of `console` take hours, other machines or downloads: what they ask
of entitybench is read by the program itself, up to where it would begin.
"""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import numpy as np
import pytest
from PIL import Image

import entitybench.converters
from entitybench.baselines.configuration import load_config
from entitybench.baselines.registry import family
from entitybench.cli import entitybench as program
from entitybench.cli import main
from entitybench.converters import convert
from entitybench.converters.worlds import make_world
from entitybench.entity_writer import EntityWriter
from entitybench.errors import FormatError
from entitybench.formats.coco_panoptic_export import write_coco_panoptic
from entitybench.perturbation import Perturbation, perturb
from entitybench.plan import load_plan
from entitybench.registry import open_entity_set
from tests.foreign_predictions import write_foreign_predictions
from tests.small_releases import (
    ade20k_full,
    bsds500,
    coco_instances,
    mapillary,
    sa1b,
    write,
)

ROOT = Path(__file__).resolve().parents[1]
GUIDES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BY_CI = ("python3 -m venv",)  # the two set-up commands, which .ci/run runs in full


def blocks(path: Path, language: str) -> list[str]:
    fence = re.compile(rf"^```{language}\n(.*?)^```", re.DOTALL | re.MULTILINE)
    return fence.findall(path.read_text(encoding="utf-8"))


def commands(path: Path) -> list[str]:
    """Every line of the shell blocks, joined where a backslash continues it."""
    lines = "\n".join(blocks(path, "sh")).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip() and not line.startswith(("#", *BY_CI))]


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with a COCO release (a generated one), and predictions to score."""
    make_world(tmp_path / "datasets" / "coco", "coco", train=2, val=3, size=64, seed=0)
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("ENTITYBENCH_JOBS", "1")  # starting processes would take most of the time
    assert main(["convert", "coco", "--source", "~/datasets/coco".replace("~", str(tmp_path))]) == 0
    truth = open_entity_set("coco_entity_val")
    with EntityWriter("preds/coco_entity_val", model="mine") as writer:
        for number, image in enumerate(truth):
            rng = np.random.default_rng(number)
            writer.add(image.id, *perturb(image.map, rng, Perturbation()))
    write_foreign_predictions(tmp_path / "here", truth)
    written = write_coco_panoptic(open_entity_set("preds/coco_entity_val"), tmp_path / "exported")
    shutil.copy(written, "panoptic.json")
    shutil.copytree(written.with_suffix(""), "panoptic")
    return tmp_path


def add_releases(guide: Path, datasets: Path) -> None:
    """Make the other releases that a guide speaks of."""
    text = guide.read_text(encoding="utf-8")
    for name in ("ade20k", "cityscapes"):
        if f"~/datasets/{name} " in text:
            make_world(datasets / name, name, train=2, val=3, size=64, seed=0)
    if "~/datasets/ade20k-full " in text:
        write(datasets / "ade20k-full", ade20k_full("ADE_val_00000001", [[401, 2978]], [[1, 255]]))
    for name, files in {
        "sa1b": sa1b(1),
        "mapillary-vistas": mapillary("b7"),
        "entityseg": coco_instances("entityv2_010203_entity_val"),
        "lvis": coco_instances("lvis_v1_val"),
    }.items():
        if f"~/datasets/{name} " in text:
            write(datasets / name, files)
    if "~/datasets/bsds500 " in text:
        for split in ("train", "val"):
            humans = [np.ones((4, 6)), np.ones((4, 6))]
            write(datasets / "bsds500", bsds500(12003, humans, split=split))


def arguments(line: str, home: Path) -> list[str]:
    """Split a line as a shell would, but for what the generated release names otherwise."""
    first = open_entity_set("coco_entity_val").ids[0]
    words = shlex.split(line, comments=True)[1:]
    return [w.replace("~", str(home)).replace("000000000139", first) for w in words]


@pytest.fixture
def parcels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """The source of docs/add-a-source.md, added as it says; returns what its test defines."""
    guide = ROOT / "docs" / "add-a-source.md"
    converter, test = blocks(guide, "python")
    assert converter.startswith("# converters/parcels.py\n")
    (tmp_path / "added").mkdir()
    (tmp_path / "added" / "parcels.py").write_text(converter)
    package = entitybench.converters
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path / "added")])
    names: dict[str, Any] = {}
    exec(compile(test, str(guide), "exec"), names)
    yield names
    sys.modules.pop("entitybench.converters.parcels", None)
    vars(package).pop("parcels", None)


def test_the_source_of_the_guide_passes_its_test(parcels: dict[str, Any], tmp_path: Path) -> None:
    tests = [value for name, value in parcels.items() if name.startswith("test_")]
    assert len(tests) == 1
    tests[0](tmp_path)
    bad = parcels["release"](tmp_path / "bad") / "labels" / "val" / "barn.png"
    Image.fromarray(np.full((2, 3), 3001, np.uint16)).save(bad)
    with pytest.raises(FormatError, match="there is no class 3") as caught:
        convert("parcels", tmp_path / "bad", tmp_path / "else")
    assert caught.value.where == (str(bad),)


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.name)
def test_the_commands_of_a_guide_run(guide: Path, workplace: Path, parcels: dict[str, Any]) -> None:
    add_releases(guide, workplace / "datasets")
    parcels["release"](workplace / "datasets" / "parcels")
    for line in commands(guide):
        assert line.startswith("entitybench "), f"{guide.name}: who runs `{line}`?"
        assert main(arguments(line, workplace)) == 0, line


def shown(path: Path) -> Iterator[list[str]]:
    """Yield what follows the program's name in the lines of the console blocks."""
    for block in blocks(path, "console"):
        lines = block.replace("\\\n", " ").splitlines()
        typed = [line[2:] for line in lines if line.startswith("$ ")] or lines
        for line in typed:
            words = shlex.split(line.replace("$SLURM_ARRAY_TASK_ID", "1"), comments=True)
            if "entitybench" in words:
                yield words[words.index("entitybench") + 1 :]


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.name)
def test_what_takes_too_long_to_run_is_understood(guide: Path) -> None:
    for words in shown(guide):
        context = click.Context(program)
        command: click.Command = program
        while isinstance(command, click.Group):
            verb, *words = words
            found = command.get_command(context, verb)
            assert found is not None, f"{guide.name}: entitybench {verb}"
            command = found
        said = command.make_context(verb, words).params
        if verb == "train":
            kind = family(said["model"])
            load_config(kind.config, kind.package, said["config"], said["changes"])
        elif verb == "run":
            load_plan(said["plan_name"])


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.name)
def test_modules_that_guides_start_are_there(guide: Path) -> None:
    for name in re.findall(r"python -m ([\w.]+)", guide.read_text(encoding="utf-8")):
        assert find_spec(name) is not None, name


def test_a_guide_shows_commands_of_both_kinds() -> None:
    assert list(shown(ROOT / "docs" / "cluster.md"))[-1][:2] == ["convert", "ade20k"]
    assert commands(ROOT / "docs" / "leaderboard.md")[-1] == "entitybench run bsds500 --dry-run"


@pytest.mark.parametrize("guide", [ROOT / "README.md", ROOT / "docs" / "entity-format.md"])
def test_ten_lines_write_predictions(guide: Path, workplace: Path) -> None:
    def predict(file_name: str) -> tuple[np.ndarray, list[float]]:
        assert file_name.endswith(".jpg")
        return np.array([[1, 1, 2], [0, 2, 2]]), [0.9, 0.5]

    (block,) = (b for b in blocks(guide, "python") if "EntityWriter" in b)
    exec(compile(block, str(guide), "exec"), {"predict": predict})
    written = open_entity_set("preds/mine/coco_entity_val")
    assert written.ids == open_entity_set("coco_entity_val").ids
    assert written.header.model is not None
    assert written.header.model.name == "mine"


def test_the_format_page_reads_a_map_as_it_says(workplace: Path) -> None:
    import PIL.Image

    truth = open_entity_set("coco_entity_val")
    (line,) = blocks(ROOT / "docs" / "entity-format.md", "python")[0].splitlines()
    line = line.replace("000000000139", truth.ids[0]).replace('"maps', f'"{truth.path}/maps')
    names = {"numpy": np, "PIL": SimpleNamespace(Image=PIL.Image)}
    exec(line, names)
    assert np.array_equal(np.asarray(names["ids"]), truth[truth.ids[0]].map.to_array())


def test_the_readme_links_to_files_that_are_there() -> None:
    for guide in GUIDES:
        for target in re.findall(r"\]\(([^)#:]+)\)", guide.read_text(encoding="utf-8")):
            assert (guide.parent / target).exists(), f"{guide.name} links to {target}"


def verbs(group: click.Group, path: str = "entitybench") -> Iterator[tuple[str, click.Command]]:
    """Yield each command as it is typed."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from verbs(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


VERBS = dict(verbs(program))


def test_every_verb_is_shown_somewhere() -> None:
    texts = "\n".join(guide.read_text(encoding="utf-8") for guide in GUIDES)
    assert [verb for verb in VERBS if not re.search(rf"{verb}\b", texts)] == []


def test_the_readme_or_a_guide_links_to_every_guide() -> None:
    links = {
        (guide.parent / target).resolve()
        for guide in GUIDES
        for target in re.findall(r"\]\(([^)#:]+)\)", guide.read_text(encoding="utf-8"))
    }
    assert [guide.name for guide in GUIDES[1:] if guide not in links] == []


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_is_explained(verb: str) -> None:
    command = VERBS[verb]
    assert command.help or command.short_help
    options = [p for p in command.params if isinstance(p, click.Option) and not p.hidden]
    assert options
    assert [option.opts for option in options if not option.help] == []


OTHERS = (  # options of other programs, and of our benchmarks
    *("--array", "--cpus-per-task", "--dependency", "--gres", "--nodes", "--requeue", "--time"),
    *("--nnodes", "--nproc-per-node", "--rdzv-backend", "--rdzv-endpoint"),
    *("--multi_gpu", "--num_processes", "--nworkers", "--convert-to-rle", "--seconds", "--curves"),
)


def test_options_that_guides_name_are_there() -> None:
    """A renamed option would live on in prose."""
    params = [param for command in VERBS.values() for param in command.params]
    known = {name for param in params for name in (*param.opts, *param.secondary_opts)}
    named = {
        (option, guide.name)
        for guide in GUIDES
        for option in re.findall(r"(?<![\w-])--[a-z][\w-]+", guide.read_text(encoding="utf-8"))
    }
    strange = {pair for pair in named if pair[0] not in {"--help", "--version", *known, *OTHERS}}
    assert strange == set()
