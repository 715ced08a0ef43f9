"""The names of the shared world and what each dataset makes of them.

All worlds show the same things. What counts as an entity is a *convention*, and the three
conventions differ as those of the real datasets do: a window is stuff in COCO (all panes
of a picture are one entity), a thing in ADE20K (each pane is one) and part of its building
in Cityscapes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple


class Kind(Enum):
    """What a convention makes of a name."""

    THING = "thing"  # each one is an entity
    STUFF = "stuff"  # all of one category in a picture are one entity
    HOST = "host"  # belongs to what it is mounted on
    VOID = "void"  # not annotated


class Label(NamedTuple):
    """One name under one convention.

    Attributes:
        kind: What it becomes.
        category: The source's id; 0 for what has none. Void names of Cityscapes have one.
    """

    kind: Kind
    category: int = 0


@dataclass(frozen=True, slots=True)
class Category:
    """One row of a source's table of categories."""

    id: int
    name: str
    isthing: bool
    supercategory: str = ""


_LETTERS = {"t": Kind.THING, "s": Kind.STUFF, "h": Kind.HOST, "v": Kind.VOID}

# name: COCO, ADE20K (SceneParse150), Cityscapes; the letter is the kind, the number the
# source's category id
_CONVENTIONS = """
sky            s187  s3    s23
building       s197  s2    s11
tower          s197  s49   s11
house          s128  s26   s11
wall           s199  s1    s12
brick wall     s171  s1    s12
wooden floor   s118  s4    v6
tiled floor    s190  s4    v6
ceiling        s186  s6    v4
road           s149  s7    s7
sidewalk       s191  s12   s8
grass          s193  s10   s22
earth          s194  s14   s22
sand           s154  s47   s22
sea            s178  s27   v0
river          s178  s61   v0
mountain       s192  s17   s22
hill           s192  s69   s22
rock           s198  s35   v4
tree           s184  s5    s21
bush           s184  s18   s21
fence          s185  t33   s13
rug            s200  s29   v4
curtain        s109  t19   h
window         s181  t9    h
pane           h     h     h
door           s112  t15   h
awning         v     t87   h
cabinet        s188  t11   v4
shelf          s156  t25   v4
painting       v     t23   v4
lamp           s130  t37   v4
cushion        s141  t40   v4
box            s100  t42   v4
pole           v     t94   s17
street lamp    s130  t88   s17
traffic light  t10   t137  s19
sign           t13   t44   s20
person         t1    t13   t24
rider          t1    t13   t25
bicycle        t2    t128  t33
motorcycle     t4    t117  t32
car            t3    t21   t26
van            t8    t103  v29
truck          t8    t84   t27
bus            t6    t81   t28
bench          t15   t70   v4
trash can      v     t139  v4
hydrant        t11   v     v4
umbrella       t28   v     v5
ball           t37   t120  v5
kite           t38   v     v5
boat           t9    t77   v5
dog            t18   t127  v5
sheep          t20   t127  v5
bird           t16   t127  v5
chair          t62   t20   v5
sofa           t63   t24   v5
bed            t65   t8    v5
table          t67   t16   v5
television     t72   t90   v4
clock          t85   t149  v4
book           t84   t68   v4
vase           t86   t136  v4
bottle         t44   t99   v4
cup            t47   v     v4
bowl           t51   v     v4
apple          t53   t121  v4
orange         t55   t121  v4
potted plant   t64   s18   s21
flower         s119  t67   s21
camera car     v     v     v1
frame          v     v     v2
fog            v     v     v0
"""

