"""COCO: every layout, every contradiction, and the real samples."""

from __future__ import annotations

import io
import json
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from entitybench.converters import convert
from entitybench.entity_set import EntitySet, open_path
from entitybench.errors import ConflictError, EntityBenchError, FormatError, MissingDataError
from entitybench.validation import validate

Release = Any  # tests/converters/conftest.py: tests cannot import one another
STEMS = ["000000000009", "000000000700", "000000010009"]


def check(entity_set: EntitySet, split: Any) -> None:
    """Compare a converted set with the split it came from, image by image."""
    assert list(validate(entity_set)) == []
    assert list(entity_set.ids) == sorted(split.ids)
    for image in entity_set:
        expected, entities, crowds = split.expected(image.id)
        assert np.array_equal(image.map.to_array(), expected)
        assert [row.source_id for row in image.row.entities] == entities
        assert [row.source_id for row in image.row.crowd] == crowds
        assert [row.isthing for row in image.row.entities] == [False] * len(entities)
        assert [row.isthing for row in image.row.crowd] == [True] * len(crowds)
        assert image.row.file_name == f"{image.id}.jpg"


OFFICIAL = "annotations/panoptic_{split}2017"
LAYOUTS = {
    "official": {},
    "beside": {"pngs": "panoptic_{split}2017/"},
    "flat": {"table": "panoptic_{split}2017.json", "pngs": "panoptic_{split}2017/"},
    "unzipped into a folder of its name": {"pngs": f"{OFFICIAL}/panoptic_{{split}}2017/"},
    "photographs in images": {"photographs": "images/{split}2017/"},
    "without the year": {
        "table": "annotations/panoptic_{split}.json",
        "pngs": "annotations/panoptic_{split}/",
        "photographs": "images/{split}/",
    },
}


@pytest.mark.parametrize("parent", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=list(LAYOUTS))
def test_usual_layouts_give_the_same_sets(
    release: Release, tmp_path: Path, layout: dict[str, str], parent: bool
) -> None:
    root = release.write(tmp_path / "sources" / "coco", **layout)
    (tmp_path / "sources" / "another").mkdir()
    train, val = convert("coco", root.parent if parent else root, tmp_path / "out")
    assert (train.name, val.name) == ("coco_entity_train", "coco_entity_val")
    assert (train.images, val.images, val.crowds) == (2, 3, 1)
    assert (train.photographs_absent, val.photographs_absent) == (2, 1)
    assert (train.release_images, val.release_images) == (118_287, 5_000)
    for summary, split in ((train, release.splits["train"]), (val, release.val)):
        check(open_path(summary.path), split)
        assert summary.entities == open_path(summary.path).header.num_entities
    photographs = open_path(val.path).photographs
    assert photographs == str(root / layout.get("photographs", "{split}2017/").format(split="val"))


