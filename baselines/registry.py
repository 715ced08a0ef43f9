"""Model families by name: one function each, from a configuration to a module.

To add one, write a package with a module that defines `FAMILY`, put its `configs/` beside it,
and name it here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from entitybench.baselines.model import BaselineModel, Classes
from entitybench.errors import UnknownNameError

FAMILIES = {
    name: f"entitybench.baselines.{name}.model"
    for name in (
        "entity",
        "panopticfcn",
        "detr",
        "maskformer",
        "mask2former",
        "knet",
        "panopticfpn",
    )
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
