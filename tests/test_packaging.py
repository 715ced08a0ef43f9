"""The layout promises: what is listed, what is linked, who imports whom, what starts fast."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("baselines", "converters", "metrics", "reports")
APPLICATION = {"cli", "commands", "plan", "__main__"}
ALLOWED = {
    "core": {"core"},
    "converters": {"core", "converters"},
    "metrics": {"core", "metrics"},
    "baselines": {"core", "metrics", "baselines"},
    "reports": {"core", "metrics", "reports"},
}


def packages_on_disk() -> set[str]:
    found = {"entitybench"}
    for init in (ROOT / "entitybench").rglob("__init__.py"):
        parts = init.parent.relative_to(ROOT).parts
        if len(parts) > 1 and parts[1] not in FOLDERS:
            found.add(".".join(parts))
    for folder in FOLDERS:
        for init in (ROOT / folder).rglob("__init__.py"):
            found.add("entitybench." + ".".join(init.parent.relative_to(ROOT).parts))
    return found


def modules() -> Iterator[tuple[str, Path]]:
    """Yield the layer of each module and its file; the application has no layer."""
    for path in sorted((ROOT / "entitybench").rglob("*.py")):
        parts = path.relative_to(ROOT / "entitybench").parts
        if parts[0] not in FOLDERS and Path(parts[0]).stem not in APPLICATION:
            yield "core", path
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield folder, path


def imported_layers(path: Path) -> Iterator[str]:
    """Yield the layer of each import, wherever in the module it stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "entitybench" and len(parts) > 1:
                application = parts[1] in APPLICATION
                yield parts[1] if parts[1] in FOLDERS or application else "core"


def type_checking_only(path: Path) -> bool:
    """The package's own `__init__` names its public interface for type checkers alone."""
    return path == ROOT / "entitybench" / "__init__.py"


def test_every_package_is_listed_for_the_wheel() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert set(config["tool"]["setuptools"]["packages"]) == packages_on_disk()


@pytest.mark.parametrize("folder", FOLDERS)
def test_links_mirror_the_mapping(folder: str) -> None:
    link = ROOT / "entitybench" / folder
    if link.is_file():
        pytest.skip("this checkout has no symlinks")
    assert link.is_symlink()
    assert link.readlink() == Path(f"../{folder}")
    assert link.resolve() == ROOT / folder


@pytest.mark.parametrize("layer", sorted(ALLOWED))
def test_imports_point_downward(layer: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {imported}"
        for own, path in modules()
        if own == layer and not type_checking_only(path)
        for imported in imported_layers(path)
        if imported not in ALLOWED[layer]
    ]
    assert wrong == []


def run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.strip()


def test_the_version_tells_what_does_the_work() -> None:
    said = []
    for pure in ("0", "1"):
        done = subprocess.run(
            [sys.executable, "-m", "entitybench", "--version"],
            env={**os.environ, "ENTITYBENCH_PURE": pure},
            capture_output=True,
            text=True,
            check=True,
        )
        said.append(done.stdout.partition("(")[2].strip().strip(")"))
    assert said[0] in {"compiled kernel", "NumPy, as the kernel is not built"}
    assert said[1] == "NumPy, as ENTITYBENCH_PURE asks"


def test_help_imports_neither_numpy_nor_torch() -> None:
    code = (
        "import sys; from entitybench.cli import main; code = main(['--help']);"
        "print(code, sorted({'numpy', 'torch', 'PIL', 'pandas', 'matplotlib'} & set(sys.modules)))"
    )
    assert run_python(code).splitlines()[-1] == "0 []"


@pytest.mark.parametrize("package", ["metrics", "converters"])
def test_a_layer_imports_without_torch(package: str) -> None:
    code = f"import sys, entitybench.{package}; print('torch' in sys.modules)"
    assert run_python(code) == "False"


def test_no_function_is_longer_than_sixty_lines() -> None:
    long = []
    for _, path in modules():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                text = ast.get_docstring(node, clean=False)
                docstring = len(text.splitlines()) if text else 0
                lines = (node.end_lineno or node.lineno) - node.lineno + 1 - docstring
                if lines > 60:
                    long.append(f"{path.relative_to(ROOT)}:{node.name} has {lines} lines")
    assert long == []
