"""entitybench: the benchmark toolkit for class-agnostic entity segmentation.

The public interface is frozen (`docs/api.md`): `convert`, `evaluate`, `open_entity_set` and
`EntityWriter`. They are loaded when first used, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from entitybench.converters.conversion import convert_source as convert
    from entitybench.entity_writer import EntityWriter
    from entitybench.metrics.benchmark import evaluate
    from entitybench.registry import open_entity_set

__all__ = ["EntityWriter", "__version__", "convert", "evaluate", "open_entity_set"]
__version__ = "0.1.0"

_HOME = {
    "EntityWriter": ("entitybench.entity_writer", "EntityWriter"),
    "convert": ("entitybench.converters.conversion", "convert_source"),
    "evaluate": ("entitybench.metrics.benchmark", "evaluate"),
    "open_entity_set": ("entitybench.registry", "open_entity_set"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        msg = f"module 'entitybench' has no attribute {name!r}"
        raise AttributeError(msg)
    module, attribute = _HOME[name]
    return getattr(import_module(module), attribute)
