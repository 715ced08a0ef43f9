"""Procedural worlds: complete datasets in the three original formats, without a download.

    make_world(Path("worlds/coco"), "coco", train=400, val=100, size=128, seed=0)

writes what `convert coco --source worlds/coco` reads, and beside it the true entity maps.
"""

from entitybench.converters.worlds.annotation import SceneEntity
from entitybench.converters.worlds.scene import Scene, make_scene
from entitybench.converters.worlds.vocabulary import WORLDS
from entitybench.converters.worlds.world import WorldSummary, make_world

__all__ = ["WORLDS", "Scene", "SceneEntity", "WorldSummary", "make_scene", "make_world"]
