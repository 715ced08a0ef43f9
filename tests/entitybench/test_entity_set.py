"""Reading, writing, packing and refusing entity sets."""

from __future__ import annotations

import errno
import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from entitybench import entity_writer
from entitybench.candidates import Candidates
from entitybench.entity_map import EntityMap
from entitybench.entity_set import Category, EntitySet, Model, Provenance, open_path
from entitybench.entity_writer import EntityWriter, pack
from entitybench.errors import (
    ConflictError,
    EntityBenchError,
    FormatError,
    MissingDataError,
    OverlapError,
    UnknownNameError,
)
from entitybench.map_png import PALETTE
from entitybench.registry import known_sets, open_entity_set, open_union
from entitybench.validation import validate


def scene(seed: int, entities: int = 6, shape: tuple[int, int] = (17, 23)) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, entities + 1, shape)


def write_truth(path: Path, count: int = 4, stop_after: int | None = None, **more: Any) -> None:
    """Write a small set; raises after some images, as a crash would."""
    with EntityWriter(path, kind="ground_truth", source="made", **more) as writer:
        for index in range(count):
            if index == stop_after:
                raise RuntimeError
            ids = scene(index)
            entity_map = EntityMap.from_array(ids, entities=[2, 1, 3, 4, 5], crowds=[6])
            origins = [Provenance(10 + n, 7, n % 2 == 0) for n in range(5)]
            writer.add(
                f"{index:04}", entity_map, entities=origins, crowds=[Provenance("group", 8, True)]
            )


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def truth(tmp_path: Path) -> EntitySet:
    write_truth(tmp_path / "made_entity_val", categories=[Category(7, "thing", True)])
    return open_path(tmp_path / "made_entity_val")


def test_what_was_written_is_read_back(truth: EntitySet) -> None:
    assert truth.ids == ("0000", "0001", "0002", "0003")
    assert len(truth) == 4
    assert truth.header.num_entities == 20
    for index, image in enumerate(truth):
        expected = EntityMap.from_array(scene(index), entities=[2, 1, 3, 4, 5], crowds=[6])
        assert image.map == expected
        assert truth[image.id].map == expected
        assert image.scores is None
        assert [row.id for row in image.row.entities] == [1, 2, 3, 4, 5]
        assert [row.area for row in image.row.entities] == expected.areas[1:6].tolist()
        assert image.row.crowd[0].source_id == "group"
        assert image.row.entities[3].source_id == 13
        assert image.row.file_name == f"{index:04}.jpg"


def test_predictions_keep_exact_scores_and_empty_entities(tmp_path: Path) -> None:
    score = 0.1 + 0.2
    with EntityWriter(tmp_path / "p", model=Model("m", ("a",), thresholded=0.05)) as writer:
        empty = EntityMap.from_array([[1, 0]], entities=[1, 2])
        writer.add("x", empty, [score, 1 / 3])
        writer.add("none", np.zeros((2, 2), dtype=int), [])
    image = open_path(tmp_path / "p")["x"]
    assert image.scores is not None
    assert image.scores.tolist() == [score, 1 / 3]
    assert image.row.entities[1].area == 0
    assert image.row.entities[1].bbox == (0, 0, 0, 0)
    nobody = open_path(tmp_path / "p")["none"].scores
    assert nobody is not None
    assert nobody.shape == (0,)


def test_a_map_is_a_palette_png_whose_pixels_are_the_ids(truth: EntitySet) -> None:
    with Image.open(truth.path / "maps" / "0000.png") as image:
        assert image.mode == "P"
        assert bytes(image.palette.getdata()[1]) == PALETTE if image.palette else False
        assert np.array_equal(np.asarray(image), truth["0000"].map.to_array())


@pytest.mark.parametrize(("count", "mode"), [(255, "P"), (256, "I;16"), (65_535, "I;16")])
def test_maps_of_many_entities(tmp_path: Path, count: int, mode: str) -> None:
    ids = np.arange(1, count + 1).reshape(1, -1)
    with EntityWriter(tmp_path / "s", kind="ground_truth") as writer:
        writer.add("x", ids)
    opened = open_path(tmp_path / "s")
    with Image.open(opened.path / "maps" / "x.png") as image:
        assert image.mode == mode
    assert np.array_equal(opened["x"].map.to_array(), ids)


