"""COCO panoptic: PNGs to the last bit, ids from the list alone, and every refusal."""

from __future__ import annotations

import io
import json
import pickle
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from entitybench.entity_map import EntityMap
from entitybench.entity_set import Category, Provenance
from entitybench.errors import FormatError, MissingDataError
from entitybench.formats.coco_panoptic import (
    CocoPanoptic,
    PanopticAnnotation,
    PanopticSegment,
    read_panoptic_png,
    read_panoptic_table,
    read_panoptic_truth,
)
from entitybench.formats.coco_panoptic_export import encode_panoptic_png
from entitybench.formats.coco_truth import open_coco_truth
from entitybench.formats.missing_score import MissingScore
from entitybench.formats.predictions import ImageSize, ScoredMap

Png = Callable[[Any], bytes]
Write = Callable[[Sequence[tuple[Any, Any, Sequence[dict[str, Any]]]]], Path]

IDS = [[0, 0, 70_000, 70_000, 256, 256], [0, 0, 70_000, 70_000, 5, 5]] * 2
TRUTH = ["000000000139", "000000000285", "street"]


# --- PNGs ------------------------------------------------------------------------


@given(st.integers(0, 2**32))
def test_ids_are_red_and_256_green_and_65536_blue(seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = (int(side) for side in rng.integers(1, 12, 2))
    rgb = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "PNG")
    ids = read_panoptic_png(file.getvalue())
    assert ids.dtype == np.uint32
    expected = [[int(r) + 256 * int(g) + 65536 * int(b) for r, g, b in row] for row in rgb]
    assert ids.tolist() == expected


def test_a_png_may_be_a_file(tmp_path: Path, panoptic_png: Png) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(panoptic_png([[1, 2**24 - 1]]))
    assert read_panoptic_png(path, shape=(1, 2)).tolist() == [[1, 2**24 - 1]]
    with pytest.raises(FormatError, match="the PNG is 2×1, the image is 1×2") as caught:
        read_panoptic_png(path, shape=(2, 1))
    assert caught.value.where == (str(path),)
    with pytest.raises(MissingDataError, match="no file"):
        read_panoptic_png(tmp_path / "b.png")


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "I;16", "1"])
def test_other_modes_are_refused_by_name(mode: str) -> None:
    file = io.BytesIO()
    Image.new(mode, (3, 2)).save(file, "PNG")
    with pytest.raises(FormatError, match=f"mode {mode}, expected 8-bit RGB"):
        read_panoptic_png(file.getvalue())


def test_a_jpeg_is_not_a_png() -> None:
    file = io.BytesIO()
    Image.new("RGB", (3, 2)).save(file, "JPEG")
    with pytest.raises(FormatError, match=r"^not a PNG"):
        read_panoptic_png(file.getvalue(), name="a.png")


def test_a_truncated_png_is_refused_wherever_it_ends(panoptic_png: Png) -> None:
    png = panoptic_png(np.random.default_rng(0).integers(0, 2**24, (8, 9)))
    for length in range(len(png) - 4):  # the last four only check that nothing follows
        with pytest.raises(FormatError) as caught:
            read_panoptic_png(png[:length], name="139.png")
        assert caught.value.where == ("139.png",)


def test_no_flipped_byte_changes_an_id_unnoticed(panoptic_png: Png) -> None:
    """Decoders skip the checksum of the pixels; we do not."""
    png = panoptic_png(np.random.default_rng(0).integers(0, 300, (8, 9)))
    ids = read_panoptic_png(png)
    for place in range(len(png)):
        broken = bytearray(png)
        broken[place] ^= 0x15
        try:
            found = read_panoptic_png(bytes(broken))
        except FormatError:
            continue
        assert np.array_equal(found, ids)


def test_a_png_that_claims_to_be_huge_is_refused_before_it_is_unpacked() -> None:
    file = io.BytesIO()
    Image.new("RGB", (20_000, 1)).save(file, "PNG")
    header = bytearray(file.getvalue())
    header[20:24] = (20_000).to_bytes(4, "big")  # the height
    header[29:33] = zlib.crc32(header[12:29]).to_bytes(4, "big")
    with pytest.raises(FormatError, match="decompression bomb"):
        read_panoptic_png(bytes(header))


