"""The kinds of scene."""

from __future__ import annotations

from collections.abc import Callable

from entitybench.converters.worlds.country import landscape
from entitybench.converters.worlds.front import front
from entitybench.converters.worlds.room import room
from entitybench.converters.worlds.stage import Stage
from entitybench.converters.worlds.street import street
from entitybench.converters.worlds.tabletop import tabletop

LAYOUTS: dict[str, Callable[[Stage], None]] = {
    "front": front,
    "landscape": landscape,
    "room": room,
    "street": street,
    "tabletop": tabletop,
}