def test_more_than_65535_entities_are_refused(tmp_path: Path) -> None:
    ids = np.arange(1, 70_001).reshape(100, 700)
    with (
        pytest.raises(FormatError, match="70,000 ids do not fit"),
        EntityWriter(tmp_path / "s", kind="ground_truth") as writer,
    ):
        writer.add("x", ids)


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    write_truth(tmp_path / "a" / "set")
    write_truth(tmp_path / "b" / "set")
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")


@pytest.mark.parametrize("stop", [0, 1, 3])
def test_an_interrupted_set_is_unfinished_and_resumes_to_the_same_bytes(
    tmp_path: Path, stop: int
) -> None:
    write_truth(tmp_path / "whole" / "set")
    path = tmp_path / "cut" / "set"
    with pytest.raises(RuntimeError):
        write_truth(path, stop_after=stop)
    with pytest.raises(MissingDataError, match="unfinished"):
        open_path(path)
    write_truth(path)
    assert files_of(tmp_path / "cut") == files_of(tmp_path / "whole")


def cut_line(folder: Path) -> None:
    table = folder / "images.jsonl"
    table.write_bytes(table.read_bytes()[:-7])


def leave_temporary(folder: Path) -> None:
    (folder / "maps" / "0003.png.tmp").write_bytes(b"half")


def break_map(folder: Path) -> None:
    png = folder / "maps" / "0001.png"
    png.write_bytes(png.read_bytes()[:40])


def lose_map(folder: Path) -> None:
    (folder / "maps" / "0000.png").unlink()


def map_without_line(folder: Path) -> None:
    (folder / "maps" / "0003.png").write_bytes(b"whole, but its line was never written")