# --- the table -------------------------------------------------------------------


def table(**annotation: Any) -> bytes:
    whole = {"image_id": 139, "file_name": "000000000139.png", "segments_info": []} | annotation
    return json.dumps({"annotations": [whole]}).encode()


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        ({"segments_info": [{"id": 4}, {"id": 7}, {"id": 7}]}, "segment id 7 is listed twice"),
        ({"segments_info": [{"id": 2**24}]}, "segment id 16777216 does not fit into three bytes"),
        ({"segments_info": [{"id": -1}]}, "segment id -1 does not fit into three bytes"),
        ({"file_name": "../139.png"}, "is not a plain name"),
        ({"file_name": "/etc/139.png"}, "is not a plain name"),
        ({"file_name": "a/../../139.png"}, "is not a plain name"),
        ({"file_name": "..\\139.png"}, "is not a plain name"),
        ({"file_name": "C:139.png"}, "is not a plain name"),
        ({"file_name": "a\0.png"}, "is not a plain name"),
        ({"file_name": ""}, "is not a plain name"),
    ],
)
def test_a_bad_annotation_is_refused_by_place(annotation: dict[str, Any], message: str) -> None:
    with pytest.raises(FormatError, match=message) as caught:
        read_panoptic_table(table(**annotation), "p.json")
    assert caught.value.where == ("p.json: $.annotations[0] (image 139)",)


@pytest.mark.parametrize(
    ("text", "message", "where"),
    [
        (b"{", "not JSON: it ends in the middle", "p.json"),
        (b"{}", "missing required field `annotations`", "p.json"),
        (table(segments_info=None), "got `null`", "p.json: $.annotations[0].segments_info"),
        (table(segments_info=[{}]), "field `id`", "p.json: $.annotations[0].segments_info[0]"),
        (
            table(segments_info=[{"id": "1"}]),
            "expected `int`, got `str`",
            "p.json: $.annotations[0].segments_info[0].id",
        ),
    ],
)
def test_what_is_no_table_is_refused(text: bytes, message: str, where: str) -> None:
    with pytest.raises(FormatError, match=message) as caught:
        read_panoptic_table(text, "p.json")
    assert caught.value.where == (where,)


def test_an_image_listed_twice_is_refused() -> None:
    one = json.loads(table())["annotations"][0]
    with pytest.raises(FormatError, match="image 139 is listed twice"):
        read_panoptic_table(json.dumps({"annotations": [one, one]}).encode(), "p.json")


def test_categories_become_those_of_an_entity_set() -> None:
    text = json.dumps(
        {
            "annotations": [],
            "categories": [
                {"id": 3, "name": "sky", "isthing": 0, "supercategory": "outdoor", "color": [1]},
                {"id": 9, "name": "cat", "isthing": True},
                {"id": 11},
            ],
        }
    )
    found = [c.category() for c in read_panoptic_table(text.encode(), "p.json").categories]
    assert found == [
        Category(3, "sky", False, "outdoor"),
        Category(9, "cat", True),
        Category(11, ""),
    ]


# --- ground truth ----------------------------------------------------------------


def annotation(*segments: tuple[int, int, int]) -> PanopticAnnotation:
    """Make one from (id, category id, iscrowd)."""
    return PanopticAnnotation(1, "1.png", tuple(PanopticSegment(*segment) for segment in segments))


def test_truth_keeps_the_order_and_sets_crowds_apart(panoptic_png: Png) -> None:
    listed = annotation((70_000, 3, 0), (5, 9, 1), (256, 9, 0))
    truth = read_panoptic_truth(
        panoptic_png(IDS), listed, shape=(4, 6), isthing={3: False, 9: True}
    )
    assert truth.map.to_array().tolist() == [[0, 0, 1, 1, 2, 2], [0, 0, 1, 1, 3, 3]] * 2
    assert (truth.map.num_entities, truth.map.num_crowds) == (2, 1)
    assert truth.entities == (Provenance(70_000, 3, False), Provenance(256, 9, True))
    assert truth.crowds == (Provenance(5, 9, True),)


