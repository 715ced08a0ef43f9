"""From a source release to an entity set: one file per source, one engine for all."""

from entitybench.converters.conversion import convert_source as convert

__all__ = ["convert"]
