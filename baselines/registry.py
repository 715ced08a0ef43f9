"""Model families by name: one function each, from a configuration to a module.

To add one, write a package in this folder with a `model.py` that defines `FAMILY`, and put its
`configs/` beside it: families are found by their place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from entitybench.baselines.model import BaselineModel, Classes
from entitybench.errors import UnknownNameError

FAMILIES = {
    path.parent.name: f"{__package__}.{path.parent.name}.model"
    for path in sorted(Path(__file__).parent.glob("*/model.py"))
}


@dataclass(frozen=True, slots=True)
class Family:
    """A kind of model.

    Attributes:
        name: As on the command line.
        package: Whose `configs/` holds the named configurations.
        config: The dataclass of a configuration; it has `data` and `schedule`.
        build: From a configuration and classes to a module; no classes is class-agnostic.
        classes_key: The key that makes a configuration class-specific, like
            `head.class_specific`.
    """

    name: str
    package: str
    config: type[Any]
    build: Callable[[Any, Classes], BaselineModel]
    classes_key: str

    def class_specific(self, config: Any) -> bool:
        """Return whether a configuration wants classes."""
        value = config
        for part in self.classes_key.split("."):
            value = getattr(value, part)
        return bool(value)


def family(name: str) -> Family:
    """Return a family by its name.

    Raises:
        UnknownNameError: No such family; tells the nearest.
    """
    if name not in FAMILIES:
        kind = "model"
        raise UnknownNameError.of(kind, name, FAMILIES)
    found: Family = import_module(FAMILIES[name]).FAMILY
    return found