def test_truth_with_an_unlisted_id_is_refused(panoptic_png: Png) -> None:
    with pytest.raises(FormatError, match="in the map that nothing lists: 5, 256") as caught:
        read_panoptic_truth(panoptic_png(IDS), annotation((70_000, 1, 0)))
    assert caught.value.where == ("1.png",)


def test_truth_with_an_id_that_has_no_pixel_is_refused(panoptic_png: Png) -> None:
    listed = annotation((70_000, 1, 0), (256, 1, 0), (5, 1, 0), (8, 1, 0), (9, 1, 1))
    with pytest.raises(FormatError, match="in the table without a pixel: 8, 9") as caught:
        read_panoptic_truth(panoptic_png(IDS), listed)
    assert caught.value.where == ("1.png",)


def test_real_samples_have_the_expected_entities(realdata: Path) -> None:
    expected = json.loads((realdata / "expected_entity_counts.json").read_text())["coco_panoptic"]
    root = realdata / "coco_panoptic" / "assembled_official_layout" / "annotations"
    seen = set()
    for split in ("train2017", "val2017"):
        path = root / f"panoptic_{split}.json"
        listed = read_panoptic_table(path.read_bytes(), str(path))
        isthing = {c.id: c.category().isthing for c in listed.categories}
        for one in listed.annotations:
            truth = read_panoptic_truth(
                root / f"panoptic_{split}" / one.file_name, one, isthing=isthing
            )
            counts = expected[one.file_name]
            width, height = counts["size"]
            areas = truth.map.areas
            assert truth.map.shape == (height, width)
            assert truth.map.num_entities == counts["entities"]
            assert truth.map.num_crowds == counts["crowd"]
            assert areas[0] == counts["void_px"]
            assert areas[counts["entities"] + 1 :].sum() == counts["crowd_px"]
            assert None not in {origin.isthing for origin in truth.entities}
            seen.add(one.file_name)
    assert seen == set(expected)


def test_real_areas_are_those_that_coco_lists(realdata: Path) -> None:
    root = realdata / "coco_panoptic" / "assembled_official_layout" / "annotations"
    raw = json.loads((root / "panoptic_val2017.json").read_text())
    listed = read_panoptic_table((root / "panoptic_val2017.json").read_bytes(), "val")
    for one, official in zip(listed.annotations, raw["annotations"], strict=True):
        truth = read_panoptic_truth(root / "panoptic_val2017" / one.file_name, one)
        segments = sorted(official["segments_info"], key=lambda s: s["iscrowd"])  # stable
        assert truth.map.areas[1:].tolist() == [s["area"] for s in segments]
        assert truth.map.boxes[1:].tolist() == [s["bbox"] for s in segments]


# --- predictions -----------------------------------------------------------------


def test_zero_is_an_entity_where_the_list_claims_it(
    write_panoptic: Write, image: ImageSize
) -> None:
    """DETR numbers its segments from 0; the others here are listed, unlisted, and absent."""
    path = write_panoptic(
        [
            (
                139,
                IDS,
                [
                    {"id": 256, "score": 0.5, "category_id": 200, "isthing": False},
                    {"id": 0, "score": 0.75},
                    {"id": 99, "score": 0.25},
                    {"id": 5, "score": 1, "area": 123},
                ],
            )
        ]
    )
    predictions = CocoPanoptic(path, TRUTH)
    assert predictions.image_ids == {"000000000139"}
    assert not predictions.absent_means_empty
    assert predictions.score_rule == "model"
    assert predictions.description.startswith("COCO panoptic JSON: 4 segments in 1 images; PNGs in")
    found = predictions.load(image)
    assert isinstance(found, ScoredMap)
    assert found.map.to_array().tolist() == [[2, 2, 0, 0, 1, 1], [2, 2, 0, 0, 4, 4]] * 2
    assert found.map.areas.tolist() == [8, 4, 8, 0, 4]  # 99: an entity without a pixel
    assert found.scores.tolist() == [0.5, 0.75, 0.25, 1]


