"""Model families by name: one function each, from a configuration to a module.

To add one, write a package with a module that defines `FAMILY`, put its `configs/` beside it,
and name it here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from entitybench.baselines.model import BaselineModel
from entitybench.errors import UnknownNameError

FAMILIES = {"entity": "entitybench.baselines.entity.model"}


@dataclass(frozen=True, slots=True)
class Family:
    """A kind of model.

    Attributes:
        name: As on the command line.
        package: Whose `configs/` holds the named configurations.
        config: The dataclass of a configuration; it has `data` and `schedule`.
        build: From a configuration and a number of classes to a module; 1 is class-agnostic.
        class_specific: Whether a configuration wants classes.
    """

    name: str
    package: str
    config: type[Any]
    build: Callable[[Any, int], BaselineModel]
    class_specific: Callable[[Any], bool]


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