@pytest.mark.parametrize(
    "damage", [cut_line, leave_temporary, break_map, lose_map, map_without_line]
)
def test_resuming_mends_what_a_kill_or_a_power_cut_leaves(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    write_truth(tmp_path / "whole" / "set")
    path = tmp_path / "cut" / "set"
    with pytest.raises(RuntimeError):
        write_truth(path, stop_after=3)
    damage(path)
    write_truth(path)
    assert files_of(tmp_path / "cut") == files_of(tmp_path / "whole")


def test_a_complete_set_is_recognised_and_not_touched(tmp_path: Path) -> None:
    write_truth(tmp_path / "set")
    before = files_of(tmp_path)
    with EntityWriter(tmp_path / "set", kind="ground_truth", source="made") as writer:
        assert writer.already_complete
        assert writer.finished == {"0000", "0001", "0002", "0003"}
    assert files_of(tmp_path) == before


def test_a_complete_set_refuses_another_image(tmp_path: Path) -> None:
    write_truth(tmp_path / "set")
    writer = EntityWriter(tmp_path / "set", kind="ground_truth", source="made")
    with pytest.raises(ConflictError, match="is finished"):
        writer.add("0001", [[1]])


@pytest.mark.parametrize("stop", [2, None])
def test_other_options_are_refused_by_name_and_replaced_on_demand(
    tmp_path: Path, stop: int | None
) -> None:
    try:
        write_truth(tmp_path / "set", stop_after=stop, options={"profile": "raw"})
    except RuntimeError:
        assert stop is not None
    with pytest.raises(ConflictError, match="other options") as caught:
        write_truth(tmp_path / "set", options={"profile": "cleaned"})
    assert "option profile: there 'raw', now 'cleaned'" in str(caught.value)
    write_truth(tmp_path / "set", options={"profile": "cleaned"}, overwrite=True)
    assert open_path(tmp_path / "set").header.options == {"profile": "cleaned"}


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("ten years")
    for overwrite in (False, True):
        with pytest.raises(ConflictError, match="not an entity set"):
            write_truth(tmp_path, overwrite=overwrite)
    assert (tmp_path / "thesis.tex").read_text() == "ten years"


def test_disk_full_is_told_and_resumable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_truth(tmp_path / "whole" / "set")
    path = tmp_path / "full" / "set"
    real = Path.write_bytes

    def full(self: Path, data: bytes) -> int:
        if self.name == "0002.png.tmp":
            real(self, data[:10])
            raise OSError(errno.ENOSPC, "No space left on device", str(self))
        return real(self, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(EntityBenchError, match="No space left on device"):
            write_truth(path)
    assert not list(path.rglob("*.tmp"))
    write_truth(path)
    assert files_of(tmp_path / "full") == files_of(tmp_path / "whole")


def test_a_zip_is_read_in_place_and_packs_to_the_same_bytes(
    tmp_path: Path, truth: EntitySet
) -> None:
    pack(truth, tmp_path / "one.zip")
    pack(truth, tmp_path / "two.zip")
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    zipped = open_path(tmp_path / "one.zip")
    assert zipped.ids == truth.ids
    assert [image.map for image in zipped] == [image.map for image in truth]
    assert zipped["0002"].map == truth["0002"].map
    assert pickle.loads(pickle.dumps(zipped["0002"])).map == truth["0002"].map
    assert list(validate(zipped)) == []


def test_a_zip_made_by_hand_from_the_folder_is_read(tmp_path: Path, truth: EntitySet) -> None:
    with zipfile.ZipFile(tmp_path / "hand.zip", "w") as archive:
        for name, data in files_of(truth.path).items():
            archive.writestr(f"made_entity_val/{name}", data)
    assert open_path(tmp_path / "hand.zip")["0001"].map == truth["0001"].map


def test_writing_a_zip_resumes_too(tmp_path: Path) -> None:
    write_truth(tmp_path / "whole.zip", name="set")
    with pytest.raises(RuntimeError):
        write_truth(tmp_path / "cut.zip", name="set", stop_after=2)
    assert not (tmp_path / "cut.zip").exists()
    write_truth(tmp_path / "cut.zip", name="set")
    assert (tmp_path / "cut.zip").read_bytes() == (tmp_path / "whole.zip").read_bytes()
    assert not (tmp_path / "cut.zip.unfinished").exists()


def test_masks_are_resolved_on_demand_and_counted(tmp_path: Path) -> None:
    masks = np.array([[[1, 1, 0]], [[0, 1, 1]]], dtype=bool)
    with EntityWriter(tmp_path / "p", model="m") as writer:
        with pytest.raises(OverlapError, match="predictions overlap") as caught:
            writer.add_masks("x", masks, [0.5, 0.9])
        assert "x: entities 1 and 2 share 1 pixel" in str(caught.value)
        writer.add_masks("x", masks, [0.5, 0.9], overlap="resolve")
        writer.add_masks("y", Candidates.from_masks(masks[:1], [0.5]))
    opened = open_path(tmp_path / "p")
    assert opened["x"].map.to_array().tolist() == [[1, 2, 2]]
    assert opened.header.model is not None
    assert opened.header.model.resolved_images == 1


def test_resolved_images_survive_an_interruption(tmp_path: Path) -> None:
    masks = np.array([[[1, 1, 0]], [[0, 1, 1]]], dtype=bool)
    path = tmp_path / "p"
    writer = EntityWriter(path, model="m")
    writer.add_masks("x", masks, [0.5, 0.9], overlap="resolve")
    writer.__exit__(RuntimeError, RuntimeError(), None)
    with EntityWriter(path, model="m") as writer:
        writer.add_masks("x", masks, [0.5, 0.9], overlap="resolve")
        writer.add_masks("y", masks, [0.5, 0.9], overlap="resolve")
    model = open_path(path).header.model
    assert model is not None
    assert model.resolved_images == 2
    assert not (path / entity_writer.RESOLVED).exists()


@pytest.mark.parametrize(
    ("ids", "scores", "message"),
    [
        ([[1, 2]], [0.5], "2 entities need 2 scores"),
        ([[1, 2]], None, "need a score"),
        ([[1]], [float("nan")], "not in"),
        ([[1]], [1.01], "not in"),
        ([[1]], [-0.1], "not in"),
        ([[1]], [float("inf")], "not in"),
        ([[1.5]], [0.5], "holds integers"),
        ([1], [0.5], "two dimensions"),
    ],
)
def test_bad_predictions_are_refused(tmp_path: Path, ids: Any, scores: Any, message: str) -> None:
    with (
        pytest.raises(FormatError, match=message),
        EntityWriter(tmp_path / "p", model="m") as writer,
    ):
        writer.add("x", ids, scores)


def test_predictions_name_their_model(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="name of their model"):
        EntityWriter(tmp_path / "p")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("image_id", ["../../etc/passwd", "a/b", "ä ö", "..", "con:1", ".hidden"])
def test_an_image_id_never_leaves_the_folder(tmp_path: Path, image_id: str) -> None:
    with EntityWriter(tmp_path / "set", kind="ground_truth") as writer:
        writer.add(image_id, [[1]])
    opened = open_path(tmp_path / "set")
    assert opened[image_id].map.areas.tolist() == [0, 1]
    assert [p.parent for p in tmp_path.rglob("*.png")] == [tmp_path / "set" / "maps"]


def test_ids_that_differ_in_case_alone_get_files_of_their_own(tmp_path: Path) -> None:
    with EntityWriter(tmp_path / "set", kind="ground_truth") as writer:
        writer.add("A", [[1, 1]])
        writer.add("a", [[1, 0]])
    names = [p.name.lower() for p in (tmp_path / "set" / "maps").iterdir()]
    assert len(set(names)) == 2


def edit_row(entity_set: EntitySet, line: int, **changes: Any) -> None:
    table = entity_set.path / "images.jsonl"
    lines = table.read_text().splitlines()
    lines[line] = json.dumps(json.loads(lines[line]) | changes)
    table.write_text("\n".join(lines) + "\n")


def edit_header(entity_set: EntitySet, **changes: Any) -> None:
    header = entity_set.path / "entity_set.json"
    header.write_text(json.dumps(json.loads(header.read_text()) | changes))


@pytest.mark.parametrize("name", ["../../secret.png", "/etc/x.png", "maps/../x.png", "maps\\x.png"])
def test_a_map_name_that_leaves_the_set_is_refused(truth: EntitySet, name: str) -> None:
    edit_row(truth, 0, map=name)
    with pytest.raises(FormatError, match="not a plain name"):
        _ = truth["0000"].map


def test_a_newer_format_is_refused_with_advice(truth: EntitySet) -> None:
    edit_header(truth, format="entitybench/2", something_new=1)
    with pytest.raises(FormatError, match="entitybench/2") as caught:
        open_path(truth.path)
    assert "upgrade" in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1}', "not json", "\xff"])
def test_a_header_that_is_not_one(truth: EntitySet, text: str) -> None:
    (truth.path / "entity_set.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(FormatError) as caught:
        open_path(truth.path)
    assert "entity_set.json" in str(caught.value)


def test_a_line_that_is_not_json_is_named(truth: EntitySet) -> None:
    table = truth.path / "images.jsonl"
    table.write_text(table.read_text() + "{oops\n")
    with pytest.raises(FormatError) as caught:
        list(truth)
    assert "images.jsonl: line 5" in str(caught.value)


def gray_map(png: bytes) -> bytes:
    with Image.open(io.BytesIO(png)) as image:
        file = io.BytesIO()
        image.convert("RGB").save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda png: png[: len(png) // 2], "not a readable PNG"),
        (lambda png: b"GIF89a" + png, "not a PNG"),
        (gray_map, "mode RGB"),
    ],
    ids=["truncated", "another format", "another mode"],
)
def test_a_broken_map_is_named(
    truth: EntitySet, change: Callable[[bytes], bytes], message: str
) -> None:
    png = truth.path / "maps" / "0001.png"
    png.write_bytes(change(png.read_bytes()))
    with pytest.raises(FormatError, match=message) as caught:
        _ = truth["0001"].map
    assert "maps/0001.png" in str(caught.value)


def test_a_sound_set_has_no_findings(truth: EntitySet) -> None:
    assert list(validate(truth)) == []


def swap_maps(truth: EntitySet) -> None:
    one, two = (truth.path / "maps" / f"000{n}.png" for n in (0, 1))
    data = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(data)


def stray_file(truth: EntitySet) -> None:
    (truth.path / "maps" / "stray.png").write_bytes(b"")


def double_line(truth: EntitySet) -> None:
    table = truth.path / "images.jsonl"
    table.write_text(table.read_text() + table.read_text().splitlines()[0] + "\n")


def wrong_size(truth: EntitySet) -> None:
    edit_row(truth, 2, width=24)


def lost_entity(truth: EntitySet) -> None:
    row = json.loads((truth.path / "images.jsonl").read_text().splitlines()[0])
    edit_row(truth, 0, entities=row["entities"][:-1])


@pytest.mark.parametrize(
    ("damage", "finding"),
    [
        (swap_maps, "image 0000: entity 1: area is"),
        (stray_file, "`maps/stray.png` belongs to no image"),
        (double_line, "image 0000: listed twice"),
        (wrong_size, "the PNG is 23×17, the image is 24×17"),
        (lost_entity, "image 0000: ids are not 1…5 in order"),
        (lambda t: edit_header(t, num_images=5), "num_images is 5, the table has 4"),
        (lambda t: edit_header(t, num_entities=1), "num_entities is 1, the table has 20"),
        (lambda t: edit_header(t, content_hash="00"), "content_hash is 00"),
    ],
)
def test_validation_finds(
    truth: EntitySet, damage: Callable[[EntitySet], None], finding: str
) -> None:
    damage(truth)
    findings = list(validate(open_path(truth.path)))
    assert any(finding in line for line in findings), findings


def test_the_hash_ignores_provenance_and_order_but_not_pixels(tmp_path: Path) -> None:
    def digest(name: str, images: list[tuple[str, Any]], **more: Any) -> str:
        with EntityWriter(tmp_path / name, kind="ground_truth", **more) as writer:
            for image_id, ids in images:
                writer.add(image_id, ids)
        return open_path(tmp_path / name).header.content_hash

    images = [("a", scene(1)), ("b", scene(2))]
    whole = digest("one", images)
    assert digest("two", images[::-1], source="elsewhere", options={"x": 1}) == whole
    other = scene(2).copy()
    other[3, 3] = (other[3, 3] + 1) % 7
    assert digest("three", [images[0], ("b", other)]) != whole
    assert digest("four", [("a", scene(2)), ("b", scene(1))]) != whole
    parts = [int(digest(f"part{n}", [image]), 16) for n, image in enumerate(images)]
    assert f"{sum(parts) % 2**256:064x}" == whole


def test_names_are_looked_up_and_the_nearest_is_told(
    tmp_path: Path, truth: EntitySet, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack(truth, tmp_path / "zipped_entity_val.zip")
    assert list(known_sets(tmp_path)) == ["made_entity_val", "zipped_entity_val"]
    assert open_entity_set("zipped_entity_val", tmp_path).ids == truth.ids
    assert open_entity_set(truth.path).ids == truth.ids
    monkeypatch.setenv("ENTITYBENCH_DATA", str(tmp_path))
    assert open_entity_set("made_entity_val").ids == truth.ids
    with pytest.raises(UnknownNameError) as caught:
        open_entity_set("mad_entity_val")
    assert "did you mean `made_entity_val`?" in str(caught.value)
    assert "known: made_entity_val, zipped_entity_val" in str(caught.value)


def test_unions(tmp_path: Path, truth: EntitySet) -> None:
    write_truth(tmp_path / "b", 1)
    assert [s.header.name for s in open_union("made_entity_val+b", tmp_path)] == [
        "made_entity_val",
        "b",
    ]
    for wrong in ("b+b", "b+", "+"):
        with pytest.raises(FormatError, match="not a union"):
            open_union(wrong, tmp_path)


def test_the_table_is_streamed(tmp_path: Path) -> None:
    """3,000 images are written and read in less memory than their table takes."""
    import tracemalloc

    tiny = EntityMap.from_array([[1]])
    tracemalloc.start()
    with EntityWriter(tmp_path / "s", kind="ground_truth") as writer:
        for index in range(3000):
            writer.add(str(index), tiny)
        grown, _ = tracemalloc.get_traced_memory()
    assert grown < 3e6
    tracemalloc.reset_peak()
    assert sum(1 for _ in open_path(tmp_path / "s")) == 3000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4e6


def test_a_flipped_byte_in_a_map_is_noticed(truth: EntitySet) -> None:
    """Decoding alone ignores the checksums: ids would change in silence."""
    path = truth.path / "maps" / "0002.png"
    png = bytearray(path.read_bytes())
    for position in range(png.index(b"IDAT") + 6, png.index(b"IEND") - 8, 7):
        damaged = png.copy()
        damaged[position] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(FormatError, match=r"maps|PNG"):
            _ = truth["0002"].map