def test_zero_is_void_where_nothing_claims_it(write_panoptic: Write, image: ImageSize) -> None:
    path = write_panoptic([(139, IDS, [{"id": 5, "score": 0.5}])])
    found = CocoPanoptic(path, TRUTH).load(image)
    assert isinstance(found, ScoredMap)
    assert found.map.to_array().tolist() == [[0] * 6, [0, 0, 0, 0, 1, 1]] * 2


def test_no_segments_are_an_empty_map(write_panoptic: Write, image: ImageSize) -> None:
    nothing: list[dict[str, Any]] = []
    found = CocoPanoptic(write_panoptic([(139, IDS, nothing)]), TRUTH).load(image)
    assert isinstance(found, ScoredMap)
    assert (found.map.num_entities, found.scores.tolist()) == (0, [])


def test_crowds_are_left_out_aloud(write_panoptic: Write, image: ImageSize) -> None:
    segments: list[dict[str, Any]] = [{"id": 5, "score": 0.5}, {"id": 256, "iscrowd": 1}]
    predictions = CocoPanoptic(write_panoptic([(139, IDS, segments)]), TRUTH)
    assert "1 segments in 1 images, 1 crowds left out" in predictions.description
    found = predictions.load(image)
    assert isinstance(found, ScoredMap)
    assert found.map.areas.tolist() == [20, 4]


def test_missing_scores(write_panoptic: Write, image: ImageSize) -> None:
    path = write_panoptic([(139, IDS, [{"id": 5}, {"id": 70_000}])])
    with pytest.raises(MissingDataError, match=r"^2 predicted entities have no score"):
        CocoPanoptic(path, TRUTH)
    with pytest.raises(MissingDataError, match="mean-prob` needs probabilities"):
        CocoPanoptic(path, TRUTH, MissingScore.MEAN_PROB)
    by_area = CocoPanoptic(path, TRUTH, MissingScore.AREA)
    found = by_area.load(image)
    assert isinstance(found, ScoredMap)
    assert by_area.score_rule == "area"
    assert found.scores.tolist() == [4 / 24, 8 / 24]
    constant = CocoPanoptic(path, TRUTH, MissingScore.CONSTANT).load(image)
    assert isinstance(constant, ScoredMap)
    assert constant.scores.tolist() == [1, 1]


def test_a_score_out_of_range_names_its_segment(write_panoptic: Write) -> None:
    path = write_panoptic([("street", IDS, [{"id": 5, "score": 0.5}, {"id": 256, "score": 1.5}])])
    with pytest.raises(FormatError, match=r"score 1.5 is not in \[0, 1\]") as caught:
        CocoPanoptic(path, TRUTH)
    assert caught.value.where == (f"{path}: image street, segment 256",)


def test_images_are_matched_by_value_then_by_file_name(write_panoptic: Write) -> None:
    path = write_panoptic([(139, IDS, []), ("street", IDS, [])])
    listed = json.loads(path.read_text())
    listed["annotations"][1]["image_id"] = 4711  # only its file says which it is
    path.write_text(json.dumps(listed))
    assert CocoPanoptic(path, TRUTH).image_ids == {"000000000139", "street"}


def test_unknown_and_doubled_images_are_refused(write_panoptic: Write) -> None:
    path = write_panoptic([(1, IDS, []), (139, IDS, []), ("000000000139x", IDS, [])])
    with pytest.raises(FormatError, match=r"^2 images are unknown") as caught:
        CocoPanoptic(path, TRUTH)
    assert caught.value.where == (f"{path}: image 1", f"{path}: image 000000000139x")
    listed = json.loads(path.read_text())
    listed["annotations"][0]["image_id"] = "000000000139"
    del listed["annotations"][2]
    path.write_text(json.dumps(listed))
    with pytest.raises(FormatError, match="image `000000000139` is there twice"):
        CocoPanoptic(path, TRUTH)


def test_an_image_without_predictions_is_missing(write_panoptic: Write) -> None:
    path = write_panoptic([(139, IDS, [])])
    with pytest.raises(MissingDataError, match="no predictions for image `street`"):
        CocoPanoptic(path, TRUTH).load(ImageSize("street", 6, 4))


