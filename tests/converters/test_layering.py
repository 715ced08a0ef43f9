"""What lies over what: every pixel compared with masks painted one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from entitybench.converters.layering import Annotation, ZOrder, lay_out
from entitybench.entity_set import Provenance
from entitybench.errors import FormatError, OverlapError, UnknownNameError

Mask = NDArray[np.bool_]
SHAPE = (4, 6)


def mask(rows: str) -> Mask:
    """Read a mask drawn as text: `#` is inside."""
    return np.array([[letter == "#" for letter in line] for line in rows.split()])


def rle(drawn: Mask) -> dict[str, Any]:
    encoded = coco_mask.encode(np.asfortranarray(drawn.astype(np.uint8)))
    return {"size": list(drawn.shape), "counts": encoded["counts"].decode("ascii")}


def annotation(number: int, drawn: Mask, *, is_crowd: bool = False) -> Annotation:
    return Annotation(rle(drawn), Provenance(number), is_crowd)


LARGE = mask("####.. ####.. ####.. ......")
SMALL = mask("...... .##... .##... ......")
RIGHT = mask("...... ...### ...### ......")
APART = mask("...... ...... ...... ......")


def test_annotations_that_do_not_touch_keep_their_order() -> None:
    drawn = [mask("##.... ##.... ...... ......"), mask("..##.. ...... ...... ......")]
    done = lay_out(SHAPE, [annotation(9, drawn[0]), annotation(4, drawn[1])], None, "t.json")
    assert done.map.to_array().tolist()[0] == [1, 1, 2, 2, 0, 0]
    assert [origin.source_id for origin in done.entities] == [9, 4]
    assert (done.map.num_crowds, done.warnings) == (0, ())


def test_overlap_is_refused_with_every_pair_and_the_choice() -> None:
    annotations = [annotation(7, LARGE), annotation(8, SMALL), annotation(9, RIGHT)]
    with pytest.raises(OverlapError) as caught:
        lay_out(SHAPE, annotations, None, "t.json: image 3")
    assert str(caught.value) == (
        "annotations of one image overlap\n"
        "  --> t.json: image 3: annotations 7 and 8 share 4 pixels\n"
        "  --> t.json: image 3: annotations 7 and 9 share 2 pixels\n\n"
        "hint: AP_e knows no overlap: `--z-order area` lays the smaller on top, "
        "`--z-order order` the later in the file; the choice stands in the set's options"
    )


@pytest.mark.parametrize(
    ("z_order", "expected"),
    [
        (ZOrder.AREA, "111100 122333 122333 000000"),  # 12, 4 and 6 pixels
        (ZOrder.ORDER, "111100 111333 111333 000000"),  # large, drawn second, hides small
    ],
)
def test_the_two_orders(z_order: ZOrder, expected: str) -> None:
    annotations = [annotation(1, LARGE), annotation(2, SMALL), annotation(3, RIGHT)]
    if z_order is ZOrder.ORDER:
        annotations = [annotation(2, SMALL), annotation(1, LARGE), annotation(3, RIGHT)]
        expected = expected.replace("3", "2")  # small is hidden and dropped: right becomes 2
    done = lay_out(SHAPE, annotations, z_order, "t")
    assert ["".join(map(str, row)) for row in done.map.to_array().tolist()] == expected.split()


def test_what_nobody_can_see_is_dropped_and_said() -> None:
    annotations = [annotation(1, SMALL), annotation(2, APART), annotation(3, LARGE)]
    done = lay_out(SHAPE, annotations, ZOrder.ORDER, "t")
    assert done.map.num_entities == 1
    assert done.map.areas.tolist() == [12, 12]
    assert [origin.source_id for origin in done.entities] == [3]
    assert done.warnings == (
        "1 of 3 annotations are hidden by others and left out",
        "1 of 3 annotations have no pixel and are left out",
    )


@pytest.mark.parametrize("z_order", list(ZOrder))
def test_a_crowd_is_below_every_entity(z_order: ZOrder) -> None:
    crowd = annotation(5, SMALL, is_crowd=True)  # smaller than, and after, what covers it in part
    part = annotation(6, mask("...... ###... ...... ......"))
    done = lay_out(SHAPE, [part, crowd], z_order, "t")
    assert done.map.to_array().tolist()[1:3] == [[1, 1, 1, 0, 0, 0], [0, 2, 2, 0, 0, 0]]
    assert (done.map.num_entities, done.map.num_crowds) == (1, 1)
    assert [origin.source_id for origin in done.crowds] == [5]


def painted(masks: list[Mask], crowds: list[bool], z_order: ZOrder) -> NDArray[np.int64]:
    """Paint by plain loops: returns the index of each pixel's annotation, or -1."""
    if z_order is ZOrder.ORDER:
        order = sorted(range(len(masks)), key=lambda k: (not crowds[k], k))
    else:
        order = sorted(range(len(masks)), key=lambda k: (not crowds[k], -masks[k].sum(), k))
    canvas = np.full(masks[0].shape, -1)
    for k in order:
        canvas[masks[k]] = k
    return canvas


@pytest.mark.parametrize("z_order", list(ZOrder))
@pytest.mark.parametrize("seed", range(25))
def test_any_masks_are_painted_as_declared(seed: int, z_order: ZOrder) -> None:
    random = np.random.default_rng(seed)
    count = int(random.integers(1, 9))
    masks = [random.random((5, 7)) < random.random() for _ in range(count)]
    crowds = (random.random(count) < 0.3).tolist()
    annotations = [annotation(k, masks[k], is_crowd=crowds[k]) for k in range(count)]
    done = lay_out((5, 7), annotations, z_order, "t")
    origins = [*done.entities, *done.crowds]
    canvas = painted(masks, crowds, z_order)
    back = np.array([-1, *(origin.source_id for origin in origins)])
    assert np.array_equal(back[done.map.to_array()], canvas)
    expected = [k for k in range(count) if not crowds[k] and np.any(canvas == k)]
    assert [origin.source_id for origin in done.entities] == expected
    assert np.all(done.map.areas[1:] > 0)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_polygons_and_uncompressed_rle_are_read() -> None:
    square = Annotation([[1, 1, 3, 1, 3, 3, 1, 3]], Provenance(1))
    counts = Annotation({"size": [4, 6], "counts": [20, 4]}, Provenance(2))
    done = lay_out(SHAPE, [square, counts], None, "t")
    expected = coco_mask.decode(coco_mask.frPyObjects([[1, 1, 3, 1, 3, 3, 1, 3]], 4, 6)[0])
    expected[:, 5] = 2
    assert done.map.to_array().tolist() == expected.tolist()


def test_damage_names_the_annotation() -> None:
    with pytest.raises(FormatError) as caught:
        lay_out((9, 9), [annotation(77, SMALL)], None, "t.json: image 3")
    assert caught.value.where == ("t.json: image 3: annotation 77",)


def test_an_image_without_annotations_is_all_void() -> None:
    done = lay_out(SHAPE, [], None, "t")
    assert (done.map.num_ids, done.map.areas.tolist()) == (0, [24])


def test_a_z_order_that_nobody_knows() -> None:
    assert ZOrder.of({"z_order": None}) is None
    assert ZOrder.of({"z_order": "area"}) is ZOrder.AREA
    with pytest.raises(UnknownNameError, match="unknown z-order `aera`, did you mean `area`"):
        ZOrder.of({"z_order": "aera"})