_COCO = """
1 person/person; 2 bicycle/vehicle; 3 car/vehicle; 4 motorcycle/vehicle; 6 bus/vehicle;
8 truck/vehicle; 9 boat/vehicle; 10 traffic light/outdoor; 11 fire hydrant/outdoor;
13 stop sign/outdoor; 15 bench/outdoor; 16 bird/animal; 18 dog/animal; 20 sheep/animal;
28 umbrella/accessory; 37 sports ball/sports; 38 kite/sports; 44 bottle/kitchen;
47 cup/kitchen; 51 bowl/kitchen; 53 apple/food; 55 orange/food; 62 chair/furniture;
63 couch/furniture; 64 potted plant/furniture; 65 bed/furniture; 67 dining table/furniture;
72 tv/electronic; 84 book/indoor; 85 clock/indoor; 86 vase/indoor;
100 cardboard/raw-material; 109 curtain/textile; 112 door-stuff/furniture-stuff;
118 floor-wood/floor; 119 flower/plant; 128 house/building; 130 light/furniture-stuff;
141 pillow/textile; 149 road/ground; 154 sand/ground; 156 shelf/furniture-stuff;
171 wall-brick/wall; 178 water-other/water; 181 window-other/window; 184 tree-merged/plant;
185 fence-merged/structural; 186 ceiling-merged/ceiling; 187 sky-other-merged/sky;
188 cabinet-merged/furniture-stuff; 190 floor-other-merged/floor; 191 pavement-merged/ground;
192 mountain-merged/solid; 193 grass-merged/plant; 194 dirt-merged/ground;
197 building-other-merged/building; 198 rock-merged/solid; 199 wall-other-merged/wall;
200 rug-merged/textile
"""

_ADE20K = """
1 wall; 2 building, edifice; 3 sky; 4 floor, flooring; 5 tree; 6 ceiling; 7 road, route; 8 bed;
9 windowpane, window; 10 grass; 11 cabinet; 12 sidewalk, pavement; 13 person; 14 earth, ground;
15 door; 16 table; 17 mountain, mount; 18 plant; 19 curtain; 20 chair; 21 car; 23 painting;
24 sofa; 25 shelf; 26 house; 27 sea; 29 rug; 33 fence; 35 rock, stone; 37 lamp; 40 cushion;
42 box; 44 signboard, sign; 47 sand; 49 skyscraper; 61 river; 67 flower; 68 book; 69 hill;
70 bench; 77 boat; 81 bus; 84 truck; 87 awning; 88 streetlight, street lamp;
90 television; 94 pole; 99 bottle; 103 van; 117 minibike, motorbike; 120 ball;
121 food; 127 animal; 128 bicycle; 136 vase; 137 traffic light; 139 ashcan, trash can; 149 clock
"""

_CITYSCAPES = """
0 unlabeled/void; 1 ego vehicle/void; 2 rectification border/void; 4 static/void;
5 dynamic/void; 6 ground/void; 7 road/flat; 8 sidewalk/flat; 11 building/construction;
12 wall/construction; 13 fence/construction; 17 pole/object; 19 traffic light/object;
20 traffic sign/object; 21 vegetation/nature; 22 terrain/nature; 23 sky/sky; 24 person/human;
25 rider/human; 26 car/vehicle; 27 truck/vehicle; 28 bus/vehicle; 29 caravan/vehicle;
32 motorcycle/vehicle; 33 bicycle/vehicle
"""


def _conventions() -> dict[str, dict[str, Label]]:
    worlds: dict[str, dict[str, Label]] = {world: {} for world in WORLDS}
    for line in _CONVENTIONS.strip().splitlines():
        *words, coco, ade20k, cityscapes = line.split()
        for world, code in zip(WORLDS, (coco, ade20k, cityscapes), strict=True):
            worlds[world][" ".join(words)] = Label(_LETTERS[code[0]], int(code[1:] or 0))
    return worlds


def _categories(world: str, text: str) -> dict[int, Category]:
    things = {label.category for label in CONVENTIONS[world].values() if label.kind is Kind.THING}
    rows = {}
    for item in text.replace("\n", " ").split(";"):
        number, _, rest = item.strip().partition(" ")
        name, _, supercategory = rest.partition("/")
        rows[int(number)] = Category(int(number), name, int(number) in things, supercategory)
    return rows


WORLDS = ("coco", "ade20k", "cityscapes")
CONVENTIONS = _conventions()
CATEGORIES = {
    "coco": _categories("coco", _COCO),
    "ade20k": _categories("ade20k", _ADE20K),
    "cityscapes": _categories("cityscapes", _CITYSCAPES),
}