def test_missing_pngs_are_counted_before_anything_is_scored(write_panoptic: Write) -> None:
    path = write_panoptic([(139, IDS, []), (285, IDS, []), ("street", IDS, [])])
    (path.with_suffix("") / "000000000285.png").unlink()
    with pytest.raises(MissingDataError, match=r"^1 of 3 PNGs are missing") as caught:
        CocoPanoptic(path, TRUTH)
    assert caught.value.where == (str(path.with_suffix("") / "000000000285.png"),)
    assert "`panoptic/` beside the JSON" in caught.value.hint


@pytest.mark.parametrize("place", [".", "panoptic_eval"])
def test_pngs_may_lie_beside_the_json_or_in_another_folder(
    write_panoptic: Write, tmp_path: Path, place: str
) -> None:
    path = write_panoptic([(139, IDS, [])])
    folder = tmp_path / place
    folder.mkdir(exist_ok=True)
    (path.with_suffix("") / "000000000139.png").rename(folder / "000000000139.png")
    path.with_suffix("").rmdir()
    assert CocoPanoptic(path, TRUTH).description.endswith(f"PNGs in `{folder}`")


def test_a_png_of_another_size_or_damaged_names_its_file(
    write_panoptic: Write, image: ImageSize
) -> None:
    path = write_panoptic([(139, np.transpose(IDS), [])])
    png = path.with_suffix("") / "000000000139.png"
    entry = CocoPanoptic(path, TRUTH).entry(image)
    with pytest.raises(FormatError, match="the PNG is 4×6, the image is 6×4") as caught:
        entry.load()
    assert caught.value.where == (str(png),)
    png.write_bytes(png.read_bytes()[:-20])
    with pytest.raises(FormatError) as caught:
        CocoPanoptic(path, TRUTH).load(ImageSize("000000000139", 4, 6))
    assert caught.value.where == (str(png),)


def test_an_entry_crosses_a_process_border(write_panoptic: Write, image: ImageSize) -> None:
    path = write_panoptic([(139, IDS, [{"id": 5, "score": 0.5}])])
    entry = pickle.loads(pickle.dumps(CocoPanoptic(path, TRUTH).entry(image)))
    assert entry.load().map.areas.tolist() == [20, 4]


def test_the_exporter_writes_the_same_png(panoptic_png: Png) -> None:
    ids = np.random.default_rng(0).integers(0, 66_000, (300, 300))
    entity_map = EntityMap.from_array(ids)
    written = read_panoptic_png(encode_panoptic_png(entity_map))
    assert entity_map.num_ids > 40_000
    assert np.array_equal(written, entity_map.to_array())
    assert np.array_equal(written, read_panoptic_png(panoptic_png(entity_map.to_array())))


def test_truth_puts_crowds_last_and_needs_areas(tmp_path: Path) -> None:
    """The stated areas are what sizes are told by; they need not be those of the pixels."""
    segments: list[dict[str, Any]] = [
        {"id": 7, "area": 3, "iscrowd": 1},
        {"id": 4, "area": 2.5},
        {"id": 9, "area": 1},
    ]
    annotation = {"image_id": 139, "file_name": "139.png", "segments_info": segments}
    image = {"id": 139, "file_name": "139.jpg", "width": 3, "height": 2}
    path = tmp_path / "truth.json"
    path.write_text(json.dumps({"images": [image], "annotations": [annotation]}))
    pixels = np.zeros((2, 3, 3), np.uint8)
    pixels[..., 0] = [[7, 7, 4], [9, 4, 0]]
    Image.fromarray(pixels).save(tmp_path / "139.png")
    (truth,) = open_coco_truth(path).decoded()
    assert truth.id == "139"
    assert truth.map.to_array().tolist() == [[3, 3, 1], [2, 1, 0]]
    assert (truth.map.num_entities, truth.map.num_crowds) == (2, 1)
    assert truth.annotated is not None
    assert truth.annotated.tolist() == [2.5, 1, 3]
    del segments[1]["area"]
    path.write_text(json.dumps({"images": [image], "annotations": [annotation]}))
    with pytest.raises(FormatError, match="a segment has no `area`") as caught:
        open_coco_truth(path).images()
    assert caught.value.where == (f"{path}: image 139",)