@pytest.mark.parametrize("inner", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("outer", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_official_archives_give_the_same_bytes(
    release: Release,
    tmp_path: Path,
    files_of: Callable[[Path], dict[str, bytes]],
    inner: int,
    outer: int,
) -> None:
    convert("coco", release.write(tmp_path / "folders"), tmp_path / "a")
    root = release.write_archives(tmp_path / "archives", inner, outer)
    before = sorted(tmp_path.rglob("*"))
    summaries = convert("coco", root, tmp_path / "b")
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")
    new = [
        p for p in tmp_path.rglob("*") if p not in before and not p.is_relative_to(tmp_path / "b")
    ]
    assert new == []  # no second copy
    assert [s.photographs_absent for s in summaries] == [2, 1]
    assert open_path(summaries[1].path).photographs == f"{root}/val2017.zip!/val2017"


def test_only_the_outer_archive_unpacked(
    release: Release, tmp_path: Path, files_of: Callable[[Path], dict[str, bytes]]
) -> None:
    convert("coco", release.write(tmp_path / "folders"), tmp_path / "a")
    root = release.write_archives(tmp_path / "archives", 0, zipfile.ZIP_DEFLATED)
    outer = root / "panoptic_annotations_trainval2017.zip"
    shutil.unpack_archive(outer, root)
    outer.unlink()
    convert("coco", root, tmp_path / "b")
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")


def test_an_archive_mends_a_folder_that_an_unzip_tool_cut_short(
    release: Release, tmp_path: Path, files_of: Callable[[Path], dict[str, bytes]]
) -> None:
    convert("coco", release.write(tmp_path / "folders"), tmp_path / "a")
    root = release.write_archives(tmp_path / "archives", 0, 0)
    name = "annotations/panoptic_val2017/000000000009.png"
    (root / name).parent.mkdir(parents=True)
    shutil.copy(tmp_path / "folders" / name, root / name)
    convert("coco", root, tmp_path / "b")
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")


def test_the_archive_itself_may_be_the_source(release: Release, tmp_path: Path) -> None:
    root = release.write_archives(tmp_path / "archives", 8, 8)
    path = root / "panoptic_annotations_trainval2017.zip"
    train, val = convert("coco", path, tmp_path / "out")
    assert (train.images, val.images, val.photographs_absent) == (2, 3, 3)


def test_the_header_tells_what_it_is(release: Release, tmp_path: Path) -> None:
    (summary,) = convert("coco", release.write(tmp_path / "coco"), tmp_path / "out", splits=["val"])
    header = open_path(summary.path).header
    assert (header.kind, header.source, header.split) == ("ground_truth", "coco", "val")
    assert header.converter == "coco/1"
    assert header.options == {"profile": "raw"}
    assert "CC BY 4.0" in (header.licence or "")
    assert [(c.id, c.name, c.isthing) for c in header.categories] == [
        (1, "person", True),
        (200, "rug-merged", False),
    ]


def test_more_than_255_entities(release: Release, tmp_path: Path) -> None:
    ids = np.arange(1, 301).reshape(15, 20) * 50_001
    release.val.add(800, ids)
    convert("coco", release.write(tmp_path / "coco"), tmp_path / "out", splits=["val"])
    entity_set = open_path(tmp_path / "out" / "coco_entity_val")
    assert entity_set["000000000800"].map.num_entities == 300
    check(entity_set, release.val)


def test_an_image_that_is_all_void_stays(release: Release, tmp_path: Path) -> None:
    release.val.add(800, np.zeros((8, 8), dtype=np.int64))
    convert("coco", release.write(tmp_path / "coco"), tmp_path / "out", splits=["val"])
    image = open_path(tmp_path / "out" / "coco_entity_val")["000000000800"]
    assert (image.map.num_entities, image.row.width) == (0, 8)


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGB"])
def test_photographs_of_any_kind_are_measured(release: Release, tmp_path: Path, mode: str) -> None:
    release.val.add_photograph(10_009, 32, 24, mode)
    summaries = convert("coco", release.write(tmp_path / "coco"), tmp_path / "out")
    assert summaries[1].photographs_absent == 0


def test_a_rotated_photograph_counts_as_it_is_stored(release: Release, tmp_path: Path) -> None:
    root = release.write(tmp_path / "coco")
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90° to show
    Image.new("RGB", (32, 24)).save(root / "val2017" / f"{STEMS[0]}.jpg", exif=exif)
    assert convert("coco", root, tmp_path / "out", splits=["val"])[0].images == 3


# --- what contradicts itself -------------------------------------------------


def annotation(split: Any, number: int) -> dict[str, Any]:
    found: dict[str, Any] = next(a for a in split.table["annotations"] if a["image_id"] == number)
    return found


def cut_png(split: Any) -> None:
    split.pngs[f"{STEMS[0]}.png"] = split.pngs[f"{STEMS[0]}.png"][:-40]


def no_png(split: Any) -> None:
    split.pngs[f"{STEMS[0]}.png"] = b"<html>please log in</html>"


def other_mode(mode: str) -> Callable[[Any], None]:
    def spoil(split: Any) -> None:
        file = io.BytesIO()
        Image.new(mode, (32, 24)).save(file, "PNG")
        split.pngs[f"{STEMS[0]}.png"] = file.getvalue()

    return spoil


def other_size(split: Any) -> None:
    split.table["images"][1]["width"] = 33


def huge_png(split: Any) -> None:
    split.pngs[f"{STEMS[0]}.png"] += bytes(1_000_000)


def id_not_in_the_table(split: Any) -> None:
    annotation(split, 9)["segments_info"].pop(2)


def id_not_in_the_png(split: Any) -> None:
    annotation(split, 9)["segments_info"].append({"id": 77, "category_id": 1, "iscrowd": 0})


def segment_twice(split: Any) -> None:
    segments = annotation(split, 9)["segments_info"]
    segments.append(segments[0])


def segment_zero(split: Any) -> None:
    annotation(split, 9)["segments_info"].append({"id": 0, "category_id": 1, "iscrowd": 0})


def segment_too_large(split: Any) -> None:
    annotation(split, 9)["segments_info"].append({"id": 2**24, "category_id": 1, "iscrowd": 0})


def unknown_category(split: Any) -> None:
    annotation(split, 9)["segments_info"][1]["category_id"] = 12


def category_twice(split: Any) -> None:
    split.table["categories"].append(split.table["categories"][0])


def image_twice(split: Any) -> None:
    split.table["images"].append(split.table["images"][0])


def annotation_twice(split: Any) -> None:
    split.table["annotations"].append(annotation(split, 9))


def png_twice(split: Any) -> None:
    annotation(split, 9)["file_name"] = annotation(split, 700)["file_name"]


def stem_twice(split: Any) -> None:
    split.table["images"][1]["file_name"] = split.table["images"][2]["file_name"]


def image_unlisted(split: Any) -> None:
    split.table["images"].pop(1)


def image_without_annotation(split: Any) -> None:
    split.table["annotations"].remove(annotation(split, 9))
    del split.pngs[f"{STEMS[0]}.png"]


def png_missing(split: Any) -> None:
    del split.pngs[f"{STEMS[0]}.png"]


def png_without_annotation(split: Any) -> None:
    split.pngs["000000000010.png"] = split.pngs[f"{STEMS[0]}.png"]


def photograph_of_another_size(split: Any) -> None:
    split.add_photograph(9, 24, 32)


def photograph_broken(split: Any) -> None:
    split.photographs[f"{STEMS[0]}.jpg"] = b"nothing"


def png_elsewhere(split: Any) -> None:
    annotation(split, 9)["file_name"] = "../../secret.png"


def photograph_elsewhere(split: Any) -> None:
    split.table["images"][1]["file_name"] = "../../secret.jpg"


def image_without_size(split: Any) -> None:
    del split.table["images"][1]["width"]


def image_without_name(split: Any) -> None:
    del split.table["images"][1]["file_name"]


def segment_without_id(split: Any) -> None:
    del annotation(split, 9)["segments_info"][0]["id"]


PNG = "panoptic_val2017: 000000000009.png"
CONTRADICTIONS: list[tuple[Callable[[Any], None], str, str]] = [
    (cut_png, "not a readable PNG", PNG),
    (no_png, "not a", PNG),
    (other_mode("P"), "mode P", PNG),
    (other_mode("L"), "mode L", PNG),
    (other_mode("RGBA"), "mode RGBA", PNG),
    (other_mode("I;16"), "mode I;16", PNG),
    (other_size, "the PNG is 32×24, the image is 33×24", PNG),
    (huge_png, "expected at most", "000000000009.png"),
    (id_not_in_the_table, "ids in the map that nothing lists: {}", PNG),
    (id_not_in_the_png, "ids in the table without a pixel: 77", PNG),
    (segment_twice, "is listed twice", "$.annotations[1] (image 9)"),
    (segment_zero, "segment id 0 means void", "$.annotations[1].segments_info["),
    (segment_too_large, "16777216 does not fit", "$.annotations[1] (image 9)"),
    (unknown_category, "category 12 is not in", "$.annotations[1].segments_info[1]"),
    (category_twice, "category id 1 is listed twice", "panoptic_val2017.json"),
    (image_twice, "image id 10009 is listed twice", "panoptic_val2017.json"),
    (annotation_twice, "image 9 is listed twice", "$.annotations[3]"),
    (png_twice, "PNG `000000000700.png` is listed twice", "panoptic_val2017.json"),
    (stem_twice, "image ids that are there twice: 1", "image 000000000700"),
    (image_unlisted, "annotations of images that the table does not list: 1", "image 9"),
    (image_without_annotation, "images without an annotation: 1 of 3", "image 9"),
    (png_missing, "PNGs that are missing: 1 of 3", "panoptic_val2017/000000000009.png"),
    (png_without_annotation, "PNGs without an annotation: 1, beside 3", "000000000010.png"),
    (
        photograph_of_another_size,
        "the photograph is 24×32, its annotation is 32×24",
        "000000000009.jpg",
    ),
    (photograph_broken, "the photograph cannot be read", "val2017/000000000009.jpg"),
    (png_elsewhere, "'../../secret.png' is not a plain name", "$.annotations[1] (image 9)"),
    (photograph_elsewhere, "'../../secret.jpg' is not a plain name", "$.images[1] (image 9)"),
    (image_without_size, "an image has no size", "$.images[1] (image 9)"),
    (image_without_name, "an image has no file name", "$.images[1] (image 9)"),
    (segment_without_id, "missing required field `id`", "$.annotations[1].segments_info[0]"),
]


@pytest.mark.parametrize("archived", [False, True])
@pytest.mark.parametrize(
    ("spoil", "what", "where"),
    CONTRADICTIONS,
    ids=[f"{spoil.__name__}: {what}" for spoil, what, _ in CONTRADICTIONS],
)
def test_a_contradiction_is_refused_by_name(
    release: Release,
    tmp_path: Path,
    spoil: Callable[[Any], None],
    what: str,
    where: str,
    archived: bool,
) -> None:
    if spoil is id_not_in_the_table:
        what = what.format(annotation(release.val, 9)["segments_info"][2]["id"])
    (tmp_path / "secret.png").write_bytes(release.val.pngs[f"{STEMS[0]}.png"])
    spoil(release.val)
    root = tmp_path / "coco"
    if archived:
        release.write_archives(root, zipfile.ZIP_DEFLATED, zipfile.ZIP_DEFLATED)
        where = where.replace("panoptic_val2017/0", "panoptic_val2017.zip!/panoptic_val2017/0")
        if spoil is png_missing:
            where = "panoptic_val2017/000000000009.png"
    else:
        release.write(root)
    with pytest.raises(EntityBenchError) as caught:
        convert("coco", root, tmp_path / "out", splits=["val"])
    assert isinstance(caught.value, FormatError | MissingDataError)
    assert what in caught.value.what
    assert where in caught.value.where[0]
    assert not (tmp_path / "out" / "coco_entity_val" / "entity_set.json").exists()


@pytest.mark.parametrize("text", ["", "not json", '{"images": []', '{"annotations": 3}', "[]"])
def test_json_that_is_not_a_table_is_refused(release: Release, tmp_path: Path, text: str) -> None:
    root = release.write(tmp_path / "coco")
    (root / "annotations" / "panoptic_val2017.json").write_text(text)
    with pytest.raises(FormatError) as caught:
        convert("coco", root, tmp_path / "out", splits=["val"])
    assert "panoptic_val2017.json" in caught.value.where[0]


def test_the_trap_of_the_wrapped_count_is_told(release: Release, tmp_path: Path) -> None:
    from entitybench.converters.panoptic_table import _hint

    assert "16-bit" in _hint(["x.png"] * 65_536, "folder")
    assert "16-bit" not in _hint(["x.png"] * 65_535, "folder")


def test_an_error_keeps_what_was_written_and_the_next_run_goes_on(
    release: Release, tmp_path: Path, files_of: Callable[[Path], dict[str, bytes]]
) -> None:
    root, out = release.write(tmp_path / "coco"), tmp_path / "out"
    convert("coco", root, tmp_path / "whole", splits=["val"])
    last = root / "annotations" / "panoptic_val2017" / f"{STEMS[2]}.png"
    good = last.read_bytes()
    last.write_bytes(good[:-20])
    with pytest.raises(FormatError, match="not a readable PNG"):
        convert("coco", root, out, splits=["val"])
    kept = {p.name: p.stat().st_mtime_ns for p in (out / "coco_entity_val" / "maps").iterdir()}
    assert set(kept) == {f"{stem}.png" for stem in STEMS[:2]}
    last.write_bytes(good)
    (summary,) = convert("coco", root, out, splits=["val"])
    assert not summary.already_there
    assert files_of(out) == files_of(tmp_path / "whole")
    for name, time in kept.items():
        assert (out / "coco_entity_val" / "maps" / name).stat().st_mtime_ns == time


def test_a_source_that_is_there_twice_must_be_named(release: Release, tmp_path: Path) -> None:
    release.write(tmp_path / "sources" / "one")
    release.write(tmp_path / "sources" / "two")
    with pytest.raises(ConflictError, match="more than once") as caught:
        convert("coco", tmp_path / "sources", tmp_path / "out")
    assert [Path(place).name for place in caught.value.where] == ["one", "two"]


def test_what_is_not_coco_is_refused_with_the_layout(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(MissingDataError) as caught:
        convert("coco", tmp_path, tmp_path / "out")
    assert str(caught.value) == (
        f"COCO panoptic 2017 was not found in `{tmp_path}`\n"
        "expected: `annotations/panoptic_val2017.json` and `annotations/panoptic_val2017/` "
        "(or the archive in its place), or `panoptic_annotations_trainval2017.zip`; "
        "photographs, if any, in `val2017/` or `val2017.zip`\n"
        "\n"
        "hint: http://images.cocodataset.org/annotations/panoptic_annotations_trainval2017.zip "
        "needs no registration; pass its folder with `--source`"
    )
    assert not (tmp_path / "out").exists()


# --- real samples --------------------------------------------------------------


def counts(realdata: Path) -> dict[str, Any]:
    expected = json.loads((realdata / "expected_entity_counts.json").read_text())
    found: dict[str, Any] = expected["coco_panoptic"]
    return found


@pytest.mark.parametrize("folder", ["coco_panoptic/assembled_official_layout", "mini_archives"])
def test_real_samples_have_the_counts_that_are_expected(
    realdata: Path, tmp_path: Path, folder: str
) -> None:
    summaries = convert("coco", realdata / folder, tmp_path)
    seen = {}
    for summary in summaries:
        entity_set = open_path(summary.path)
        assert list(validate(entity_set)) == []
        for image in entity_set:
            areas = image.map.areas
            seen[f"{image.id}.png"] = {
                "split": f"{entity_set.header.split}2017",
                "size": [image.row.width, image.row.height],
                "segments": image.map.num_ids,
                "crowd": image.map.num_crowds,
                "entities": image.map.num_entities,
                "void_px": int(areas[0]),
                "crowd_px": int(areas[image.map.num_entities + 1 :].sum()),
            }
    assert seen == counts(realdata)
    assert {s.name: s.photographs_absent for s in summaries} == {
        "coco_entity_train": 1,
        "coco_entity_val": 0,
    }


def test_real_samples_keep_partition_areas_and_provenance(realdata: Path, tmp_path: Path) -> None:
    root = realdata / "coco_panoptic" / "assembled_official_layout"
    for summary in convert("coco", root, tmp_path):
        entity_set = open_path(summary.path)
        stem = f"panoptic_{entity_set.header.split}2017"
        table = json.loads((root / "annotations" / f"{stem}.json").read_text())
        assert len(entity_set.header.categories) == 133
        things = {c["id"]: bool(c["isthing"]) for c in table["categories"]}
        for entry in table["annotations"]:
            image = entity_set[entry["file_name"].removesuffix(".png")]
            with Image.open(root / "annotations" / stem / entry["file_name"]) as png:
                r, g, b = np.moveaxis(np.asarray(png, dtype=np.int64), 2, 0)
            ids, dense = r + 256 * g + 65_536 * b, image.map.to_array()
            rows = [*image.row.entities, *image.row.crowd]
            ordered = sorted(entry["segments_info"], key=lambda s: s["iscrowd"])  # stable
            assert [row.source_id for row in rows] == [s["id"] for s in ordered]
            for row, segment in zip(rows, ordered, strict=True):
                assert np.array_equal(dense == row.id, ids == segment["id"])
                assert row.area == segment["area"]
                assert list(row.bbox) == segment["bbox"]
                assert row.category_id == segment["category_id"]
                assert row.isthing is things[segment["category_id"]]


def test_folder_and_archives_give_the_same_real_sets(
    realdata: Path, tmp_path: Path, files_of: Callable[[Path], dict[str, bytes]]
) -> None:
    convert("coco", realdata / "coco_panoptic", tmp_path / "a")
    convert("coco", realdata / "mini_archives", tmp_path / "b")
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")


def test_no_file_of_the_source_is_touched(release: Release, tmp_path: Path) -> None:
    root = release.write_archives(tmp_path / "coco", 8, 8)
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in root.rglob("*") if p.is_file()}
    convert("coco", root, tmp_path / "out")
    assert before == {
        p: (p.read_bytes(), p.stat().st_mtime_ns) for p in root.rglob("*") if p.is_file()
    }


def test_a_png_announced_as_huge_is_not_decompressed(release: Release, tmp_path: Path) -> None:
    """The size in a PNG's header is compared before any pixel is made."""
    png = bytearray(release.val.pngs[f"{STEMS[0]}.png"])
    png[16:24] = struct.pack(">II", 9_000, 9_000)
    png[29:33] = struct.pack(">I", zlib.crc32(png[12:29]))
    release.val.pngs[f"{STEMS[0]}.png"] = bytes(png)
    with pytest.raises(FormatError, match="the PNG is 9000×9000, the image is 32×24"):
        convert("coco", release.write(tmp_path / "coco"), tmp_path / "out", splits=["val"])
